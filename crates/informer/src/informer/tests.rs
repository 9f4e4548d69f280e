//! The informer against a scripted API server: a tower service that plays prepared watch frames.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// Answers the n-th request with the n-th script of watch frames, and all further ones with a watch that stays silent.
fn client(scripts: Vec<Vec<Value>>) -> Client {
    let scripts: Vec<String> =
        scripts.into_iter().map(|frames| frames.iter().map(|frame| format!("{frame}\n")).collect()).collect();
    let request = Arc::new(AtomicUsize::new(0));
    let service = tower::service_fn(move |_: Request<Body>| {
        let script = scripts.get(request.fetch_add(1, Ordering::SeqCst)).cloned();
        async move {
            match script {
                Some(script) => Ok::<_, Infallible>(Response::new(Body::from(script.into_bytes()))),
                None => std::future::pending().await,
            }
        }
    });
    Client::new(service, "default")
}

fn config_map(name: &str, version: u64, tier: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": name, "namespace": "default", "uid": name, "resourceVersion": version.to_string(),
        "labels": { "tier": tier },
    } })
}

fn event(type_: &str, object: &Value) -> Value {
    json!({ "type": type_, "object": object })
}

fn initial_end(version: u64) -> Value {
    event(
        "BOOKMARK",
        &json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": {
            "resourceVersion": version.to_string(), "annotations": { "k8s.io/initial-events-end": "true" } } }),
    )
}

/// The watch cannot go on from where it is.
fn expired() -> Value {
    event(
        "ERROR",
        &json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "too old resource version", "reason": "Expired", "code": 410 }),
    )
}

fn start(scripts: Vec<Vec<Value>>) -> Informer<ConfigMap> {
    let informer = Informer::start(
        Api::all(client(scripts)),
        watcher::Config::default().streaming_lists(),
        CancellationToken::new(),
    );
    informer.index("tier", |object: &ConfigMap| {
        let labels = object.metadata.labels.iter().flatten();
        labels.map(|(_, value)| value.clone()).collect()
    });
    informer
}

/// Collects changes as `+name`, `~name` and `-name`, and waits until there are `count` of them.
async fn changes(informer: &Informer<ConfigMap>, count: usize) -> Vec<String> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(64);
    informer.on_change(move |change| {
        let sign = match (&change.old, &change.new) {
            (None, _) => '+',
            (Some(_), Some(_)) => '~',
            (Some(_), None) => '-',
        };
        let _ = sender.try_send(format!("{sign}{}", change.key().name));
    });
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.push(receiver.recv().await.unwrap_or_default());
    }
    seen
}

fn names(objects: &[Arc<ConfigMap>]) -> Vec<&str> {
    objects.iter().filter_map(|object| object.metadata.name.as_deref()).collect()
}

#[tokio::test(start_paused = true)]
async fn objects_changes_and_indexes_follow_the_watch() {
    let informer = start(vec![vec![
        event("ADDED", &config_map("a", 1, "web")),
        event("ADDED", &config_map("b", 2, "web")),
        initial_end(2),
        event("MODIFIED", &config_map("a", 3, "db")),
        event("DELETED", &config_map("b", 4, "web")),
    ]]);
    assert_eq!(changes(&informer, 4).await, ["+a", "+b", "~a", "-b"], "in the order of the watch");
    assert!(informer.is_synced());
    assert_eq!(names(&informer.by_index("tier", "db")), ["a"]);
    assert!(informer.by_index("tier", "web").is_empty());
    assert!(informer.get(&ObjectKey::new("default", "b")).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_a_new_list_lacks_was_deleted() {
    let informer = start(vec![
        vec![
            event("ADDED", &config_map("a", 1, "web")),
            event("ADDED", &config_map("b", 2, "web")),
            initial_end(2),
            expired(),
        ],
        vec![event("ADDED", &config_map("b", 2, "web")), event("ADDED", &config_map("c", 7, "web")), initial_end(7)],
    ]);
    let mut seen = changes(&informer, 4).await;
    seen[..2].sort();
    assert_eq!(seen, ["+a", "+b", "-a", "+c"], "b did not change, so nobody hears of it");
}

#[tokio::test(start_paused = true)]
async fn what_a_new_list_changes_comes_before_what_it_adds() {
    let informer = start(vec![
        vec![
            event("ADDED", &config_map("b", 1, "web")),
            event("ADDED", &config_map("c", 2, "web")),
            initial_end(2),
            expired(),
        ],
        vec![event("ADDED", &config_map("a", 3, "web")), event("ADDED", &config_map("b", 4, "db")), initial_end(4)],
    ]);
    let mut seen = changes(&informer, 5).await;
    seen[..2].sort();
    assert_eq!(seen, ["+b", "+c", "-c", "~b", "+a"]);
}

#[tokio::test(start_paused = true)]
async fn a_late_handler_and_a_late_index_see_what_is_known() {
    let informer = start(vec![vec![event("ADDED", &config_map("a", 1, "web")), initial_end(1)]]);
    informer.synced().await;
    assert_eq!(changes(&informer, 1).await, ["+a"]);
    informer.index("name", |object: &ConfigMap| object.metadata.name.clone().into_iter().collect());
    assert_eq!(names(&informer.by_index("name", "a")), ["a"]);
}

#[test]
fn field_managers_are_not_kept() {
    let metadata = json!({ "name": "a", "managedFields": [{ "manager": "kubectl" }] });
    let of = |kind: &str| json!({ "apiVersion": "v1", "kind": kind, "metadata": metadata });
    let map: ConfigMap = serde_json::from_value(of("ConfigMap")).expect("a ConfigMap");
    assert_eq!(without_managers(map).metadata.managed_fields, None);
    let quota: ResourceQuota = serde_json::from_value(of("ResourceQuota")).expect("a ResourceQuota");
    assert_eq!(without_managers(quota.clone()), quota);
}
