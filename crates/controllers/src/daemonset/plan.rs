//! What a DaemonSet needs: on which nodes to create a Pod, which Pods to delete, and its status.
//!
//! Upstream's order: first every node gets the one Pod that belongs there; only when nothing is left to do for that, an
//! update goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use machinery::int_or_string;

use super::placement::{self, Place};
use crate::history;
use crate::owner::Owner;
use crate::{meta, pod_control, pods};

/// Counts the changes of the template; what is left of a field that v1 no longer has.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
/// The label of a Pod that holds that count.
const POD_GENERATION: &str = "pod-template-generation";
/// No more Pods than this are created or deleted in one go; the rest follows in the next.
const BURST: usize = 250;

/// What a plan is made from.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// All nodes.
    pub(crate) nodes: Vec<Arc<Node>>,
    /// The set's Pods. What the controller wrote itself must be shown already.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// The hash of the set's present template.
    pub(crate) hash: String,
    /// Nodes where Pods failed, with the time until which they are left alone.
    pub(crate) failure_backoff: BTreeMap<String, Timestamp>,
}

/// What is to be done for a DaemonSet.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Pods to create.
    pub(crate) create: Vec<Pod>,
    /// Pods to delete.
    pub(crate) delete: Vec<Arc<Pod>>,
    /// Of those to delete, the ones that ended by themselves, and where.
    pub(crate) ended: Vec<(String, Arc<Pod>)>,
    /// The status before any of this shows.
    pub(crate) status: DaemonSetStatus,
    /// When time alone changes something.
    pub(crate) requeue_after: Option<Duration>,
}

/// Decides what `set` needs. Whoever carries the plan out makes no choices.
pub(crate) fn plan(snapshot: &Snapshot, set: &DaemonSet, owner: &Owner, now: Timestamp) -> Plan {
    let empty = DaemonSetSpec::default();
    let spec = set.spec.as_ref().unwrap_or(&empty);
    let mut body = spec.template.spec.clone().unwrap_or_default();
    placement::add_tolerations(&mut body);
    let mut planner = Planner { snapshot, set, spec, owner, now, body, nodes: BTreeMap::new(), plan: Plan::default() };
    planner.sort();
    planner.count();
    if !meta::is_deleting(set) {
        let mut create = planner.manage();
        if create.is_empty() && planner.plan.delete.is_empty() {
            create = planner.update();
        }
        create.truncate(BURST);
        planner.plan.create = create.iter().map(|node| planner.pod(node)).collect();
        planner.plan.delete.truncate(BURST);
    }
    planner.plan
}

/// A node, or the name of one that is gone, with the set's Pods on it that are not being deleted, oldest first.
struct OnNode {
    place: Place,
    exists: bool,
    pods: Vec<Arc<Pod>>,
    /// Whether a Pod there is being deleted: its place is taken until it is gone.
    leaving: bool,
}

struct Planner<'a> {
    snapshot: &'a Snapshot,
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    owner: &'a Owner,
    now: Timestamp,
    body: PodSpec,
    nodes: BTreeMap<String, OnNode>,
    plan: Plan,
}

impl Planner<'_> {
    fn sort(&mut self) {
        for node in &self.snapshot.nodes {
            let place = placement::place(&self.body, node);
            let on = OnNode { place, exists: true, pods: Vec::new(), leaving: false };
            self.nodes.insert(meta::name(&**node).to_owned(), on);
        }
        for pod in &self.snapshot.pods {
            let Some(node) = placement::target(pod) else { continue };
            let gone = || OnNode { place: Place::No, exists: false, pods: Vec::new(), leaving: false };
            let on = self.nodes.entry(node.to_owned()).or_insert_with(gone);
            if meta::is_deleting(&**pod) {
                on.leaving = true;
            } else {
                on.pods.push(Arc::clone(pod));
            }
        }
        for on in self.nodes.values_mut() {
            // Upstream: those that run on a node come before those that wait for it, then by age.
            on.pods.sort_by_key(|pod| {
                (pods::node_name(pod).is_none(), meta::created(&**pod), meta::name(&**pod).to_owned())
            });
        }
    }

    /// Gives every node the one Pod that belongs there: the answer is where one is missing.
    fn manage(&mut self) -> Vec<String> {
        let mut missing = Vec::new();
        let (_, max_surge) = self.margins();
        let nodes = std::mem::take(&mut self.nodes);
        for (node, on) in &nodes {
            if on.place == Place::No {
                // A Pod that runs on a node which is gone is the Pod garbage collector's.
                let ours = |pod: &&Arc<Pod>| on.exists || pods::node_name(pod).is_none();
                self.plan.delete.extend(on.pods.iter().filter(ours).cloned());
                continue;
            }
            let (ended, running): (Vec<_>, Vec<_>) = on.pods.iter().cloned().partition(|pod| pods::is_finished(pod));
            for pod in ended {
                self.replace(node, pod);
            }
            if on.pods.is_empty() && !on.leaving && on.place == Place::Run {
                missing.push(node.clone());
            }
            if max_surge == 0 {
                self.plan.delete.extend(running.into_iter().skip(1));
            } else {
                self.thin_out(&running);
            }
        }
        self.nodes = nodes;
        missing
    }

    /// Deletes a Pod that ended; if it failed, not before the back-off of its node is over.
    fn replace(&mut self, node: &str, pod: Arc<Pod>) {
        let until = self.snapshot.failure_backoff.get(node).filter(|until| **until > self.now);
        if let (Some(until), pods::PodPhase::Failed) = (until, pods::phase(&pod)) {
            return self.requeue_after(meta::until(*until, self.now));
        }
        self.plan.delete.push(Arc::clone(&pod));
        self.plan.ended.push((node.to_owned(), pod));
    }

    /// With surge, a node keeps the oldest old Pod and the oldest new one, and the old one until the new one can take over.
    fn thin_out(&mut self, running: &[Arc<Pod>]) {
        let (new, old): (Vec<_>, Vec<_>) = running.iter().partition(|pod| self.is_updated(pod));
        for surplus in new.iter().skip(1).chain(old.iter().skip(1)) {
            self.plan.delete.push(Arc::clone(surplus));
        }
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!pods::is_ready(old) || self.is_available(new))
        {
            self.plan.delete.push(Arc::clone(old));
        }
    }

    /// Goes on with an update: the answer is where a further Pod may be created.
    fn update(&mut self) -> Vec<String> {
        let strategy = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        if strategy == Some("OnDelete") {
            return Vec::new();
        }
        let (max_unavailable, max_surge) = self.margins();
        let nodes = std::mem::take(&mut self.nodes);
        let surged = if max_surge == 0 {
            self.replace_old(&nodes, max_unavailable);
            Vec::new()
        } else {
            self.surge(&nodes, max_surge)
        };
        self.nodes = nodes;
        surged
    }

    fn replace_old(&mut self, nodes: &BTreeMap<String, OnNode>, max_unavailable: usize) {
        let mut unavailable = 0;
        let mut candidates = Vec::new();
        for on in nodes.values().filter(|on| on.place == Place::Run || !on.pods.is_empty()) {
            match on.pods.as_slice() {
                [pod] if self.is_updated(pod) => unavailable += usize::from(!self.is_available(pod)),
                // One that is not available costs nothing to replace.
                [pod] if !self.is_available(pod) => {
                    unavailable += 1;
                    self.plan.delete.push(Arc::clone(pod));
                }
                [pod] => candidates.push(Arc::clone(pod)),
                _ => unavailable += 1,
            }
        }
        let budget = max_unavailable.saturating_sub(unavailable);
        self.plan.delete.extend(candidates.into_iter().take(budget));
    }

    fn surge(&mut self, nodes: &BTreeMap<String, OnNode>, max_surge: usize) -> Vec<String> {
        let mut surged = 0;
        let (mut allowed, mut candidates) = (Vec::new(), Vec::new());
        for (node, on) in nodes {
            let (new, old): (Vec<_>, Vec<_>) = on.pods.iter().partition(|pod| self.is_updated(pod));
            match (new.as_slice(), old.as_slice()) {
                // One that is not available may be joined by its successor at once.
                ([], [old]) if on.place == Place::Run && !self.is_available(old) => allowed.push(node.clone()),
                ([], [_]) if on.place == Place::Run => candidates.push(node.clone()),
                ([_], [_]) => surged += 1,
                _ => {}
            }
        }
        allowed.extend(candidates.into_iter().take(max_surge.saturating_sub(surged)));
        allowed
    }

    /// How many Pods may be unavailable and how many nodes may have two: both percentages round up.
    fn margins(&self) -> (usize, usize) {
        let desired = self.nodes.values().filter(|on| on.place == Place::Run).count();
        let desired = i32::try_from(desired).unwrap_or(i32::MAX);
        let rolling = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let scaled = |value: Option<&_>| {
            // Validation refuses what is no number and no percentage.
            let count = value.and_then(|value| int_or_string::scaled(value, desired, true).ok());
            count.and_then(|count| usize::try_from(count).ok())
        };
        let unavailable = scaled(rolling.and_then(|rolling| rolling.max_unavailable.as_ref())).unwrap_or(1);
        let surge = scaled(rolling.and_then(|rolling| rolling.max_surge.as_ref())).unwrap_or(0);
        if unavailable == 0 && surge == 0 { (1, 0) } else { (unavailable, surge) }
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        history::of_pod(pod) == Some(self.snapshot.hash.as_str())
    }

    fn available_in(&self, pod: &Pod) -> Option<Duration> {
        pods::available_in(pod, self.spec.min_ready_seconds.unwrap_or_default(), self.now)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        self.available_in(pod).is_some_and(|wait| wait.is_zero())
    }

    fn requeue_after(&mut self, wait: Duration) {
        self.plan.requeue_after = Some(self.plan.requeue_after.map_or(wait, |least| least.min(wait)));
    }

    fn count(&mut self) {
        let mut status = DaemonSetStatus {
            observed_generation: self.set.metadata.generation,
            collision_count: self.set.status.as_ref().and_then(|status| status.collision_count),
            conditions: self.set.status.as_ref().and_then(|status| status.conditions.clone()),
            ..DaemonSetStatus::default()
        };
        let (mut updated, mut available) = (0, 0);
        let mut waits = Vec::new();
        for on in self.nodes.values().filter(|on| on.exists) {
            let Some(pod) = on.pods.first() else {
                status.desired_number_scheduled += i32::from(on.place == Place::Run);
                continue;
            };
            if on.place != Place::Run {
                status.number_misscheduled += 1;
                continue;
            }
            status.desired_number_scheduled += 1;
            status.current_number_scheduled += 1;
            updated += i32::from(self.is_updated(pod));
            if let Some(wait) = self.available_in(pod) {
                status.number_ready += 1;
                available += i32::from(wait.is_zero());
                waits.extend((!wait.is_zero()).then_some(wait));
            }
        }
        status.updated_number_scheduled = meta::count(updated);
        status.number_available = meta::count(available);
        status.number_unavailable = meta::count(status.desired_number_scheduled - available);
        self.plan.status = status;
        waits.into_iter().for_each(|wait| self.requeue_after(wait));
    }

    fn pod(&self, node: &str) -> Pod {
        let mut pod = pod_control::from_template(&self.spec.template, self.owner, format!("{}-", self.owner.name()));
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(history::POD_REVISION.to_owned(), self.snapshot.hash.clone());
        if let Some(generation) = meta::annotation(self.set, TEMPLATE_GENERATION) {
            labels.insert(POD_GENERATION.to_owned(), generation.to_owned());
        }
        let mut body = self.body.clone();
        placement::tie(&mut body, node);
        pod.spec = Some(body);
        pod
    }
}
