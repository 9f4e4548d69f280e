//! Tables: claims and volumes in, decisions out.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttributesClass};
use serde_json::{Value, from_value, json};

use super::claims::{Facts, Plan};
use super::facts::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, DELETION_FINALIZER, PROVISIONED_BY, SELECTED_NODE, VolumePhase,
};
use super::provision::{Directories, PROVISIONER};
use super::{bind, claims, class_protection, ephemeral, matching, protection, provision, volumes};
use crate::meta;

fn merged(mut base: Value, more: &Value) -> Value {
    fn merge(into: &mut Value, from: &Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                from.iter().for_each(|(key, value)| merge(into.entry(key.clone()).or_insert(Value::Null), value));
            }
            (into, from) => *into = from.clone(),
        }
    }
    merge(&mut base, more);
    base
}

fn claim(more: Value) -> PersistentVolumeClaim {
    let base = json!({
        "metadata": { "namespace": "ns", "name": "data", "uid": "u1", "resourceVersion": "7" },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "slow",
            "resources": { "requests": { "storage": "2Gi" } },
        },
        "status": { "phase": "Pending" },
    });
    from_value(merged(base, &more)).expect("claim")
}

fn volume(name: &str, more: Value) -> Arc<PersistentVolume> {
    let base = json!({
        "metadata": { "name": name, "uid": name, "resourceVersion": "3" },
        "spec": {
            "capacity": { "storage": "5Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "slow",
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": { "path": "/data" },
        },
        "status": { "phase": "Available" },
    });
    Arc::new(from_value(merged(base, &more)).expect("volume"))
}

fn class(provisioner: &str, binding: &str) -> Arc<StorageClass> {
    let class = json!({ "metadata": { "name": "slow" }, "provisioner": provisioner, "volumeBindingMode": binding });
    Arc::new(from_value(class).expect("class"))
}

fn reference(uid: &str) -> Value {
    json!({ "spec": { "claimRef": { "namespace": "ns", "name": "data", "uid": uid } } })
}

#[test]
fn the_smallest_volume_that_fits_is_chosen() {
    let sized = |name: &str, size: &str| volume(name, json!({ "spec": { "capacity": { "storage": size } } }));
    let labelled = volume("labelled", json!({ "metadata": { "labels": { "disk": "ssd" } } }));
    let able = volume("able", json!({ "spec": { "accessModes": ["ReadWriteOnce", "ReadWriteMany"] } }));
    let block = volume("block", json!({ "spec": { "volumeMode": "Block", "capacity": { "storage": "2Gi" } } }));
    let other = volume("other", json!({ "spec": { "storageClassName": "fast", "capacity": { "storage": "2Gi" } } }));
    let taken = volume("taken", reference("u2"));
    let released = volume("released", json!({ "status": { "phase": "Released" } }));
    let kept = volume("kept", reference(""));
    let check = |claim: &PersistentVolumeClaim, volumes: &[&Arc<PersistentVolume>], waits: bool, expect: &str| {
        let volumes: Vec<_> = volumes.iter().map(|volume| Arc::clone(volume)).collect();
        let found = matching::find(claim, &volumes, waits);
        assert_eq!(found.as_ref().map_or("", |volume| meta::name(&**volume)), expect);
    };
    let plain = claim(json!({}));
    check(&plain, &[&sized("big", "9Gi"), &sized("fits", "3Gi"), &sized("small", "1Gi")], false, "fits");
    check(&plain, &[&sized("small", "1Gi"), &block, &other, &taken, &released], false, "");
    check(&plain, &[&able, &sized("big", "9Gi")], false, "big");
    check(&plain, &[&sized("fits", "2Gi"), &kept], false, "kept");
    check(&plain, &[&sized("fits", "2Gi")], true, "");
    check(&plain, &[&kept], true, "kept");
    let picky = claim(json!({ "spec": { "selector": { "matchLabels": { "disk": "ssd" } } } }));
    check(&picky, &[&sized("fits", "2Gi"), &labelled], false, "labelled");
    let shared = claim(json!({ "spec": { "accessModes": ["ReadWriteMany"] } }));
    check(&shared, &[&sized("fits", "2Gi"), &able], false, "able");
}

#[test]
fn what_a_claim_gets() {
    let told = |plan: Plan| match plan {
        Plan::Stay(phase, note) => {
            let note = note.map(|note| format!(" {} {}", note.reason, note.message));
            format!("{phase:?}{}", note.unwrap_or_default())
        }
        Plan::Bind(volume) => format!("bind {}", meta::name(&*volume)),
        Plan::Provision(_) => "provision".to_owned(),
        Plan::Delegate(class) => format!("delegate {}", class.provisioner),
        Plan::TakeClass(name) => format!("class {name}"),
        Plan::Grow(volume, size) => format!("grow {} {size}", meta::name(&*volume)),
        Plan::Tell(note) => format!("tell {}", note.reason),
        Plan::Nothing => String::new(),
    };
    let check = |more: Value, facts: Facts, expect: &str| {
        assert_eq!(told(claims::plan(&claim(more), &facts)), expect);
    };
    let of = |class: Arc<StorageClass>| Facts { class: Some(class), ..Facts::default() };
    let named = |volume: Arc<PersistentVolume>| Facts { named: Some(volume), ..Facts::default() };
    let no_class = json!({ "spec": { "storageClassName": "" } });
    check(
        no_class,
        Facts::default(),
        "Pending FailedBinding no persistent volumes available for this claim and no storage class is set",
    );
    check(json!({}), Facts::default(), "Pending ProvisioningFailed storageclass.storage.k8s.io \"slow\" not found");
    let default = Facts { default_class: Some("standard".to_owned()), ..Facts::default() };
    check(json!({ "spec": { "storageClassName": null } }), default, "class standard");
    check(json!({}), of(class(PROVISIONER, "Immediate")), "provision");
    check(json!({}), of(class("example.com/disk", "Immediate")), "delegate example.com/disk");
    check(
        json!({}),
        of(class("kubernetes.io/no-provisioner", "Immediate")),
        "Pending ProvisioningFailed no volume plugin matched",
    );
    let late = class(PROVISIONER, "WaitForFirstConsumer");
    check(
        json!({}),
        of(Arc::clone(&late)),
        "Pending WaitForFirstConsumer waiting for first consumer to be created before binding",
    );
    let waiting = Facts { waiting_pods: vec!["web".to_owned()], ..of(Arc::clone(&late)) };
    check(json!({}), waiting, "Pending WaitForPodScheduled waiting for pod web to be scheduled");
    check(json!({ "metadata": { "annotations": { SELECTED_NODE: "n" } } }), of(late), "provision");

    let wants = json!({ "spec": { "volumeName": "pv" } });
    check(wants.clone(), Facts::default(), "Pending");
    check(wants.clone(), named(volume("pv", json!({}))), "bind pv");
    check(wants.clone(), named(volume("pv", reference("u1"))), "bind pv");
    check(
        wants.clone(),
        named(volume("pv", reference("u2"))),
        "Pending FailedBinding volume \"pv\" already bound to a different claim.",
    );
    check(
        wants,
        named(volume("pv", json!({ "spec": { "capacity": { "storage": "1Gi" } } }))),
        "Pending VolumeMismatch Cannot bind to requested volume \"pv\": requested PV is too small",
    );

    let bound = json!({
        "metadata": { "annotations": { BIND_COMPLETED: "yes" } },
        "spec": { "volumeName": "pv" },
        "status": { "phase": "Bound", "capacity": { "storage": "2Gi" } },
    });
    check(bound.clone(), named(volume("pv", reference("u1"))), "bind pv");
    check(
        bound.clone(),
        Facts::default(),
        "Lost ClaimLost Bound claim has lost its PersistentVolume. Data on the volume is lost!",
    );
    check(
        bound.clone(),
        named(volume("pv", reference("u2"))),
        "Lost ClaimMisbound Two claims are bound to the same volume, this one is bound incorrectly",
    );
    let bigger = merged(bound, &json!({ "spec": { "resources": { "requests": { "storage": "3Gi" } } } }));
    check(bigger.clone(), named(volume("pv", reference("u1"))), "tell ExternalExpanding");
    let ours = merged(reference("u1"), &json!({ "metadata": { "annotations": { PROVISIONED_BY: PROVISIONER } } }));
    check(bigger, named(volume("pv", ours)), "grow pv 3Gi");
}

#[test]
fn what_becomes_of_a_volume() {
    let check = |more: Value, claim: Option<PersistentVolumeClaim>, expect: &str| {
        let plan = match volumes::plan(&volume("pv", more), claim.map(Arc::new).as_ref()) {
            volumes::Plan::Phase(phase) => format!("{phase:?}"),
            volumes::Plan::Fail(note) => note.message,
            other => format!("{other:?}"),
        };
        assert_eq!(plan, expect);
    };
    let kept = |uid: &str, more: Value| merged(reference(uid), &more);
    let ours = json!({
        "metadata": { "annotations": { PROVISIONED_BY: PROVISIONER }, "finalizers": [DELETION_FINALIZER] },
        "spec": { "persistentVolumeReclaimPolicy": "Delete" },
    });
    let has = |name: &str| Some(claim(json!({ "spec": { "volumeName": name } })));
    check(json!({}), None, "Available");
    check(kept("", json!({})), None, "Available");
    check(kept("", json!({})), Some(claim(json!({}))), "AskClaim");
    check(kept("u1", json!({})), Some(claim(json!({}))), "AskClaim");
    check(kept("u1", json!({})), has("pv"), "Bound");
    check(kept("u1", json!({})), has("other"), "Unbind");
    check(kept("u1", ours.clone()), has("other"), "Remove");
    check(kept("u1", json!({})), None, "Release");
    check(kept("u2", json!({})), has("pv"), "Release");
    check(kept("u1", ours.clone()), None, "Remove");
    check(kept("u1", ours.clone()), has("pv"), "Bound");
    let theirs = json!({
        "metadata": { "annotations": { PROVISIONED_BY: "example.com/disk" } },
        "spec": { "persistentVolumeReclaimPolicy": "Delete" },
    });
    check(kept("u1", theirs), None, "Release");
    let nobodys = json!({ "spec": { "persistentVolumeReclaimPolicy": "Delete" } });
    check(kept("u1", nobodys.clone()), None, "Release");
    check(
        kept("u1", merged(nobodys, &json!({ "status": { "phase": "Released" } }))),
        None,
        "error getting deleter volume plugin for volume \"pv\": no deletable volume plugin matched",
    );
    let changed = json!({ "spec": { "persistentVolumeReclaimPolicy": "Retain" } });
    check(kept("u1", merged(ours, &changed)), has("pv"), "Finalizer { present: false }");
}

#[test]
fn a_binding_is_four_writes_that_are_made_once() {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("time");
    let (free, asks) = (volume("pv", json!({})), claim(json!({})));
    let write = bind::volume(&free, &asks).expect("a write");
    assert_eq!(write["metadata"]["resourceVersion"], "3");
    assert_eq!(write["metadata"]["annotations"][BOUND_BY_CONTROLLER], "yes");
    assert_eq!(write["spec"]["claimRef"]["uid"], "u1");
    let kept = bind::volume(&volume("pv", reference("")), &asks).expect("a write");
    assert_eq!(kept["metadata"]["annotations"], Value::Null, "it was not our idea");
    assert_eq!(
        bind::volume_phase_patch(&free, VolumePhase::Bound, "", now).map(|patch| patch["status"].clone()),
        Some(json!({ "phase": "Bound", "message": null, "lastPhaseTransitionTime": "2026-01-01T00:00:00Z" }))
    );
    let write = bind::claim(&asks, &free).expect("a write");
    assert_eq!(write["spec"]["volumeName"], "pv");
    assert_eq!(write["metadata"]["annotations"], json!({ BIND_COMPLETED: "yes", BOUND_BY_CONTROLLER: "yes" }));
    let write = bind::claim_bound(&asks, &free).expect("a write");
    assert_eq!(
        write["status"],
        json!({ "phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "5Gi" } })
    );

    let done = claim(json!({
        "metadata": { "annotations": { BIND_COMPLETED: "yes" } },
        "spec": { "volumeName": "pv" },
        "status": { "phase": "Bound", "accessModes": ["ReadWriteOnce"] },
    }));
    let bound = volume("pv", merged(reference("u1"), &json!({ "status": { "phase": "Bound" } })));
    assert_eq!(bind::volume(&bound, &done), None);
    assert_eq!(bind::volume_phase_patch(&bound, VolumePhase::Bound, "", now), None);
    assert_eq!(bind::claim(&done, &bound), None);
    assert_eq!(bind::claim_bound(&done, &bound), None);
}

#[test]
fn directories_are_made_and_removed_below_their_parent_alone() {
    use std::os::unix::fs::PermissionsExt;
    let home = std::env::temp_dir().join(format!("coracle-volumes-{}", std::process::id()));
    let parent = home.join("volumes");
    let directories = Directories::new(parent.clone());
    let asks = claim(json!({}));
    let path = directories.path(&asks);
    assert_eq!(path, parent.join("pvc-u1_ns_data"));
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("metadata").permissions().mode() & 0o7777;
    for _ in 0..2 {
        directories.create(&path).expect("created");
        assert_eq!((mode(&parent), mode(&path)), (0o700, 0o777));
    }
    std::fs::write(path.join("file"), "data").expect("written");
    for foreign in [home.clone(), parent.clone(), parent.join(".."), path.join("file"), "/".into(), "".into()] {
        assert!(directories.remove(&foreign).is_err(), "{}", foreign.display());
    }
    assert!(path.join("file").exists());
    for _ in 0..2 {
        directories.remove(&path).expect("removed");
        assert!(!path.exists());
    }
    std::fs::remove_dir_all(home).expect("removed");
}

#[test]
fn a_volume_is_made_as_the_claim_and_its_class_say() {
    let asks = claim(json!({}));
    let made = provision::volume(&asks, &class(PROVISIONER, "Immediate"), "/v/x".as_ref(), Some("n1"));
    let spec = made.spec.as_ref().expect("spec");
    assert_eq!(made.metadata.name.as_deref(), Some("pvc-u1"));
    assert_eq!(made.metadata.finalizers.as_deref(), Some(&[DELETION_FINALIZER.to_owned()][..]));
    assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Delete"));
    assert_eq!(spec.host_path.as_ref().map(|source| source.path.as_str()), Some("/v/x"));
    assert_eq!(spec.claim_ref.as_ref().and_then(|reference| reference.uid.as_deref()), Some("u1"));
    let affinity = serde_json::to_value(&spec.node_affinity).expect("JSON");
    assert_eq!(affinity.pointer("/required/nodeSelectorTerms/0/matchExpressions/0/values/0"), Some(&json!("n1")));
    assert_eq!(provision::refusal(&asks), None);
    let block = claim(json!({ "spec": { "volumeMode": "Block" } }));
    assert_eq!(
        provision::refusal(&block).as_deref(),
        Some("coracle.dev/local-path does not support block volume provisioning")
    );
}

#[test]
fn finalizers_go_when_nobody_uses_what_they_protect() {
    let protected = json!({ "metadata": { "finalizers": ["a/b", "kubernetes.io/pvc-protection"] } });
    let deleting = merged(protected.clone(), &json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }));
    let take = |more: Value| protection::take_off(&claim(more), "kubernetes.io/pvc-protection");
    assert_eq!(take(protected), None);
    assert_eq!(take(deleting), Some(json!({ "metadata": { "resourceVersion": "7", "finalizers": ["a/b"] } })));
    let pod = |spec: Value| from_value::<Pod>(json!({ "metadata": {}, "spec": spec })).expect("pod");
    assert!(protection::keeps_claims(&pod(json!({ "containers": [], "nodeName": "n" }))));
    assert!(!protection::keeps_claims(&pod(json!({ "containers": [] }))));
}

#[test]
fn an_attributes_class_stays_while_somebody_names_it() {
    let class = |metadata: Value| {
        let class = json!({ "metadata": metadata, "driverName": "csi.example.com", "parameters": { "iops": "1" } });
        from_value::<VolumeAttributesClass>(class).expect("class")
    };
    let (deleted, ours) = ("2026-01-01T00:00:00Z", "kubernetes.io/vac-protection");
    let check = |metadata: Value, is_used: bool, expect: Option<&[&str]>| {
        let written = class_protection::plan(&class(metadata.clone()), || is_used);
        let finalizers = written.map(|class| class.metadata.finalizers.unwrap_or_default());
        let expect = expect.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(finalizers, expect, "{metadata} {is_used}");
    };
    check(json!({}), false, Some(&[ours]));
    check(json!({ "finalizers": [ours] }), true, None);
    check(json!({ "finalizers": ["a/b", ours], "deletionTimestamp": deleted }), true, None);
    check(json!({ "finalizers": ["a/b", ours], "deletionTimestamp": deleted }), false, Some(&["a/b"]));
    check(json!({ "finalizers": ["a/b"], "deletionTimestamp": deleted }), false, None);

    let named = claim(json!({
        "spec": { "volumeAttributesClassName": "gold" },
        "status": {
            "currentVolumeAttributesClassName": "silver",
            "modifyVolumeStatus": { "status": "Pending", "targetVolumeAttributesClassName": "gold" },
        },
    }));
    assert_eq!(class_protection::classes_of_claim(&named), ["gold", "silver"]);
    assert_eq!(class_protection::classes_of_claim(&claim(json!({}))), [""; 0]);
}

#[test]
fn ephemeral_volumes_have_claims_of_their_own() {
    let pod: Pod = from_value(json!({
        "metadata": { "namespace": "ns", "name": "web", "uid": "p1" },
        "spec": { "containers": [], "volumes": [
            { "name": "plain", "emptyDir": {} },
            { "name": "scratch", "ephemeral": { "volumeClaimTemplate": {
                "metadata": { "labels": { "a": "b" } },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
            } } },
        ] },
    }))
    .expect("pod");
    let planned = ephemeral::plan(&pod);
    let [(volume, claim)] = planned.as_slice() else { panic!("one claim") };
    assert_eq!((volume.as_str(), meta::name(claim)), ("scratch", "web-scratch"));
    assert_eq!(ephemeral::is_for(claim, &pod), Ok(()));
    assert_eq!(super::facts::claims_of(&pod), ["ns/web-scratch"]);
    let mut foreign = claim.clone();
    foreign.metadata.owner_references = None;
    assert_eq!(
        ephemeral::is_for(&foreign, &pod),
        Err("PVC ns/web-scratch was not created for pod ns/web (pod is not owner)".to_owned())
    );
}
