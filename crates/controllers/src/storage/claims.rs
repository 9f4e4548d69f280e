//! What is to be done about a claim.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use machinery::quantity::Quantity;

use super::facts::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, ClaimPhase, PROVISIONED_BY, SELECTED_NODE, annotated, claim_class, claim_ref,
    granted, is_kept_for, lacks_class, requested, text, volume_name, waits_for_consumer,
};
use super::matching;
use super::provision::PROVISIONER;
use crate::meta;

/// What a claim is decided by.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// The volume it names.
    pub(crate) named: Option<Arc<PersistentVolume>>,
    /// Volumes that are free and of its class, and those kept for it.
    pub(crate) candidates: Vec<Arc<PersistentVolume>>,
    /// Its class.
    pub(crate) class: Option<Arc<StorageClass>>,
    /// The name of the default class.
    pub(crate) default_class: Option<String>,
    /// Names of the Pods that use it and are on no node yet.
    pub(crate) waiting_pods: Vec<String>,
}

/// What is to be done about a claim.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plan {
    /// Nothing.
    Nothing,
    /// It gets this volume, or what is missing of the binding is made up for.
    Bind(Arc<PersistentVolume>),
    /// A volume is made for it.
    Provision(Arc<StorageClass>),
    /// Somebody else is to make a volume for it.
    Delegate(Arc<StorageClass>),
    /// It is given the default class, which was not there when it was created.
    TakeClass(String),
    /// It stays without a volume, in this phase.
    Stay(ClaimPhase, Option<Note>),
    /// Its volume, which is one of ours, grows to this size.
    Grow(Arc<PersistentVolume>, Quantity),
    /// It is told something, and that is all.
    Tell(Note),
}

/// What a person is told by an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// Whether it is bad news.
    pub(crate) warning: bool,
    /// One word.
    pub(crate) reason: &'static str,
    /// A sentence.
    pub(crate) message: String,
}

impl Note {
    pub(super) fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: false, reason, message: message.into() }
    }

    pub(super) fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: true, reason, message: message.into() }
    }
}

/// Decides about a claim.
pub(crate) fn plan(claim: &PersistentVolumeClaim, facts: &Facts) -> Plan {
    if annotated(claim, BIND_COMPLETED) {
        return bound(claim, facts);
    }
    if meta::is_deleting(claim) {
        return Plan::Nothing;
    }
    if !volume_name(claim).is_empty() {
        return named(claim, facts);
    }
    if let (true, Some(class)) = (lacks_class(claim), &facts.default_class) {
        return Plan::TakeClass(class.clone());
    }
    let class = facts.class.as_ref();
    let waits = class.is_some_and(|class| waits_for_consumer(class)) && !annotated(claim, SELECTED_NODE);
    if let Some(volume) = matching::find(claim, &facts.candidates, waits) {
        return Plan::Bind(volume);
    }
    let note = match (class, claim_class(claim)) {
        _ if waits => waiting(&facts.waiting_pods),
        (None, "") => {
            Note::normal("FailedBinding", "no persistent volumes available for this claim and no storage class is set")
        }
        (None, name) => {
            Note::warning("ProvisioningFailed", format!("storageclass.storage.k8s.io \"{name}\" not found"))
        }
        (Some(class), _) if class.provisioner == PROVISIONER => return Plan::Provision(Arc::clone(class)),
        // What upstream had built in once is nobody's any more, least of all `kubernetes.io/no-provisioner`.
        (Some(class), _) if class.provisioner.starts_with("kubernetes.io/") => {
            Note::warning("ProvisioningFailed", "no volume plugin matched")
        }
        (Some(class), _) => return Plan::Delegate(Arc::clone(class)),
    };
    Plan::Stay(ClaimPhase::Pending, Some(note))
}

fn waiting(pods: &[String]) -> Note {
    let wait = |reason, message: String| Note::normal(reason, message);
    match pods {
        [] => wait("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
        [pod] => wait("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
        pods => wait("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", pods.join(","))),
    }
}

/// An unbound claim that names its volume.
fn named(claim: &PersistentVolumeClaim, facts: &Facts) -> Plan {
    // Not there yet: the claim waits for it.
    let Some(volume) = &facts.named else { return Plan::Stay(ClaimPhase::Pending, None) };
    let name = meta::name(&**volume);
    match claim_ref(volume) {
        None => match matching::satisfies(volume, claim) {
            Ok(()) => Plan::Bind(Arc::clone(volume)),
            Err(why) => {
                let message = format!("Cannot bind to requested volume \"{name}\": {why}");
                Plan::Stay(ClaimPhase::Pending, Some(Note::warning("VolumeMismatch", message)))
            }
        },
        Some(_) if is_kept_for(volume, claim) => Plan::Bind(Arc::clone(volume)),
        Some(_) if annotated(claim, BOUND_BY_CONTROLLER) => Plan::Nothing,
        Some(_) => {
            let message = format!("volume \"{name}\" already bound to a different claim.");
            Plan::Stay(ClaimPhase::Pending, Some(Note::warning("FailedBinding", message)))
        }
    }
}

/// A claim that was bound once.
fn bound(claim: &PersistentVolumeClaim, facts: &Facts) -> Plan {
    let lost = |reason, message: &str| Plan::Stay(ClaimPhase::Lost, Some(Note::warning(reason, message)));
    if volume_name(claim).is_empty() {
        return lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!");
    }
    let Some(volume) = &facts.named else {
        return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    match claim_ref(volume) {
        None => Plan::Bind(Arc::clone(volume)),
        Some(reference) if text(&reference.uid) == meta::uid(claim) => {
            grow(claim, volume).unwrap_or_else(|| Plan::Bind(Arc::clone(volume)))
        }
        Some(_) => lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly"),
    }
}

fn grow(claim: &PersistentVolumeClaim, volume: &Arc<PersistentVolume>) -> Option<Plan> {
    let wanted = requested(claim);
    if granted(claim)? >= wanted || meta::is_deleting(claim) {
        return None;
    }
    Some(match meta::annotation(&**volume, PROVISIONED_BY) {
        Some(PROVISIONER) => Plan::Grow(Arc::clone(volume), wanted),
        _ => Plan::Tell(Note::normal("ExternalExpanding", "waiting for an external controller to expand this PVC")),
    })
}
