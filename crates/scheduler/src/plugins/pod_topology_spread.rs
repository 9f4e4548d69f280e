//! Pods that want to be spread over zones, racks or nodes: as a rule, or as a preference.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use machinery::placement::wants_node;
use machinery::selector::{LabelSelector, Operator, Requirement};
use machinery::well_known::{HOSTNAME, ZONE};
use serde::Deserialize;
use serde_json::Value;

use super::taint_toleration::repels;
use crate::cache::Cache;
use crate::framework::{Candidate, Check, ClusterEvent, Filtering, MAX_SCORE, NodeInfo, Plugin, PodInfo, Refusal};

/// What upstream prefers for pods of workloads that say nothing.
const SYSTEM_DEFAULTS: [(&str, i32); 2] = [(HOSTNAME, 3), (ZONE, 5)];

/// `PodTopologySpreadArgs`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodTopologySpread {
    default_constraints: Vec<TopologySpreadConstraint>,
    defaulting_type: Defaulting,
}

#[derive(Default, Deserialize, PartialEq, Eq)]
enum Defaulting {
    #[default]
    System,
    List,
}

impl PodTopologySpread {
    pub(super) fn new(args: &Value) -> Result<Self, String> {
        let new: Self = super::arguments(args)?;
        if new.defaulting_type == Defaulting::System && !new.default_constraints.is_empty() {
            return Err("defaultConstraints: must be empty when defaultingType is System".to_owned());
        }
        Ok(new)
    }

    /// The constraints for `pod` that are a rule, or those that are a preference.
    fn constraints<'a>(&'a self, pod: &'a Candidate, when: &str) -> Vec<Constraint<'a>> {
        let given = pod.spec().topology_spread_constraints.as_deref().unwrap_or_default();
        let own = given.iter().filter(|it| it.when_unsatisfiable == when).map(|it| Constraint::new(it, pod));
        if !given.is_empty() {
            return own.collect();
        }
        let Some(owner) = pod.owner.as_deref() else {
            return Vec::new();
        };
        // Upstream takes the selector of the pod's workload, which means the workload's pods.
        let of_owner = |key, max_skew| Constraint {
            key,
            max_skew: i64::from(max_skew),
            min_domains: 1,
            which: Which::Owner(owner),
            honor_affinity: true,
            honor_taints: false,
        };
        match self.defaulting_type {
            Defaulting::List => {
                let listed = self.default_constraints.iter().filter(|it| it.when_unsatisfiable == when);
                listed.map(|it| of_owner(&it.topology_key, it.max_skew)).collect()
            }
            Defaulting::System if when == "ScheduleAnyway" => {
                SYSTEM_DEFAULTS.iter().map(|(key, max_skew)| of_owner(key, *max_skew)).collect()
            }
            Defaulting::System => Vec::new(),
        }
    }
}

struct Constraint<'a> {
    key: &'a str,
    max_skew: i64,
    min_domains: i64,
    which: Which<'a>,
    /// Whether only nodes count on which the pod's selectors, and its tolerations, let it be.
    honor_affinity: bool,
    honor_taints: bool,
}

/// Which pods are counted.
enum Which<'a> {
    Labels(LabelSelector),
    Owner(&'a str),
}

impl<'a> Constraint<'a> {
    fn new(given: &'a TopologySpreadConstraint, pod: &Candidate) -> Self {
        let selector = LabelSelector::from_object(given.label_selector.as_ref());
        let mut selector = selector.unwrap_or(const { LabelSelector::nothing() });
        let same = given.match_label_keys.iter().flatten().filter_map(|key| {
            let value = pod.labels.get(key)?;
            Requirement::new(key.clone(), Operator::In, [value.clone()]).ok()
        });
        let same: Vec<Requirement> = same.collect();
        if !same.is_empty() && !selector.is_nothing() {
            selector = LabelSelector::new(selector.requirements().iter().cloned().chain(same).collect());
        }
        Self {
            key: &given.topology_key,
            max_skew: i64::from(given.max_skew),
            min_domains: i64::from(given.min_domains.unwrap_or(1)),
            which: Which::Labels(selector),
            honor_affinity: given.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: given.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    fn counts(&self, pod: &Candidate, other: &PodInfo) -> bool {
        match &self.which {
            Which::Labels(selector) => other.namespace == pod.namespace && selector.matches(&other.labels),
            Which::Owner(owner) => other.owner.as_deref() == Some(owner),
        }
    }

    /// Whether `node` is one of those over which the pods are spread.
    fn includes(&self, pod: &Candidate, node: &NodeInfo) -> bool {
        (!self.honor_affinity || wants_node(pod.spec(), &node.node))
            && (!self.honor_taints || !repels(pod.spec(), node.taints()))
    }

    /// Calls `found` for each node with so many of the pods.
    fn each<'c>(&self, pod: &Candidate, cache: &'c Cache, mut found: impl FnMut(&'c NodeInfo, i64)) {
        match &self.which {
            Which::Labels(selector) => {
                let namespaces = BTreeSet::from([pod.namespace.clone()]);
                for (id, other) in cache.candidates(selector, Some(&namespaces)) {
                    if let Some(node) = cache.node(id)
                        && !other.deleting
                        && self.counts(pod, other)
                    {
                        found(node, 1);
                    }
                }
            }
            Which::Owner(owner) => {
                for (id, count) in cache.pods_of(owner).into_iter().flatten() {
                    if let Some(node) = cache.node(*id) {
                        found(node, *count);
                    }
                }
            }
        }
    }
}

fn has_all(node: &NodeInfo, constraints: &[Constraint<'_>]) -> bool {
    constraints.iter().all(|constraint| node.label(constraint.key).is_some())
}

struct Skews<'a> {
    pod: &'a Candidate,
    constraints: Vec<Constraint<'a>>,
    /// For each constraint: how many pods are in each place, the fewest of them, and whether the pod counts itself.
    places: Vec<(HashMap<String, i64>, i64, i64)>,
}

impl Skews<'_> {
    /// Counts `other` on `node` in or out: `by` is 1 or -1.
    fn count(&mut self, other: &PodInfo, node: &NodeInfo, by: i64) {
        if !has_all(node, &self.constraints) {
            return;
        }
        for index in 0..self.constraints.len() {
            let constraint = &self.constraints[index];
            if constraint.counts(self.pod, other)
                && constraint.includes(self.pod, node)
                && let Some(value) = node.label(constraint.key)
            {
                *self.places[index].0.entry(value.to_owned()).or_default() += by;
                self.take_minimum(index);
            }
        }
    }

    fn take_minimum(&mut self, index: usize) {
        let (counts, fewest, _) = &mut self.places[index];
        let enough = i64::try_from(counts.len()).unwrap_or(i64::MAX) >= self.constraints[index].min_domains;
        // Upstream: with fewer places than asked for, one is imagined that is empty.
        *fewest = if enough { counts.values().copied().min().unwrap_or(0) } else { 0 };
    }
}

impl Check for Skews<'_> {
    fn check(&self, node: &NodeInfo) -> Result<(), Refusal> {
        for (constraint, (counts, fewest, own)) in self.constraints.iter().zip(&self.places) {
            let Some(value) = node.label(constraint.key) else {
                return Err(Refusal::unresolvable(
                    "node(s) didn't match pod topology spread constraints (missing required label)",
                ));
            };
            if counts.get(value).copied().unwrap_or(0) + own - fewest > constraint.max_skew {
                return Err(Refusal::resolvable("node(s) didn't match pod topology spread constraints"));
            }
        }
        Ok(())
    }

    fn add_pod(&mut self, other: &PodInfo, node: &NodeInfo) {
        self.count(other, node, 1);
    }

    fn remove_pod(&mut self, other: &PodInfo, node: &NodeInfo) {
        self.count(other, node, -1);
    }
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn filter<'a>(&'a self, pod: &'a Candidate, cache: &'a Cache) -> Filtering<'a> {
        let constraints = self.constraints(pod, "DoNotSchedule");
        if constraints.is_empty() {
            return Filtering::Skip;
        }
        let mut places = Vec::new();
        for constraint in &constraints {
            let mut counts: HashMap<String, i64> = HashMap::new();
            for node in cache.nodes().filter(|node| has_all(node, &constraints)) {
                if let Some(value) = node.label(constraint.key)
                    && !counts.contains_key(value)
                    && constraint.includes(pod, node)
                {
                    counts.insert(value.to_owned(), 0);
                }
            }
            constraint.each(pod, cache, |node, more| {
                if has_all(node, &constraints)
                    && constraint.includes(pod, node)
                    && let Some(count) = node.label(constraint.key).and_then(|value| counts.get_mut(value))
                {
                    *count += more;
                }
            });
            places.push((counts, 0, i64::from(constraint.counts(pod, pod))));
        }
        let mut skews = Skews { pod, constraints, places };
        (0..skews.constraints.len()).for_each(|index| skews.take_minimum(index));
        Filtering::Each(Box::new(skews))
    }

    fn score(&self, pod: &Candidate, cache: &Cache, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        let constraints = self.constraints(pod, "ScheduleAnyway");
        if constraints.is_empty() {
            return None;
        }
        // Upstream: nodes without a zone are still spread over by what is preferred by default.
        let given = pod.spec().topology_spread_constraints.as_ref().is_some_and(|given| !given.is_empty());
        let needs_all = given || self.defaulting_type == Defaulting::List;
        let counted = |node: &NodeInfo| !needs_all || has_all(node, &constraints);
        let mut totals = vec![0.0; nodes.len()];
        for constraint in &constraints {
            // The places are those of nodes that could be chosen; on them, pods of all nodes count.
            let by_host = constraint.key == HOSTNAME;
            let mut counts: HashMap<&str, i64> = HashMap::new();
            let mut hosts = 0_usize;
            for node in nodes.iter().filter(|node| counted(node)) {
                hosts += 1;
                if !by_host && let Some(value) = node.label(constraint.key) {
                    counts.entry(value).or_default();
                }
            }
            constraint.each(pod, cache, |node, more| {
                let Some(value) = node.label(constraint.key) else {
                    return;
                };
                if by_host {
                    *counts.entry(value).or_default() += more;
                } else if counted(node)
                    && constraint.includes(pod, node)
                    && let Some(count) = counts.get_mut(value)
                {
                    *count += more;
                }
            });
            let places = if by_host { hosts } else { counts.len() };
            let weight = ((places + 2) as f64).ln();
            for (total, node) in totals.iter_mut().zip(nodes) {
                if let Some(value) = node.label(constraint.key) {
                    let count = counts.get(value).copied().unwrap_or(0);
                    *total += count as f64 * weight + (constraint.max_skew - 1) as f64;
                }
            }
        }
        let scores: Vec<Option<i64>> =
            totals.iter().zip(nodes).map(|(total, node)| counted(node).then(|| total.round() as i64)).collect();
        let least = scores.iter().flatten().copied().min().unwrap_or(0);
        let most = scores.iter().flatten().copied().max().unwrap_or(0);
        let normal = |score: Option<i64>| match score {
            None => 0,
            Some(_) if most == 0 => MAX_SCORE,
            Some(score) => MAX_SCORE * (most + least - score) / most,
        };
        Some(scores.into_iter().map(normal).collect())
    }

    fn queueing_hint(&self, pod: &Candidate, event: &ClusterEvent<'_>) -> bool {
        let constraints = self.constraints(pod, "DoNotSchedule");
        match event {
            ClusterEvent::Node(_) => true,
            ClusterEvent::PodAdded(other) | ClusterEvent::PodRemoved(other) => {
                constraints.iter().any(|constraint| constraint.counts(pod, other))
            }
            _ => false,
        }
    }
}
