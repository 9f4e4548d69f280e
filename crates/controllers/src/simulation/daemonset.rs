//! DaemonSet plans with chance and faults.
//!
//! Checked after every step: no node has two Pods (or more than two, with surge), and an update never takes away more than
//! it may; and in the end, every node has one of the present template.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{from_value, json};

use super::{Chance, Log};
use crate::daemonset::placement;
use crate::daemonset::plan::{Snapshot, plan};
use crate::owner::Owner;
use crate::{history, meta, pods};

struct Cluster {
    chance: Chance,
    clock: Timestamp,
    set: DaemonSet,
    hash: usize,
    nodes: Log<Node>,
    pods: Log<Pod>,
    waits: bool,
    serial: usize,
    faults: bool,
}

impl Cluster {
    fn new(seed: u64, nodes: usize, unavailable: i32, surge: i32, faults: bool) -> Self {
        let set = json!({
            "metadata": { "name": "log", "namespace": "ns", "uid": "set", "generation": 1 },
            "spec": {
                "selector": { "matchLabels": { "app": "log" } },
                "template": { "metadata": { "labels": { "app": "log" } }, "spec": { "containers": [] } },
                "updateStrategy": {
                    "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": unavailable, "maxSurge": surge },
                },
            },
        });
        let mut cluster = Self {
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            clock: "2026-01-01T00:00:00Z".parse().expect("time"),
            set: from_value(set).expect("set"),
            hash: 0,
            nodes: Log::new(),
            pods: Log::new(),
            waits: false,
            serial: 0,
            faults,
        };
        for number in 0..nodes {
            cluster.toggle_node(number);
        }
        cluster
    }

    fn toggle_node(&mut self, number: usize) {
        let name = format!("n{number}");
        let node: Node = from_value(json!({ "metadata": { "name": name } })).expect("node");
        self.nodes.write(|all| {
            if all.remove(&name).is_none() {
                all.insert(name, Arc::new(node));
            }
        });
    }

    fn step(&mut self) {
        self.clock = meta::plus_seconds(self.clock, 1);
        match self.chance.below(6) {
            0 => self.nodes.advance(&mut self.chance),
            1 => self.pods.advance(&mut self.chance),
            2 => self.sync(),
            _ => self.kubelet(),
        }
    }

    fn sync(&mut self) {
        if self.waits && !self.pods.is_current() {
            return;
        }
        let snapshot = Snapshot {
            nodes: self.nodes.view().values().cloned().collect(),
            pods: self.pods.view().values().cloned().collect(),
            hash: self.hash.to_string(),
            failure_backoff: BTreeMap::new(),
        };
        let plan = plan(&snapshot, &self.set, &Owner::of(&self.set), self.clock);
        self.waits = !(plan.create.is_empty() && plan.delete.is_empty());
        for pod in &plan.delete {
            let clock = self.clock;
            self.pods.edit(meta::name(&**pod), |pod| {
                pod.metadata.deletion_timestamp.get_or_insert(meta::seconds(clock));
            });
        }
        for mut pod in plan.create {
            if self.faults && self.chance.one_in(8) {
                continue;
            }
            self.serial += 1;
            let name = format!("log-{}", self.serial);
            pod.metadata.name = Some(name.clone());
            pod.metadata.uid = Some(name.clone());
            pod.metadata.creation_timestamp = Some(meta::seconds(self.clock));
            pod.status = from_value(json!({ "phase": "Pending" })).ok();
            self.pods.write(|all| {
                all.insert(name, Arc::new(pod));
            });
        }
    }

    fn kubelet(&mut self) {
        let all: Vec<_> = self.pods.now().values().cloned().collect();
        if all.is_empty() {
            return;
        }
        let pod = &all[self.chance.below(all.len())];
        let name = meta::name(&**pod).to_owned();
        let node_is_gone = !self.nodes.now().contains_key(placement::target(pod).expect("a node"));
        if meta::is_deleting(&**pod) || (node_is_gone && pods::node_name(pod).is_some()) {
            return self.pods.write(|all| {
                all.remove(&name);
            });
        }
        let clock = self.clock;
        let fails = self.faults && self.chance.one_in(8);
        let node = placement::target(pod).map(str::to_owned);
        self.pods.edit(&name, |pod| {
            pod.spec.get_or_insert_default().node_name = node;
            let ready = json!({ "type": "Ready", "status": "True", "lastTransitionTime": meta::seconds(clock) });
            let status = json!({ "phase": if fails { "Failed" } else { "Running" }, "conditions": [ready] });
            if !pods::is_finished(pod) {
                pod.status = from_value(status).ok();
            }
        });
    }

    fn on_node(&self, node: &str) -> Vec<&Arc<Pod>> {
        let there = |pod: &&Arc<Pod>| pods::is_active(pod) && placement::target(pod) == Some(node);
        self.pods.now().values().filter(there).collect()
    }

    /// Nodes without a Pod that is ready.
    fn bare(&self) -> usize {
        let ready = |node: &&String| self.on_node(node).iter().any(|pod| pods::is_ready(pod));
        self.nodes.now().len() - self.nodes.now().keys().filter(ready).count()
    }

    fn has_converged(&self) -> bool {
        let hash = self.hash.to_string();
        let right = |node: &String| matches!(self.on_node(node).as_slice(), [pod] if pods::is_ready(pod) && history::of_pod(pod) == Some(&hash));
        self.pods.now().len() == self.nodes.now().len() && self.nodes.now().keys().all(right)
    }

    fn converge(&mut self, invariant: impl Fn(&Self)) {
        for _ in 0..60_000 {
            self.step();
            invariant(self);
            if self.has_converged() {
                // Whoever takes a Pod that is ready for one that is not may take it away: as upstream.
                self.pods.shown = self.pods.states.len() - 1;
                return;
            }
        }
        panic!("no end: {:#?}", self.pods.now());
    }
}

#[test]
fn updates_keep_their_promises() {
    for seed in 1..=60 {
        let (unavailable, surge) = [(1, 0), (2, 0), (0, 1), (0, 2)][usize::try_from(seed % 4).expect("small")];
        let most = if surge > 0 { 2 } else { 1 };
        let mut cluster = Cluster::new(seed, 5, unavailable, surge, false);
        cluster.converge(|_| {});
        for _ in 0..2 {
            cluster.hash += 1;
            cluster.converge(|cluster| {
                let down = i32::try_from(cluster.bare()).expect("few");
                assert!(down <= unavailable, "seed {seed}: {down} of {unavailable} are down");
                let full = |node: &String| cluster.on_node(node).len() <= most;
                assert!(cluster.nodes.now().keys().all(full), "seed {seed}");
            });
        }
    }
}

#[test]
fn nodes_and_pods_that_come_and_go_end_well() {
    for seed in 1..=60 {
        let mut cluster = Cluster::new(seed, 4, 1, 0, true);
        for _ in 0..8 {
            for _ in 0..cluster.chance.below(200) {
                cluster.step();
                let alone = |node: &String| cluster.on_node(node).len() <= 1;
                assert!(cluster.nodes.now().keys().all(alone), "seed {seed}");
            }
            let node = cluster.chance.below(6);
            cluster.toggle_node(node);
            cluster.hash += usize::from(cluster.chance.one_in(3));
        }
        cluster.faults = false;
        cluster.converge(|_| {});
    }
}
