//! A controller against a scripted API server: what its runner tells of it.

use std::convert::Infallible;

use http::{Method, Request, Response};
use informer::CauseRecord;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::deployment::Deployments;

/// Lists what it is given, keeps every further watch silent, and answers a patch with the object at revision 50.
fn client(lists: Vec<(&'static str, Value)>) -> Client {
    let seen = Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let service = tower::service_fn(move |request: Request<Body>| {
        let path = request.uri().path().to_owned();
        let (api_version, plural) =
            path.trim_start_matches("/apis/").trim_start_matches("/api/").rsplit_once('/').unwrap_or_default();
        let is_first = request.method() == Method::GET && seen.lock().expect("a lock").insert(path.clone());
        let answer = if request.method() == Method::PATCH {
            let name = path.trim_end_matches("/status").rsplit('/').next().unwrap_or_default();
            let metadata = json!({ "name": name, "namespace": "ns", "uid": "u", "resourceVersion": "50" });
            let spec = json!({ "selector": {}, "template": {} });
            Some(
                json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": spec })
                    .to_string(),
            )
        } else if is_first {
            let found = lists.iter().filter(|(of, _)| *of == plural);
            let mut frames: String =
                found.map(|(_, object)| format!("{}\n", json!({ "type": "ADDED", "object": object }))).collect();
            let kind = match plural {
                "deployments" => "Deployment",
                "replicasets" => "ReplicaSet",
                _ => "Pod",
            };
            let metadata = json!({ "resourceVersion": "42", "annotations": { "k8s.io/initial-events-end": "true" } });
            let object = json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata });
            frames.push_str(&format!("{}\n", json!({ "type": "BOOKMARK", "object": object })));
            Some(frames)
        } else {
            None
        };
        async move {
            match answer {
                Some(answer) => Ok::<_, Infallible>(Response::new(Body::from(answer.into_bytes()))),
                None => std::future::pending().await,
            }
        }
    });
    Client::new(service, "default")
}

#[tokio::test(start_paused = true)]
async fn a_reconcile_tells_what_woke_it_and_what_it_wrote() {
    let template = json!({
        "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] },
    });
    let selector = json!({ "matchLabels": { "app": "web" } });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "web", "namespace": "ns", "uid": "d", "resourceVersion": "40", "generation": 1 },
        "spec": { "replicas": 3, "selector": selector, "template": template },
    });
    let owner = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true });
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": "web-1", "namespace": "ns", "uid": "r", "resourceVersion": "41", "ownerReferences": [owner],
            "labels": { "app": "web" },
        },
        "spec": { "replicas": 1, "selector": selector, "template": template },
    });
    let client = client(vec![("deployments", deployment), ("replicasets", set)]);
    let cancel = CancellationToken::new();
    let informers = Informers::new(client.clone(), cancel.clone());
    let config = Arc::new(Config::new(String::new(), "/nowhere".into()));
    let context = Context { client, informers: informers.clone(), config, cancel: cancel.clone() };
    let running = tokio::spawn(run::<Deployments>(context));
    while informers.reconciles().latest("deployment").is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    cancel.cancel();
    running.await.expect("the controller ends");

    let latest = informers.reconciles().latest("deployment");
    let first = &latest[0];
    let set = |cause: &CauseRecord| cause.to_string() == "ReplicaSet ns/web-1 @41";
    assert!(first.causes.iter().any(set), "{first}");
    assert!(first.writes.iter().any(|write| write.to_string() == "patch ReplicaSet ns/web-1 @50"), "{first}");
    assert_eq!(first.key, "ns/web");
}
