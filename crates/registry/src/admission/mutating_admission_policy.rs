//! MutatingAdmissionPolicy: changes objects by the policies that are stored
//! (`staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/mutating/dispatcher.go`).

use std::sync::Arc;

use async_trait::async_trait;
use machinery::expression::Value;
use machinery::status::{ApiError, Cause, Reason};

use super::conditions;
use super::policy::{self, Binding, Invocation, Mutations, Policy, Refusal, Versioned};
use super::reinvocation::PolicyKey;
use super::scope::Match;
use super::{AdmissionPlugin, Attributes, Operation, Reinvocation};
use crate::apart::Pace;
use crate::object::Object;

/// The admission plugin of that name.
pub struct MutatingAdmissionPolicy;

#[async_trait]
impl AdmissionPlugin for MutatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "MutatingAdmissionPolicy"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        policy::gives_rights::<Mutations>(attributes) || mutates(attributes)
    }

    fn reinvokes(&self) -> bool {
        true
    }

    async fn admit_again(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Box<dyn Object>>,
        _warnings: &mut Vec<String>,
        reinvocation: &mut Reinvocation,
    ) -> Result<bool, ApiError> {
        let Some(object) = object.filter(|_| mutates(attributes)) else { return Ok(false) };
        let round = &mut reinvocation.policies;
        let table = match &round.configured {
            Some(table) => Arc::clone(table),
            None => Arc::clone(round.configured.insert(policy::current::<Mutations>(attributes.registry).await?)),
        };
        round.begin(attributes, Some(object.as_ref()))?;
        let (mut errors, mut invocations) = (Errors::default(), Vec::new());
        for found in policy::invocations(attributes, Some(object.as_ref()), &table)? {
            match found {
                Ok(invocation) => invocations.push(invocation),
                Err(wrong) => errors.add(wrong.policy, wrong.binding, wrong.message(), None),
            }
        }
        let (mut dispatch, mut pace) = (Dispatch { attributes, versioned: None, namespace: None }, Pace::default());
        let mut changed = false;
        for invocation in &invocations {
            pace.give_way().await;
            let key = key_of(invocation);
            if !round.asks(&key) {
                continue;
            }
            let asked = invocation.policy.evaluate(|| dispatch.ask(invocation, object, &mut errors))?;
            if let Some(changes) = asked {
                round.note(key, changes, invocation.policy.rules.reinvoke);
                changed |= changes;
            }
        }
        round.end(attributes, Some(object.as_ref()))?;
        errors.into_denial(attributes, object.as_ref()).map_or(Ok(changed), Err)
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        if policy::gives_rights::<Mutations>(attributes) {
            policy::check_rights::<Mutations>(attributes, object)?;
        }
        Ok(())
    }
}

/// Whether policies may change the object of a request. Upstream: that of a deletion is none that could be changed.
fn mutates(attributes: &Attributes<'_>) -> bool {
    attributes.operation != Operation::Delete
        && policy::any::<Mutations>(attributes.registry)
        && !policy::is_exempt(attributes)
}

fn key_of(invocation: &Invocation<'_, Mutations>) -> PolicyKey {
    let (namespace, name) = invocation.params.name();
    (invocation.policy.name.clone(), invocation.binding.name.clone(), namespace.to_owned(), name.to_owned())
}

/// A request on its way through the policies.
struct Dispatch<'a> {
    attributes: &'a Attributes<'a>,
    /// The object as it was seen last, while it has not been changed since.
    versioned: Option<Versioned>,
    /// The namespace of the request, for `namespaceObject`.
    namespace: Option<Value>,
}

impl Dispatch<'_> {
    /// Carries out the mutations of a policy, one after the other. Returns whether they changed the object; nothing where the
    /// conditions of the policy do not hold.
    fn ask(
        &mut self,
        invocation: &Invocation<'_, Mutations>,
        object: &mut Box<dyn Object>,
        errors: &mut Errors,
    ) -> Result<Option<bool>, ApiError> {
        let Invocation { policy, binding, params, found } = invocation;
        let params = match params.value(self.attributes.registry) {
            Ok(params) => params,
            Err(why) => {
                errors.add(policy, Some(*binding), format!("failed to configure binding: {why}"), None);
                return Ok(None);
            }
        };
        match policy.holds(&self.see(object.as_ref(), found)?.facts, &params) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(why) => {
                errors.add(policy, Some(*binding), why, Some(Reason::Invalid));
                return Ok(None);
            }
        }
        let namespace = match &self.namespace {
            Some(namespace) => namespace.clone(),
            None => self.namespace.insert(conditions::namespace(self.attributes)?).clone(),
        };
        let (mut changed, attributes) = (false, self.attributes);
        for mutation in &policy.rules.mutations {
            let versioned = self.see(object.as_ref(), found)?;
            match versioned.mutated(attributes, object.as_ref(), (*policy, mutation), (&params, &namespace)) {
                Ok(None) => {}
                Ok(Some(mutated)) => {
                    *object = mutated;
                    (changed, self.versioned) = (true, None);
                }
                Err(Refusal::Request(error)) => return Err(error),
                Err(Refusal::Policy(why)) => errors.add(policy, Some(*binding), why, Some(Reason::Invalid)),
            }
        }
        Ok(Some(changed))
    }

    /// The object as a policy sees it that the request is within the scope of.
    fn see(&mut self, object: &dyn Object, found: &Arc<Match>) -> Result<&Versioned, ApiError> {
        let versioned = match self.versioned.take().filter(|versioned| versioned.is_of(found)) {
            Some(versioned) => versioned,
            None => Versioned::new(self.attributes, object, found)?,
        };
        Ok(self.versioned.insert(versioned))
    }
}

/// What went wrong, but for what is to be ignored: messages, and the reasons where there are any.
#[derive(Default)]
struct Errors(Vec<(String, Option<Reason>)>);

impl Errors {
    fn add(&mut self, policy: &Policy<Mutations>, binding: Option<&Binding>, why: String, reason: Option<Reason>) {
        if policy.ignores_failure {
            return;
        }
        let name = &policy.name;
        let message = match binding {
            Some(binding) => format!("policy '{name}' with binding '{}' denied request: {why}", binding.name),
            None => format!("policy {name:?} denied request: {why}"),
        };
        self.0.push((message, reason));
    }

    /// What the client is told. Upstream: the first error is the message, and the code is that of a request that is forbidden.
    fn into_denial(self, attributes: &Attributes<'_>, object: &dyn Object) -> Option<ApiError> {
        let (message, reason) = self.0.first()?.clone();
        let name = attributes.object_name(Some(object));
        let mut error = ApiError::forbidden(&attributes.info.group_resource, name, &message);
        error.message = message;
        error.reason = reason.unwrap_or(error.reason);
        Some(
            self.0
                .into_iter()
                .fold(error, |error, (message, _)| error.with_cause(Cause { message, ..Cause::default() })),
        )
    }
}
