//! Policies in the Common Expression Language: ValidatingAdmissionPolicies and their bindings.
//!
//! Those that are stored are compiled once ([`configured`]). A request that is within the scope of one ([`super::scope`]) is judged
//! by its expressions ([`evaluate`]) once for each binding that it is within the scope of, and each object with the parameters of
//! that binding ([`params`]).

mod compiled;
pub(crate) mod configured;
mod evaluate;
mod params;
mod rights;

pub(super) use compiled::{Action, Binding, Policy};
pub(crate) use configured::Configured;
pub(super) use configured::{any, current};
pub(super) use evaluate::{Annotation, Judgement};
pub(super) use params::{collect, missing_kind};
pub(super) use rights::{check_rights, gives_rights};

use super::Attributes;

/// The resource part of the store's keys of policies.
pub(super) const POLICIES: &str = "admissionregistration.k8s.io/validatingadmissionpolicies";
/// The resource part of the store's keys of their bindings.
pub(super) const BINDINGS: &str = "admissionregistration.k8s.io/validatingadmissionpolicybindings";

/// The kinds of policies and bindings, by the resource part of the store's keys.
const CONFIGURATION: [&str; 4] = [
    POLICIES,
    BINDINGS,
    "admissionregistration.k8s.io/mutatingadmissionpolicies",
    "admissionregistration.k8s.io/mutatingadmissionpolicybindings",
];

/// What no policy is asked about. Upstream: policies themselves, so that one cannot stand in the way of its own removal
/// (`pkg/admission/plugin/policy/generic/plugin.go`), and questions about rights (`pkg/kubeapiserver/admission/exclusion`).
/// Deviation: nor is one asked about what the server itself writes to get started.
pub(super) fn is_exempt(attributes: &Attributes<'_>) -> bool {
    let info = attributes.info;
    let is_review = matches!(info.group.as_str(), "authentication.k8s.io" | "authorization.k8s.io");
    is_review || CONFIGURATION.contains(&&*info.storage) || super::scope::is_own(attributes)
}
