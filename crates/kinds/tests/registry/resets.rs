//! What of the metadata a write to `/status` leaves as it is, for every built-in kind that has one.

use std::collections::BTreeMap;
use std::sync::Arc;

use registry::decode::Report;
use registry::kind::MetadataReset;
use registry::request::{PatchType, Target, WriteOptions};
use registry::table::Resource;
use registry::{Subresource, scan};
use serde_json::{Value, json};
use store::{Attributes, Encoded, Key, Op, Precondition};

use super::Fixture;

/// Upstream: `PrepareForUpdate` of each status strategy, in `pkg/registry/GROUP/KIND/strategy.go`. That of
/// CustomResourceDefinitions means to reset everything and resets nothing (it compares the new metadata with itself).
const RESETS: [(&str, MetadataReset); 26] = [
    ("v1/namespaces", MetadataReset::Nothing),
    ("v1/nodes", MetadataReset::Nothing),
    ("v1/pods", MetadataReset::OwnerReferences),
    ("v1/replicationcontrollers", MetadataReset::Nothing),
    ("v1/resourcequotas", MetadataReset::Nothing),
    ("v1/services", MetadataReset::Nothing),
    ("v1/persistentvolumes", MetadataReset::Nothing),
    ("v1/persistentvolumeclaims", MetadataReset::Nothing),
    ("apps/v1/daemonsets", MetadataReset::Nothing),
    ("apps/v1/deployments", MetadataReset::Labels),
    ("apps/v1/replicasets", MetadataReset::Nothing),
    ("apps/v1/statefulsets", MetadataReset::Nothing),
    ("autoscaling/v1/horizontalpodautoscalers", MetadataReset::Nothing),
    ("autoscaling/v2/horizontalpodautoscalers", MetadataReset::Nothing),
    ("batch/v1/cronjobs", MetadataReset::Nothing),
    ("batch/v1/jobs", MetadataReset::Nothing),
    ("policy/v1/poddisruptionbudgets", MetadataReset::Nothing),
    ("apiextensions.k8s.io/v1/customresourcedefinitions", MetadataReset::Nothing),
    ("apiregistration.k8s.io/v1/apiservices", MetadataReset::Nothing),
    ("certificates.k8s.io/v1/certificatesigningrequests", MetadataReset::Nothing),
    ("admissionregistration.k8s.io/v1/validatingadmissionpolicies", MetadataReset::Everything),
    ("networking.k8s.io/v1/ingresses", MetadataReset::Nothing),
    ("networking.k8s.io/v1/servicecidrs", MetadataReset::Everything),
    ("storage.k8s.io/v1/volumeattachments", MetadataReset::Everything),
    ("flowcontrol.apiserver.k8s.io/v1/flowschemas", MetadataReset::Everything),
    ("flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations", MetadataReset::Everything),
];

fn path(resource: &Resource) -> String {
    format!("{}/{}", resource.info().api_version, resource.info().plural)
}

/// Stores an object of the kind that has little but metadata.
async fn plant(fixture: &Fixture, resource: &Resource) -> Target {
    let info = resource.info();
    let namespace = if info.namespaced() { "default" } else { "" };
    let defines = info.plural == "customresourcedefinitions";
    let name = if defines { "xs.example.com" } else { "x" };
    let mut body = json!({
        "apiVersion": info.api_version, "kind": info.kind,
        "metadata": {
            "name": name, "uid": "u", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": { "old": "1" }, "annotations": { "old": "1" }, "finalizers": ["example.com/old"],
            "ownerReferences": [{ "apiVersion": "v1", "kind": "ConfigMap", "name": "old", "uid": "o" }],
        },
    });
    if info.namespaced() {
        body["metadata"]["namespace"] = namespace.into();
    }
    if defines {
        let version = json!({ "name": "v1", "served": false, "storage": true });
        let names = json!({ "plural": "xs", "kind": "X" });
        body["spec"] = json!({ "group": "example.com", "scope": "Cluster", "names": names, "versions": [version] });
        body["status"] = json!({ "storedVersions": ["v1"] });
    }
    if info.plural == "pods" {
        // A resize looks at the whole spec.
        body["spec"] = json!({ "containers": [{ "name": "c", "image": "i" }] });
    }
    let mut object = resource.decode(body.to_string().as_bytes(), &mut Report::ignore()).unwrap();
    resource.strategy().default(object.as_mut()).unwrap();
    let key = Key::new(Arc::clone(&info.storage), namespace, name);
    object.meta_mut().resource_version = Some(String::new());
    let mut bytes = Vec::new();
    resource.encode(object.as_ref(), &mut bytes).unwrap();
    let revision = scan::find(&bytes, &["metadata", "resourceVersion"]).unwrap();
    let value = Encoded::new(bytes, revision.start + 1);
    let fields = resource.strategy().fields(object.as_ref()).unwrap();
    let attributes = Attributes::new([("old", "1")], fields);
    fixture
        .registry
        .store()
        .commit(vec![Op::Put { key, value, attributes, precondition: Precondition::Any }])
        .await
        .unwrap();
    Target::object(resource, namespace, name)
}

/// What a client sends: other metadata in every field that it may write.
fn other() -> Value {
    json!({ "metadata": {
        "labels": { "old": null, "new": "2" },
        "annotations": { "old": null, "new": "2" },
        "finalizers": ["example.com/new"],
        "ownerReferences": [{ "apiVersion": "v1", "kind": "ConfigMap", "name": "new", "uid": "n" }],
        "creationTimestamp": null,
    } })
}

async fn check(resource: &Resource, subresource: Subresource, reset: MetadataReset) {
    let fixture = Fixture::open().await;
    let target = plant(&fixture, resource).await;
    let options = WriteOptions { field_manager: "tester".into(), ..WriteOptions::default() };
    let what = format!("{}/{}", path(resource), subresource.name());
    let patch = other().to_string();
    let registry = &fixture.registry;
    registry
        .patch(&target, Some(subresource), PatchType::Merge, patch.as_bytes(), &options)
        .await
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let after = fixture.get(&target).await.unwrap();
    let meta = &after["metadata"];
    let everything = reset == MetadataReset::Everything;
    let expect = |kept: bool| if kept || everything { "old" } else { "new" };
    let labels = meta["labels"].as_object().unwrap();
    assert!(labels.contains_key(expect(reset == MetadataReset::Labels)), "{what}: {labels:?}");
    assert!(meta["annotations"][expect(false)].is_string(), "{what}: {meta}");
    assert_eq!(meta["finalizers"][0], format!("example.com/{}", expect(false)), "{what}");
    assert_eq!(meta["ownerReferences"][0]["name"], expect(reset == MetadataReset::OwnerReferences), "{what}");
    assert_eq!(
        (&meta["generation"], &meta["creationTimestamp"]),
        (&json!(1), &json!("2026-01-01T00:00:00Z")),
        "{what}"
    );
}

#[tokio::test]
async fn metadata_that_a_write_to_the_status_brings() {
    let mut expected: BTreeMap<&str, MetadataReset> = RESETS.into_iter().collect();
    for resource in coracle_kinds::all() {
        if resource.info().has(Subresource::Status) {
            let path = path(&resource);
            let reset = expected.remove(path.as_str()).unwrap_or_else(|| panic!("{path} is not in the table"));
            assert_eq!(resource.info().metadata_reset(Subresource::Status), reset, "{path}");
            check(&resource, Subresource::Status, reset).await;
        }
    }
    assert!(expected.is_empty(), "{expected:?}");
}

#[tokio::test]
async fn metadata_that_other_subresources_bring() {
    for (path, subresource, reset) in [
        ("v1/pods", Subresource::EphemeralContainers, MetadataReset::Everything),
        ("v1/pods", Subresource::Resize, MetadataReset::Everything),
        ("v1/namespaces", Subresource::Finalize, MetadataReset::Nothing),
        ("certificates.k8s.io/v1/certificatesigningrequests", Subresource::Approval, MetadataReset::Nothing),
    ] {
        let resource = coracle_kinds::all().into_iter().find(|resource| self::path(resource) == path).unwrap();
        assert_eq!(resource.info().metadata_reset(subresource), reset);
        if subresource != Subresource::EphemeralContainers {
            check(&resource, subresource, reset).await;
        }
    }
}

/// Upstream's controllers write what belongs to a status beside it, and own it under that subresource.
#[tokio::test]
async fn metadata_written_with_the_status_has_an_owner() {
    let fixture = Fixture::open().await;
    fixture.create("apps/v1/deployments", "default", super::deployment("web", 1.into())).await.unwrap();
    let target = fixture.target("apps/v1/deployments", "default", "web");
    let options = WriteOptions { field_manager: "controller".into(), ..WriteOptions::default() };
    let patch = json!({
        "metadata": { "annotations": { "deployment.kubernetes.io/revision": "1" }, "labels": { "a": "b" } },
        "status": { "replicas": 1 },
    })
    .to_string();
    let status = Some(Subresource::Status);
    fixture.registry.patch(&target, status, PatchType::Merge, patch.as_bytes(), &options).await.unwrap();
    let after = fixture.get(&target).await.unwrap();
    assert_eq!(after["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
    assert_eq!((&after["metadata"]["generation"], &after["metadata"]["labels"]), (&json!(1), &Value::Null));
    let owners = after["metadata"]["managedFields"].as_array().unwrap();
    let owner = owners.iter().find(|owner| owner["manager"] == "controller").unwrap();
    assert_eq!(owner["subresource"], "status");
    assert_eq!(
        owner["fieldsV1"],
        json!({
            "f:metadata": { "f:annotations": { ".": {}, "f:deployment.kubernetes.io/revision": {} } },
            "f:status": { "f:replicas": {} },
        })
    );
}
