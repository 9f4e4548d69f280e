//! CertificateSigningRequests: those of kubelets are approved ([`approver`]), approved ones are signed ([`signer`]), and old ones
//! are deleted ([`cleaner`]).
//!
//! Upstream: `pkg/controller/certificates`. Its signer `kubernetes.io/legacy-unknown` is not here: only an API version that is
//! served no longer took requests for it.

pub(crate) mod approver;
pub(crate) mod cleaner;
pub(crate) mod signer;
mod verify;

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";

/// The signer of client certificates of users.
const API_SERVER_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// The signer of client certificates of kubelets.
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// The signer of the certificates with which kubelets serve.
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn has_condition(request: &CertificateSigningRequest, kind: &str) -> bool {
    conditions(request).iter().any(|condition| condition.type_ == kind)
}

/// The certificate in PEM, once it is issued.
fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    (!certificate.0.is_empty()).then_some(certificate.0.as_slice())
}

fn usages(request: &CertificateSigningRequest) -> &[String] {
    request.spec.usages.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
