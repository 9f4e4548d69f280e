//! Policies and bindings, compiled.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{
    ParamKind, ParamRef, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, Validation as ValidationSource,
};
use machinery::expression::{Compiler, Program, Variables, Wanted, admission};
use machinery::status::Reason;

use crate::admission::conditions::{self, Conditions};
use crate::admission::scope::Scope;

/// An expression as it is written, and compiled; or why it is not.
pub(super) struct Expression {
    pub(super) text: String,
    pub(super) program: Result<Program, String>,
}

impl Expression {
    fn compile(compiler: &Compiler<'_>, text: String, wanted: Wanted) -> Self {
        let program = compiler.compile(&text, wanted).map_err(|error| error.to_string());
        Self { text, program }
    }
}

/// A ValidatingAdmissionPolicy.
pub(in crate::admission) struct Policy {
    pub(in crate::admission) name: String,
    /// What it is about; or why nobody knows.
    pub(in crate::admission) scope: Result<Scope, String>,
    pub(in crate::admission) param_kind: Option<ParamKind>,
    pub(in crate::admission) ignores_failure: bool,
    pub(super) conditions: Conditions,
    pub(super) variables: Arc<Variables>,
    pub(super) validations: Vec<Validation>,
    /// Keys of audit annotations, and what their values are.
    pub(super) annotations: Vec<(String, Expression)>,
}

/// What must be true of a request.
pub(super) struct Validation {
    pub(super) expression: Expression,
    pub(super) message: String,
    pub(super) message_expression: Option<Expression>,
    pub(super) reason: Reason,
}

impl Policy {
    /// Compiles what has been checked before.
    pub(super) fn compile(object: ValidatingAdmissionPolicy) -> Self {
        let spec = object.spec.unwrap_or_default();
        let params = spec.param_kind.is_some();
        let mut compiler = conditions::compiler(params).composing();
        let variables = spec.variables.into_iter().flatten().map(|variable| {
            let program = compiler.declare(&variable.name, &variable.expression).map_err(|error| error.to_string());
            (variable.name, program)
        });
        let variables = Arc::new(variables.collect::<Variables>());
        // Upstream: whoever is asked is told nothing of what others may do.
        let messages = compiler.without(admission::AUTHORIZER);
        let validations = spec.validations.into_iter().flatten().map(|source| validation(&compiler, &messages, source));
        let annotations = spec.audit_annotations.into_iter().flatten().map(|annotation| {
            (annotation.key, Expression::compile(&compiler, annotation.value_expression, Wanted::StringOrNull))
        });
        Self {
            name: object.metadata.name.unwrap_or_default(),
            scope: Scope::of_policy(spec.match_constraints.unwrap_or_default()).map_err(|error| error.to_string()),
            ignores_failure: spec.failure_policy.as_deref() == Some("Ignore"),
            conditions: Conditions::new(spec.match_conditions.iter().flatten(), params),
            validations: validations.collect(),
            annotations: annotations.collect(),
            param_kind: spec.param_kind,
            variables,
        }
    }
}

fn validation(compiler: &Compiler<'_>, messages: &Compiler<'_>, source: ValidationSource) -> Validation {
    let message_expression = source.message_expression.filter(|text| !text.is_empty());
    Validation {
        expression: Expression::compile(compiler, source.expression, Wanted::Bool),
        message: source.message.unwrap_or_default().trim().to_owned(),
        message_expression: message_expression.map(|text| Expression::compile(messages, text, Wanted::String)),
        reason: source.reason.as_deref().and_then(Reason::from_name).unwrap_or(Reason::Invalid),
    }
}

/// What is done about a request that is found wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admission) enum Action {
    Deny,
    Warn,
    Audit,
}

/// A ValidatingAdmissionPolicyBinding.
pub(in crate::admission) struct Binding {
    pub(in crate::admission) name: String,
    pub(in crate::admission) policy: String,
    /// What it narrows the policy to; or why nobody knows.
    pub(in crate::admission) scope: Option<Result<Scope, String>>,
    pub(in crate::admission) params: Option<ParamRef>,
    pub(in crate::admission) actions: Vec<Action>,
    /// The names of the actions, as audit events have them.
    pub(in crate::admission) action_names: Vec<String>,
}

impl Binding {
    pub(super) fn new(object: ValidatingAdmissionPolicyBinding) -> Self {
        let spec = object.spec;
        let actions = spec.validation_actions.iter().filter_map(|name| match name.as_str() {
            "Deny" => Some(Action::Deny),
            "Warn" => Some(Action::Warn),
            "Audit" => Some(Action::Audit),
            _ => None,
        });
        let scope =
            spec.match_resources.map(|resources| Scope::of_policy(resources).map_err(|error| error.to_string()));
        Self {
            name: object.metadata.name.unwrap_or_default(),
            policy: spec.policy_name,
            scope,
            params: spec.param_ref,
            actions: actions.collect(),
            action_names: spec.validation_actions,
        }
    }
}
