//! The rules of CertificateSigningRequests, those of upstream's `pkg/apis/certificates/validation/validation.go`.

use std::collections::BTreeSet;

use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest as Object, CertificateSigningRequestCondition as Condition,
};
use machinery::certificates::{
    APPROVED, CertificateRequest, DENIED, FAILED, KEY_USAGES, certificate, check_chain, conditions, key_usage,
};
use machinery::field::{ErrorList, FieldError, Path};
use machinery::validate;

use crate::check::Report;
use crate::common::list;

/// A signer of older API versions, which this one refuses.
const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";
/// In seconds.
const EXPIRATION_MIN: i32 = 600;
/// The longest domain of a signer, and the longest name: a domain, a slash, a namespace, a dot and a name.
const DOMAIN_MAX: usize = 253;
const SIGNER_MAX: usize = DOMAIN_MAX + 1 + 63 + 1 + 253;

/// Which part of a request a write is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The object itself, of which nothing but the metadata can change.
    Metadata,
    /// `status`.
    Status,
    /// `approval`.
    Approval,
}

/// What is wrong with a new request.
pub(super) fn create(object: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    validate_request(&mut errors, object, None);
    errors
}

/// What is wrong with a write to a part of a request. What was wrong before is not told again.
pub(super) fn update(new: &Object, old: &Object, part: Part) -> ErrorList {
    let mut errors = ErrorList::new();
    validate_request(&mut errors, new, Some(old));
    let status = Path::new("status");
    let path = status.child("conditions");
    let of = |object: &Object, kind: &str| -> Vec<Condition> {
        conditions(object).iter().filter(|condition| condition.type_ == kind).cloned().collect()
    };
    for kind in [APPROVED, DENIED, FAILED] {
        if of(new, kind).len() < of(old, kind).len() {
            errors.forbidden(&path, format!("updates may not remove a condition of type {kind:?}"));
        }
    }
    if part != Part::Approval {
        for kind in [APPROVED, DENIED] {
            let (new, old) = (of(new, kind), of(old, kind));
            if new.len() > old.len() {
                errors.forbidden(&path, format!("updates may not add a condition of type {kind:?}"));
            } else if new.len() == old.len() && new != old {
                errors.forbidden(&path, format!("updates may not modify a condition of type {kind:?}"));
            }
        }
    }
    if certificate(new) != certificate(old) {
        let path = status.child("certificate");
        if part != Part::Status {
            errors.forbidden(&path, "updates may not set certificate content");
        } else if !certificate(old).is_empty() {
            errors.forbidden(&path, "updates may not modify existing certificate content");
        }
    }
    errors
}

/// What holds of every request. Of the spec, which no update changes, only a create is asked.
fn validate_request(errors: &mut ErrorList, object: &Object, old: Option<&Object>) {
    if old.is_none() {
        validate_spec(errors, object);
    }
    validate_conditions(errors, conditions(object), old.map_or(&[], conditions));
    let is_tolerated =
        old.is_some_and(|old| certificate(old) == certificate(object) || check_chain(certificate(old)).is_err());
    if !is_tolerated && let Err(fault) = check_chain(certificate(object)) {
        errors.invalid(&Path::new("status").child("certificate"), "<certificate data>", fault);
    }
}

fn validate_spec(errors: &mut ErrorList, object: &Object) {
    let (path, spec) = (Path::new("spec"), &object.spec);
    if let Err(fault) = CertificateRequest::from_pem(&spec.request.0) {
        errors.invalid(&path.child("request"), &spec.request, fault);
    }
    let (usages, at) = (list(&spec.usages), path.child("usages"));
    if usages.is_empty() {
        errors.required(&at, "");
    }
    let known = KEY_USAGES.map(|(name, _)| name);
    for (index, usage) in usages.iter().enumerate().filter(|(_, usage)| key_usage(usage).is_none()) {
        errors.not_supported(&at.index(index), usage, &known);
    }
    let mut seen = BTreeSet::new();
    for (index, usage) in usages.iter().enumerate() {
        if !seen.insert(usage) {
            errors.duplicate(&at.index(index), usage);
        }
    }
    validate_signer_name(errors, &path.child("signerName"), &spec.signer_name);
    if let Some(seconds) = spec.expiration_seconds.filter(|seconds| *seconds < EXPIRATION_MIN) {
        let message = format!("may not specify a duration less than {EXPIRATION_MIN} seconds (10 minutes)");
        errors.invalid(&path.child("expirationSeconds"), seconds, message);
    }
}

/// Upstream: `ValidateSignerName` in `pkg/apis/core/validation/names.go`.
fn validate_signer_name(errors: &mut ErrorList, path: &Path, name: &str) {
    if name == LEGACY_UNKNOWN {
        return errors.invalid(path, name, "the legacy signerName is not allowed via this API version");
    }
    if name.is_empty() {
        return errors.required(path, "");
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let form = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.invalid(path, name, form);
    };
    if domain.len() > DOMAIN_MAX {
        errors.push(FieldError::too_long(path, domain, DOMAIN_MAX));
    }
    labels(errors, path, domain, validate::dns_label);
    if !domain.contains('.') {
        errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    labels(errors, path, rest, validate::dns_subdomain);
    if name.len() > SIGNER_MAX {
        errors.push(FieldError::too_long(path, name, SIGNER_MAX));
    }
}

/// What is wrong with the first bad one of the labels that dots separate.
fn labels(errors: &mut ErrorList, path: &Path, value: &str, faults: fn(&str) -> Vec<String>) {
    let bad = value.split('.').map(|label| (label, faults(label))).find(|(_, faults)| !faults.is_empty());
    let Some((label, faults)) = bad else { return };
    for fault in faults {
        errors.invalid(path, value, format!("validating label {label:?}: {fault}"));
    }
}

fn validate_conditions(errors: &mut ErrorList, conditions: &[Condition], before: &[Condition]) {
    const TRUE: &[&str] = &["True"];
    const ANY: &[&str] = &["False", "True", "Unknown"];
    let path = Path::new("status").child("conditions");
    let before_types: BTreeSet<&str> = before.iter().map(|condition| condition.type_.as_str()).collect();
    let tolerates_untyped = before_types.contains("");
    let tolerates_both = before_types.contains(APPROVED) && before_types.contains(DENIED);
    let tolerates_repeats = before_types.len() < before.len();
    let mut seen = BTreeSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let (at, kind, status) = (path.index(index), condition.type_.as_str(), condition.status.as_str());
        if kind.is_empty() && !tolerates_untyped {
            errors.required(&at.child("type"), "");
        }
        let valid = if [APPROVED, DENIED, FAILED].contains(&kind) { TRUE } else { ANY };
        if status.is_empty() {
            errors.required(&at.child("status"), "");
        } else if !valid.contains(&status) {
            errors.not_supported(&at.child("status"), status, valid);
        }
        let other = match kind {
            APPROVED => Some(DENIED),
            DENIED => Some(APPROVED),
            _ => None,
        };
        if !tolerates_both && other.is_some_and(|other| seen.contains(other)) {
            errors.invalid(&path, kind, "Approved and Denied conditions are mutually exclusive");
        }
        if !seen.insert(kind) && !tolerates_repeats {
            errors.duplicate(&at.child("type"), kind);
        }
    }
}
