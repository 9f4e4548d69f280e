//! Custom resources as clients meet them: discovery, OpenAPI, tables, warnings.

use serde_json::{Value, json};

use super::support::Fixture;

pub(super) const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

pub(super) fn crd(plural: &str, kind: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.example.com") },
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": { "plural": plural, "kind": kind, "shortNames": [&plural[..2]] },
            "versions": [{
                "name": "v1", "served": true, "storage": true, "deprecated": true,
                "schema": { "openAPIV3Schema": { "type": "object", "description": "Something to wear.", "properties": { "spec": spec } } },
                "subresources": { "status": {}, "scale": { "specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n" } },
                "additionalPrinterColumns": [{ "name": "Color", "type": "string", "jsonPath": ".spec.color" }],
            }],
        },
    })
}

pub(super) fn spec() -> Value {
    json!({ "type": "object", "properties": {
        "color": { "type": "string", "description": "What it looks like." },
        "n": { "type": "integer", "nullable": true },
        "port": { "x-kubernetes-int-or-string": true, "anyOf": [{ "type": "integer" }, { "type": "string" }] },
    } })
}

#[tokio::test]
async fn a_definition_is_discovered_described_and_forgotten() {
    let fixture = Fixture::new().await;
    let missing = fixture.ask("GET /apis/example.com/v1/namespaces/default/shirts", &[], "").await;
    assert_eq!((missing.status.as_u16(), missing.text.as_str()), (404, "404 page not found\n"));
    let before = fixture.ask("GET /apis", &[("accept", AGGREGATED)], "").await;
    let documents = fixture.json("GET /openapi/v3", 200, &Value::Null).await;
    fixture.json(&format!("POST {CRDS}"), 201, &crd("shirts", "Shirt", spec())).await;

    let after = fixture.ask("GET /apis", &[("accept", AGGREGATED)], "").await;
    assert_ne!(before.header("etag"), after.header("etag"));
    let list = fixture.json("GET /apis/example.com/v1", 200, &Value::Null).await;
    let names: Vec<&str> = list["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["shirts", "shirts/scale", "shirts/status"]);
    assert_eq!(list["resources"][0]["shortNames"], json!(["sh"]));

    let index = fixture.json("GET /openapi/v3", 200, &Value::Null).await;
    assert_eq!(index["paths"]["apis/apps/v1"], documents["paths"]["apis/apps/v1"]);
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = fixture.json(&format!("GET {url}"), 200, &Value::Null).await;
    let shirt = &document["components"]["schemas"]["com.example.v1.Shirt"];
    assert_eq!(shirt["properties"]["spec"]["properties"]["color"]["description"], "What it looks like.");
    assert_eq!(shirt["x-kubernetes-group-version-kind"][0]["kind"], "Shirt");
    assert_eq!(
        shirt["properties"]["metadata"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    assert_eq!(shirt["properties"]["spec"]["properties"]["n"]["nullable"], true);
    let patch = &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/shirts/{name}"]["patch"];
    let types = patch["requestBody"]["content"].as_object().unwrap();
    assert!(types.contains_key("application/merge-patch+json"));
    assert!(!types.contains_key("application/strategic-merge-patch+json"), "kubectl would use it");

    let swagger = fixture.json("GET /openapi/v2", 200, &Value::Null).await;
    let spec = &swagger["definitions"]["com.example.v1.Shirt"]["properties"]["spec"]["properties"];
    assert_eq!(spec["n"], json!({}));
    assert_eq!(spec["port"], json!({ "x-kubernetes-int-or-string": true }));

    fixture.json(&format!("DELETE {CRDS}/shirts.example.com"), 200, &Value::Null).await;
    let path = format!("PATCH {CRDS}/shirts.example.com");
    let none = json!({ "metadata": { "finalizers": null } }).to_string();
    fixture.ask(&path, &[("content-type", "application/merge-patch+json")], none).await;
    assert_eq!(fixture.ask("GET /apis/example.com", &[], "").await.status.as_u16(), 404);
    let again = fixture.ask("GET /apis", &[("accept", AGGREGATED)], "").await;
    assert_eq!(again.header("etag"), before.header("etag"));
}

#[tokio::test]
async fn objects_in_tables_with_a_word_about_their_version() {
    let fixture = Fixture::new().await;
    fixture.json(&format!("POST {CRDS}"), 201, &crd("shirts", "Shirt", spec())).await;
    let path = "/apis/example.com/v1/namespaces/default/shirts";
    let shirt = json!({ "apiVersion": "example.com/v1", "kind": "Shirt", "metadata": { "name": "a" }, "spec": { "color": "red", "n": 2 } });
    fixture.json(&format!("POST {path}"), 201, &shirt).await;
    let table = fixture.ask(&format!("GET {path}"), &[("accept", TABLE)], "").await;
    assert_eq!(table.header("warning"), "299 - \"example.com/v1 Shirt is deprecated\"");
    assert_eq!(table.json()["rows"][0]["cells"], json!(["a", "red"]));
    let scale = fixture.json(&format!("GET {path}/a/scale"), 200, &Value::Null).await;
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let refused = fixture.ask(&format!("PATCH {path}/a"), &strategic, "{}").await;
    assert_eq!(refused.status.as_u16(), 415, "{}", refused.text);
}

/// As large as the largest that are in use; no part of it may take a time that grows faster than its size.
#[tokio::test]
async fn a_definition_of_more_than_a_megabyte() {
    let fixture = Fixture::new().await;
    let field = |n: usize| {
        (format!("field{n}"), json!({ "type": "string", "description": "x".repeat(500), "pattern": "^[a-z]*$" }))
    };
    let part = |n: usize| {
        let fields: serde_json::Map<String, Value> = (0..100).map(field).collect();
        (format!("part{n}"), json!({ "type": "object", "properties": fields }))
    };
    let parts: serde_json::Map<String, Value> = (0..22).map(part).collect();
    let large = crd("larges", "Large", json!({ "type": "object", "properties": parts }));
    let size = large.to_string().len();
    assert!(size > 1_200_000, "{size}");
    let started = std::time::Instant::now();
    fixture.json(&format!("POST {CRDS}"), 201, &large).await;
    let created = started.elapsed();
    fixture.json("GET /openapi/v3/apis/example.com/v1", 200, &Value::Null).await;
    let described = started.elapsed() - created;
    let object = json!({ "apiVersion": "example.com/v1", "kind": "Large", "metadata": { "name": "a" }, "spec": { "part1": { "field1": "a" } } });
    fixture.json("POST /apis/example.com/v1/namespaces/default/larges", 201, &object).await;
    eprintln!("{size} bytes: created in {created:?}, described in {described:?}");
}
