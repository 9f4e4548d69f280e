//! Tables for the graph and the plan of garbage collection.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, from_value, json};

use super::graph::{Dependent, Fate, Graph, Node, Text};
use super::plan::{CollectStep, Policy, Propagation, Standing, plan};

/// An object whose name is its UID.
fn node(graph: &mut Graph, name: &str, owners: &[(&str, bool)], deleting: bool, finalizers: &[&str]) -> Node {
    let owners: Vec<Value> = owners
        .iter()
        .map(|(uid, blocks)| json!({ "apiVersion": "v1", "kind": "K", "name": uid, "uid": uid, "blockOwnerDeletion": blocks }))
        .collect();
    let deleted = deleting.then_some("2026-01-01T00:00:00Z");
    let meta: ObjectMeta = from_value(json!({
        "name": name, "namespace": "ns", "ownerReferences": owners, "deletionTimestamp": deleted, "finalizers": finalizers,
    }))
    .expect("metadata");
    graph.node(0, &meta)
}

struct Story(Graph);

impl Story {
    /// Says what a watch says; the answer is whom to look at.
    fn tell(&mut self, uid: &str, owners: &[(&str, bool)], deleting: bool, finalizers: &[&str]) -> Vec<Text> {
        let node = node(&mut self.0, uid, owners, deleting, finalizers);
        self.0.apply(uid, Some(node))
    }
}

fn texts(texts: &[&str]) -> Vec<Text> {
    texts.iter().map(|text| Arc::from(*text)).collect()
}

#[test]
fn the_graph_says_whom_to_look_at() {
    let mut story = Story(Graph::default());
    assert_eq!(story.tell("rs", &[], false, &[]), texts(&[]), "nobody's");
    assert_eq!(story.tell("p1", &[("rs", true)], false, &[]), texts(&[]), "its owner is there");
    assert_eq!(story.tell("p2", &[("rs", false), ("gone", true)], false, &[]), texts(&["p2"]), "one owner is unknown");
    assert_eq!(story.tell("p1", &[("rs", true)], false, &[]), texts(&[]), "nothing new");
    assert_eq!(story.tell("rs", &[], true, &["foregroundDeletion"]), texts(&["p1", "p2", "rs"]), "it waits for both");
    assert_eq!(story.tell("p2", &[("gone", true)], false, &[]), texts(&["p2", "rs"]), "it was let go");
    assert_eq!(story.0.apply("p1", None), texts(&["rs"]), "the last one went");
    assert_eq!(story.tell("p3", &[("rs", true)], false, &[]), texts(&["p3"]), "late, to an owner that goes");
    assert_eq!(story.0.apply("rs", None), texts(&["p3"]), "its owner is gone");
    assert_eq!(story.0.apply("rs", None), texts(&[]));
    let mut left = story.0.of_kind(0);
    left.sort();
    assert_eq!(left, texts(&["p2", "p3"]));
}

#[test]
fn who_names_the_wrong_owner_is_looked_at() {
    let mut story = Story(Graph::default());
    story.tell("rs", &[], false, &[]);
    let mut far = node(&mut story.0, "far", &[("rs", false)], false, &[]);
    far.namespace = "elsewhere".into();
    assert_eq!(story.0.apply("far", Some(far)), texts(&["far"]), "its owner is in another namespace");
    let mut misnamed = node(&mut story.0, "misnamed", &[("rs", false)], false, &[]);
    misnamed.owners[0].name = "sr".into();
    assert_eq!(story.0.apply("misnamed", Some(misnamed)), texts(&["misnamed"]), "its owner has another name");
    let mut wide = node(&mut story.0, "wide", &[], false, &[]);
    wide.namespace = "".into();
    story.0.apply("wide", Some(wide));
    assert_eq!(story.tell("near", &[("rs", false), ("wide", false)], false, &[]), texts(&[]));
}

#[test]
fn an_owner_knows_its_dependents_and_whom_it_waits_for() {
    let mut story = Story(Graph::default());
    story.tell("p1", &[("rs", true)], false, &[]);
    story.tell("p2", &[("rs", false)], true, &["foregroundDeletion"]);
    let dependents = story.0.dependents("rs");
    let facts: Vec<_> = dependents.iter().map(|it| (&*it.uid, it.blocks, it.node.fate)).collect();
    assert_eq!(facts, [("p1", true, Fate::Stays), ("p2", false, Fate::Foreground)]);
}

#[test]
fn the_fate_is_in_the_metadata() {
    let mut graph = Graph::default();
    for (deleting, finalizers, expect) in [
        (false, &["foregroundDeletion"][..], Fate::Stays),
        (true, &["foregroundDeletion"], Fate::Foreground),
        (true, &["orphan", "x/y"], Fate::Orphans),
        (true, &["x/y"], Fate::Goes),
    ] {
        assert_eq!(node(&mut graph, "x", &[], deleting, finalizers).fate, expect);
    }
}

type Case<'a> = (Fate, Propagation, &'a [Standing], Vec<Dependent>, Vec<CollectStep>);

#[test]
fn objects_go_with_the_last_of_their_owners() {
    use Standing::{Absent, Impossible, Solid, Waiting};
    let mut graph = Graph::default();
    let mut dependent = |blocks, fate| {
        let mut node = node(&mut graph, "x", &[], false, &[]);
        node.fate = fate;
        Dependent { uid: "d".into(), node, blocks }
    };
    let plain = dependent(false, Fate::Stays);
    let blocking = dependent(true, Fate::Stays);
    let blocking_waits = dependent(true, Fate::Foreground);
    let none = Propagation::default();
    let orphan = Propagation { orphan: true, ..none };
    let foreground = Propagation { foreground: true, ..none };
    let background = || vec![CollectStep::Delete(Policy::Background)];

    let table: Vec<Case> = vec![
        // What stays, by the standing of its owners.
        (Fate::Stays, none, &[], vec![], vec![]),
        (Fate::Stays, none, &[Solid], vec![], vec![]),
        (Fate::Stays, none, &[Absent], vec![], background()),
        (Fate::Stays, none, &[Absent, Absent], vec![plain.clone()], background()),
        (Fate::Stays, orphan, &[Absent], vec![], vec![CollectStep::Delete(Policy::Orphan)]),
        (Fate::Stays, foreground, &[Absent], vec![], vec![CollectStep::Delete(Policy::Foreground)]),
        (Fate::Stays, none, &[Absent, Solid], vec![], vec![CollectStep::RemoveOwners(texts(&["0"]))]),
        (Fate::Stays, none, &[Solid, Waiting, Absent], vec![], vec![CollectStep::RemoveOwners(texts(&["1", "2"]))]),
        (Fate::Stays, none, &[Absent, Impossible], vec![], vec![]),
        (Fate::Stays, none, &[Waiting], vec![], background()),
        (Fate::Stays, none, &[Waiting], vec![plain.clone()], vec![CollectStep::Delete(Policy::Foreground)]),
        (
            Fate::Stays,
            Propagation { blocks: true, ..none },
            &[Waiting],
            vec![blocking_waits.clone()],
            vec![CollectStep::Unblock, CollectStep::Delete(Policy::Foreground)],
        ),
        (Fate::Stays, none, &[Waiting], vec![blocking_waits.clone()], vec![CollectStep::Delete(Policy::Foreground)]),
        // What is being deleted.
        (Fate::Goes, none, &[Absent], vec![blocking.clone()], vec![]),
        (Fate::Foreground, none, &[], vec![plain.clone()], vec![CollectStep::RemoveFinalizer("foregroundDeletion")]),
        (Fate::Foreground, none, &[], vec![blocking.clone()], vec![CollectStep::LookAt(texts(&["d"]))]),
        (Fate::Foreground, none, &[], vec![blocking_waits], vec![CollectStep::LookAt(texts(&[]))]),
        (Fate::Orphans, none, &[], vec![], vec![CollectStep::RemoveFinalizer("orphan")]),
        (
            Fate::Orphans,
            none,
            &[],
            vec![blocking.clone()],
            vec![CollectStep::Orphan(vec![blocking]), CollectStep::RemoveFinalizer("orphan")],
        ),
    ];
    for (fate, propagation, standings, dependents, expect) in table {
        let owners: Vec<(Text, Standing)> =
            standings.iter().enumerate().map(|(number, standing)| (number.to_string().into(), *standing)).collect();
        assert_eq!(plan(fate, propagation, &owners, &dependents), expect, "{fate:?} {standings:?}");
    }
}
