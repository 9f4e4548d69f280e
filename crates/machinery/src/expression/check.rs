//! What is wrong with an expression before it is ever evaluated: names and fields that do not exist, calls that no function
//! answers to. The texts are those of upstream's compiler.
//!
//! What is not known here is left to the evaluation: an expression that upstream accepts must be accepted.

use std::collections::HashMap;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, StructExpr, operators,
};

use super::cost::Types;
use super::library;
use super::mutation;
use super::names::{accessible, unescape};
use super::signatures::{self, Signature};
use super::types::{self, Type};
use crate::schema::Schema;

/// What an expression may speak of.
pub(super) struct Scope<'a> {
    /// The variables and their types; of those with one name the last one counts.
    pub(super) variables: Vec<(String, Type<'a>)>,
    /// Whether it may make objects ([`mutation`]).
    pub(super) makes_objects: bool,
}

/// Finds the type of an expression and those of its parts, given what it may speak of; or everything that is wrong, one
/// after the other.
pub(super) fn check<'a>(
    expression: &IdedExpr,
    source: &SourceInfo,
    Scope { variables, makes_objects }: Scope<'a>,
) -> Result<(Type<'a>, Types<'a>), String> {
    let mut checker = Checker { scopes: variables, makes_objects, errors: Vec::new(), types: Types::new(), source };
    let kind = checker.kind(expression);
    if checker.errors.is_empty() { Ok((kind, checker.types)) } else { Err(checker.errors.join("\n")) }
}

/// The name of a function with a dot in it, as `ip.isCanonical`, which is no method of what stands before the dot.
pub(super) fn namespaced(space: &IdedExpr, function: &str) -> Option<String> {
    let name = format!("{}.{function}", qualified(&space.expr)?);
    signatures::of(&name).is_some().then_some(name)
}

struct Checker<'a, 's> {
    scopes: Vec<(String, Type<'a>)>,
    makes_objects: bool,
    errors: Vec<String>,
    types: Types<'a>,
    source: &'s SourceInfo,
}

impl<'a> Checker<'a, '_> {
    /// Notes an error as upstream's compiler shows it: with the line and a mark under the place.
    fn wrong(&mut self, id: u64, what: &str) -> Type<'a> {
        let offset = self.source.offset_for(id).map_or(0, |(start, _)| start as usize);
        self.errors.push(mark(&self.source.source, offset, what));
        Type::Dyn
    }

    fn variable(&self, name: &str) -> Option<Type<'a>> {
        let name = name.trim_start_matches('.');
        self.scopes.iter().rev().find(|(known, _)| known == name).map(|(_, kind)| kind.clone())
    }

    fn kind(&mut self, expression: &IdedExpr) -> Type<'a> {
        let kind = self.find_kind(expression);
        self.types.insert(expression.id, kind.clone());
        kind
    }

    fn find_kind(&mut self, expression: &IdedExpr) -> Type<'a> {
        match &expression.expr {
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => Type::Bool,
                LiteralValue::Bytes(_) => Type::Bytes,
                LiteralValue::Double(_) => Type::Double,
                LiteralValue::Int(_) => Type::Int,
                LiteralValue::Null => Type::Null,
                LiteralValue::String(_) => Type::String,
                LiteralValue::UInt(_) => Type::Uint,
            },
            Expr::Ident(name) => match self.variable(name) {
                Some(kind) => kind,
                None if is_type_name(name) => Type::Kind,
                None => self.wrong(expression.id, &undeclared(name)),
            },
            Expr::Select(select) => {
                if !select.test
                    && let Some(name) = qualified(&expression.expr)
                {
                    // A variable may have a dot in its name: `authorizer.requestResource`.
                    if let Some(kind) = self.variable(&name) {
                        return kind;
                    }
                    if is_type_name(&name) {
                        return Type::Kind;
                    }
                }
                let operand = self.kind(&select.operand);
                let found = self.field(expression.id, &operand, &select.field);
                if select.test { Type::Bool } else { found }
            }
            Expr::Call(call) => self.call(expression.id, call),
            Expr::List(list) => {
                let mut item = Type::Free;
                for (index, element) in list.elements.iter().enumerate() {
                    let mut found = self.kind(element);
                    if list.optional_indices.contains(&index)
                        && let Type::Optional(value) = found
                    {
                        found = (*value).clone();
                    }
                    item = self.homogeneous(element.id, item, found);
                }
                Type::list(item)
            }
            Expr::Map(map) => {
                let (mut key, mut value) = (Type::Free, Type::Free);
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
                    let found = self.kind(&entry.key);
                    key = self.homogeneous(entry.key.id, key, found);
                    let mut found = self.kind(&entry.value);
                    if entry.optional
                        && let Type::Optional(inner) = found
                    {
                        found = (*inner).clone();
                    }
                    value = self.homogeneous(entry.value.id, value, found);
                }
                Type::map(key, value)
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(literal) => self.object(expression.id, literal),
            Expr::Unspecified => Type::Dyn,
        }
    }

    fn object(&mut self, id: u64, literal: &StructExpr) -> Type<'a> {
        let name = literal.type_name.trim_start_matches('.');
        if !self.makes_objects || !mutation::is_type(name) {
            return self.wrong(id, &undeclared(name));
        }
        for entry in &literal.entries {
            let EntryExpr::StructField(field) = &entry.expr else { continue };
            let mut found = self.kind(&field.value);
            if field.optional
                && let Type::Optional(value) = found
            {
                found = (*value).clone();
            }
            match mutation::field(name, &field.field) {
                None => drop(self.wrong(entry.id, &format!("undefined field '{}'", field.field))),
                Some(wanted) if fits(&wanted, &found, &mut HashMap::new()) => {}
                Some(wanted) => {
                    let what = format!(
                        "expected type of field '{}' is '{wanted}' but provided type is '{found}'",
                        field.field
                    );
                    self.wrong(entry.id, &what);
                }
            }
        }
        Type::Message(name.into())
    }

    /// Upstream: the items of a list that is written out are of one type.
    fn homogeneous(&mut self, id: u64, known: Type<'a>, found: Type<'a>) -> Type<'a> {
        match join(&known, &found) {
            Some(both) => both,
            None => self.wrong(id, &format!("expected type '{known}' but found '{found}'")),
        }
    }

    fn field(&mut self, id: u64, operand: &Type<'a>, name: &str) -> Type<'a> {
        match operand {
            Type::Free | Type::Dyn | Type::Open(_) => Type::Dyn,
            Type::Map(_, value) => (**value).clone(),
            Type::Optional(value) => match self.field(id, value, name) {
                already @ Type::Optional(_) => already,
                found => Type::optional(found),
            },
            Type::Object(schema, resource) => match property(schema, *resource, name) {
                Some(found) => found,
                None => self.wrong(id, &format!("undefined field '{name}'")),
            },
            Type::Api(api_type, whole) => match types::of_member(api_type, *whole, &unescape(name)) {
                Some(found) => found,
                None => self.wrong(id, &format!("undefined field '{name}'")),
            },
            Type::Message(type_name) => match mutation::field(type_name, name) {
                Some(found) => found,
                None => self.wrong(id, &format!("undefined field '{name}'")),
            },
            Type::Fields(fields) => match fields.get(name) {
                Some(found) => found.clone(),
                None => self.wrong(id, &format!("undefined field '{name}'")),
            },
            other => {
                let what = format!("type '{other}' does not support field selection");
                self.wrong(id, &what)
            }
        }
    }

    fn call(&mut self, id: u64, call: &CallExpr) -> Type<'a> {
        if call.func_name == operators::OPT_SELECT
            && let [operand, field] = call.args.as_slice()
        {
            let operand = self.kind(operand);
            let Expr::Literal(LiteralValue::String(name)) = &field.expr else { return Type::Dyn };
            return match self.field(id, &operand, name.inner()) {
                already @ Type::Optional(_) => already,
                found => Type::optional(found),
            };
        }
        let mut name = call.func_name.trim_start_matches('.').to_owned();
        let mut arguments = Vec::with_capacity(call.args.len() + 1);
        let mut method = false;
        if let Some(target) = &call.target {
            match namespaced(target, &call.func_name) {
                Some(namespaced) => name = namespaced,
                None => {
                    arguments.push(self.kind(target));
                    method = true;
                }
            }
        }
        for argument in &call.args {
            arguments.push(match &argument.expr {
                // What is written into a text may be of any types.
                Expr::List(list) if method && name == "format" => {
                    list.elements.iter().for_each(|element| drop(self.kind(element)));
                    Type::list(Type::Dyn)
                }
                _ => self.kind(argument),
            });
        }
        let known = self.makes_objects || !name.starts_with(mutation::NAMESPACE);
        let Some(signatures) = signatures::of(&name).filter(|_| known) else {
            return self.wrong(id, &undeclared(&name));
        };
        if matches!(name.as_str(), "matches" | "find" | "findAll")
            && let Some(Expr::Literal(LiteralValue::String(text))) =
                call.args.get(usize::from(!method)).map(|argument| &argument.expr)
            && let Err(why) = library::check_pattern(text.inner())
        {
            return self.wrong(id, &format!("invalid matches argument: {why}"));
        }
        let mut fitting = signatures.iter().filter(|signature| signature.method == method);
        let results: Vec<Type<'a>> = fitting.by_ref().filter_map(|signature| apply(signature, &arguments)).collect();
        match results.as_slice() {
            [] => {
                let shown: Vec<String> = arguments.iter().map(ToString::to_string).collect();
                let applied = match shown.split_first() {
                    Some((target, rest)) if method => format!("{target}.({})", rest.join(", ")),
                    _ => format!("({})", shown.join(", ")),
                };
                self.wrong(id, &format!("found no matching overload for '{name}' applied to '{applied}'"))
            }
            // Several may fit what is not known yet; then only what they agree on is known of the result.
            [first, rest @ ..] => {
                let same = rest.iter().all(|other| std::mem::discriminant(other) == std::mem::discriminant(first));
                if same { first.clone() } else { Type::Dyn }
            }
        }
    }

    fn comprehension(&mut self, comprehension: &ComprehensionExpr) -> Type<'a> {
        let range = self.kind(&comprehension.iter_range);
        let (first, second) = match &range {
            Type::Free | Type::Dyn => (Type::Dyn, Type::Dyn),
            Type::List(item) if comprehension.iter_var2.is_some() => (Type::Int, (**item).clone()),
            Type::List(item) => ((**item).clone(), Type::Dyn),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            other => {
                let what = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.wrong(comprehension.iter_range.id, &what);
                (Type::Dyn, Type::Dyn)
            }
        };
        let mut gathered = self.kind(&comprehension.accu_init);
        let depth = self.scopes.len();
        self.scopes.push((comprehension.accu_var.clone(), gathered.clone()));
        self.scopes.push((comprehension.iter_var.clone(), first));
        self.scopes.extend(comprehension.iter_var2.clone().map(|name| (name, second)));
        self.kind(&comprehension.loop_cond);
        let step = self.kind(&comprehension.loop_step);
        gathered = join(&gathered, &step).unwrap_or(Type::Dyn);
        self.scopes.truncate(depth);
        self.scopes.push((comprehension.accu_var.clone(), gathered));
        let result = self.kind(&comprehension.result);
        self.scopes.truncate(depth);
        result
    }
}

/// What a field of an object is, by the name that a rule writes.
fn property<'a>(schema: &'a Schema, resource: bool, written: &str) -> Option<Type<'a>> {
    if resource {
        match written {
            "apiVersion" | "kind" => return Some(Type::String),
            "metadata" => return Some(Type::Object(types::metadata(), false)),
            _ => {}
        }
    }
    let by_name = |name: &str| {
        let property = schema.declared(name)?;
        types::of_schema(property, property.is_embedded_resource())
    };
    let name = unescape(written);
    let plain = super::names::escape(&name).is_some_and(|escaped| escaped == written) || accessible(written);
    plain.then(|| by_name(&name)).flatten()
}

fn undeclared(name: &str) -> String {
    format!("undeclared reference to '{}' (in container '')", name.trim_start_matches('.'))
}

fn is_type_name(name: &str) -> bool {
    matches!(
        name,
        "bool"
            | "bytes"
            | "double"
            | "dyn"
            | "int"
            | "list"
            | "map"
            | "null_type"
            | "string"
            | "type"
            | "uint"
            | "google.protobuf.Duration"
            | "google.protobuf.Timestamp"
            | "optional_type"
            | "net.IP"
            | "net.CIDR"
            | "kubernetes.URL"
            | "kubernetes.Quantity"
            | "kubernetes.NamedFormat"
            | "kubernetes.Semver"
    )
}

/// `a.b.c`, where an expression is written so.
fn qualified(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => Some(format!("{}.{}", qualified(&select.operand.expr)?, select.field)),
        _ => None,
    }
}

/// The type of both; none when there is no such.
fn join<'a>(left: &Type<'a>, right: &Type<'a>) -> Option<Type<'a>> {
    Some(match (left, right) {
        (Type::Free, other) | (other, Type::Free) => other.clone(),
        (Type::Dyn, _) | (_, Type::Dyn) => Type::Dyn,
        (Type::List(left), Type::List(right)) => Type::list(join(left, right)?),
        (Type::Map(key, value), Type::Map(other_key, other)) => Type::map(join(key, other_key)?, join(value, other)?),
        (Type::Optional(left), Type::Optional(right)) => Type::optional(join(left, right)?),
        (Type::Library(left), Type::Library(right)) if left != right => return None,
        (Type::Message(left), Type::Message(right)) if left != right => return None,
        // Objects are told apart by nothing but their schemas, which say the same in many places. A literal map has
        // fields as well.
        (left, right) if left.has_fields() && right.has_fields() => {
            if std::mem::discriminant(left) == std::mem::discriminant(right) { left.clone() } else { Type::Dyn }
        }
        (object, Type::Map(..)) | (Type::Map(..), object) if object.has_fields() => Type::Dyn,
        // What may be null is not told apart.
        (Type::Null, other) | (other, Type::Null) => match other {
            Type::Null => Type::Null,
            _ => Type::Dyn,
        },
        (left, right) if std::mem::discriminant(left) == std::mem::discriminant(right) => left.clone(),
        _ => return None,
    })
}

/// The type of a call, if the arguments fit.
fn apply<'a>(signature: &Signature, arguments: &[Type<'a>]) -> Option<Type<'a>> {
    if signature.arguments.len() != arguments.len() {
        return None;
    }
    let mut bound = HashMap::new();
    let fits = signature.arguments.iter().zip(arguments).all(|(wanted, found)| fits(wanted, found, &mut bound));
    fits.then(|| fill(&signature.result, &bound))
}

fn fits<'a>(wanted: &Type<'static>, found: &Type<'a>, bound: &mut HashMap<char, Type<'a>>) -> bool {
    match (wanted, found) {
        (Type::Open('N'), found) => found.is_open() || matches!(found, Type::Int | Type::Uint | Type::Double),
        (Type::Open(name), found) => {
            let both = match bound.get(name) {
                Some(known) => join(known, found),
                None => Some(found.clone()),
            };
            both.map(|both| bound.insert(*name, both)).is_some()
        }
        (Type::Dyn, _) => true,
        (wanted, found) if found.is_open() => {
            open(wanted, bound);
            true
        }
        (Type::List(wanted), Type::List(found)) | (Type::Optional(wanted), Type::Optional(found)) => {
            fits(wanted, found, bound)
        }
        (Type::Map(key, value), Type::Map(found_key, found)) => {
            fits(key, found_key, bound) && fits(value, found, bound)
        }
        (Type::Library(wanted), Type::Library(found)) => wanted == found,
        (Type::List(_) | Type::Map(..) | Type::Optional(_) | Type::Library(_), _) => false,
        (wanted, found) => std::mem::discriminant(wanted) == std::mem::discriminant(found),
    }
}

/// What a signature leaves open is not known where the argument is not.
fn open(wanted: &Type<'static>, bound: &mut HashMap<char, Type<'_>>) {
    match wanted {
        Type::Open(name) => {
            bound.entry(*name).or_insert(Type::Dyn);
        }
        Type::List(item) | Type::Optional(item) => open(item, bound),
        Type::Map(key, value) => {
            open(key, bound);
            open(value, bound);
        }
        _ => {}
    }
}

fn fill<'a>(kind: &Type<'static>, bound: &HashMap<char, Type<'a>>) -> Type<'a> {
    match kind {
        Type::Open(name) => bound.get(name).cloned().unwrap_or(Type::Free),
        Type::List(item) => Type::list(fill(item, bound)),
        Type::Optional(value) => Type::optional(fill(value, bound)),
        Type::Map(key, value) => Type::map(fill(key, bound), fill(value, bound)),
        other => other.clone(),
    }
}

/// An error at a place of a text: `offset` counts characters.
pub(super) fn mark(text: &str, offset: usize, what: &str) -> String {
    let mut start = 0;
    for (number, line) in text.split('\n').enumerate() {
        let length = line.chars().count();
        if offset <= start + length {
            let column = offset - start;
            let dots = ".".repeat(column);
            return format!("ERROR: <input>:{}:{}: {what}\n | {line}\n | {dots}^", number + 1, column + 1);
        }
        start += length + 1;
    }
    format!("ERROR: <input>:1:1: {what}")
}
