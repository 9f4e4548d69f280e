//! The decision: which node a pod is to run on, or why none will do.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::framework::{NodeInfo, PodInfo, Refusal};
use crate::plugins::{FILTERS, SCORES};

/// A node was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The node's name.
    pub node: String,
    /// Its score: the weighted sum over all plugins.
    pub score: i64,
    /// How many nodes could have taken the pod.
    pub feasible: usize,
}

/// No node will do. Its `Display` is the text of the `FailedScheduling` event, word for word upstream's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unschedulable {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many nodes were refused for each reason.
    pub reasons: BTreeMap<Cow<'static, str>, usize>,
    /// The plugins that refused.
    pub plugins: BTreeSet<&'static str>,
    /// How many nodes could take the pod if others left.
    pub resolvable: usize,
}

/// Chooses the node for `pod`.
///
/// Pure: the same nodes and the same pod give the same answer. Among nodes of equal score the pod's and the node's
/// names decide in a way that spreads pods and is the same at every call.
pub fn schedule<'a>(nodes: impl Iterator<Item = &'a NodeInfo>, pod: &PodInfo) -> Result<Decision, Unschedulable> {
    let mut refused = Unschedulable::default();
    let mut feasible: Vec<&NodeInfo> = Vec::new();
    for node in nodes {
        refused.nodes += 1;
        match first_refusal(pod, node) {
            None => feasible.push(node),
            Some((plugin, refusal)) => refused.note(plugin, refusal),
        }
    }
    let Some(first) = feasible.first() else {
        return Err(refused);
    };
    // With one candidate its score decides nothing.
    if feasible.len() == 1 {
        return Ok(Decision { node: first.name().to_owned(), score: 0, feasible: 1 });
    }
    let totals = score(pod, &feasible);
    let best = feasible.iter().zip(&totals).max_by_key(|(node, total)| (**total, tie_break(pod, node)));
    let (node, total) = best.unwrap_or((first, &0));
    Ok(Decision { node: node.name().to_owned(), score: *total, feasible: feasible.len() })
}

fn first_refusal(pod: &PodInfo, node: &NodeInfo) -> Option<(&'static str, Refusal)> {
    FILTERS.iter().find_map(|filter| {
        let refusal = filter.filter(pod, node).err()?;
        Some((filter.name(), refusal))
    })
}

fn score(pod: &PodInfo, nodes: &[&NodeInfo]) -> Vec<i64> {
    let mut totals = vec![0; nodes.len()];
    for plugin in SCORES {
        let mut scores: Vec<i64> = nodes.iter().map(|node| plugin.score(pod, node)).collect();
        plugin.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += score * plugin.weight();
        }
    }
    totals
}

fn tie_break(pod: &PodInfo, node: &NodeInfo) -> u64 {
    let mut hasher = DefaultHasher::new();
    (pod.uid(), node.name()).hash(&mut hasher);
    hasher.finish()
}

impl Unschedulable {
    fn note(&mut self, plugin: &'static str, refusal: Refusal) {
        self.plugins.insert(plugin);
        self.resolvable += usize::from(refusal.resolvable);
        for reason in refusal.reasons {
            *self.reasons.entry(reason).or_insert(0) += 1;
        }
    }
}

impl fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write_counts(f, self.nodes, self.reasons.iter().map(|(reason, count)| (*count, reason.as_ref())))?;
        f.write_str(" preemption: ")?;
        let helpless = self.nodes - self.resolvable.min(self.nodes);
        let attempts = [
            (self.resolvable, "No preemption victims found for incoming pod"),
            (helpless, "Preemption is not helpful for scheduling"),
        ];
        write_counts(f, self.nodes, attempts.into_iter().filter(|(count, _)| *count > 0))
    }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 Too many pods.`, the parts sorted as texts, as upstream sorts them.
fn write_counts<'a>(
    f: &mut fmt::Formatter<'_>,
    nodes: usize,
    reasons: impl Iterator<Item = (usize, &'a str)>,
) -> fmt::Result {
    let mut parts: Vec<String> = reasons.map(|(count, reason)| format!("{count} {reason}")).collect();
    parts.sort();
    write!(f, "0/{nodes} nodes are available: {}.", parts.join(", "))
}

#[cfg(test)]
mod tests;
