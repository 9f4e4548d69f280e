//! The write path: create, update, patch, and what each refuses.

use std::sync::LazyLock;

use registry::request::{FieldValidation, ListRequest, PatchType, WriteOptions};
use registry::{Subresource, Target};
use serde_json::{Value, json};

use super::{Fixture, config_map, deployment, labelled, object, pod};

static STRICT: LazyLock<WriteOptions> =
    LazyLock::new(|| WriteOptions { field_validation: FieldValidation::Strict, ..WriteOptions::default() });

#[tokio::test]
async fn a_created_object_has_what_the_server_sets() {
    let fixture = Fixture::open().await;
    let mut body = config_map("a");
    body["metadata"]["uid"] = "mine".into();
    body["metadata"]["generation"] = 7.into();
    body["metadata"]["selfLink"] = "/x".into();
    body["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z".into();
    body["metadata"]["managedFields"] = json!([{ "manager": "me" }]);
    let made = fixture.create("v1/configmaps", "default", body).await.unwrap();
    let meta = made["metadata"].as_object().unwrap();
    let fields: Vec<&str> = meta.keys().map(String::as_str).collect();
    assert_eq!(fields, ["creationTimestamp", "managedFields", "name", "namespace", "resourceVersion", "uid"]);
    assert_eq!(meta["uid"].as_str().unwrap().len(), 36);
    assert_eq!(meta["resourceVersion"], fixture.registry.store().revision().to_string());
    let target = fixture.target("v1/configmaps", "default", "a");
    assert_eq!(fixture.get(&target).await.unwrap(), made);
}

#[tokio::test]
async fn what_is_wrong_with_a_create() {
    let fixture = Fixture::open().await;
    fixture.create("v1/configmaps", "default", config_map("taken")).await.unwrap();
    fixture.create("v1/namespaces", "", json!({ "metadata": { "name": "going" } })).await.unwrap();
    let going = fixture.target("v1/namespaces", "", "going");
    fixture.delete(&going, &Default::default()).await.unwrap();

    let cases: &[(&str, &str, Value, u16, &str)] = &[
        ("v1/configmaps", "default", config_map("taken"), 409, r#"configmaps "taken" already exists"#),
        (
            "v1/namespaces",
            "",
            json!({ "metadata": { "name": "going" } }),
            409,
            r#"object is being deleted: namespaces "going" already exists"#,
        ),
        ("v1/configmaps", "nowhere", config_map("a"), 404, r#"namespaces "nowhere" not found"#),
        ("v1/configmaps", "nowhere", config_map("No_Name"), 404, r#"namespaces "nowhere" not found"#),
        (
            "v1/configmaps",
            "going",
            config_map("a"),
            403,
            r#"configmaps "a" is forbidden: unable to create new content in namespace going because it is being terminated"#,
        ),
        (
            "v1/configmaps",
            "default",
            json!({ "metadata": { "name": "a", "namespace": "other" } }),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            "v1/configmaps",
            "default",
            json!({ "metadata": { "name": "a", "resourceVersion": "5" } }),
            400,
            "resourceVersion should not be set on objects to be created",
        ),
        (
            "v1/configmaps",
            "default",
            json!({ "metadata": { "name": "a", "resourceVersion": "5", "finalizers": ["mine"] } }),
            422,
            "ConfigMap \"a\" is invalid: metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified",
        ),
        (
            "v1/configmaps",
            "default",
            json!({ "apiVersion": "v2", "kind": "ConfigMap" }),
            400,
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
        (
            "v1/pods",
            "default",
            json!({ "apiVersion": "v1", "kind": "ConfigMap" }),
            400,
            r#"ConfigMap in version "v1" cannot be handled as a Pod: converting (v1.ConfigMap) to (v1.Pod): unknown conversion"#,
        ),
        (
            "apps/v1/deployments",
            "default",
            deployment("web", "two".into()),
            400,
            r#"Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"#,
        ),
        (
            "v1/configmaps",
            "default",
            json!({ "metadata": { "name": "A_b" } }),
            422,
            "ConfigMap \"A_b\" is invalid: metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
        (
            "v1/configmaps",
            "default",
            json!({}),
            422,
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
        ),
    ];
    for (path, namespace, body, code, message) in cases {
        let error = fixture.create(path, namespace, body.clone()).await.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (*code, *message), "{body}");
    }
    let target = fixture.target("v1/configmaps", "default", "");
    let error = fixture.registry.create(&target, b"kind: ConfigMap", &STRICT).await.unwrap_err();
    assert_eq!(
        error.message,
        "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: invalid character 'k' looking for beginning of value (6b696e643a20436f6e6669674d6170)"
    );
    let error = fixture.create("v1/configmaps", "going", config_map("a")).await.unwrap_err();
    let causes = error.details.unwrap().causes;
    assert_eq!(causes[0].reason, "NamespaceTerminating");
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_about_or_ignored() {
    let fixture = Fixture::open().await;
    let body = r#"{"metadata":{"name":"a"},"foo":1,"data":{"x":"1","x":"2"}}"#;
    let found = [r#"unknown field "foo""#, r#"duplicate field "data.x""#];
    let target = fixture.target("v1/configmaps", "default", "");
    for (validation, expect) in [
        (
            FieldValidation::Strict,
            Err(
                r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "foo", duplicate field "data.x""#,
            ),
        ),
        (FieldValidation::Warn, Ok(&found[..])),
        (FieldValidation::Ignore, Ok(&[][..])),
    ] {
        let options = WriteOptions { field_validation: validation, dry_run: true, ..WriteOptions::default() };
        let result = fixture.registry.create(&target, body.as_bytes(), &options).await;
        match (result, expect) {
            (Ok(written), Ok(warnings)) => {
                assert_eq!(written.warnings, warnings);
                assert_eq!(object(&written)["data"]["x"], "2");
            }
            (Err(error), Err(message)) => assert_eq!((error.code, error.message.as_str()), (400, message)),
            (result, expect) => panic!("{result:?}, expected {expect:?}"),
        }
    }
    fixture.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    let target = fixture.target("v1/configmaps", "default", "a");
    for (kind, patch) in [
        (PatchType::Merge, r#"{"foo":1}"#),
        (PatchType::Strategic, r#"{"foo":1}"#),
        (PatchType::Json, r#"[{"op":"add","path":"/foo","value":1}]"#),
    ] {
        let error = fixture.registry.patch(&target, None, kind, patch.as_bytes(), &STRICT).await.unwrap_err();
        assert_eq!(error.code, 422);
        assert!(error.message.ends_with(r#"strict decoding error: unknown field "foo""#), "{error}");
    }
}

#[tokio::test]
async fn names_are_made_up() {
    let fixture = Fixture::open().await;
    let body = json!({ "metadata": { "generateName": "web-" } });
    let first = fixture.create("v1/configmaps", "default", body.clone()).await.unwrap();
    let second = fixture.create("v1/configmaps", "default", body).await.unwrap();
    let name = first["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
    assert_eq!(first["metadata"]["generateName"], "web-");
}

#[tokio::test]
async fn a_dry_run_leaves_nothing() {
    let fixture = Fixture::open().await;
    let options = WriteOptions { dry_run: true, ..WriteOptions::default() };
    fixture.create("v1/configmaps", "default", config_map("there")).await.unwrap();
    let target = fixture.target("v1/configmaps", "default", "there");
    let before = fixture.get(&target).await.unwrap();
    let revision = fixture.registry.store().revision();

    let written = fixture.create_with("v1/configmaps", "default", config_map("a"), &options).await.unwrap();
    assert_eq!(object(&written)["metadata"].get("resourceVersion"), None);
    let error = fixture.create_with("v1/configmaps", "default", config_map("there"), &options).await.unwrap_err();
    assert_eq!(error.code, 409);
    let mut changed = before.clone();
    changed["data"]["a"] = "2".into();
    let written = fixture.registry.update(&target, None, changed.to_string().as_bytes(), &options).await.unwrap();
    assert_eq!(object(&written)["data"]["a"], "2");
    assert_eq!(object(&written)["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    let written =
        fixture.registry.patch(&target, None, PatchType::Merge, br#"{"data":{"a":"3"}}"#, &options).await.unwrap();
    assert_eq!(object(&written)["data"]["a"], "3");
    let request = registry::DeleteRequest { dry_run: true, ..Default::default() };
    assert!(fixture.delete(&target, &request).await.unwrap().1);

    let service = json!({ "metadata": { "name": "s" }, "spec": { "type": "NodePort", "ports": [{ "port": 80, "nodePort": 30080 }] } });
    for _ in 0..2 {
        fixture.create_with("v1/services", "default", service.clone(), &options).await.unwrap();
    }
    assert_eq!(fixture.registry.store().revision(), revision);
    assert_eq!(fixture.get(&target).await.unwrap(), before);
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_not_written() {
    let fixture = Fixture::open().await;
    let mut pod = pod("a");
    // A merge patch replaces the containers, and a token that was mounted in them cannot be taken away.
    pod["spec"]["automountServiceAccountToken"] = false.into();
    for (path, body) in [
        ("v1/configmaps", config_map("a")),
        ("apps/v1/deployments", deployment("a", 2.into())),
        ("v1/pods", pod),
        ("v1/services", json!({ "metadata": { "name": "a" }, "spec": { "ports": [{ "port": 80 }] } })),
    ] {
        let made = fixture.create(path, "default", body.clone()).await.unwrap();
        let target = fixture.target(path, "default", "a");
        let revision = fixture.registry.store().revision();
        assert_eq!(fixture.update(&target, &made).await.unwrap(), made, "{path}: as served");
        if path != "v1/pods" {
            // A pod's defaults by admission are not applied again on update.
            assert_eq!(fixture.update(&target, &body).await.unwrap(), made, "{path}: as sent first");
        }
        for kind in [PatchType::Merge, PatchType::Strategic] {
            assert_eq!(fixture.patch(&target, kind, body.clone()).await.unwrap(), made, "{path} {kind:?}");
        }
        assert_eq!(fixture.patch(&target, PatchType::Json, json!([])).await.unwrap(), made, "{path}");
        assert_eq!(fixture.registry.store().revision(), revision, "{path}");
    }
}

#[tokio::test]
async fn conflicts() {
    let fixture = Fixture::open().await;
    let first = fixture.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    let target = fixture.target("v1/configmaps", "default", "a");
    let mut changed = first.clone();
    changed["data"]["a"] = "2".into();
    let second = fixture.update(&target, &changed).await.unwrap();
    assert_ne!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);

    changed["data"]["a"] = "3".into();
    let error = fixture.update(&target, &changed).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (
            409,
            r#"Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#
        )
    );
    let stale =
        json!({ "metadata": { "resourceVersion": first["metadata"]["resourceVersion"] }, "data": { "a": "4" } });
    assert_eq!(fixture.merge(&target, stale).await.unwrap_err().code, 409);
    let foreign = json!({ "metadata": { "uid": "x" } });
    let error = fixture.merge(&target, foreign).await.unwrap_err();
    assert!(error.message.contains("Precondition failed: UID in precondition: x"), "{error}");

    // Without a version the last writer wins.
    let unconditional = json!({ "metadata": { "name": "a" }, "data": { "a": "5" } });
    assert_eq!(fixture.update(&target, &unconditional).await.unwrap()["data"]["a"], "5");
    let nonsense = json!({ "metadata": { "name": "a", "resourceVersion": "x" } });
    assert_eq!(fixture.update(&target, &nonsense).await.unwrap_err().code, 422);
}

#[tokio::test]
async fn concurrent_patches_all_arrive() {
    let fixture = Fixture::open().await;
    fixture.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    let target = fixture.target("v1/configmaps", "default", "a");
    // As many at once as a patch is tried: the last one wins at its last attempt.
    let patches = (0..4).map(|n| fixture.merge(&target, json!({ "data": { format!("k{n}"): "v" } })));
    for result in futures::future::join_all(patches).await {
        result.unwrap();
    }
    assert_eq!(fixture.get(&target).await.unwrap()["data"].as_object().unwrap().len(), 5);
}

#[tokio::test]
async fn the_body_is_for_the_object_of_the_path() {
    let fixture = Fixture::open().await;
    fixture.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    let target = fixture.target("v1/configmaps", "default", "a");
    let error = fixture.update(&target, &config_map("b")).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (400, "the name of the object (b) does not match the name on the URL (a)")
    );
    let error = fixture.update(&target, &json!({})).await.unwrap_err();
    assert_eq!(error.message, "the name of the object (a based on URL) was undeterminable: name must be provided");
    let error = fixture.merge(&target, json!({ "metadata": { "namespace": "kube-system" } })).await.unwrap_err();
    assert_eq!(error.code, 400);
    let missing = fixture.target("v1/configmaps", "default", "b");
    assert_eq!(fixture.update(&missing, &config_map("b")).await.unwrap_err().code, 404);
    let error = fixture.merge(&missing, json!({})).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (404, r#"configmaps "b" not found"#));
}

#[tokio::test]
async fn kinds_that_allow_it_are_created_by_put() {
    let fixture = Fixture::open().await;
    let target = fixture.target("v1/endpoints", "default", "a");
    let options = WriteOptions::default();
    for created in [true, false] {
        let body = labelled("a", if created { "x" } else { "y" }).to_string();
        let written = fixture.registry.update(&target, None, body.as_bytes(), &options).await.unwrap();
        assert_eq!(written.created, created);
    }
    // A Lease is too, but then only replaced by who knows what is there.
    let target = fixture.target("coordination.k8s.io/v1/leases", "kube-node-lease", "node");
    let body = json!({ "metadata": { "name": "node" }, "spec": { "holderIdentity": "node" } });
    fixture.update(&target, &body).await.unwrap();
    let error = fixture.update(&target, &body).await.unwrap_err();
    assert_eq!(
        error.message,
        r#"Lease.coordination.k8s.io "node" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"#
    );
}

#[tokio::test]
async fn patches_that_do_not_fit_are_refused() {
    let fixture = Fixture::open().await;
    fixture.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    let target = fixture.target("v1/configmaps", "default", "a");
    let options = WriteOptions::default();
    for (kind, patch, code) in [
        (PatchType::Json, r#"[{"op":"test","path":"/data/a","value":"9"}]"#, 422),
        (PatchType::Json, r#"{"data":{}}"#, 400),
        (PatchType::Merge, "[]", 400),
        (PatchType::Merge, "{", 400),
        (PatchType::Merge, r#"{"data":1}"#, 422),
        (PatchType::Strategic, r#"{"metadata":{"labels":{"a b":"c"}}}"#, 422),
    ] {
        let error = fixture.registry.patch(&target, None, kind, patch.as_bytes(), &options).await.unwrap_err();
        assert_eq!(error.code, code, "{patch}: {error}");
    }
    assert_eq!(PatchType::from_media_type("application/apply-patch+cbor").unwrap_err().code, 415);
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let fixture = Fixture::open().await;
    let mut body = deployment("web", 2.into());
    body["status"] = json!({ "replicas": 9 });
    let made = fixture.create("apps/v1/deployments", "default", body.clone()).await.unwrap();
    assert_ne!(made["status"]["replicas"], 9);
    assert_eq!(made["metadata"]["generation"], 1);
    let target = fixture.target("apps/v1/deployments", "default", "web");

    let mut both = made.clone();
    both["spec"]["replicas"] = 5.into();
    both["status"] = json!({ "replicas": 3, "observedGeneration": 1 });
    both["metadata"]["labels"] = json!({ "x": "y" });
    let after = fixture.update_sub(&target, Subresource::Status, &both).await.unwrap();
    assert_eq!(after["status"]["replicas"], 3);
    assert_eq!((&after["spec"], &after["metadata"]["labels"]), (&made["spec"], &Value::Null));
    assert_eq!(after["metadata"]["generation"], 1);

    both["metadata"]["resourceVersion"] = Value::Null;
    both["status"]["replicas"] = 7.into();
    let after = fixture.update(&target, &both).await.unwrap();
    assert_eq!(after["status"]["replicas"], 3);
    assert_eq!(after["spec"]["replicas"], 5);
    assert_eq!(after["metadata"]["generation"], 2);
}

#[tokio::test]
async fn scale() {
    let fixture = Fixture::open().await;
    fixture.create("apps/v1/deployments", "default", deployment("web", 2.into())).await.unwrap();
    let target = fixture.target("apps/v1/deployments", "default", "web");
    let body = fixture.registry.scale(&target).await.unwrap();
    let mut scale: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    assert_eq!(scale["status"]["selector"], "app=web");

    scale["spec"]["replicas"] = 4.into();
    let after = fixture.update_sub(&target, Subresource::Scale, &scale).await.unwrap();
    assert_eq!(after["spec"]["replicas"], 4);
    let error = fixture.update_sub(&target, Subresource::Scale, &scale).await.unwrap_err();
    assert_eq!(error.code, 409, "the version has moved on");

    let options = WriteOptions::default();
    let patch = br#"{"spec":{"replicas":0}}"#;
    fixture.registry.patch(&target, Some(Subresource::Scale), PatchType::Merge, patch, &options).await.unwrap();
    let deployment = fixture.get(&target).await.unwrap();
    assert_eq!((&deployment["spec"]["replicas"], &deployment["metadata"]["generation"]), (&json!(0), &json!(3)));

    let patch = br#"{"spec":{"replicas":-1}}"#;
    let error =
        fixture.registry.patch(&target, Some(Subresource::Scale), PatchType::Merge, patch, &options).await.unwrap_err();
    assert_eq!(
        error.message,
        r#"Scale.autoscaling "web" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"#
    );
}

#[tokio::test]
async fn binding() {
    let fixture = Fixture::open().await;
    fixture.create("v1/pods", "default", pod("a")).await.unwrap();
    let target = fixture.target("v1/pods", "default", "a");
    let options = WriteOptions::default();
    let location = fixture.registry.pod_location("default", "a", None).unwrap();
    assert_eq!((location.node, location.container.as_str()), (None, "main"));

    let binding = |node: &str| json!({ "metadata": { "name": "a" }, "target": { "kind": "Node", "name": node } });
    let body = binding("n1").to_string();
    fixture.registry.bind(&target, body.as_bytes(), &options).await.unwrap();
    let bound = fixture.get(&target).await.unwrap();
    assert_eq!(bound["spec"]["nodeName"], "n1");
    let condition = bound["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "PodScheduled");
    assert_eq!(condition.unwrap()["status"], "True");

    let body = binding("n2").to_string();
    let error = fixture.registry.bind(&target, body.as_bytes(), &options).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (409, r#"Operation cannot be fulfilled on pods/binding "a": pod a is already assigned to node "n1""#)
    );
    let error = fixture.registry.bind(&target, br#"{"target":{"kind":"Pod","name":"x"}}"#, &options).await.unwrap_err();
    assert_eq!(error.code, 422);

    let location = fixture.registry.pod_location("default", "a", None).unwrap();
    assert_eq!((location.node.as_deref(), location.container.as_str()), (Some("n1"), "main"));
    let error = fixture.registry.pod_location("default", "a", Some("b")).unwrap_err();
    assert_eq!(error.message, "container b is not valid for pod a");
}

#[tokio::test]
async fn what_is_handed_out_once_is_handed_out_once() {
    let fixture = Fixture::open().await;
    let service = |name: &str| json!({ "metadata": { "name": name }, "spec": { "type": "NodePort", "ports": [{ "port": 80, "nodePort": 30080 }] } });
    fixture.create("v1/services", "default", service("a")).await.unwrap();
    let error = fixture.create("v1/services", "default", service("b")).await.unwrap_err();
    assert_eq!(error.code, 422);
    assert!(error.message.contains("provided port is already allocated"), "{error}");

    // A registry opened again knows what the stored objects hold.
    fixture.registry.close().await;
    let Fixture { registry, dir } = fixture;
    drop(registry);
    let fixture = Fixture { registry: Fixture::open_in(&dir), dir };
    assert_eq!(fixture.create("v1/services", "default", service("b")).await.unwrap_err().code, 422);
    let target = fixture.target("v1/services", "default", "a");
    fixture.delete(&target, &Default::default()).await.unwrap();
    fixture.create("v1/services", "default", service("b")).await.unwrap();
}

#[tokio::test]
async fn events_are_served_twice_from_one_storage() {
    let fixture = Fixture::open().await;
    let event = json!({
        "metadata": { "name": "e" }, "involvedObject": { "kind": "Pod", "name": "p", "namespace": "default" },
        "reason": "Started", "message": "hello", "type": "Normal",
    });
    fixture.create("v1/events", "default", event).await.unwrap();
    let target = fixture.target("events.k8s.io/v1/events", "default", "e");
    let seen = fixture.get(&target).await.unwrap();
    assert_eq!((&seen["apiVersion"], &seen["note"]), (&json!("events.k8s.io/v1"), &json!("hello")));
    assert_eq!(seen["regarding"]["name"], "p");
    let list =
        fixture.registry.list(&Target::collection(&target.resource, "default"), &ListRequest::default()).await.unwrap();
    let body: Value = serde_json::from_slice(&fixture.registry.list_body(&target.resource, &list).unwrap()).unwrap();
    assert_eq!((&body["kind"], &body["items"][0]["note"]), (&json!("EventList"), &json!("hello")));

    let patched = fixture.merge(&target, json!({ "metadata": { "labels": { "a": "b" } } })).await.unwrap();
    assert_eq!(patched["apiVersion"], "events.k8s.io/v1");
    let old = fixture.get(&fixture.target("v1/events", "default", "e")).await.unwrap();
    assert_eq!((&old["apiVersion"], &old["message"]), (&json!("v1"), &json!("hello")));
    assert_eq!(old["metadata"]["labels"]["a"], "b");
}

#[tokio::test]
async fn bootstrap_and_upsert_may_run_again() {
    let fixture = Fixture::open().await;
    let revision = fixture.registry.store().revision();
    coracle_kinds::bootstrap(&fixture.registry, 6443).await.unwrap();
    assert_eq!(fixture.registry.store().revision(), revision);
    let service = fixture.get(&fixture.target("v1/services", "default", "kubernetes")).await.unwrap();
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");

    let target = fixture.target("v1/configmaps", "default", "a");
    for (app, written) in [("x", true), ("x", false), ("y", true)] {
        let before = fixture.registry.store().revision();
        fixture.registry.upsert(&target, labelled("a", app)).await.unwrap();
        assert_eq!(fixture.registry.store().revision() > before, written, "{app}");
    }
    let nowhere = fixture.target("v1/configmaps", "nowhere", "a");
    assert_eq!(fixture.registry.upsert(&nowhere, json!({})).await.unwrap_err().code, 404);
}
