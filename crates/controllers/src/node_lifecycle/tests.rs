//! Tables for the plan of a node.

use serde_json::{Value, from_value, json};

use super::plan::plan;
use super::*;

fn node(ready: Option<&str>, spec: Value) -> Node {
    let conditions: Vec<Value> = ready
        .iter()
        .map(|ready| json!({ "type": "Ready", "status": ready, "lastHeartbeatTime": "2026-01-01T00:00:00Z" }))
        .collect();
    from_value(json!({
        "metadata": { "name": "n", "creationTimestamp": "2025-01-01T00:00:00Z" },
        "spec": spec, "status": { "conditions": conditions },
    }))
    .expect("node")
}

fn words(taints: Option<Vec<Taint>>) -> Option<Vec<String>> {
    let word = |taint: Taint| format!("{}:{}", taint.key.trim_start_matches("node.kubernetes.io/"), taint.effect);
    taints.map(|taints| taints.into_iter().map(word).collect())
}

#[test]
fn taints_follow_conditions() {
    let own = json!({ "key": "mine", "effect": "NoExecute" });
    let not_ready = |effect: &str| json!({ "key": "node.kubernetes.io/not-ready", "effect": effect });
    let quiet = Duration::from_secs(5);
    let table: [(Node, Duration, bool, Option<&[&str]>); 9] = [
        (node(Some("True"), json!({})), quiet, false, None),
        (node(Some("False"), json!({})), quiet, false, Some(&["not-ready:NoSchedule", "not-ready:NoExecute"])),
        (node(Some("False"), json!({})), quiet, true, Some(&["not-ready:NoSchedule"])),
        (node(Some("True"), json!({})), GRACE, false, Some(&["unreachable:NoSchedule", "unreachable:NoExecute"])),
        (node(Some("True"), json!({})), GRACE, true, Some(&["unreachable:NoSchedule"])),
        (
            node(Some("True"), json!({ "taints": [not_ready("NoSchedule"), not_ready("NoExecute"), own] })),
            quiet,
            false,
            Some(&["mine:NoExecute"]),
        ),
        (
            node(Some("False"), json!({ "taints": [not_ready("NoExecute"), not_ready("NoSchedule")] })),
            quiet,
            false,
            None,
        ),
        (node(Some("True"), json!({ "unschedulable": true })), quiet, false, Some(&["unschedulable:NoSchedule"])),
        (node(None, json!({})), quiet, false, None),
    ];
    let now = "2026-01-01T01:00:00Z".parse().expect("time");
    for (node, silent_for, others_down, expect) in table {
        let plan = plan(&node, silent_for, others_down, now);
        let expect = expect.map(|taints| taints.iter().map(|taint| (*taint).to_owned()).collect());
        assert_eq!(words(plan.taints), expect, "{node:?} {silent_for:?}");
    }
}

#[test]
fn a_silent_node_is_unknown() {
    let now = "2026-01-01T01:00:00Z".parse().expect("time");
    let before = GRACE - Duration::from_secs(1);
    assert_eq!(plan(&node(Some("True"), json!({})), before, false, now), Plan::default());

    let given_up = plan(&node(Some("True"), json!({})), GRACE, false, now);
    assert!(given_up.unready_pods);
    let reasons: Vec<_> =
        given_up.conditions.iter().map(|it| (it.type_.as_str(), it.reason.as_deref().unwrap_or_default())).collect();
    assert_eq!(
        reasons,
        [
            ("Ready", "NodeStatusUnknown"),
            ("MemoryPressure", "NodeStatusNeverUpdated"),
            ("DiskPressure", "NodeStatusNeverUpdated"),
            ("PIDPressure", "NodeStatusNeverUpdated"),
        ]
    );
    assert_eq!(given_up.conditions[0].message.as_deref(), Some("Kubelet stopped posting node status."));

    let mut silent = node(Some("True"), json!({ "taints": given_up.taints }));
    silent.status.get_or_insert_default().conditions = Some(given_up.conditions);
    let again = plan(&silent, GRACE * 2, false, now);
    assert_eq!((again.conditions.len(), again.taints), (0, None), "once is enough");
}
