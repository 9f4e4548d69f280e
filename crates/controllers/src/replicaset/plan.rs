//! What a ReplicaSet needs: which Pods to take in and let go, how many to create, which to delete, and its status.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use machinery::selector::LabelSelector;

use super::rank;
use crate::claim::{Claim, claim};
use crate::meta::ConditionStatus;
use crate::owner::Owner;
use crate::{expectations, meta, pod_control, pods};

/// No more Pods than this are created or deleted in one go; the rest follows in the next.
pub(crate) const BURST: usize = 500;

/// What a plan is made from.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Pods whose controller is this ReplicaSet, and orphans in its namespace.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// Pods of the ReplicaSets that have the same controller as this one.
    pub(crate) related: Vec<Arc<Pod>>,
    /// Pods created and deleted that the informer does not show yet.
    pub(crate) pending: expectations::Pending,
}

/// What is to be done for a ReplicaSet.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Orphans to become the controller of.
    pub(crate) adopt: Vec<Arc<Pod>>,
    /// Pods to let go.
    pub(crate) release: Vec<Arc<Pod>>,
    /// How many Pods to create.
    pub(crate) create: usize,
    /// Pods to delete.
    pub(crate) delete: Vec<Arc<Pod>>,
    /// What the status will count once the plan is carried out.
    pub(crate) counts: Counts,
    /// When the next Pod becomes available by the mere passing of time.
    pub(crate) requeue_after: Option<Duration>,
}

/// The numbers of a ReplicaSet's status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Active Pods, those included that were created and are not shown yet.
    pub(crate) replicas: i32,
    /// Active Pods with all labels of the template.
    pub(crate) fully_labeled: i32,
    /// Active Pods that are ready.
    pub(crate) ready: i32,
    /// Active Pods that have been ready for `minReadySeconds`.
    pub(crate) available: i32,
    /// Pods that are being deleted.
    pub(crate) terminating: i32,
}

/// Why Pods could not be created or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub(crate) reason: &'static str,
    /// What the API server said.
    pub(crate) message: String,
}

/// Decides what `rs` needs. Whoever carries the plan out makes no choices.
pub(crate) fn plan(snapshot: &Snapshot, rs: &ReplicaSet, selector: &LabelSelector, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let pending = &snapshot.pending;
    let mut active = Vec::new();
    for pod in &snapshot.pods {
        match claim(rs, |labels| selector.matches(labels), &**pod) {
            Claim::Foreign => continue,
            Claim::Release => {
                plan.release.push(Arc::clone(pod));
                continue;
            }
            // A finished orphan is no use to anybody.
            Claim::Adopt if !pods::is_active(pod) => continue,
            Claim::Adopt => plan.adopt.push(Arc::clone(pod)),
            Claim::Owned => {}
        }
        let deleted = pending.gone.contains(meta::name(&**pod));
        if pods::is_active(pod) && !deleted {
            active.push(Arc::clone(pod));
        } else if !pods::is_finished(pod) {
            plan.counts.terminating += 1;
        }
    }
    let shown = |name: &&String| {
        let mut pods = snapshot.pods.iter();
        pods.any(|pod| meta::name(&**pod) == name.as_str())
    };
    let unseen = pending.present.iter().filter(|name| !shown(name)).count();

    if !meta::is_deleting(rs) {
        let wanted = usize::try_from(replicas(rs)).unwrap_or_default();
        let present = active.len() + unseen;
        if present < wanted {
            plan.create = (wanted - present).min(BURST);
        } else if present > wanted && unseen == 0 {
            // Pods that are not shown yet would be the first to go, and must not cost older ones their place.
            let surplus = (present - wanted).min(BURST);
            plan.delete = rank::to_delete(active.clone(), &snapshot.related, surplus, now);
        }
    }
    active.retain(|pod| !plan.delete.iter().any(|deleted| Arc::ptr_eq(deleted, pod)));
    plan.count(rs, &active, unseen, now);
    plan
}

impl Plan {
    fn count(&mut self, rs: &ReplicaSet, active: &[Arc<Pod>], unseen: usize, now: Timestamp) {
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let labeled = active.iter().filter(|pod| has_template_labels(rs, pod)).count();
        self.counts.replicas = number(active.len() + unseen + self.create);
        self.counts.fully_labeled = number(labeled + unseen + self.create);
        self.counts.terminating += number(self.delete.len());
        let min_ready = rs.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        for pod in active {
            let Some(wait) = pods::available_in(pod, min_ready.unwrap_or_default(), now) else {
                continue;
            };
            self.counts.ready += 1;
            if wait.is_zero() {
                self.counts.available += 1;
            } else {
                self.requeue_after = Some(self.requeue_after.map_or(wait, |least| least.min(wait)));
            }
        }
    }
}

/// How many Pods `rs` wants.
pub(crate) fn replicas(rs: &ReplicaSet) -> i32 {
    rs.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn has_template_labels(rs: &ReplicaSet, pod: &Pod) -> bool {
    let template = rs.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let wanted = template.and_then(|template| template.metadata.as_ref()).and_then(|meta| meta.labels.as_ref());
    let labels = pod.metadata.labels.as_ref();
    wanted
        .into_iter()
        .flatten()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)).is_some_and(|label| label == value))
}

/// The status of `rs` after a plan with these counts was carried out, with or without `failure`.
pub(crate) fn status(rs: &ReplicaSet, counts: &Counts, failure: Option<&Failure>, now: Timestamp) -> ReplicaSetStatus {
    let mut conditions: Vec<ReplicaSetCondition> =
        rs.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let failed = conditions.iter().any(|condition| condition.type_ == "ReplicaFailure");
    match failure {
        // Upstream: the first failure stands until all is well again.
        Some(failure) if !failed => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: ConditionStatus::True.as_str().to_owned(),
            last_transition_time: Some(meta::seconds(now)),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message.clone()),
        }),
        Some(_) => {}
        None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
    }
    ReplicaSetStatus {
        replicas: counts.replicas,
        fully_labeled_replicas: meta::count(counts.fully_labeled),
        ready_replicas: meta::count(counts.ready),
        available_replicas: meta::count(counts.available),
        terminating_replicas: Some(counts.terminating),
        observed_generation: rs.metadata.generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    }
}

/// A Pod that `rs` asks for; its name is chosen when it is created.
pub(crate) fn pod(rs: &ReplicaSet, owner: &Owner) -> Pod {
    let template = rs.spec.as_ref().and_then(|spec| spec.template.as_ref());
    pod_control::from_template(template.unwrap_or(&PodTemplateSpec::default()), owner, prefix(rs))
}

/// What the names of the Pods of `rs` begin with.
pub(crate) fn prefix(rs: &ReplicaSet) -> String {
    format!("{}-", meta::name(rs))
}
