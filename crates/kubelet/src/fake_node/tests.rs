//! Tables: objects in, what is written out.

use serde_json::{from_value, json};

use super::*;

const NOW: &str = "2026-01-01T00:01:00Z";

fn now() -> Timestamp {
    NOW.parse().expect("a time")
}

fn act(meta: Value, spec: Value, status: Value) -> PodAction {
    let mut pod = json!({ "metadata": meta, "spec": spec, "status": status });
    pod["metadata"]["name"] = "p".into();
    pod["metadata"]["uid"] = "u".into();
    if pod["spec"].get("containers").is_none() {
        pod["spec"]["containers"] = json!([{ "name": "c", "image": "i" }]);
    }
    let pod: Pod = from_value(pod).expect("a pod");
    pod::plan(&pod, None, "198.18.0.1", || "198.18.0.9".to_owned(), now())
}

/// The part of the status that is written, at `pointer`.
fn part(act: &PodAction, pointer: &str) -> Value {
    match act {
        PodAction::Status(patch) => patch["status"].pointer(pointer).cloned().unwrap_or_default(),
        other => panic!("{other:?}"),
    }
}

fn ready(act: &PodAction) -> Value {
    let conditions = part(act, "/conditions");
    let conditions = conditions.as_array().expect("conditions");
    conditions.iter().find(|condition| condition["type"] == "Ready").expect("Ready")["status"].clone()
}

fn running(ready: &str) -> Value {
    let state = json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } });
    json!({ "phase": "Running", "startTime": "2026-01-01T00:00:00Z", "conditions": [
        { "type": "Ready", "status": ready }, { "type": "ContainersReady", "status": "True" },
        { "type": "Initialized", "status": "True" }],
        "containerStatuses": [{ "name": "c", "image": "i", "imageID": "", "ready": true, "started": true, "restartCount": 0, "state": state }] })
}

#[test]
fn a_bound_pod_runs_at_once() {
    let begun = act(json!({}), json!({}), json!({ "phase": "Pending" }));
    assert_eq!(part(&begun, "/phase"), "Running");
    assert_eq!((part(&begun, "/podIP"), part(&begun, "/hostIP")), (json!("198.18.0.9"), json!("198.18.0.1")));
    assert_eq!(part(&begun, "/containerStatuses/0/ready"), true);
    assert_eq!(ready(&begun), "True");
    assert_eq!(act(json!({}), json!({}), running("True")), PodAction::Nothing, "once");
    let host = act(json!({}), json!({ "hostNetwork": true }), json!({}));
    assert_eq!(part(&host, "/podIP"), "198.18.0.1");

    let inits = json!({ "initContainers": [{ "name": "a" }, { "name": "b", "restartPolicy": "Always" }] });
    let begun = act(json!({}), inits, json!({}));
    assert_eq!(part(&begun, "/initContainerStatuses/0/state/terminated/exitCode"), 0);
    assert_eq!(part(&begun, "/initContainerStatuses/1/state/running/startedAt"), NOW);
}

#[test]
fn readiness_gates_are_waited_for() {
    let gate = json!({ "readinessGates": [{ "conditionType": "g" }] });
    assert_eq!(ready(&act(json!({}), gate.clone(), json!({}))), "False");
    assert_eq!(act(json!({}), gate.clone(), running("False")), PodAction::Nothing);
    let mut open = running("False");
    let gates = open["conditions"].as_array_mut().expect("conditions");
    gates.push(json!({ "type": "g", "status": "True" }));
    assert_eq!(ready(&act(json!({}), gate, open)), "True");
}

#[test]
fn a_deleted_pod_goes_and_one_that_is_held_ends_first() {
    let deleted = |grace: i64, finalizers: Value| json!({ "deletionTimestamp": NOW, "deletionGracePeriodSeconds": grace, "finalizers": finalizers });
    assert_eq!(act(deleted(30, json!([])), json!({}), running("True")), PodAction::Delete);
    let held = act(deleted(30, json!(["f"])), json!({}), running("True"));
    assert_eq!((part(&held, "/phase"), ready(&held)), (json!("Failed"), json!("False")));
    assert_eq!(act(deleted(30, json!(["f"])), json!({}), json!({ "phase": "Failed" })), PodAction::Delete);
    assert_eq!(act(deleted(0, json!(["f"])), json!({}), json!({ "phase": "Failed" })), PodAction::Nothing);
}

#[test]
fn pods_of_jobs_complete() {
    let owner = json!([{ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": true }]);
    let done = act(json!({ "ownerReferences": owner }), json!({}), json!({}));
    assert_eq!(part(&done, "/phase"), "Succeeded");
    assert_eq!(part(&done, "/containerStatuses/0/state/terminated/reason"), "Completed");
    let slow = |delay: &str| json!({ "ownerReferences": owner, "annotations": { "pod-complete.stage.kwok.x-k8s.io/delay": delay } });
    assert_eq!(part(&act(slow("90s"), json!({}), json!({})), "/phase"), "Running");
    assert_eq!(act(slow("1m30s"), json!({}), running("True")), PodAction::Later(std::time::Duration::from_secs(30)));
    assert_eq!(part(&act(slow("59s"), json!({}), running("True")), "/phase"), "Succeeded");
}

#[test]
fn a_deadline_ends_a_pod() {
    let spec = |seconds: i64| json!({ "activeDeadlineSeconds": seconds });
    assert_eq!(act(json!({}), spec(90), running("True")), PodAction::Later(std::time::Duration::from_secs(30)));
    let over = act(json!({}), spec(60), running("True"));
    assert_eq!((part(&over, "/phase"), part(&over, "/reason")), (json!("Failed"), json!("DeadlineExceeded")));
    assert_eq!(part(&over, "/message"), "Pod was active on the node longer than the specified deadline");
    // A Job's pod that would have completed by then has.
    let owner = json!([{ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": true }]);
    let delay = |delay: &str| json!({ "ownerReferences": owner, "annotations": { "pod-complete.stage.kwok.x-k8s.io/delay": delay } });
    assert_eq!(part(&act(delay("30s"), spec(40), running("True")), "/phase"), "Succeeded");
    assert_eq!(part(&act(delay("50s"), spec(40), running("True")), "/phase"), "Failed");
}

#[test]
fn a_node_gets_what_it_lacks_and_keeps_what_it_has() {
    let plan = |status: Value| {
        let node = json!({ "metadata": { "name": "n" }, "status": status });
        node::plan(&from_value(node).expect("a node"), "198.18.0.1".to_owned(), "v1.36.0", now())
    };
    let fresh = plan(json!({})).expect("everything is missing")["status"].clone();
    assert_eq!(fresh["conditions"].as_array().map(Vec::len), Some(4));
    assert_eq!(fresh["addresses"][0]["address"], "198.18.0.1");
    assert_eq!((&fresh["allocatable"]["cpu"], &fresh["capacity"]["pods"]), (&json!("1k"), &json!("1M")));
    assert_eq!(plan(fresh.clone()), None, "then it is complete");

    let mut given = fresh;
    given["capacity"] = json!({ "cpu": "4", "nvidia.com/gpu": "8" });
    given["allocatable"] = json!({});
    given["conditions"][3]["status"] = "False".into();
    let patch = plan(given.clone()).expect("allocatable is missing");
    assert_eq!(patch["status"], json!({ "allocatable": { "cpu": "4", "nvidia.com/gpu": "8" } }));
    given["conditions"][3]["status"] = "Unknown".into();
    assert_eq!(plan(given).expect("unknown")["status"]["conditions"][0]["status"], "True");
}
