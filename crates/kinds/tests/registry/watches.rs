//! Watches: where they start, what they show, how they end.

use std::time::Duration;

use registry::request::{Selection, Target, VersionMatch, WatchRequest};
use registry::watch::Watch;
use serde_json::{Value, json};

use super::{Fixture, config_map, labelled};

/// What the next events say: `ADDED a`, a bookmark as `BOOKMARK`.
async fn read(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
        let Some(batch) = next.expect("an event within ten seconds") else { break };
        for event in batch {
            let frame = event.frame(watch.resource()).unwrap();
            assert!(frame.ends_with(b"}\n"));
            let frame: Value = serde_json::from_slice(&frame).unwrap();
            assert_eq!(frame["type"], event.kind.as_str());
            let name = frame["object"]["metadata"]["name"].as_str().unwrap_or_default();
            seen.push(format!("{} {name}", event.kind.as_str()).trim_end().to_owned());
        }
    }
    seen
}

fn configmaps(fixture: &Fixture) -> Target {
    Target::collection(&fixture.target("v1/configmaps", "", "").resource, "default")
}

fn from(revision: u64) -> WatchRequest {
    WatchRequest { resource_version: revision.to_string(), ..Default::default() }
}

#[tokio::test]
async fn begins_with_what_is_there_and_goes_on() {
    let fixture = Fixture::open().await;
    fixture.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    fixture.create("v1/configmaps", "kube-system", config_map("elsewhere")).await.unwrap();
    let mut watch = fixture.registry.watch(&configmaps(&fixture), &WatchRequest::default()).await.unwrap();
    let revision = fixture.registry.store().revision();
    assert_eq!(read(&mut watch, 1).await, ["ADDED a"]);
    let target = fixture.target("v1/configmaps", "default", "a");
    fixture.merge(&target, json!({ "data": { "b": "2" } })).await.unwrap();
    fixture.merge(&target, json!({ "data": { "b": "2" } })).await.unwrap();
    fixture.create("v1/configmaps", "kube-system", config_map("other")).await.unwrap();
    fixture.create("v1/configmaps", "default", config_map("b")).await.unwrap();
    fixture.delete(&target, &Default::default()).await.unwrap();
    let expect = ["MODIFIED a", "ADDED b", "DELETED a"];
    assert_eq!(read(&mut watch, 3).await, expect);

    // The same again for one who comes late but knows where it was.
    let mut late = fixture.registry.watch(&configmaps(&fixture), &from(revision)).await.unwrap();
    assert_eq!(read(&mut late, 3).await, expect);
}

#[tokio::test]
async fn a_deleted_object_shows_the_revision_of_its_deletion() {
    let fixture = Fixture::open().await;
    fixture.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    let revision = fixture.registry.store().revision();
    let mut watch = fixture.registry.watch(&configmaps(&fixture), &from(revision)).await.unwrap();
    fixture.delete(&fixture.target("v1/configmaps", "default", "a"), &Default::default()).await.unwrap();
    let batch = watch.next().await.unwrap();
    let object: Value = serde_json::from_slice(&batch[0].object).unwrap();
    assert_eq!(object["metadata"]["resourceVersion"], (revision + 1).to_string());
    assert_eq!(object["data"]["a"], "1");
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let fixture = Fixture::open().await;
    let target = fixture.target("v1/configmaps", "default", "a");
    let request =
        WatchRequest { selection: Selection::parse("app=x", "").unwrap(), ..from(fixture.registry.store().revision()) };
    let mut watch = fixture.registry.watch(&configmaps(&fixture), &request).await.unwrap();
    for app in ["y", "x", "x2", "x"] {
        fixture.registry.upsert(&target, labelled("a", app)).await.unwrap();
    }
    fixture.merge(&target, json!({ "data": { "b": "2" } })).await.unwrap();
    let left_at = fixture.registry.store().revision() - 2;
    fixture.delete(&target, &Default::default()).await.unwrap();
    let mut events = Vec::new();
    while events.len() < 5 {
        events.extend(watch.next().await.unwrap());
    }
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["ADDED", "DELETED", "ADDED", "MODIFIED", "DELETED"]);
    let left: Value = serde_json::from_slice(&events[1].object).unwrap();
    assert_eq!(left["metadata"]["labels"]["app"], "x", "as it last matched");
    assert_eq!(left["metadata"]["resourceVersion"], left_at.to_string());
}

#[tokio::test]
async fn a_watch_list_ends_its_burst_with_a_bookmark() {
    let fixture = Fixture::open().await;
    for name in ["a", "b"] {
        fixture.create("v1/configmaps", "default", config_map(name)).await.unwrap();
    }
    let request = WatchRequest {
        send_initial_events: Some(true),
        version_match: Some(VersionMatch::NotOlderThan),
        allow_bookmarks: true,
        timeout: Some(Duration::from_millis(50)),
        ..Default::default()
    };
    let mut watch = fixture.registry.watch(&configmaps(&fixture), &request).await.unwrap();
    let burst = watch.next().await.unwrap();
    let end: Value = serde_json::from_slice(&burst[2].object).unwrap();
    let revision = fixture.registry.store().revision().to_string();
    assert_eq!(
        end,
        json!({
            "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": { "resourceVersion": revision, "annotations": { "k8s.io/initial-events-end": "true" } },
        })
    );
    // The last word before the time is up.
    assert_eq!(read(&mut watch, 2).await, ["BOOKMARK"]);
    assert!(watch.next().await.is_none());

    let silent = WatchRequest { send_initial_events: Some(false), allow_bookmarks: false, ..request };
    let mut watch = fixture.registry.watch(&configmaps(&fixture), &silent).await.unwrap();
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused() {
    let fixture = Fixture::open().await;
    for (initial, version_match, version, code) in [
        (Some(true), None, "", 422),
        (Some(true), Some(VersionMatch::Exact), "", 422),
        (None, Some(VersionMatch::NotOlderThan), "", 422),
        (None, None, "x", 400),
    ] {
        let request = WatchRequest {
            send_initial_events: initial,
            version_match,
            resource_version: version.to_owned(),
            ..Default::default()
        };
        let result = fixture.registry.watch(&configmaps(&fixture), &request).await;
        assert_eq!(result.err().map(|error| error.code), Some(code), "{request:?}");
    }
}

#[tokio::test]
async fn a_revision_that_is_compacted_ends_the_watch() {
    let fixture = Fixture::open().await;
    let target = fixture.target("v1/configmaps", "default", "a");
    for n in 0..1100 {
        fixture.registry.upsert(&target, labelled("a", &format!("x{n}"))).await.unwrap();
    }
    let store = fixture.registry.store();
    store.compact(store.revision()).await.unwrap();
    let mut watch = fixture.registry.watch(&configmaps(&fixture), &from(1)).await.unwrap();
    let batch = watch.next().await.unwrap();
    let status: Value = serde_json::from_slice(&batch[0].object).unwrap();
    assert_eq!((batch[0].kind.as_str(), &status["code"], &status["reason"]), ("ERROR", &json!(410), &json!("Expired")));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn frames_are_encoded_once_for_all() {
    let fixture = Fixture::open().await;
    let revision = fixture.registry.store().revision();
    let mut frames = Vec::new();
    fixture.create("v1/configmaps", "default", config_map("a")).await.unwrap();
    for _ in 0..2 {
        let mut watch = fixture.registry.watch(&configmaps(&fixture), &from(revision)).await.unwrap();
        frames.push(watch.next().await.unwrap()[0].frame(watch.resource()).unwrap());
    }
    assert_eq!(frames[0].as_ptr(), frames[1].as_ptr());
}

#[tokio::test]
async fn a_watch_ends_with_the_registry() {
    let fixture = Fixture::open().await;
    let revision = fixture.registry.store().revision();
    let mut watch = fixture.registry.watch(&configmaps(&fixture), &from(revision)).await.unwrap();
    let (end, ()) = tokio::join!(watch.next(), fixture.registry.close());
    assert!(end.is_none());
}

#[tokio::test]
async fn the_second_view_of_an_event_is_watched_in_its_own_shape() {
    let fixture = Fixture::open().await;
    let target = fixture.target("events.k8s.io/v1/events", "", "");
    let mut watch = fixture.registry.watch(&target, &from(fixture.registry.store().revision())).await.unwrap();
    let event = json!({ "metadata": { "name": "e" }, "message": "hello", "reason": "R", "type": "Normal",
        "involvedObject": { "kind": "Pod", "name": "p", "namespace": "default" } });
    fixture.create("v1/events", "default", event).await.unwrap();
    let batch = watch.next().await.unwrap();
    let frame: Value = serde_json::from_slice(&batch[0].frame(watch.resource()).unwrap()).unwrap();
    assert_eq!(frame["object"]["note"], "hello");
}
