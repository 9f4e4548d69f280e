//! Tables for the Job's plan: a Job and its Pods in, actions and counts out.

use serde_json::{from_value, json};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().expect("time")
}

fn job(spec: &Value, status: &Value) -> Job {
    let mut whole = json!({
        "parallelism": 2, "completions": 3, "backoffLimit": 6, "completionMode": "NonIndexed",
        "selector": { "matchLabels": { "job": "pi" } }, "podReplacementPolicy": "TerminatingOrFailed",
        "template": { "metadata": { "labels": { "job": "pi" } }, "spec": { "containers": [{ "name": "c" }], "restartPolicy": "Never" } },
    });
    for (key, value) in spec.as_object().expect("members") {
        whole[key] = value.clone();
    }
    let metadata = json!({ "name": "pi", "namespace": "ns", "uid": "job", "generation": 1 });
    from_value(json!({ "metadata": metadata, "spec": whole, "status": status })).expect("job")
}

/// A Pod from a line such as `a Running`, `b Failed #2 exit=3 untracked at=00:30 after=1`.
fn pod(line: &str) -> Arc<Pod> {
    let mut words = line.split(' ');
    let name = words.next().expect("a name");
    let words: Vec<_> = words.collect();
    let has = |word: &str| words.contains(&word);
    let value = |prefix: &str| words.iter().find_map(|word| word.strip_prefix(prefix));
    let phase = ["Pending", "Failed", "Succeeded"].into_iter().find(|phase| has(phase)).unwrap_or("Running");
    let mut annotations = json!({});
    if let Some(index) = value("#") {
        annotations["batch.kubernetes.io/job-completion-index"] = index.into();
    }
    if let Some(failures) = value("after=") {
        annotations["batch.kubernetes.io/job-index-failure-count"] = failures.into();
    }
    let ended = format!("2026-01-01T{}:00Z", value("at=").unwrap_or("00:30"));
    let code: i32 = value("exit=").unwrap_or("1").parse().expect("a number");
    let state = match phase {
        "Failed" => json!({ "terminated": { "exitCode": code, "finishedAt": ended } }),
        "Succeeded" => json!({ "terminated": { "exitCode": 0, "finishedAt": ended } }),
        _ => json!({ "running": {} }),
    };
    let restarts: i32 = value("restarts=").unwrap_or("0").parse().expect("a number");
    let pod = json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": name, "annotations": annotations,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": if has("untracked") { json!([]) } else { json!(["batch.kubernetes.io/job-tracking"]) },
            "deletionTimestamp": has("deleting").then_some("2026-01-01T00:59:59Z"),
        },
        "spec": { "containers": [], "nodeName": "n" },
        "status": {
            "phase": phase, "containerStatuses": [{
                "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": restarts, "state": state,
            }],
        },
    });
    Arc::new(from_value(pod).expect("pod"))
}

fn planned(spec: Value, status: Value, pods: &[&str]) -> Plan {
    let job = job(&spec, &status);
    let pods: Vec<_> = pods.iter().map(|line| pod(line)).collect();
    plan::plan(&job, &pods, &Owner::of(&job), now())
}

/// The plan in short: `+` or `+INDEX` for each Pod created, `-NAME` deleted, `xNAME` discarded, `!NAME` untracked, and the
/// reasons of the conditions.
fn short(plan: &Plan) -> String {
    let names = |mark: char, pods: &[Arc<Pod>]| {
        pods.iter().map(|pod| format!("{mark}{}", meta::name(&**pod))).collect::<Vec<_>>()
    };
    let mut words: Vec<_> = plan
        .create
        .iter()
        .map(|pod| pod::index(pod).map_or_else(|| "+".to_owned(), |index| format!("+{index}")))
        .collect();
    words.extend(names('-', &plan.delete));
    words.extend(names('x', &plan.delete_uncounted));
    words.extend(names('!', &plan.remove_finalizers));
    let conditions = plan.status.conditions.iter().flatten();
    words.extend(conditions.map(|c| format!("{}={}", c.type_, c.reason.as_deref().unwrap_or_default())));
    words.join(" ")
}

fn check(spec: Value, pods: &[&str], expect: &str) {
    assert_eq!(short(&planned(spec.clone(), json!({}), pods)), expect, "{spec} {pods:?}");
}

#[test]
fn so_many_run_at_once_and_no_more_than_are_missing() {
    check(json!({}), &[], "+ +");
    check(json!({}), &["a", "b"], "");
    check(json!({}), &["a Succeeded", "b"], "+ !a");
    check(json!({}), &["a Succeeded", "b Succeeded", "c"], "!a !b");
    check(json!({ "parallelism": 1 }), &["a", "b"], "xa");
    check(json!({ "parallelism": 0 }), &["a"], "xa");
    check(json!({ "suspend": true }), &["a"], "xa Suspended=JobSuspended");
    // A work queue: no further Pod once one has succeeded.
    check(json!({ "completions": null }), &["a"], "+");
    check(json!({ "completions": null }), &["a Succeeded", "b"], "!a");
    check(json!({ "completions": null }), &["a Succeeded"], "!a SuccessCriteriaMet=CompletionsReached");
    // One that is deleted has failed, and is replaced after the back-off.
    check(json!({}), &["a deleting", "b"], "!a");
    check(json!({ "podReplacementPolicy": "Failed" }), &["a deleting", "b"], "");
}

#[test]
fn failures_are_waited_for() {
    let plan = planned(json!({}), json!({}), &["a Failed at=00:59", "b Failed at=00:59", "c Failed at=00:59"]);
    // Forty seconds after the third, which are over.
    assert_eq!(short(&plan), "+ + !a !b !c");
    let recent =
        ["a Failed at=00:59", "b Failed at=00:59", "c Failed at=00:59", "d Failed at=00:59", "e Failed at=00:59"];
    let plan = planned(json!({}), json!({}), &recent);
    assert_eq!((short(&plan).as_str(), plan.requeue_after.map(|wait| wait.as_secs())), ("!a !b !c !d !e", Some(100)));
    let mut with_success = recent.to_vec();
    with_success.push("s Succeeded at=00:59");
    assert_eq!(planned(json!({}), json!({}), &with_success).create.len(), 2, "a success wipes the slate clean");
    let waits: Vec<_> = (1..=8).map(|failures| pod::back_off(failures).as_secs()).collect();
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 360, 360]);
}

#[test]
fn limits_end_the_job() {
    let limit = || json!({ "backoffLimit": 1 });
    check(limit(), &["a Failed", "b"], "+ !a");
    check(limit(), &["a Failed", "b Failed", "c"], "-c !a !b !c FailureTarget=BackoffLimitExceeded");
    let on_failure = |restarts: &str| {
        let mut spec = limit();
        spec["template"] = json!({ "spec": { "containers": [], "restartPolicy": "OnFailure" } });
        short(&planned(spec, json!({}), &[restarts, "b"]))
    };
    assert_eq!(on_failure("a restarts=0"), "");
    assert_eq!(on_failure("a restarts=1"), "-a -b !a !b FailureTarget=BackoffLimitExceeded");
    let started = json!({ "startTime": "2026-01-01T00:59:00Z" });
    let plan = planned(json!({ "activeDeadlineSeconds": 90 }), started.clone(), &["a", "b"]);
    assert_eq!((short(&plan).as_str(), plan.requeue_after.map(|wait| wait.as_secs())), ("", Some(30)));
    let plan = planned(json!({ "activeDeadlineSeconds": 60 }), started, &["a", "b"]);
    assert_eq!(short(&plan), "-a -b !a !b FailureTarget=DeadlineExceeded");
}

#[test]
fn a_deadline_fails_a_job_whose_pods_exit_with_success_when_they_are_ended() {
    let spec = || json!({ "activeDeadlineSeconds": 60, "completions": 1, "parallelism": 1 });
    let status = |more: Value| {
        let mut status = json!({ "startTime": "2026-01-01T00:59:00Z" });
        status.as_object_mut().expect("members").extend(more.as_object().expect("members").clone());
        status
    };
    let target = json!({ "conditions": [{ "type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded" }] });
    // While it ends, as it has ended, and when it has been counted.
    let failing = "FailureTarget=DeadlineExceeded";
    assert_eq!(short(&planned(spec(), status(target.clone()), &["a deleting"])), format!("!a {failing}"));
    assert_eq!(short(&planned(spec(), status(target.clone()), &["a deleting Succeeded"])), format!("!a {failing}"));
    let mut counted = target;
    counted["uncountedTerminatedPods"] = json!({ "succeeded": ["a"] });
    let plan = planned(spec(), status(counted), &[]);
    assert_eq!(short(&plan), format!("{failing} Failed=DeadlineExceeded"));
    assert_eq!(plan.status.succeeded, Some(1), "the pod has, its Job has not");
    // The same where nothing was written before it ended: a restart in between makes no difference.
    assert_eq!(short(&planned(spec(), status(json!({})), &["a deleting Succeeded"])), format!("!a {failing}"));
}

/// Carries plans out until nothing changes: the counts, and how the Job ended.
fn settle_down(spec: &Value, pods: &[&str]) -> (Value, Vec<String>) {
    let mut job = job(spec, &json!({}));
    let mut pods: Vec<_> = pods.iter().map(|line| pod(line)).collect();
    let mut events = Vec::new();
    for _ in 0..10 {
        let plan = plan::plan(&job, &pods, &Owner::of(&job), now());
        events.extend(plan.events.iter().map(|(_, reason, message)| format!("{reason}: {message}")));
        let untracked: Vec<_> = plan.remove_finalizers.iter().map(|pod| meta::uid(&**pod).to_owned()).collect();
        let gone: Vec<_> =
            plan.delete.iter().chain(&plan.delete_uncounted).map(|pod| meta::uid(&**pod).to_owned()).collect();
        for pod in &mut pods {
            if untracked.iter().any(|uid| uid == meta::uid(&**pod)) {
                Arc::make_mut(pod).metadata.finalizers = None;
            }
        }
        pods.retain(|pod| !gone.iter().any(|uid| uid == meta::uid(&**pod)));
        job.status = Some(plan.status);
    }
    let mut status = serde_json::to_value(&job.status).expect("status");
    for key in ["startTime", "completionTime", "ready", "terminating"] {
        status.as_object_mut().expect("members").remove(key);
    }
    let conditions: Vec<_> = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|condition| format!("{}: {}", condition["type"], condition["reason"]).replace('"', ""))
        .collect();
    status["conditions"] = json!(conditions);
    (status, events)
}

#[test]
fn each_pod_is_counted_once() {
    let (status, events) = settle_down(&json!({}), &["a Succeeded", "b Succeeded", "c Succeeded", "d Failed"]);
    let expect = json!({
        "succeeded": 3, "failed": 1, "uncountedTerminatedPods": {},
        "conditions": ["SuccessCriteriaMet: CompletionsReached", "Complete: CompletionsReached"],
    });
    assert_eq!((status, events), (expect, vec!["Completed: Job completed".to_owned()]));
    let (status, events) = settle_down(&json!({ "backoffLimit": 0 }), &["a Failed", "b"]);
    let expect = json!({
        "failed": 2, "uncountedTerminatedPods": {},
        "conditions": ["FailureTarget: BackoffLimitExceeded", "Failed: BackoffLimitExceeded"],
    });
    let event = "BackoffLimitExceeded: Job has reached the specified backoff limit".to_owned();
    assert_eq!((status, events), (expect, vec![event]));
}

fn indexed(more: Value) -> Value {
    let mut spec = json!({ "completionMode": "Indexed", "completions": 4, "parallelism": 3 });
    spec.as_object_mut().expect("members").extend(more.as_object().expect("members").clone());
    spec
}

#[test]
fn indexes_are_filled_from_the_lowest() {
    check(indexed(json!({})), &[], "+0 +1 +2");
    check(indexed(json!({})), &["a #0 Succeeded", "b #1", "c #3"], "+2 !a");
    check(indexed(json!({})), &["a #1", "b #1", "c #7"], "xb xc");
    let (status, _) = settle_down(
        &indexed(json!({})),
        &["a #0 Succeeded", "b #1 Succeeded", "c #2 Succeeded", "d #3 Succeeded", "e #3 Succeeded"],
    );
    assert_eq!((&status["succeeded"], &status["completedIndexes"]), (&json!(4), &json!("0-3")));
    let plan = planned(indexed(json!({})), json!({}), &[]);
    let pod = serde_json::to_value(&plan.create[1]).expect("pod");
    assert_eq!(pod["metadata"]["generateName"], "pi-1-");
    assert_eq!(pod["metadata"]["annotations"], json!({ "batch.kubernetes.io/job-completion-index": "1" }));
    assert_eq!(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"], "1");
    assert_eq!(pod["metadata"]["finalizers"], json!(["batch.kubernetes.io/job-tracking"]));
    assert_eq!(pod["spec"]["hostname"], "pi-1");
    let field = "metadata.labels['batch.kubernetes.io/job-completion-index']";
    let env = json!([{ "name": "JOB_COMPLETION_INDEX", "valueFrom": { "fieldRef": { "fieldPath": field } } }]);
    assert_eq!(pod["spec"]["containers"][0]["env"], env);
}

#[test]
fn each_index_has_its_own_limit() {
    let spec = || indexed(json!({ "backoffLimitPerIndex": 1, "backoffLimit": i32::MAX, "parallelism": 4 }));
    // The Pod that failed stays tracked until it has a successor, which knows of it.
    let plan = planned(spec(), json!({}), &["a #0 Failed after=0", "b #1", "c #2", "d #3"]);
    assert_eq!(short(&plan), "+0");
    let annotations = plan.create[0].metadata.annotations.clone().expect("annotations");
    assert_eq!(annotations["batch.kubernetes.io/job-index-failure-count"], "1");
    let plan = planned(spec(), json!({}), &["a #0 Failed after=0", "e #0 after=1", "b #1", "c #2", "d #3"]);
    assert_eq!(short(&plan), "!a");
    let pods = ["e #0 Failed after=1", "b #1 Succeeded", "c #2 Succeeded", "d #3 Succeeded"];
    let (status, events) = settle_down(&spec(), &pods);
    assert_eq!((&status["failedIndexes"], &status["completedIndexes"]), (&json!("0"), &json!("1-3")));
    assert_eq!(events, ["FailedIndexes: Job has failed indexes"]);
    let mut strict = spec();
    strict["maxFailedIndexes"] = json!(0);
    check(strict, &["e #0 Failed after=1", "b #1"], "-b !e !b FailureTarget=MaxFailedIndexesExceeded");
}

#[test]
fn the_jobs_own_rules() {
    let failing = |action: &str, rule: Value| {
        let mut rule = rule;
        rule["action"] = action.into();
        json!({ "podFailurePolicy": { "rules": [rule] }, "backoffLimit": 0 })
    };
    let code = || json!({ "onExitCodes": { "operator": "In", "values": [42] } });
    check(failing("FailJob", code()), &["a Failed exit=42", "b"], "-b !a !b FailureTarget=PodFailurePolicy");
    check(failing("Ignore", code()), &["a Failed exit=42", "b"], "+ !a");
    check(failing("Count", code()), &["a Failed exit=42", "b"], "-b !a !b FailureTarget=BackoffLimitExceeded");
    check(failing("FailJob", code()), &["a Failed exit=1", "b"], "-b !a !b FailureTarget=BackoffLimitExceeded");
    let plan = planned(failing("FailJob", code()), json!({}), &["a Failed exit=42"]);
    let message = plan.status.conditions.and_then(|conditions| conditions[0].message.clone());
    let expect = "Container c for pod ns/a failed with exit code 42 matching FailJob rule at index 0";
    assert_eq!(message.as_deref(), Some(expect));
    let enough = |rule: Value| indexed(json!({ "successPolicy": { "rules": [rule] } }));
    let pods = ["a #0 Succeeded", "b #1", "c #2"];
    check(enough(json!({ "succeededIndexes": "0" })), &pods, "-b -c !a !b !c SuccessCriteriaMet=SuccessPolicy");
    check(enough(json!({ "succeededIndexes": "0,1" })), &pods, "+3 !a");
    check(
        enough(json!({ "succeededIndexes": "0-3", "succeededCount": 1 })),
        &pods,
        "-b -c !a !b !c SuccessCriteriaMet=SuccessPolicy",
    );
    check(enough(json!({ "succeededCount": 2 })), &pods, "+3 !a");
}
