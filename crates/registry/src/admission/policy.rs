//! Policies in the Common Expression Language: ValidatingAdmissionPolicies and MutatingAdmissionPolicies, and their bindings.
//!
//! Those that are stored are compiled once ([`configured`]). Which of them a request is within the scope of ([`super::scope`]) is
//! found out first ([`mod@invocations`]): once for each binding, and each object with the parameters of that binding ([`params`]).
//! Then [`judge`](evaluate) says what a validating one finds wrong, and [`mutate`] what a mutating one makes of the object.

mod compiled;
pub(crate) mod configured;
mod evaluate;
mod invocations;
mod mutate;
mod params;
mod rights;

pub(super) use compiled::{Action, Binding, Mutations, Policy, Rules, Validations};
pub(crate) use configured::Configured;
pub(super) use configured::{any, current};
pub(super) use evaluate::{Annotation, Judgement};
pub(super) use invocations::{Invocation, invocations};
pub(super) use mutate::{Refusal, Versioned};
pub(super) use rights::{check_rights, gives_rights};

use super::Attributes;

/// The kinds of policies and bindings, by the resource part of the store's keys.
const CONFIGURATION: [&str; 4] =
    [Validations::POLICIES, Validations::BINDINGS, Mutations::POLICIES, Mutations::BINDINGS];

/// What no policy is asked about. Upstream: policies themselves, so that one cannot stand in the way of its own removal
/// (`pkg/admission/plugin/policy/generic/plugin.go`), and questions about rights (`pkg/kubeapiserver/admission/exclusion`).
/// Deviation: nor is one asked about what the server itself writes to get started.
pub(super) fn is_exempt(attributes: &Attributes<'_>) -> bool {
    let info = attributes.info;
    let is_review = matches!(info.group.as_str(), "authentication.k8s.io" | "authorization.k8s.io");
    is_review || CONFIGURATION.contains(&&*info.storage) || super::scope::is_own(attributes)
}
