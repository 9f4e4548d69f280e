//! Which Pods of too many go first.
//!
//! Upstream's order: not on a node yet; pending before unknown before running; not ready; the lower
//! `controller.kubernetes.io/pod-deletion-cost`; on a node with more of their like; ready for less long; restarted more
//! often; created later. Ages are compared by their order of magnitude, and then by UID, so that Pods of about the same
//! age go in random order and not, say, all those of one zone.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::{meta, pods};

/// The `count` Pods of `candidates` to delete. `related` are the active Pods of all ReplicaSets of the same owner: a
/// node that has several of them can spare one rather than a node that has one.
pub(crate) fn to_delete(
    mut candidates: Vec<Arc<Pod>>,
    related: &[Arc<Pod>],
    count: usize,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    if count >= candidates.len() {
        return candidates;
    }
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pods::is_active(pod)) {
        if let Some(node) = pods::node_name(pod) {
            *on_node.entry(node).or_default() += 1;
        }
    }
    let mut ranked: Vec<(Rank, Arc<Pod>)> = candidates
        .drain(..)
        .map(|pod| {
            let node = pods::node_name(&pod).unwrap_or_default();
            let doubled = on_node.get(node).copied().unwrap_or_default();
            (Rank::of(&pod, doubled, now), pod)
        })
        .collect();
    ranked.sort_by(|(a, _), (b, _)| a.compare(b));
    ranked.truncate(count);
    ranked.into_iter().map(|(_, pod)| pod).collect()
}

struct Rank {
    assigned: bool,
    phase: u8,
    cost: i32,
    doubled: usize,
    /// Since when it is ready, and the order of magnitude of that time.
    ready: Option<(Timestamp, i64)>,
    restarts: i32,
    created: (Timestamp, i64),
    uid: String,
}

impl Rank {
    fn of(pod: &Pod, doubled: usize, now: Timestamp) -> Self {
        let created = meta::created(pod);
        Self {
            assigned: pods::node_name(pod).is_some(),
            phase: match pods::phase(pod) {
                pods::PodPhase::Running => 2,
                pods::PodPhase::Unknown => 1,
                _ => 0,
            },
            cost: meta::annotation(pod, "controller.kubernetes.io/pod-deletion-cost")
                .and_then(|cost| cost.parse().ok())
                .unwrap_or_default(),
            doubled,
            ready: pods::ready_since(pod).map(|since| (since, magnitude(since, now))),
            restarts: restarts(pod),
            created: (created, magnitude(created, now)),
            uid: meta::uid(pod).to_owned(),
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.assigned
            .cmp(&other.assigned)
            .then(self.phase.cmp(&other.phase))
            .then(self.ready.is_some().cmp(&other.ready.is_some()))
            .then(self.cost.cmp(&other.cost))
            .then(other.doubled.cmp(&self.doubled))
            .then_with(|| match (self.ready, other.ready) {
                (Some(a), Some(b)) => self.by_age(other, a, b),
                _ => Ordering::Equal,
            })
            .then(other.restarts.cmp(&self.restarts))
            .then_with(|| self.by_age(other, self.created, other.created))
            .then_with(|| self.uid.cmp(&other.uid))
    }

    fn by_age(&self, other: &Self, a: (Timestamp, i64), b: (Timestamp, i64)) -> Ordering {
        if a.0 == b.0 {
            return Ordering::Equal;
        }
        a.1.cmp(&b.1).then_with(|| self.uid.cmp(&other.uid))
    }
}

/// The binary logarithm of an age in nanoseconds; -1 for a time to come.
fn magnitude(since: Timestamp, now: Timestamp) -> i64 {
    let age = now.duration_since(since).as_nanos();
    match u128::try_from(age) {
        Ok(age) if age > 0 => i64::from(age.ilog2()),
        _ => -1,
    }
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
    let counts = statuses.unwrap_or_default().iter().map(|container| container.restart_count);
    counts.max().unwrap_or_default()
}
