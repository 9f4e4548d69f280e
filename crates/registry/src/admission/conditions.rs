//! Conditions in the Common Expression Language under which a webhook or a policy is asked, and what all expressions of admission
//! are evaluated with.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::MatchCondition;
use machinery::Verb;
use machinery::expression::{
    Authorizer, Check, Compiler, Decision, Evaluation, Failure, Kind, MATCH_CONDITIONS_LIMIT, Program, Value,
    Variables, Wanted, admission,
};
use machinery::field::{ErrorList, FieldError, Path};
use machinery::status::ApiError;
use serde_json::Value as Json;

use super::scope::Match;
use super::webhook::review;
use super::{Attributes, scope};
use crate::kind::Subresource;
use crate::object::Object;
use crate::table::{Resource, ResourceInfo};
use crate::user::User;
use crate::{Access, Registry};

/// The most conditions there may be; upstream's figure.
const MAX: usize = 64;

/// Conditions, compiled.
pub(crate) struct Conditions(Vec<Condition>);

struct Condition {
    expression: String,
    program: Result<Program, String>,
}

/// The compiler of expressions of admission, with the variable `params` where there is a kind of them.
pub(crate) fn compiler(params: bool) -> Compiler<'static> {
    admission::compiler(Kind::Any, params.then_some(Kind::Any))
}

impl Conditions {
    /// Compiles what has been checked before.
    pub(crate) fn new<'a>(conditions: impl Iterator<Item = &'a MatchCondition>, params: bool) -> Self {
        let compiler = compiler(params);
        let compiled = conditions.map(|MatchCondition { expression, .. }| {
            let program = compiler.compile(expression.trim(), Wanted::Bool).map_err(|error| error.to_string());
            Condition { expression: expression.clone(), program }
        });
        Self(compiled.collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of them hold. Upstream: one that does not hold decides, whatever fails; the error says what fails
    /// (`pkg/admission/plugin/webhook/matchconditions/matcher.go`).
    pub(crate) fn hold(&self, values: Vec<(&'static str, Value)>) -> Result<bool, String> {
        let evaluation = Evaluation::new(values, Arc::<Variables>::default(), MATCH_CONDITIONS_LIMIT);
        let mut failures = Vec::new();
        for Condition { expression, program } in &self.0 {
            match evaluate(&evaluation, expression, program) {
                Ok(found) => match found.as_bool() {
                    Some(true) => {}
                    Some(false) => return Ok(false),
                    None => {
                        let kind = found.type_name();
                        failures.push(format!("expression '{expression}' must evaluate to bool but got {kind}"));
                    }
                },
                Err(Broken::Budget(why)) => return Err(why),
                Err(Broken::Expression(why)) => failures.push(why),
            }
        }
        match failures.len() {
            0 => Ok(true),
            1 => Err(failures.remove(0)),
            _ => Err(format!("[{}]", failures.join(", "))),
        }
    }
}

/// Why an expression of admission has no value.
pub(crate) enum Broken {
    /// It failed.
    Expression(String),
    /// All expressions together cost too much; none further is evaluated.
    Budget(String),
}

/// Evaluates an expression of admission (`pkg/admission/plugin/cel/activation.go`).
pub(crate) fn evaluate(
    evaluation: &Evaluation,
    expression: &str,
    program: &Result<Program, String>,
) -> Result<Value, Broken> {
    let program = program.as_ref().map_err(|why| Broken::Expression(format!("compilation error: {why}")))?;
    evaluation.run(program).map_err(|failure| match failure {
        Failure::Exhausted => Broken::Budget(failure.to_string()),
        other => Broken::Expression(format!("expression '{expression}' resulted in error: {other}")),
    })
}

/// What is known of one write: the values of the variables but for those of a binding.
pub(crate) struct Facts {
    object: Value,
    old: Value,
    request: Value,
    authorizer: Arc<dyn Authorizer>,
    check: Check,
}

impl Facts {
    /// The facts of a write as who matched it sees them.
    pub(crate) fn new(
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        found: &Match,
    ) -> Result<Self, ApiError> {
        let json = object.map(|object| shown(attributes, object, found.row())).transpose()?;
        Self::of_shown(attributes, object, &json.unwrap_or_default(), found)
    }

    /// The same, of an object that has been [`shown`].
    pub(crate) fn of_shown(
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        json: &Json,
        found: &Match,
    ) -> Result<Self, ApiError> {
        let row = found.row();
        let old = attributes.old.map(|old| shown(attributes, old, row)).transpose()?;
        let mut request = review::describe(attributes, object);
        if let Some(row) = row {
            review::describe_as(&mut request, attributes, row.info());
        }
        let info = attributes.info;
        let check = Check::Resource {
            group: info.group.clone(),
            resource: info.plural.clone(),
            subresource: attributes.subresource.map(Subresource::name).unwrap_or_default().to_owned(),
            namespace: attributes.request_namespace(object).to_owned(),
            name: attributes.object_name(object.or(attributes.old)).to_owned(),
        };
        let authorizer = RequestAuthorizer { registry: attributes.registry.clone(), user: attributes.user.clone() };
        Ok(Self {
            object: Value::plain(json),
            old: Value::plain(&old.unwrap_or_default()),
            request: admission::request(&request),
            authorizer: Arc::new(authorizer),
            check,
        })
    }

    /// The values of the variables, with the namespace, which is null for match conditions as it is upstream, and the parameters
    /// of a policy that has any.
    pub(crate) fn values(&self, namespace: &Value, params: Option<&Value>) -> Vec<(&'static str, Value)> {
        let check = Value::resource_check(Arc::clone(&self.authorizer), self.check.clone());
        let mut values = vec![
            ("object", self.object.clone()),
            ("oldObject", self.old.clone()),
            ("request", self.request.clone()),
            ("namespaceObject", namespace.clone()),
            (admission::AUTHORIZER, Value::authorizer(Arc::clone(&self.authorizer))),
            ("authorizer.requestResource", check),
        ];
        values.extend(params.map(|params| ("params", params.clone())));
        values
    }
}

/// An object as JSON, in the version of a row where that is another one than asked for.
pub(super) fn shown(
    attributes: &Attributes<'_>,
    object: &dyn Object,
    row: Option<&Resource>,
) -> Result<Json, ApiError> {
    let Some(row) = row.filter(|_| is_whole(attributes)) else { return attributes.codec.encode(object) };
    let asked = asked(attributes)?;
    let mut stored = Vec::new();
    asked.encode(object, &mut stored)?;
    let served = row
        .served(&stored.into())
        .map_err(|error| ApiError::internal(format!("failed to convert object version: {error}")))?;
    serde_json::from_slice(&served).map_err(ApiError::internal)
}

/// The row of the resource of a request.
pub(super) fn asked(attributes: &Attributes<'_>) -> Result<Resource, ApiError> {
    let ResourceInfo { group, version, plural, .. } = attributes.info;
    let resources = attributes.registry.resources();
    let asked = resources.get(group, version, plural).map(Resource::clone);
    asked.ok_or_else(|| ApiError::internal("the resource of the request is served no longer"))
}

/// Whether the objects of a request are those of the resource itself, and none that a subresource takes.
pub(super) fn is_whole(attributes: &Attributes<'_>) -> bool {
    attributes.subresource.is_none_or(|subresource| subresource.kind(&attributes.info.kind).is_none())
}

/// The namespace of a request, for `namespaceObject`.
pub(crate) fn namespace(attributes: &Attributes<'_>) -> Result<Value, ApiError> {
    let entry = scope::namespace_of(attributes);
    let json =
        entry.map(|entry| serde_json::from_slice::<Json>(&entry.value)).transpose().map_err(ApiError::internal)?;
    Ok(admission::namespace(json.as_ref()))
}

/// Says what the user of a request may do.
struct RequestAuthorizer {
    registry: Registry,
    user: User,
}

impl Authorizer for RequestAuthorizer {
    fn decide(&self, account: Option<(&str, &str)>, verb: &str, check: &Check) -> Decision {
        let account = account.map(|(namespace, name)| User::service_account(namespace, name));
        let user = account.as_ref().unwrap_or(&self.user);
        let verb = Verb::from(verb);
        let escalation = &self.registry.0.escalation;
        let answer = match check {
            Check::Path(path) => escalation.may_reach(user, verb, path),
            Check::Resource { group, resource, subresource, namespace, name } => {
                escalation.may(user, &Access { verb, group, version: "*", resource, subresource, namespace, name })
            }
        };
        Decision { allowed: answer.is_ok(), reason: answer.err().unwrap_or_default() }
    }
}

/// Says what is wrong with conditions, which may speak of `params` where there is a kind of them.
pub fn check_conditions(errors: &mut ErrorList, path: &Path, conditions: &[MatchCondition], params: bool) {
    if conditions.len() > MAX {
        errors.push(FieldError::too_many(path, conditions.len(), MAX));
    }
    let compiler = compiler(params);
    let mut seen = HashSet::new();
    for (index, MatchCondition { name, expression }) in conditions.iter().enumerate() {
        let path = path.index(index);
        let place = path.child("expression");
        if expression.trim().is_empty() {
            errors.push(FieldError::required(&place, ""));
        } else if let Err(why) = compiler.compile(expression.trim(), Wanted::Bool) {
            errors.push(FieldError::invalid(&place, expression.trim(), why.to_string()));
        }
        let place = path.child("name");
        if name.is_empty() {
            errors.push(FieldError::required(&place, ""));
        } else {
            errors.push_messages(&place, name, machinery::validate::qualified_name(name));
            if !seen.insert(name.as_str()) {
                errors.push(FieldError::duplicate(&place, name));
            }
        }
    }
}
