//! Deletes: grace, finalizers, propagation, preconditions, collections.

use registry::request::{DeleteRequest, ListRequest, Propagation, Selection};
use registry::{Subresource, Target, WriteOptions};
use serde_json::{Value, json};

use super::{Fixture, config_map, labelled, pod};

fn grace(seconds: i64) -> DeleteRequest {
    DeleteRequest { grace_period: Some(seconds), ..DeleteRequest::default() }
}

async fn bound_pod(fixture: &Fixture, name: &str) -> Target {
    fixture.create("v1/pods", "default", pod(name)).await.unwrap();
    let target = fixture.target("v1/pods", "default", name);
    let body = json!({ "metadata": { "name": name }, "target": { "kind": "Node", "name": "n" } }).to_string();
    fixture.registry.bind(&target, body.as_bytes(), &WriteOptions::default()).await.unwrap();
    target
}

#[tokio::test]
async fn a_plain_object_goes_at_once() {
    let fixture = Fixture::open().await;
    let made = fixture.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    let target = fixture.target("v1/configmaps", "default", "a");
    let (status, gone) = fixture.delete(&target, &grace(30)).await.unwrap();
    assert!(gone);
    assert_eq!(
        status,
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": { "name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"] },
        })
    );
    assert_eq!(fixture.get(&target).await.unwrap_err().code, 404);
    assert_eq!(fixture.delete(&target, &grace(0)).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_pod_ends_in_good_order() {
    let fixture = Fixture::open().await;
    let target = bound_pod(&fixture, "a").await;
    let (after, gone) = fixture.delete(&target, &DeleteRequest::default()).await.unwrap();
    assert!(!gone);
    assert_eq!(after["metadata"]["deletionGracePeriodSeconds"], 30);
    let deadline = after["metadata"]["deletionTimestamp"].clone();

    // A longer time is not granted, a shorter one is.
    let (after, gone) = fixture.delete(&target, &grace(60)).await.unwrap();
    assert_eq!((gone, &after["metadata"]["deletionTimestamp"]), (false, &deadline));
    let (after, gone) = fixture.delete(&target, &grace(5)).await.unwrap();
    assert_eq!((gone, &after["metadata"]["deletionGracePeriodSeconds"]), (false, &json!(5)));
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!((time(&deadline) - time(&after["metadata"]["deletionTimestamp"])).get_seconds(), 25);

    // The kubelet says when it is over.
    let (_, gone) = fixture.delete(&target, &grace(0)).await.unwrap();
    assert!(gone);
    assert_eq!(fixture.get(&target).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_pod_that_nobody_runs_goes_at_once() {
    let fixture = Fixture::open().await;
    fixture.create("v1/pods", "default", pod("unbound")).await.unwrap();
    let target = fixture.target("v1/pods", "default", "unbound");
    assert!(fixture.delete(&target, &DeleteRequest::default()).await.unwrap().1);
    let target = bound_pod(&fixture, "forced").await;
    assert!(fixture.delete(&target, &grace(0)).await.unwrap().1);
}

#[tokio::test]
async fn finalizers_keep_an_object() {
    let fixture = Fixture::open().await;
    let mut body = config_map("a");
    body["metadata"]["finalizers"] = json!(["a.io/x", "a.io/y"]);
    fixture.create("v1/configmaps", "default", body).await.unwrap();
    let target = fixture.target("v1/configmaps", "default", "a");
    let (after, gone) = fixture.delete(&target, &DeleteRequest::default()).await.unwrap();
    assert!(!gone);
    assert!(after["metadata"]["deletionTimestamp"].is_string());
    let again = fixture.delete(&target, &DeleteRequest::default()).await.unwrap().0;
    assert_eq!(again, after, "deleting twice changes nothing");

    let error =
        fixture.merge(&target, json!({ "metadata": { "finalizers": ["a.io/x", "a.io/new"] } })).await.unwrap_err();
    assert!(error.message.contains("no new finalizers can be added if the object is being deleted"), "{error}");
    fixture.merge(&target, json!({ "metadata": { "finalizers": ["a.io/x"] } })).await.unwrap();
    assert!(fixture.get(&target).await.is_ok());
    let last = fixture.merge(&target, json!({ "metadata": { "finalizers": null } })).await.unwrap();
    assert_eq!(last["metadata"].get("finalizers"), None);
    assert_eq!(fixture.get(&target).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_pod_with_finalizers_waits_for_both() {
    let fixture = Fixture::open().await;
    let target = bound_pod(&fixture, "a").await;
    fixture.merge(&target, json!({ "metadata": { "finalizers": ["a.io/x"] } })).await.unwrap();
    fixture.delete(&target, &DeleteRequest::default()).await.unwrap();
    assert!(!fixture.delete(&target, &grace(0)).await.unwrap().1);
    fixture.merge(&target, json!({ "metadata": { "finalizers": [] } })).await.unwrap();
    assert_eq!(fixture.get(&target).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn the_garbage_collector_is_told_by_finalizers() {
    let fixture = Fixture::open().await;
    for (n, (request, expect)) in [
        (
            DeleteRequest { propagation: Some(Propagation::Foreground), ..Default::default() },
            Some("foregroundDeletion"),
        ),
        (DeleteRequest { propagation: Some(Propagation::Orphan), ..Default::default() }, Some("orphan")),
        (DeleteRequest { orphan_dependents: Some(true), ..Default::default() }, Some("orphan")),
        (DeleteRequest { propagation: Some(Propagation::Background), ..Default::default() }, None),
        (DeleteRequest::default(), None),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("a{n}");
        fixture.create("v1/configmaps", "default", config_map(&name)).await.unwrap();
        let target = fixture.target("v1/configmaps", "default", &name);
        let (after, gone) = fixture.delete(&target, &request).await.unwrap();
        assert_eq!(gone, expect.is_none());
        if let Some(finalizer) = expect {
            assert_eq!(after["metadata"]["finalizers"], json!([finalizer]));
        }
    }
    let contradiction =
        DeleteRequest { propagation: Some(Propagation::Orphan), orphan_dependents: Some(true), ..Default::default() };
    let target = fixture.target("v1/configmaps", "default", "a0");
    assert_eq!(fixture.delete(&target, &contradiction).await.unwrap_err().code, 422);
}

#[tokio::test]
async fn preconditions_hold_or_nothing_happens() {
    let fixture = Fixture::open().await;
    let made = fixture.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    let target = fixture.target("v1/configmaps", "default", "a");
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let version = made["metadata"]["resourceVersion"].as_str().unwrap();
    for (request, message) in [
        (
            DeleteRequest { uid: Some("x".into()), ..Default::default() },
            format!(
                r#"Operation cannot be fulfilled on ConfigMap "a": the UID in the precondition (x) does not match the UID in record ({uid}). The object might have been deleted and then recreated"#
            ),
        ),
        (
            DeleteRequest { resource_version: Some("1".into()), ..Default::default() },
            format!(
                r#"Operation cannot be fulfilled on ConfigMap "a": the ResourceVersion in the precondition (1) does not match the ResourceVersion in record ({version}). The object might have been modified"#
            ),
        ),
    ] {
        let error = fixture.delete(&target, &request).await.unwrap_err();
        assert_eq!((error.code, error.message), (409, message));
    }
    let request = DeleteRequest { uid: Some(uid.into()), resource_version: Some(version.into()), ..Default::default() };
    assert!(fixture.delete(&target, &request).await.unwrap().1);
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let fixture = Fixture::open().await;
    fixture.create("v1/namespaces", "", json!({ "metadata": { "name": "a" } })).await.unwrap();
    let target = fixture.target("v1/namespaces", "", "a");
    let (mut after, gone) = fixture.delete(&target, &DeleteRequest::default()).await.unwrap();
    assert_eq!((gone, &after["status"]["phase"]), (false, &json!("Terminating")));
    assert_eq!(after["spec"]["finalizers"], json!(["kubernetes"]));
    assert!(!fixture.delete(&target, &grace(0)).await.unwrap().1);
    after["spec"]["finalizers"] = json!([]);
    fixture.update_sub(&target, Subresource::Finalize, &after).await.unwrap();
    assert_eq!(fixture.get(&target).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_collection_goes_by_selection() {
    let fixture = Fixture::open().await;
    for n in 0..50 {
        let app = if n % 2 == 0 { "even" } else { "odd" };
        fixture.create("v1/configmaps", "default", labelled(&format!("c{n:02}"), app)).await.unwrap();
    }
    let target = Target::collection(&fixture.target("v1/configmaps", "", "").resource, "default");
    let selected = ListRequest { selection: Selection::parse("app=even", "").unwrap(), ..Default::default() };
    let body = fixture.registry.delete_collection(&target, &selected, &DeleteRequest::default()).await.unwrap();
    let list: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("ConfigMapList"), 25));
    let left = fixture.names(&target, &ListRequest::default()).await.unwrap();
    assert_eq!(left.len(), 25);
    assert_eq!(left[0], "c01");
}

#[test]
fn delete_options() {
    for (body, expect) in [
        ("", Ok((None, None, false))),
        ("{}", Ok((None, None, false))),
        (
            r#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":3,"propagationPolicy":"Foreground","dryRun":["All"]}"#,
            Ok((Some(3), Some(Propagation::Foreground), true)),
        ),
        (r#"{"propagationPolicy":"x"}"#, Err(422)),
        (r#"{"dryRun":["Some"]}"#, Err(422)),
        (r#"{"propagationPolicy":"Orphan","orphanDependents":true}"#, Err(422)),
        ("[", Err(400)),
        ("null", Ok((None, None, false))),
        (r#"{"kind":"DeleteOptions","apiVersion":"apps/v1"}"#, Ok((None, None, false))),
        (r#"{"apiVersion":"example.com/v1","kind":null}"#, Ok((None, None, false))),
        (r#"{"kind":"ConfigMap","apiVersion":"v1"}"#, Err(400)),
        (r#"{"kind":"ListOptions"}"#, Err(400)),
        (r#"{"apiVersion":"a/b/c"}"#, Err(400)),
    ] {
        let read = DeleteRequest::from_body(body.as_bytes())
            .map(|request| (request.grace_period, request.propagation, request.dry_run))
            .map_err(|error| error.code);
        assert_eq!(read, expect, "{body}");
    }
}
