//! Protobuf, as client-go asks for it and gets it.

use serde_json::{Value, json};

use super::custom::{CRDS, crd, spec};
use super::support::{Fixture, Reply, pod};
use crate::protobuf::{MEDIA_TYPE, encode, to_json};

const TYPED: (&str, &str) = ("accept", "application/vnd.kubernetes.protobuf,application/json");
/// A secret `s` as upstream's own serializer writes it.
const SECRET: &[u8] =
    b"k8s\0\n\x0c\n\x02v1\x12\x06Secret\x121\n\x19\n\x01s\x12\0\x1a\0\"\0*\x002\x008\x00B\x08\x08\x80\xe2\xcf\xaa\x06\
\x10\0\x12\t\n\x05empty\x12\0\x12\x07\n\x01k\x12\x02v\0\x1a\0\x1a\0\"\0";
const METADATA: (&str, &str) = (
    "accept",
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,\
     application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
);
/// What it sends for lists.
const METADATA_LIST: (&str, &str) = (
    "accept",
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
     application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
);

/// The object in a reply, which must be protobuf.
fn decoded(reply: &Reply, kind: &str) -> Value {
    assert_eq!(reply.header("content-type"), "application/vnd.kubernetes.protobuf", "{}", reply.text);
    serde_json::from_slice(&to_json(&reply.bytes, kind).unwrap()).unwrap()
}

/// The events of a reply: a word and an object each.
fn events(reply: &Reply, kind: &str) -> Vec<(String, Value)> {
    assert_eq!(reply.header("content-type"), "application/vnd.kubernetes.protobuf;stream=watch", "{}", reply.text);
    let (mut rest, mut events) = (&reply.bytes[..], Vec::new());
    while let Some((length, frame)) = rest.split_first_chunk::<4>() {
        let (event, behind) = frame.split_at(u32::from_be_bytes(*length) as usize);
        rest = behind;
        let at = event.windows(4).position(|bytes| bytes == b"k8s\0").unwrap();
        let word = std::str::from_utf8(&event[2..2 + usize::from(event[1])]).unwrap();
        let body = to_json(&event[at..], kind).unwrap();
        events.push((word.to_owned(), serde_json::from_slice(&body).unwrap()));
    }
    assert!(rest.is_empty());
    events
}

/// The items of a list, without their kind, which protobuf does not repeat.
fn items(list: &Value) -> Vec<Value> {
    let mut items = list["items"].as_array().cloned().unwrap_or_default();
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        item.remove("apiVersion");
        item.remove("kind");
    }
    items
}

/// Without what Go's JSON leaves out: empty lists, maps and strings.
fn pruned(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let members = object.into_iter().map(|(name, value)| (name, pruned(value)));
            let says = |value: &Value| !matches!(value, Value::Null) && *value != json!([]) && *value != json!("");
            Value::Object(members.filter(|(_, value)| says(value)).collect())
        }
        Value::Array(list) => list.into_iter().map(pruned).collect(),
        other => other,
    }
}

#[tokio::test]
async fn objects_and_lists_are_the_same_as_in_json() {
    let fixture = Fixture::new().await;
    for name in ["a", "b"] {
        fixture.json("POST /api/v1/namespaces/default/pods", 201, &pod(name, "node1")).await;
    }
    let resources = fixture.registry.resources();
    let mut compared = 0;
    for resource in resources.iter().filter(|resource| resource.info().verbs.contains(&machinery::Verb::List)) {
        let info = resource.info();
        let group = if info.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", info.group) };
        let line = format!("GET {group}/{}/{}", info.version, info.plural);
        let json = fixture.json(&line, 200, &Value::Null).await;
        let list = decoded(&fixture.ask(&line, &[TYPED], "").await, &info.list_kind);
        assert_eq!(list["metadata"], json["metadata"], "{line}");
        assert_eq!(pruned(items(&list).into()), pruned(items(&json).into()), "{line}");
        let metadata = decoded(&fixture.ask(&line, &[METADATA_LIST], "").await, "PartialObjectMetadataList");
        for (metadata, item) in items(&metadata).iter().zip(items(&json)) {
            assert_eq!(pruned(metadata["metadata"].clone()), pruned(item["metadata"].clone()), "{line}");
        }
        compared += items(&json).len();
    }
    assert!(compared > 50, "{compared}");
    let line = "GET /api/v1/namespaces/default/pods/a";
    let json = fixture.json(line, 200, &Value::Null).await;
    assert_eq!(pruned(decoded(&fixture.ask(line, &[TYPED], "").await, "Pod")), pruned(json.clone()));
    let metadata = decoded(&fixture.ask(line, &[METADATA], "").await, "PartialObjectMetadata");
    assert_eq!(metadata["metadata"]["uid"], json["metadata"]["uid"]);
    assert_eq!(metadata["apiVersion"], "meta.k8s.io/v1");
}

#[tokio::test]
async fn writes_answer_what_they_are_asked_for() {
    let fixture = Fixture::new().await;
    let json_body = ("content-type", "application/json");
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": { "k": "v" } });
    let created = fixture.ask("POST /api/v1/namespaces/default/configmaps", &[TYPED, json_body], map.to_string()).await;
    assert_eq!((created.status.as_u16(), &decoded(&created, "ConfigMap")["data"]["k"]), (201, &"v".into()));
    let line = "PATCH /api/v1/namespaces/default/configmaps/a";
    let merge = ("content-type", "application/merge-patch+json");
    let patched = fixture.ask(line, &[TYPED, merge], r#"{"data":{"k":"w"}}"#).await;
    assert_eq!(decoded(&patched, "ConfigMap")["data"]["k"], "w");
    let review = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": { "verb": "get", "resource": "pods" } } });
    let line = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let reviewed = fixture.ask(line, &[TYPED, json_body], review.to_string()).await;
    assert_eq!(decoded(&reviewed, "SelfSubjectAccessReview")["status"]["allowed"], true);
    let deleted = fixture.ask("DELETE /api/v1/namespaces/default/configmaps/a", &[TYPED], "").await;
    assert_eq!(decoded(&deleted, "Status")["status"], "Success");
    let collection = fixture.ask("DELETE /api/v1/namespaces/default/configmaps", &[TYPED], "").await;
    decoded(&collection, "ConfigMapList");
}

#[tokio::test]
async fn errors_are_a_status() {
    let fixture = Fixture::new().await;
    let line = "GET /api/v1/namespaces/default/pods/none";
    let missing = fixture.ask(line, &[TYPED], "").await;
    let status = decoded(&missing, "Status");
    assert_eq!((missing.status.as_u16(), status), (404, fixture.ask(line, &[], "").await.json()));
    let user = Some(crate::User::new("somebody", &["system:authenticated"]));
    let forbidden = fixture.ask_as(user, "GET /api/v1/secrets", &[TYPED], "").await;
    assert_eq!(decoded(&forbidden, "Status")["code"], 403);
    // A client that only wants metadata gets its errors in what it reads besides.
    assert_eq!(fixture.ask(line, &[METADATA], "").await.json()["code"], 404);
}

#[tokio::test]
async fn watches_are_frames() {
    let fixture = Fixture::new().await;
    fixture.json("POST /api/v1/namespaces/default/pods", 201, &pod("a", "node1")).await;
    let line = "GET /api/v1/namespaces/default/pods?watch=true&sendInitialEvents=true\
        &resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
    let found = events(&fixture.ask(line, &[TYPED], "").await, "Pod");
    assert_eq!((&*found[0].0, &found[0].1["metadata"]["name"]), ("ADDED", &"a".into()));
    assert_eq!(found[1].0, "BOOKMARK");
    assert_eq!(found[1].1["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let found = events(&fixture.ask(line, &[METADATA], "").await, "PartialObjectMetadata");
    assert_eq!((&*found[0].0, &found[0].1["metadata"]["name"]), ("ADDED", &"a".into()));
    assert_eq!(found[0].1["spec"], Value::Null);
    // One that has been encoded before, for somebody else in JSON.
    let line = "GET /api/v1/namespaces/default/pods?watch=true&resourceVersion=1&timeoutSeconds=1";
    fixture.ask(line, &[], "").await;
    for _ in 0..2 {
        let found = events(&fixture.ask(line, &[TYPED], "").await, "Pod");
        assert_eq!((&*found[0].0, &found[0].1["metadata"]["name"]), ("ADDED", &"a".into()));
    }
    let old = "GET /api/v1/namespaces/default/pods?watch=true&resourceVersion=1&timeoutSeconds=1";
    fixture.registry.store().compact(fixture.registry.store().revision()).await.unwrap();
    let found = events(&fixture.ask(old, &[TYPED], "").await, "Status");
    assert_eq!((&*found[0].0, &found[0].1["code"]), ("ERROR", &410.into()));
}

#[tokio::test]
async fn custom_resources_have_it_for_their_metadata_alone() {
    let fixture = Fixture::new().await;
    fixture.json(&format!("POST {CRDS}"), 201, &crd("shirts", "Shirt", spec())).await;
    let line = "/apis/example.com/v1/namespaces/default/shirts";
    let shirt =
        json!({ "apiVersion": "example.com/v1", "kind": "Shirt", "metadata": { "name": "a" }, "spec": { "n": 1 } });
    fixture.json(&format!("POST {line}"), 201, &shirt).await;
    let list = format!("GET {line}");
    assert_eq!(fixture.ask(&list, &[TYPED], "").await.json()["items"][0]["spec"]["n"], 1);
    let metadata = decoded(&fixture.ask(&list, &[METADATA_LIST], "").await, "PartialObjectMetadataList");
    assert_eq!(metadata["items"][0]["metadata"]["name"], "a");
    let watch = format!("{list}?watch=true&resourceVersion=0&timeoutSeconds=1");
    let found = events(&fixture.ask(&watch, &[METADATA], "").await, "PartialObjectMetadata");
    assert_eq!(found[0].1["metadata"]["name"], "a");
    let only = fixture.ask(&list, &[("accept", "application/vnd.kubernetes.protobuf")], "").await;
    assert_eq!(only.status, 406);
    let status = decoded(&only, "Status");
    assert_eq!(status["message"], "only the following media types are accepted: application/json, application/yaml");
}

/// More than is encoded at a time.
#[tokio::test]
async fn long_lists_are_whole_and_in_order() {
    let fixture = Fixture::new().await;
    for n in 0..40 {
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": format!("m{n:02}") },
            "data": { "k": "x".repeat(20_000) } });
        fixture.json("POST /api/v1/namespaces/default/configmaps", 201, &map).await;
    }
    let line = "GET /api/v1/namespaces/default/configmaps";
    let reply = fixture.ask(line, &[TYPED], "").await;
    let json = fixture.json(line, 200, &Value::Null).await;
    let list = decoded(&reply, "ConfigMapList");
    assert_eq!(items(&list), items(&json));
    assert!(items(&list).len() >= 40 && list["metadata"] == json["metadata"], "{}", list["metadata"]);
}

#[tokio::test]
async fn a_go_client_creates_and_reads() {
    let fixture = Fixture::new().await;
    let headers = [("content-type", MEDIA_TYPE), TYPED];
    let lease = json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "l" } });
    let mut deployment = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" } });
    let security = json!({ "supplementalGroups": [7, -1] });
    let template = json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "securityContext": security, "containers": [{ "name": "main", "image": "nginx" }] },
    });
    deployment["spec"] = json!({ "selector": { "matchLabels": { "app": "web" } }, "template": template });
    let body = |object: &Value| encode(object.to_string().as_bytes()).unwrap().to_vec();
    for (path, body, status, says) in [
        // Its group -1 is read right, and is no group.
        (
            "/apis/apps/v1/namespaces/default/deployments",
            body(&deployment),
            422,
            "supplementalGroups[1]: Invalid value: -1",
        ),
        ("/api/v1/namespaces/default/secrets", SECRET.to_vec(), 201, ""),
        ("/api/v1/namespaces/default/secrets", b"k8s\0\xff".to_vec(), 400, ""),
        ("/api/v1/namespaces/default/secrets", body(&lease), 400, ""),
    ] {
        let reply = fixture.ask(&format!("POST {path}"), &headers, body).await;
        assert_eq!(reply.status.as_u16(), status, "{path}: {}", reply.text);
        let object = decoded(&reply, if status == 201 { "Secret" } else { "Status" });
        assert!(object.to_string().contains(says), "{path}: {object}");
    }
    // DeleteOptions { gracePeriodSeconds: 0, dryRun: [All] } as a typed client sends them.
    let options = b"k8s\0\x0a\x13\x0a\x02v1\x12\x0dDeleteOptions\x12\x07\x08\x00\x2a\x03All".to_vec();
    let reply = fixture.ask("DELETE /api/v1/namespaces/default/secrets/s", &headers, options).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    fixture.json("GET /api/v1/namespaces/default/secrets/s", 200, &Value::Null).await;
}
