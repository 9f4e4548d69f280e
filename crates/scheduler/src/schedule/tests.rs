//! Decisions and the words in which they are refused.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::preempt::preempt;
use crate::testing::{asks, cache, decide, node, pod, pod_with};

#[test]
fn the_refusal_reads_as_upstreams() {
    let none = json!({});
    let tainted = json!({ "taints": [{ "key": "a", "value": "b", "effect": "NoSchedule" }] });
    let check = |cache: &Cache, pod: &Candidate, expected: &str| {
        let mut refused = decide(cache, pod).expect_err("no node will do");
        if let Err(why) = preempt(cache, &Profile::default(), pod, &refused, &[]) {
            refused.not_preempted = Some(why);
        }
        assert_eq!(refused.to_string(), expected);
    };
    let large = pod("p", &none, &asks(json!({ "cpu": "8" })));
    check(&cache(&[], &[]), &large, "no nodes available to schedule pods");
    let three = [node("a", &none, &none), node("b", &tainted, &none), node("c", &tainted, &none)];
    check(
        &cache(&three, &[]),
        &large,
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). \
         preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
    );
    let busy = pod("busy", &none, &asks(json!({ "cpu": "1500m" })));
    let two = [node("a", &none, &none), node("b", &json!({ "unschedulable": true }), &none)];
    check(
        &cache(&two, &[("a", &busy)]),
        &pod("p", &none, &asks(json!({ "cpu": "1" }))),
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. \
         preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, \
         1 Preemption is not helpful for scheduling.",
    );
    let claim = json!({ "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }] });
    check(
        &cache(&two, &[]),
        &pod("p", &none, &claim),
        "0/2 nodes are available: persistentvolumeclaim \"c\" not found. \
         preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
    );
    let mut never = asks(json!({ "cpu": "1" }));
    never["preemptionPolicy"] = "Never".into();
    check(
        &cache(&two[..1], &[("a", &busy)]),
        &pod("p", &none, &never),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.",
    );
}

#[test]
fn the_emptier_node_wins() {
    let none = json!({});
    let busy = pod("busy", &none, &asks(json!({ "cpu": "1" })));
    let cache = cache(&[node("a", &none, &none), node("b", &none, &none)], &[("a", &busy)]);
    let decision = decide(&cache, &pod("p", &none, &asks(json!({ "cpu": "1" })))).expect("both will do");
    assert_eq!((decision.node.as_str(), decision.feasible), ("b", 2));
}

#[test]
fn equal_nodes_share_the_pods_and_the_answer_is_stable() {
    let none = json!({});
    let nodes: Vec<_> = ["a", "b", "c", "d"].iter().map(|name| node(name, &none, &none)).collect();
    let cache = cache(&nodes, &[]);
    let mut chosen = BTreeSet::new();
    for number in 0..64 {
        let pod = pod(&number.to_string(), &none, &none);
        let decision = decide(&cache, &pod).expect("all will do");
        assert_eq!(decide(&cache, &pod).as_ref(), Ok(&decision));
        chosen.insert(decision.node);
    }
    assert_eq!(chosen.len(), 4);
}

#[test]
fn of_many_nodes_some_are_looked_at_and_the_next_pod_begins_where_this_ended() {
    for (nodes, percentage, expected) in
        [(99, 0, 99), (100, 0, 100), (1_000, 0, 420), (1_000, 5, 100), (5_000, 0, 500), (20_000, 0, 1_000)]
    {
        assert_eq!(enough(nodes, percentage), expected, "{nodes}");
    }
    let none = json!({});
    let nodes: Vec<_> = (0..300).map(|number| node(&number.to_string(), &none, &none)).collect();
    let (cache, profile) = (cache(&nodes, &[]), Profile::default());
    let mut first = 0;
    let decision = schedule(&cache, &profile, &pod("p", &none, &none), &mut first, &mut Trace::default());
    assert_eq!((decision.expect("all will do").evaluated, first), (144, 144));
}

#[test]
fn a_node_is_kept_for_the_pod_it_is_cleared_for() {
    let none = json!({});
    let mut cache = cache(&[node("a", &none, &none)], &[]);
    let mut spec = asks(json!({ "cpu": "2" }));
    spec["priority"] = 10.into();
    cache.nominate(&pod("important", &none, &spec).info, "a");
    let refused = decide(&cache, &pod("p", &none, &asks(json!({ "cpu": "1" })))).expect_err("it is taken");
    assert_eq!(refused.reasons.keys().collect::<Vec<_>>(), ["Insufficient cpu"]);
    let mut above = asks(json!({ "cpu": "1" }));
    above["priority"] = 20.into();
    assert!(decide(&cache, &pod("p", &none, &above)).is_ok(), "not from those who go before it");
    assert_eq!(cache.withdraw("important").map(|(node, _)| node).as_deref(), Some("a"));
    assert!(cache.withdraw("important").is_none());
    assert!(decide(&cache, &pod_with(json!({ "name": "p" }), &asks(json!({ "cpu": "1" })))).is_ok());
}

#[test]
fn a_member_whose_binding_failed_keeps_its_place() {
    let none = json!({});
    let other = || pod("other", &none, &asks(json!({ "cpu": "1" })));
    let member = json!({ "name": "m", "uid": "m", "labels": { "scheduling.x-k8s.io/pod-group": "g" } });
    for (metadata, keeps) in [(member, true), (json!({ "name": "m", "uid": "m" }), false)] {
        let mut cache = cache(&[node("a", &none, &none)], &[]);
        let pod = pod_with(metadata, &asks(json!({ "cpu": "2" })));
        cache.assume("a", Arc::clone(&pod.info));
        assert!(cache.not_bound("m").is_some() && cache.not_bound("m").is_none());
        assert_eq!(decide(&cache, &other()).is_err(), keeps, "others of its group may be bound");
        assert!(decide(&cache, &pod).is_ok(), "it is its own place");
        assert_eq!(cache.withdraw("m").is_some(), keeps);
        assert!(decide(&cache, &other()).is_ok());
    }
}
