//! ReplicaSets, and ReplicationControllers from before them: keeps so many Pods of one template.
//!
//! Watches the sets and Pods; owns Pods. The decision is [`plan::plan`]; this file carries it out. The informer's lag
//! never leads to a second Pod: what was created or deleted and is not shown yet is in the expectations, and the plan counts
//! it.

pub(crate) mod plan;
pub(crate) mod rank;
mod sets;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;
use std::sync::Arc;

use informer::{Action, Change, Informers, ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::Client;
use machinery::selector::LabelSelector;

use self::plan::{Failure, Plan, Snapshot};
use self::sets::Sets;
use crate::client::Error;
use crate::controller::{Context, Controller};
use crate::expectations::{EXPECTATIONS_TIMEOUT, Expectations};
use crate::owner::Owner;
use crate::pod_control::{self, PodControl, Words};
use crate::{claim, meta, pods};

/// The controller of ReplicaSets.
pub(crate) type ReplicaSets = Replicas<ReplicaSet>;
/// The controller of ReplicationControllers.
pub(crate) type ReplicationControllers = Replicas<ReplicationController>;

/// A kind whose objects keep so many Pods.
pub(crate) trait ReplicaKind: Send + Sync + 'static {
    /// The name of its controller: that of upstream's work queue.
    const NAME: &'static str;
    /// What its controller is called in events.
    const COMPONENT: &'static str;

    /// The objects of the kind.
    fn sets(informers: &Informers) -> Sets;
}

impl ReplicaKind for ReplicaSet {
    const NAME: &'static str = "replicaset";
    const COMPONENT: &'static str = "replicaset-controller";

    fn sets(informers: &Informers) -> Sets {
        Sets::replica_sets(informers)
    }
}

impl ReplicaKind for ReplicationController {
    const NAME: &'static str = "replicationmanager";
    const COMPONENT: &'static str = "replication-controller";

    fn sets(informers: &Informers) -> Sets {
        Sets::controllers(informers)
    }
}

/// The controller of a kind that keeps so many Pods.
pub(crate) struct Replicas<K> {
    client: Client,
    sets: Sets,
    pods: PodControl,
    queue: WorkQueue<ObjectKey>,
    /// What was written to the sets themselves.
    expectations: Arc<Expectations>,
    kind: PhantomData<K>,
}

impl<K: ReplicaKind> Controller for Replicas<K> {
    const NAME: &'static str = K::NAME;
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        let sets = K::sets(&context.informers);
        Self {
            pods: PodControl::new(context, K::COMPONENT, Words::Plain),
            client: context.client.clone(),
            expectations: Arc::new(sets.expectations(context)),
            sets,
            queue,
            kind: PhantomData,
        }
    }

    fn watch(self: &Arc<Self>) {
        self.sets.watch(&self.queue, &self.expectations);
        let controller = Arc::clone(self);
        self.pods.informer().on_change(move |change| {
            controller.pods.expectations.observe(change);
            if concerns_owner(change) {
                let sets = |namespace: &str| controller.sets.by_index(meta::BY_NAMESPACE, namespace);
                let kind = controller.sets.kind();
                pod_control::enqueue_owners(&controller.queue, change, kind, sets, |set| selector(set).ok());
            }
        });
    }

    async fn synced(&self) {
        self.sets.synced().await;
        self.pods.informer().synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some((rs, owner)) = self.sets.get(key) else {
            self.expectations.forget(key);
            self.pods.expectations.forget(key);
            return Ok(Action::AwaitChange.because("the set is gone"));
        };
        let selector = selector(&rs)?;
        let now = Timestamp::now();
        let plan = plan::plan(&self.snapshot(key, &rs).await, &rs, &selector, now);

        self.claim(&owner, &plan).await?;
        let wanted = (0..plan.create).map(|_| plan::pod(&rs, &owner)).collect();
        let created = self.pods.create(&owner, wanted).await;
        let (left, deleted) = self.pods.delete_counted(&owner, &plan.delete).await;
        let failure = match (&created.error, &deleted) {
            (Some(error), _) => Some(Failure { reason: "FailedCreate", message: error.to_string() }),
            (None, Err(error)) => Some(Failure { reason: "FailedDelete", message: error.to_string() }),
            (None, Ok(())) => None,
        };
        let mut counts = plan.counts.clone();
        // What did not come is not there, and what did not go still is: a Deployment builds on these numbers.
        let number = |count: usize| i32::try_from(count).unwrap_or_default();
        let wrong = number(left) - number(plan.create - created.count);
        counts.replicas += wrong;
        counts.fully_labeled += wrong;
        counts.terminating -= number(left);
        let mut status = plan::status(&rs, &counts, failure.as_ref(), now);
        if matches!(self.sets, Sets::Controllers(_)) {
            // The older kind has no such field.
            status.terminating_replicas = None;
        }
        // Pods need not wait for what was written before to be shown; the status must, being a difference to what is
        // shown. The event that shows it brings the key back.
        if self.expectations.satisfied(key).await {
            let old = rs.status.clone().unwrap_or_default();
            let shown = || self.sets.version(key);
            owner.patch_status(&self.client, (&old, &status), Some((&self.expectations, &shown))).await?;
        }
        created.error.map_or(Ok(()), Err)?;
        deleted?;
        let is_shown = Expectations::all_satisfied(&[&self.pods.expectations, &self.expectations], key).await;
        let unseen = (!is_shown).then_some(EXPECTATIONS_TIMEOUT);
        Ok(plan.requeue_after.into_iter().chain(unseen).min().into())
    }
}

impl<K> Replicas<K> {
    async fn snapshot(&self, key: &ObjectKey, rs: &ReplicaSet) -> Snapshot {
        // Asked first: a Pod that appears in between is then in both, and counted once.
        let pending = self.pods.expectations.pending(key).await;
        let mut pods = self.pods.informer().by_index(meta::BY_CONTROLLER, meta::uid(rs));
        let surplus = i64::try_from(pods.len()).unwrap_or(i64::MAX) > i64::from(plan::replicas(rs));
        let related = if surplus { self.related(rs) } else { Vec::new() };
        pods.extend(self.pods.informer().by_index(meta::ORPHANS, &key.namespace));
        Snapshot { pods, related, pending }
    }

    /// The Pods of all sets that have the same controller.
    fn related(&self, rs: &ReplicaSet) -> Vec<Arc<Pod>> {
        let pods = self.pods.informer();
        let siblings = match meta::controller_of(&rs.metadata) {
            Some(owner) => self.sets.by_index(meta::BY_CONTROLLER, &owner.uid),
            None => return pods.by_index(meta::BY_CONTROLLER, meta::uid(rs)),
        };
        siblings.iter().flat_map(|set| pods.by_index(meta::BY_CONTROLLER, meta::uid(&**set))).collect()
    }

    async fn claim(&self, owner: &Owner, plan: &Plan) -> Result<(), Error> {
        if !plan.adopt.is_empty() && owner.is_alive(&self.client).await? {
            for pod in &plan.adopt {
                self.pods.patch(owner, pod, claim::adoption(&owner.controller, &**pod)).await?;
            }
        }
        for pod in &plan.release {
            self.pods.patch(owner, pod, claim::release(owner.uid(), &**pod)).await?;
        }
        Ok(())
    }
}

fn selector(rs: &ReplicaSet) -> Result<LabelSelector, Error> {
    let spec = rs.spec.as_ref();
    Ok(LabelSelector::from_object(spec.map(|spec| &spec.selector))?)
}

/// Whether a change of a Pod matters to whoever owns or might own it. That a Pod was bound or started does not.
fn concerns_owner(change: &Change<Pod>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else {
        return true;
    };
    let owner = |pod: &Pod| meta::controller_of(&pod.metadata).map(|owner| owner.uid.clone());
    old.metadata.uid != new.metadata.uid
        || old.metadata.labels != new.metadata.labels
        || owner(old) != owner(new)
        || pods::is_finished(old) != pods::is_finished(new)
        || meta::is_deleting(&**old) != meta::is_deleting(&**new)
        || pods::ready_since(old) != pods::ready_since(new)
}
