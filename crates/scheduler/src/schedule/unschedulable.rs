//! Why a pod was refused by all nodes, as a type and as upstream's text.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::types::{NodeId, Refusal};

/// No node will do. Its `Display` is the text of the `FailedScheduling` event, word for word upstream's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unschedulable {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many nodes were refused for each reason.
    pub reasons: BTreeMap<Cow<'static, str>, usize>,
    /// Why there is no point in looking at nodes.
    pub refused_before: Option<String>,
    /// The plugins that refused.
    pub plugins: BTreeSet<&'static str>,
    /// The nodes that could take the pod if others left.
    pub resolvable: Vec<NodeId>,
    /// Why no pods are preempted; none where some are, or where the profile does not preempt.
    pub not_preempted: Option<NotPreempted>,
}

/// Why no pods of lower priority are preempted. Its `Display` is upstream's text (`PodEligibleToPreemptOthers` in
/// `pkg/scheduler/framework/plugins/defaultpreemption/default_preemption.go`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotPreempted {
    /// The pod has `preemptionPolicy: Never`.
    PolicyNever,
    /// Pods are leaving the node that was nominated: what their end brings is waited for.
    VictimsTerminating,
    /// There is no node on which it would help.
    NoCandidates {
        /// How many nodes there are.
        nodes: usize,
        /// How many of them are no candidates for each reason.
        reasons: BTreeMap<Cow<'static, str>, usize>,
    },
}

impl fmt::Display for NotPreempted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PolicyNever => f.write_str("not eligible due to preemptionPolicy=Never."),
            Self::VictimsTerminating => f.write_str("not eligible due to a terminating pod on the nominated node."),
            Self::NoCandidates { nodes, reasons } => f.write_str(&counts(*nodes, reasons)),
        }
    }
}

impl Unschedulable {
    /// Counts the refusal of one node.
    pub(super) fn add(&mut self, node: NodeId, plugin: &'static str, refusal: &Refusal) {
        self.plugins.insert(plugin);
        if refusal.resolvable {
            self.resolvable.push(node);
        }
        for reason in &refusal.reasons {
            match self.reasons.get_mut(reason) {
                Some(count) => *count += 1,
                None => {
                    self.reasons.insert(reason.clone(), 1);
                }
            }
        }
    }
}

impl fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        match &self.refused_before {
            Some(why) => write!(f, "0/{} nodes are available: {why}.", self.nodes)?,
            None => f.write_str(&counts(self.nodes, &self.reasons))?,
        }
        match &self.not_preempted {
            Some(why) => write!(f, " preemption: {why}"),
            None => Ok(()),
        }
    }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 Too many pods.`, the parts sorted as texts, as upstream sorts them.
fn counts(nodes: usize, reasons: &BTreeMap<Cow<'static, str>, usize>) -> String {
    let mut parts: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}
