//! Conditions in the Common Expression Language under which a webhook or a policy is asked.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::MatchCondition;
use machinery::expression::{CompileError, Kind, Program, Value, Wanted};
use machinery::field::{ErrorList, FieldError, Path};
use machinery::status::ApiError;
use serde_json::Value as Json;

use super::Attributes;
use super::webhook::review;
use crate::object::Object;

/// The most conditions there may be; upstream's figure.
const MAX: usize = 64;

/// What expressions of admission are about.
const VARIABLES: [(&str, Kind<'static>); 3] = [("object", Kind::Any), ("oldObject", Kind::Any), ("request", Kind::Any)];

/// Conditions, compiled.
pub(crate) struct Conditions(Vec<Condition>);

struct Condition {
    name: String,
    program: Result<Arc<Program>, String>,
}

impl Conditions {
    /// Compiles what has been checked before.
    pub(crate) fn new<'a>(conditions: impl Iterator<Item = &'a MatchCondition>) -> Self {
        let compiled = conditions.map(|condition| {
            let program = compile(&condition.expression, &[], Wanted::Bool);
            Condition { name: condition.name.clone(), program }
        });
        Self(compiled.collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of them hold. Upstream: one that does not hold decides, whatever fails; the error says what fails.
    pub(crate) fn hold(&self, variables: &[(&str, Value)], left: &mut i64) -> Result<bool, String> {
        let mut failures = Vec::new();
        for Condition { name, program } in &self.0 {
            let found = match program {
                Ok(program) => program.run(variables, left).map_err(|error| error.to_string()),
                Err(why) => Err(why.clone()),
            };
            match found.map(|found| found.as_bool()) {
                Ok(Some(true)) => {}
                Ok(Some(false)) => return Ok(false),
                Ok(None) => failures.push(format!("match condition {name:?} evaluated to no bool")),
                Err(why) => failures.push(format!("expression of match condition {name:?} resulted in error: {why}")),
            }
        }
        match failures.len() {
            0 => Ok(true),
            1 => Err(failures.remove(0)),
            _ => Err(format!("[{}]", failures.join(", "))),
        }
    }
}

/// The values of the variables for one write.
pub(crate) struct Facts {
    object: Value,
    old: Value,
    request: Value,
}

impl Facts {
    pub(crate) fn new(attributes: &Attributes<'_>, object: Option<&dyn Object>) -> Result<Self, ApiError> {
        let encode = |object: Option<&dyn Object>| match object {
            Some(object) => attributes.codec.encode(object).map(|json| Value::plain(&json)),
            None => Ok(Value::plain(&Json::Null)),
        };
        let request = Value::plain(&review::describe(attributes, object));
        Ok(Self { object: encode(object)?, old: encode(attributes.old)?, request })
    }

    pub(crate) fn variables(&self) -> Vec<(&'static str, Value)> {
        vec![("object", self.object.clone()), ("oldObject", self.old.clone()), ("request", self.request.clone())]
    }
}

/// Compiles an expression of admission, with further variables of its own. The error is upstream's text.
pub(crate) fn compile(text: &str, further: &[&str], wanted: Wanted) -> Result<Arc<Program>, String> {
    let mut variables = VARIABLES.to_vec();
    variables.extend(further.iter().map(|name| (*name, Kind::Any)));
    Program::compile(text.trim(), &variables, wanted).map(Arc::new).map_err(|error| match error {
        CompileError::Type => format!("must evaluate to {}", wanted.name()),
        error @ CompileError::Invalid(_) => error.to_string(),
    })
}

/// Says what is wrong with conditions.
pub fn check_conditions(errors: &mut ErrorList, path: &Path, conditions: &[MatchCondition], further: &[&str]) {
    if conditions.len() > MAX {
        errors.push(FieldError::too_many(path, conditions.len(), MAX));
    }
    for (index, MatchCondition { name, expression }) in conditions.iter().enumerate() {
        let path = path.index(index);
        let place = path.child("expression");
        if expression.trim().is_empty() {
            errors.push(FieldError::required(&place, ""));
        } else if let Err(why) = compile(expression, further, Wanted::Bool) {
            errors.push(FieldError::invalid(&place, expression, why));
        }
        let place = path.child("name");
        if name.is_empty() {
            errors.push(FieldError::required(&place, ""));
        } else {
            errors.push_messages(&place, name, machinery::validate::qualified_name(name));
            if conditions[..index].iter().any(|other| other.name == *name) {
                errors.push(FieldError::duplicate(&place, name));
            }
        }
    }
}
