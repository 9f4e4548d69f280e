//! Objects that expressions make: `Object.spec{replicas: 1}` and `JSONPatch{op: "add", path: "/a", value: 1}`
//! (`staging/src/k8s.io/apiserver/pkg/cel/mutation`).
//!
//! The type of an object is named by the path of the field that it is for. Once an expression is checked, [`lower`] makes of each
//! object the call of a function with the name of the type and a map.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue, MapEntryExpr, MapExpr};
use cel::common::traits::{Container, Indexer, Zeroer};
use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelInt, CelNull, CelString, CelTimestamp, CelUInt, DYN_TYPE, Kind, STRING_TYPE, Type,
};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError};
use serde_json::{Map as JsonMap, Value as Json};

use super::comprehensions::parts_mut;
use super::library::wrong;
use super::types::Type as Known;
use super::value::{Map, copies, equal, owned};
use crate::depth::{MAX_DEPTH, TooDeep};

/// The type of a whole object.
pub(super) const OBJECT: &str = "Object";
/// The type of an operation of a JSON patch.
pub(super) const JSON_PATCH: &str = "JSONPatch";
/// The name that `jsonpatch.escapeKey` begins with, which is there where these types are.
pub(super) const NAMESPACE: &str = "jsonpatch.";

/// The function that makes an object.
const NEW: &str = "@object";

/// How many bytes of JSON one expression may make: upstream takes no request that is larger (`pkg/server/config.go`,
/// `MaxRequestBodyBytes`). Values share their parts, so that what is made may be much larger than what it is made of.
const MAX_BYTES: usize = 3 << 20;

/// Whether that is the name of a type of objects.
pub(super) fn is_type(name: &str) -> bool {
    name == JSON_PATCH || name == OBJECT || name.strip_prefix(OBJECT).is_some_and(|rest| rest.starts_with('.'))
}

/// The type of a field of an object; nothing where it has no such field. What fields `Object` has is not known here.
pub(super) fn field(type_name: &str, field: &str) -> Option<Known<'static>> {
    match (type_name, field) {
        (JSON_PATCH, "op" | "path" | "from") => Some(Known::String),
        (JSON_PATCH, "value") => Some(Known::Dyn),
        (JSON_PATCH, _) => None,
        _ => Some(Known::Dyn),
    }
}

/// Adds the function that makes objects, and `jsonpatch.escapeKey`, to an environment.
pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload(NEW, NEW, vec![STRING_TYPE, DYN_TYPE], |arguments| {
        let [name, fields] = arguments.as_slice() else { return Err(wrong("argument is missing")) };
        let (Some(name), Some(values)) = (name.downcast_ref::<CelString>(), fields.as_indexer()) else {
            return Err(wrong("argument is of another type"));
        };
        let mut made: Vec<(Box<str>, _)> = Vec::new();
        for key in copies(fields.as_ref()) {
            let Some(key_name) = key.downcast_ref::<CelString>() else { continue };
            made.push((key_name.inner().into(), owned(values.get(key.as_ref())?.as_ref())));
        }
        Ok(CowVal::owned(Object(Arc::new(Made { type_name: name.inner().into(), fields: made.into_iter().collect() }))))
    })?;
    env.add_overload("jsonpatch.escapeKey", "string_jsonpatch_escapeKey_string", vec![STRING_TYPE], |arguments| {
        let Some(key) = arguments.first().and_then(|key| key.downcast_ref::<CelString>()) else {
            return Err(wrong("argument is of another type"));
        };
        Ok(CowVal::owned(CelString::from(key.inner().replace('~', "~0").replace('/', "~1"))))
    })
}

/// Makes calls of the objects in an expression.
pub(super) fn lower(expression: &mut IdedExpr) {
    parts_mut(expression).into_iter().for_each(lower);
    let id = expression.id;
    let Expr::Struct(literal) = &mut expression.expr else { return };
    let text =
        |text: &str| IdedExpr { id, expr: Expr::Literal(LiteralValue::String(CelString::from(text.to_owned()))) };
    let fields = std::mem::take(&mut literal.entries).into_iter().filter_map(|entry| {
        let EntryExpr::StructField(field) = entry.expr else { return None };
        let entry = MapEntryExpr { key: text(&field.field), value: field.value, optional: field.optional };
        Some(IdedEntryExpr { id: entry.key.id, expr: EntryExpr::MapEntry(entry) })
    });
    let map = IdedExpr { id, expr: Expr::Map(MapExpr { entries: fields.collect() }) };
    let args = vec![text(literal.type_name.trim_start_matches('.')), map];
    expression.expr = Expr::Call(CallExpr { func_name: NEW.to_owned(), target: None, args });
}

/// An object that an expression has made. Copies share it.
#[derive(Debug, Clone)]
pub(super) struct Object(Arc<Made>);

#[derive(Debug)]
struct Made {
    type_name: Box<str>,
    fields: Map,
}

static OBJECT_TYPE: Type = Type::new_unspecified_type(OBJECT);

impl Object {
    /// Whether both are of one type and have the same fields, counting what was compared.
    pub(super) fn same(&self, other: &Self, compared: &mut u64) -> bool {
        self.0.type_name == other.0.type_name && equal(&self.0.fields, &other.0.fields, compared)
    }
}

impl Val for Object {
    fn get_type(&self) -> &Type {
        &OBJECT_TYPE
    }

    fn cel_type() -> &'static Type {
        &OBJECT_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(&self.0.fields)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)> {
        Some(&self.0.fields)
    }

    fn as_zeroer(&self) -> Option<&dyn Zeroer> {
        Some(&self.0.fields)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.downcast_ref::<Self>().is_some_and(|other| self.same(other, &mut 0))
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}

impl StaticVal for Object {}

/// An apply configuration as JSON, from the `Object` that an expression has made.
///
/// # Errors
/// Why it is none.
pub(super) fn configuration(value: &dyn Val) -> Result<Json, String> {
    Writer::default().json(value, Some(OBJECT), 1)
}

/// A JSON patch, from the list of `JSONPatch` that an expression has made.
///
/// # Errors
/// Why it is none.
pub(super) fn patch(value: &dyn Val) -> Result<Json, String> {
    let mut writer = Writer::default();
    let operation = |item: Box<dyn Val>| {
        let Some(Object(made)) = item.downcast_ref::<Object>().filter(|object| &*object.0.type_name == JSON_PATCH)
        else {
            let found = item.get_type().name();
            return Err(format!(
                "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch, got element of {found}"
            ));
        };
        let mut operation = JsonMap::new();
        for name in ["op", "path", "from", "value"] {
            let Ok(field) = made.fields.get(&CelString::from(name)) else {
                // Upstream: an operation and a path that are left out are empty.
                if matches!(name, "op" | "path") {
                    operation.insert(name.to_owned(), "".into());
                }
                continue;
            };
            operation.insert(name.to_owned(), writer.json(field.as_ref(), None, 1)?);
        }
        if operation.get("from").is_some_and(|from| from == "") {
            operation.remove("from");
        }
        Ok(Json::Object(operation))
    };
    copies(value).into_iter().map(operation).collect()
}

/// Makes JSON of values.
struct Writer {
    /// How many bytes there may be yet.
    left: usize,
}

impl Default for Writer {
    fn default() -> Self {
        Self { left: MAX_BYTES }
    }
}

impl Writer {
    /// A value as JSON; an object must be of the type that its place asks for, where that is known.
    fn json(&mut self, value: &dyn Val, place: Option<&str>, depth: usize) -> Result<Json, String> {
        if depth > MAX_DEPTH {
            return Err(TooDeep.to_string());
        }
        if let Some(Object(made)) = value.downcast_ref::<Object>() {
            let name = &*made.type_name;
            if let Some(expected) = place.filter(|expected| *expected != name) {
                return Err(format!(
                    "type mismatch: unexpected type name {name:?}, expected {expected:?}, which matches field name path from root Object type"
                ));
            }
            return self.fields(&made.fields, depth, |field| Some(format!("{name}.{field}").into()));
        }
        let scalar = self.scalar(value)?;
        if let Some(scalar) = scalar {
            return Ok(scalar);
        }
        match value.get_type().kind() {
            Kind::List => {
                self.take(2)?;
                copies(value).iter().map(|item| self.json(item.as_ref(), place, depth + 1)).collect()
            }
            Kind::Map => self.fields(value, depth, |_| place.map(Into::into)),
            _ => Err(format!("a value of type {} has no JSON form", value.get_type().name())),
        }
    }

    fn scalar(&mut self, value: &dyn Val) -> Result<Option<Json>, String> {
        let json: Json = if value.downcast_ref::<CelNull>().is_some() {
            Json::Null
        } else if let Some(flag) = value.downcast_ref::<CelBool>() {
            (*flag.inner()).into()
        } else if let Some(number) = value.downcast_ref::<CelInt>() {
            (*number.inner()).into()
        } else if let Some(number) = value.downcast_ref::<CelUInt>() {
            (*number.inner()).into()
        } else if let Some(number) = value.downcast_ref::<CelDouble>() {
            (*number.inner()).into()
        } else if let Some(text) = value.downcast_ref::<CelString>() {
            self.take(text.inner().len())?;
            text.inner().into()
        } else if let Some(bytes) = value.downcast_ref::<CelBytes>() {
            self.take(bytes.inner().len() * 4 / 3)?;
            STANDARD.encode(bytes.inner()).into()
        } else if let Some(time) = value.downcast_ref::<CelTimestamp>() {
            time.inner().to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true).into()
        } else {
            return Ok(None);
        };
        self.take(4)?;
        Ok(Some(json))
    }

    fn fields<'p>(
        &mut self,
        value: &dyn Val,
        depth: usize,
        place: impl Fn(&str) -> Option<std::borrow::Cow<'p, str>>,
    ) -> Result<Json, String> {
        let values = value.as_indexer().ok_or_else(|| "a map without values has no JSON form".to_owned())?;
        self.take(2)?;
        let mut fields = JsonMap::new();
        for key in copies(value) {
            let Some(name) = key.downcast_ref::<CelString>().map(CelString::inner) else {
                return Err(format!("map key is of type {}, not string", key.get_type().name()));
            };
            self.take(name.len() + 4)?;
            let found = values.get(key.as_ref()).map_err(|error: ExecutionError| error.to_string())?;
            fields.insert(name.to_owned(), self.json(found.as_ref(), place(name).as_deref(), depth + 1)?);
        }
        Ok(fields.into())
    }

    fn take(&mut self, bytes: usize) -> Result<(), String> {
        self.left =
            self.left.checked_sub(bytes).ok_or_else(|| format!("the result is larger than {MAX_BYTES} bytes"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::expression::admission;
    use crate::expression::{Compiler, Kind, TOTAL_LIMIT, Value, Wanted};

    fn compiler() -> Compiler<'static> {
        admission::compiler(Kind::Any, None).mutating()
    }

    fn make(text: &str, wanted: Wanted) -> Result<serde_json::Value, String> {
        let program = compiler().compile(text, wanted).map_err(|error| error.to_string())?;
        let object = json!({ "spec": { "replicas": 2, "names": ["a", "b"], "text": "x".repeat(1000) } });
        let values = [("object", Value::plain(&object))];
        let found = program.run(&values, &mut TOTAL_LIMIT.clone()).map_err(|error| error.to_string())?;
        if wanted == Wanted::Object { found.to_configuration() } else { found.to_json_patch() }
    }

    #[test]
    fn objects_and_patches() {
        for (text, wanted, expect) in [
            ("Object{}", Wanted::Object, json!({})),
            (
                "Object{spec: Object.spec{replicas: object.spec.replicas + 1, names: object.spec.names}}",
                Wanted::Object,
                json!({ "spec": { "replicas": 3, "names": ["a", "b"] } }),
            ),
            (
                "Object{metadata: Object.metadata{labels: {'a/b': 'c'}, ?uid: object.?uid}, other: 1.5}",
                Wanted::Object,
                json!({ "metadata": { "labels": { "a/b": "c" } }, "other": 1.5 }),
            ),
            (
                "object.spec.names.size() > 1 ? Object{spec: Object.spec{items: [Object.spec.items{name: 'x'}]}} : Object{}",
                Wanted::Object,
                json!({ "spec": { "items": [{ "name": "x" }] } }),
            ),
            (
                "Object{metadata: Object.metadata{annotations: {'@type': 'Object.spec'}}}",
                Wanted::Object,
                json!({ "metadata": { "annotations": { "@type": "Object.spec" } } }),
            ),
            (
                "Object{a: string(Object{b: 1}.b + 1), c: Object{b: 1} == Object{b: 1}, d: has(Object{b: 1}.e)}",
                Wanted::Object,
                json!({ "a": "2", "c": true, "d": false }),
            ),
            (
                "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b~c'), value: {'x': [1, 2]}}]",
                Wanted::JsonPatch,
                json!([{ "op": "add", "path": "/metadata/labels/a~1b~0c", "value": { "x": [1, 2] } }]),
            ),
            (
                "object.spec.names.map(n, JSONPatch{op: 'add', path: '/' + n, value: Object.spec{name: n}})",
                Wanted::JsonPatch,
                json!([{ "op": "add", "path": "/a", "value": { "name": "a" } }, { "op": "add", "path": "/b", "value": { "name": "b" } }]),
            ),
            (
                "object.spec.replicas == 2 ? [JSONPatch{op: 'move', from: '/a', path: '/b'}] : []",
                Wanted::JsonPatch,
                json!([{ "op": "move", "from": "/a", "path": "/b" }]),
            ),
        ] {
            assert_eq!(make(text, wanted), Ok(expect), "{text}");
        }
    }

    #[test]
    fn what_makes_no_object_is_told() {
        let large = format!(
            "[JSONPatch{{op: 'add', path: '/a', value: {}}}]",
            (0..12).fold("object.spec".to_owned(), |text, _| format!("[dyn({text})].map(x, [x, x])"))
        );
        for (text, wanted, why) in [
            ("'x'", Wanted::Object, "must evaluate to Object but got string"),
            ("object", Wanted::Object, "must evaluate to Object but got dyn"),
            ("Object.spec{}", Wanted::Object, "must evaluate to Object but got Object.spec"),
            ("[1]", Wanted::JsonPatch, "must evaluate to list(JSONPatch) but got list(int)"),
            ("[]", Wanted::JsonPatch, "must evaluate to list(JSONPatch) but got list(dyn)"),
            ("[Object{}, Object.spec{}] == []", Wanted::JsonPatch, "expected type 'Object' but found 'Object.spec'"),
            (
                "[JSONPatch{op: 1}]",
                Wanted::JsonPatch,
                "expected type of field 'op' is 'string' but provided type is 'int'",
            ),
            ("[JSONPatch{what: '1'}]", Wanted::JsonPatch, "undefined field 'what'"),
            ("Other{}", Wanted::Object, "undeclared reference to 'Other'"),
            ("Object{a: nothing}", Wanted::Object, "undeclared reference to 'nothing'"),
            ("Object{a: {1: 2}}", Wanted::Object, "map key is of type int, not string"),
            ("Object{a: duration('1s')}", Wanted::Object, "has no JSON form"),
            (
                "Object{spec: Object.status{}}",
                Wanted::Object,
                "type mismatch: unexpected type name \"Object.status\", expected \"Object.spec\", which matches field name path from root Object type",
            ),
            (large.as_str(), Wanted::JsonPatch, "the result is larger than 3145728 bytes"),
        ] {
            let found = make(text, wanted).unwrap_err();
            assert!(found.contains(why), "{text}: {found}");
        }
        let others = admission::compiler(Kind::Any, None);
        for text in ["Object{} == null", "jsonpatch.escapeKey('a') == 'a'"] {
            assert!(others.compile(text, Wanted::Any).is_err(), "only what mutates makes objects: {text}");
        }
    }
}
