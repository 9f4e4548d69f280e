//! Stories: what becomes of a pod as time passes, one line for each status that is written.

use std::fmt::Write;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, from_value, json};

use super::super::pod::{PodAction, plan};
use super::*;

/// A pod with these annotations of stages, without the end of their names.
fn pod(annotations: &[(&str, &str)], spec: &Value) -> Value {
    let annotations: serde_json::Map<String, Value> = annotations
        .iter()
        .map(|(name, value)| {
            let (stage, field) = name.split_once('/').expect("STAGE/FIELD");
            (format!("{stage}.stage.kwok.x-k8s.io/{field}"), (*value).into())
        })
        .collect();
    let mut pod = json!({
        "metadata": { "name": "p", "uid": "u", "annotations": annotations },
        "spec": { "restartPolicy": "Always", "containers": [{ "name": "c", "image": "i" }] },
        "status": { "phase": "Pending", "conditions": [
            { "type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }] },
    });
    for (field, value) in spec.as_object().expect("an object") {
        pod["spec"][field] = value.clone();
    }
    pod
}

/// What is written until nothing more happens or it is `until` seconds after the binding.
fn story(mut object: Value, until: i64) -> String {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    let mut now = start;
    let mut story = String::new();
    for _ in 0..100 {
        let pod: Pod = from_value(object.clone()).expect("a pod");
        match plan(&pod, None, "198.18.0.1", || "198.18.0.9".to_owned(), now) {
            PodAction::Status(patch) => {
                for (field, value) in patch["status"].as_object().expect("a status") {
                    object["status"][field] = value.clone();
                }
                let seconds = between(start, now).as_secs();
                let _ = write!(story, "{seconds}: {} | ", told(&object["status"]));
            }
            PodAction::Later(wait) => {
                now = after(now, wait);
                if between(start, now).as_secs() > u64::try_from(until).expect("a time") {
                    return story;
                }
            }
            PodAction::Nothing | PodAction::Delete => return story,
        }
    }
    panic!("it does not come to an end: {story}");
}

/// `Running R c=running#1(Error 1)`
fn told(status: &Value) -> String {
    let conditions = status["conditions"].as_array().expect("conditions");
    let ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
    let mut text = format!("{}{}", status["phase"].as_str().expect("a phase"), if ready { " ready" } else { "" });
    for list in ["initContainerStatuses", "containerStatuses"] {
        for one in status[list].as_array().into_iter().flatten() {
            let (kind, state) = one["state"].as_object().expect("a state").iter().next().expect("one");
            let state = match (kind.as_str(), state["reason"].as_str(), state["exitCode"].as_i64()) {
                ("running", ..) => "running".to_owned(),
                (_, Some(reason), Some(code)) => format!("{reason}({code})"),
                (_, reason, _) => reason.unwrap_or_default().to_owned(),
            };
            let _ = write!(text, " {}={state}", one["name"].as_str().expect("a name"));
            match one["restartCount"].as_i64() {
                Some(0) | None => {}
                Some(count) => {
                    let _ = write!(text, "#{count}");
                }
            }
        }
    }
    text
}

fn check(annotations: &[(&str, &str)], spec: &Value, until: i64, expected: &str) {
    assert_eq!(story(pod(annotations, spec), until).trim_end_matches(" | "), expected, "{annotations:?}");
}

#[test]
fn stages_take_their_time() {
    let none = json!({});
    check(&[("pod-create/delay", "2s")], &none, 99, "2: Running ready c=running");
    check(&[("pod-ready/delay", "3s")], &none, 99, "0: Pending c=ContainerCreating | 3: Running ready c=running");
    check(&[("pod-readiness/delay", "1m")], &none, 99, "0: Running c=running | 60: Running ready c=running");
    check(
        &[("pod-create/delay", "1s"), ("pod-ready/delay", "2s"), ("pod-readiness/delay", "4s")],
        &none,
        99,
        "1: Pending c=ContainerCreating | 3: Running c=running | 7: Running ready c=running",
    );
    let inits = json!({ "initContainers": [{ "name": "a" }, { "name": "s", "restartPolicy": "Always" }] });
    check(
        &[
            ("pod-init-container-running/delay", "1s"),
            ("pod-init-container-completed/delay", "2s"),
            ("pod-ready/delay", "1s"),
        ],
        &inits,
        99,
        "0: Pending a=PodInitializing s=PodInitializing c=PodInitializing | 1: Pending a=running s=running c=PodInitializing \
         | 3: Pending a=Completed(0) s=running c=PodInitializing | 4: Running ready a=Completed(0) s=running c=running",
    );
}

#[test]
fn what_fails_is_started_again_as_the_policy_says() {
    let failing = [("pod-container-failed/exit-code", "3"), ("pod-container-failed/delay", "5s")];
    check(
        &failing,
        &json!({}),
        50,
        "0: Running ready c=running | 5: Running ready c=running#1 | 10: Running c=CrashLoopBackOff#1 \
         | 20: Running ready c=running#2 | 25: Running c=CrashLoopBackOff#2 | 45: Running ready c=running#3 \
         | 50: Running c=CrashLoopBackOff#3",
    );
    check(&failing, &json!({ "restartPolicy": "Never" }), 99, "0: Running ready c=running | 5: Failed c=Error(3)");
    let two = json!({ "restartPolicy": "Never", "containers": [{ "name": "c" }, { "name": "d" }] });
    check(
        &[("pod-container-failed/name", "d"), ("pod-container-failed/reason", "OOMKilled")],
        &two,
        99,
        "0: Running ready c=running d=running | 0: Running c=running d=OOMKilled(1)",
    );
    let restart = [("pod-container-failed/delay", "5s"), ("pod-container-restart/delay", "1s")];
    check(
        &restart,
        &json!({}),
        12,
        "0: Running ready c=running | 5: Running c=CrashLoopBackOff | 6: Running ready c=running#1 | 11: Running c=CrashLoopBackOff#1 | 12: Running ready c=running#2",
    );
    let inits = json!({ "initContainers": [{ "name": "a" }] });
    let init = [("pod-init-container-failed/name", "a"), ("pod-init-container-failed/delay", "2s")];
    check(
        &init,
        &inits,
        10,
        "0: Pending a=running c=PodInitializing | 2: Pending a=running#1 c=PodInitializing | 4: Pending a=CrashLoopBackOff#1 c=PodInitializing",
    );
    let never = json!({ "initContainers": [{ "name": "a" }], "restartPolicy": "Never" });
    check(&init, &never, 99, "0: Pending a=running c=PodInitializing | 2: Failed a=Error(1) c=PodInitializing");
}

#[test]
fn a_pod_ends_in_the_first_way_that_comes() {
    let never = json!({ "restartPolicy": "Never" });
    check(&[("pod-complete/delay", "9s")], &never, 99, "0: Running ready c=running | 9: Succeeded c=Completed(0)");
    check(&[("pod-complete/delay", "9s")], &json!({}), 99, "0: Running ready c=running");
    let deadline = json!({ "restartPolicy": "Never", "activeDeadlineSeconds": 5 });
    check(&[("pod-complete/delay", "9s")], &deadline, 99, "0: Running ready c=running | 5: Failed c=Error(137)");
    let mut fatal = pod(
        &[("pod-container-running-failed/delay", "4s"), ("pod-container-running-failed/exit-code", "2")],
        &json!({}),
    );
    fatal["metadata"]["labels"] = json!({ "pod-container-running-failed.stage.kwok.x-k8s.io": "true" });
    assert_eq!(story(fatal.clone(), 99), "0: Running ready c=running | 4: Failed c=containerFailed(2) | ");
    fatal["metadata"]["labels"] = json!({});
    assert_eq!(story(fatal, 99), "0: Running ready c=running | ");
    let mut job = pod(&[("pod-ready/delay", "2s"), ("pod-complete/delay", "3s")], &never);
    job["metadata"]["ownerReferences"] = json!([{ "kind": "Job", "name": "j", "controller": true }]);
    assert_eq!(
        story(job, 99),
        "0: Pending c=ContainerCreating | 2: Running ready c=running | 5: Succeeded c=Completed(0) | "
    );
}
