//! What can be asked of components, and what is answered.

use informer::{Action, Cause, DurationMetric, ObjectKey, Reconciler, WorkQueue};
use tokio_util::sync::CancellationToken;

use super::*;

struct Scheduler;

impl Reconciler for Scheduler {
    const NAME: &'static str = "kube-scheduler";
    const DURATION: Option<DurationMetric> = None;
    const IS_PAUSABLE: bool = true;
}

struct Proxy;

impl Reconciler for Proxy {
    const NAME: &'static str = "kube-proxy";
    const DURATION: Option<DurationMetric> = None;
}

type Queue = WorkQueue<ObjectKey>;

/// Components of all sorts, and the queues of two.
fn components() -> (Stepping, [Queue; 2]) {
    let reconciles = Reconciles::default();
    let queues = ["deployment", "endpoint_slice"].map(|name| reconciles.queue(name));
    let _: [Queue; 2] = ["fake_node", "extra_node"].map(|name| reconciles.queue(name));
    reconciles.reporter::<Scheduler>();
    reconciles.reporter::<Proxy>();
    (Stepping { reconciles, resources: Arc::new([]) }, queues)
}

async fn ask(stepping: &Stepping, method: Method, path: &str) -> (u16, Value) {
    let uri = format!("/apis/{GROUP}/{VERSION}/components{path}");
    let request = Request::builder().method(method).uri(uri).body(Bytes::new()).expect("a request");
    let response = stepping.call(request).await;
    (response.status().as_u16(), serde_json::from_slice(response.body()).expect("JSON"))
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

#[tokio::test]
async fn components_are_found_by_their_names_and_groups() {
    let (stepping, _queues) = components();
    for (what, is_paused) in [("controllers", true), ("deployment", false), ("all", true)] {
        let (other, _queues) = components();
        ask(&other, Method::POST, &format!("/{what}/pause")).await;
        let _late: Queue = other.reconciles.queue("late");
        let (_, late) = ask(&other, Method::GET, "/late").await;
        assert_eq!(late["status"]["paused"], is_paused, "{what}: of an addon that starts now");
        let (_, resumed) = ask(&other, Method::POST, &format!("/{what}/resume")).await;
        assert_eq!(names(&resumed).contains(&"late"), is_paused);
    }
    for (what, expected) in [
        ("controllers", &["deployment", "endpoint_slice"][..]),
        ("kube-controller-manager", &["deployment", "endpoint_slice"]),
        ("scheduler", &["kube-scheduler"]),
        ("kubelet", &["fake_node"]),
        ("all", &["deployment", "endpoint_slice", "extra_node", "fake_node", "kube-scheduler"]),
        ("Deployments", &["deployment"]),
        ("endpoint-slice", &["endpoint_slice"]),
        ("extra_node", &["extra_node"]),
    ] {
        let (code, answer) = ask(&stepping, Method::POST, &format!("/{what}/pause")).await;
        assert_eq!((code, names(&answer)), (201, expected.to_vec()), "{what}");
        let (code, answer) = ask(&stepping, Method::POST, &format!("/{what}/resume")).await;
        assert_eq!((code, names(&answer)), (201, expected.to_vec()), "{what}");
        let (_, answer) = ask(&stepping, Method::POST, "/all/resume").await;
        assert!(names(&answer).is_empty(), "{what}: only what was paused is resumed");
    }
}

#[tokio::test]
async fn what_cannot_be_done_says_what_can() {
    let (stepping, _queues) = components();
    for (method, path, code, text) in [
        (
            Method::POST,
            "/deploymnt/pause",
            404,
            "nothing is called deploymnt; give controllers, scheduler, kubelet, all, or one of: deployment, endpoint_slice, ",
        ),
        (Method::POST, "/kube-proxy/pause", 404, "kube-proxy cannot be paused; give controllers, "),
        (Method::POST, "/deployment/step", 409, "deployment is not paused; pause it first: coracle pause deployment"),
        (Method::POST, "/all/step", 409, "nothing is paused; pause it first: coracle pause controllers"),
        (Method::POST, "/all/pause?dryRun=All", 400, "dryRun"),
        (Method::GET, "/other", 404, "not found"),
        (Method::GET, "/deployment/pause", 405, "not"),
        (Method::DELETE, "/deployment", 405, "not"),
        (Method::POST, "/deployment/stop", 404, "not"),
    ] {
        let (answered, status) = ask(&stepping, method, path).await;
        let message = status["message"].as_str().unwrap_or_default();
        assert!(answered == code && message.contains(text), "{path}: {answered} {message}");
    }
    let (_, all) = ask(&stepping, Method::GET, "").await;
    let paused = all["items"].as_array().expect("items").iter().filter(|item| item["status"]["paused"] == true);
    assert_eq!(paused.count(), 0, "nothing was changed");
}

#[tokio::test(start_paused = true)]
async fn the_key_that_has_waited_longest_is_stepped() {
    let (stepping, [deployments, slices]) = components();
    ask(&stepping, Method::POST, "/controllers/pause").await;
    let cancel = CancellationToken::new();
    let mut workers = Vec::new();
    for queue in [&deployments, &slices] {
        let reconcile = |_: ObjectKey| async { Ok::<_, String>(Action::AwaitChange.because("it is as it should be")) };
        workers.push(tokio::spawn(informer::run(queue.clone(), 2, cancel.clone(), reconcile)));
    }
    for (queue, name) in [(&slices, "first"), (&deployments, "second"), (&slices, "third")] {
        queue.add(ObjectKey::new("ns", name), Cause::new("a test"));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (_, shown) = ask(&stepping, Method::GET, "/endpoint_slice").await;
    assert_eq!((&shown["status"]["waiting"], &shown["status"]["group"]), (&json!(2), &json!("controllers")));
    assert_eq!(shown["status"]["next"], json!({ "key": "ns/first", "waitedMillis": 3000 }));

    for (what, component, key) in [
        ("all", "endpoint_slice", "ns/first"),
        ("controllers", "deployment", "ns/second"),
        ("endpoint_slice", "endpoint_slice", "ns/third"),
    ] {
        let (code, step) = ask(&stepping, Method::POST, &format!("/{what}/step")).await;
        let reconciles = step["status"]["reconciles"].as_array().expect("reconciles");
        assert_eq!((code, &step["metadata"]["name"], reconciles.len()), (201, &json!(component), 1));
        let reconcile = &reconciles[0];
        assert_eq!((&reconcile["key"], &reconcile["ending"]), (&json!(key), &json!("AwaitChange")));
        assert_eq!((&reconcile["causes"], &reconcile["reason"]), (&json!(["a test"]), &json!("it is as it should be")));
    }
    let (code, status) = ask(&stepping, Method::POST, "/deployment/step").await;
    let message = status["message"].as_str().unwrap_or_default();
    assert!(code == 409 && message.starts_with("there is nothing to do for deployment; "), "{message}");
    cancel.cancel();
    for worker in workers {
        worker.await.expect("it ends");
    }
}
