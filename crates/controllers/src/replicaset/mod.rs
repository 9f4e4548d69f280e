//! ReplicaSets: keeps so many Pods of one template.
//!
//! Watches ReplicaSets and Pods; owns Pods. The decision is [`plan::plan`]; this file carries it out. The informer's lag
//! never leads to a second Pod: what was created or deleted and is not shown yet is in the [`Ledger`], and the plan
//! counts it.

pub(crate) mod plan;
pub(crate) mod rank;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::{StreamExt, stream};
use informer::{Change, EventType, Informer, Informers, ObjectKey, Outcome, Recorder, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use machinery::selector::LabelSelector;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::plan::{Failure, Plan, Snapshot};
use crate::client::{Error, if_found, settle};
use crate::ledger::{Ledger, PATIENCE};
use crate::{meta, pods};

/// So many requests of one ReplicaSet are under way at once.
const CONCURRENT: usize = 32;
/// So many names are tried when one is taken. With 14 million endings, one is nearly always enough.
const NAME_ATTEMPTS: usize = 8;

/// Runs the controller until `cancel` is triggered.
pub(crate) async fn run(client: Client, informers: Informers, workers: usize, cancel: CancellationToken) {
    let controller = Arc::new(Controller::new(client, &informers));
    controller.watch();
    tokio::select! {
        () = cancel.cancelled() => return,
        () = controller.sets.synced() => {}
    }
    tokio::select! {
        () = cancel.cancelled() => return,
        () = controller.pods.synced() => {}
    }
    let queue = controller.queue.clone();
    informer::run("replicaset", queue, workers, cancel, |key| {
        let controller = Arc::clone(&controller);
        async move { settle(controller.reconcile(&key).await) }
    })
    .await;
}

struct Controller {
    client: Client,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    recorder: Recorder,
    queue: WorkQueue<ObjectKey>,
    ledger: Ledger,
}

impl Controller {
    fn new(client: Client, informers: &Informers) -> Self {
        let (sets, pods) = (informers.informer::<ReplicaSet>(), informers.informer::<Pod>());
        sets.index(meta::BY_NAMESPACE, meta::namespaces);
        sets.index(meta::BY_CONTROLLER, meta::controller_uids);
        pods.index(meta::BY_CONTROLLER, meta::controller_uids);
        pods.index(meta::ORPHANS, meta::orphan_namespaces);
        Self {
            recorder: Recorder::new(client.clone(), "replicaset-controller", None),
            client,
            sets,
            pods,
            queue: WorkQueue::new(),
            ledger: Ledger::default(),
        }
    }

    fn watch(self: &Arc<Self>) {
        let controller = Arc::clone(self);
        self.sets.on_change(move |change| {
            if concerns_set(change) {
                controller.queue.add(change.key());
            }
        });
        let controller = Arc::clone(self);
        self.pods.on_change(move |change| {
            controller.ledger.seen(change);
            if concerns_owner(change) {
                controller.wake_owners(change);
            }
        });
    }

    fn wake_owners(&self, change: &Change<Pod>) {
        for pod in [&change.old, &change.new].into_iter().flatten() {
            if let Some(owner) = meta::controller_of(&pod.metadata) {
                if owner.kind == "ReplicaSet" {
                    self.queue.add(ObjectKey::new(meta::namespace(&**pod), &owner.name));
                }
            } else if change.new.is_some() {
                let labels = pod.metadata.labels.clone().unwrap_or_default();
                for set in self.sets.by_index(meta::BY_NAMESPACE, meta::namespace(&**pod)) {
                    if selector(&set).is_ok_and(|selector| selector.matches(&labels)) {
                        self.queue.add(ObjectKey::of(&*set));
                    }
                }
            }
        }
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(rs) = self.sets.get(key) else {
            self.ledger.forget(key);
            return Ok(Outcome::Done);
        };
        let selector = selector(&rs)?;
        let now = Timestamp::now();
        let plan = plan::plan(&self.snapshot(key, &rs), &rs, &selector, now);

        self.claim(&rs, &plan).await?;
        let created = self.create(key, &rs, plan.create).await;
        let deleted = self.delete(key, &rs, &plan.delete).await;
        let failure = match (&created.error, &deleted) {
            (Some(error), _) => Some(Failure { reason: "FailedCreate", message: error.to_string() }),
            (None, Err(error)) => Some(Failure { reason: "FailedDelete", message: error.to_string() }),
            (None, Ok(())) => None,
        };
        let mut counts = plan.counts.clone();
        let missing = i32::try_from(plan.create - created.count).unwrap_or_default();
        counts.replicas -= missing;
        counts.fully_labeled -= missing;
        let status = plan::status(&rs, &counts, failure.as_ref(), now);
        if let Some(patch) = meta::status_patch(&rs.status.clone().unwrap_or_default(), &status)? {
            let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &key.namespace);
            if_found(api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        }
        if let Some(error) = created.error {
            return Err(error);
        }
        deleted?;
        let unseen = (!self.ledger.open(key).is_empty()).then_some(PATIENCE);
        Ok(match plan.look_again.into_iter().chain(unseen).min() {
            Some(wait) => Outcome::After(wait),
            None => Outcome::Done,
        })
    }

    fn snapshot(&self, key: &ObjectKey, rs: &ReplicaSet) -> Snapshot {
        // Asked first: a Pod that appears in between is then in both, and counted once.
        let open = self.ledger.open(key);
        let mut pods = self.pods.by_index(meta::BY_CONTROLLER, meta::uid(rs));
        let surplus = i64::try_from(pods.len()).unwrap_or(i64::MAX) > i64::from(plan::replicas(rs));
        let related = if surplus { self.related(rs) } else { Vec::new() };
        pods.extend(self.pods.by_index(meta::ORPHANS, &key.namespace));
        Snapshot { pods, related, open }
    }

    /// The Pods of all ReplicaSets that have the same controller.
    fn related(&self, rs: &ReplicaSet) -> Vec<Arc<Pod>> {
        let siblings = match meta::controller_of(&rs.metadata) {
            Some(owner) => self.sets.by_index(meta::BY_CONTROLLER, &owner.uid),
            None => return self.pods.by_index(meta::BY_CONTROLLER, meta::uid(rs)),
        };
        let pods = siblings.iter().map(|set| self.pods.by_index(meta::BY_CONTROLLER, meta::uid(&**set)));
        pods.flatten().collect()
    }

    async fn claim(&self, rs: &ReplicaSet, plan: &Plan) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), meta::namespace(rs));
        if !plan.adopt.is_empty() && self.may_adopt(rs).await? {
            let owner = meta::controller_ref(rs);
            for pod in &plan.adopt {
                patch(&api, pod, crate::claim::adoption(&owner, &**pod)).await?;
            }
        }
        for pod in &plan.release {
            patch(&api, pod, crate::claim::release(meta::uid(rs), &**pod)).await?;
        }
        Ok(())
    }

    /// Upstream: who adopts must be sure that it is not being deleted itself, or it would take Pods down with it.
    async fn may_adopt(&self, rs: &ReplicaSet) -> Result<bool, Error> {
        let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), meta::namespace(rs));
        let live = if_found(api.get(meta::name(rs)).await)?;
        Ok(live.is_some_and(|live| meta::uid(&live) == meta::uid(rs) && !meta::is_deleting(&live)))
    }

    /// Creates `count` Pods: one, then two, four and so on at a time, and no more once one fails. So a quota that is
    /// used up costs a few refused requests and not hundreds, and a healthy cluster gets them all within milliseconds.
    async fn create(&self, key: &ObjectKey, rs: &ReplicaSet, count: usize) -> Created {
        let mut created = Created::default();
        let mut batch = 1;
        let mut left = count;
        while left > 0 && created.error.is_none() {
            let size = batch.min(left);
            let answers = stream::iter((0..size).map(|_| self.create_one(key, rs)))
                .buffer_unordered(CONCURRENT)
                .collect::<Vec<_>>()
                .await;
            for answer in answers {
                match answer {
                    Ok(()) => created.count += 1,
                    // Nothing can be created here any more, and nobody needs to hear of it.
                    Err(error) if error.is_namespace_terminating() => return created,
                    Err(error) => created.error = Some(error),
                }
            }
            left -= size;
            batch *= 2;
        }
        created
    }

    async fn create_one(&self, key: &ObjectKey, rs: &ReplicaSet) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut attempt = 1;
        loop {
            let name = machinery::names::generate_name(&plan::prefix(rs));
            let pod_key = ObjectKey::new(&key.namespace, &name);
            self.ledger.creating(key, pod_key.clone());
            let pod = plan::pod(rs, name);
            let answer = api.create(&PostParams::default(), &pod).await.map_err(Error::from);
            let Err(error) = answer else {
                let message = format!("Created pod: {}", pod_key.name);
                self.event(rs, EventType::Normal, "SuccessfulCreate", message);
                return Ok(());
            };
            self.ledger.strike(&pod_key);
            if error.is_already_exists() && attempt < NAME_ATTEMPTS {
                attempt += 1;
                continue;
            }
            if !error.is_namespace_terminating() {
                self.event(rs, EventType::Warning, "FailedCreate", format!("Error creating: {error}"));
            }
            return Err(error);
        }
    }

    async fn delete(&self, key: &ObjectKey, rs: &ReplicaSet, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let delete = |pod: Arc<Pod>| {
            let api = api.clone();
            async move { self.delete_one(&api, key, rs, &pod).await }
        };
        let answers =
            stream::iter(pods.iter().cloned().map(delete)).buffer_unordered(CONCURRENT).collect::<Vec<_>>().await;
        answers.into_iter().collect()
    }

    async fn delete_one(&self, api: &Api<Pod>, key: &ObjectKey, rs: &ReplicaSet, pod: &Pod) -> Result<(), Error> {
        self.ledger.deleting(key, pod);
        let params = DeleteParams::default()
            .preconditions(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        let name = meta::name(pod);
        match if_found(api.delete(name, &params).await) {
            Ok(Some(_)) => {
                self.event(rs, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => {
                self.ledger.strike(&ObjectKey::of(pod));
                self.event(rs, EventType::Warning, "FailedDelete", format!("Error deleting: {error}"));
                Err(error)
            }
        }
    }

    fn event(&self, rs: &ReplicaSet, type_: EventType, reason: &str, message: String) {
        self.recorder.event(&meta::reference(rs), type_, reason, message);
    }
}

#[derive(Default)]
struct Created {
    count: usize,
    error: Option<Error>,
}

async fn patch(api: &Api<Pod>, pod: &Pod, patch: Value) -> Result<(), Error> {
    let patch = Patch::Strategic(patch);
    if_found(api.patch(meta::name(pod), &PatchParams::default(), &patch).await)?;
    Ok(())
}

fn selector(rs: &ReplicaSet) -> Result<LabelSelector, Error> {
    let spec = rs.spec.as_ref();
    Ok(LabelSelector::from_object(spec.map(|spec| &spec.selector))?)
}

/// Whether a change of a ReplicaSet asks for work. The controller's own status writes do not.
fn concerns_set(change: &Change<ReplicaSet>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else {
        return true;
    };
    old.metadata.uid != new.metadata.uid
        || old.metadata.generation != new.metadata.generation
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
}

/// Whether a change of a Pod matters to whoever owns or might own it.
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
