//! A PersistentVolumeClaim: why it is not bound, and who uses it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use machinery::references::PodReferences;

use crate::common::latest_event;
use crate::explanation::{Explanation, Step};
use crate::meta::{has_ended, is_deleting, name};
use crate::related::Related;
use crate::words::{given, list, reason_and_message};

/// The node for which a volume is made (upstream: `pkg/controller/volume/persistentvolume/pv_controller.go`).
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The resource of classes.
const CLASSES: &str = "storageclasses.storage.k8s.io";
/// The class of those that name none (upstream: `pkg/apis/storage/util/helpers.go`).
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

pub(crate) fn explain(out: &mut Explanation, claim: &PersistentVolumeClaim, related: &Related, _now: Timestamp) {
    let Some(spec) = &claim.spec else { return };
    let called = name(&claim.metadata);
    let status = claim.status.clone().unwrap_or_default();
    wants(out, spec);
    let phase = status.phase.as_deref().unwrap_or("Pending");
    let volume = given(spec.volume_name.as_ref());
    match (phase, volume) {
        ("Bound", Some(volume)) => {
            let size = status.capacity.as_ref().and_then(|all| all.get("storage")).map(|size| format!(" ({})", size.0));
            out.has(format!("the volume {volume}{}", size.unwrap_or_default()));
        }
        (phase, Some(volume)) => out.has(format!("the phase {phase}, with a claim to the volume {volume}")),
        (phase, None) => out.has(format!("the phase {phase}, and no volume")),
    }
    let pods = related.all::<Pod>("pods");
    let users: Vec<&str> = pods
        .iter()
        .filter(|pod| !has_ended(pod) && PodReferences::of(pod).claims.contains(called))
        .map(|pod| name(&pod.metadata))
        .collect();
    if !users.is_empty() {
        out.has(format!("pods that use it: {}", list(&users)));
    }
    if is_deleting(&claim.metadata) {
        if !users.is_empty() {
            out.why(format!("it stays as long as these pods use it: {}", list(&users)));
        }
        return;
    }
    match phase {
        "Bound" => bound(out, claim),
        "Lost" => {
            out.next(Step::new(
                "You",
                "delete the claim, or bring its volume back: the volume it was bound to is gone",
            ));
        }
        _ => pending(out, claim, spec, &users, related),
    }
}

fn wants(out: &mut Explanation, spec: &PersistentVolumeClaimSpec) {
    let size = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let size = size.and_then(|requests| requests.get("storage")).map_or("any size", |size| &size.0);
    let modes = spec.access_modes.clone().unwrap_or_default();
    let class = match spec.storage_class_name.as_deref() {
        None => "the default class".to_owned(),
        Some("") => "no class: a volume that is there already".to_owned(),
        Some(class) => format!("the class {class}"),
    };
    out.wants(format!("{size} of storage, {}, of {class}", list(&modes)));
}

fn bound(out: &mut Explanation, claim: &PersistentVolumeClaim) {
    let status = claim.status.clone().unwrap_or_default();
    let resizing = status.conditions.iter().flatten().filter(|condition| condition.status == "True");
    for condition in resizing {
        out.why(format!(
            "{} {}",
            condition.type_,
            reason_and_message(condition.reason.as_ref(), condition.message.as_ref())
        ));
    }
    let size =
        |all: Option<&std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>| {
            all.and_then(|all| all.get("storage")).and_then(|size| size.0.parse::<machinery::quantity::Quantity>().ok())
        };
    let wanted = size(claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()).and_then(|it| it.requests.as_ref()));
    let there = size(status.capacity.as_ref());
    match (wanted, there) {
        (Some(wanted), Some(there)) if wanted.value() > there.value() => {
            out.next(Step::new("The volume's driver", "makes the volume larger, if its class allows that"));
        }
        _ => out.next(Step::new("Nobody", "needs to act: it is bound")),
    }
}

fn pending(
    out: &mut Explanation,
    claim: &PersistentVolumeClaim,
    spec: &PersistentVolumeClaimSpec,
    users: &[&str],
    related: &Related,
) {
    let reasons = ["ProvisioningFailed", "FailedBinding"];
    let failure = latest_event(related, "PersistentVolumeClaim", name(&claim.metadata), &reasons);
    let classes = related.all::<StorageClass>(CLASSES);
    let is_default = |class: &&StorageClass| {
        class.metadata.annotations.as_ref().and_then(|all| all.get(DEFAULT_CLASS)).map(String::as_str) == Some("true")
    };
    let binder = "The volume binder";
    if let Some(volume) = given(spec.volume_name.as_ref()) {
        let volumes = related.all::<PersistentVolume>("persistentvolumes");
        let there = volumes.iter().find(|it| it.metadata.name.as_deref() == Some(volume));
        let holder = there.and_then(|it| it.spec.as_ref()).and_then(|it| it.claim_ref.as_ref());
        let step = Step::new(binder, format!("binds it to the volume {volume}, which it names"));
        match (there, holder) {
            (None, _) if related.knows("persistentvolumes") => {
                out.next(step.waits_for(format!("the volume {volume}, which is not there")));
            }
            (Some(_), Some(holder)) if holder.uid.is_some() && holder.uid != claim.metadata.uid => {
                let other = format!(
                    "{}/{}",
                    holder.namespace.as_deref().unwrap_or_default(),
                    holder.name.as_deref().unwrap_or_default()
                );
                out.next(step.waits_for(format!("the volume {volume} to be free: it is bound to {other}")));
            }
            _ => out.next(step),
        }
    } else {
        let class = match spec.storage_class_name.as_deref() {
            Some("") => None,
            Some(class) => {
                let there = classes.iter().find(|it| it.metadata.name.as_deref() == Some(class));
                if there.is_none() && related.knows(CLASSES) {
                    out.next(
                        Step::new(binder, "makes a volume").waits_for(format!("the class {class}, which is not there")),
                    );
                    let known: Vec<&str> = classes.iter().map(|it| name(&it.metadata)).collect();
                    out.why(format!("the classes that are there: {}", list(&known)));
                    return;
                }
                there
            }
            None => classes.iter().find(is_default),
        };
        if class.is_none() && spec.storage_class_name.as_deref() != Some("") && !related.knows(CLASSES) {
            out.next(Step::new(binder, "binds it, as its class says"));
            return;
        }
        match class {
            Some(class) => of_class(out, claim, class, users),
            None => {
                let size = spec.resources.as_ref().and_then(|it| it.requests.as_ref()).and_then(|it| it.get("storage"));
                let size = size.map_or("enough", |size| &size.0);
                out.next(Step::new(binder, "binds it").waits_for(format!(
                    "a free volume without a class that has {size} of storage and the access modes {}",
                    list(&spec.access_modes.clone().unwrap_or_default())
                )));
            }
        }
    }
    if let Some(event) = failure {
        out.why(reason_and_message(event.reason.as_ref(), event.message.as_ref()));
    }
}

fn of_class(out: &mut Explanation, claim: &PersistentVolumeClaim, class: &StorageClass, users: &[&str]) {
    let (called, provisioner) = (name(&class.metadata), &class.provisioner);
    let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
    let node = claim.metadata.annotations.as_ref().and_then(|all| all.get(SELECTED_NODE));
    let mode = class.volume_binding_mode.as_deref().unwrap_or("Immediate");
    out.why(format!("the class {called} has the provisioner {provisioner} and the binding mode {mode}"));
    match (waits, node, users) {
        (true, None, []) => out.next(
            Step::new("The scheduler", "chooses a node for the volume")
                .waits_for("a pod that uses the claim (WaitForFirstConsumer)"),
        ),
        (true, None, users) => {
            out.next(Step::new("The scheduler", "chooses a node for the volume").waits_for(format!(
                "a node on which {} can run (coracle explain pod/{})",
                list(users),
                users[0]
            )));
        }
        (true, Some(node), _) => {
            out.next(Step::new(format!("The provisioner {provisioner}"), format!("makes a volume on the node {node}")));
        }
        (false, ..) if provisioner == "kubernetes.io/no-provisioner" => {
            out.next(
                Step::new("The volume binder", "binds it").waits_for(format!("a free volume of the class {called}")),
            );
        }
        (false, ..) => out.next(Step::new(format!("The provisioner {provisioner}"), "makes a volume")),
    }
}
