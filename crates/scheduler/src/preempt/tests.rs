//! Who has to go.

use serde_json::{Value, json};

use super::*;
use crate::schedule::{Trace, schedule};
use crate::testing::{asks, cache, node, pod_with};

/// A pod of a priority that asks for so much CPU.
fn sized(name: &str, priority: i32, cpu: &str) -> Candidate {
    let mut spec = asks(json!({ "cpu": cpu }));
    spec["priority"] = priority.into();
    pod_with(json!({ "name": name, "labels": { "app": name } }), &spec)
}

fn budget(app: &str, allowed: i32) -> Budget {
    let budget: Value = json!({
        "metadata": { "namespace": "n" }, "spec": { "selector": { "matchLabels": { "app": app } } },
        "status": { "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1 },
    });
    Budget::new(&serde_json::from_value(budget).expect("a budget"))
}

/// Nodes with 2 CPUs each and the pods on them; who goes from where for a pod of priority 100 that asks for `cpu`.
fn check(pods: &[(&str, Candidate)], cpu: &str, budgets: &[Budget], expected: Option<(&str, &[&str])>) {
    let none = json!({});
    let mut names: Vec<&str> = pods.iter().map(|(node, _)| *node).collect();
    names.dedup();
    let nodes: Vec<_> = names.iter().map(|name| node(name, &none, &none)).collect();
    let on: Vec<(&str, &Candidate)> = pods.iter().map(|(node, pod)| (*node, pod)).collect();
    let cache = cache(&nodes, &on);
    let incoming = sized("incoming", 100, cpu);
    let refused = schedule(&cache, &Profile::default(), &incoming, &mut 0, &mut Trace::default());
    let found = preempt(&cache, &Profile::default(), &incoming, &refused.expect_err("it is full"), budgets);
    let actual = found.ok().map(|found| {
        let mut names: Vec<String> = found.victims.iter().map(|victim| victim.name.clone()).collect();
        names.sort();
        (found.node, names)
    });
    let expected = expected.map(|(node, names)| (node.to_owned(), names.iter().map(|it| (*it).to_owned()).collect()));
    assert_eq!(actual, expected);
}

#[test]
fn as_few_as_must_and_the_least_important() {
    check(&[("a", sized("x", 1, "1")), ("a", sized("y", 2, "1"))], "1", &[], Some(("a", &["x"])));
    check(&[("a", sized("x", 1, "500m")), ("a", sized("y", 2, "1500m"))], "2", &[], Some(("a", &["x", "y"])));
    check(&[("a", sized("x", 100, "2"))], "1", &[], None);
    // One large victim rather than two, where the small ones do not do it each by itself.
    check(
        &[("a", sized("x", 1, "1")), ("a", sized("y", 1, "1")), ("b", sized("z", 1, "2"))],
        "2",
        &[],
        Some(("b", &["z"])),
    );
}

#[test]
fn the_node_where_the_least_is_lost() {
    check(&[("a", sized("x", 5, "2")), ("b", sized("y", 3, "2"))], "1", &[], Some(("b", &["y"])));
    // The sum of priorities counts after the highest.
    check(
        &[("a", sized("x", 5, "1")), ("a", sized("w", 4, "1")), ("b", sized("y", 5, "1")), ("b", sized("z", 3, "1"))],
        "2",
        &[],
        Some(("b", &["y", "z"])),
    );
}

#[test]
fn budgets_are_kept_where_that_is_possible() {
    let pods = [("a", sized("x", 1, "2")), ("b", sized("y", 9, "2"))];
    check(&pods, "1", &[budget("x", 0)], Some(("b", &["y"])));
    check(&pods, "1", &[budget("x", 1)], Some(("a", &["x"])));
    check(&pods, "1", &[budget("x", 0), budget("y", 0)], Some(("a", &["x"])));
    // On one node, the protected stay if others will do.
    check(&[("a", sized("x", 1, "1")), ("a", sized("y", 2, "1"))], "1", &[budget("x", 0)], Some(("a", &["y"])));
}

#[test]
fn affinity_counts_in_trials() {
    let none = json!({});
    let term = json!({ "labelSelector": { "matchLabels": { "app": "x" } }, "topologyKey": "kubernetes.io/hostname" });
    let affinity = json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } });
    let incoming = pod_with(json!({ "name": "i" }), &json!({ "priority": 100, "affinity": affinity }));
    let (near, other) = (sized("x", 1, "100m"), sized("y", 1, "100m"));
    let cache = cache(&[node("a", &none, &none)], &[("a", &near), ("a", &other)]);
    let refused = schedule(&cache, &Profile::default(), &incoming, &mut 0, &mut Trace::default()).expect_err("near x");
    let found = preempt(&cache, &Profile::default(), &incoming, &refused, &[]).expect("x can go");
    assert_eq!(found.victims.iter().map(|victim| victim.name.as_str()).collect::<Vec<_>>(), ["x"]);
}
