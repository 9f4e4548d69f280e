//! What a validating policy says of a request (`staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/validating/validator.go`).

use std::sync::Arc;

use machinery::expression::{Evaluation, TOTAL_LIMIT, Value};
use machinery::status::Reason;

use super::compiled::{Expression, Validation};
use super::{Policy, Validations};
use crate::admission::conditions::{Broken, Facts, evaluate};

/// The longest message that an expression may make, in bytes (`pkg/apis/cel/config.go`).
const MESSAGE_MAX: usize = 5 * 1024;

/// What a policy finds wrong about a request, and notes of it.
#[derive(Default)]
pub(in crate::admission) struct Judgement {
    pub(in crate::admission) failures: Vec<Failure>,
    pub(in crate::admission) annotations: Vec<Annotation>,
}

/// Something that is wrong about a request, or that cannot be told.
pub(in crate::admission) struct Failure {
    /// The index of the validation.
    pub(in crate::admission) index: usize,
    pub(in crate::admission) message: String,
    pub(in crate::admission) reason: Reason,
}

/// An audit annotation: its key, and its value or why it has none.
pub(in crate::admission) struct Annotation {
    pub(in crate::admission) key: String,
    pub(in crate::admission) value: Result<String, String>,
}

impl Judgement {
    /// That of a policy that could not come to one, and whose failures are ignored or not.
    fn failed(policy: &Policy<Validations>, message: String) -> Self {
        if policy.ignores_failure {
            return Self::default();
        }
        Self { failures: vec![Failure { index: 0, message, reason: Reason::Invalid }], annotations: Vec::new() }
    }
}

impl Policy<Validations> {
    /// Judges a request with the parameters of a binding.
    pub(in crate::admission) fn judge(&self, facts: &Facts, params: &Value, namespace: &Value) -> Judgement {
        match self.holds(facts, params) {
            Ok(true) => {}
            Ok(false) => return Judgement::default(),
            Err(why) => return Judgement::failed(self, why),
        }
        let params = self.params(params);
        let evaluation = || Evaluation::new(facts.values(namespace, params), Arc::clone(&self.variables), TOTAL_LIMIT);
        let mut judgement = Judgement::default();
        let validating = evaluation();
        let mut failed = Vec::new();
        for (index, validation) in self.rules.validations.iter().enumerate() {
            let Expression { text, program } = &validation.expression;
            match evaluate(&validating, text, program) {
                Ok(found) if found.as_bool() == Some(true) => {}
                Ok(_) => failed.push((index, validation, None)),
                Err(Broken::Expression(why)) => failed.push((index, validation, Some(why))),
                Err(Broken::Budget(why)) => return Judgement::failed(self, why),
            }
        }
        // Upstream: messages are made of what the budget has left then, and cannot keep a validation from being evaluated.
        for (index, validation, broken) in failed {
            let message = match broken {
                Some(why) => self.failure(why),
                None => match validation.explain(&validating) {
                    Ok(message) => Some((message, validation.reason)),
                    Err(why) => self.failure(format!("failed messageExpression: {why}")),
                },
            };
            judgement.failures.extend(message.map(|(message, reason)| Failure { index, message, reason }));
        }
        // Upstream: annotations have a budget of their own.
        let annotating = (!self.rules.annotations.is_empty()).then(evaluation);
        for (key, Expression { text, program }) in &self.rules.annotations {
            let Some(annotating) = &annotating else { break };
            let value = match evaluate(annotating, text, program) {
                Ok(found) if found.is_null() => continue,
                Ok(found) => match found.as_str().map(str::trim) {
                    Some("") => continue,
                    Some(value) => Ok(value.to_owned()),
                    None => Err(format!(
                        "valueExpression '{text}' resulted in unsupported return type: {}. Return type must be either string or null.",
                        found.type_name()
                    )),
                },
                Err(Broken::Expression(_)) if self.ignores_failure => continue,
                Err(Broken::Expression(why)) => Err(why),
                Err(Broken::Budget(why)) => return Judgement::failed(self, why),
            };
            judgement.annotations.push(Annotation { key: key.clone(), value });
        }
        judgement
    }

    /// What an expression that fails leads to.
    fn failure(&self, message: String) -> Option<(String, Reason)> {
        (!self.ignores_failure).then_some((message, Reason::Invalid))
    }
}

impl Validation {
    /// What is told of a request that does not pass. The error is that nothing is left of the budget.
    fn explain(&self, evaluation: &Evaluation) -> Result<String, String> {
        let made = match &self.message_expression {
            None => None,
            Some(Expression { text, program }) => match evaluate(evaluation, text, program) {
                Ok(made) => Some(made),
                Err(Broken::Budget(why)) => return Err(why),
                Err(Broken::Expression(why)) => {
                    tracing::debug!(expression = text, %why, "the message of a policy has no value");
                    None
                }
            },
        };
        let usable = |text: &&str| !text.is_empty() && text.len() <= MESSAGE_MAX && !text.contains('\n');
        if let Some(made) = made.as_ref().and_then(Value::as_str).map(str::trim).filter(usable) {
            return Ok(made.to_owned());
        }
        if !self.message.is_empty() {
            return Ok(self.message.clone());
        }
        Ok(format!("failed expression: {}", self.expression.text.trim()))
    }
}
