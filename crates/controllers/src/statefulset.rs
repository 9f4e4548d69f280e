//! StatefulSets: Pods with names, addresses and claims that stay.
//!
//! Watches StatefulSets, Pods, ControllerRevisions, PersistentVolumeClaims and Services; owns Pods and
//! ControllerRevisions, and makes claims. The decision is [`plan::plan`]; this file carries it out. Since names are fixed and order is promised,
//! nothing is planned before everything the controller wrote is shown.

pub(crate) mod identity;
pub(crate) mod plan;
mod service;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use informer::{Action, EventType, Informer, ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use kube::Client;
use kube::api::{Patch, PatchParams, PostParams};
use machinery::selector::LabelSelector;
use parking_lot::Mutex;
use serde_json::json;

use self::plan::{Plan, Revision, Snapshot};
use self::service::Verdict;
use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::expectations::{EXPECTATIONS_TIMEOUT, Expectations};
use crate::history::{self, Choice, History, Latest};
use crate::owner::Owner;
use crate::pod_control::{self, PodControl, Words};
use crate::{meta, pods};

const KIND: &str = "StatefulSet";
/// In what time the first list of all claims should have come.
const CLAIMS_LISTED: Duration = Duration::from_millis(500);

/// The controller of StatefulSets.
pub(crate) struct StatefulSets {
    client: Client,
    sets: Informer<StatefulSet>,
    claims: Informer<PersistentVolumeClaim>,
    services: Informer<Service>,
    pods: PodControl,
    history: Arc<History>,
    queue: WorkQueue<ObjectKey>,
    /// The sets whose Service is wrong, and what was said of it: once is enough.
    told: Mutex<HashMap<ObjectKey, String>>,
    /// What was written to the sets themselves.
    expectations: Expectations,
}

impl Controller for StatefulSets {
    const NAME: &'static str = "statefulset";
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        let sets = context.informer::<StatefulSet>();
        sets.index(meta::BY_NAMESPACE, meta::namespaces);
        Self {
            expectations: context.expectations(&sets),
            sets,
            claims: context.informer(),
            services: context.informer(),
            told: Mutex::default(),
            pods: PodControl::new(context, "statefulset-controller", Words::StatefulSet),
            history: Arc::new(History::new(context)),
            client: context.client.clone(),
            queue,
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
        self.claims.on_change(move |change| {
            // A Pod waits until the claim of the one before it is gone.
            let (Some(claim), None) = (&change.old, &change.new) else { return };
            for (set, _) in identity::pod_owners(claim).filter_map(|pod| pod.rsplit_once('-')) {
                controller.queue.add(ObjectKey::new(meta::namespace(&**claim), set), change.cause());
            }
        });
        let controller = Arc::clone(self);
        self.services.on_change(move |change| {
            let key = change.key();
            let namespace = controller.sets.by_index(meta::BY_NAMESPACE, &key.namespace);
            let named = namespace.iter().filter(|set| service::name_of(set) == Some(key.name.as_str()));
            named.for_each(|set| controller.queue.add(ObjectKey::of(&**set), change.cause()));
        });
        let controller = Arc::clone(self);
        self.pods.informer().on_change(move |change| {
            controller.pods.expectations.observe(change);
            if pod_control::concerns_owner(change) {
                let sets = |namespace: &str| controller.sets.by_index(meta::BY_NAMESPACE, namespace);
                pod_control::enqueue_owners(&controller.queue, change, KIND, sets, |set| selector(set).ok());
            }
        });
    }

    async fn synced(&self) {
        self.sets.synced().await;
        self.history.synced().await;
        self.pods.informer().synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(set) = self.sets.get(key) else {
            self.expectations.forget(key);
            self.told.lock().remove(key);
            self.pods.expectations.forget(key);
            self.history.expectations.forget(key);
            return Ok(Action::AwaitChange.because("the set is gone"));
        };
        let written = [&self.expectations, &self.pods.expectations, &self.history.expectations];
        if !Expectations::all_satisfied(&written, key).await {
            // The event that shows the write brings the key back.
            return Ok(Action::RequeueAfter(EXPECTATIONS_TIMEOUT).because("its own last write is not shown yet"));
        }
        let templates = set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default();
        if !templates.is_empty() && !self.claims.is_synced() {
            // Sets without claims need not wait for them.
            return Ok(Action::RequeueAfter(CLAIMS_LISTED).because("the claims are not listed yet"));
        }
        let owner = Owner::of(&*set);
        let selector = selector(&set)?;
        let is_member = |pod: &Pod| pods::ordinal(&key.name, meta::name(pod)).is_some();
        let pods = self.pods.claim(&owner, &*set, &selector, is_member).await?;
        let revisions = self.history.of(&owner, &*set, &selector).await?;
        let Some(update) = self.latest(&owner, &set, &revisions).await? else {
            return Ok(Action::RequeueAfter(EXPECTATIONS_TIMEOUT));
        };
        let snapshot = self.snapshot(&set, pods, &revisions, &update);
        let plan = plan::plan(&snapshot, &set, &owner, Timestamp::now());

        let done = self.apply(&owner, &plan).await;
        self.write_status(&owner, &set, &plan.status).await?;
        done?;
        self.truncate(&owner, &set, &snapshot, &revisions).await?;
        let requeue_after = plan.requeue_after.into_iter().chain(self.look_at_service(&owner, &set)).min();
        Ok(requeue_after.into())
    }
}

impl StatefulSets {
    /// Says what is wrong with the set's Service; or in what time to look again.
    fn look_at_service(&self, owner: &Owner, set: &StatefulSet) -> Option<Duration> {
        let name = service::name_of(set).filter(|_| self.services.is_synced())?;
        let found = self.services.get(&ObjectKey::new(&owner.key.namespace, name));
        let verdict = service::look(set, found.as_deref(), Timestamp::now());
        let mut told = self.told.lock();
        match verdict {
            Verdict::Fine => {
                told.remove(&owner.key);
            }
            Verdict::Later(wait) => return Some(wait),
            Verdict::Wrong(reason, message) => {
                if told.insert(owner.key.clone(), message.clone()).as_ref() != Some(&message) {
                    self.pods.event(owner, EventType::Warning, reason, message);
                }
            }
        }
        None
    }

    /// The revision of the set's present template. Nothing if another content has its name: the collision was counted,
    /// and that brings the key back.
    async fn latest(
        &self,
        owner: &Owner,
        set: &StatefulSet,
        revisions: &[Arc<ControllerRevision>],
    ) -> Result<Option<Arc<ControllerRevision>>, Error> {
        let spec = set.spec.clone().unwrap_or_default();
        let status = set.status.clone().unwrap_or_default();
        let collisions = status.collision_count.unwrap_or_default();
        let annotations = set.metadata.annotations.as_ref();
        let choice = history::choose(owner, annotations, &spec.template, collisions, revisions);
        if let (true, Choice::Create(revision)) = (meta::is_deleting(set), &choice) {
            // What the garbage collector takes away is not made again.
            return Ok(Some(Arc::new(ControllerRevision::clone(revision))));
        }
        match self.history.enact(owner, choice).await? {
            Latest::Is(revision) => Ok(Some(revision)),
            Latest::Collision => {
                let counted = StatefulSetStatus { collision_count: Some(collisions + 1), ..status };
                self.write_status(owner, set, &counted).await?;
                Ok(None)
            }
        }
    }

    fn snapshot(
        &self,
        set: &StatefulSet,
        pods: Vec<Arc<Pod>>,
        revisions: &[Arc<ControllerRevision>],
        update: &ControllerRevision,
    ) -> Snapshot {
        let spec = set.spec.clone().unwrap_or_default();
        let named = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
        let current = revisions.iter().find(|revision| Some(meta::name(&***revision)) == named);
        let revision = |revision: &ControllerRevision| Revision {
            name: meta::name(revision).to_owned(),
            template: history::template(revision).unwrap_or_else(|| spec.template.clone()),
        };
        let mut claims = BTreeMap::new();
        let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or_default();
        let templates = spec.volume_claim_templates.as_deref().unwrap_or_default();
        if !templates.is_empty() {
            let namespace = meta::namespace(set);
            let expected = (0..spec.replicas.unwrap_or(1)).map(|index| start.saturating_add(index));
            let mut names: Vec<_> = expected.map(|ordinal| format!("{}-{ordinal}", meta::name(set))).collect();
            names.extend(pods.iter().map(|pod| meta::name(&**pod).to_owned()));
            for pod in names {
                for template in templates {
                    let name = format!("{}-{pod}", meta::name(template));
                    if let Some(claim) = self.claims.get(&ObjectKey::new(namespace, &name)) {
                        claims.insert(name, claim);
                    }
                }
            }
        }
        let update = revision(update);
        Snapshot {
            pods,
            claims,
            current: current.map_or_else(|| update.clone(), |current| revision(current)),
            update,
            collisions: set.status.as_ref().and_then(|status| status.collision_count).unwrap_or_default(),
        }
    }

    async fn apply(&self, owner: &Owner, plan: &Plan) -> Result<(), Error> {
        for (pod, claim) in &plan.claims {
            self.create_claim(owner, pod, claim).await?;
        }
        for (claim, owners) in &plan.reown {
            let patch = json!({ "metadata": { "uid": meta::uid(&**claim), "ownerReferences": owners } });
            let patch = Patch::Merge(patch);
            ok_if_not_found(self.claims_api(owner).patch(meta::name(&**claim), &PatchParams::default(), &patch).await)?;
        }
        for pod in &plan.relabel {
            let name = meta::name(&**pod);
            let Some(ordinal) = pods::ordinal(owner.name(), name) else { continue };
            let labels: BTreeMap<_, _> = identity::identity_labels(name, ordinal).into_iter().collect();
            let patch = json!({ "metadata": { "uid": meta::uid(&**pod), "labels": labels } });
            self.pods.patch(owner, pod, patch).await?;
        }
        let created = self.pods.create(owner, plan.create.clone()).await;
        self.pods.delete(owner, &plan.delete).await?;
        created.error.map_or(Ok(()), Err)
    }

    async fn create_claim(&self, owner: &Owner, pod: &str, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let (name, set) = (meta::name(claim), owner.name());
        match self.claims_api(owner).create(&PostParams::default(), claim).await.map_err(Error::from) {
            Ok(_) => {
                let message = format!("create Claim {name} Pod {pod} in StatefulSet {set} success");
                self.pods.event(owner, EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            // The informer is behind.
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => {
                let message = format!("create Claim {name} for Pod {pod} in StatefulSet {set} failed error: {error}");
                self.pods.event(owner, EventType::Warning, "FailedCreate", message);
                Err(error)
            }
        }
    }

    async fn write_status(&self, owner: &Owner, set: &StatefulSet, status: &StatefulSetStatus) -> Result<(), Error> {
        let old = set.status.clone().unwrap_or_default();
        let shown = || self.sets.get(&owner.key).and_then(|set| meta::version(&set.metadata));
        owner.patch_status(&self.client, (&old, status), Some((&self.expectations, &shown))).await
    }

    async fn truncate(
        &self,
        owner: &Owner,
        set: &StatefulSet,
        snapshot: &Snapshot,
        revisions: &[Arc<ControllerRevision>],
    ) -> Result<(), Error> {
        let live = history::of_pods(&snapshot.pods);
        let is_live = |revision: &ControllerRevision| {
            let name = meta::name(revision);
            live.contains(name) || [&snapshot.current, &snapshot.update].iter().any(|used| used.name == name)
        };
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        self.history.delete(owner, &history::surplus(revisions, is_live, limit)).await
    }

    fn claims_api(&self, owner: &Owner) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), &owner.key.namespace)
    }
}

fn selector(set: &StatefulSet) -> Result<LabelSelector, Error> {
    let spec = set.spec.as_ref();
    Ok(LabelSelector::from_object(spec.map(|spec| &spec.selector))?)
}
