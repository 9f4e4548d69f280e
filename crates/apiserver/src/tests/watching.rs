//! Watches, through the in-process client as components use it.

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use serde_json::{Value, json};

use super::support::{Fixture, pod};
use crate::User;

fn map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap()
}

#[tokio::test]
async fn events_arrive_as_they_happen() {
    let fixture = Fixture::new().await;
    let client = fixture.server.client(User::master("kubernetes-admin"), "default");
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let start = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let events = maps.watch(&WatchParams::default(), &start).await.unwrap();
    let mut events = std::pin::pin!(events);

    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    let Some(WatchEvent::Added(object)) = events.try_next().await.unwrap() else { panic!("no ADDED") };
    assert_eq!(object.metadata.name.as_deref(), Some("a"));
    maps.delete("a", &Default::default()).await.unwrap();
    let Some(WatchEvent::Deleted(object)) = events.try_next().await.unwrap() else { panic!("no DELETED") };
    assert_eq!(object.metadata.name.as_deref(), Some("a"));

    fixture.server.0.lifecycle.stopping.cancel();
    assert!(events.try_next().await.unwrap().is_none(), "a watch ends when the server stops");
}

#[tokio::test]
async fn metadata_only() {
    let fixture = Fixture::new().await;
    let client = fixture.server.client(User::master("kubernetes-admin"), "default");
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    let list = maps.list_metadata(&ListParams::default()).await.unwrap();
    let names: Vec<_> = list.items.iter().map(|item| item.metadata.name.as_deref()).collect();
    assert!(names.contains(&Some("a")), "{names:?}");
    let one: PartialObjectMeta<ConfigMap> = maps.get_metadata("a").await.unwrap();
    assert_eq!(one.metadata.name.as_deref(), Some("a"));
    let events = maps.watch_metadata(&WatchParams::default(), "0").await.unwrap();
    let mut events = std::pin::pin!(events);
    let Some(WatchEvent::Added(_)) = events.try_next().await.unwrap() else { panic!("no ADDED") };
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark_and_a_timeout_ends_it_all() {
    let fixture = Fixture::new().await;
    fixture.json("POST /api/v1/namespaces/default/pods", 201, &pod("a", "node1")).await;
    let line = "GET /api/v1/namespaces/default/pods?watch=true&sendInitialEvents=true\
        &resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
    let reply = fixture.ask(line, &[], "").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let events: Vec<Value> = reply.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["type"], "ADDED");
    assert_eq!(events[0]["object"]["metadata"]["name"], "a");
    assert_eq!(events[1]["type"], "BOOKMARK");
    assert_eq!(events[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

#[tokio::test]
async fn tables_have_columns_once() {
    let fixture = Fixture::new().await;
    for name in ["a", "b"] {
        fixture.json("POST /api/v1/namespaces/default/pods", 201, &pod(name, "node1")).await;
    }
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let line = "GET /api/v1/namespaces/default/pods?watch=true&resourceVersion=0&timeoutSeconds=1";
    let reply = fixture.ask(line, &accept, "").await;
    let events: Vec<Value> = reply.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2, "{}", reply.text);
    for (event, (name, columns)) in events.iter().zip([("a", true), ("b", false)]) {
        let table = &event["object"];
        assert_eq!((&event["type"], &table["kind"]), (&"ADDED".into(), &"Table".into()));
        assert_eq!(table["rows"][0]["cells"][0], name);
        assert_eq!((table["columnDefinitions"].is_array(), table["columnDefinitions"].is_null()), (columns, !columns));
    }
}

#[tokio::test]
async fn watches_that_make_no_sense() {
    let fixture = Fixture::new().await;
    for (query, status) in [
        ("resourceVersion=nonsense", 400),
        ("resourceVersionMatch=Exact", 422),
        ("sendInitialEvents=true", 422),
        ("labelSelector=a+b", 400),
        ("timeoutSeconds=soon", 400),
    ] {
        let reply = fixture.ask(&format!("GET /api/v1/pods?watch=true&{query}"), &[], "").await;
        assert_eq!(reply.status.as_u16(), status, "{query}: {}", reply.text);
    }
    let yaml = fixture.ask("GET /api/v1/pods?watch=true", &[("accept", "application/yaml")], "").await;
    assert_eq!(yaml.status, 406);
}
