//! Which pods have to go so that one of higher priority can run.
//!
//! Upstream's rules: only pods of lower priority go, all from one node, and no more than must; first those that no
//! disruption budget protects. Among the nodes on which that is possible, the one is taken where the fewest budgets
//! are broken, then where the most important victim is the least, then by the sum and the number of victims, then
//! where they have run for the shortest time.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use machinery::selector::LabelSelector;

use crate::cache::Cache;
use crate::profile::Profile;
use crate::schedule::{Filters, NotPreempted, Unschedulable};
use crate::types::{Candidate, NodeInfo, PodInfo};

/// So many nodes that will do are compared at least, or a tenth of all: upstream's numbers.
const CANDIDATES: usize = 100;

/// A disruption budget.
#[derive(Debug, Clone)]
pub struct Budget {
    namespace: String,
    selector: LabelSelector,
    /// How many more pods may go.
    allowed: i32,
    /// Pods whose end is counted already.
    disrupted: Vec<String>,
}

impl Budget {
    /// What a budget says.
    pub fn new(budget: &PodDisruptionBudget) -> Self {
        let spec = budget.spec.as_ref();
        let selector = LabelSelector::from_object(spec.and_then(|spec| spec.selector.as_ref()));
        let status = budget.status.as_ref();
        Self {
            namespace: budget.metadata.namespace.clone().unwrap_or_default(),
            selector: selector.unwrap_or(const { LabelSelector::nothing() }),
            allowed: status.and_then(|status| status.disruptions_allowed).unwrap_or(0),
            disrupted: status
                .and_then(|status| status.disrupted_pods.as_ref())
                .map(|pods| pods.keys().cloned().collect())
                .unwrap_or_default(),
        }
    }

    fn protects(&self, pod: &PodInfo) -> bool {
        self.namespace == pod.namespace
            && !pod.labels.is_empty()
            && self.selector.matches(&pod.labels)
            && !self.disrupted.contains(&pod.name)
    }
}

/// A node that can be cleared, and the pods that have to go from it, the most important first.
#[derive(Debug, Clone)]
pub struct Preemption {
    /// The node.
    pub node: String,
    /// The pods.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of them are protected by a disruption budget.
    violations: usize,
}

impl Preemption {
    /// A node on which there is room as it is.
    pub(crate) fn of_nobody(node: String) -> Self {
        Self { node, victims: Vec::new(), violations: 0 }
    }
}

/// Looks for pods of lower priority to preempt.
///
/// # Errors
/// Why none are preempted.
pub fn preempt(
    cache: &Cache,
    profile: &Profile,
    pod: &Candidate,
    refused: &Unschedulable,
    budgets: &[Budget],
) -> Result<Preemption, NotPreempted> {
    if pod.spec().preemption_policy.as_deref() == Some("Never") {
        return Err(NotPreempted::PolicyNever);
    }
    if let Some(node) = pod.nominated().and_then(|name| cache.node_named(name))
        && (refused.resolvable.contains(&node.id))
        && node.pods.iter().any(|other| other.deleting && other.priority < pod.priority)
    {
        return Err(NotPreempted::VictimsTerminating);
    }
    let mut reasons: BTreeMap<Cow<'static, str>, usize> = BTreeMap::new();
    let mut found: Vec<Preemption> = Vec::new();
    let wanted = (refused.resolvable.len() / 10).max(CANDIDATES);
    if let Ok(mut filters) = Filters::new(profile, pod, cache) {
        // Not always the same nodes first, where there are many.
        let offset = pod.uid.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let (before, after) = refused.resolvable.split_at(offset % refused.resolvable.len().max(1));
        for node in after.iter().chain(before).filter_map(|id| cache.node(*id)) {
            match victims(&mut filters, node, pod, budgets) {
                Ok(preemption) => found.push(preemption),
                Err(why) => why.into_iter().for_each(|why| *reasons.entry(why).or_default() += 1),
            }
            if found.len() >= wanted {
                break;
            }
        }
    }
    let best = found.into_iter().min_by_key(|one| {
        let highest = one.victims.first().map_or(i32::MIN, |victim| victim.priority);
        // Upstream shifts priorities so that the sum grows with each victim, negative ones too.
        let sum: i64 = one.victims.iter().map(|victim| i64::from(victim.priority) + i64::from(i32::MAX) + 1).sum();
        let top = one.victims.iter().filter(|victim| victim.priority == highest);
        let earliest = top.map(|victim| victim.started.unwrap_or(Timestamp::MAX)).min();
        (one.violations, highest, sum, one.victims.len(), Reverse(earliest))
    });
    best.ok_or_else(|| {
        let helpless = refused.nodes - refused.resolvable.len().min(refused.nodes);
        if helpless > 0 {
            *reasons.entry(Cow::Borrowed("Preemption is not helpful for scheduling")).or_default() += helpless;
        }
        NotPreempted::NoCandidates { nodes: refused.nodes, reasons }
    })
}

/// The fewest and least important pods that have to go from `node`.
fn victims(
    filters: &mut Filters<'_>,
    node: &NodeInfo,
    pod: &PodInfo,
    budgets: &[Budget],
) -> Result<Preemption, Vec<Cow<'static, str>>> {
    let mut lower: Vec<Arc<PodInfo>> =
        node.pods.iter().filter(|other| other.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return Err(vec![Cow::Borrowed("No preemption victims found for incoming pod")]);
    }
    let mut trial = node.clone();
    for other in &lower {
        filters.remove_pod(&mut trial, other);
    }
    let mut gone: Vec<Arc<PodInfo>> = Vec::new();
    let refusal = filters.refusal(&trial);
    let mut violations = 0;
    if refusal.is_none() {
        lower.sort_by_key(|other| importance(other));
        let (protected, free) = split(&lower, budgets);
        for (others, counts) in [(protected, 1), (free, 0)] {
            for other in others {
                filters.add_pod(&mut trial, &other);
                if filters.refusal(&trial).is_some() {
                    filters.remove_pod(&mut trial, &other);
                    gone.push(other);
                    violations += counts;
                }
            }
        }
    } else {
        gone.clone_from(&lower);
    }
    // The filters are used again for the next node.
    for other in &gone {
        filters.add_pod(&mut trial, other);
    }
    match refusal {
        Some((_, refusal)) => Err(refusal.reasons),
        None => {
            gone.sort_by_key(|other| importance(other));
            Ok(Preemption { node: node.name().to_owned(), victims: gone, violations })
        }
    }
}

/// Sorts the more important first: by priority, then by how long it runs.
fn importance(pod: &PodInfo) -> (Reverse<i32>, Timestamp) {
    (Reverse(pod.priority), pod.started.unwrap_or(Timestamp::MAX))
}

/// Those whose end would break a budget, and the others; in order.
fn split(pods: &[Arc<PodInfo>], budgets: &[Budget]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut left: Vec<i32> = budgets.iter().map(|budget| budget.allowed).collect();
    pods.iter().cloned().partition(|pod| {
        let mut broken = false;
        for (budget, left) in budgets.iter().zip(&mut left) {
            if budget.protects(pod) {
                *left -= 1;
                broken |= *left < 0;
            }
        }
        broken
    })
}

#[cfg(test)]
mod tests;
