//! Pods that want to be near to other pods, or far from them; and pods that others want to be far from.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use crate::cache::Cache;
use crate::framework::{
    Candidate, Check, ClusterEvent, Filtering, MAX_SCORE, NodeInfo, Plugin, PodInfo, Refusal, Term,
};

/// `InterPodAffinityArgs`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct InterPodAffinity {
    /// How much it counts that a pod which must be near to this one is there.
    hard_pod_affinity_weight: i64,
    ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for InterPodAffinity {
    fn default() -> Self {
        Self { hard_pod_affinity_weight: 1, ignore_preferred_terms_of_existing_pods: false }
    }
}

impl InterPodAffinity {
    pub(super) fn new(args: &Value) -> Result<Self, String> {
        super::arguments(args)
    }
}

/// Numbers by place: a label's key, and its value.
#[derive(Default)]
struct Places<'a>(HashMap<&'a str, HashMap<String, i64>>);

impl<'a> Places<'a> {
    fn add(&mut self, key: &'a str, node: &NodeInfo, amount: i64) {
        let Some(value) = node.label(key) else {
            return;
        };
        let values = self.0.entry(key).or_default();
        match values.get_mut(value) {
            Some(count) => *count += amount,
            None => {
                values.insert(value.to_owned(), amount);
            }
        }
    }

    fn at(&self, key: &str, node: &NodeInfo) -> i64 {
        let count = || self.0.get(key)?.get(node.label(key)?);
        count().copied().unwrap_or(0)
    }

    fn is_empty(&self) -> bool {
        self.0.values().flat_map(HashMap::values).all(|count| *count == 0)
    }
}

struct Counts<'a> {
    pod: &'a Candidate,
    cache: &'a Cache,
    /// Pods that meet all terms of the required affinity.
    near: Places<'a>,
    /// Pods that a term of the required anti-affinity means.
    far: Places<'a>,
    /// Pods that must be far from this one. Their keys are theirs: kept apart from the cluster's for trials.
    shunning: HashMap<String, HashMap<String, i64>>,
}

impl<'a> Counts<'a> {
    fn required(&self) -> &'a [Term] {
        self.pod.info.affinity.as_ref().map_or(&[], |affinity| &affinity.required)
    }

    fn anti_required(&self) -> &'a [Term] {
        self.pod.info.affinity.as_ref().map_or(&[], |affinity| &affinity.anti_required)
    }

    fn count(&mut self, other: &PodInfo, node: &NodeInfo, amount: i64) {
        let required = self.required();
        if !required.is_empty() && required.iter().all(|term| term.matches(other, &self.cache.namespaces)) {
            required.iter().for_each(|term| self.near.add(&term.topology_key, node, amount));
        }
        for term in self.anti_required() {
            if term.matches(other, &self.cache.namespaces) {
                self.far.add(&term.topology_key, node, amount);
            }
        }
        self.count_shunning(other, node, amount);
    }

    fn count_shunning(&mut self, other: &PodInfo, node: &NodeInfo, amount: i64) {
        for term in other.affinity.iter().flat_map(|affinity| &affinity.anti_required) {
            if let Some(value) = node.label(&term.topology_key)
                && term.matches(self.pod, &self.cache.namespaces)
            {
                let values = self.shunning.entry(term.topology_key.clone()).or_default();
                *values.entry(value.to_owned()).or_default() += amount;
            }
        }
    }

    /// Upstream: where no pod at all is as the terms ask, but this one is, it may be the first of its kind.
    fn is_near(&self, node: &NodeInfo) -> bool {
        let terms = self.required();
        if terms.iter().any(|term| node.label(&term.topology_key).is_none()) {
            return false;
        }
        terms.iter().all(|term| self.near.at(&term.topology_key, node) > 0)
            || self.near.is_empty() && terms.iter().all(|term| term.matches(self.pod, &self.cache.namespaces))
    }
}

impl Check for Counts<'_> {
    fn check(&self, node: &NodeInfo) -> Result<(), Refusal> {
        if !self.required().is_empty() && !self.is_near(node) {
            return Err(Refusal::unresolvable("node(s) didn't match pod affinity rules"));
        }
        if self.anti_required().iter().any(|term| self.far.at(&term.topology_key, node) > 0) {
            return Err(Refusal::resolvable("node(s) didn't match pod anti-affinity rules"));
        }
        let shunned = self
            .shunning
            .iter()
            .any(|(key, values)| node.label(key).and_then(|value| values.get(value)).is_some_and(|count| *count > 0));
        if shunned {
            return Err(Refusal::resolvable("node(s) didn't satisfy existing pods anti-affinity rules"));
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

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn filter<'a>(&'a self, pod: &'a Candidate, cache: &'a Cache) -> Filtering<'a> {
        let mut counts =
            Counts { pod, cache, near: Places::default(), far: Places::default(), shunning: HashMap::new() };
        for node in cache.with_anti_affinity.keys().filter_map(|id| cache.node(*id)) {
            node.pods.iter().for_each(|other| counts.count_shunning(other, node, 1));
        }
        let (required, anti) = (counts.required(), counts.anti_required());
        if let Some(first) = required.first() {
            for (other, node) in matching(cache, first) {
                if required.iter().all(|term| term.matches(other, &cache.namespaces)) {
                    required.iter().for_each(|term| counts.near.add(&term.topology_key, node, 1));
                }
            }
        }
        for term in anti {
            for (_, node) in matching(cache, term) {
                counts.far.add(&term.topology_key, node, 1);
            }
        }
        if required.is_empty() && anti.is_empty() && counts.shunning.is_empty() {
            return Filtering::Skip;
        }
        Filtering::Each(Box::new(counts))
    }

    fn score(&self, pod: &Candidate, cache: &Cache, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        let own = pod.info.affinity.as_deref();
        let prefers = own.is_some_and(|own| !own.preferred.is_empty() || !own.anti_preferred.is_empty());
        if !prefers && cache.with_affinity.is_empty() {
            return None;
        }
        let mut places = Places::default();
        let own = own.into_iter();
        let near = own.clone().flat_map(|own| own.preferred.iter().map(|(weight, term)| (*weight, term)));
        let far = own.flat_map(|own| own.anti_preferred.iter().map(|(weight, term)| (-*weight, term)));
        for (weight, term) in near.chain(far) {
            for (_, node) in matching(cache, term) {
                places.add(&term.topology_key, node, weight);
            }
        }
        for node in cache.with_affinity.keys().filter_map(|id| cache.node(*id)) {
            for theirs in node.pods.iter().filter_map(|other| other.affinity.as_deref()) {
                let hard = theirs.required.iter().map(|term| (self.hard_pod_affinity_weight, term));
                let near = theirs.preferred.iter().map(|(weight, term)| (*weight, term));
                let far = theirs.anti_preferred.iter().map(|(weight, term)| (-*weight, term));
                let soft = near.chain(far).filter(|_| !self.ignore_preferred_terms_of_existing_pods);
                for (weight, term) in hard.chain(soft) {
                    if weight != 0 && term.matches(pod, &cache.namespaces) {
                        places.add(&term.topology_key, node, weight);
                    }
                }
            }
        }
        let sum = |node: &&NodeInfo| places.0.keys().map(|key| places.at(key, node)).sum();
        let mut scores: Vec<i64> = nodes.iter().map(sum).collect();
        let least = scores.iter().copied().min().unwrap_or(0);
        let most = scores.iter().copied().max().unwrap_or(0);
        for score in &mut scores {
            *score = if most > least { MAX_SCORE * (*score - least) / (most - least) } else { 0 };
        }
        Some(scores)
    }

    fn queueing_hint(&self, pod: &Candidate, event: &ClusterEvent<'_>) -> bool {
        let own = pod.info.affinity.as_deref();
        let labels = |terms: &[Term], other: &PodInfo| terms.iter().any(|term| term.selector.matches(&other.labels));
        match event {
            ClusterEvent::Node(_) => true,
            ClusterEvent::PodAdded(other) => own.is_some_and(|own| labels(&own.required, other)),
            // It may also have been the one that shuns this pod.
            ClusterEvent::PodRemoved(other) => {
                own.is_some_and(|own| labels(&own.anti_required, other) || labels(&own.required, other))
                    || other.affinity.as_ref().is_some_and(|theirs| labels(&theirs.anti_required, pod))
            }
            _ => false,
        }
    }
}

/// The pods that `term` means, with their nodes.
fn matching<'a>(cache: &'a Cache, term: &'a Term) -> impl Iterator<Item = (&'a PodInfo, &'a NodeInfo)> {
    let namespaces = term.namespace_selector.is_none().then_some(&term.namespaces);
    let pods = cache.candidates(&term.selector, namespaces);
    pods.filter(|(_, pod)| term.matches(pod, &cache.namespaces))
        .filter_map(|(id, pod)| Some((pod.as_ref(), cache.node(id)?)))
}
