//! The rules of a schema in the Common Expression Language (`x-kubernetes-validations`): compiled once with the schema, and
//! evaluated for each object that is written.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;
use serde_json::Value as Json;

use super::Schema;
use super::place::Place;
use crate::api_types::ListType;
use crate::expression::{self, CompileError, Failure, Kind, Program, TOTAL_LIMIT, Value, Wanted};
use crate::field::{ErrorKind, ErrorList, FieldError};

/// The longest message that an expression may make, in bytes.
const MESSAGE_MAX: usize = 5 * 1024;

/// A rule about the values of a schema.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    source: ValidationRule,
    pub(super) program: Result<Arc<Program>, Error>,
    pub(super) message: Option<Result<Arc<Program>, Error>>,
    /// Where it puts its errors, below the place of the value.
    pub(super) field: Result<String, String>,
    /// Whether it is about a change.
    pub(super) transition: bool,
}

/// Why a rule does not compile.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Error {
    /// The schema leaves open what the values are.
    Unsupported(String),
    /// The text.
    Invalid(String),
}

impl PartialEq for Rule {
    /// Under the same schema, what is written alike means the same.
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Rule {
    /// Compiles a rule about the values of a schema; `resource` when they are whole objects of the API.
    pub(super) fn compile(source: &ValidationRule, schema: &Schema, resource: bool) -> Self {
        let old = match source.optional_old_self {
            Some(true) => Kind::Optional(schema, resource),
            _ => Kind::Typed(schema, resource),
        };
        let variables = [("self", Kind::Typed(schema, resource)), ("oldSelf", old)];
        let compile = |text: &str, wanted: Wanted, kind: &str, prefix: &str| {
            if !expression::is_known(schema, resource) {
                return Err(Error::Unsupported(format!(
                    "rule declared on schema that does not support validation rules type: '{}' x-kubernetes-preserve-unknown-fields: '{}'",
                    schema.kind.map_or("", super::Type::name),
                    schema.preserve
                )));
            }
            Program::compile(text, &variables, wanted).map(Arc::new).map_err(|error| {
                Error::Invalid(match error {
                    CompileError::Invalid(why) => format!("{prefix}compilation failed: {why}"),
                    CompileError::Type { .. } => format!("{kind} must evaluate to a {}", wanted.name()),
                })
            })
        };
        let program = compile(&source.rule, Wanted::Bool, "cel expression", "");
        let message = source.message_expression.as_deref().filter(|text| !text.trim().is_empty());
        let message = message.map(|text| compile(text, Wanted::String, "messageExpression", "messageExpression "));
        let transition = program.as_ref().is_ok_and(|program| program.mentions("oldSelf"));
        let field = source.field_path.as_deref().filter(|path| !path.is_empty());
        let field = field.map_or(Ok(String::new()), |path| field_path(path, schema));
        Self { source: source.clone(), program, message, field, transition }
    }

    /// The message, or the rule itself.
    fn shown(&self) -> &str {
        match self.source.message.as_deref() {
            Some(message) if !message.is_empty() => message.trim(),
            _ => self.source.rule.trim(),
        }
    }

    fn default_message(&self) -> String {
        match self.source.message.as_deref() {
            Some(message) if !message.is_empty() => message.trim().to_owned(),
            _ => format!("failed rule: {}", self.shown()),
        }
    }
}

/// A value before and after, and whether what is around it stayed the same.
#[derive(Clone, Copy)]
struct Change<'a> {
    new: &'a Json,
    old: Option<&'a Json>,
    /// Whether the value or one that it is part of is as it was: then it is not refused for what it was before.
    same: bool,
}

/// What upstream shows of a value whose rule could not be evaluated: its type.
fn kind_of(schema: &Schema) -> Json {
    schema.kind.map_or("", super::Type::name).into()
}

impl Schema {
    /// Evaluates the rules for an object, whose version, kind and metadata are given beside it, and says which it breaks.
    pub fn evaluate(&self, new: (&Json, &[(&str, Json)]), old: Option<(&Json, &[(&str, Json)])>) -> ErrorList {
        if !self.ruled {
            return ErrorList::new();
        }
        let mut run = Run { errors: ErrorList::new(), left: TOTAL_LIMIT };
        let change = Change { new: new.0, old: old.map(|old| old.0), same: false };
        let values = (!self.rules.is_empty()).then(|| {
            let whole = |(body, around): (&Json, &[(&str, Json)])| Value::whole(body, self, around);
            (whole(new), old.map(whole))
        });
        run.schema(self, change, Place::Root, values);
        run.errors
    }
}

struct Run {
    errors: ErrorList,
    /// The budget; below zero when it is spent, and nothing more is evaluated.
    left: i64,
}

impl Run {
    fn schema(
        &mut self,
        schema: &Schema,
        change: Change<'_>,
        place: Place<'_>,
        values: Option<(Value, Option<Value>)>,
    ) {
        if !schema.ruled || change.new.is_null() || self.left < 0 {
            return;
        }
        if !schema.rules.is_empty() {
            let make = |json: &Json| Value::typed(json, schema, schema.embedded);
            let (new, old) = values.unwrap_or_else(|| (make(change.new), change.old.map(make)));
            for rule in &schema.rules {
                self.rule(schema, rule, &new, old.as_ref(), change, place);
            }
        }
        match change.new {
            Json::Object(fields) => self.fields(schema, fields, change, place),
            Json::Array(items) => self.items(schema, items, change, place),
            _ => {}
        }
    }

    fn fields(
        &mut self,
        schema: &Schema,
        fields: &serde_json::Map<String, Json>,
        change: Change<'_>,
        place: Place<'_>,
    ) {
        for (name, new) in fields {
            let named = schema.properties.get(name.as_str());
            let Some(below) = named.or_else(|| schema.additional_schema()).filter(|schema| schema.ruled) else {
                continue;
            };
            let old =
                change.old.filter(|_| !schema.map_atomic).and_then(|old| old.get(name)).filter(|old| !old.is_null());
            let place = match named {
                Some(_) => Place::Field(&place, name),
                None => Place::Key(&place, name),
            };
            self.schema(below, Change { new, old, same: change.same || old == Some(new) }, place, None);
        }
    }

    fn items(&mut self, schema: &Schema, items: &[Json], change: Change<'_>, place: Place<'_>) {
        let Some(below) = schema.items().filter(|items| items.ruled) else { return };
        let old = change.old.and_then(Json::as_array).filter(|_| schema.list_type == ListType::Map);
        for (index, new) in items.iter().enumerate() {
            let same_keys = |old: &&Json| schema.list_map_keys().all(|key| old.get(key) == new.get(key));
            // What is at the same place, as nearly always, is found at once.
            let old = old.and_then(|old| old.get(index).filter(same_keys).or_else(|| old.iter().find(same_keys)));
            self.schema(
                below,
                Change { new, old, same: change.same || old == Some(new) },
                Place::Item(&place, index),
                None,
            );
        }
    }

    fn rule(
        &mut self,
        schema: &Schema,
        rule: &Rule,
        new: &Value,
        old: Option<&Value>,
        change: Change<'_>,
        place: Place<'_>,
    ) {
        if self.left < 0 {
            return;
        }
        let program = match &rule.program {
            Ok(program) => program,
            Err(Error::Invalid(why) | Error::Unsupported(why)) => {
                self.refuse(schema, place, format!("rule compile error: {why}"));
                return;
            }
        };
        let optional = rule.source.optional_old_self == Some(true);
        if rule.transition && old.is_none() && !optional {
            return;
        }
        if self.left == 0 {
            self.exhausted(schema, place);
            return;
        }
        let mut variables = vec![("self", new.clone())];
        if rule.transition {
            match (optional, old) {
                (true, old) => variables.push(("oldSelf", Value::optional(old.cloned()))),
                (false, Some(old)) => variables.push(("oldSelf", old.clone())),
                (false, None) => {}
            }
        }
        let total = self.left;
        match program.run(&variables, &mut self.left) {
            Ok(found) if found.as_bool() == Some(true) => {}
            Ok(_) if !rule.transition && change.same => {}
            Ok(_) => {
                let detail = self.message(rule, &variables, total);
                self.broken(rule, change, place, detail);
            }
            Err(Failure::Exhausted) => self.exhausted(schema, place),
            Err(Failure::Expensive) if total < expression::CALL_LIMIT => self.exhausted(schema, place),
            Err(error @ Failure::Expensive) => {
                let detail = format!(
                    "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                    rule.shown()
                );
                self.refuse(schema, place, detail);
            }
            Err(Failure::Evaluation(why)) if why.starts_with("no such overload") => {
                let detail = format!(
                    "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {}",
                    rule.shown()
                );
                self.refuse(schema, place, detail);
            }
            Err(Failure::Evaluation(why)) => {
                self.refuse(schema, place, format!("{why} evaluating rule: {}", rule.shown()));
            }
        }
    }

    /// The message of a rule that is broken; the fixed one where the expression for it has no value.
    fn message(&mut self, rule: &Rule, variables: &[(&str, Value)], total: i64) -> String {
        let made = match &rule.message {
            Some(Ok(program)) if total > 0 => program.run(variables, &mut self.left).ok(),
            _ => None,
        };
        let made = made.as_ref().and_then(Value::as_str).map(str::trim);
        let usable = |text: &&str| !text.is_empty() && text.len() <= MESSAGE_MAX && !text.contains('\n');
        made.filter(usable).map_or_else(|| rule.default_message(), str::to_owned)
    }

    fn broken(&mut self, rule: &Rule, change: Change<'_>, place: Place<'_>, detail: String) {
        let mut field = place.or_nil();
        if let Ok(below) = &rule.field
            && !below.is_empty()
        {
            field = match place {
                Place::Root => below.clone(),
                place => format!("{place}.{below}"),
            };
        }
        let (kind, value, detail) = match rule.source.reason.as_deref() {
            Some("FieldValueForbidden") => (ErrorKind::Forbidden, None, detail),
            Some("FieldValueRequired") => (ErrorKind::Required, None, detail),
            Some("FieldValueDuplicate") => (ErrorKind::Duplicate, simple(change.new), String::new()),
            _ => (ErrorKind::Invalid, simple(change.new), detail),
        };
        self.errors.push(FieldError { kind, field, value, detail });
    }

    fn refuse(&mut self, schema: &Schema, place: Place<'_>, detail: String) {
        let value = Some(kind_of(schema));
        self.errors.push(FieldError { kind: ErrorKind::Invalid, field: place.or_nil(), value, detail });
    }

    fn exhausted(&mut self, schema: &Schema, place: Place<'_>) {
        self.left = -1;
        let detail = "validation failed due to running out of cost budget, no further validation rules will be run";
        self.refuse(schema, place, detail.to_owned());
    }
}

/// Upstream shows what is simple, and leaves out objects and lists.
fn simple(value: &Json) -> Option<Json> {
    (!value.is_object() && !value.is_array()).then(|| value.clone())
}

/// Reads `.spec.names['a.b']`, which must be there in the schema.
fn field_path(text: &str, schema: &Schema) -> Result<String, String> {
    let mut found = String::new();
    let mut schema = schema;
    let mut rest = text;
    while !rest.is_empty() {
        let name: String;
        if let Some(quoted) = rest.strip_prefix("['") {
            let end = quoted.find("']").ok_or("unexpected end of JSON path")?;
            name = quoted[..end].to_owned();
            rest = &quoted[end + 2..];
        } else if let Some(plain) = rest.strip_prefix('.') {
            let end = plain.find(['.', '[']).unwrap_or(plain.len());
            name = plain[..end].to_owned();
            rest = &plain[end..];
        } else {
            let token = rest.split(['.', '[', ']']).next().unwrap_or_default();
            return Err(format!("expected [ or . but got: {token}"));
        }
        if name.is_empty() {
            return Err("unexpected end of JSON path".to_owned());
        }
        match schema.properties.get(name.as_str()) {
            Some(property) => {
                if !found.is_empty() {
                    found.push('.');
                }
                found.push_str(&name);
                schema = property;
            }
            None => {
                schema = schema.additional_schema().ok_or("does not refer to a valid field")?;
                found = format!("{found}[{name}]");
            }
        }
    }
    Ok(found)
}
