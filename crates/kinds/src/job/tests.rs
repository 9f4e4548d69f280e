//! Tables: defaults, validation, cells of Jobs and CronJobs.

use registry::kind::Kind;
use serde_json::{Value, json};

use super::{CronJob, Job, NAME_LABEL, generate_selector, template_labels};
use crate::testing::{CREATED, defaulted, errors, row, update_errors, with};

fn template() -> Value {
    json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x:1"}]}})
}

fn job() -> Value {
    json!({
        "metadata": {"name": "x", "namespace": "default", "uid": "u", "creationTimestamp": CREATED},
        "spec": {
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
            "template": with(template(), "/metadata", json!({"labels": {"batch.kubernetes.io/controller-uid": "u"}})),
        },
    })
}

fn cron_job() -> Value {
    json!({
        "metadata": {"name": "x", "namespace": "default", "creationTimestamp": CREATED},
        "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": template()}}},
    })
}

#[test]
fn defaults() {
    let spec = |value: Value| serde_json::to_value(defaulted::<Job>(value).spec).expect("JSON");
    let value = spec(job());
    for (field, expect) in [
        ("completions", json!(1)),
        ("parallelism", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
    ] {
        assert_eq!(value[field], expect, "{field}");
    }
    let queue = spec(with(job(), "/spec/parallelism", json!(3)));
    assert_eq!((&queue["completions"], &queue["parallelism"]), (&Value::Null, &json!(3)));
    let cron = serde_json::to_value(defaulted::<CronJob>(cron_job())).expect("JSON");
    for (field, expect) in [
        ("concurrencyPolicy", json!("Allow")),
        ("suspend", json!(false)),
        ("successfulJobsHistoryLimit", json!(3)),
        ("failedJobsHistoryLimit", json!(1)),
        // Gaps in what a Job is made of are filled in when it is.
        ("jobTemplate", json!({"metadata": {}, "spec": cron["spec"]["jobTemplate"]["spec"]})),
    ] {
        assert_eq!(cron["spec"][field], expect, "{field}");
    }
    for field in ["completions", "parallelism", "backoffLimit", "completionMode", "suspend", "podReplacementPolicy"] {
        assert_eq!(cron["spec"]["jobTemplate"]["spec"][field], Value::Null, "{field}");
    }
}

#[test]
fn a_job_without_labels_has_those_of_its_pods() {
    let mut created =
        defaulted::<Job>(json!({ "metadata": {"name": "x", "uid": "u"}, "spec": {"template": template()} }));
    generate_selector(&mut created);
    assert_eq!(created.spec.as_ref().and_then(|spec| spec.manual_selector), Some(false));
    let labels = template_labels(&created);
    assert!(labels.as_ref().is_some_and(|labels| labels[NAME_LABEL] == "x"), "{labels:?}");
    assert_eq!(created.metadata.labels, labels);
}

#[test]
fn the_selector_is_generated() {
    let mut object = defaulted::<Job>(json!({
        "metadata": {"name": "x", "uid": "u"}, "spec": {"template": template()},
    }));
    generate_selector(&mut object);
    assert!(Job::validate(&object).is_empty());
    let value = serde_json::to_value(&object).expect("JSON");
    assert_eq!(
        value.pointer("/spec/selector"),
        Some(&json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}))
    );
    assert_eq!(
        value.pointer("/spec/template/metadata/labels"),
        Some(&json!({"batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "x",
            "controller-uid": "u", "job-name": "x"}))
    );
}

#[test]
fn validation() {
    let cases: [(&str, Value, &[&str]); 5] = [
        ("/metadata/annotations", json!({}), &[]),
        (
            "/spec/template/spec/restartPolicy",
            json!("Always"),
            &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
        ),
        ("/spec/completions", json!(-1), &["spec.completions: Invalid value: -1: must be greater than or equal to 0"]),
        (
            "/spec/completionMode",
            json!("Odd"),
            &["spec.completionMode: Unsupported value: \"Odd\": supported values: \"NonIndexed\", \"Indexed\""],
        ),
        (
            "/spec/backoffLimitPerIndex",
            json!(1),
            &["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
        ),
    ];
    for (pointer, value, expect) in cases {
        assert_eq!(errors::<Job>(with(job(), pointer, value)), expect, "{pointer}");
    }
    assert_eq!(update_errors::<Job>(job(), with(job(), "/spec/parallelism", json!(2))).len(), 1, "completions were 1");
    assert_eq!(update_errors::<Job>(job(), with(job(), "/spec/suspend", json!(true))), [""; 0]);
    let moved = with(job(), "/spec/template/spec/nodeSelector", json!({"a": "b"}));
    assert!(update_errors::<Job>(job(), moved.clone())[0].starts_with("spec.template: Invalid value: "));
    let suspended = |value: Value| with(value, "/spec/suspend", json!(true));
    assert_eq!(update_errors::<Job>(suspended(job()), suspended(moved)), [""; 0]);
}

#[test]
fn an_indexed_job_grows_with_its_parallelism() {
    let indexed = |completions: i32, parallelism: i32| {
        let job = with(job(), "/spec/completionMode", json!("Indexed"));
        with(with(job, "/spec/completions", json!(completions)), "/spec/parallelism", json!(parallelism))
    };
    let alone = "spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism";
    assert_eq!(update_errors::<Job>(indexed(2, 2), indexed(3, 2)), [alone]);
    assert_eq!(update_errors::<Job>(indexed(2, 2), indexed(3, 3)), [""; 0]);
    assert_eq!(update_errors::<Job>(indexed(5, 2), indexed(2, 2)), [""; 0], "what was before does not matter");
    assert_eq!(update_errors::<Job>(indexed(5, 2), indexed(5, 1)), [""; 0]);
    let fixed = |completions: i32| with(job(), "/spec/completions", json!(completions));
    assert_eq!(update_errors::<Job>(fixed(2), fixed(3)), ["spec.completions: Invalid value: 3: field is immutable"]);
}

#[test]
fn policies() {
    let check = |fields: Value, expected: &[&str]| {
        let mut object = with(job(), "/spec/completions", json!(4));
        object["spec"].as_object_mut().expect("fields").extend(fields.as_object().expect("fields").clone());
        assert_eq!(errors::<Job>(object), expected, "{fields}");
    };
    let fails = |rule: Value, expected: &[&str]| {
        let expected: Vec<String> =
            expected.iter().map(|error| format!("spec.podFailurePolicy.rules[0]{error}")).collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check(json!({"podFailurePolicy": {"rules": [rule]}}), &expected);
    };
    fails(
        json!({"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [1, 42]}}),
        &[],
    );
    fails(json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}), &[]);
    fails(
        json!({"action": "Zap"}),
        &[
            ".action: Unsupported value: \"Zap\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\"",
            ": Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
        ],
    );
    fails(
        json!({"action": "FailIndex", "onPodConditions": [{"type": "a b", "status": "Maybe"}],
            "onExitCodes": {"containerName": "other", "operator": "In", "values": [3, 0, 3]}}),
        &[
            ".action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
            ".onExitCodes.containerName: Invalid value: \"other\": must be one of the container or initContainer names in \
             the pod template",
            ".onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
            ".onExitCodes.values[2]: Duplicate value: 3",
            ".onExitCodes.values: Invalid value: [3,0,3]: must be ordered",
            ".onPodConditions[0].type: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' \
             or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or \
             '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ".onPodConditions[0].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \"Unknown\"",
            ": Invalid value: specifying both OnExitCodes and OnPodConditions is not supported",
        ],
    );
    check(
        json!({"podFailurePolicy": {"rules": []}, "podReplacementPolicy": "TerminatingOrFailed"}),
        &["spec.podReplacementPolicy: Unsupported value: \"TerminatingOrFailed\": supported values: \"Failed\""],
    );
    check(
        json!({"successPolicy": {"rules": []}}),
        &["spec.successPolicy: Invalid value: {\"rules\":[]}: requires indexed completion mode"],
    );
    let succeeds = |rules: Value, expected: &[&str]| {
        let expected: Vec<String> = expected.iter().map(|error| format!("spec.successPolicy.rules{error}")).collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check(json!({"completionMode": "Indexed", "successPolicy": {"rules": rules}}), &expected);
    };
    succeeds(json!([{"succeededIndexes": "0,2-3", "succeededCount": 3}]), &[]);
    succeeds(
        json!([]),
        &[": Required value: at least one rules must be specified when the successPolicy is specified"],
    );
    succeeds(
        json!([{}]),
        &["[0]: Required value: at least one of succeededCount or succeededIndexes must be specified"],
    );
    succeeds(
        json!([{"succeededIndexes": "0,2", "succeededCount": 3}]),
        &[
            "[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified \
           succeededIndexes field)",
        ],
    );
    for (indexes, why) in [
        ("2-1", "non-increasing order, previous: 2, current: 1"),
        (
            "0-1-2",
            "the fragment \"0-1-2\" violates the requirement that an index interval can have at most two parts \
                   separated by '-'",
        ),
        ("x", "cannot convert string to integer for index: \"x\""),
        ("4", "too large index: \"4\""),
    ] {
        let expected =
            format!("[0].succeededIndexes: Invalid value: \"{indexes}\": error parsing succeededIndexes: {why}");
        succeeds(json!([{"succeededIndexes": indexes}]), &[&expected]);
    }
}

#[test]
fn schedules() {
    for (schedule, why) in [
        ("*/5 * * * *", ""),
        ("0 9-17/2 1,15 jan-mar MON-fri", ""),
        ("@hourly", ""),
        ("", "Required value"),
        ("* * * *", "Invalid value: \"* * * *\": expected exactly 5 fields, found 4: [* * * *]"),
        ("60 * * * *", "Invalid value: \"60 * * * *\": end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "Invalid value: \"* * 0 * *\": beginning of range (0) below minimum (1): 0"),
        ("*/0 * * * *", "Invalid value: \"*/0 * * * *\": step of range should be a positive number: */0"),
        ("a * * * *", "Invalid value: \"a * * * *\": failed to parse int from a"),
        ("@never", "Invalid value: \"@never\": unrecognized descriptor: @never"),
        (
            "TZ=UTC * * * * *",
            "Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        ),
    ] {
        let expect: Vec<String> =
            [why].iter().filter(|why| !why.is_empty()).map(|why| format!("spec.schedule: {why}")).collect();
        assert_eq!(errors::<CronJob>(with(cron_job(), "/spec/schedule", json!(schedule))), expect, "{schedule:?}");
    }
    for (zone, expect) in [
        ("Europe/Berlin", vec![]),
        ("Mars/Olympus", vec!["spec.timeZone: Invalid value: \"Mars/Olympus\": unknown time zone Mars/Olympus"]),
    ] {
        assert_eq!(errors::<CronJob>(with(cron_job(), "/spec/timeZone", json!(zone))), expect);
    }
}

#[test]
fn cells() {
    let mut done = with(job(), "/spec/completions", json!(2));
    done["status"] = json!({"succeeded": 2, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:45Z",
        "conditions": [{"type": "Complete", "status": "True"}]});
    assert_eq!(
        row::<Job>(done),
        ["x", "Complete", "2/2", "45s", "10m", "c", "x:1", "batch.kubernetes.io/controller-uid=u"]
    );
    let mut queue = with(job(), "/spec/parallelism", json!(3));
    queue["status"] = json!({"startTime": "2026-01-01T00:05:00Z"});
    assert_eq!(row::<Job>(queue)[1..4], ["Running", "0/1 of 3", "5m"]);
    let mut cron = with(cron_job(), "/spec/suspend", json!(true));
    cron["status"] = json!({"lastScheduleTime": "2026-01-01T00:05:00Z", "active": [{}]});
    assert_eq!(
        row::<CronJob>(cron),
        [
            json!("x"),
            json!("*/5 * * * *"),
            json!("<none>"),
            json!("True"),
            json!(1),
            json!("5m"),
            json!("10m"),
            json!("c"),
            json!("x:1"),
            json!("<none>")
        ]
    );
}
