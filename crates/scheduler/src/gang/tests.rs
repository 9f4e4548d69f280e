//! All or none.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::status::{Members, plan};
use super::*;
use crate::cache::Cache;
use crate::preempt::Budget;
use crate::profile::Profile;
use crate::queue::SchedulingQueue;
use crate::resources::Resources;
use crate::testing::{asks, cache, pod_with, sized_node};
use crate::types::{Candidate, Family, GroupKey};

fn worker(group: &str, number: usize) -> Candidate {
    let labels = json!({ "scheduling.x-k8s.io/pod-group": group });
    pod_with(json!({ "name": format!("{group}-{number}"), "labels": labels }), &asks(json!({ "nvidia.com/gpu": "1" })))
}

fn gpus(nodes: &[u32]) -> Cache {
    let none = json!({});
    let offered = |gpus: u32| json!({ "cpu": "8", "memory": "8Gi", "pods": "10", "nvidia.com/gpu": gpus.to_string() });
    let nodes: Vec<_> =
        nodes.iter().enumerate().map(|(n, gpus)| sized_node(&format!("n{n}"), &none, &none, &offered(*gpus))).collect();
    cache(&nodes, &[])
}

fn key(name: &str) -> GroupKey {
    GroupKey { family: Family::Coscheduling, namespace: "n".to_owned(), name: name.to_owned() }
}

fn used(cache: &Cache) -> i64 {
    cache.nodes().map(|node| node.requested.of("nvidia.com/gpu")).sum()
}

#[test]
fn four_workers_with_room_for_two() {
    let members = |count: usize| (0..count).map(|number| worker("g", number)).collect::<Vec<_>>();
    let mut small = gpus(&[1, 1]);
    match place(&mut small, &Profile::default(), &key("g"), members(4), 4, &mut 0) {
        Placement::Refused(Refused { message, plugins, .. }) => {
            assert_eq!(
                message,
                "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. pod group n/g is not ready: 2 of 4 pods that it \
                 needs find a node at the same time; it never can: nvidia.com/gpu 4 wanted, 2 there in the whole cluster"
            );
            assert!(plugins.contains(NAME) && plugins.contains("NodeResourcesFit"));
        }
        Placement::Whole { .. } => panic!("there is room for two"),
    }
    assert_eq!(used(&small), 0, "nothing is held");

    let mut large = gpus(&[2, 2]);
    let Placement::Whole { placed, left } = place(&mut large, &Profile::default(), &key("g"), members(5), 4, &mut 0)
    else {
        panic!("there is room for four");
    };
    assert_eq!((placed.len(), left.len(), used(&large)), (4, 1, 4), "the fifth is not needed");
}

/// On nodes with so many GPUs full of pods of these priorities, one GPU each: which of them go, and to which nodes, for a gang
/// of priority 100.
fn cleared(nodes: &[u32], running: &[(&str, &str, i32)], members: usize, budgets: &[Budget]) -> Option<Vec<String>> {
    let sized = |name: &str, priority: i32| {
        let mut spec = asks(json!({ "nvidia.com/gpu": "1" }));
        spec["priority"] = priority.into();
        pod_with(json!({ "name": name, "labels": { "app": name } }), &spec)
    };
    let mut cache = gpus(nodes);
    for (node, name, priority) in running {
        cache.set_pod(node, &sized(name, *priority).pod);
    }
    let before = used(&cache);
    let members: Vec<Candidate> = (0..members).map(|number| sized(&format!("g-{number}"), 100)).collect();
    let found = clear(&mut cache, &Profile::default(), &key("g"), &members, members.len(), budgets);
    assert_eq!(used(&cache), before, "nothing is charged, and nobody forgotten");
    match found {
        Clearing::Whole(found) => {
            assert_eq!(found.len(), members.len());
            let mut gone: Vec<String> =
                found.iter().flat_map(|(_, one)| one.victims.iter().map(|victim| victim.name.clone())).collect();
            gone.sort();
            Some(gone)
        }
        Clearing::Waits | Clearing::Impossible => None,
    }
}

#[test]
fn a_gang_preempts_others_only_if_it_is_whole_then() {
    let check = |nodes: &[u32], running: &[(&str, &str, i32)], members: usize, expected: Option<&[&str]>| {
        let gone = cleared(nodes, running, members, &[]);
        let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(gone, expected, "{nodes:?} {running:?} {members}");
    };
    let two = [("n0", "a", 1), ("n1", "b", 1)];
    check(&[1, 1], &two, 2, Some(&["a", "b"]));
    // Three do not fit, whoever goes: nobody does.
    check(&[1, 1], &two, 3, None);
    // One of the two is more important than the gang.
    check(&[1, 1], &[("n0", "a", 1), ("n1", "b", 1_000)], 2, None);
    // As few as must, and the least important; who has room needs nobody's.
    check(&[1, 1, 1], &two, 2, Some(&["a"]));
    check(&[2], &[("n0", "a", 5), ("n0", "b", 1)], 1, Some(&["b"]));
    check(&[3, 1], &[("n0", "a", 1), ("n0", "b", 2), ("n0", "c", 3), ("n1", "d", 9)], 3, Some(&["a", "b", "c"]));
    // There is room as it is: that is not for this to say.
    check(&[2], &[], 2, None);
}

#[test]
fn a_gang_waits_for_those_that_are_going_for_it() {
    let pod = |name: &str, more: Value| {
        let pod = json!({
            "metadata": { "name": name, "namespace": "n", "uid": name },
            "spec": asks(json!({ "nvidia.com/gpu": "1" })),
        });
        let pod = machinery::patch::merge_patch(&pod, &more).expect("objects");
        Candidate::new(std::sync::Arc::new(serde_json::from_value(pod).expect("a pod")))
    };
    let mut cache = gpus(&[1, 1]);
    let going = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } });
    cache.set_pod("n0", &pod("going", going).pod);
    cache.set_pod("n1", &pod("stays", json!({})).pod);
    let member = |number: usize| {
        let node = format!("n{number}");
        let more = json!({ "spec": { "priority": 100 }, "status": { "nominatedNodeName": node } });
        pod(&format!("g-{number}"), more)
    };
    let found = clear(&mut cache, &Profile::default(), &key("g"), &[member(0), member(1)], 2, &[]);
    assert!(matches!(found, Clearing::Waits), "{found:?}");
}

#[test]
fn of_two_gangs_one_runs() {
    let mut cache = gpus(&[3, 3]);
    let mut outcomes = Vec::new();
    for group in ["one", "two"] {
        let members = (0..4).map(|number| worker(group, number)).collect();
        let placement = place(&mut cache, &Profile::default(), &key(group), members, 4, &mut 0);
        outcomes.push(matches!(placement, Placement::Whole { .. }));
    }
    assert_eq!((outcomes, used(&cache)), (vec![true, false], 4));
}

#[test]
fn groups_are_named_in_three_ways() {
    let of = |meta: Value| GroupKey::of(&pod_with(meta, &json!({})).pod).map(|key| (key.family, key.name));
    let labelled = |label: &str| of(json!({ "name": "p", "labels": { label: "g" } }));
    let coscheduling = Some((Family::Coscheduling, "g".to_owned()));
    assert_eq!(labelled("scheduling.x-k8s.io/pod-group"), coscheduling);
    assert_eq!(labelled("pod-group.scheduling.sigs.k8s.io/name"), coscheduling);
    assert_eq!(labelled("app"), None);
    let annotated = of(json!({ "name": "p", "annotations": { "scheduling.k8s.io/group-name": "g" } }));
    assert_eq!(annotated, Some((Family::Volcano, "g".to_owned())));
}

#[test]
fn what_keeps_a_group_from_being_tried() {
    let mut groups = Groups::default();
    let cache = gpus(&[2]);
    let mut volcano = key("v");
    volcano.family = Family::Volcano;
    let check = |groups: &Groups, key: &GroupKey, waiting: usize, expected: Option<&str>| {
        let asked = asks(json!({ "nvidia.com/gpu": "2" }));
        let asked = &pod_with(json!({ "name": "p" }), &asked).requests.clone();
        let standings = groups.standings(&cache, |_| Some((waiting, asked)));
        let obstacle = groups.obstacle(key, waiting, 0, asked, &cache, &standings);
        assert_eq!(obstacle.map(|(_, message)| message).as_deref(), expected);
    };
    check(&groups, &key("g"), 4, Some("pod group n/g not found"));
    let group = |spec: Value| Group::read(Family::Coscheduling, &json!({ "spec": spec }));
    groups.groups.insert(key("g"), group(json!({ "minMember": 4 })));
    check(
        &groups,
        &key("g"),
        3,
        Some("pod group n/g cannot find enough sibling pods, current pods number: 3, minMember of group: 4"),
    );
    check(&groups, &key("g"), 4, None);
    let resources = json!({ "minMember": 1, "minResources": { "nvidia.com/gpu": "4" } });
    groups.groups.insert(key("g"), group(resources));
    check(
        &groups,
        &key("g"),
        1,
        Some("pod group n/g is not ready, minResources are not available: nvidia.com/gpu 4 wanted, 2 left"),
    );
    let spec = json!({ "spec": { "minMember": 1, "queue": "q" } });
    groups.groups.insert(volcano.clone(), Group::read(Family::Volcano, &spec));
    check(&groups, &volcano, 1, Some("queue q not found"));
    let queue = |gpus: &str| Queue::read(&json!({ "spec": { "weight": 1, "capability": { "nvidia.com/gpu": gpus } } }));
    groups.queues.insert("q".to_owned(), queue("1"));
    check(&groups, &volcano, 1, Some("queue q resource quota insufficient: insufficient nvidia.com/gpu"));
    groups.queues.insert("q".to_owned(), queue("2"));
    check(&groups, &volcano, 1, None);
}

/// On nodes with so many GPUs, queues with weights, and gangs of queues with so many workers, in the order in which they come:
/// those that are placed, in the order in which they are.
fn placed(nodes: &[u32], queues: &[(&str, u32)], gangs: &[(&str, &str, usize)]) -> Vec<String> {
    let mut cache = gpus(nodes);
    let mut groups = Groups::default();
    groups.families.push(Family::Volcano);
    for (name, weight) in queues {
        groups.queues.insert((*name).to_owned(), Queue::read(&json!({ "spec": { "weight": weight } })));
    }
    let now = Instant::now();
    let mut queue = SchedulingQueue::default();
    for (name, of, members) in gangs {
        let spec = json!({ "spec": { "minMember": members, "queue": of } });
        let volcano = GroupKey { family: Family::Volcano, ..key(name) };
        groups.groups.insert(volcano, Group::read(Family::Volcano, &spec));
        for number in 0..*members {
            let annotations = json!({ "scheduling.k8s.io/group-name": name });
            let meta = json!({ "name": format!("{name}-{number}"), "annotations": annotations });
            queue.add(pod_with(meta, &asks(json!({ "nvidia.com/gpu": "1" }))), informer::Cause::new("a test"), now);
        }
    }
    let mut whole = Vec::new();
    while let Some(pod) = queue.pop(now) {
        let mut key = pod.group.clone().expect("a gang");
        let standings = groups.standings(&cache, |group| queue.waiting(group));
        if let Some((other, _)) = groups.goes_before(&key, &standings, queue.turns()) {
            queue.postpone(&pod.uid);
            key = other;
        }
        let members = in_order(queue.take_group(&key));
        let mut asked = Resources::default();
        members.iter().for_each(|pod| asked.add(&pod.requests));
        let needed = members.len();
        let refuse = |queue: &mut SchedulingQueue| {
            members.iter().for_each(|pod| queue.refused(&pod.uid, BTreeSet::from([NAME]), now));
        };
        if groups.obstacle(&key, needed, 0, &asked, &cache, &standings).is_some() {
            refuse(&mut queue);
            continue;
        }
        match place(&mut cache, &Profile::default(), &key, members.clone(), needed, &mut 0) {
            Placement::Whole { placed, .. } => {
                placed.iter().for_each(|(pod, ..)| queue.decided(&pod.uid));
                whole.push(key.name);
            }
            Placement::Refused(_) => refuse(&mut queue),
        }
    }
    whole
}

#[test]
fn queues_share_by_their_weights() {
    let equal = [("a", 1), ("b", 1)];
    // Whoever comes first, each gets its share.
    let gangs = [("a0", "a", 2), ("a1", "a", 2), ("a2", "a", 2), ("a3", "a", 2), ("b0", "b", 4)];
    assert_eq!(placed(&[8], &equal, &gangs), ["a0", "b0", "a1"]);
    let pairs = |queue: &'static str, names: [&'static str; 4]| names.map(|name| (name, queue, 2));
    let gangs = [pairs("a", ["a0", "a1", "a2", "a3"]), pairs("b", ["b0", "b1", "b2", "b3"])].concat();
    assert_eq!(placed(&[8], &[("a", 1), ("b", 3)], &gangs), ["a0", "b0", "b1", "b2"]);
    // Nobody else wants any: the share is no limit.
    assert_eq!(placed(&[8], &equal, &pairs("a", ["a0", "a1", "a2", "a3"])), ["a0", "a1", "a2", "a3"]);
    // What can never be is kept free for nobody.
    let gangs = [("b0", "b", 20), ("a0", "a", 4), ("a1", "a", 4)];
    assert_eq!(placed(&[8], &equal, &gangs), ["a0", "a1"]);
    // Gangs that are larger than the share of their queue do not keep each other waiting.
    assert_eq!(placed(&[4], &equal, &[("a0", "a", 4), ("b0", "b", 4)]), ["a0"]);
    // The default queue need not be made.
    assert_eq!(placed(&[4], &[], &[("a0", "default", 4)]), ["a0"]);
}

#[test]
fn a_group_that_waits_too_long_is_told_of_once() {
    let mut groups = Groups::default();
    let group = json!({ "spec": { "minMember": 4, "scheduleTimeoutSeconds": 60 } });
    groups.groups.insert(key("g"), Group::read(Family::Coscheduling, &group));
    let now = Instant::now();
    assert_eq!(groups.next_timeout(), None);
    groups.note_in_vain(&key("g"), now);
    groups.note_in_vain(&key("g"), now + Duration::from_secs(30));
    assert_eq!(groups.next_timeout(), Some(now + Duration::from_secs(60)));
    assert!(groups.take_overdue(now).is_empty());
    assert_eq!(groups.take_overdue(now + Duration::from_secs(60)), [key("g")]);
    assert!(groups.take_overdue(now + Duration::from_secs(61)).is_empty());
    groups.settled(&key("g"));
    groups.note_in_vain(&key("g"), now + Duration::from_secs(70));
    assert_eq!(groups.next_timeout(), Some(now + Duration::from_secs(130)));
}

#[test]
fn statuses_follow_the_members() {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    let phase = |family: Family, pods, scheduled, running, succeeded| {
        let members = Members { pods, scheduled, running, succeeded, failed: 0 };
        let patch = plan(family, &json!({ "spec": { "minMember": 4 } }), members, now);
        patch.map(|patch| patch["status"]["phase"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
    };
    for (members, coscheduling, volcano) in [
        ((0, 0, 0, 0), "Pending", "Pending"),
        ((2, 0, 0, 0), "Pending", "Pending"),
        ((4, 0, 0, 0), "Scheduling", "Inqueue"),
        ((4, 2, 0, 0), "Scheduling", "Unknown"),
        ((4, 4, 1, 0), "Scheduled", "Inqueue"),
        ((4, 4, 4, 0), "Running", "Running"),
        ((4, 4, 0, 4), "Finished", "Completed"),
    ] {
        let (pods, scheduled, running, succeeded) = members;
        assert_eq!(phase(Family::Coscheduling, pods, scheduled, running, succeeded), coscheduling, "{members:?}");
        assert_eq!(phase(Family::Volcano, pods, scheduled, running, succeeded), volcano, "{members:?}");
    }
    let members = Members { pods: 4, ..Members::default() };
    let mut group = json!({ "spec": { "minMember": 4 } });
    let patch = plan(Family::Volcano, &group, members, now).expect("there is none yet");
    let condition = &patch["status"]["conditions"][0];
    assert_eq!(
        condition["message"],
        "4/4 tasks in gang unschedulable: pod group is not ready, 4 Pending, 4 minAvailable"
    );
    group["status"] = patch["status"].clone();
    assert_eq!(plan(Family::Volcano, &group, members, now), None, "then it is right");
}
