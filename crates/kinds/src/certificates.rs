//! The kind of certificates.k8s.io: the CertificateSigningRequest, by which somebody asks for a certificate, somebody else
//! approves it, and a signer issues it.

mod certificate_signing_request;
mod validation;

#[cfg(test)]
mod tests;

use machinery::Verb;
use machinery::status::ApiError;
use registry::Access;
use registry::admission::{Attributes, no_object};
use registry::object::cast;
use registry::ops::Typed;
use registry::table::Resource;

pub(crate) use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

const GROUP: &str = "certificates.k8s.io";
/// The resource part of the store's keys.
pub(crate) const REQUESTS: &str = "certificates.k8s.io/certificatesigningrequests";

/// The rows of the group.
pub(super) fn all() -> [Resource; 1] {
    [Typed::<certificate_signing_request::Requests>::shared()]
}

/// Checks that the user may do `verb` with the signer of the stored request: a right to the signer itself, or to all of its
/// domain (`kubernetes.io/*`).
///
/// Upstream: `pkg/certauthorization/certauthorization.go`.
///
/// # Errors
/// 403 when they may not.
pub(crate) fn check_signer(attributes: &Attributes<'_>, verb: &'static str) -> Result<(), ApiError> {
    let old = attributes.old.ok_or_else(no_object)?;
    let signer = &cast::<CertificateSigningRequest>(old)?.spec.signer_name;
    let domain = signer.split('/').next().unwrap_or_default();
    let may = |name: &str| {
        let access = Access {
            verb: Verb::Other(verb),
            group: GROUP,
            version: "*",
            resource: "signers",
            subresource: "",
            namespace: "",
            name,
        };
        attributes.may(&access).is_ok()
    };
    if may(signer) || may(&format!("{domain}/*")) {
        return Ok(());
    }
    Err(attributes.forbidden(old, format!("user not permitted to {verb} requests with signerName {signer:?}")))
}
