//! certificates.k8s.io/v1 CertificateSigningRequest.
//!
//! Who asks is what authentication says, whatever the body says; the spec never changes; `approval` writes conditions,
//! `status` the certificate. Upstream: `pkg/registry/certificates/certificates/strategy.go`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest as Object, CertificateSigningRequestStatus};
use machinery::age::human_duration;
use machinery::certificates::{APPROVED, DENIED, FAILED, certificate, conditions};
use machinery::field::ErrorList;
use registry::kind::{Column, Context, Descriptor, Kind, NameRule, Subresource, cell_age, cell_name};
use registry::meta;
use serde_json::Value;

use super::GROUP;
use super::validation::{self, Part};
use crate::common::{or_none, text};

/// CertificateSigningRequests.
pub(super) struct Requests;

impl Kind for Requests {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["csr"],
        subresources: &[Subresource::Approval, Subresource::Status],
        names: NameRule::PathSegment,
        selectable: &["spec.signerName"],
        ..Descriptor::cluster(GROUP, "v1", "CertificateSigningRequest", "certificatesigningrequests")
    };

    fn prepare_create(object: &mut Object, context: &Context<'_>) {
        let (spec, user) = (&mut object.spec, context.user);
        spec.username = some(&user.name);
        spec.uid = some(&user.uid);
        spec.groups = some(&user.groups);
        spec.extra = some(&user.extra);
        object.status = Some(CertificateSigningRequestStatus::default());
    }

    fn prepare_update(new: &mut Object, old: &Object) {
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
    }

    fn prepare_status(new: &mut Object, old: &Object) {
        new.spec.clone_from(&old.spec);
        for kind in [APPROVED, DENIED] {
            preserve(new, old, kind);
        }
    }

    fn prepare_subresource(_subresource: Subresource, new: &mut Object, old: &Object) {
        new.spec.clone_from(&old.spec);
        let certificate = old.status.as_ref().and_then(|status| status.certificate.clone());
        new.status.get_or_insert_default().certificate = certificate;
    }

    fn prepare_conditions(new: &mut Object, old: &Object, now: Timestamp) {
        let Some(new) = new.status.as_mut().and_then(|status| status.conditions.as_mut()) else { return };
        let mut transitions = BTreeMap::new();
        for before in conditions(old) {
            let Some(time) = &before.last_transition_time else { continue };
            transitions.entry((before.type_.as_str(), before.status.as_str())).or_insert(time);
        }
        for condition in new {
            condition.last_update_time.get_or_insert_with(|| meta::time(now));
            if condition.last_transition_time.is_none() {
                let before = transitions.get(&(condition.type_.as_str(), condition.status.as_str()));
                condition.last_transition_time = Some(before.map_or_else(|| meta::time(now), |time| (*time).clone()));
            }
        }
    }

    fn validate(object: &Object) -> ErrorList {
        validation::create(object)
    }

    /// What of the old object would be refused today is tolerated, so that [`validation::update`] looks at all of it.
    fn is_settled(_new: &Object, _old: &Object) -> bool {
        true
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        validation::update(new, old, Part::Metadata)
    }

    fn validate_status(new: &Object, old: &Object) -> ErrorList {
        validation::update(new, old, Part::Status)
    }

    fn validate_subresource(_subresource: Subresource, new: &Object, old: &Object) -> ErrorList {
        validation::update(new, old, Part::Approval)
    }

    fn fields(object: &Object) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", object.spec.signer_name.clone())]
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::age(),
            Column::string("SignerName", "Who is asked to sign."),
            Column::string("Requestor", "Who asks."),
            Column::string("RequestedDuration", "How long the certificate is to be valid."),
            Column::string(
                "Condition",
                "Whether it is approved, denied or pending, and whether a certificate is issued.",
            ),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let duration = object.spec.expiration_seconds.map(|seconds| human_duration(seconds.into()));
        vec![
            cell_name(&object.metadata),
            cell_age(&object.metadata, now),
            or_none(&object.spec.signer_name),
            text(&object.spec.username).into(),
            or_none(&duration.unwrap_or_default()),
            state(object).into(),
        ]
    }
}

/// A value, unless it is empty.
fn some<T: Clone + Default + PartialEq>(value: &T) -> Option<T> {
    Some(value).filter(|value| **value != T::default()).cloned()
}

/// Puts the conditions of a type back as they were, unless there are more or fewer than there were, which validation refuses.
fn preserve(new: &mut Object, old: &Object, kind: &str) {
    let before = conditions(old).iter().filter(|condition| condition.type_ == kind);
    let after = new.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
    let after: Vec<_> = after.filter(|condition| condition.type_ == kind).collect();
    if before.clone().count() == after.len() {
        after.into_iter().zip(before).for_each(|(after, before)| after.clone_from(before));
    }
}

/// What kubectl shows: `Pending`, `Approved,Issued`, `Denied`.
fn state(object: &Object) -> String {
    let has = |kind: &str| conditions(object).iter().any(|condition| condition.type_ == kind);
    let mut state = if has(DENIED) {
        DENIED
    } else if has(APPROVED) {
        APPROVED
    } else {
        "Pending"
    }
    .to_owned();
    if has(FAILED) {
        state.push_str(",Failed");
    }
    if !certificate(object).is_empty() {
        state.push_str(",Issued");
    }
    state
}
