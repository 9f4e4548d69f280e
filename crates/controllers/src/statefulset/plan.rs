//! What a StatefulSet needs: Pods and claims to create, Pods to delete, and its status.
//!
//! Upstream's order: Pods in their ordinals first, then those beyond them (scaling down), then the update; and with the
//! policy OrderedReady each step waits until the one before has come to its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use machinery::int_or_string;

use super::identity::{self, Retention};
use crate::history;
use crate::owner::Owner;
use crate::pods::PodPhase;
use crate::{meta, pods};

/// A template under the name of its ControllerRevision.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Revision {
    /// The name of the ControllerRevision.
    pub(crate) name: String,
    /// Its template.
    pub(crate) template: PodTemplateSpec,
}

/// What a plan is made from.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The set's Pods. What the controller wrote itself must be shown already.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// The claims of the set's namespace that bear names of its Pods' claims.
    pub(crate) claims: BTreeMap<String, Arc<PersistentVolumeClaim>>,
    /// The revision that the set comes from.
    pub(crate) current: Revision,
    /// The revision that the set goes to.
    pub(crate) update: Revision,
    /// How often names of revisions collided.
    pub(crate) collisions: i32,
}

/// What is to be done for a StatefulSet, in this order.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Claims to create, each with the name of its Pod.
    pub(crate) claims: Vec<(String, PersistentVolumeClaim)>,
    /// Claims that get other owners.
    pub(crate) reown: Vec<(Arc<PersistentVolumeClaim>, Vec<OwnerReference>)>,
    /// Pods that do not say yet who they are.
    pub(crate) relabel: Vec<Arc<Pod>>,
    /// Pods to create, once their claims are there.
    pub(crate) create: Vec<Pod>,
    /// Pods to delete.
    pub(crate) delete: Vec<Arc<Pod>>,
    /// The status before any of this shows.
    pub(crate) status: StatefulSetStatus,
    /// When the next Pod becomes available by the mere passing of time.
    pub(crate) requeue_after: Option<Duration>,
}

/// Decides what `set` needs. Whoever carries the plan out makes no choices.
pub(crate) fn plan(snapshot: &Snapshot, set: &StatefulSet, owner: &Owner, now: Timestamp) -> Plan {
    let empty = StatefulSetSpec::default();
    let spec = set.spec.as_ref().unwrap_or(&empty);
    let mut planner = Planner { snapshot, set, spec, owner, now, plan: Plan::default() };
    planner.count();
    if !meta::is_deleting(set) {
        planner.steps();
    }
    planner.complete();
    planner.plan
}

struct Planner<'a> {
    snapshot: &'a Snapshot,
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    owner: &'a Owner,
    now: Timestamp,
    plan: Plan,
}

/// Whether the steps after this one may be taken now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Proceed,
    Wait,
}

impl Planner<'_> {
    fn steps(&mut self) {
        let (replicas, condemned) = self.sort();
        let ordered = self.spec.pod_management_policy.as_deref() != Some("Parallel");
        for (ordinal, pod) in &replicas {
            if self.replica(*ordinal, pod.as_ref(), ordered) == Then::Wait && ordered {
                return;
            }
        }
        for (_, pod) in &condemned {
            self.fix_claims(pod, true);
        }
        let first_unavailable = {
            let mut all = replicas.iter().filter_map(|(_, pod)| pod.as_ref());
            // Of the condemned, the one with the lowest ordinal.
            all.find(|pod| self.is_unavailable(pod))
                .or_else(|| condemned.iter().rev().map(|(_, pod)| pod).find(|pod| self.is_unavailable(pod)))
        };
        for (_, pod) in &condemned {
            let is_first = first_unavailable.is_some_and(|first| Arc::ptr_eq(first, pod));
            if self.condemned(pod, is_first, ordered) == Then::Wait && ordered {
                return;
            }
        }
        if self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete") {
            self.update(&replicas);
        }
    }

    /// The Pod of each ordinal that the set has, upwards, and the Pods of other ordinals, downwards.
    #[expect(clippy::type_complexity, reason = "two lists of the same form")]
    fn sort(&self) -> (Vec<(i32, Option<Arc<Pod>>)>, Vec<(i32, Arc<Pod>)>) {
        let start = self.start();
        let count = self.spec.replicas.unwrap_or(1).max(0);
        let mut replicas: Vec<_> = (0..count).map(|index| (start.saturating_add(index), None)).collect();
        let mut condemned = Vec::new();
        for pod in &self.snapshot.pods {
            let Some(ordinal) = pods::ordinal(self.owner.name(), meta::name(&**pod)) else {
                continue;
            };
            let place = usize::try_from(i64::from(ordinal) - i64::from(start)).ok();
            match place.and_then(|place| replicas.get_mut(place)) {
                Some((_, slot)) => *slot = Some(Arc::clone(pod)),
                None => condemned.push((ordinal, Arc::clone(pod))),
            }
        }
        condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
        (replicas, condemned)
    }

    fn replica(&mut self, ordinal: i32, pod: Option<&Arc<Pod>>, ordered: bool) -> Then {
        let Some(pod) = pod else {
            self.create(ordinal);
            return Then::Wait;
        };
        // Upstream: whatever the exit code, a Pod that ended is made again, once it is gone.
        if pods::is_finished(pod) {
            if !meta::is_deleting(&**pod) {
                self.plan.delete.push(Arc::clone(pod));
            }
            return Then::Wait;
        }
        if pods::phase(pod) == PodPhase::Pending {
            self.create_claims(meta::name(&**pod));
        }
        if ordered && self.is_unavailable(pod) {
            return Then::Wait;
        }
        if !identity::has_identity(pod) {
            self.plan.relabel.push(Arc::clone(pod));
        }
        self.fix_claims(pod, false);
        Then::Proceed
    }

    fn create(&mut self, ordinal: i32) {
        let revision = if self.belongs_to_current(ordinal) { &self.snapshot.current } else { &self.snapshot.update };
        let pod = identity::pod(self.owner, self.spec, &revision.template, &revision.name, ordinal);
        let name = meta::name(&pod).to_owned();
        // Upstream: what is kept when scaling down is there to be used again.
        let stale = Retention::of(self.spec).scaled
            && identity::claims(self.set, self.owner, &name).into_iter().any(|claim| {
                let known = self.snapshot.claims.get(meta::name(&claim));
                known.is_some_and(|known| identity::is_stale(known, &name))
            });
        if stale {
            return;
        }
        self.create_claims(&name);
        self.plan.create.push(pod);
    }

    /// Upstream: below the partition Pods are made of the revision that the set comes from.
    fn belongs_to_current(&self, ordinal: i32) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        let rolling = strategy.is_none_or(|strategy| strategy.type_.as_deref() != Some("OnDelete"));
        rolling && i64::from(ordinal) < i64::from(self.start()) + i64::from(self.partition())
    }

    fn create_claims(&mut self, pod: &str) {
        for claim in identity::claims(self.set, self.owner, pod) {
            if !self.snapshot.claims.contains_key(meta::name(&claim)) {
                self.plan.claims.push((pod.to_owned(), claim));
            }
        }
    }

    fn fix_claims(&mut self, pod: &Arc<Pod>, condemned: bool) {
        let retention = Retention::of(self.spec);
        for claim in identity::claims(self.set, self.owner, meta::name(&**pod)) {
            let Some(known) = self.snapshot.claims.get(meta::name(&claim)) else {
                continue;
            };
            if let Some(owners) = retention.owners(self.owner, known, pod, condemned) {
                self.plan.reown.push((Arc::clone(known), owners));
            }
        }
    }

    fn condemned(&mut self, pod: &Arc<Pod>, is_first_unavailable: bool, ordered: bool) -> Then {
        if meta::is_deleting(&**pod) {
            return Then::Wait;
        }
        if ordered && self.is_unavailable(pod) && !is_first_unavailable {
            return Then::Wait;
        }
        self.plan.delete.push(Arc::clone(pod));
        Then::Wait
    }

    /// Deletes Pods of other revisions from the highest ordinal down to the partition, as many as may be unavailable.
    fn update(&mut self, replicas: &[(i32, Option<Arc<Pod>>)]) {
        let unavailable =
            replicas.iter().filter(|(_, pod)| pod.as_ref().is_none_or(|pod| self.is_unavailable(pod))).count();
        let mut budget = self.max_unavailable(replicas.len()).saturating_sub(unavailable);
        let partition = usize::try_from(self.partition()).unwrap_or_default();
        for (_, pod) in replicas.iter().skip(partition).rev() {
            let Some(pod) = pod else { continue };
            let is_updated = history::of_pod(pod) == Some(self.snapshot.update.name.as_str());
            if is_updated || meta::is_deleting(&**pod) || pods::is_finished(pod) {
                continue;
            }
            // One that is unavailable as it is costs nothing. It can come so far with the policy Parallel only.
            if !self.is_unavailable(pod) {
                if budget == 0 {
                    continue;
                }
                budget -= 1;
            }
            self.plan.delete.push(Arc::clone(pod));
            if let Some(current) = &mut self.plan.status.current_replicas {
                *current = (*current - 1).max(0);
            }
        }
    }

    fn max_unavailable(&self, replicas: usize) -> usize {
        let strategy = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let Some(wanted) = strategy.and_then(|rolling| rolling.max_unavailable.as_ref()) else {
            return 1;
        };
        let replicas = i32::try_from(replicas).unwrap_or(i32::MAX);
        // Validation refuses what is no number and no percentage. Upstream: never less than one.
        let count = int_or_string::scaled(wanted, replicas, false).unwrap_or(1);
        usize::try_from(count).unwrap_or(1).max(1)
    }

    fn start(&self) -> i32 {
        self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or_default()
    }

    fn partition(&self) -> i32 {
        let strategy = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        strategy.and_then(|rolling| rolling.partition).unwrap_or_default()
    }

    fn available_in(&self, pod: &Pod) -> Option<Duration> {
        if pods::phase(pod) != PodPhase::Running {
            return None;
        }
        pods::available_in(pod, self.spec.min_ready_seconds.unwrap_or_default(), self.now)
    }

    fn is_unavailable(&self, pod: &Pod) -> bool {
        meta::is_deleting(pod) || self.available_in(pod).is_none_or(|wait| !wait.is_zero())
    }

    fn count(&mut self) {
        let snapshot = self.snapshot;
        let mut status = StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            current_revision: Some(snapshot.current.name.clone()),
            update_revision: Some(snapshot.update.name.clone()),
            collision_count: Some(snapshot.collisions),
            conditions: self.set.status.as_ref().and_then(|status| status.conditions.clone()),
            ..StatefulSetStatus::default()
        };
        let (mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0);
        for pod in &snapshot.pods {
            status.replicas += 1;
            if let Some(wait) = self.available_in(pod) {
                ready += 1;
                if wait.is_zero() {
                    available += 1;
                } else {
                    self.plan.requeue_after = Some(self.plan.requeue_after.map_or(wait, |least| least.min(wait)));
                }
            }
            if !meta::is_deleting(&**pod) {
                let revision = history::of_pod(pod).unwrap_or_default();
                current += i32::from(revision == snapshot.current.name);
                updated += i32::from(revision == snapshot.update.name);
            }
        }
        status.ready_replicas = meta::count(ready);
        status.available_replicas = Some(available);
        status.current_replicas = meta::count(current);
        status.updated_replicas = meta::count(updated);
        self.plan.status = status;
    }

    /// Upstream: once all Pods are of the new revision and ready, the set has arrived at it.
    fn complete(&mut self) {
        let replicas = self.spec.replicas.unwrap_or(1);
        let status = &mut self.plan.status;
        let strategy = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        let all = |count: Option<i32>| count.unwrap_or_default() == replicas;
        let arrived = all(status.updated_replicas) && all(status.ready_replicas) && status.replicas == replicas;
        if strategy != Some("OnDelete") && arrived {
            status.current_replicas = status.updated_replicas;
            status.current_revision.clone_from(&status.update_revision);
        }
        if status.current_replicas == Some(0) {
            status.current_replicas = None;
        }
    }
}
