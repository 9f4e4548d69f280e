//! The definitions are the published ones, and take what their projects' manifests look like.

use addons::testing::{check_manifest, difference};
use serde_json::{Value, json};

use super::ADDON;

#[test]
fn definitions_have_the_facts_that_they_were_published_with() {
    assert_eq!(difference(&ADDON, include_str!("published.txt")), "");
}

#[test]
fn manifests_are_taken() {
    let check = |kind: &str, version: &str, spec: Value, defaulted: &[(&str, Value)]| {
        check_manifest(&ADDON, kind, version, &spec, defaulted);
    };
    let needs = json!({ "minMember": 4, "minResources": { "cpu": "500m", "nvidia.com/gpu": 4 } });
    check("PodGroup", "v1alpha1", needs, &[]);
    check("PodGroup", "v1beta1", json!({ "minMember": 4 }), &[("/spec/queue", json!("default"))]);
    check("Queue", "v1beta1", json!({ "capability": { "cpu": 8 } }), &[("/spec/weight", json!(1))]);
}
