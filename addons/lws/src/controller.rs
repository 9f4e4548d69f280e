//! The controller of LeaderWorkerSets.
//!
//! Watches LeaderWorkerSets, StatefulSets, Pods and Services; owns StatefulSets, Services and ControllerRevisions. The
//! decision is `plan`; this file carries it out. What Pods are told about their group is put in when they are
//! created, at [`admission`](crate::admission).

mod make;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use controllers::applier::{Applier, Mark};
use controllers::client::{Api, Error, ok_if_not_found};
use controllers::controller::{Context, Controller};
use controllers::expectations::EXPECTATIONS_TIMEOUT;
use controllers::history::{Choice, History, Latest, surplus};
use controllers::owner::Owner;
use controllers::served::{CustomResourceController, Subjects, enqueue_labelled};
use controllers::{meta, pods};
use informer::{Action, EventType, Informer, ObjectKey, Recorder, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::Client;
use kube::api::{DeleteParams, PostParams, Preconditions};
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::make::ExclusiveTopology;
use self::plan::Snapshot;
use crate::api::{LeaderWorkerSet, LeaderWorkerSetSpec};
use crate::labels;

const KIND: &str = "LeaderWorkerSet";
/// So many revisions are kept that no group is of any more.
const REVISIONS: i32 = 10;

/// The controller of LeaderWorkerSets.
pub struct LeaderWorkerSets {
    client: Client,
    subjects: Subjects<LeaderWorkerSet>,
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    services: Informer<Service>,
    nodes: Informer<Node>,
    history: Arc<History>,
    recorder: Recorder,
    applier: Applier,
}

impl Controller for LeaderWorkerSets {
    const NAME: &'static str = "leaderworkerset";
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        let (sets, pods) = (context.informer::<StatefulSet>(), context.informer::<Pod>());
        sets.index(meta::BY_NAMESPACE, meta::namespaces);
        pods.index(pods::BY_LABEL, pods::label_values);
        Self {
            subjects: Subjects::new(context, queue),
            sets,
            pods,
            services: context.informer(),
            nodes: context.informer(),
            history: Arc::new(History::new(context)),
            recorder: context.recorder("leaderworkerset-controller"),
            applier: Applier::new(context.client.clone(), "lws"),
            client: context.client.clone(),
        }
    }

    fn watch(self: &Arc<Self>) {
        Subjects::watch(self, |controller| &controller.subjects);
        let queue = &self.subjects.queue;
        self.history.watch(queue, KIND);
        enqueue_labelled(&self.sets, labels::NAME, queue);
        enqueue_labelled(&self.pods, labels::NAME, queue);
    }

    async fn synced(&self) {
        self.subjects.synced().await;
        self.sets.synced().await;
        self.pods.synced().await;
        self.services.synced().await;
        self.nodes.synced().await;
        self.history.synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(set) = self.subjects.get(key)? else {
            self.history.expectations.forget(key);
            self.applier.forget(key);
            return Ok(Action::AwaitChange.because("the set is gone or going"));
        };
        if !self.subjects.satisfied(key).await || !self.history.expectations.satisfied(key).await {
            // The event that shows the write brings the key back.
            return Ok(Action::RequeueAfter(EXPECTATIONS_TIMEOUT).because("its own last write is not shown yet"));
        }
        let owner = Owner::of(&set);
        let status = set.status.clone().unwrap_or_default();
        let revisions = self.history.owned(&owner);
        let latest = match self.history.enact(&owner, choose(&owner, &set.spec, &revisions)).await? {
            Latest::Is(revision) => revision,
            // Two contents with one hash: what is there stays until the next change.
            Latest::Collision => return Ok(Action::AwaitChange),
        };
        let snapshot = self.snapshot(key, &set, &latest, &revisions);
        let plan = plan::plan(&snapshot, &owner, &set.spec, &status, Timestamp::now());
        let there = self.sets.get(key).map(|set| Mark::of(&set.metadata));
        self.told(&owner, "leader statefulset", self.applier.apply(key, &plan.leaders, there).await)?;
        for service in &plan.services {
            self.told(&owner, "headless service", self.create::<Service>(key, service).await)?;
        }
        for leader in &plan.restart {
            let params = DeleteParams::foreground()
                .preconditions(Preconditions { uid: leader.metadata.uid.clone(), resource_version: None });
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
            ok_if_not_found(api.delete(meta::name(&**leader), &params).await)?;
            let message =
                format!("Worker pod of group {} failed or was deleted: recreating the group", meta::name(&**leader));
            self.recorder.event(&owner.reference, EventType::Normal, "RecreateGroup", message);
        }
        for workers in &plan.workers {
            self.told(&owner, "worker statefulset", self.create::<StatefulSet>(key, workers).await)?;
        }
        self.subjects.patch_status(&self.client, &owner, (&status, &plan.status)).await?;
        for (type_, reason, message) in plan.events {
            self.recorder.event(&owner.reference, type_, reason, message);
        }
        let used = |revision: &ControllerRevision| {
            let hash = hash_of(revision);
            meta::name(revision) == meta::name(&*latest)
                || snapshot.pods.iter().any(|pod| make::label(pod, labels::REVISION) == hash)
        };
        self.history.delete(&owner, &surplus(&revisions, used, REVISIONS)).await?;
        Ok(Action::AwaitChange)
    }
}

impl CustomResourceController for LeaderWorkerSets {
    const ADDON: &'static str = crate::NAME;
    type Resource = LeaderWorkerSet;
}

impl LeaderWorkerSets {
    fn snapshot(
        &self,
        key: &ObjectKey,
        set: &LeaderWorkerSet,
        latest: &ControllerRevision,
        revisions: &[Arc<ControllerRevision>],
    ) -> Snapshot {
        let pods = self.pods.by_index(pods::BY_LABEL, &pods::label_value(&key.namespace, labels::NAME, &key.name));
        let mut sets = BTreeMap::new();
        let names = pods.iter().map(|pod| meta::name(&**pod).to_owned()).chain([key.name.clone()]);
        for name in names {
            if let Some(set) = self.sets.get(&ObjectKey::new(&key.namespace, &name)) {
                sets.insert(name, set);
            }
        }
        let service = |name: &String| self.services.get(&ObjectKey::new(&key.namespace, name)).is_some();
        let names = pods.iter().map(|pod| meta::name(&**pod).to_owned()).chain([key.name.clone()]);
        let annotations = set.metadata.annotations.clone().unwrap_or_default();
        let topology_keys = ExclusiveTopology::of(|name| annotations.get(name).cloned());
        let mut topology = BTreeMap::new();
        if let Some(label) = &topology_keys.exclusive {
            for pod in &pods {
                let node = pods::node_name(pod).and_then(|node| self.nodes.get(&ObjectKey::new("", node)));
                let value = node.and_then(|node| node.metadata.labels.as_ref()?.get(label).cloned());
                topology.extend(value.map(|value| (meta::name(&**pod).to_owned(), value)));
            }
        }
        let kept = |revision: &Arc<ControllerRevision>| {
            let content = revision.data.as_ref().map(|data| data.0.clone()).unwrap_or_default();
            (hash_of(revision).to_owned(), content)
        };
        Snapshot {
            services: names.filter(service).collect(),
            pods,
            sets,
            generation: set.metadata.generation,
            revision: hash_of(latest).to_owned(),
            revisions: revisions.iter().map(kept).collect(),
            topology,
            topology_keys,
        }
    }

    /// Says what could not be made, and why, where people look for it.
    fn told(&self, owner: &Owner, what: &str, result: Result<(), Error>) -> Result<(), Error> {
        if let Err(error) = &result
            && !error.is_conflict()
        {
            let message = format!("Failed to create {what}: {error}");
            self.recorder.event(&owner.reference, EventType::Warning, "FailedCreate", message);
        }
        result
    }

    async fn create<K>(&self, key: &ObjectKey, object: &Value) -> Result<(), Error>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.namespace);
        let object: K = serde_json::from_value(object.clone())?;
        match api.create(&PostParams::default(), &object).await.map_err(Error::from) {
            Err(error) if !error.is_already_exists() && !error.is_namespace_terminating() => Err(error),
            _ => Ok(()),
        }
    }
}

fn hash_of(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(labels::REVISION)).map_or("", String::as_str)
}

fn choose(owner: &Owner, spec: &LeaderWorkerSetSpec, revisions: &[Arc<ControllerRevision>]) -> Choice {
    let content = spec.revision_data();
    let next = revisions.last().map_or(1, |last| last.revision.saturating_add(1));
    let same = |revision: &&Arc<ControllerRevision>| revision.data.as_ref().is_some_and(|data| data.0 == content);
    match revisions.iter().rev().find(same) {
        Some(revision) if revision.revision + 1 == next => Choice::Latest(Arc::clone(revision)),
        Some(revision) => Choice::Renumber(Arc::clone(revision), next),
        None => {
            let hash = machinery::hash::pod_template_hash(&content, None);
            let labels =
                [(labels::NAME.to_owned(), owner.name().to_owned()), (labels::REVISION.to_owned(), hash.clone())];
            Choice::Create(Box::new(ControllerRevision {
                metadata: ObjectMeta {
                    name: Some(format!("{}-{hash}", owner.name())),
                    namespace: Some(owner.key.namespace.clone()),
                    labels: Some(labels.into()),
                    owner_references: Some(vec![owner.controller.clone()]),
                    ..ObjectMeta::default()
                },
                data: Some(RawExtension(content)),
                revision: next,
            }))
        }
    }
}
