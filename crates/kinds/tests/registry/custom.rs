//! Custom resources from their definition to its end.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use machinery::selector::FieldSelector;
use registry::request::{
    DeleteRequest, FieldValidation, ListRequest, PatchType, Selection, WatchRequest, WriteOptions,
};
use registry::{Subresource, WatchKind, WebhookCall, WebhookClient};
use serde_json::{Value, json};

use super::Fixture;

const CRDS: &str = "apiextensions.k8s.io/v1/customresourcedefinitions";
const SHIRTS: &str = "example.com/v1/shirts";
const NAME: &str = "shirts.example.com";

fn version(name: &str, storage: bool, spec: Value) -> Value {
    json!({
        "name": name, "served": true, "storage": storage,
        "schema": { "openAPIV3Schema": { "type": "object", "properties": {
            "spec": { "type": "object", "properties": spec },
            "status": { "type": "object", "properties": {
                "replicas": { "type": "integer" }, "selector": { "type": "string" } } },
        } } },
        "subresources": { "status": {}, "scale": {
            "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector" } },
        "additionalPrinterColumns": [
            { "name": "Color", "type": "string", "jsonPath": ".spec.color" },
            { "name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1 },
            { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" },
        ],
        "selectableFields": [{ "jsonPath": ".spec.color" }],
    })
}

fn fields() -> Value {
    json!({
        "color": { "type": "string", "enum": ["red", "blue"], "default": "red" },
        "replicas": { "type": "integer", "minimum": 0 },
        "tags": { "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "string" } },
    })
}

fn crd(versions: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": NAME },
        "spec": {
            "group": "example.com", "scope": "Namespaced", "versions": versions,
            "names": { "plural": "shirts", "kind": "Shirt", "shortNames": ["sh"], "categories": ["all"] },
        },
    })
}

fn shirt(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "example.com/v1", "kind": "Shirt", "metadata": { "name": name }, "spec": spec })
}

async fn with_shirts() -> Fixture {
    let fixture = Fixture::open().await;
    fixture.create(CRDS, "", crd(json!([version("v1", true, fields())]))).await.unwrap();
    fixture
}

#[tokio::test]
async fn a_definition_serves_its_resource_at_once() {
    let fixture = Fixture::open().await;
    assert!(fixture.registry.resources().get("example.com", "v1", "shirts").is_none());
    let created = fixture.create(CRDS, "", crd(json!([version("v1", true, fields())]))).await.unwrap();
    assert_eq!(created["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(created["status"]["acceptedNames"]["listKind"], "ShirtList");
    let conditions = created["status"]["conditions"].as_array().unwrap();
    let held: Vec<&str> = conditions.iter().map(|condition| condition["type"].as_str().unwrap()).collect();
    assert_eq!(held, ["NamesAccepted", "Established"]);
    let resources = fixture.registry.resources();
    let info = resources.get("example.com", "v1", "shirts").unwrap().info();
    assert_eq!((info.singular.as_str(), info.short_names.as_slice()), ("shirt", &["sh".to_owned()][..]));
    assert_eq!(info.subresources, [Subresource::Status, Subresource::Scale]);
    assert_eq!(info.openapi_name, "com.example.v1.Shirt");
}

#[tokio::test]
async fn objects_are_pruned_defaulted_and_validated() {
    let fixture = with_shirts().await;
    let made = fixture.create(SHIRTS, "default", shirt("a", json!({ "replicas": 1, "typo": 2 }))).await.unwrap();
    assert_eq!(made["spec"], json!({ "color": "red", "replicas": 1 }));
    assert_eq!(made["metadata"]["generation"], 1);
    let strict = WriteOptions { field_validation: FieldValidation::Strict, ..WriteOptions::default() };
    let refused = fixture.create_with(SHIRTS, "default", shirt("b", json!({ "typo": 2 })), &strict).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (
            400,
            "Shirt in version \"v1\" cannot be handled as a Shirt: strict decoding error: unknown field \"spec.typo\""
        )
    );
    let warned =
        fixture.create_with(SHIRTS, "default", shirt("b", json!({ "typo": 2 })), &WriteOptions::default()).await;
    assert_eq!(warned.unwrap().warnings, ["unknown field \"spec.typo\""]);
    for (body, expect) in [
        (
            shirt("c", json!({ "replicas": -1, "color": "green" })),
            "Shirt.example.com \"c\" is invalid: [spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\", spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or equal to 0, .spec.replicas: Invalid value: -1: should be a non-negative integer]",
        ),
        (
            shirt("c", json!({ "tags": ["a", "a"] })),
            "Shirt.example.com \"c\" is invalid: spec.tags[1]: Duplicate value: \"a\"",
        ),
        (
            shirt("C", json!({})),
            "Shirt.example.com \"C\" is invalid: metadata.name: Invalid value: \"C\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
        (
            json!({ "apiVersion": "example.com/v1", "kind": "Blouse", "metadata": { "name": "c" } }),
            "Shirt.example.com \"c\" is invalid: kind: Invalid value: \"Blouse\": must be Shirt",
        ),
        (
            json!({ "apiVersion": "example.com/v2", "kind": "Shirt", "metadata": { "name": "c" } }),
            "the API version in the data (example.com/v2) does not match the expected API version (example.com/v1)",
        ),
    ] {
        assert_eq!(fixture.create(SHIRTS, "default", body).await.unwrap_err().message, expect);
    }
}

#[tokio::test]
async fn status_and_scale_are_apart() {
    let fixture = with_shirts().await;
    let mut body = shirt("a", json!({ "replicas": 1 }));
    body["status"] = json!({ "replicas": 9 });
    let made = fixture.create(SHIRTS, "default", body).await.unwrap();
    assert_eq!(made["status"], Value::Null);
    let target = fixture.target(SHIRTS, "default", "a");
    let mut status = made.clone();
    status["status"] = json!({ "replicas": 1, "selector": "app=a" });
    status["spec"]["replicas"] = 7.into();
    let written = fixture.update_sub(&target, Subresource::Status, &status).await.unwrap();
    assert_eq!((&written["spec"]["replicas"], &written["status"]["replicas"]), (&json!(1), &json!(1)));
    assert_eq!(written["metadata"]["generation"], 1);

    let scale: Value = serde_json::from_slice(&fixture.registry.scale(&target).await.unwrap()).unwrap();
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(1), &json!("app=a")));
    let patch = json!({ "spec": { "replicas": 3 } }).to_string();
    let options = WriteOptions::default();
    let scaled =
        fixture.registry.patch(&target, Some(Subresource::Scale), PatchType::Merge, patch.as_bytes(), &options);
    scaled.await.unwrap();
    let now = fixture.get(&target).await.unwrap();
    assert_eq!((&now["spec"]["replicas"], &now["metadata"]["generation"]), (&json!(3), &json!(2)));

    let same = fixture.merge(&target, json!({ "spec": { "replicas": 3 } })).await.unwrap();
    assert_eq!(same["metadata"]["resourceVersion"], now["metadata"]["resourceVersion"], "nothing changed");
    let refused = fixture.patch(&target, PatchType::Strategic, json!({ "spec": {} })).await.unwrap_err();
    assert_eq!(refused.code, 415);
    let mut unconditional = now.clone();
    unconditional["metadata"]["resourceVersion"] = Value::Null;
    assert_eq!(fixture.update(&target, &unconditional).await.unwrap_err().code, 422);
}

#[tokio::test]
async fn columns_and_selectors() {
    let fixture = with_shirts().await;
    for (name, color) in [("a", "red"), ("b", "blue"), ("c", "blue")] {
        fixture.create(SHIRTS, "default", shirt(name, json!({ "color": color, "replicas": 2 }))).await.unwrap();
    }
    let all = fixture.target(SHIRTS, "default", "");
    let columns: Vec<(String, i32)> =
        all.resource.columns().into_iter().map(|column| (column.name, column.priority)).collect();
    assert_eq!(columns, [("Name".into(), 0), ("Color".into(), 0), ("Replicas".into(), 1), ("Age".into(), 0)]);
    let page = fixture.registry.list(&all, &ListRequest::default()).await.unwrap();
    let row = fixture.registry.row(&all.resource, &page.entries[1].value, jiff::Timestamp::now()).unwrap();
    assert_eq!(row[..3], [json!("b"), json!("blue"), json!(2)]);
    let blue = Selection { fields: FieldSelector::parse("spec.color=blue").unwrap(), ..Selection::default() };
    let request = ListRequest { selection: blue, ..ListRequest::default() };
    assert_eq!(fixture.names(&all, &request).await.unwrap(), ["b", "c"]);
    let other = Selection { fields: FieldSelector::parse("spec.replicas=2").unwrap(), ..Selection::default() };
    let request = ListRequest { selection: other, ..ListRequest::default() };
    assert_eq!(fixture.names(&all, &request).await.unwrap_err().message, "field label not supported: spec.replicas");
}

#[tokio::test]
async fn versions_are_converted_and_schemas_may_change() {
    let fixture = with_shirts().await;
    fixture.create(SHIRTS, "default", shirt("a", json!({ "replicas": 1 }))).await.unwrap();
    let definition = fixture.target(CRDS, "", NAME);
    let narrow =
        json!({ "color": { "type": "string", "default": "red" }, "size": { "type": "string", "default": "M" } });
    let versions = json!([version("v1", false, fields()), version("v2", true, narrow)]);
    fixture.merge(&definition, json!({ "spec": { "versions": versions } })).await.unwrap();
    let stored = fixture.get(&definition).await.unwrap();
    assert_eq!(stored["status"]["storedVersions"], json!(["v1", "v2"]));

    let old = fixture.get(&fixture.target(SHIRTS, "default", "a")).await.unwrap();
    assert_eq!((&old["apiVersion"], &old["spec"]["replicas"]), (&json!("example.com/v1"), &json!(1)));
    let new = fixture.target("example.com/v2/shirts", "default", "a");
    let shown = fixture.get(&new).await.unwrap();
    assert_eq!((&shown["apiVersion"], &shown["spec"]), (&json!("example.com/v2"), &json!({ "color": "red" })));
    let page = fixture.registry.list(&new, &ListRequest::default()).await.unwrap();
    let list: Value = serde_json::from_slice(&fixture.registry.list_body(&new.resource, &page).unwrap()).unwrap();
    assert_eq!(list["items"][0], shown);
    // A write moves it to the new storage version.
    let written = fixture.merge(&new, json!({ "spec": { "size": "L" } })).await.unwrap();
    assert_eq!(written["spec"], json!({ "color": "red", "size": "L" }));
    let entry = fixture.registry.get(&new, "").await.unwrap();
    assert!(entry.value.starts_with(br#"{"apiVersion":"example.com/v2""#));
    let back = fixture.get(&fixture.target(SHIRTS, "default", "a")).await.unwrap();
    assert_eq!((&back["apiVersion"], &back["spec"]), (&json!("example.com/v1"), &json!({ "color": "red" })));
}

#[tokio::test]
async fn defaults_reach_objects_that_were_there_before() {
    let fixture = with_shirts().await;
    fixture.create(SHIRTS, "default", shirt("a", json!({}))).await.unwrap();
    let more = json!({ "color": { "type": "string" }, "size": { "type": "string", "default": "M" } });
    let definition = fixture.target(CRDS, "", NAME);
    let versions = json!([version("v1", true, more)]);
    fixture.merge(&definition, json!({ "spec": { "versions": versions } })).await.unwrap();
    let target = fixture.target(SHIRTS, "default", "a");
    assert_eq!(fixture.get(&target).await.unwrap()["spec"], json!({ "color": "red", "size": "M" }));

    // The same after a restart.
    fixture.registry.close().await;
    let registry = Fixture::open_in(&fixture.dir);
    let resources = registry.resources();
    let resource = resources.get("example.com", "v1", "shirts").unwrap();
    let entry = registry.get(&registry::Target::object(resource, "default", "a"), "").await.unwrap();
    let body: Value = serde_json::from_slice(&registry.body(resource, &entry).unwrap()).unwrap();
    assert_eq!(body["spec"], json!({ "color": "red", "size": "M" }));
}

#[tokio::test]
async fn the_end_of_a_definition() {
    let fixture = with_shirts().await;
    fixture.create(SHIRTS, "default", shirt("a", json!({}))).await.unwrap();
    let shirts = fixture.target(SHIRTS, "", "");
    let mut watch = fixture.registry.watch(&shirts, &WatchRequest::default()).await.unwrap();
    assert_eq!(watch.next().await.unwrap()[0].kind, WatchKind::Added);

    let definition = fixture.target(CRDS, "", NAME);
    let (going, gone) = fixture.delete(&definition, &DeleteRequest::default()).await.unwrap();
    assert!(!gone);
    assert_eq!(going["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    let refused = fixture.create(SHIRTS, "default", shirt("b", json!({}))).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (405, "create not allowed while custom resource definition is terminating")
    );
    fixture.delete(&fixture.target(SHIRTS, "default", "a"), &DeleteRequest::default()).await.unwrap();
    assert_eq!(watch.next().await.unwrap()[0].kind, WatchKind::Deleted);
    fixture.merge(&definition, json!({ "metadata": { "finalizers": null } })).await.unwrap();
    assert!(fixture.registry.resources().get("example.com", "v1", "shirts").is_none());
    assert!(watch.next().await.is_none(), "the watch ends with its resource");
}

/// What is done to an answer before it is sent.
type Spoil = fn(&mut Value);

/// In v2 the color is called colour. Keeps how many objects it was sent each time.
struct Painter {
    spoils: Spoil,
    sent: Mutex<Vec<usize>>,
}

impl WebhookClient for Painter {
    fn call(&self, call: WebhookCall) -> BoxFuture<'_, Result<Bytes, String>> {
        let mut review: Value = serde_json::from_slice(&call.body).unwrap();
        let request = review["request"].take();
        let wanted = &request["desiredAPIVersion"];
        let (from, to) = if wanted == "example.com/v2" { ("color", "colour") } else { ("colour", "color") };
        let mut objects = request["objects"].as_array().unwrap().clone();
        self.sent.lock().unwrap().push(objects.len());
        for object in &mut objects {
            object["apiVersion"] = wanted.clone();
            object["metadata"]["annotations"]["painted"] = "yes".into();
            object["metadata"]["generation"] = 99.into();
            let spec = object["spec"].as_object_mut().unwrap();
            let color = spec.remove(from).unwrap_or_default();
            spec.insert(to.to_owned(), color);
        }
        review["response"] =
            json!({ "uid": request["uid"], "result": { "status": "Success" }, "convertedObjects": objects });
        (self.spoils)(&mut review);
        async move { Ok(review.to_string().into()) }.boxed()
    }
}

async fn painted(spoils: Spoil) -> (Fixture, Arc<Painter>) {
    let painter = Arc::new(Painter { spoils, sent: Mutex::default() });
    let fixture = Fixture::with_webhooks(Arc::clone(&painter) as _).await;
    let colour = json!({ "colour": { "type": "string" }, "replicas": { "type": "integer" } });
    let mut second = version("v2", false, colour);
    second.as_object_mut().unwrap().remove("selectableFields");
    let mut definition = crd(json!([version("v1", true, fields()), second]));
    definition["spec"]["conversion"] = json!({ "strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"], "clientConfig": { "url": "https://localhost/convert" } } });
    fixture.create(CRDS, "", definition).await.unwrap();
    (fixture, painter)
}

#[tokio::test]
async fn a_webhook_converts() {
    let (fixture, painter) = painted(|_| {}).await;
    const SECOND: &str = "example.com/v2/shirts";
    let sent = || std::mem::take(&mut *painter.sent.lock().unwrap());
    for name in ["a", "b"] {
        fixture.create(SHIRTS, "default", shirt(name, json!({ "color": "blue" }))).await.unwrap();
    }
    let first = fixture.get(&fixture.target(SHIRTS, "default", "a")).await.unwrap();
    assert_eq!((&first["spec"]["color"], sent()), (&json!("blue"), vec![]), "what is stored is served as it is");

    // A list is converted at once, and what was converted is remembered.
    let second = fixture.target(SECOND, "default", "a");
    let page = fixture.registry.list(&second, &ListRequest::default()).await.unwrap();
    let bodies = fixture.registry.bodies(&second.resource, &page).unwrap();
    assert_eq!((bodies.len(), sent()), (1, vec![1]));
    let all = fixture.target(SECOND, "default", "");
    let page = fixture.registry.list(&all, &ListRequest::default()).await.unwrap();
    let list: Value = serde_json::from_slice(&fixture.registry.list_body(&all.resource, &page).unwrap()).unwrap();
    assert_eq!((list["items"].as_array().unwrap().len(), sent()), (2, vec![1]));
    let shown = fixture.get(&second).await.unwrap();
    assert_eq!((&shown["spec"], &shown["apiVersion"]), (&json!({ "colour": "blue" }), &json!("example.com/v2")));
    // Of the metadata, labels and annotations are the webhook's to change.
    assert_eq!(
        (&shown["metadata"]["annotations"]["painted"], &shown["metadata"]["generation"]),
        (&json!("yes"), &json!(1))
    );
    assert_eq!((&shown["metadata"]["uid"], sent()), (&first["metadata"]["uid"], vec![]));

    // Writes in another version are kept in the one that is stored.
    let written = fixture.merge(&second, json!({ "spec": { "colour": "red" } })).await.unwrap();
    assert_eq!((&written["spec"]["colour"], &written["metadata"]["generation"]), (&json!("red"), &json!(2)));
    let stored = fixture.get(&fixture.target(SHIRTS, "default", "a")).await.unwrap();
    assert_eq!((&stored["spec"], &stored["apiVersion"]), (&json!({ "color": "red" }), &json!("example.com/v1")));
    let again = fixture.merge(&second, json!({ "spec": { "colour": "red" } })).await.unwrap();
    assert_eq!(again["metadata"]["resourceVersion"], written["metadata"]["resourceVersion"]);
    let mut made = shirt("c", json!({ "colour": "blue" }));
    made["apiVersion"] = "example.com/v2".into();
    fixture.create(SECOND, "default", made).await.unwrap();
    assert_eq!(fixture.get(&fixture.target(SHIRTS, "default", "c")).await.unwrap()["spec"]["color"], "blue");

    // What was only tried is not remembered as what is.
    let before = fixture.get(&second).await.unwrap();
    let options = WriteOptions { dry_run: true, ..WriteOptions::default() };
    let patch = json!({ "spec": { "colour": "tan" } }).to_string();
    let tried = fixture.registry.patch(&second, None, PatchType::Merge, patch.as_bytes(), &options).await;
    assert!(tried.is_ok());
    assert_eq!(fixture.get(&second).await.unwrap(), before);

    sent();
    let mut watch = fixture.registry.watch(&all, &WatchRequest::default()).await.unwrap();
    let events = watch.next().await.unwrap();
    let frame: Value = serde_json::from_slice(&events[0].frame(watch.resource()).unwrap()).unwrap();
    assert_eq!((&frame["type"], &frame["object"]["spec"]["colour"]), (&json!("ADDED"), &json!("red")));
}

#[tokio::test]
async fn a_conversion_that_fails_says_so_and_harms_nothing_else() {
    let spoils: [(Spoil, &str); 7] = [
        (|review| review["response"] = Value::Null, "failed: no response provided"),
        (
            |review| review["response"]["result"] = json!({ "status": "Failure", "message": "no paint" }),
            "failed: no paint",
        ),
        (|review| review["response"]["uid"] = "x".into(), "failed: expected response.uid="),
        (|review| review["response"]["convertedObjects"] = json!([]), "returned 0 objects, expected 1"),
        (
            |review| review["response"]["convertedObjects"][0]["apiVersion"] = "example.com/v1".into(),
            "returned invalid object at index 0: invalid groupVersion (expected example.com/v2, received example.com/v1)",
        ),
        (
            |review| review["response"]["convertedObjects"][0]["metadata"]["name"] = "other".into(),
            "returned invalid object at index 0: invalid metadata: must have the same name: a != other",
        ),
        (
            |review| {
                let deep = (0..110).fold(json!(1), |value, _| json!([value]));
                review["response"]["convertedObjects"][0]["spec"]["deep"] = deep;
            },
            "returned invalid object at index 0: exceeded max depth of 100",
        ),
    ];
    for (spoil, why) in spoils {
        let (fixture, _) = painted(spoil).await;
        fixture.create(SHIRTS, "default", shirt("a", json!({ "color": "blue" }))).await.unwrap();
        let error = fixture.get(&fixture.target("example.com/v2/shirts", "default", "a")).await.unwrap_err();
        let expect = format!("Internal error occurred: conversion webhook for example.com/v1, Kind=Shirt {why}");
        assert!(error.code == 500 && error.message.starts_with(&expect), "{error}");
        fixture.merge(&fixture.target(SHIRTS, "default", "a"), json!({ "spec": { "color": "red" } })).await.unwrap();
    }
}

#[tokio::test]
async fn rules_are_evaluated() {
    let fixture = Fixture::open().await;
    let with_rule = |rule: Value| {
        let mut version = version("v1", true, fields());
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"] = json!([rule]);
        crd(json!([version]))
    };
    let bad = fixture.create(CRDS, "", with_rule(json!({ "rule": "self.colour == 'red'" }))).await.unwrap_err();
    let place = "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule";
    assert_eq!(bad.code, 422);
    assert!(bad.message.contains(place) && bad.message.contains("undefined field 'colour'"), "{}", bad.message);

    let rule = json!({ "rule": "self.replicas >= oldSelf.replicas", "message": "shirts are never thrown away" });
    fixture.create(CRDS, "", with_rule(rule)).await.unwrap();
    fixture.create(SHIRTS, "default", shirt("a", json!({ "replicas": 2 }))).await.unwrap();
    let target = fixture.target(SHIRTS, "default", "a");
    let patch = |replicas: i32| json!({ "spec": { "replicas": replicas } });
    fixture.patch(&target, PatchType::Merge, patch(3)).await.unwrap();
    let refused = fixture.patch(&target, PatchType::Merge, patch(1)).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (422, "Shirt.example.com \"a\" is invalid: spec: Invalid value: shirts are never thrown away")
    );
    // Rules rely on what the rest of the schema says.
    let wrong = fixture.create(SHIRTS, "default", shirt("b", json!({ "replicas": "x" }))).await.unwrap_err();
    assert!(wrong.message.contains("some validation rules were not checked"), "{}", wrong.message);
}

#[tokio::test]
async fn a_definition_that_serves_nothing() {
    let fixture = with_shirts().await;
    fixture.create(SHIRTS, "default", shirt("a", json!({}))).await.unwrap();
    let shirts = fixture.target(SHIRTS, "", "");
    let mut watch = fixture.registry.watch(&shirts, &WatchRequest::default()).await.unwrap();
    watch.next().await.unwrap();
    let definition = fixture.target(CRDS, "", NAME);
    let with_served = |served: bool| {
        let mut version = version("v1", true, fields());
        version["served"] = served.into();
        json!({ "spec": { "versions": [version] } })
    };
    fixture.merge(&definition, with_served(false)).await.unwrap();
    let served = || fixture.registry.resources().get("example.com", "v1", "shirts").is_some();
    assert!(!served() && watch.next().await.is_none(), "nothing is served, and watches end");
    // Its objects are there when it is served again.
    fixture.merge(&definition, with_served(true)).await.unwrap();
    fixture.get(&fixture.target(SHIRTS, "default", "a")).await.unwrap();
    // And they can be reached to be deleted with it.
    fixture.merge(&definition, with_served(false)).await.unwrap();
    fixture.delete(&definition, &DeleteRequest::default()).await.unwrap();
    assert!(served());
    fixture.delete(&fixture.target(SHIRTS, "default", "a"), &DeleteRequest::default()).await.unwrap();
    fixture.merge(&definition, json!({ "metadata": { "finalizers": null } })).await.unwrap();
    assert!(!served());
}

#[tokio::test]
async fn names_are_given_once_whoever_asks_at_the_same_time() {
    let fixture = Fixture::open().await;
    let crds = ["shirts", "blouses", "jackets", "coats"].map(|plural| {
        let mut definition = crd(json!([version("v1", true, fields())]));
        definition["metadata"]["name"] = format!("{plural}.example.com").into();
        definition["spec"]["names"]["plural"] = plural.into();
        definition["spec"]["names"]["singular"] = plural.trim_end_matches('s').into();
        definition
    });
    let made = futures::future::join_all(crds.into_iter().map(|definition| fixture.create(CRDS, "", definition))).await;
    let accepted = made.into_iter().map(|made| made.unwrap()["status"]["conditions"][0]["status"] == "True");
    assert_eq!(accepted.filter(|accepted| *accepted).count(), 1, "they are all of one kind");
}

/// The runtime has one worker: whoever computes on it keeps it from all others, unless somebody else takes its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn others_go_on_while_the_rules_of_a_definition_are_compiled() {
    let fixture = Fixture::open().await;
    let rules: Vec<Value> =
        (0..1000).map(|n| json!({ "rule": format!("self.replicas >= {n} || self.color != 'red'") })).collect();
    let mut version = version("v1", true, fields());
    version["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"] = json!(rules);
    let body = crd(json!([version])).to_string();
    let (registry, target) = (fixture.registry.clone(), fixture.target(CRDS, "", ""));
    let created =
        tokio::spawn(async move { registry.create(&target, body.as_bytes(), &WriteOptions::default()).await });
    let mut others = 0;
    while !created.is_finished() {
        tokio::spawn(async {}).await.unwrap();
        others += 1;
    }
    assert!(created.await.unwrap().is_ok_and(|written| written.created));
    assert!(others > 50, "{others} tasks had their turn");
}
