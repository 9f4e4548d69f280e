//! CertificateSigningRequests: those of kubelets are approved ([`approver`]), approved ones are signed ([`signer`]), and old ones
//! are deleted ([`cleaner`]).
//!
//! Upstream: `pkg/controller/certificates`. Its signer `kubernetes.io/legacy-unknown` is not here: only an API version that is
//! served no longer took requests for it.

pub(crate) mod approver;
pub(crate) mod cleaner;
pub(crate) mod signer;
mod verify;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use machinery::certificates::conditions;

fn has_condition(request: &CertificateSigningRequest, kind: &str) -> bool {
    conditions(request).iter().any(|condition| condition.type_ == kind)
}

fn usages(request: &CertificateSigningRequest) -> &[String] {
    request.spec.usages.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
