//! ValidatingAdmissionPolicy: judges requests by the policies that are stored
//! (`staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/validating/dispatcher.go`).

use std::sync::Arc;

use async_trait::async_trait;
use machinery::expression::Value;
use machinery::status::{ApiError, Cause, Reason};
use serde::Serialize;

use super::conditions::{self, Facts};
use super::policy::{self, Action, Annotation, Binding, Invocation, Judgement, Policy, Validations};
use super::scope::Match;
use super::{AdmissionPlugin, Attributes};
use crate::apart::Pace;
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
        policy::gives_rights::<Validations>(attributes)
            || (policy::any::<Validations>(attributes.registry) && !policy::is_exempt(attributes))
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        if policy::gives_rights::<Validations>(attributes) {
            return policy::check_rights::<Validations>(attributes, object);
        }
        let table = policy::current::<Validations>(attributes.registry).await?;
        let invocations = policy::invocations(attributes, object, &table)?;
        let (facts, annotations) = (Vec::new(), Vec::new());
        let mut dispatch = Dispatch { attributes, object, warnings, denial: None, facts, namespace: None, annotations };
        let mut pace = Pace::default();
        for found in &invocations {
            pace.give_way().await;
            match found {
                Ok(invocation) => dispatch.ask(invocation)?,
                Err(wrong) => dispatch.misconfigured(wrong.policy, wrong.binding, &wrong.message()),
            }
        }
        for (key, values) in dispatch.annotations {
            // Several bindings, or their parameters, may lead to several values.
            audit::annotate(key, || values.join(", "));
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
    /// The facts in each version that a policy is about.
    facts: Vec<(Arc<Match>, Arc<Facts>)>,
    /// The namespace of the request, for `namespaceObject`.
    namespace: Option<Value>,
    /// The audit annotations and their values.
    annotations: Vec<(String, Vec<String>)>,
}

impl Dispatch<'_> {
    /// Asks a policy.
    fn ask(&mut self, invocation: &Invocation<'_, Validations>) -> Result<(), ApiError> {
        let Invocation { policy, binding, params, found } = invocation;
        let params = match params.value(self.attributes.registry) {
            Ok(params) => params,
            Err(why) => {
                self.misconfigured(policy, Some(*binding), &format!("failed to configure binding: {why}"));
                return Ok(());
            }
        };
        let facts = match self.facts(found) {
            Ok(facts) => facts,
            Err(error) => {
                self.misconfigured(policy, None, &format!("failed to configure policy: {}", error.message));
                return Ok(());
            }
        };
        let namespace = match &self.namespace {
            Some(namespace) => namespace.clone(),
            None => self.namespace.insert(conditions::namespace(self.attributes)?).clone(),
        };
        let judgement = policy.evaluate(|| policy.judge(&facts, &params, &namespace));
        self.enforce(policy, binding, judgement);
        Ok(())
    }

    /// The facts as a policy sees them that the request is within the scope of.
    fn facts(&mut self, found: &Arc<Match>) -> Result<Arc<Facts>, ApiError> {
        if let Some((_, facts)) = self.facts.iter().find(|(known, _)| known.is_same(found)) {
            return Ok(Arc::clone(facts));
        }
        let facts = Arc::new(Facts::new(self.attributes, self.object, found)?);
        self.facts.push((Arc::clone(found), Arc::clone(&facts)));
        Ok(facts)
    }

    /// Does what a binding wants done about a judgement.
    fn enforce(&mut self, policy: &Policy<Validations>, binding: &Binding, judgement: Judgement) {
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
                    let key = format!("{}/{key}", policy.name);
                    match self.annotations.iter_mut().find(|(known, _)| *known == key) {
                        Some((_, values)) if values.contains(&value) => {}
                        Some((_, values)) => values.push(value),
                        None => self.annotations.push((key, vec![value])),
                    }
                }
            }
        }
    }

    /// What becomes of a request when a policy or a binding cannot be used.
    fn misconfigured(&mut self, policy: &Policy<Validations>, binding: Option<&Binding>, why: &str) {
        if !policy.ignores_failure {
            self.deny(policy, binding, why, Reason::Invalid);
        }
    }

    fn deny(&mut self, policy: &Policy<Validations>, binding: Option<&Binding>, why: &str, reason: Reason) {
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
