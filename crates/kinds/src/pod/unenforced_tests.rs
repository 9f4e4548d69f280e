//! What becomes of each field of a pod, as `docs/pods.md` says, held against the types and against the warnings.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EphemeralContainer, PodSecurityContext, PodSpec, SecurityContext, Volume, VolumeMount,
};
use registry::kind::Kind;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use super::Pod;
use crate::testing::{object, with};

const TABLES: &str = include_str!("../../../../docs/pods.md");
const WORDS: [&str; 4] = ["honoured", "warned", "refused", "ignored"];

/// The tables: by type, the word for each field.
fn tables() -> BTreeMap<&'static str, BTreeMap<&'static str, &'static str>> {
    let (mut tables, mut current) = (BTreeMap::new(), None);
    for line in TABLES.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            current = Some(title);
            tables.insert(title, BTreeMap::new());
        } else if let (Some(title), Some(row)) = (current, line.strip_prefix("| ")) {
            let mut cells = row.split('|').map(str::trim);
            let (field, word) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
            if field == "field" {
                continue;
            }
            assert!(WORDS.contains(&word), "{title}.{field} is {word:?}");
            let before = tables.get_mut(title).and_then(|table: &mut BTreeMap<_, _>| table.insert(field, word));
            assert_eq!(before, None, "{title}.{field} is there twice");
        }
    }
    tables
}

fn fields<T: JsonSchema>() -> Vec<String> {
    let schema = Value::from(T::json_schema(&mut SchemaGenerator::default()));
    schema["properties"].as_object().expect("a struct").keys().cloned().collect()
}

#[test]
fn every_field_is_in_a_table() {
    let tables = tables();
    let mut of_containers = fields::<Container>();
    of_containers.extend(fields::<EphemeralContainer>());
    of_containers.sort();
    of_containers.dedup();
    for (title, mut of_type) in [
        ("PodSpec", fields::<PodSpec>()),
        ("PodSecurityContext", fields::<PodSecurityContext>()),
        ("Container", of_containers),
        ("SecurityContext", fields::<SecurityContext>()),
        ("VolumeMount", fields::<VolumeMount>()),
        ("Volume", fields::<Volume>()),
    ] {
        of_type.sort();
        let told: Vec<&str> = tables[title].keys().copied().collect();
        assert_eq!(told, of_type, "{title}");
    }
}

/// Where a field of a type stands in the pod below.
fn place(title: &str) -> &'static str {
    match title {
        "PodSpec" => "/spec",
        "PodSecurityContext" => "/spec/securityContext",
        "Container" => "/spec/containers/0",
        "SecurityContext" => "/spec/containers/0/securityContext",
        "VolumeMount" => "/spec/containers/0/volumeMounts/0",
        "Volume" => "/spec/volumes/0",
        other => panic!("{other}"),
    }
}

fn pod() -> Value {
    json!({
        "metadata": { "name": "web" },
        "spec": {
            "securityContext": {},
            "containers": [{
                "name": "c", "image": "nginx", "securityContext": {}, "volumeMounts": [{ "name": "v", "mountPath": "/v" }],
            }],
            "volumes": [{ "name": "v" }],
        },
    })
}

/// A value about which somebody is warned, and one about which nobody need be.
fn values(title: &str, field: &str) -> (Value, Option<Value>) {
    match (title, field) {
        ("PodSpec", "hostUsers") => (json!(false), Some(json!(true))),
        ("PodSpec", "os") => (json!({ "name": "windows" }), Some(json!({ "name": "linux" }))),
        ("PodSpec", "resourceClaims") => (json!([{ "name": "gpu", "resourceClaimName": "gpu" }]), Some(json!([]))),
        ("PodSpec", "resources") => (json!({ "limits": { "cpu": "1" } }), Some(json!({ "requests": { "cpu": "1" } }))),
        ("PodSpec", "runtimeClassName") => (json!("gvisor"), Some(json!(""))),
        ("PodSpec", "schedulingGroup") => (json!({ "podGroupName": "g" }), None),
        (_, "appArmorProfile") => (json!({ "type": "Unconfined" }), Some(json!({ "type": "RuntimeDefault" }))),
        (_, "seLinuxOptions") => (json!({ "level": "s0" }), None),
        (_, "seLinuxChangePolicy") => (json!("Recursive"), None),
        (_, "supplementalGroupsPolicy") => (json!("Strict"), Some(json!("Merge"))),
        (_, "procMount") => (json!("Unmasked"), Some(json!("Default"))),
        ("Container", "resources") => (
            json!({ "limits": { "ephemeral-storage": "1Gi" }, "claims": [{ "name": "gpu" }] }),
            Some(json!({ "limits": { "cpu": "1", "memory": "1Gi" } })),
        ),
        (_, "recursiveReadOnly") => (json!("Enabled"), Some(json!("IfPossible"))),
        (_, "emptyDir") => (json!({ "sizeLimit": "1Gi" }), Some(json!({ "sizeLimit": "1Gi", "medium": "Memory" }))),
        ("Volume", _) => (json!({}), None),
        _ => panic!("{title}.{field} is warned about: with which value?"),
    }
}

#[test]
fn whoever_asks_for_what_is_not_done_is_told() {
    let warnings = |pod: Value| Pod::warnings(&object::<Pod>(pod), None);
    assert_eq!(warnings(pod()), [""; 0]);
    for (title, table) in tables() {
        for (field, _) in table.into_iter().filter(|(_, word)| *word == "warned") {
            let pointer = format!("{}/{field}", place(title));
            let (warned, fine) = values(title, field);
            let told = warnings(with(pod(), &pointer, warned));
            assert!(
                told.iter().any(|warning| warning.to_lowercase().contains(&format!(".{}", field.to_lowercase()))),
                "{pointer}: {told:?}"
            );
            if let Some(fine) = fine {
                assert_eq!(warnings(with(pod(), &pointer, fine)), [""; 0], "{pointer}");
            }
        }
    }
    let from = json!([{ "name": "A", "valueFrom": { "fileKeyRef": { "volumeName": "v", "path": "f", "key": "A" } } }]);
    assert_eq!(
        warnings(with(pod(), "/spec/containers/0/env", from)),
        [
            "spec.containers[0].env[0].valueFrom.fileKeyRef: not supported: the variable is not set; use a ConfigMap or a Secret"
        ]
    );
}

#[test]
fn warnings_come_to_an_end() {
    let ports: Vec<Value> = (0..20_000).map(|_| json!({ "containerPort": 80 })).collect();
    let warnings = Pod::warnings(&object::<Pod>(with(pod(), "/spec/containers/0/ports", ports.into())), None);
    assert_eq!(warnings.len(), 100);
}
