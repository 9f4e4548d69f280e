//! Bodies and parameters that are no good, and the three ways to validate fields.

use http::Method;
use serde_json::{Value, json};

use super::Subject;
use crate::cluster::{Body, Request};

/// Creates of a kind that are refused, or warned about.
pub(super) fn requests(subject: &Subject) -> Vec<Request> {
    let path = &subject.resource.collection;
    let post = |query: &str, change: Value, note: &str| {
        let mut object = subject.object.clone();
        crate::cluster::merge(&mut object, &change);
        Request::post(format!("{path}?dryRun=All{query}"), object).note(note)
    };
    let text = |content_type: &'static str, body: String, note: &str| {
        let mut request = Request::text(Method::POST, format!("{path}?dryRun=All"), body).note(note);
        request.content_type = content_type;
        request
    };
    let object = subject.object.to_string();
    let twice = object.replacen('{', r#"{"kind":"Twice","#, 1);
    let mut requests = vec![
        Request::new(Method::POST, path).note("no body"),
        text("application/json", "{".to_owned(), "cut"),
        text("application/json", "[]".to_owned(), "a list"),
        text("application/json", "null".to_owned(), "null"),
        text("application/json", "{}".to_owned(), "no kind"),
        text("application/json", format!("{object} x"), "more behind"),
        text("application/json", twice, "kind twice"),
        text("application/yaml", object.clone(), "JSON as YAML"),
        text("application/yaml", "a: [".to_owned(), "cut YAML"),
        text("text/plain", object.clone(), "text"),
        text("application/vnd.kubernetes.protobuf", object, "JSON as protobuf"),
        post("", json!({ "kind": "Other" }), "another kind"),
        post("", json!({ "apiVersion": "other.example.com/v1" }), "another group"),
        post("", json!({ "apiVersion": "a/b/c" }), "no apiVersion"),
        post("", json!({ "metadata": { "name": null } }), "no name"),
        post("", json!({ "metadata": { "name": null, "generateName": "made-" } }), "a name to be made")
            .note("generateName"),
        post("", json!({ "metadata": { "name": "Bad_Name" } }), "a bad name"),
        post("", json!({ "metadata": { "name": "x".repeat(300) } }), "a long name"),
        post("", json!({ "metadata": { "namespace": "other" } }), "another namespace"),
        post("", json!({ "metadata": { "resourceVersion": "5" } }), "a revision"),
        post(
            "",
            json!({ "metadata": { "uid": "0f0f0f0f-0000-1111-2222-333344445555", "generation": 7, "selfLink": "/x" } }),
            "what the server sets",
        ),
        post("", json!({ "metadata": { "labels": { "a b": "c" } } }), "a bad label"),
        post("", json!({ "metadata": { "labels": { "a": "c d" } } }), "a bad label's value"),
        post("", json!({ "metadata": { "annotations": { "a b": "c" } } }), "a bad annotation"),
        post("", json!({ "metadata": { "finalizers": ["bad name"] } }), "a bad finalizer"),
        post("", json!({ "metadata": { "finalizers": ["orphan", "foregroundDeletion"] } }), "two ways of deletion"),
        post(
            "",
            json!({ "metadata": { "ownerReferences": [{ "apiVersion": "v1", "kind": "", "name": "a", "uid": "" }] } }),
            "a bad owner",
        ),
        post("", json!({ "metadata": { "managedFields": [{ "operation": "None" }] } }), "bad managed fields"),
        post("", json!({ "metadata": { "creationTimestamp": "yesterday" } }), "a bad time"),
        post("&fieldValidation=None", json!({}), "a bad parameter"),
        post("&fieldManager=Bad%0AManager", json!({}), "a bad manager"),
        post(&format!("&fieldManager={}", "x".repeat(200)), json!({}), "a long manager"),
        post("&pretty=true", json!({}), "pretty"),
        post("&unknown=1", json!({}), "an unknown parameter"),
        Request::post(format!("{path}?dryRun=Some"), subject.object.clone()).note("a bad dryRun"),
        Request::post(format!("{path}?dryRun="), subject.object.clone()).note("an empty dryRun"),
    ];
    for validation in ["Strict", "Warn", "Ignore"] {
        let query = format!("&fieldValidation={validation}");
        requests.push(post(&query, json!({ "unknown": 1, "metadata": { "unknown": 1 } }), "unknown fields"));
        let mut twice = subject.object.to_string();
        twice = twice.replacen(r#""metadata":{"#, r#""metadata":{"labels":{"a":"b"},"labels":{"a":"c"},"#, 1);
        let path = format!("{path}?dryRun=All{query}");
        let request = Request { body: Body::Text(twice), ..Request::new(Method::POST, path) };
        requests.push(request.note("a field twice"));
    }
    requests
}
