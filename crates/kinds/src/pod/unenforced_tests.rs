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
/// The table of the types that have no table of their own; its third column has their fields.
const OTHERS: &str = "Other types";

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
            if matches!(field, "field" | "type") && word.is_empty() {
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

/// Everything else that can be set somewhere in a pod: a field that a new release of the API brings must be looked at.
#[test]
fn every_field_of_every_type_is_told_of() {
    let tables = tables();
    let mut generator = SchemaGenerator::default();
    let mut open = vec![("PodSpec".to_owned(), Value::from(PodSpec::json_schema(&mut generator)))];
    let definitions = generator.definitions().clone();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while let Some((title, schema)) = open.pop() {
        let Some(properties) = schema["properties"].as_object() else { continue };
        let mut fields: Vec<String> = properties.keys().cloned().collect();
        fields.sort();
        if found.insert(title.clone(), fields).is_some() {
            continue;
        }
        for (field, schema) in properties {
            let word = tables.get(title.as_str()).and_then(|table| table.get(field.as_str()));
            // What nothing comes of as a whole has no parts.
            if word == Some(&"ignored") || (title == "Volume" && word == Some(&"warned")) {
                continue;
            }
            let text = schema.to_string();
            for name in text.split('"').filter_map(|part| part.strip_prefix("#/$defs/")) {
                let short = name.rsplit('.').next().unwrap_or(name).to_owned();
                open.push((short, definitions[name].clone()));
            }
        }
    }
    found.retain(|title, _| !tables.contains_key(title.as_str()) && title != "EphemeralContainer");
    let rows =
        TABLES.lines().skip_while(|line| *line != format!("## {OTHERS}")).filter_map(|line| line.strip_prefix("| "));
    let told: BTreeMap<String, Vec<String>> = rows
        .map(|row| row.split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| WORDS.contains(&cells[1]))
        .map(|cells| (cells[0].to_owned(), cells[2].split(", ").map(str::to_owned).collect()))
        .collect();
    let differs = |(title, fields): &(&String, &Vec<String>)| told.get(*title) != Some(fields);
    let missing: Vec<String> = found
        .iter()
        .filter(differs)
        .map(|(title, fields)| format!("| {title} | honoured | {} | |", fields.join(", ")))
        .collect();
    assert!(missing.is_empty(), "not in docs/pods.md:\n{}", missing.join("\n"));
    assert_eq!(told.len(), found.len(), "a type that is no more: {told:?}");
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
        ("PodSpec", "resourceClaims") => (json!([{ "name": "gpu", "resourceClaimName": "gpu" }]), Some(json!([]))),
        ("PodSpec", "runtimeClassName") => (json!("gvisor"), Some(json!(""))),
        ("PodSpec", "schedulingGroup") => (json!({ "podGroupName": "g" }), None),
        (_, "seLinuxOptions") => (json!({ "level": "s0" }), None),
        (_, "seLinuxChangePolicy") => (json!("Recursive"), None),
        ("Container", "resources") => (
            json!({ "claims": [{ "name": "gpu" }] }),
            Some(json!({ "limits": { "cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi" } })),
        ),
        ("Volume", _) => (json!({}), None),
        _ => panic!("{title}.{field} is warned about: with which value?"),
    }
}

#[test]
fn whoever_asks_for_what_is_not_done_is_told() {
    let warnings = |pod: Value| Pod::warnings(&object::<Pod>(pod), None);
    assert_eq!(warnings(pod()), [""; 0]);
    // Other types are warned about with the field that has one.
    for (title, table) in tables().into_iter().filter(|(title, _)| *title != OTHERS) {
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

/// A limit of the pod is one for each container, which is the same only where one container has none of its own.
#[test]
fn containers_that_share_a_limit() {
    let container = |name: &str, limit: Option<&str>| {
        let resources = limit.map(|limit| json!({ "limits": { "memory": limit } }));
        json!({ "name": name, "image": "nginx", "resources": resources })
    };
    let warnings = |containers: Vec<Value>| {
        let pod = with(pod(), "/spec/resources", json!({ "limits": { "memory": "1Gi" } }));
        let pod = with(with(pod, "/spec/volumes", json!([])), "/spec/containers", containers.into());
        Pod::warnings(&object::<Pod>(pod), None)
    };
    assert_eq!(warnings(vec![container("a", None), container("b", Some("1Mi"))]), [""; 0]);
    let told = warnings(vec![container("a", None), container("b", None)]);
    assert!(told.len() == 1 && told[0].starts_with("spec.resources: each container"), "{told:?}");
}

#[test]
fn warnings_come_to_an_end() {
    let ports: Vec<Value> = (0..20_000).map(|_| json!({ "containerPort": 80 })).collect();
    let warnings = Pod::warnings(&object::<Pod>(with(pod(), "/spec/containers/0/ports", ports.into())), None);
    assert_eq!(warnings.len(), 100);
}
