//! The decision: which node a pod is to run on, or why none will do.

mod unschedulable;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::cache::Cache;
use crate::framework::{Check, Filtering};
use crate::profile::Profile;
use crate::types::{Candidate, NodeId, NodeInfo, PodInfo, Refusal};

pub use unschedulable::{NotPreempted, Unschedulable};

/// Below so many nodes that will do, all are looked at: upstream's number.
const FEW: usize = 100;

/// A node was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The node's name.
    pub node: String,
    /// Its score: the weighted sum over all plugins.
    pub score: i64,
    /// How many nodes could have taken the pod, of those that were looked at.
    pub feasible: usize,
    /// How many nodes were looked at.
    pub evaluated: usize,
}

/// What was found on the way to a decision.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// Nodes that were refused, by which plugin and why.
    pub refused: Vec<(NodeId, &'static str, Refusal)>,
    /// The nodes that will do.
    pub feasible: Vec<NodeId>,
    /// For each plugin with an opinion: its name, its weight, and its score for each of the nodes that will do.
    pub scores: Vec<(&'static str, i64, Vec<i64>)>,
}

/// The filters of a profile, made ready for one pod.
pub(crate) struct Filters<'a> {
    pod: &'a Candidate,
    cache: &'a Cache,
    checks: Vec<(&'static str, Box<dyn Check + 'a>)>,
}

impl<'a> Filters<'a> {
    /// Makes the filters ready; the error is a refusal of all nodes at once.
    pub(crate) fn new(
        profile: &'a Profile,
        pod: &'a Candidate,
        cache: &'a Cache,
    ) -> Result<Self, (&'static str, Refusal)> {
        let mut checks = Vec::with_capacity(profile.plugins.len());
        for plugin in profile.plugins.iter().filter(|entry| entry.filters) {
            match plugin.plugin.filter(pod, cache) {
                Filtering::Skip => {}
                Filtering::Each(check) => checks.push((plugin.plugin.name(), check)),
                Filtering::Refuse(refusal) => return Err((plugin.plugin.name(), refusal)),
            }
        }
        Ok(Self { pod, cache, checks })
    }

    /// The first refusal of `node`, as it is and with the pods on it for which it is being cleared.
    pub(crate) fn refusal(&mut self, node: &NodeInfo) -> Option<(&'static str, Refusal)> {
        let coming = self.cache.nominated_before(node, self.pod);
        if !coming.is_empty() {
            // Upstream: they may come, so there must be room beside them; and they may not, so nothing may rely on them.
            let mut then = node.clone();
            for pod in &coming {
                self.add_pod(&mut then, pod);
            }
            let refusal = self.refusal_now(&then);
            coming.iter().for_each(|pod| self.remove_pod(&mut then, pod));
            if refusal.is_some() {
                return refusal;
            }
        }
        self.refusal_now(node)
    }

    fn refusal_now(&self, node: &NodeInfo) -> Option<(&'static str, Refusal)> {
        self.checks.iter().find_map(|(name, check)| Some((*name, check.check(node).err()?)))
    }

    /// Adds `pod` to `node` in a trial.
    pub(crate) fn add_pod(&mut self, node: &mut NodeInfo, pod: &Arc<PodInfo>) {
        node.add(Arc::clone(pod));
        self.checks.iter_mut().for_each(|(_, check)| check.add_pod(pod, node));
    }

    /// Removes `pod` from `node` in a trial.
    pub(crate) fn remove_pod(&mut self, node: &mut NodeInfo, pod: &Arc<PodInfo>) {
        node.remove(&pod.uid);
        self.checks.iter_mut().for_each(|(_, check)| check.remove_pod(pod, node));
    }
}

/// Chooses the node for `pod`. `first` is the number of the node to begin with, and becomes that for the next pod.
///
/// Pure: the same cluster and the same pod give the same answer. Among nodes of equal score the pod's id and the node
/// decide in a way that spreads pods and is the same at every call.
///
/// # Errors
/// Why no node takes it.
pub fn schedule(
    cache: &Cache,
    profile: &Profile,
    pod: &Candidate,
    first: &mut usize,
    trace: &mut Trace,
) -> Result<Decision, Box<Unschedulable>> {
    let mut refused = Box::new(Unschedulable { nodes: cache.len(), ..Unschedulable::default() });
    let mut filters = match Filters::new(profile, pod, cache) {
        Ok(filters) => filters,
        Err((plugin, refusal)) => {
            refused.plugins.insert(plugin);
            refused.refused_before = Some(refusal.reasons.join(", "));
            return Err(refused);
        }
    };
    // The node that was cleared for it comes first, and is enough.
    if let Some(node) = pod.nominated().and_then(|name| cache.node_named(name))
        && filters.refusal(node).is_none()
    {
        trace.feasible.push(node.id);
        return Ok(Decision { node: node.name().to_owned(), score: 0, feasible: 1, evaluated: 1 });
    }
    let enough = enough(cache.len(), profile.percentage);
    let mut feasible: Vec<&NodeInfo> = Vec::with_capacity(enough);
    let mut last = *first;
    for node in cache.nodes_from(*first) {
        last = node.id.0 as usize;
        match filters.refusal(node) {
            None => feasible.push(node),
            Some((plugin, refusal)) => {
                refused.add(node.id, plugin, &refusal);
                trace.refused.push((node.id, plugin, refusal));
            }
        }
        if feasible.len() >= enough {
            break;
        }
    }
    trace.feasible.extend(feasible.iter().map(|node| node.id));
    let evaluated = feasible.len() + trace.refused.len();
    let Some(head) = feasible.first() else {
        return Err(refused);
    };
    // With fewer looked at than there are, the next pod begins where this one ended.
    *first = if evaluated < cache.len() { last + 1 } else { 0 };
    let decision =
        |node: &NodeInfo, score| Decision { node: node.name().to_owned(), score, feasible: feasible.len(), evaluated };
    // With one candidate its score decides nothing.
    if feasible.len() == 1 {
        return Ok(decision(head, 0));
    }
    let totals = score(cache, profile, pod, &feasible, trace);
    let seed = seed(pod);
    let best = feasible.iter().zip(&totals).max_by_key(|(node, total)| (**total, mix(seed, node.id)));
    let (node, total) = best.unwrap_or((head, &0));
    Ok(decision(node, *total))
}

/// How many nodes that will do are enough: upstream's adaptive share for large clusters.
fn enough(nodes: usize, percentage: usize) -> usize {
    if nodes < FEW {
        return nodes.max(1);
    }
    let share = if percentage == 0 { 50_usize.saturating_sub(nodes / 125).max(5) } else { percentage.min(100) };
    (nodes * share / 100).max(FEW)
}

fn score(cache: &Cache, profile: &Profile, pod: &Candidate, nodes: &[&NodeInfo], trace: &mut Trace) -> Vec<i64> {
    let mut totals = vec![0; nodes.len()];
    for entry in profile.plugins.iter().filter(|entry| entry.weight > 0) {
        let Some(scores) = entry.plugin.score(pod, cache, nodes) else {
            continue;
        };
        for (total, score) in totals.iter_mut().zip(&scores) {
            *total += score * entry.weight;
        }
        trace.scores.push((entry.plugin.name(), entry.weight, scores));
    }
    totals
}

fn seed(pod: &PodInfo) -> u64 {
    let mut hasher = DefaultHasher::new();
    pod.uid.hash(&mut hasher);
    hasher.finish()
}

fn mix(seed: u64, node: NodeId) -> u64 {
    // The multiplier is 2^64 divided by the golden ratio: neighbouring numbers end up far from each other.
    (seed ^ u64::from(node.0)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests;
