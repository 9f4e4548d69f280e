//! Discovery and OpenAPI as clients read them.

use serde_json::{Value, json};

use kube::core::discovery::v2::APIGroupDiscoveryList;

use super::support::{Fixture, Reply};
use crate::protobuf::to_json;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

#[tokio::test]
async fn classic_discovery() {
    let fixture = Fixture::new().await;
    let get = |path: &'static str| fixture.json(path, 200, &Value::Null);
    assert_eq!(get("GET /api").await["versions"], json!(["v1"]));
    let paths = get("GET /").await["paths"].clone();
    let paths: Vec<&str> = paths.as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    assert!(paths.is_sorted(), "{paths:?}");
    for path in ["/api/v1", "/apis/apps", "/apis/apps/v1", "/readyz/etcd", "/openapi/v3", "/version"] {
        assert!(paths.contains(&path), "{path} is missing from {paths:?}");
    }
    let groups = get("GET /apis").await;
    let names: Vec<&str> = groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    for name in ["apps", "coordination.k8s.io", "discovery.k8s.io", "events.k8s.io", "authorization.k8s.io"] {
        assert!(names.contains(&name), "{name} is missing from {names:?}");
    }
    assert_eq!(
        get("GET /apis/apps").await,
        json!({
            "kind": "APIGroup", "apiVersion": "v1", "name": "apps",
            "versions": [{ "groupVersion": "apps/v1", "version": "v1" }],
            "preferredVersion": { "groupVersion": "apps/v1", "version": "v1" },
        })
    );
    let core = get("GET /api/v1").await;
    assert_eq!((&core["kind"], &core["groupVersion"]), (&"APIResourceList".into(), &"v1".into()));
    let find = |list: &Value, name: &str| {
        let resources = list["resources"].as_array().unwrap();
        resources.iter().find(|resource| resource["name"] == name).cloned().unwrap_or_else(|| panic!("no {name}"))
    };
    let pods = find(&core, "pods");
    assert_eq!(
        pods,
        json!({
            "name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod",
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            "shortNames": ["po"], "categories": ["all"], "storageVersionHash": "xPOwRZ+Yhw8=",
        })
    );
    assert_eq!(find(&core, "pods/exec")["kind"], "PodExecOptions");
    assert_eq!(find(&core, "nodes")["namespaced"], false);
    let scale = find(&get("GET /apis/apps/v1").await, "deployments/scale");
    assert_eq!(
        (&scale["group"], &scale["version"], &scale["kind"]),
        (&"autoscaling".into(), &"v1".into(), &"Scale".into())
    );
}

#[tokio::test]
async fn aggregated_discovery() {
    let fixture = Fixture::new().await;
    let accept = [("accept", AGGREGATED)];
    let core = fixture.ask("GET /api", &accept, "").await;
    assert_eq!(core.header("content-type"), "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let resources = &core.json()["items"][0]["versions"][0]["resources"];
    let pods = resources.as_array().unwrap().iter().find(|resource| resource["resource"] == "pods").unwrap();
    assert_eq!(pods["responseKind"], json!({ "group": "", "version": "v1", "kind": "Pod" }));
    assert_eq!((&pods["scope"], &pods["singularResource"]), (&"Namespaced".into(), &"pod".into()));
    let subresources: Vec<&Value> =
        pods["subresources"].as_array().unwrap().iter().map(|subresource| &subresource["subresource"]).collect();
    for name in ["status", "log", "exec", "attach", "portforward", "binding"] {
        assert!(subresources.contains(&&Value::from(name)), "{name} is missing");
    }
    let groups = fixture.ask("GET /apis", &accept, "").await;
    assert_eq!(groups.json()["apiVersion"], "apidiscovery.k8s.io/v2");
    assert!(groups.json()["items"].as_array().unwrap().iter().any(|group| group["metadata"]["name"] == "apps"));

    let tag = groups.header("etag").to_owned();
    let again = fixture.ask("GET /apis", &[accept[0], ("if-none-match", &tag)], "").await;
    assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""));

    let old = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    let old = fixture.ask("GET /apis", &[("accept", old)], "").await;
    assert_eq!(old.json()["apiVersion"], "apidiscovery.k8s.io/v2beta1");
}

/// The document in a reply, which must be protobuf.
fn decoded(reply: &Reply, kind: &str) -> Value {
    assert!(reply.header("content-type").starts_with("application/vnd.kubernetes.protobuf"), "{}", reply.text);
    serde_json::from_slice(&to_json(&reply.bytes, kind).unwrap()).unwrap()
}

#[tokio::test]
async fn discovery_in_protobuf_says_the_same_as_in_json() {
    let fixture = Fixture::new().await;
    let accept = [("accept", "application/vnd.kubernetes.protobuf")];
    for (line, kind) in [
        ("GET /api", "APIVersions"),
        ("GET /apis", "APIGroupList"),
        ("GET /apis/apps", "APIGroup"),
        ("GET /api/v1", "APIResourceList"),
        ("GET /apis/apps/v1", "APIResourceList"),
    ] {
        let mut json = fixture.json(line, 200, &Value::Null).await;
        let object = json.as_object_mut().unwrap();
        // In the envelope there is a version in any case.
        object.entry("apiVersion").or_insert_with(|| "".into());
        assert_eq!(decoded(&fixture.ask(line, &accept, "").await, kind), json, "{line}");
    }
    assert_eq!(fixture.ask("GET /version", &accept, "").await.status, 406);
}

#[tokio::test]
async fn aggregated_discovery_in_every_encoding() {
    let fixture = Fixture::new().await;
    let transform = "g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for line in ["GET /api", "GET /apis"] {
        let ask = async |media_type: &str| {
            let accept = format!("{media_type};{transform}");
            let reply = fixture.ask(line, &[("accept", &accept)], "").await;
            assert_eq!(reply.header("content-type"), accept);
            reply
        };
        let json = ask("application/json").await;
        let expect: APIGroupDiscoveryList = serde_json::from_value(json.json()).unwrap();
        assert!(!expect.items.is_empty() && !expect.items[0].versions[0].resources.is_empty());
        let protobuf = ask("application/vnd.kubernetes.protobuf").await;
        let found = decoded(&protobuf, "APIGroupDiscoveryList");
        assert_eq!(found["apiVersion"], "apidiscovery.k8s.io/v2");
        let mut found: APIGroupDiscoveryList = serde_json::from_value(found).unwrap();
        // Protobuf has the empty name of the core group and the empty metadata of the list.
        assert_eq!(protobuf.header("etag"), json.header("etag"));
        found.metadata.clone_from(&expect.metadata);
        assert_eq!(found, expect);
        let yaml = ask("application/yaml").await;
        let yaml: APIGroupDiscoveryList = serde_saphyr::from_str(&yaml.text).unwrap();
        assert_eq!(yaml, expect);
    }
}

#[tokio::test]
async fn openapi_v3() {
    let fixture = Fixture::new().await;
    let index = fixture.json("GET /openapi/v3", 200, &Value::Null).await;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let reply = fixture.ask(&format!("GET {url}"), &[], "").await;
    assert!(reply.header("cache-control").contains("immutable"));
    let document = reply.json();
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({ "group": "apps", "version": "v1", "kind": "Deployment" })
    );
    let parameters: Vec<&Value> = patch["parameters"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
    assert!(parameters.contains(&&"fieldValidation".into()), "{parameters:?}");
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");

    let stale = fixture.ask("GET /openapi/v3/apis/apps/v1?hash=OLD", &[], "").await;
    assert_eq!((stale.status.as_u16(), stale.header("location")), (301, url.as_str()));
    assert_eq!(fixture.ask("GET /openapi/v3/apis/none/v1", &[], "").await.status, 404);
}

/// Every reference leads somewhere, every kind can be found, and every list says how it is merged as upstream's does.
#[tokio::test]
async fn definitions_hold_together() {
    let fixture = Fixture::new().await;
    let index = fixture.json("GET /openapi/v3", 200, &Value::Null).await;
    for path in index["paths"].as_object().unwrap().keys() {
        let document = fixture.json(&format!("GET /openapi/v3/{path}"), 200, &Value::Null).await;
        let schemas = &document["components"]["schemas"];
        let mut references = Vec::new();
        collect(&document, "$ref", &mut references);
        assert!(!references.is_empty());
        for reference in references {
            let name = reference.as_str().unwrap().strip_prefix("#/components/schemas/");
            assert!(name.is_some_and(|name| schemas.get(name).is_some()), "{path}: {reference}");
        }
    }
    let v2 = fixture.json("GET /openapi/v2", 200, &Value::Null).await;
    let mut references = Vec::new();
    collect(&v2, "$ref", &mut references);
    for reference in references {
        let name = reference.as_str().unwrap().strip_prefix("#/definitions/");
        assert!(name.is_some_and(|name| v2["definitions"].get(name).is_some()), "{reference}");
    }
    let containers = &v2["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    for (extension, expect) in [
        ("patch-strategy", json!("merge")),
        ("patch-merge-key", json!("name")),
        ("list-type", json!("map")),
        ("list-map-keys", json!(["name"])),
    ] {
        assert_eq!(containers[format!("x-kubernetes-{extension}")], expect, "{extension}");
    }
    let quantity = &v2["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"];
    assert_eq!(quantity["type"], "string");
    let pods = &v2["definitions"]["io.k8s.api.core.v1.PodList"];
    assert_eq!(pods["properties"]["items"]["items"]["$ref"], "#/definitions/io.k8s.api.core.v1.Pod");
}

fn collect<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(object) => {
            // A property may be called `$ref` too; its schema is no string.
            found.extend(object.get(key).filter(|reference| reference.is_string()));
            object.values().for_each(|value| collect(value, key, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, key, found)),
        _ => {}
    }
}

#[tokio::test]
async fn openapi_v2_as_protobuf() {
    let fixture = Fixture::new().await;
    let accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let reply = fixture.ask("GET /openapi/v2", &[("accept", accept)], "").await;
    // Not the name it was asked by: Go's parser refuses that one.
    let expect = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, expect));
    assert!(reply.text.starts_with("\n\u{3}2.0"), "{}", &reply.text[..20]);
    let reply = fixture
        .ask("GET /openapi/v3/api/v1", &[("accept", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf")], "")
        .await;
    assert_eq!(reply.status, 406);
}
