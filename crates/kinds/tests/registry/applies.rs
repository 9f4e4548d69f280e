//! Who owns which fields: every write notes it, server-side apply goes by it.

use registry::request::{PatchType, Target, WriteOptions};
use registry::{ApiError, Subresource};
use serde_json::{Value, json};

use super::{Fixture, config_map, deployment, object};

fn by(manager: &str) -> WriteOptions {
    WriteOptions { field_manager: manager.into(), ..WriteOptions::default() }
}

impl Fixture {
    async fn apply_with(&self, target: &Target, config: &Value, options: &WriteOptions) -> Result<Value, ApiError> {
        let body = config.to_string();
        let written = self.registry.patch(target, None, PatchType::Apply, body.as_bytes(), options).await?;
        Ok(object(&written))
    }

    async fn apply(&self, target: &Target, config: &Value, manager: &str) -> Result<Value, ApiError> {
        self.apply_with(target, config, &by(manager)).await
    }

    async fn put_by(&self, target: &Target, body: &Value, manager: &str) -> Value {
        let body = body.to_string();
        object(&self.registry.update(target, None, body.as_bytes(), &by(manager)).await.unwrap())
    }
}

/// Manager, operation and subresource of each entry, in order.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    entries
        .iter()
        .map(|entry| {
            assert_eq!(entry["fieldsType"], "FieldsV1");
            format!("{} {} {}", text(entry, "manager"), text(entry, "operation"), text(entry, "subresource"))
        })
        .map(|line| line.trim_end().to_owned())
        .collect()
}

fn fields<'o>(object: &'o Value, manager: &str) -> &'o Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    &entries.iter().find(|entry| entry["manager"] == manager).unwrap()["fieldsV1"]
}

#[tokio::test]
async fn every_write_notes_what_it_changes() {
    let fixture = Fixture::open().await;
    let body = deployment("web", json!(1));
    let written = fixture.create_with("apps/v1/deployments", "default", body, &by("kubectl-create")).await.unwrap();
    let created = object(&written);
    assert_eq!(managers(&created), ["kubectl-create Update"]);
    let spec = &fields(&created, "kubectl-create")["f:spec"];
    assert_eq!(spec["f:progressDeadlineSeconds"], json!({}), "defaults are what the client got: {spec}");
    assert_eq!(spec["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"main\"}"]["."], json!({}));
    assert_eq!(fields(&created, "kubectl-create").get("f:status"), None);

    let target = fixture.target("apps/v1/deployments", "default", "web");
    let status = json!({ "status": { "replicas": 1 } }).to_string();
    let patch = |subresource, body: String, manager| {
        let (fixture, target) = (&fixture, &target);
        async move {
            let options = by(manager);
            fixture.registry.patch(target, subresource, PatchType::Merge, body.as_bytes(), &options).await.unwrap()
        }
    };
    patch(Some(Subresource::Status), status, "controller").await;
    patch(Some(Subresource::Scale), json!({ "spec": { "replicas": 3 } }).to_string(), "scaler").await;
    let annotated = json!({ "metadata": { "annotations": { "a": "b" } }, "status": { "replicas": 7 } }).to_string();
    let last = object(&patch(None, annotated, "annotator").await);
    let mut names = managers(&last);
    names.sort();
    assert_eq!(names, ["annotator Update", "controller Update status", "kubectl-create Update", "scaler Update scale"]);
    assert_eq!(*fields(&last, "controller"), json!({ "f:status": { "f:replicas": {} } }));
    assert_eq!(*fields(&last, "scaler"), json!({ "f:spec": { "f:replicas": {} } }));
    assert_eq!(*fields(&last, "annotator"), json!({ "f:metadata": { "f:annotations": { ".": {}, "f:a": {} } } }));
    assert_eq!(fields(&last, "kubectl-create")["f:spec"].get("f:replicas"), None);

    // What comes from the store is what was answered, and nothing is written for nothing.
    assert_eq!(fixture.get(&target).await.unwrap(), last);
    let again = fixture.put_by(&target, &last, "somebody").await;
    assert_eq!(again, last);
}

#[tokio::test]
async fn an_apply_creates_conflicts_and_forces() {
    let fixture = Fixture::open().await;
    let target = fixture.target("apps/v1/deployments", "default", "web");
    let config = deployment("web", json!(3));
    let created = fixture.apply(&target, &config, "a").await.unwrap();
    assert_eq!(managers(&created), ["a Apply"]);
    let spec = &fields(&created, "a")["f:spec"];
    assert_eq!(spec.get("f:progressDeadlineSeconds"), None, "an apply owns what it says, no defaults: {spec}");

    let again = fixture.apply(&target, &config, "a").await.unwrap();
    assert_eq!(again, created, "nothing is written for nothing");

    let mut live = created.clone();
    live["spec"]["replicas"] = json!(5);
    fixture.put_by(&target, &live, "kubectl-client-side-apply").await;
    let error = fixture.apply(&target, &config, "a").await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        error.message,
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    let cause = &error.details.unwrap().causes[0];
    assert_eq!(cause.reason, "FieldManagerConflict");
    assert_eq!(cause.message, "conflict with \"kubectl-client-side-apply\" using apps/v1");
    assert_eq!(cause.field, ".spec.replicas");

    let forced = WriteOptions { force: true, ..by("a") };
    let after = fixture.apply_with(&target, &config, &forced).await.unwrap();
    assert_eq!((managers(&after), &after["spec"]["replicas"]), (vec!["a Apply".to_owned()], &json!(3)));

    // What is no longer applied goes back to its default.
    let mut less = config.clone();
    less["spec"].as_object_mut().unwrap().remove("replicas");
    let after = fixture.apply(&target, &less, "a").await.unwrap();
    assert_eq!(after["spec"]["replicas"], 1);
}

#[tokio::test]
async fn applies_that_make_no_sense_are_refused() {
    let fixture = Fixture::open().await;
    let target = fixture.target("v1/configmaps", "default", "x");
    let mut owned = config_map("x");
    owned["metadata"]["managedFields"] = json!([]);
    let mut unknown = config_map("x");
    unknown["spce"] = json!({});
    let mut versioned = config_map("x");
    versioned["metadata"]["uid"] = json!("1-2-3");
    for (config, manager, code, message) in [
        (
            config_map("x"),
            "",
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        (json!([]), "a", 400, "error decoding YAML: the configuration is no object"),
        (json!({ "apiVersion": "v1", "kind": "Secret" }), "a", 400, "invalid object type: /v1, Kind=Secret"),
        (owned, "a", 400, "metadata.managedFields must be nil"),
        (
            unknown,
            "a",
            500,
            "failed to create typed patch object (default/x; /v1, Kind=ConfigMap): .spce: field not declared in schema",
        ),
        (config_map("y"), "a", 400, "the name of the object (y) does not match the name on the URL (x)"),
        (
            versioned,
            "a",
            409,
            "Operation cannot be fulfilled on configmaps \"x\": uid mismatch: the provided object specified uid 1-2-3, and no existing object was found",
        ),
    ] {
        let error = fixture.apply(&target, &config, manager).await.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (code, message));
    }
    let body = config_map("x").to_string();
    let status = Some(Subresource::Status);
    let deployment = fixture.target("apps/v1/deployments", "default", "x");
    let error = fixture.registry.patch(&deployment, status, PatchType::Apply, body.as_bytes(), &by("a")).await;
    assert_eq!(error.unwrap_err().code, 404, "a subresource creates nothing");
}

#[tokio::test]
async fn an_apply_without_anything_stored() {
    let fixture = Fixture::open().await;
    let target = fixture.target("v1/configmaps", "default", "x");
    let dry = WriteOptions { dry_run: true, ..by("a") };
    let answer = fixture.apply_with(&target, &config_map("x"), &dry).await.unwrap();
    assert_eq!(managers(&answer), ["a Apply"]);
    assert_eq!(answer["metadata"].get("resourceVersion"), None);
    assert_eq!(fixture.get(&target).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn owners_can_be_forgotten_and_come_back() {
    let fixture = Fixture::open().await;
    let target = fixture.target("v1/configmaps", "default", "x");
    fixture.create_with("v1/configmaps", "default", config_map("x"), &by("creator")).await.unwrap();
    let reset = json!({ "metadata": { "managedFields": [{}] } });
    let after = fixture.merge(&target, reset).await.unwrap();
    assert_eq!(managers(&after), [""; 0]);
    let after = fixture.put_by(&target, &json!({ "metadata": { "name": "x" }, "data": { "b": "1" } }), "b").await;
    assert_eq!(managers(&after), [""; 0], "what is not tracked stays so until the first apply");
    let config = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "x" }, "data": { "c": "1" } });
    let after = fixture.apply(&target, &config, "a").await.unwrap();
    assert_eq!(managers(&after), ["a Apply", "before-first-apply Update"]);
    assert_eq!(after["data"], json!({ "b": "1", "c": "1" }));

    // kubectl moves to server-side apply by writing the owners itself.
    let mut entries = after["metadata"]["managedFields"].clone();
    entries[1]["manager"] = json!("kubectl");
    entries[1]["operation"] = json!("Apply");
    let patch = json!([
        { "op": "replace", "path": "/metadata/managedFields", "value": entries },
        { "op": "replace", "path": "/metadata/resourceVersion", "value": after["metadata"]["resourceVersion"] },
    ]);
    let after = fixture.patch(&target, PatchType::Json, patch).await.unwrap();
    assert_eq!(managers(&after), ["a Apply", "kubectl Apply"]);
}

#[tokio::test]
async fn kubectl_takes_over_what_it_applied_on_its_own_side() {
    let fixture = Fixture::open().await;
    let target = fixture.target("v1/configmaps", "default", "x");
    let note = "kubectl.kubernetes.io/last-applied-configuration";
    let mut live = config_map("x");
    live["metadata"]["annotations"] = json!({ note: config_map("x").to_string() });
    fixture.create_with("v1/configmaps", "default", live, &by("kubectl-client-side-apply")).await.unwrap();
    let mut config = config_map("x");
    config["data"] = json!({ "a": "2" });
    assert_eq!(fixture.apply(&target, &config, "other").await.unwrap_err().code, 409);
    let after = fixture.apply(&target, &config, "kubectl").await.unwrap();
    assert_eq!(after["data"]["a"], "2");
    let noted = after["metadata"]["annotations"][note].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(noted).unwrap(), config);
}

#[tokio::test]
async fn a_scale_can_be_applied() {
    let fixture = Fixture::open().await;
    let target = fixture.target("apps/v1/deployments", "default", "web");
    fixture.create("apps/v1/deployments", "default", deployment("web", json!(1))).await.unwrap();
    let scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": { "name": "web" }, "spec": { "replicas": 4 },
    });
    let body = scale.to_string();
    let apply = |options: WriteOptions| {
        let (fixture, target, body) = (&fixture, &target, &body);
        async move {
            let subresource = Some(Subresource::Scale);
            fixture.registry.patch(target, subresource, PatchType::Apply, body.as_bytes(), &options).await
        }
    };
    let error = apply(by("hpa")).await.unwrap_err();
    assert!(error.message.ends_with("using apps/v1: .spec.replicas"), "{}", error.message);
    apply(WriteOptions { force: true, ..by("hpa") }).await.unwrap();
    let after = fixture.get(&target).await.unwrap();
    assert_eq!(after["spec"]["replicas"], 4);
    assert_eq!(*fields(&after, "hpa"), json!({ "f:spec": { "f:replicas": {} } }));
}
