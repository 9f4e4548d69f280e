//! Tables for the kinds of storage.

use registry::kind::Kind;
use serde_json::{Value, json};

use super::attachment::VolumeAttachment;
use super::attributes_class::VolumeAttributesClass;
use super::capacity::CSIStorageCapacity;
use super::claim::PersistentVolumeClaim;
use super::class::StorageClass;
use super::csi_driver::CSIDriver;
use super::csi_node::CSINode;
use super::volume::PersistentVolume;
use crate::testing::{CREATED, check_defaults, errors, row, update_errors, with};

fn volume() -> Value {
    json!({
        "metadata": {"name": "pv", "creationTimestamp": CREATED},
        "spec": {
            "capacity": {"storage": "1024Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "slow",
            "hostPath": {"path": "/data"},
        },
    })
}

fn claim() -> Value {
    json!({
        "metadata": {"name": "data", "namespace": "default", "creationTimestamp": CREATED},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    })
}

#[track_caller]
fn check<K: Kind>(base: Value, cases: &[(&str, Value, &[&str])]) {
    assert_eq!(errors::<K>(base.clone()), [""; 0]);
    for (pointer, value, expect) in cases {
        assert_eq!(errors::<K>(with(base.clone(), pointer, value.clone())), *expect, "{pointer}");
    }
}

#[test]
fn volumes() {
    check_defaults::<PersistentVolume>(
        volume(),
        &json!({
            "metadata": {"name": "pv", "creationTimestamp": CREATED},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "slow",
                "hostPath": {"path": "/data", "type": ""},
                "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem",
            },
            "status": {"phase": "Pending"},
        }),
    );
    check::<PersistentVolume>(
        volume(),
        &[
            ("/spec/accessModes", json!([]), &["spec.accessModes: Required value"]),
            (
                "/spec/accessModes",
                json!(["ReadWriteOncePod", "Sometimes"]),
                &[
                    "spec.accessModes: Unsupported value: \"Sometimes\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                    "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
                ],
            ),
            (
                "/spec/capacity",
                Value::Null,
                &[
                    "spec.capacity: Required value",
                    "spec.capacity: Unsupported value: null: supported values: \"storage\"",
                ],
            ),
            (
                "/spec/capacity",
                json!({"storage": "0"}),
                &["spec.capacity[storage]: Invalid value: \"0\": must be greater than zero"],
            ),
            ("/spec/hostPath", Value::Null, &["spec: Required value: must specify a volume type"]),
            (
                "/spec/nfs",
                json!({"server": "a", "path": "/b"}),
                &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                "/spec/hostPath/path",
                json!("/a/../b"),
                &["spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
            ),
            (
                "/spec/volumeMode",
                json!("Tape"),
                &["spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\""],
            ),
        ],
    );
    let local = with(with(volume(), "/spec/hostPath", Value::Null), "/spec/local", json!({"path": "/mnt"}));
    assert_eq!(
        errors::<PersistentVolume>(local),
        ["metadata.annotations: Required value: Local volume requires node affinity"]
    );
    assert_eq!(
        update_errors::<PersistentVolume>(volume(), with(volume(), "/spec/hostPath/path", json!("/other"))),
        ["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"]
    );
    assert_eq!(
        update_errors::<PersistentVolume>(volume(), with(volume(), "/spec/capacity", json!({"storage": "2Gi"}))),
        [""; 0]
    );
    let bound = with(volume(), "/spec/claimRef", json!({"namespace": "default", "name": "data"}));
    assert_eq!(
        row::<PersistentVolume>(with(bound, "/status", json!({"phase": "Bound"}))),
        [
            json!("pv"),
            json!("1024Mi"),
            json!("RWO"),
            json!(""),
            json!("Bound"),
            json!("default/data"),
            json!("slow"),
            json!("<unset>"),
            json!(""),
            json!("10m"),
            json!("<unset>"),
        ]
    );
}

#[test]
fn claims() {
    check::<PersistentVolumeClaim>(
        claim(),
        &[
            (
                "/spec/accessModes",
                Value::Null,
                &["spec.accessModes: Required value: at least 1 access mode is required"],
            ),
            ("/spec/resources", json!({}), &["spec.resources[storage]: Required value"]),
            (
                "/spec/resources/requests/storage",
                json!("-1"),
                &["spec.resources[storage]: Invalid value: \"-1\": must be greater than zero"],
            ),
            (
                "/spec/dataSource",
                json!({"kind": "Pod", "name": "a"}),
                &[
                    "spec.dataSource: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
                ],
            ),
        ],
    );
    let bound = with(
        with(claim(), "/spec/volumeName", json!("pv")),
        "/status",
        json!({"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}),
    );
    let size = |base: &Value, size: &str| with(base.clone(), "/spec/resources/requests/storage", json!(size));
    const FIXED: &str = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    const SMALLER: &str = "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity";
    let cases: [(Value, Value, &[&str]); 7] = [
        (claim(), with(claim(), "/spec/volumeName", json!("pv")), &[]),
        (bound.clone(), with(bound.clone(), "/spec/volumeName", json!("other")), &[FIXED]),
        (claim(), size(&claim(), "2Gi"), &[FIXED]),
        (bound.clone(), size(&bound, "2Gi"), &[]),
        (size(&bound, "2Gi"), size(&bound, "1Gi"), &[]),
        (bound.clone(), size(&bound, "512Mi"), &[SMALLER]),
        (claim(), with(claim(), "/spec/storageClassName", json!("fast")), &[]),
    ];
    for (old, new, expect) in cases {
        assert_eq!(update_errors::<PersistentVolumeClaim>(old, new.clone()), expect, "{new}");
    }
    assert_eq!(
        row::<PersistentVolumeClaim>(bound),
        [
            json!("data"),
            json!("Bound"),
            json!("pv"),
            json!("1Gi"),
            json!("RWO"),
            json!(""),
            json!("<unset>"),
            json!("10m"),
            json!("<unset>"),
        ]
    );
}

#[test]
fn classes() {
    let class = json!({
        "metadata": {
            "name": "standard", "creationTimestamp": CREATED,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "coracle.dev/local-path", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate",
    });
    check::<StorageClass>(
        class.clone(),
        &[
            ("/provisioner", json!(""), &["provisioner: Required value"]),
            (
                "/reclaimPolicy",
                json!("Recycle"),
                &["reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\""],
            ),
            (
                "/allowedTopologies",
                json!([{"matchLabelExpressions": [{"key": "zone", "values": []}]}]),
                &["allowedTopologies[0].matchLabelExpressions[0].values: Required value"],
            ),
        ],
    );
    let changed = with(with(class.clone(), "/parameters", json!({"a": "b"})), "/provisioner", json!("other"));
    assert_eq!(
        update_errors::<StorageClass>(
            class.clone(),
            with(changed, "/volumeBindingMode", json!("WaitForFirstConsumer"))
        ),
        [
            "parameters: Forbidden: updates to parameters are forbidden.",
            "provisioner: Forbidden: updates to provisioner are forbidden.",
            "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
        ]
    );
    assert_eq!(
        row::<StorageClass>(class),
        [
            json!("standard (default)"),
            json!("coracle.dev/local-path"),
            json!("Delete"),
            json!("Immediate"),
            json!(false),
            json!("10m"),
        ]
    );
}

#[test]
fn attachments() {
    let attachment = json!({
        "metadata": {"name": "a", "creationTimestamp": CREATED},
        "spec": {"attacher": "csi.example.com", "nodeName": "n", "source": {"persistentVolumeName": "pv"}},
    });
    check::<VolumeAttachment>(
        attachment.clone(),
        &[
            (
                "/spec/source",
                json!({}),
                &["spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"],
            ),
            ("/spec/attacher", json!(""), &["spec.attacher: Required value"]),
            (
                "/spec/source",
                json!({"inlineVolumeSpec": {"capacity": {"storage": "1Gi"}, "volumeMode": "Block"}}),
                &[
                    "spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes",
                    "spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
                    "spec.source.inlineVolumeSpec.accessModes: Required value",
                    "spec.source.inlineVolumeSpec: Required value: must specify a volume type",
                    "spec.source.inlineVolumeSpec.volumeMode: Forbidden: may not specify volumeMode other than Filesystem in the context of inline volumes",
                ],
            ),
            (
                "/spec/source",
                json!({"inlineVolumeSpec": {
                    "accessModes": ["ReadWriteOnce"], "csi": {"driver": "csi.example.com", "volumeHandle": "h"},
                }}),
                &[],
            ),
        ],
    );
    let named = errors::<VolumeAttachment>(with(attachment.clone(), "/spec/attacher", json!("Not a driver")));
    assert!(named[0].starts_with("spec.attacher: Invalid value: \"Not a driver\": a lowercase RFC 1123"), "{named:?}");
    assert_eq!(
        row::<VolumeAttachment>(attachment),
        [json!("a"), json!("csi.example.com"), json!("pv"), json!("n"), json!(false), json!("10m")]
    );
}

#[test]
fn csi() {
    let driver = json!({"metadata": {"name": "csi.example.com", "creationTimestamp": CREATED}, "spec": {}});
    check_defaults::<CSIDriver>(
        driver.clone(),
        &json!({
            "metadata": {"name": "csi.example.com", "creationTimestamp": CREATED},
            "spec": {
                "attachRequired": true, "podInfoOnMount": false, "storageCapacity": false, "requiresRepublish": false,
                "seLinuxMount": false, "fsGroupPolicy": "ReadWriteOnceWithFSType",
                "volumeLifecycleModes": ["Persistent"],
            },
        }),
    );
    check::<CSIDriver>(
        driver.clone(),
        &[(
            "/spec/volumeLifecycleModes",
            json!(["Sometimes"]),
            &[
                "spec.volumeLifecycleModes: Unsupported value: \"Sometimes\": supported values: \"Ephemeral\", \"Persistent\"",
            ],
        )],
    );
    assert_eq!(
        update_errors::<CSIDriver>(driver.clone(), with(driver, "/spec/attachRequired", json!(false))),
        ["spec.attachRequired: Invalid value: false: field is immutable"]
    );
    let node = json!({
        "metadata": {"name": "n", "creationTimestamp": CREATED},
        "spec": {"drivers": [{"name": "csi.example.com", "nodeID": "n"}]},
    });
    check::<CSINode>(
        node.clone(),
        &[("/spec/drivers/0/nodeID", json!(""), &["spec.drivers[0].nodeID: Required value"])],
    );
    assert_eq!(row::<CSINode>(node), [json!("n"), json!(1), json!("10m")]);
    let capacity =
        json!({"metadata": {"name": "c", "namespace": "default"}, "storageClassName": "slow", "capacity": "1Gi"});
    check::<CSIStorageCapacity>(
        capacity.clone(),
        &[("/storageClassName", json!(""), &["storageClassName: Required value"])],
    );
    assert_eq!(row::<CSIStorageCapacity>(capacity), [json!("c"), json!("slow"), json!("1Gi")]);
}

#[test]
fn attributes_classes() {
    let class = json!({
        "metadata": {"name": "gold", "creationTimestamp": CREATED},
        "driverName": "csi.example.com", "parameters": {"iops": "3000"},
    });
    check::<VolumeAttributesClass>(
        class.clone(),
        &[
            ("/driverName", json!(""), &["driverName: Required value"]),
            ("/parameters", json!({}), &["parameters: Required value: must contain at least one key/value pair"]),
            ("/parameters", json!({"": "a"}), &["parameters: Invalid value: \"\": field can not be empty."]),
        ],
    );
    let changed = with(with(class.clone(), "/parameters", json!({"a": "b"})), "/driverName", json!("other"));
    assert_eq!(
        update_errors::<VolumeAttributesClass>(class.clone(), changed),
        [
            "driverName: Forbidden: updates to driverName are forbidden.",
            "parameters: Forbidden: updates to parameters are forbidden.",
        ]
    );
    assert_eq!(row::<VolumeAttributesClass>(class), [json!("gold"), json!("csi.example.com"), json!("10m")]);
}
