//! Tables for the CronJob's plan: a CronJob, its Jobs and a time in, actions out.

use serde_json::{Value, from_value, json};

use super::*;

fn cron(spec: &Value, status: &Value) -> CronJob {
    let mut whole = json!({
        "schedule": "*/10 * * * *", "concurrencyPolicy": "Allow", "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
        "jobTemplate": {
            "metadata": { "labels": { "app": "tick" }, "annotations": { "a": "b" } },
            "spec": { "template": { "spec": { "containers": [{ "name": "c" }] } } },
        },
    });
    for (key, value) in spec.as_object().expect("members") {
        whole[key] = value.clone();
    }
    let metadata =
        json!({ "name": "tick", "namespace": "ns", "uid": "cron", "creationTimestamp": "2026-01-01T00:05:00Z" });
    from_value(json!({ "metadata": metadata, "spec": whole, "status": status })).expect("cron job")
}

/// A Job from a line such as `a Complete 00:10`: its name, its condition, when it started and ended.
fn job(line: &str) -> Arc<Job> {
    let words: Vec<_> = line.split(' ').collect();
    let time = words.get(2).map(|time| format!("2026-01-01T{time}:00Z"));
    let mut conditions = Vec::new();
    if let Some(condition) = words.get(1).filter(|word| **word != "Running") {
        conditions.push(json!({ "type": condition, "status": "True" }));
    }
    let status = json!({ "conditions": conditions, "startTime": time, "completionTime": time });
    Arc::new(from_value(json!({ "metadata": { "name": words[0], "uid": words[0] }, "status": status })).expect("job"))
}

fn planned(spec: Value, status: Value, jobs: &[&str], now: &str) -> plan::Plan {
    let cron = cron(&spec, &status);
    let jobs: Vec<_> = jobs.iter().map(|line| job(line)).collect();
    plan::plan(&cron, &jobs, &Owner::of(&cron), format!("2026-01-01T{now}Z").parse().expect("time"))
}

/// The plan in short: `+TIME` started, `-NAME` forgotten, `xNAME` replaced, and the reasons of events.
fn check(spec: Value, status: Value, jobs: &[&str], now: &str, expect: &str) {
    let plan = planned(spec.clone(), status.clone(), jobs, now);
    let mut words: Vec<_> = plan.start.iter().map(|start| format!("+{}", start.due.strftime("%H:%M"))).collect();
    words.extend(plan.forget.iter().map(|job| format!("-{}", meta::name(&**job))));
    words.extend(plan.replace.iter().map(|name| format!("x{name}")));
    words.extend(plan.events.iter().map(|(_, reason, _)| (*reason).to_owned()));
    assert_eq!(words.join(" "), expect, "{spec} {status} {jobs:?} at {now}");
}

fn last(time: &str, active: &[&str]) -> Value {
    let active: Vec<_> = active.iter().map(|name| json!({ "name": name, "uid": name })).collect();
    json!({ "lastScheduleTime": format!("2026-01-01T{time}:00Z"), "active": active })
}

#[test]
fn a_job_when_it_is_due() {
    let none = || json!({});
    check(none(), none(), &[], "00:09:59", "");
    check(none(), none(), &[], "00:10:00", "+00:10");
    check(none(), none(), &[], "00:25:00", "+00:20");
    check(none(), last("00:10", &[]), &[], "00:19:00", "");
    check(none(), last("00:10", &[]), &[], "00:20:03", "+00:20");
    check(json!({ "suspend": true }), none(), &[], "00:10:00", "");
    check(json!({ "startingDeadlineSeconds": 60 }), none(), &[], "00:12:00", "");
    check(json!({ "startingDeadlineSeconds": 300 }), none(), &[], "00:12:00", "+00:10");
    check(json!({ "schedule": "* * * * *" }), none(), &[], "23:00:30", "+23:00 TooManyMissedTimes");
    check(json!({ "schedule": "never" }), none(), &[], "00:10:00", "UnparseableSchedule");
    check(json!({ "timeZone": "Mars/Olympus" }), none(), &[], "00:10:00", "UnknownTimeZone");
    check(json!({ "schedule": "0 8 * * *", "timeZone": "Asia/Shanghai" }), none(), &[], "00:06:00", "");
    check(json!({ "schedule": "10 8 * * *", "timeZone": "Asia/Shanghai" }), none(), &[], "00:10:00", "+00:10");
    let wait = planned(none(), last("00:10", &[]), &[], "00:12:30").requeue_after;
    assert_eq!(wait.map(|wait| wait.as_secs()), Some(450));
}

#[test]
fn what_still_runs() {
    let policy = |word: &str| json!({ "concurrencyPolicy": word });
    let busy = || last("00:10", &["a"]);
    check(policy("Allow"), busy(), &["a Running"], "00:20:00", "+00:20");
    check(policy("Forbid"), busy(), &["a Running"], "00:20:00", "JobAlreadyActive");
    check(policy("Replace"), busy(), &["a Running"], "00:20:00", "+00:20 xa");
    check(policy("Forbid"), busy(), &["a Complete 00:11"], "00:20:00", "+00:20 SawCompletedJob");
    check(policy("Allow"), busy(), &[], "00:12:00", "MissingJob");
    check(policy("Allow"), last("00:10", &[]), &["m Running"], "00:12:00", "UnexpectedJob");
    let plan = planned(policy("Allow"), busy(), &["a Complete 00:11"], "00:12:00");
    assert_eq!(plan.status.active, None);
    assert_eq!(
        plan.status.last_successful_time.map(|time| time.0.to_string()).as_deref(),
        Some("2026-01-01T00:11:00Z")
    );
}

#[test]
fn history_has_limits() {
    let jobs = [
        "d Complete 00:40",
        "a Complete 00:10",
        "b Complete 00:20",
        "c Complete 00:30",
        "f Failed 00:15",
        "g Failed 00:25",
    ];
    check(json!({}), last("00:40", &[]), &jobs, "00:41:00", "-a -f");
    check(
        json!({ "successfulJobsHistoryLimit": 0, "failedJobsHistoryLimit": 5 }),
        last("00:40", &[]),
        &jobs,
        "00:41:00",
        "-a -b -c -d",
    );
}

#[test]
fn jobs_are_named_after_their_minute() {
    let start = planned(json!({ "timeZone": "Asia/Shanghai" }), json!({}), &[], "00:10:00").start.expect("a start");
    let job = serde_json::to_value(&start.job.metadata).expect("job");
    let expect = json!({
        "name": "tick-29453770", "namespace": "ns", "labels": { "app": "tick" },
        "annotations": { "a": "b", "batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-01-01T08:10:00+08:00" },
        "ownerReferences": [{
            "apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": "cron",
            "controller": true, "blockOwnerDeletion": true,
        }],
    });
    assert_eq!(job, expect);
    let status = plan::started(&CronJobStatus::default(), &start.job, start.due);
    assert_eq!(status.active.map(|active| active[0].name.clone()), Some(Some("tick-29453770".to_owned())));
}
