//! The whole scheduler against a scripted API server: what it says of each attempt.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use informer::Reconciles;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;
use crate::BackOff;

/// An API server with one small node and two pods, of which one is too large. When told, it shows the node larger, and it
/// refuses the first binding of the pod called `unlucky`.
#[derive(Default)]
struct Api {
    listed: Mutex<Vec<String>>,
    grow: Notify,
}

fn node(version: u32, cpu: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1", "resourceVersion": version.to_string() },
        "status": { "allocatable": { "cpu": cpu, "memory": "4Gi", "pods": "10" } },
    })
}

fn pod(name: &str, version: u32, cpu: &str) -> Value {
    let container = json!({ "name": "c", "image": "i", "resources": { "requests": { "cpu": cpu } } });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "ns", "uid": name, "resourceVersion": version.to_string(), "generation": 1 },
        "spec": { "schedulerName": "default-scheduler", "containers": [container] },
    })
}

impl Api {
    /// Whether it is asked for this for the first time.
    fn first(&self, what: &str) -> bool {
        let mut listed = self.listed.lock();
        let new = !listed.iter().any(|listed| listed == what);
        listed.push(what.to_owned());
        new
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
        let frame = |kind: &str, object: &Value| format!("{}\n", json!({ "type": kind, "object": object }));
        if request.method() != Method::GET {
            let unlucky = path.ends_with("/pods/unlucky/binding") && self.first(&path);
            let code = if unlucky { 500 } else { 201 };
            let status =
                json!({ "kind": "Status", "apiVersion": "v1", "code": code, "message": "not now", "reason": "" });
            return Response::builder().status(code).body(Body::from(status.to_string().into_bytes())).unwrap();
        }
        let plural = path.rsplit('/').next().unwrap_or_default();
        if self.first(&format!("{path}?{query}")) && query.contains("sendInitialEvents=true") {
            let objects = match plural {
                "nodes" => vec![node(1, "1")],
                "pods" => vec![pod("small", 2, "500m"), pod("large", 3, "2"), pod("unlucky", 4, "100m")],
                _ => Vec::new(),
            };
            let mut frames: String = objects.iter().map(|object| frame("ADDED", object)).collect();
            let metadata = json!({ "resourceVersion": "5", "annotations": { "k8s.io/initial-events-end": "true" } });
            let (api_version, kind) = match plural {
                "nodes" => ("v1", "Node"),
                "pods" => ("v1", "Pod"),
                "namespaces" => ("v1", "Namespace"),
                "persistentvolumeclaims" => ("v1", "PersistentVolumeClaim"),
                "persistentvolumes" => ("v1", "PersistentVolume"),
                "storageclasses" => ("storage.k8s.io/v1", "StorageClass"),
                "poddisruptionbudgets" => ("policy/v1", "PodDisruptionBudget"),
                _ => ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
            };
            let object = json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": {} });
            frames += &frame("BOOKMARK", &object);
            return Response::new(Body::from(frames.into_bytes()));
        }
        if plural == "nodes" && self.first("a larger node") {
            self.grow.notified().await;
            return Response::new(Body::from(frame("MODIFIED", &node(9, "8")).into_bytes()));
        }
        std::future::pending().await
    }
}

async fn until(reconciles: &Reconciles, starts: &str, contains: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let texts: Vec<String> = reconciles.latest("kube-scheduler").iter().map(ToString::to_string).collect();
        if let Some(text) = texts.iter().find(|text| text.starts_with(starts) && text.contains(contains)) {
            return text.clone();
        }
        assert!(Instant::now() < deadline, "no attempt {starts} ... {contains}: {texts:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn config() -> Config {
    Config { back_off: BackOff(Duration::from_millis(10), Duration::from_millis(10)), ..Config::default() }
}

/// A scheduler of the pods that `api` has.
fn started(api: &Arc<Api>, config: Config) -> (Handle, Reconciles) {
    let for_client = Arc::clone(api);
    let client = Client::new(
        tower::service_fn(move |request| {
            let api = Arc::clone(&for_client);
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        }),
        "default",
    );
    let informers = Informers::new(client.clone(), CancellationToken::new());
    let reconciles = informers.reconciles().clone();
    (start(config, &Deps { client, informers }), reconciles)
}

#[tokio::test]
async fn a_paused_scheduler_makes_one_attempt_with_each_step() {
    let (handle, reconciles) = started(&Arc::default(), config());
    let component = reconciles.components().into_iter().find(|component| component.name() == Scheduler::NAME);
    let component = component.expect("it reports");
    let pause = component.pause().expect("it can be paused");
    pause.pause();
    let deadline = Instant::now() + Duration::from_secs(20);
    while component.waiting() != 3 {
        assert!(Instant::now() < deadline, "{} pods wait", component.waiting());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(component.latest().is_empty(), "nothing was tried");

    for count in 1..=2 {
        // Which pod is heard of first is nobody's promise.
        let next = loop {
            match component.next() {
                Some((pod, _)) => break pod,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let step = pause.step(Duration::from_secs(20), Duration::from_secs(20)).await;
        let informer::Step::Done(done) = step else { panic!("{next} waits: {step:?}") };
        assert_eq!(done.iter().map(|attempt| attempt.key.as_str()).collect::<Vec<_>>(), [next.as_str()]);
        let text = match next.as_str() {
            "ns/small" => "wrote create Pod ns/small (binding); did choose node n1",
            "ns/large" => "Insufficient cpu",
            _ => "(binding): refused with 500",
        };
        assert!(done[0].to_string().contains(text), "{}", done[0]);
        assert_eq!(component.latest().len(), count, "one attempt with each step");
    }
    pause.resume();
    until(&reconciles, "woken by retried after a failure; ", "wrote create Pod ns/unlucky (binding); did").await;
    pause.pause();
    // It ends while it is paused, too.
    handle.shutdown().await;
}

#[tokio::test]
async fn each_attempt_says_what_woke_it_and_what_it_came_to() {
    let api = Arc::new(Api::default());
    let config = config();
    let (previews, records) = (config.previews.clone(), config.records.clone());
    let ask = async |pod: Value| previews.ask(serde_json::from_value(pod).unwrap()).await;
    assert_eq!(ask(pod("early", 1, "1")).await.unwrap_err(), PreviewError::NotRunning);
    let (handle, reconciles) = started(&api, config);

    let bound = until(&reconciles, "woken by Pod ns/small @2; ", "").await;
    assert!(bound.contains("wrote create Pod ns/small (binding); did choose node n1; waits for a change"), "{bound}");
    let refused = until(&reconciles, "woken by Pod ns/large @3; ", "").await;
    assert!(
        refused.contains("wrote nothing; waits for a change (0/1 nodes are available: 1 Insufficient cpu."),
        "{refused}"
    );
    let failed = until(&reconciles, "woken by Pod ns/unlucky @4; ", "").await;
    assert!(failed.contains("(binding): refused with 500; did choose node n1; failed: "), "{failed}");
    until(&reconciles, "woken by retried after a failure; ", "wrote create Pod ns/unlucky (binding); did").await;

    // What would become of others is told, and does not happen: each finds the same room.
    for _ in 0..2 {
        let found = ask(pod("what-if", 1, "300m")).await.unwrap();
        assert_eq!((found.node.as_deref(), found.nodes, found.feasible), (Some("n1"), 1, 1));
    }
    let refused = ask(pod("too-large", 1, "3")).await.unwrap();
    assert_eq!(
        (refused.node, refused.refused[0].plugin, &*refused.refused[0].nodes[0]),
        (None, "NodeResourcesFit", "n1")
    );
    assert!(refused.message.starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{}", refused.message);
    assert_eq!(refused.waits_for.len(), 1);
    let mut urgent = pod("urgent", 1, "900m");
    urgent["spec"]["priority"] = 1000.into();
    urgent["spec"]["schedulingGates"] = json!([{ "name": "later" }]);
    let urgent = ask(urgent).await.unwrap();
    assert_eq!((urgent.nominated.as_deref(), urgent.victims.first().map(|v| &**v)), (Some("n1"), Some("ns/small")));
    assert_eq!(urgent.waits_for, ["its scheduling gates to be removed"]);
    for (field, value, why) in [
        ("schedulerName", "mine", PreviewError::UnknownScheduler("mine".to_owned())),
        ("nodeName", "n1", PreviewError::HasNode("n1".to_owned())),
    ] {
        let mut other = pod("other", 1, "1");
        other["spec"][field] = value.into();
        assert_eq!(ask(other).await.unwrap_err(), why);
    }
    assert!(records.get("ns", "what-if").is_none() && records.get("ns", "small").is_some());

    api.grow.notify_one();
    until(&reconciles, "woken by Node n1 @9, a hint of NodeResourcesFit; ", "wrote create Pod ns/large (binding)")
        .await;
    handle.shutdown().await;
    assert_eq!(ask(pod("late", 1, "1")).await.unwrap_err(), PreviewError::NotRunning);
}
