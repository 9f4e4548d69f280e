//! RoleBasedGroups (workloads.x-k8s.io): roles that belong together, each run by a Deployment, a StatefulSet or a
//! LeaderWorkerSet, started in the order of their dependencies. Runs while the CustomResourceDefinition is there.
//!
//! Watches RoleBasedGroups, their workloads and Pods; owns workloads, Services, a ConfigMap, PodGroups and scaling
//! adapters. The decision is [`plan::plan`]; this file carries it out.

mod make;
mod plan;
mod role;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use informer::{Informer, Informers, ObjectKey, Outcome, Recorder, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, Preconditions,
};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::plan::{Snapshot, State};
use self::role::{Role, Workload};
use crate::client::{Error, if_found, settle};
use crate::ledger::{Ledger, PATIENCE};
use crate::owner::Owner;
use crate::{addon, meta, pods};

const KIND: &str = "RoleBasedGroup";
const GROUP: &str = "workloads.x-k8s.io";
/// What is not watched (LeaderWorkerSets and adapters, whose definitions may come and go) is looked at as often as this
/// while a group is not ready, or may be scaled.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The kind, in the version that is stored.
pub(crate) fn resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, "v1alpha1", KIND), "rolebasedgroups")
}

fn adapters() -> ApiResource {
    let kind = GroupVersionKind::gvk(GROUP, "v1alpha1", "RoleBasedGroupScalingAdapter");
    ApiResource::from_gvk_with_plural(&kind, "rolebasedgroupscalingadapters")
}

/// Runs the controller while its definition is there, until `cancel` is triggered.
pub(crate) async fn run(client: Client, informers: Informers, workers: usize, cancel: CancellationToken) {
    let (outer, shared) = (client.clone(), informers.clone());
    addon::while_served(client, informers, resource(), cancel, move |groups, stop| {
        let controller = Arc::new(Controller::new(outer.clone(), &shared, groups));
        async move {
            controller.watch();
            controller.synced().await;
            let queue = controller.queue.clone();
            informer::run("rolebasedgroup", queue, workers, stop, |key| {
                let controller = Arc::clone(&controller);
                async move { settle(controller.reconcile(&key).await) }
            })
            .await;
        }
    })
    .await;
}

struct Controller {
    client: Client,
    groups: Informer<DynamicObject>,
    deployments: Informer<Deployment>,
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    recorder: Recorder,
    queue: WorkQueue<ObjectKey>,
    ledger: Ledger,
    /// What was applied last under each kind and name, and the generation that it led to: the same again is not sent.
    applied: Mutex<Applied>,
}

/// By kind and name: a hash of what was applied, and the generation that it led to.
type Applied = HashMap<(String, ObjectKey), (u32, Option<i64>)>;

impl Controller {
    fn new(client: Client, informers: &Informers, groups: Informer<DynamicObject>) -> Self {
        let pods = informers.informer::<Pod>();
        pods.index(pods::BY_LABEL, pods::label_values);
        let (deployments, sets) = (informers.informer::<Deployment>(), informers.informer::<StatefulSet>());
        deployments.index(meta::BY_CONTROLLER, meta::controller_uids);
        sets.index(meta::BY_CONTROLLER, meta::controller_uids);
        Self {
            groups,
            deployments,
            sets,
            pods,
            recorder: Recorder::new(client.clone(), "rolebasedgroup-controller", None),
            client,
            queue: WorkQueue::new(),
            ledger: Ledger::default(),
            applied: Mutex::default(),
        }
    }

    fn watch(self: &Arc<Self>) {
        let controller = Arc::downgrade(self);
        self.groups.on_change(move |change| {
            let Some(controller) = Weak::upgrade(&controller) else { return };
            let version = change.new.as_ref().map(|new| meta::version(&new.metadata));
            controller.ledger.seen_version(&change.key(), version);
            controller.queue.add(change.key());
        });
        // These informers outlive the definition: they must not keep what served it.
        wake(&self.deployments, Arc::downgrade(self));
        wake(&self.sets, Arc::downgrade(self));
        wake(&self.pods, Arc::downgrade(self));
    }

    async fn synced(&self) {
        self.groups.synced().await;
        self.deployments.synced().await;
        self.sets.synced().await;
        self.pods.synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(group) = self.groups.get(key).filter(|group| group.metadata.deletion_timestamp.is_none()) else {
            self.ledger.forget(key);
            return Ok(Outcome::Done);
        };
        if !self.ledger.open(key).is_empty() {
            // The event that shows the write brings the key back.
            return Ok(Outcome::After(PATIENCE));
        }
        let owner = Owner::of_dynamic(&group, &resource());
        let spec = &group.data["spec"];
        let (snapshot, generations) = self.snapshot(key, spec).await?;
        let generation = group.metadata.generation.unwrap_or_default();
        let plan = plan::plan(&snapshot, &owner, generation, spec, &group.data["status"], Timestamp::now());
        for (type_, reason, message) in &plan.events {
            self.recorder.event(&owner.reference, *type_, *reason, message.clone());
        }
        if !plan.scale.is_empty() {
            self.scale(key, &group, &plan.scale).await?;
            return Ok(Outcome::After(PATIENCE));
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        for pod in &plan.restart {
            let params = DeleteParams::default()
                .preconditions(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
            if_found(pods.delete(meta::name(&**pod), &params).await)?;
        }
        let mut failure = None;
        for object in &plan.apply {
            // One that cannot be applied does not keep the others from it.
            if let Err(error) = self.apply(key, object, &generations).await {
                let message = format!("cannot apply {} {}: {error}", object["kind"], object["metadata"]["name"]);
                self.recorder.event(&owner.reference, informer::EventType::Warning, "FailedReconcileWorkload", message);
                failure = Some(error);
            }
        }
        for (name, status) in &plan.adapters {
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &adapters());
            let patch = Patch::Merge(json!({ "status": status }));
            if_found(api.patch_status(name, &PatchParams::default(), &patch).await)?;
        }
        self.remove_old(&owner, spec).await?;
        let shown = || self.groups.get(key).and_then(|group| meta::version(&group.metadata));
        owner.patch_status(&self.client, (&group.data["status"], &plan.status), Some((&self.ledger, &shown))).await?;
        failure.map_or(Ok(()), Err)?;
        let roles = role::roles(spec);
        let unwatched = |role: &Role<'_>| role.has_adapter() || role.workload() == Ok(Workload::LeaderWorkerSet);
        Ok(if roles.iter().any(unwatched) { Outcome::After(LOOK_AGAIN) } else { Outcome::Done })
    }

    /// How the roles' workloads stand, and their generations by kind and name.
    async fn snapshot(&self, key: &ObjectKey, spec: &Value) -> Result<(Snapshot, BTreeMap<String, i64>), Error> {
        let mut snapshot = Snapshot {
            pods: self.pods.by_index(pods::BY_LABEL, &pods::label_value(&key.namespace, make::GROUP_LABEL, &key.name)),
            api_version: resource().api_version,
            ..Snapshot::default()
        };
        let mut generations = BTreeMap::new();
        let mut has_adapters = false;
        for role in role::roles(spec) {
            has_adapters |= role.has_adapter();
            let name = format!("{}-{}", key.name, role.name());
            let at = ObjectKey::new(&key.namespace, &name);
            let found = match role.workload() {
                Ok(Workload::Deployment) => {
                    self.deployments.get(&at).map(|it| (deployment(&it), it.metadata.generation))
                }
                Ok(Workload::StatefulSet) => self.sets.get(&at).map(|it| (stateful(&it), it.metadata.generation)),
                Ok(Workload::LeaderWorkerSet) => {
                    let api: Api<DynamicObject> =
                        Api::namespaced_with(self.client.clone(), &key.namespace, &crate::lws::resource());
                    let live = if_found(api.get(&name).await)?;
                    live.map(|it| (leader_workers(&it), it.metadata.generation))
                }
                Err(_) => None,
            };
            if let Some((state, generation)) = found {
                snapshot.workloads.insert(role.name().to_owned(), state);
                generations.insert(name, generation.unwrap_or_default());
            }
        }
        if has_adapters {
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &adapters());
            let ours = ListParams::default().labels(&format!("{}={}", make::GROUP_LABEL, key.name));
            for adapter in api.list(&ours).await?.items {
                let Some(role) = adapter.data["spec"]["scaleTargetRef"]["role"].as_str() else { continue };
                let asked = adapter.data["spec"]["replicas"].as_i64();
                snapshot.adapters.insert(role.to_owned(), (asked, adapter.data["status"].clone()));
            }
        }
        Ok((snapshot, generations))
    }

    /// Writes what adapters ask for into the group, as long as nobody else has changed it meanwhile.
    async fn scale(&self, key: &ObjectKey, group: &DynamicObject, scale: &[(usize, i64)]) -> Result<(), Error> {
        let mut roles = group.data["spec"]["roles"].clone();
        for (place, replicas) in scale {
            roles[*place]["replicas"] = (*replicas).into();
        }
        let patch = json!({
            "metadata": { "resourceVersion": group.metadata.resource_version }, "spec": { "roles": roles },
        });
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &resource());
        if_found(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(())
    }

    async fn apply(&self, key: &ObjectKey, object: &Value, generations: &BTreeMap<String, i64>) -> Result<(), Error> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        let slot = (kind.clone(), ObjectKey::new(&key.namespace, &name));
        let hash = machinery::hash::object_hash(object);
        let is_workload = ["Deployment", "StatefulSet", "LeaderWorkerSet"].contains(&kind.as_str());
        let there = if is_workload { generations.get(&name).copied() } else { None };
        if self.applied().get(&slot) == Some(&(hash, there)) && (there.is_some() || !is_workload) {
            return Ok(());
        }
        let api_version = text(&object["apiVersion"]);
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let plural = format!("{}s", kind.to_lowercase());
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, &kind), &plural);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
        let written = api.patch(&name, &PatchParams::apply("rbg").force(), &Patch::Apply(object)).await?;
        let generation = if is_workload { written.metadata.generation } else { None };
        self.applied().insert(slot, (hash, generation));
        Ok(())
    }

    /// Deletes workloads of roles that the group no longer has, and those of another kind than their role has now.
    async fn remove_old(&self, owner: &Owner, spec: &Value) -> Result<(), Error> {
        let roles = role::roles(spec);
        let wanted = |name: &str, kind: Workload| {
            roles.iter().any(|role| make::workload_name(owner, *role) == name && role.workload() == Ok(kind))
        };
        let namespace = &owner.key.namespace;
        for old in self.deployments.by_index(meta::BY_CONTROLLER, owner.uid()) {
            let name = meta::name(&*old);
            if !wanted(name, Workload::Deployment) {
                let api: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
                if_found(api.delete(name, &DeleteParams::background()).await)?;
            }
        }
        for old in self.sets.by_index(meta::BY_CONTROLLER, owner.uid()) {
            let name = meta::name(&*old);
            if !wanted(name, Workload::StatefulSet) {
                let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), namespace);
                if_found(api.delete(name, &DeleteParams::background()).await)?;
            }
        }
        Ok(())
    }

    fn applied(&self) -> std::sync::MutexGuard<'_, Applied> {
        // A lock of the standard library: never held across an await.
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the group whose name objects of this kind carry.
fn wake<K>(informer: &Informer<K>, controller: Weak<Controller>)
where
    K: informer::Object + Metadata<Ty = ObjectMeta>,
    K::DynamicType: Clone,
{
    informer.on_change(move |change| {
        let Some(object) = change.new.as_ref().or(change.old.as_ref()) else { return };
        let metadata = Metadata::metadata(&**object);
        let Some(name) = metadata.labels.as_ref().and_then(|labels| labels.get(make::GROUP_LABEL)) else { return };
        if let Some(controller) = controller.upgrade() {
            controller.queue.add(ObjectKey::new(metadata.namespace.clone().unwrap_or_default(), name));
        }
    });
}

fn deployment(it: &Deployment) -> State {
    let status = it.status.clone().unwrap_or_default();
    let count = |number: Option<i32>| i64::from(number.unwrap_or_default());
    State {
        replicas: count(status.replicas),
        ready: count(status.ready_replicas),
        updated: count(status.updated_replicas),
        settled: status.observed_generation >= it.metadata.generation,
    }
}

fn stateful(it: &StatefulSet) -> State {
    let status = it.status.clone().unwrap_or_default();
    let count = |number: Option<i32>| i64::from(number.unwrap_or_default());
    State {
        replicas: i64::from(status.replicas),
        ready: count(status.ready_replicas),
        updated: count(status.updated_replicas),
        settled: status.observed_generation >= it.metadata.generation,
    }
}

fn leader_workers(it: &DynamicObject) -> State {
    let count = |field: &str| it.data["status"][field].as_i64().unwrap_or_default();
    State {
        replicas: count("replicas"),
        ready: count("readyReplicas"),
        updated: count("updatedReplicas"),
        settled: it.data["status"].is_object(),
    }
}
