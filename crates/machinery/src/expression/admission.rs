//! What the expressions of admission are about: `object`, `oldObject`, `request`, `namespaceObject`, `params` and `authorizer`
//! (`staging/src/k8s.io/apiserver/pkg/admission/plugin/cel/compile.go`).

use std::sync::LazyLock;

use serde_json::{Value as Json, json};

use super::{Compiler, Kind, Value};
use crate::schema::Schema;

/// The name of the variable that says what the user of a request may do, and of what is below it.
pub const AUTHORIZER: &str = "authorizer";

/// A compiler of expressions of admission. There is a variable `params` where its type is given.
#[must_use]
pub fn compiler<'a>(object: Kind<'a>, params: Option<Kind<'a>>) -> Compiler<'a> {
    let mut variables = vec![
        ("object", object),
        ("oldObject", object),
        ("request", Kind::Typed(request_schema(), false)),
        ("namespaceObject", Kind::Typed(namespace_schema(), false)),
        (AUTHORIZER, Kind::Authorizer),
        ("authorizer.requestResource", Kind::ResourceCheck),
    ];
    variables.extend(params.map(|params| ("params", params)));
    Compiler::new(&variables)
}

/// The value of `request`.
#[must_use]
pub fn request(request: &Json) -> Value {
    Value::typed(request, request_schema(), false)
}

/// The value of `namespaceObject`: what upstream shows of the namespace, or null.
#[must_use]
pub fn namespace(namespace: Option<&Json>) -> Value {
    namespace.map_or_else(|| Value::plain(&Json::Null), |namespace| Value::typed(namespace, namespace_schema(), false))
}

fn object(properties: Json) -> Json {
    json!({ "type": "object", "properties": properties })
}

fn texts(names: &[&str]) -> Json {
    object(
        names
            .iter()
            .map(|name| ((*name).to_owned(), json!({ "type": "string" })))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    )
}

fn schema(schema: Json) -> Schema {
    serde_json::from_value(schema).map(|schema| Schema::parse(&schema)).unwrap_or_default()
}

fn request_schema() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
        let text = json!({ "type": "string" });
        let kind = texts(&["group", "version", "kind"]);
        let resource = texts(&["group", "version", "resource"]);
        let list = json!({ "type": "array", "items": text });
        schema(object(json!({
            "kind": kind,
            "resource": resource,
            "subResource": text,
            "requestKind": kind,
            "requestResource": resource,
            "requestSubResource": text,
            "name": text,
            "namespace": text,
            "operation": text,
            "userInfo": object(json!({
                "username": text,
                "uid": text,
                "groups": list,
                "extra": { "type": "object", "additionalProperties": list },
            })),
            "dryRun": { "type": "boolean" },
            // What a value of either type is, is found out when it is evaluated, and so it is for any other.
            "options": { "x-kubernetes-int-or-string": true },
        })))
    });
    &SCHEMA
}

fn namespace_schema() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
        let text = json!({ "type": "string" });
        let time = json!({ "type": "string", "format": "date-time" });
        let list = json!({ "type": "array", "items": text });
        let map = json!({ "type": "object", "additionalProperties": text });
        let condition = object(json!({
            "type": text, "status": text, "lastTransitionTime": time, "message": text, "reason": text,
        }));
        schema(object(json!({
            "metadata": object(json!({
                "name": text,
                "generateName": text,
                "namespace": text,
                "labels": map,
                "annotations": map,
                "UID": text,
                "creationTimestamp": time,
                "deletionGracePeriodSeconds": { "type": "integer" },
                "deletionTimestamp": time,
                "generation": { "type": "integer" },
                "resourceVersion": text,
                "finalizers": list,
            })),
            "spec": object(json!({ "finalizers": list })),
            "status": object(json!({ "conditions": { "type": "array", "items": condition }, "phase": text })),
        })))
    });
    &SCHEMA
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::{TOTAL_LIMIT, Wanted};

    #[test]
    fn what_expressions_of_admission_are_about() {
        let compiler = compiler(Kind::Any, None);
        let asked = json!({
            "kind": { "group": "", "version": "v1", "kind": "Pod" }, "operation": "CREATE", "namespace": "a", "dryRun": false,
            "userInfo": { "username": "u", "groups": ["g"], "extra": { "k": ["v"] } }, "options": { "kind": "CreateOptions" },
        });
        let place = json!({ "metadata": { "name": "a", "labels": { "env": "prod" }, "creationTimestamp": "2026-01-01T00:00:00Z" } });
        let values = [
            ("request", request(&asked)),
            ("namespaceObject", namespace(Some(&place))),
            ("object", Value::plain(&Json::Null)),
        ];
        for text in [
            "request.kind.kind == 'Pod' && request.operation == 'CREATE' && request.namespace == 'a' && !request.dryRun",
            "'g' in request.userInfo.groups && request.userInfo.extra['k'] == ['v'] && request.options.kind == 'CreateOptions'",
            "!has(request.subResource) && !has(request.userInfo.uid) && object == null",
            "namespaceObject.metadata.labels['env'] == 'prod' && namespaceObject.metadata.creationTimestamp.getFullYear() == 2026",
        ] {
            let program = compiler.compile(text, Wanted::Bool).unwrap_or_else(|error| panic!("{text}: {error}"));
            let found = program.run(&values, &mut TOTAL_LIMIT.clone()).map(|found| found.as_bool());
            assert_eq!(found, Ok(Some(true)), "{text}");
        }
        for (text, why) in [
            ("request.nothing == ''", "undefined field 'nothing'"),
            ("request.object == null", "undefined field 'object'"),
            ("params.x == 1", "undeclared reference to 'params'"),
            ("namespaceObject.metadata.managedFields == []", "undefined field 'managedFields'"),
        ] {
            let found = compiler.compile(text, Wanted::Bool).map(|_| ()).unwrap_err().to_string();
            assert!(found.contains(why), "{text}: {found}");
        }
    }
}
