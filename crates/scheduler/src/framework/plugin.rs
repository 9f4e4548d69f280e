//! The trait that plugins implement.

use crate::cache::Cache;
use crate::types::{Candidate, NodeInfo, PodInfo, Refusal};

/// The best score that a plugin can give a node; 0 is the worst.
pub const MAX_SCORE: i64 = 100;

/// A part of the decision which node a pod runs on.
pub trait Plugin: Send + Sync {
    /// The plugin's name, upstream's where it has it.
    fn name(&self) -> &'static str;

    /// Looks at a pod once, before any node, and answers with what is to be asked of each node.
    fn filter<'a>(&'a self, _pod: &'a Candidate, _cache: &'a Cache) -> Filtering<'a> {
        Filtering::Skip
    }

    /// How well each of `nodes` suits `pod`: 0 to [`MAX_SCORE`], in the order of `nodes`. `None` where the plugin has
    /// no opinion.
    fn score(&self, _pod: &Candidate, _cache: &Cache, _nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        None
    }

    /// Whether `event` may end a refusal of `pod` by this plugin. The pod is not tried again before.
    fn queueing_hint(&self, _pod: &Candidate, _event: &ClusterEvent<'_>) -> bool {
        true
    }
}

/// What a plugin wants to check for a pod.
pub enum Filtering<'a> {
    /// Nothing: every node will do.
    Skip,
    /// Each node by itself.
    Each(Box<dyn Check + 'a>),
    /// Nothing: no node will do.
    Refuse(Refusal),
}

impl<'a> Filtering<'a> {
    /// Checks each node with a function.
    pub fn each_node(check: impl Fn(&NodeInfo) -> Result<(), Refusal> + 'a) -> Self {
        Self::Each(Box::new(check))
    }
}

/// The check of nodes for one pod. Functions of a node are checks.
pub trait Check {
    /// Whether the pod can run on `node`.
    ///
    /// # Errors
    /// Why it cannot.
    fn check(&self, node: &NodeInfo) -> Result<(), Refusal>;

    /// In a trial, `other` was added to `node` (upstream's `PreFilterExtensions`, which have the same two functions). For
    /// checks that have counted pods beforehand; what is summed up in the [`NodeInfo`] itself is kept by it.
    fn add_pod(&mut self, _other: &PodInfo, _node: &NodeInfo) {}

    /// In a trial, `other` was removed from `node`; see [`Check::add_pod`].
    fn remove_pod(&mut self, _other: &PodInfo, _node: &NodeInfo) {}
}

impl<F: Fn(&NodeInfo) -> Result<(), Refusal>> Check for F {
    fn check(&self, node: &NodeInfo) -> Result<(), Refusal> {
        self(node)
    }
}

/// A change of the cluster that may make room for a pod that was refused.
#[derive(Debug, Clone, Copy)]
pub enum ClusterEvent<'a> {
    /// A node appeared, or changed its labels, taints, capacity, images, or whether it is schedulable.
    Node(&'a NodeInfo),
    /// A pod came to a node, or changed its labels there.
    PodAdded(&'a PodInfo),
    /// A pod left its node: it was deleted or has ended.
    PodRemoved(&'a PodInfo),
    /// A pod on a node asks for less than before, or was refused the more that it asked for.
    PodScaledDown(&'a PodInfo),
    /// A claim, a volume or a storage class changed.
    Storage,
}

/// Normalizes scores so that the largest becomes [`MAX_SCORE`]; with `reverse`, so that the largest becomes 0 (upstream:
/// `pkg/scheduler/framework/plugins/helper/normalize_score.go`).
pub fn normalize_score(scores: &mut [i64], reverse: bool) {
    let largest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let normalized = if largest > 0 { *score * MAX_SCORE / largest } else { 0 };
        *score = if reverse { MAX_SCORE - normalized } else { normalized };
    }
}
