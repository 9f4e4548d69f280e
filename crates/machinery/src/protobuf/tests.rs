//! Bodies as Go clients write them, and bodies nobody should.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::decode::{Decoder, MAX_MESSAGES};
use super::*;

/// Written by upstream's own serializer.
const DEPLOYMENT: &str = "azhzAAoVCgdhcHBzL3YxEgpEZXBsb3ltZW50EqwCCh8KA3dlYhIAGgAiACoAMgA4AEIAWgoKA2FwcBIDd2ViEvoBCAASDAoKCgNhcHASA3dl\
    YhrKAQocCgASABoAIgAqADIAOABCAFoKCgNhcHASA3dlYhKpAQoJCgF2EgQSAgoAEm4KBG1haW4SBW5naW54KgAyCgoAEAAYUCIAKgA6EQoBSxIA\
    GgoiCAoDCgFzEgFrQg8KDQoDY3B1EgYKBDEwMG1SHQoREg8KAS8SBggAEFAaABoAIgAQABgAIAAoADAAagByAIABAIgBAJABAKIBABoAMgBCAEoA\
    UgBYAGAAaAByDSAHIP///////////wGCAQCKAQCaAQCoAQDCAQAiFwoAEhMKBggAEAAaABIJCAEQABoDMjUlKAA4ABoMCAAQABgAIAAoADgAGgAi\
    AA==";
const SECRET: &str =
    "azhzAAoMCgJ2MRIGU2VjcmV0EjEKGQoBcxIAGgAiACoAMgA4AEIICIDiz6oGEAASCQoFZW1wdHkSABIHCgFrEgJ2ABoAGgAiAA==";
const LEASE: &str = "azhzAAofChZjb29yZGluYXRpb24uazhzLmlvL3YxEgVMZWFzZRJDCjAKAWwSABoAIgAqADIAOABCAIoBHAoBbRIAGgAyADoPCg17ImY6c3Bl\
    YyI6e319QgASDxAPIgsIgOLPqgYQgJTvOhoAIgA=";

fn api_type(name: &str) -> &'static ApiType {
    ApiType::by_openapi_name(name).unwrap()
}

fn bytes(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap()
}

/// Without empty objects, which Go's JSON has in some places and its protobuf in all.
fn pruned(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let members = object.into_iter().map(|(name, value)| (name, pruned(value)));
            Value::Object(members.filter(|(name, value)| *value != json!({}) || name == "f:spec").collect())
        }
        Value::Array(list) => list.into_iter().map(pruned).collect(),
        other => other,
    }
}

#[test]
fn objects_as_their_json_is() {
    for (body, expect) in [
        (
            DEPLOYMENT,
            json!({
                "kind": "Deployment", "apiVersion": "apps/v1",
                "metadata": { "name": "web", "labels": { "app": "web" } },
                "spec": {
                    "replicas": 0,
                    "selector": { "matchLabels": { "app": "web" } },
                    "strategy": { "rollingUpdate": { "maxUnavailable": 0, "maxSurge": "25%" } },
                    "template": {
                        "metadata": { "labels": { "app": "web" } },
                        "spec": {
                            "automountServiceAccountToken": false,
                            "containers": [{
                                "name": "main", "image": "nginx",
                                "env": [{ "name": "K", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }],
                                "livenessProbe": { "httpGet": { "path": "/", "port": 80 } },
                                "ports": [{ "containerPort": 80 }],
                                "resources": { "limits": { "cpu": "100m" } },
                            }],
                            "securityContext": { "supplementalGroups": [7, -1] },
                            "volumes": [{ "name": "v" }],
                        },
                    },
                },
            }),
        ),
        (
            SECRET,
            json!({
                "kind": "Secret", "apiVersion": "v1",
                "metadata": { "name": "s", "creationTimestamp": "2023-11-14T22:13:20Z" },
                "data": { "empty": "", "k": "dgA=" },
            }),
        ),
        (
            LEASE,
            json!({
                "kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
                "metadata": { "name": "l", "managedFields": [{ "manager": "m", "fieldsV1": { "f:spec": {} } }] },
                "spec": { "leaseDurationSeconds": 15, "renewTime": "2023-11-14T22:13:20.123456Z" },
            }),
        ),
    ] {
        let json: Value =
            serde_json::from_slice(&to_json(&bytes(body), expect["kind"].as_str().unwrap()).unwrap()).unwrap();
        assert_eq!(pruned(json), expect);
    }
}

#[test]
fn schemas_or_something_else() {
    // openAPIV3Schema { maximum: 1.5, default: {"a":1}, items { schema { type } }, additionalProperties { allows } }
    let schema = [
        &b"\x49"[..],
        &1.5_f64.to_le_bytes(),
        b"\x42\x09\x0a\x07{\"a\":1}",
        b"\xc2\x01\x05\x0a\x03\x2a\x01s",
        b"\xf2\x01\x02\x08\x01",
        b"\x8a\x02\x02\x08\x00",
    ]
    .concat();
    let mut json = Map::new();
    Decoder::default()
        .message(
            &schema,
            api_type("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"),
            &mut json,
        )
        .unwrap();
    assert_eq!(
        Value::Object(json),
        json!({ "maximum": 1.5, "default": { "a": 1 }, "items": { "type": "s" }, "additionalProperties": true, "additionalItems": false })
    );
}

#[test]
fn an_empty_struct_that_says_something_stays() {
    let json: Value = serde_json::from_slice(&to_json(&bytes(DEPLOYMENT), "Deployment").unwrap()).unwrap();
    assert!(json["spec"]["template"]["spec"]["volumes"][0]["emptyDir"].is_object(), "{json}");
}

#[test]
fn damaged_bodies_are_refused_whatever_is_damaged() {
    let good = bytes(DEPLOYMENT);
    for end in 0..good.len() {
        // Cut short it is refused, or an object with less in it; never more.
        if let Ok(json) = to_json(&good[..end], "Deployment") {
            assert!(serde_json::from_slice::<Value>(&json).is_ok());
        }
    }
    for at in 4..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        let _ = to_json(&bad, "Deployment");
    }
    for (body, expect) in [
        (&b""[..], "the body does not begin with k8s\\0"),
        (b"{}", "the body does not begin with k8s\\0"),
        (b"k8s\0\x12\xff", "it ends in the middle of a field"),
        (b"k8s\0\x12\x05x", "it ends in the middle of a field"),
        (b"k8s\0\x0f", "a field has an unknown wire type"),
        (b"k8s\0\x1a\x04gzip", "the object is encoded in another way"),
    ] {
        let error = to_json(body, "Pod").unwrap_err().to_string();
        assert_eq!(error, format!("cannot read the protobuf body: {expect}"), "{body:?}");
    }
    let custom = b"k8s\0\x0a\x10\x0a\x0aexample/v1\x12\x02My";
    assert!(matches!(to_json(custom, "My"), Err(DecodeError::UnknownKind { .. })));
}

#[test]
fn times_are_those_of_rfc_3339() {
    let body = |seconds: i64| {
        let mut body = Message::default();
        body.raw(MAGIC);
        body.nested(1, |meta| {
            meta.bytes(1, b"v1");
            meta.bytes(2, b"Secret");
        });
        let time = |time: &mut Message| time.varint(1, seconds.cast_unsigned());
        body.nested(2, |object| object.nested(1, |metadata| metadata.nested(8, time)));
        body.into_vec()
    };
    for (seconds, expect) in [
        (-62_167_219_200, Some("0000-01-01T00:00:00Z")),
        (-1, Some("1969-12-31T23:59:59Z")),
        (-62_167_219_201, None),
        (i64::MIN, None),
        (i64::MAX, None),
    ] {
        let json = to_json(&body(seconds), "Secret");
        let json = json.ok().map(|json| serde_json::from_slice::<Value>(&json).unwrap());
        let expect = expect
            .map(|time| json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "creationTimestamp": time } }));
        assert_eq!(json, expect, "{seconds}");
    }
}

/// A definition whose schema excludes a schema that excludes a schema, and so on.
fn nested_definition(levels: usize) -> Vec<u8> {
    let field = |number: u32, bytes: &[u8]| {
        let mut field = Message::default();
        field.bytes(number, bytes);
        field.into_vec()
    };
    // From the inside out, so back to front: each level stands before the one within.
    let mut schema = Vec::new();
    for _ in 0..levels {
        let mut head = Message::default();
        head.head(28, schema.len());
        schema.extend(head.as_slice().iter().rev());
    }
    schema.reverse();
    let version = [field(1, b"v1"), field(4, &field(1, &schema))].concat();
    let object = [field(1, &field(1, b"bombs.example.com")), field(2, &field(7, &version))].concat();
    let meta = [field(1, b"apiextensions.k8s.io/v1"), field(2, b"CustomResourceDefinition")].concat();
    [MAGIC, &field(1, &meta), &field(2, &object)].concat()
}

#[test]
fn what_is_decoded_has_bounds() {
    const WANTED: &str = "CustomResourceDefinition";
    let json: Value = serde_json::from_slice(&to_json(&nested_definition(90), WANTED).unwrap()).unwrap();
    let schema = &json["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    assert!(schema.pointer(&"/not".repeat(90)).is_some() && schema.pointer(&"/not".repeat(91)).is_none(), "{json}");
    for levels in [100, 3_000, 300_000] {
        let error = to_json(&nested_definition(levels), WANTED).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the protobuf body: exceeded max depth of 100");
    }
    let other = to_json(&nested_definition(1), "SelfSubjectAccessReview").unwrap_err();
    assert!(matches!(other, DecodeError::OtherKind { .. }), "{other}");
    // Containers, each of two bytes.
    let object = b"\x12\x00".repeat(MAX_MESSAGES + 1);
    let shape = api_type("io.k8s.api.core.v1.PodSpec");
    let error = Decoder::default().message(&object, shape, &mut Map::new()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read the protobuf body: it has more than {MAX_MESSAGES} messages"));
}
