//! DaemonSets: one Pod on every node that asks for it.
//!
//! Watches DaemonSets, Pods, Nodes and ControllerRevisions; owns Pods and ControllerRevisions. The decision is
//! [`plan::plan`]; this file carries it out.

pub(crate) mod placement;
pub(crate) mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use informer::{Action, Change, EventType, Informer, ObjectKey, WorkQueue};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use machinery::placement::taints;
use machinery::selector::LabelSelector;
use parking_lot::Mutex;

use self::plan::{Plan, Snapshot};
use crate::client::Error;
use crate::controller::{Context, Controller};
use crate::expectations::{EXPECTATIONS_TIMEOUT, Expectations};
use crate::history::{self, Choice, History, Latest};
use crate::owner::Owner;
use crate::pod_control::{self, PodControl, Words};
use crate::pods::PodPhase;
use crate::{meta, pods};

const KIND: &str = "DaemonSet";
/// A Pod that failed is replaced after this time, and each further one on that node after twice as long.
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(1);
/// But never later than this. A node without failures for twice as long is as good as new.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(15);

/// The controller of DaemonSets.
pub(crate) struct DaemonSets {
    client: Client,
    sets: Informer<DaemonSet>,
    nodes: Informer<Node>,
    pods: PodControl,
    history: Arc<History>,
    queue: WorkQueue<ObjectKey>,
    /// What was written to the sets themselves.
    expectations: Expectations,
    failures: Mutex<HashMap<ObjectKey, Failures>>,
}

/// Nodes on which Pods of a set failed: until when they are left alone, and how long that wait is.
type Failures = BTreeMap<String, (Timestamp, SignedDuration)>;

impl Controller for DaemonSets {
    const NAME: &'static str = "daemonset";
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        let sets = context.informer::<DaemonSet>();
        sets.index(meta::BY_NAMESPACE, meta::namespaces);
        Self {
            expectations: context.expectations(&sets),
            sets,
            nodes: context.informer(),
            pods: PodControl::new(context, "daemonset-controller", Words::Plain),
            history: Arc::new(History::new(context)),
            client: context.client.clone(),
            queue,
            failures: Mutex::default(),
        }
    }

    fn watch(self: &Arc<Self>) {
        let controller = Arc::clone(self);
        self.sets.on_change(move |change| {
            controller.expectations.observe(change);
            controller.queue.add_changed(change);
        });
        self.history.watch(&self.queue, KIND);
        let controller = Arc::clone(self);
        self.pods.informer().on_change(move |change| {
            controller.pods.expectations.observe(change);
            if pod_control::concerns_owner(change) {
                let sets = |namespace: &str| controller.sets.by_index(meta::BY_NAMESPACE, namespace);
                pod_control::enqueue_owners(&controller.queue, change, KIND, sets, |set| selector(set).ok());
            }
        });
        let controller = Arc::clone(self);
        self.nodes.on_change(move |change| {
            if moves_pods(change) {
                for set in controller.sets.list() {
                    controller.queue.add(ObjectKey::of(&*set), change.cause());
                }
            }
        });
    }

    async fn synced(&self) {
        self.sets.synced().await;
        self.nodes.synced().await;
        self.history.synced().await;
        self.pods.informer().synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(set) = self.sets.get(key) else {
            self.expectations.forget(key);
            self.pods.expectations.forget(key);
            self.history.expectations.forget(key);
            self.failures().remove(key);
            return Ok(Action::AwaitChange.because("the set is gone"));
        };
        let written = [&self.expectations, &self.pods.expectations, &self.history.expectations];
        if !Expectations::all_satisfied(&written, key).await {
            // The event that shows the write brings the key back.
            return Ok(Action::RequeueAfter(EXPECTATIONS_TIMEOUT).because("its own last write is not shown yet"));
        }
        if meta::is_deleting(&*set) {
            return Ok(Action::AwaitChange.because("the set is going"));
        }
        let owner = Owner::of(&*set);
        let selector = selector(&set)?;
        let pods = self.pods.claim(&owner, &*set, &selector, |_| true).await?;
        let revisions = self.history.of(&owner, &*set, &selector).await?;
        let Some(latest) = self.latest(&owner, &set, &revisions).await? else {
            return Ok(Action::RequeueAfter(EXPECTATIONS_TIMEOUT));
        };
        let hash = history::hash(&latest).to_owned();
        let now = Timestamp::now();
        let snapshot =
            Snapshot { nodes: self.nodes.list(), pods, hash, failure_backoff: self.failure_backoff(key, now) };
        let plan = plan::plan(&snapshot, &set, &owner, now);

        self.report_ended(key, &owner, &plan, now);
        let deleted = self.pods.delete(&owner, &plan.delete).await;
        let created = self.pods.create(&owner, plan.create.clone()).await;
        self.write_status(&owner, &set, &plan.status).await?;
        created.error.map_or(Ok(()), Err)?;
        deleted?;
        let live = history::of_pods(&snapshot.pods);
        let is_live = |revision: &ControllerRevision| {
            meta::name(revision) == meta::name(&*latest) || live.contains(history::hash(revision))
        };
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        self.history.delete(&owner, &history::surplus(&revisions, is_live, limit)).await?;
        Ok(plan.requeue_after.into())
    }
}

impl DaemonSets {
    async fn latest(
        &self,
        owner: &Owner,
        set: &DaemonSet,
        revisions: &[Arc<ControllerRevision>],
    ) -> Result<Option<Arc<ControllerRevision>>, Error> {
        let spec = set.spec.clone().unwrap_or_default();
        let status = set.status.clone().unwrap_or_default();
        let collisions = status.collision_count.unwrap_or_default();
        let annotations = set.metadata.annotations.as_ref();
        let choice: Choice = history::choose(owner, annotations, &spec.template, collisions, revisions);
        match self.history.enact(owner, choice).await? {
            Latest::Is(revision) => Ok(Some(revision)),
            Latest::Collision => {
                let counted = DaemonSetStatus { collision_count: Some(collisions + 1), ..status };
                self.write_status(owner, set, &counted).await?;
                Ok(None)
            }
        }
    }

    fn failure_backoff(&self, key: &ObjectKey, now: Timestamp) -> BTreeMap<String, Timestamp> {
        let mut failures = self.failures();
        let Some(nodes) = failures.get_mut(key) else {
            return BTreeMap::new();
        };
        nodes.retain(|_, (until, _)| now.duration_since(*until) < LONGEST_WAIT * 2);
        nodes.iter().map(|(node, (until, _))| (node.clone(), *until)).collect()
    }

    fn report_ended(&self, key: &ObjectKey, owner: &Owner, plan: &Plan, now: Timestamp) {
        for (node, pod) in &plan.ended {
            let name = format!("{}/{}", key.namespace, meta::name(&**pod));
            if pods::phase(pod) == PodPhase::Succeeded {
                let message = format!("Found succeeded daemon pod {name} on node {node}, will try to delete it");
                self.pods.event(owner, EventType::Normal, "SucceededDaemonPod", message);
                continue;
            }
            let message = format!("Found failed daemon pod {name} on node {node}, will try to kill it");
            self.pods.event(owner, EventType::Warning, "FailedDaemonPod", message);
            let mut failures = self.failures();
            let nodes = failures.entry(key.clone()).or_default();
            let wait = nodes.get(node).map_or(FIRST_WAIT, |(_, wait)| (*wait * 2).min(LONGEST_WAIT));
            nodes.insert(node.clone(), (now.checked_add(wait).unwrap_or(now), wait));
        }
    }

    async fn write_status(&self, owner: &Owner, set: &DaemonSet, status: &DaemonSetStatus) -> Result<(), Error> {
        let old = set.status.clone().unwrap_or_default();
        let shown = || self.sets.get(&owner.key).and_then(|set| meta::version(&set.metadata));
        owner.patch_status(&self.client, (&old, status), Some((&self.expectations, &shown))).await
    }

    fn failures(&self) -> parking_lot::MutexGuard<'_, HashMap<ObjectKey, Failures>> {
        // Never held across an await.
        self.failures.lock()
    }
}

fn selector(set: &DaemonSet) -> Result<LabelSelector, Error> {
    let spec = set.spec.as_ref();
    Ok(LabelSelector::from_object(spec.map(|spec| &spec.selector))?)
}

/// Whether a change of a node may change what belongs there. Its heartbeats do not.
fn moves_pods(change: &Change<Node>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else {
        return true;
    };
    old.metadata.labels != new.metadata.labels || taints(old) != taints(new)
}
