//! ValidatingAdmissionPolicy: judges requests by the policies that are stored
//! (`staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/validating/dispatcher.go`).

use async_trait::async_trait;
use machinery::status::{ApiError, Cause, Reason};
use serde::Serialize;

use super::conditions::{self, Facts};
use super::policy::{self, Action, Annotation, Binding, Judgement, Policy};
use super::scope::Match;
use super::{AdmissionPlugin, Attributes, scope};
use crate::audit;
use crate::object::Object;

/// The longest value of an audit annotation, in bytes; upstream's figure.
const ANNOTATION_MAX: usize = 10 * 1024;

/// The key of the audit annotation that says which validations failed.
const FAILURE_KEY: &str = "validation.policy.admission.k8s.io/validation_failure";

/// The admission plugin of that name.
pub struct ValidatingAdmissionPolicy;

#[async_trait]
impl AdmissionPlugin for ValidatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        policy::gives_rights(attributes) || (policy::any(attributes.registry) && !policy::is_exempt(attributes))
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        if policy::gives_rights(attributes) {
            return policy::check_rights(attributes, object);
        }
        let table = policy::current(attributes.registry).await?;
        let mut dispatch = Dispatch { attributes, object, warnings, denial: None };
        for hook in &table.hooks {
            dispatch.ask(&hook.policy, &hook.bindings)?;
        }
        dispatch.denial.map_or(Ok(()), Err)
    }
}

/// A request on its way through the policies.
struct Dispatch<'a> {
    attributes: &'a Attributes<'a>,
    object: Option<&'a dyn Object>,
    warnings: &'a mut Vec<String>,
    /// What the first policy that denies it says.
    denial: Option<ApiError>,
}

impl Dispatch<'_> {
    /// Asks a policy, if the request is within its scope.
    fn ask(&mut self, policy: &Policy, bindings: &[Binding]) -> Result<(), ApiError> {
        let scope = match &policy.scope {
            Ok(scope) => scope,
            Err(why) => {
                self.misconfigured(policy, None, why);
                return Ok(());
            }
        };
        let Some(found) = scope.matches_anywhere(self.attributes, self.object) else { return Ok(()) };
        // Upstream: nobody can say that a policy has nothing against what is in a namespace that is not known.
        if let Some(error) = scope::missing_namespace(self.attributes) {
            return Err(error);
        }
        if !scope.holds_namespace(self.attributes, self.object) {
            return Ok(());
        }
        if let Some(why) = policy::missing_kind(self.attributes, policy) {
            self.misconfigured(policy, None, &why);
            return Ok(());
        }
        let mut facts = None;
        let mut annotations: Vec<(String, Vec<String>)> = Vec::new();
        for binding in bindings {
            match &binding.scope {
                Some(Err(why)) => {
                    self.misconfigured(policy, Some(binding), why);
                    continue;
                }
                Some(Ok(scope)) if !scope.holds(self.attributes, self.object) => continue,
                Some(Ok(_)) | None => {}
            }
            let params = match policy::collect(self.attributes, policy, binding) {
                Ok(params) => params,
                Err(why) => {
                    self.misconfigured(policy, Some(binding), &why);
                    continue;
                }
            };
            let (facts, namespace) = match &mut facts {
                Some(facts) => facts,
                none => match self.facts(&found) {
                    Ok(made) => none.insert((made, conditions::namespace(self.attributes)?)),
                    Err(error) => {
                        self.misconfigured(policy, None, &error.message);
                        break;
                    }
                },
            };
            for params in params {
                let judgement = policy.judge(facts, &params, namespace);
                self.enforce(policy, binding, judgement, &mut annotations);
            }
        }
        for (key, values) in annotations {
            // Several bindings, or their parameters, may lead to several values.
            audit::annotate(format!("{}/{key}", policy.name), || values.join(", "));
        }
        Ok(())
    }

    fn facts(&self, found: &Match) -> Result<Facts, ApiError> {
        Facts::new(self.attributes, self.object, found)
    }

    /// Does what a binding wants done about a judgement.
    fn enforce(
        &mut self,
        policy: &Policy,
        binding: &Binding,
        judgement: Judgement,
        annotations: &mut Vec<(String, Vec<String>)>,
    ) {
        for failure in judgement.failures {
            for action in &binding.actions {
                match action {
                    Action::Deny => self.deny(policy, Some(binding), &failure.message, failure.reason),
                    Action::Warn => self.warnings.push(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        policy.name, binding.name, failure.message
                    )),
                    Action::Audit => audit::annotate(FAILURE_KEY, || {
                        let failure = ValidationFailure {
                            message: &failure.message,
                            policy: &policy.name,
                            binding: &binding.name,
                            expression_index: failure.index,
                            validation_actions: &binding.action_names,
                        };
                        serde_json::to_string(&[failure]).unwrap_or_default()
                    }),
                }
            }
        }
        for Annotation { key, value } in judgement.annotations {
            match value {
                Err(why) => self.deny(policy, Some(binding), &why, Reason::Invalid),
                Ok(mut value) => {
                    value.truncate(value.floor_char_boundary(ANNOTATION_MAX));
                    match annotations.iter_mut().find(|(known, _)| *known == key) {
                        Some((_, values)) if values.contains(&value) => {}
                        Some((_, values)) => values.push(value),
                        None => annotations.push((key, vec![value])),
                    }
                }
            }
        }
    }

    /// What becomes of a request when a policy or a binding cannot be used.
    fn misconfigured(&mut self, policy: &Policy, binding: Option<&Binding>, why: &str) {
        if policy.ignores_failure {
            return;
        }
        let what = if binding.is_some() { "binding" } else { "policy" };
        self.deny(policy, binding, &format!("failed to configure {what}: {why}"), Reason::Invalid);
    }

    fn deny(&mut self, policy: &Policy, binding: Option<&Binding>, why: &str, reason: Reason) {
        if self.denial.is_some() {
            return;
        }
        let with = binding.map(|binding| format!(" with binding '{}'", binding.name)).unwrap_or_default();
        let message = format!("ValidatingAdmissionPolicy '{}'{with} denied request: {why}", policy.name);
        let name = self.attributes.object_name(self.object.or(self.attributes.old));
        let mut error = ApiError::forbidden(&self.attributes.info.group_resource, name, &message);
        (error.code, error.reason) = match reason {
            Reason::Forbidden => (403, reason),
            Reason::Unauthorized => (401, reason),
            Reason::RequestEntityTooLarge => (413, reason),
            _ => (422, Reason::Invalid),
        };
        self.denial = Some(error.with_cause(Cause { message, ..Cause::default() }));
    }
}

/// A failed validation as audit events have it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ValidationFailure<'a> {
    message: &'a str,
    policy: &'a str,
    binding: &'a str,
    expression_index: usize,
    validation_actions: &'a [String],
}
