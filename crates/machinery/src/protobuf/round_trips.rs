//! From JSON to protobuf and back: of every kind of the table, with every field it has.

use bytes::Bytes;
use kube::core::discovery::v2::APIGroupDiscoveryList;
use serde_json::{Map, Value, json};

use super::*;
use crate::api_types::{self, Cardinality, Field, Type};

/// An object of a type with everything in it; what holds itself does so only to a depth.
fn full(api_type: &ApiType, depth: usize) -> Value {
    if api_type.is_either {
        return json!({ "type": "object" });
    }
    let holds_itself = |field: &Field| matches!(field.kind, Type::Message(id) if id.get().name == api_type.name);
    let fields = api_type.members().iter().map(|member| &member.field);
    let fields = fields.filter(|field| depth > 0 || !holds_itself(field));
    fields.map(|field| (field.name.to_owned(), value(field, depth.saturating_sub(1)))).collect::<Map<_, _>>().into()
}

fn value(field: &Field, depth: usize) -> Value {
    match field.cardinality {
        Cardinality::Once => one(field.kind, depth),
        Cardinality::List => json!([one(field.kind, depth), one(field.kind, depth)]),
        Cardinality::Map => json!({ "a": one(field.kind, depth), "Ü \"b\"\\": one(field.kind, depth) }),
    }
}

fn one(kind: Type, depth: usize) -> Value {
    match kind {
        Type::String => "text \"with\" ünicode\n".into(),
        Type::Bool => true.into(),
        Type::Int => (-2_147_483_648_i64).into(),
        Type::Double => 1.5.into(),
        Type::Bytes => "AAEC/w==".into(),
        Type::Time { micro: false } => "2023-11-14T22:13:20Z".into(),
        Type::Time { micro: true } => "2023-11-14T22:13:20.123456Z".into(),
        Type::Quantity => "1500m".into(),
        Type::IntOrString => "25%".into(),
        Type::Strings => json!(["a", "b"]),
        Type::Raw => json!({ "f:spec": { "k:{\"a\":\"}\"}": {} }, "list": [1, 2.5, null, "]"] }),
        Type::Message(id) => full(id.get(), depth),
    }
}

fn back(body: &[u8], kind: &str) -> Value {
    serde_json::from_slice(&to_json(body, kind).unwrap()).unwrap()
}

#[test]
fn every_kind_with_all_it_has() {
    let mut count = 0;
    for (api_version, kind, api_type) in api_types::kinds() {
        let mut object = full(api_type, 1);
        object["apiVersion"] = api_version.into();
        object["kind"] = kind.into();
        let body = encode(object.to_string().as_bytes()).unwrap();
        assert_eq!(back(&body, kind), object, "{api_version} {kind}");
        count += 1;
        // However the JSON is laid out.
        let pretty = encode(serde_json::to_string_pretty(&object).unwrap().as_bytes()).unwrap();
        assert_eq!(back(&pretty, kind), object, "{api_version} {kind}");
    }
    assert!(count > 100, "{count}");
}

#[test]
fn what_is_special() {
    let container = |container: &Value| {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "spec": { "containers": [container] } });
        back(&encode(pod.to_string().as_bytes()).unwrap(), "Pod")["spec"]["containers"][0].clone()
    };
    for same in [
        json!({ "livenessProbe": { "httpGet": { "port": 80 } } }),
        json!({ "livenessProbe": { "httpGet": { "port": "web" } } }),
        // Nothing and a zero are told apart where upstream has a pointer.
        json!({ "securityContext": { "runAsUser": 0, "privileged": false } }),
        json!({ "command": ["", "x"] }),
    ] {
        assert_eq!(container(&same), same);
    }
    for (object, expect) in [
        (json!({ "resources": { "limits": { "cpu": 2 } } }), json!({ "resources": { "limits": { "cpu": "2" } } })),
        (json!({ "stdin": false, "image": "" }), json!({})),
        (json!({ "image": null, "command": null, "ports": [] }), json!({})),
        (json!({ "args": [null, "x"] }), json!({ "args": ["", "x"] })),
        (json!({ "unknown": { "a": [1, { "b": "}" }] }, "name": "x" }), json!({ "name": "x" })),
    ] {
        assert_eq!(container(&object), expect);
    }
    let schema = json!({
        "additionalProperties": { "type": "string" }, "additionalItems": false, "items": { "type": "string" },
        "dependencies": { "a": ["b"] }, "default": { "a": null }, "enum": [null, 1, "x"], "maximum": 3.0,
        "x-kubernetes-preserve-unknown-fields": true,
    });
    let definition = |schema| {
        json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "spec": { "versions": [{ "schema": { "openAPIV3Schema": schema }, "name": "v1", "served": true, "storage": true }] } })
    };
    let found = back(&encode(definition(schema.clone()).to_string().as_bytes()).unwrap(), "CustomResourceDefinition");
    assert_eq!(found, definition(schema));
    // Neither a schema nor names is nothing, and not `false`, which could not be read.
    let neither = definition(json!({ "dependencies": { "a": null } }));
    assert_eq!(back(&encode(neither.to_string().as_bytes()).unwrap(), "CustomResourceDefinition"), neither);
}

#[test]
fn lists_are_their_items_one_behind_the_other() {
    let pods: Vec<_> = (0..500)
        .map(|n| json!({ "metadata": { "name": format!("pod-{n}"), "labels": { "n": "x".repeat(n) } }, "spec": { "nodeName": "a" } }))
        .collect();
    for (count, kind) in [(0, "Pod"), (1, "Pod"), (500, "Pod"), (500, "PartialObjectMetadata")] {
        let api_version = if kind == "Pod" { "v1" } else { "meta.k8s.io/v1" };
        let list_kind = format!("{kind}List");
        let (list, item) = (Kind::new(api_version, &list_kind).unwrap(), Kind::new(api_version, kind).unwrap());
        let objects: Vec<_> = pods[..count].iter().map(|pod| Bytes::from(pod.to_string())).collect();
        let items =
            [&objects[..count / 2], &objects[count / 2..]].map(|half| list_items(item.api_type, half.iter()).unwrap());
        let metadata = json!({ "resourceVersion": "7", "remainingItemCount": 0 });
        let head = list_head(list, metadata.to_string().as_bytes(), items.concat().len()).unwrap();
        let body = [&head[..], &items.concat()].concat();
        let mut expect = json!({ "apiVersion": api_version, "kind": list_kind, "metadata": metadata });
        for pod in &pods[..count] {
            let item = if kind == "Pod" { pod.clone() } else { json!({ "metadata": pod["metadata"] }) };
            let items = expect.as_object_mut().unwrap().entry("items").or_insert_with(|| json!([]));
            items.as_array_mut().unwrap().push(item);
        }
        assert_eq!(back(&body, &list_kind), expect);
    }
}

#[test]
fn watch_events_are_framed() {
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a".repeat(300) } });
    let frame = watch_event("ADDED", pod.to_string().as_bytes()).unwrap();
    let (length, event) = frame.split_first_chunk::<4>().unwrap();
    assert_eq!(u32::from_be_bytes(*length) as usize, event.len());
    let fields: Vec<_> = wire::Fields::of(event).map(Result::unwrap).collect();
    assert_eq!(fields[0], (1, wire::Payload::Bytes(b"ADDED")));
    let (2, wire::Payload::Bytes(extension)) = fields[1] else { panic!("{fields:?}") };
    let Some(Ok((1, wire::Payload::Bytes(raw)))) = wire::Fields::of(extension).next() else { panic!("{extension:?}") };
    assert_eq!(back(raw, "Pod"), pod);
}

#[test]
fn what_is_damaged_is_refused_and_what_is_custom_has_no_form() {
    let good = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "a\u{fc}\"b", "labels": { "a": "b" }, "creationTimestamp": "2023-11-14T22:13:20Z", "finalizers": ["x"],
            "managedFields": [{ "fieldsV1": { "f:spec": { "k:{}": {} } } }],
        },
        "spec": {
            "containers": [{ "ports": [{ "containerPort": 80 }], "resources": { "limits": { "cpu": "1" } }, "tty": true }],
            "volumes": [{ "emptyDir": {} }],
        },
    });
    let good = good.to_string().into_bytes();
    for end in 0..good.len() {
        assert!(encode(&good[..end]).is_err(), "{end}");
    }
    for at in 0..good.len() {
        for byte in *b"\"\\{}[],:n\0\xff" {
            let mut bad = good.clone();
            bad[at] = byte;
            // It is refused or another object, and never a panic.
            let _ = encode(&bad);
        }
    }
    for (object, expect) in [
        (
            json!({ "apiVersion": "example.com/v1", "kind": "Widget" }),
            "Widget of version example.com/v1 has no protobuf form",
        ),
        (json!({ "spec": {} }), " of version  has no protobuf form"),
        (json!([]), "cannot write an object as protobuf: a value has another type"),
        (
            json!({ "apiVersion": "v1", "kind": "Pod", "spec": [] }),
            "cannot write an object as protobuf: a value has another type",
        ),
        (
            json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "creationTimestamp": "soon" } }),
            "cannot write an object as protobuf: a time is none",
        ),
    ] {
        assert_eq!(encode(object.to_string().as_bytes()).unwrap_err().to_string(), expect);
    }
}

/// Upstream's OpenAPI has no types of aggregated discovery to compare the table with; `kube-core` has.
#[test]
fn aggregated_discovery_has_the_fields_that_clients_know() {
    let api_type = ApiType::of_kind("apidiscovery.k8s.io/v2", "APIGroupDiscoveryList").unwrap();
    let mut object = full(api_type, 9);
    for item in object["items"].as_array_mut().unwrap() {
        item["metadata"] = json!({ "name": "apps" });
    }
    object["metadata"] = json!({ "resourceVersion": "1" });
    let known: APIGroupDiscoveryList = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(serde_json::to_value(known).unwrap(), object);
}
