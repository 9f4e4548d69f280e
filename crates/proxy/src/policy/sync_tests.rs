//! The task against a scripted API server, and a kernel that only remembers what it was told.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, Request, Response};
use informer::{Informers, Recorder};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::{PolicyTable, run};
use crate::start_tests::until;
use crate::{Config, NetworkTools, ToolOutput};

/// A kernel that takes every transaction, and has a table if the last one made one.
#[derive(Debug, Default)]
struct Remembering(Mutex<Vec<String>>);

impl Remembering {
    fn last_has(&self, text: &str) -> bool {
        self.0.lock().last().is_some_and(|script| script.contains(text))
    }
}

#[async_trait::async_trait]
impl NetworkTools for Remembering {
    async fn run(&self, _: &str, arguments: &[&str], input: &str) -> io::Result<ToolOutput> {
        let success = if arguments == ["-f", "-"] {
            self.0.lock().push(input.to_owned());
            true
        } else {
            self.last_has("chain forward")
        };
        Ok(ToolOutput { success, stderr: String::new() })
    }
}

/// An API server with one policy, which is deleted when told; one namespace; and one pod.
struct Api {
    delete: Notify,
    events: mpsc::UnboundedSender<Value>,
    asked_for_policies: AtomicUsize,
    asked_for_others: Mutex<Vec<String>>,
}

impl Api {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        if request.method() == Method::POST {
            let event = request.into_body().collect_bytes().await.unwrap();
            // The test may have heard enough.
            let _ = self.events.send(serde_json::from_slice(&event).unwrap());
            return Response::new(Body::from(event.to_vec()));
        }
        let kind = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "name": "deny", "namespace": "a", "uid": "u1", "resourceVersion": "1" },
            "spec": { "podSelector": {}, "policyTypes": ["Ingress"] },
        });
        if kind == "networkpolicies" {
            return match self.asked_for_policies.fetch_add(1, Ordering::SeqCst) {
                0 => list(&policy),
                1 => {
                    self.delete.notified().await;
                    Response::new(Body::from(
                        format!("{}\n", json!({ "type": "DELETED", "object": policy })).into_bytes(),
                    ))
                }
                _ => std::future::pending().await,
            };
        }
        let is_first = !self.asked_for_others.lock().contains(&kind);
        self.asked_for_others.lock().push(kind.clone());
        match kind.as_str() {
            "namespaces" if is_first => list(&json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "a", "resourceVersion": "2" },
            })),
            "pods" if is_first => list(&json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": "p", "namespace": "a", "resourceVersion": "3" },
                "spec": { "containers": [] },
                "status": { "phase": "Running", "podIPs": [{ "ip": "10.9.0.5" }] },
            })),
            _ => std::future::pending().await,
        }
    }
}

/// A list of one object, as a watch begins with it.
fn list(object: &Value) -> Response<Body> {
    let mark = json!({ "apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": {
        "resourceVersion": "5", "annotations": { "k8s.io/initial-events-end": "true" } } });
    let frames = [json!({ "type": "ADDED", "object": object }), json!({ "type": "BOOKMARK", "object": mark })];
    Response::new(Body::from(frames.map(|frame| format!("{frame}\n")).concat().into_bytes()))
}

#[tokio::test]
async fn policies_are_followed() {
    let (events, mut heard) = mpsc::unbounded_channel();
    let (delete, asked_for_policies, asked_for_others) = Default::default();
    let api = Arc::new(Api { delete, events, asked_for_policies, asked_for_others });
    let for_client = Arc::clone(&api);
    let client = Client::new(
        tower::service_fn(move |request| {
            let api = Arc::clone(&for_client);
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        }),
        "default",
    );
    let (cancel, tools) = (CancellationToken::new(), Arc::new(Remembering::default()));
    let informers = Informers::new(client.clone(), CancellationToken::new());
    let table = PolicyTable::new(&Config::new("followed", "cor-none", "10.9.0.0/24", "10.96.0.0/16")).unwrap();
    let recorder = Recorder::new(client, "kube-proxy", None);
    let for_task = Arc::clone(&tools) as Arc<dyn NetworkTools>;
    let task = tokio::spawn(run(table, informers.clone(), recorder, for_task, cancel.clone()));

    until("the pod is isolated", async || tools.last_has("10.9.0.5 : jump from-0")).await;
    let told =
        |text: &str| informers.reconciles().latest("network-policy").iter().any(|sync| sync.to_string().contains(text));
    until("the sync is reported", async || told("isolate 1 pods by 1 sets of rules")).await;
    // There is no such bridge, so packets between its pods pass no rules, and whoever wrote the policy is told.
    let event = tokio::time::timeout(Duration::from_secs(20), heard.recv()).await.unwrap().unwrap().to_string();
    assert!(event.contains("NetworkPolicyNotEnforced") && event.contains("br_netfilter"), "{event}");

    api.delete.notify_one();
    until("the table is removed", async || tools.last_has("delete table") && !tools.last_has("chain forward")).await;
    until("the removal is reported", async || told("remove the table")).await;
    let transactions = tools.0.lock().len();
    cancel.cancel();
    task.await.unwrap();
    assert_eq!(tools.0.lock().len(), transactions, "there is nothing left to remove");
}
