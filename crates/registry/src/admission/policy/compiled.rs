//! Policies and bindings, compiled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MatchResources, MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding,
    Mutation as MutationSource, ParamKind, ParamRef, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    Validation as ValidationSource, Variable,
};
use machinery::expression::{Compiler, Program, Value, Variables, Wanted, admission};
use machinery::status::Reason;
use serde::de::DeserializeOwned;

use super::configured::{Configured, Known};
use crate::admission::conditions::{self, Conditions, Facts};
use crate::admission::scope::Scope;
use crate::apart;

/// What a policy of one kind does about a request, compiled; and where its kind is stored.
pub(in crate::admission) trait Rules: Sized + Send + Sync + 'static {
    /// The kind of the policies.
    type Policy: DeserializeOwned + 'static;
    /// The kind of their bindings.
    type Binding: DeserializeOwned + 'static;

    /// The resource part of the store's keys of the policies.
    const POLICIES: &'static str;
    /// The resource part of the store's keys of their bindings.
    const BINDINGS: &'static str;

    /// The policies that are configured.
    fn known(configured: &Configured) -> &Known<Self>;

    /// Compiles a policy that has been checked before.
    fn compile(policy: Self::Policy) -> Policy<Self>;

    /// Reads a binding that has been checked before.
    fn bind(binding: Self::Binding) -> Binding;

    /// The kind of the parameters of a policy.
    fn param_kind(policy: &Self::Policy) -> Option<&ParamKind>;

    /// The name of the policy that a binding is of, and what its parameters are.
    fn references(binding: &Self::Binding) -> (&str, Option<&ParamRef>);
}

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

/// A policy.
pub(in crate::admission) struct Policy<R> {
    pub(in crate::admission) name: String,
    /// What it is about; or why nobody knows.
    pub(in crate::admission) scope: Result<Scope, String>,
    pub(in crate::admission) param_kind: Option<ParamKind>,
    pub(in crate::admission) ignores_failure: bool,
    conditions: Conditions,
    pub(super) variables: Arc<Variables>,
    pub(in crate::admission) rules: R,
    /// Whether it has taken long to evaluate it.
    slow: AtomicBool,
}

/// For how long a policy may keep a worker of the runtime from its other work.
const QUICK: Duration = Duration::from_millis(5);

/// What the specifications of both kinds of policies have.
struct Common {
    name: Option<String>,
    match_constraints: Option<MatchResources>,
    match_conditions: Option<Vec<MatchCondition>>,
    param_kind: Option<ParamKind>,
    failure_policy: Option<String>,
    variables: Option<Vec<Variable>>,
}

impl<R> Policy<R> {
    fn new(common: Common, rules: impl FnOnce(&Compiler<'_>) -> R) -> Self {
        let params = common.param_kind.is_some();
        let mut compiler = conditions::compiler(params).composing();
        let variables = common.variables.into_iter().flatten().map(|variable| {
            let program = compiler.declare(&variable.name, &variable.expression).map_err(|error| error.to_string());
            (variable.name, program)
        });
        let variables = Arc::new(variables.collect::<Variables>());
        Self {
            name: common.name.unwrap_or_default(),
            scope: Scope::of_policy(common.match_constraints.unwrap_or_default()).map_err(|error| error.to_string()),
            ignores_failure: common.failure_policy.as_deref() == Some("Ignore"),
            conditions: Conditions::new(common.match_conditions.iter().flatten(), params),
            rules: rules(&compiler),
            param_kind: common.param_kind,
            variables,
            slow: AtomicBool::new(false),
        }
    }

    /// Whether its conditions hold of a request. Upstream: they do not where they cannot be evaluated and that is to be ignored.
    ///
    /// # Errors
    /// Why nobody can tell.
    pub(in crate::admission) fn holds(&self, facts: &Facts, params: &Value) -> Result<bool, String> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        match self.conditions.hold(facts.values(&admission::namespace(None), self.params(params))) {
            Err(_) if self.ignores_failure => Ok(false),
            found => found,
        }
    }

    /// The parameters, where its expressions may speak of any.
    pub(super) fn params<'p>(&self, params: &'p Value) -> Option<&'p Value> {
        self.param_kind.is_some().then_some(params)
    }

    /// Evaluates it on this worker of the runtime; apart from the work of others once that has taken long.
    pub(in crate::admission) fn evaluate<T>(&self, evaluate: impl FnOnce() -> T) -> T {
        if self.slow.load(Ordering::Relaxed) {
            return apart::compute(evaluate);
        }
        let started = Instant::now();
        let found = evaluate();
        if started.elapsed() > QUICK {
            self.slow.store(true, Ordering::Relaxed);
        }
        found
    }
}

/// What must be true of a request, and what is noted of it: the rules of a ValidatingAdmissionPolicy.
pub(in crate::admission) struct Validations {
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

impl Rules for Validations {
    type Policy = ValidatingAdmissionPolicy;
    type Binding = ValidatingAdmissionPolicyBinding;

    const POLICIES: &'static str = "admissionregistration.k8s.io/validatingadmissionpolicies";
    const BINDINGS: &'static str = "admissionregistration.k8s.io/validatingadmissionpolicybindings";

    fn known(configured: &Configured) -> &Known<Self> {
        &configured.validating
    }

    fn compile(object: ValidatingAdmissionPolicy) -> Policy<Self> {
        let spec = object.spec.unwrap_or_default();
        let common = Common {
            name: object.metadata.name,
            match_constraints: spec.match_constraints,
            match_conditions: spec.match_conditions,
            param_kind: spec.param_kind,
            failure_policy: spec.failure_policy,
            variables: spec.variables,
        };
        Policy::new(common, |compiler| {
            // Upstream: whoever is asked is told nothing of what others may do.
            let messages = compiler.without(admission::AUTHORIZER);
            let validations =
                spec.validations.into_iter().flatten().map(|source| validation(compiler, &messages, source));
            let annotations = spec.audit_annotations.into_iter().flatten().map(|annotation| {
                (annotation.key, Expression::compile(compiler, annotation.value_expression, Wanted::StringOrNull))
            });
            Self { validations: validations.collect(), annotations: annotations.collect() }
        })
    }

    fn bind(object: ValidatingAdmissionPolicyBinding) -> Binding {
        let spec = object.spec;
        let actions = spec.validation_actions.iter().filter_map(|name| match name.as_str() {
            "Deny" => Some(Action::Deny),
            "Warn" => Some(Action::Warn),
            "Audit" => Some(Action::Audit),
            _ => None,
        });
        Binding {
            name: object.metadata.name.unwrap_or_default(),
            policy: spec.policy_name,
            scope: narrowed(spec.match_resources),
            params: spec.param_ref,
            actions: actions.collect(),
            action_names: spec.validation_actions,
        }
    }

    fn param_kind(policy: &ValidatingAdmissionPolicy) -> Option<&ParamKind> {
        policy.spec.as_ref()?.param_kind.as_ref()
    }

    fn references(binding: &ValidatingAdmissionPolicyBinding) -> (&str, Option<&ParamRef>) {
        (&binding.spec.policy_name, binding.spec.param_ref.as_ref())
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

/// What is made of the object of a request: the rules of a MutatingAdmissionPolicy.
pub(in crate::admission) struct Mutations {
    pub(in crate::admission) mutations: Vec<Mutation>,
    /// Whether it is asked once more when the object was changed after it (`reinvocationPolicy: IfNeeded`).
    pub(in crate::admission) reinvoke: bool,
}

/// A change of an object.
pub(in crate::admission) struct Mutation {
    pub(super) patch_type: PatchType,
    pub(super) expression: Expression,
}

/// What the expression of a mutation makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PatchType {
    /// A part of an object, which is merged as by server-side apply.
    ApplyConfiguration,
    /// The operations of a JSON patch.
    JsonPatch,
}

impl Rules for Mutations {
    type Policy = MutatingAdmissionPolicy;
    type Binding = MutatingAdmissionPolicyBinding;

    const POLICIES: &'static str = "admissionregistration.k8s.io/mutatingadmissionpolicies";
    const BINDINGS: &'static str = "admissionregistration.k8s.io/mutatingadmissionpolicybindings";

    fn known(configured: &Configured) -> &Known<Self> {
        &configured.mutating
    }

    fn compile(object: MutatingAdmissionPolicy) -> Policy<Self> {
        let spec = object.spec.unwrap_or_default();
        let common = Common {
            name: object.metadata.name,
            match_constraints: spec.match_constraints,
            match_conditions: spec.match_conditions,
            param_kind: spec.param_kind,
            failure_policy: spec.failure_policy,
            variables: spec.variables,
        };
        let reinvoke = spec.reinvocation_policy.as_deref() == Some("IfNeeded");
        Policy::new(common, |compiler| {
            let compiler = compiler.mutating();
            let mutations = spec.mutations.into_iter().flatten().map(|source| mutation(&compiler, source));
            Self { mutations: mutations.collect(), reinvoke }
        })
    }

    fn bind(object: MutatingAdmissionPolicyBinding) -> Binding {
        let spec = object.spec.unwrap_or_default();
        Binding {
            name: object.metadata.name.unwrap_or_default(),
            policy: spec.policy_name.unwrap_or_default(),
            scope: narrowed(spec.match_resources),
            params: spec.param_ref,
            actions: Vec::new(),
            action_names: Vec::new(),
        }
    }

    fn param_kind(policy: &MutatingAdmissionPolicy) -> Option<&ParamKind> {
        policy.spec.as_ref()?.param_kind.as_ref()
    }

    fn references(binding: &MutatingAdmissionPolicyBinding) -> (&str, Option<&ParamRef>) {
        let spec = binding.spec.as_ref();
        let name = spec.and_then(|spec| spec.policy_name.as_deref());
        (name.unwrap_or_default(), spec.and_then(|spec| spec.param_ref.as_ref()))
    }
}

fn mutation(compiler: &Compiler<'_>, source: MutationSource) -> Mutation {
    let MutationSource { apply_configuration, json_patch, patch_type } = source;
    let (patch_type, wanted, text) = if patch_type == "JSONPatch" {
        (PatchType::JsonPatch, Wanted::JsonPatch, json_patch.and_then(|patch| patch.expression))
    } else {
        let text = apply_configuration.and_then(|configuration| configuration.expression);
        (PatchType::ApplyConfiguration, Wanted::Object, text)
    };
    Mutation { patch_type, expression: Expression::compile(compiler, text.unwrap_or_default(), wanted) }
}

/// What is done about a request that is found wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admission) enum Action {
    Deny,
    Warn,
    Audit,
}

/// A binding.
pub(in crate::admission) struct Binding {
    pub(in crate::admission) name: String,
    pub(in crate::admission) policy: String,
    /// What it narrows the policy to; or why nobody knows.
    pub(in crate::admission) scope: Option<Result<Scope, String>>,
    pub(in crate::admission) params: Option<ParamRef>,
    /// None where the policy is a mutating one.
    pub(in crate::admission) actions: Vec<Action>,
    /// The names of the actions, as audit events have them.
    pub(in crate::admission) action_names: Vec<String>,
}

fn narrowed(resources: Option<MatchResources>) -> Option<Result<Scope, String>> {
    resources.map(|resources| Scope::of_policy(resources).map_err(|error| error.to_string()))
}
