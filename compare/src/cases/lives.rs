//! The life of an object: created, read, changed in every way, deleted.

use http::Method;
use serde_json::{Value, json};

use super::{APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, Subject, TABLE};
use crate::cluster::Request;

const FORMS: [&str; 8] = [
    "application/json",
    "application/yaml",
    TABLE,
    "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=Other;v=v1;g=meta.k8s.io,application/json",
    "text/html",
    "*/*",
];

/// From its creation on.
pub(super) fn begin(subject: &Subject) -> Vec<Request> {
    let path = subject.path();
    let collection = &subject.resource.collection;
    let object = &subject.object;
    let mut requests = vec![
        Request::get(&path).note("before"),
        Request::change(&path, object.clone()).note("before"),
        Request::patch(&path, MERGE_PATCH, json!({})).note("before"),
        Request::post(format!("{collection}?dryRun=All"), object.clone()),
        Request::post(collection, object.clone()),
        Request::post(collection, object.clone()).note("again"),
    ];
    requests.extend(FORMS.map(|form| Request::get(&path).accept(form)));
    requests.extend([
        Request::get(format!("{path}?pretty=true")),
        Request::get(format!("{path}?resourceVersion=0")),
        Request::get(format!("{path}?resourceVersion=x")),
        Request::change(&path, json!({})).note("nothing"),
        Request::change(&path, json!({ "metadata": { "labels": { "compare": "a" } } })).note("a label"),
        Request::change(&path, json!({ "metadata": { "resourceVersion": "1" } })).note("an old revision"),
        Request::change(&path, json!({ "metadata": { "resourceVersion": "x" } })).note("a bad revision"),
        Request::change(&path, json!({ "metadata": { "resourceVersion": "" } })).note("no revision"),
        Request::change(&path, json!({ "metadata": { "uid": "0f0f0f0f-0000-1111-2222-333344445555" } }))
            .note("another uid"),
        Request::change(&path, json!({ "metadata": { "name": "other" } })).note("another name"),
        Request::change(&path, json!({ "metadata": { "namespace": "other" } })).note("another namespace"),
        Request::change(&path, json!({ "metadata": { "creationTimestamp": null, "generation": 9 } }))
            .note("what the server sets"),
        Request::change(&path, json!({ "kind": "Other" })).note("another kind"),
        Request::new(Method::PUT, &path).note("no body"),
    ]);
    requests.extend(patches(&path, object));
    requests.extend(subject.resource.subresources.iter().flat_map(|name| subresource(&path, name)));
    requests.push(Request::get(&path).note("after all"));
    requests
}

/// Each kind of patch, good and bad.
fn patches(path: &str, object: &Value) -> Vec<Request> {
    let label = |value: &str| json!({ "metadata": { "labels": { "patched": value } } });
    let applied = json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"],
        "metadata": { "name": object["metadata"]["name"], "labels": { "applied": "a" } },
    });
    let mut conflicting = applied.clone();
    conflicting["metadata"]["labels"] = json!({ "applied": "b" });
    let with_name = |name: &str| {
        let mut other = applied.clone();
        other["metadata"]["name"] = name.into();
        other
    };
    let json_patch = |patch: Value| Request::patch(path, JSON_PATCH, patch);
    let apply = |query: &str, body: &Value| Request::patch(format!("{path}{query}"), APPLY_PATCH, body.clone());
    vec![
        Request::patch(path, MERGE_PATCH, label("merge")),
        Request::patch(path, MERGE_PATCH, label("merge")).note("again"),
        Request::patch(path, MERGE_PATCH, json!([])).note("a list"),
        Request::patch(path, MERGE_PATCH, json!({ "metadata": { "labels": "x" } })).note("a wrong type"),
        Request::patch(path, MERGE_PATCH, json!({ "metadata": { "resourceVersion": "1" } })).note("an old revision"),
        Request::patch(path, MERGE_PATCH, json!({ "metadata": { "name": "other" } })).note("another name"),
        Request::patch(path, MERGE_PATCH, json!({ "kind": "Other" })).note("another kind"),
        Request::patch(path, MERGE_PATCH, json!({ "unknown": 1 })).note("an unknown field"),
        Request::patch(format!("{path}?fieldValidation=Strict"), MERGE_PATCH, json!({ "unknown": 1 })),
        Request::patch(format!("{path}?dryRun=All"), MERGE_PATCH, label("dry")),
        Request::patch(format!("{path}?force=true"), MERGE_PATCH, label("forced")),
        Request::patch(path, STRATEGIC_MERGE_PATCH, label("strategic")),
        Request::patch(path, STRATEGIC_MERGE_PATCH, json!({ "metadata": { "$patch": "bad" } })).note("a bad directive"),
        Request::patch(path, STRATEGIC_MERGE_PATCH, json!({ "metadata": { "labels": { "$patch": "replace", "only": "a" } } })),
        Request::patch(path, STRATEGIC_MERGE_PATCH, json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["x"] } })).note("a deletion"),
        json_patch(json!([{ "op": "add", "path": "/metadata/labels/json", "value": "a" }])),
        json_patch(json!([{ "op": "test", "path": "/metadata/labels/json", "value": "b" }])).note("a test that fails"),
        json_patch(json!([{ "op": "remove", "path": "/metadata/none/a" }])).note("nothing there"),
        json_patch(json!([{ "op": "replace", "path": "/kind", "value": "Other" }])).note("another kind"),
        json_patch(json!([{ "op": "none", "path": "/kind" }])).note("a bad operation"),
        json_patch(json!([{ "path": "/kind" }])).note("no operation"),
        json_patch(json!({})).note("an object"),
        apply("", &applied).note("no manager"),
        apply("?fieldManager=one", &applied),
        apply("?fieldManager=one", &applied).note("again"),
        apply("?fieldManager=two", &conflicting).note("a conflict"),
        apply("?fieldManager=two&force=true", &conflicting).note("by force"),
        apply("?fieldManager=one", &with_name("other")).note("another name"),
        apply("?fieldManager=one", &json!({ "metadata": {} })).note("no kind"),
        apply("?fieldManager=one", &json!({ "apiVersion": object["apiVersion"], "kind": "Other" })).note("another kind"),
        apply("?fieldManager=one&force=x", &applied).note("a bad parameter"),
        apply("?fieldManager=one", &json!({
            "apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": { "managedFields": [{ "manager": "x" }] },
        })).note("managed fields"),
        Request::patch(path, "application/json", label("none")).note("no patch"),
        Request::patch(path, "text/plain", label("none")).note("no patch"),
        Request { content_type: MERGE_PATCH, ..Request::text(Method::PATCH, path, "{") }.note("cut"),
    ]
}

/// What can be sent to a subresource without a node behind it.
fn subresource(path: &str, name: &str) -> Vec<Request> {
    let below = format!("{path}/{name}");
    match name {
        "status" | "resize" | "ephemeralcontainers" | "approval" => vec![
            Request::get(&below),
            Request::get(&below).accept(TABLE),
            Request::change(&below, json!({})).note("nothing"),
            Request::change(&below, json!({ "metadata": { "labels": { "by-status": "a" }, "annotations": { "by-status": "a" } } })).note("metadata"),
            Request::change(&below, json!({ "metadata": { "finalizers": ["example.com/by-status"] } })).note("finalizers"),
            Request::change(&below, json!({ "spec": "x" })).note("a wrong type"),
            Request::change(&below, json!({ "status": { "conditions": [{ "type": "A", "status": "True" }] } })).note("a condition"),
            Request::change(&below, json!({ "status": { "replicas": -1, "observedGeneration": -1 } })).note("negative"),
            Request::patch(&below, MERGE_PATCH, json!({ "status": { "none": 1 } })),
            Request::patch(&below, STRATEGIC_MERGE_PATCH, json!({ "status": { "conditions": [{ "type": "B", "status": "False" }] } })),
            Request::patch(format!("{below}?fieldManager=one"), APPLY_PATCH, json!({})).note("nothing"),
        ],
        "scale" => vec![
            Request::get(&below),
            Request::get(&below).accept("application/yaml"),
            Request::change(&below, json!({})).note("nothing"),
            Request::change(&below, json!({ "spec": { "replicas": 0 } })),
            Request::change(&below, json!({ "spec": { "replicas": -1 } })).note("negative"),
            Request::change(&below, json!({ "spec": { "replicas": "x" } })).note("a wrong type"),
            Request::change(&below, json!({ "metadata": { "name": "other" } })).note("another name"),
            Request::change(&below, json!({ "metadata": { "resourceVersion": "1" } })).note("an old revision"),
            Request::patch(&below, MERGE_PATCH, json!({ "spec": { "replicas": 0 } })),
            Request::patch(&below, JSON_PATCH, json!([{ "op": "replace", "path": "/spec/replicas", "value": -2 }])),
        ],
        "token" => {
            let request = |spec: Value| json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec });
            vec![
                Request::post(&below, request(json!({ "expirationSeconds": 5 }))),
                Request::post(&below, request(json!({ "expirationSeconds": 5_000_000_000_u64 }))),
                Request::post(&below, request(json!({ "boundObjectRef": { "kind": "Pod", "apiVersion": "v1", "name": "none" } }))),
                Request::post(&below, request(json!({ "boundObjectRef": { "kind": "Other", "apiVersion": "v1", "name": "none" } }))),
                Request::post(&below, json!({ "kind": "Other" })),
            ]
        }
        "eviction" => {
            let eviction = |change: Value| {
                let mut eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {} });
                crate::cluster::merge(&mut eviction, &change);
                eviction
            };
            vec![
                Request::post(format!("{below}?dryRun=All"), eviction(json!({}))).note("no name"),
                Request::post(&below, eviction(json!({ "metadata": { "name": "other" } }))).note("another name"),
                Request::post(&below, json!({})).note("no kind"),
            ]
        }
        "binding" => vec![
            Request::post(&below, json!({ "apiVersion": "v1", "kind": "Binding", "metadata": {}, "target": { "name": "" } })).note("no node"),
            Request::post(&below, json!({ "apiVersion": "v1", "kind": "Binding", "metadata": {}, "target": { "kind": "Other", "name": "n" } })).note("no Node"),
            Request::post(&below, json!({ "apiVersion": "v1", "kind": "Binding", "metadata": {}, "target": { "kind": "Node", "name": "n" } })).note("while it is held back"),
        ],
        "log" => vec![
            Request::get(&below),
            Request::get(format!("{below}?container=none")),
            Request::get(format!("{below}?tailLines=-1")),
            Request::get(format!("{below}?sinceSeconds=0")),
            Request::get(format!("{below}?stream=Stdout&tailLines=1")),
        ],
        "exec" | "attach" | "portforward" => vec![
            Request::get(&below),
            Request::new(Method::POST, &below),
            Request::new(Method::POST, format!("{below}?container=none&command=a&stdin=true")),
        ],
        _ => vec![Request::get(&below)],
    }
}

/// Its deletion.
pub(super) fn end(subject: &Subject) -> Vec<Request> {
    let path = subject.path();
    let delete = |options: Value| Request::delete(&path, options);
    vec![
        delete(json!({ "preconditions": { "uid": "0f0f0f0f-0000-1111-2222-333344445555" } })).note("another uid"),
        delete(json!({ "preconditions": { "resourceVersion": "1" } })).note("an old revision"),
        delete(json!({ "propagationPolicy": "Other" })).note("a bad policy"),
        delete(json!({ "propagationPolicy": "Orphan", "orphanDependents": true })).note("two policies"),
        delete(json!({ "gracePeriodSeconds": -1, "dryRun": ["All"] })).note("a negative grace"),
        delete(json!({ "dryRun": ["Some"] })).note("a bad dryRun"),
        delete(json!({ "unknown": 1, "dryRun": ["All"] })).note("an unknown field"),
        delete(json!({ "kind": "Other", "apiVersion": "v1" })).note("another kind"),
        delete(json!({ "kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"] })).note("dry"),
        Request::new(Method::DELETE, format!("{path}?dryRun=All&gracePeriodSeconds=0")),
        Request::new(Method::DELETE, format!("{path}?gracePeriodSeconds=x")),
        Request::text(Method::DELETE, &path, "{").note("cut"),
        delete(json!({ "propagationPolicy": "Foreground" })).note("in the foreground"),
        Request::get(&path).note("deleted in the foreground"),
        Request::patch(&path, MERGE_PATCH, json!({ "metadata": { "finalizers": ["example.com/new"] } }))
            .note("a finalizer too late"),
        delete(json!({ "gracePeriodSeconds": 0 })).note("at once"),
        Request::patch(&path, MERGE_PATCH, json!({ "metadata": { "finalizers": null } })).note("let go"),
        Request::get(&path).note("after"),
        delete(json!({})).note("again"),
    ]
}
