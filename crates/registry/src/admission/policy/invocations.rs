//! Which policies are asked about a request, and with which parameters
//! (`staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/generic/policy_dispatcher.go`).

use std::sync::Arc;

use machinery::status::ApiError;

use super::configured::Table;
use super::params::{Params, collect, missing_kind};
use super::{Binding, Policy};
use crate::admission::Attributes;
use crate::admission::scope::{self, Match};
use crate::object::Object;

/// A policy that is asked about a request, for one of its bindings and one object with the parameters of that.
pub(in crate::admission) struct Invocation<'t, R> {
    pub(in crate::admission) policy: &'t Policy<R>,
    pub(in crate::admission) binding: &'t Binding,
    pub(in crate::admission) params: Params,
    /// As what the request is within the scope of the policy.
    pub(in crate::admission) found: Arc<Match>,
}

/// A policy, or a binding of it, that cannot be used.
pub(in crate::admission) struct Misconfigured<'t, R> {
    pub(in crate::admission) policy: &'t Policy<R>,
    pub(in crate::admission) binding: Option<&'t Binding>,
    why: String,
}

impl<R> Misconfigured<'_, R> {
    /// What is told of it.
    pub(in crate::admission) fn message(&self) -> String {
        let what = if self.binding.is_some() { "binding" } else { "policy" };
        format!("failed to configure {what}: {}", self.why)
    }
}

/// One of the policies that are to be asked about a request.
pub(in crate::admission) type Found<'t, R> = Result<Invocation<'t, R>, Misconfigured<'t, R>>;

/// The policies that are asked about a request, in the order of their names and those of their bindings; among them those that
/// cannot be used.
///
/// # Errors
/// 404 when the namespace of the request is not there. Upstream: nobody can say that a policy has nothing against what is in one
/// that is not known.
pub(in crate::admission) fn invocations<'t, R>(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
    table: &'t Table<R>,
) -> Result<Vec<Found<'t, R>>, ApiError> {
    let mut all = Vec::new();
    for hook in &table.hooks {
        let policy = &*hook.policy;
        let scope = match &policy.scope {
            Ok(scope) => scope,
            Err(why) => {
                all.push(Err(Misconfigured { policy, binding: None, why: why.clone() }));
                continue;
            }
        };
        let Some(found) = scope.matches_anywhere(attributes, object) else { continue };
        if let Some(error) = scope::missing_namespace(attributes) {
            return Err(error);
        }
        if !scope.holds_namespace(attributes, object) {
            continue;
        }
        if let Some(why) = missing_kind(attributes, policy.param_kind.as_ref()) {
            all.push(Err(Misconfigured { policy, binding: None, why }));
            continue;
        }
        let found = Arc::new(found);
        for binding in &hook.bindings {
            let params = match &binding.scope {
                Some(Err(why)) => Err(why.clone()),
                Some(Ok(scope)) if !scope.holds(attributes, object) => continue,
                Some(Ok(_)) | None => collect(attributes, object, policy.param_kind.as_ref(), binding.params.as_ref()),
            };
            match params {
                Err(why) => all.push(Err(Misconfigured { policy, binding: Some(binding), why })),
                Ok(params) => all.extend(
                    params
                        .into_iter()
                        .map(|params| Ok(Invocation { policy, binding, params, found: Arc::clone(&found) })),
                ),
            }
        }
    }
    Ok(all)
}
