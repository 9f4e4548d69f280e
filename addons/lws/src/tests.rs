//! The definition is the published one, takes what the project's manifests look like, and refuses what cannot be done.

use addons::testing::{check_manifest, difference, schema};
use serde_json::{Value, json};

use super::ADDON;

#[test]
fn the_definition_has_the_facts_that_it_was_published_with() {
    assert_eq!(difference(&ADDON, include_str!("published.txt")), "");
}

#[test]
fn manifests_are_taken() {
    let template = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "main", "image": "nginx" }] } });
    check_manifest(
        &ADDON,
        "LeaderWorkerSet",
        "v1",
        &json!({ "replicas": 2, "leaderWorkerTemplate": { "size": 4, "workerTemplate": template } }),
        &[
            ("/spec/startupPolicy", json!("LeaderCreated")),
            ("/spec/leaderWorkerTemplate/restartPolicy", json!("RecreateGroupOnPodRestart")),
        ],
    );
}

#[test]
fn what_cannot_be_done_is_refused() {
    let check = |template: Value, rolling: Value, expected: &str| {
        let schema = schema(&ADDON, "LeaderWorkerSet", "v1");
        let mut object = json!({ "spec": {
            "leaderWorkerTemplate": template, "rolloutStrategy": { "rollingUpdateConfiguration": rolling } } });
        object["spec"]["leaderWorkerTemplate"]["workerTemplate"] = json!({});
        schema.default(&mut object);
        let around = [("kind", json!("LeaderWorkerSet")), ("metadata", json!({ "name": "x" }))];
        assert_eq!(schema.evaluate((&object, &around), None).to_string(), expected);
    };
    let rolling = |unavailable: Value, surge: Value| json!({ "maxUnavailable": unavailable, "maxSurge": surge });
    let nothing = "spec.rolloutStrategy.rollingUpdateConfiguration.maxUnavailable: Invalid value: must not be 0 when \
                   `maxSurge` is 0";
    check(json!({}), json!({}), "[]");
    check(json!({}), rolling(json!(0), json!("10%")), "[]");
    check(json!({}), rolling(json!(0), json!(0)), nothing);
    check(json!({}), rolling(json!("0%"), json!(0)), nothing);
    let groups = |size: u32, of: u32, kind: &str| json!({ "size": size, "subGroupPolicy": { "subGroupSize": of, "subGroupPolicyType": kind } });
    let place = "spec.leaderWorkerTemplate.subGroupPolicy.subGroupSize: Invalid value: ";
    check(groups(4, 2, "LeaderWorker"), json!({}), "[]");
    check(groups(5, 2, "LeaderWorker"), json!({}), "[]");
    check(
        groups(5, 3, "LeaderWorker"),
        json!({}),
        &format!("{place}size or size - 1 must be divisible by subGroupSize"),
    );
    check(
        groups(4, 2, "LeaderExcluded"),
        json!({}),
        &format!("{place}size or size - 1 must be divisible by subGroupSize"),
    );
    check(groups(2, 3, "LeaderWorker"), json!({}), &format!("{place}subGroupSize cannot be larger than size"));
}
