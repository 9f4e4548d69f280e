//! The controller of RoleBasedGroups: roles that belong together, each run by a Deployment, a StatefulSet or a
//! LeaderWorkerSet, started in the order of their dependencies.
//!
//! Watches RoleBasedGroups and what it makes of them: workloads, Services, a ConfigMap, PodGroups and scaling adapters; and
//! Pods. The decision is `plan`; this file carries it out.

mod make;
mod plan;
mod role;
mod state;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use controllers::applier::{self, Applier, Mark};
use controllers::client::{Api, Error, ok_if_not_found};
use controllers::controller::{Context, Controller};
use controllers::expectations::EXPECTATIONS_TIMEOUT;
use controllers::owner::Owner;
use controllers::served::{CustomResourceController, InstalledBy, Objects, Subjects, enqueue_labelled};
use controllers::{meta, pods};
use informer::{Action, Cause, EventType, Informer, ObjectKey, Recorder, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher;
use kube::{Client, CustomResourceExt};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use self::plan::{Plan, Snapshot};
use self::role::{Group, Workload};
use self::state::State;
use crate::api::RoleBasedGroupScalingAdapterStatus;
use crate::api::v1alpha2::{RoleBasedGroup, RoleBasedGroupScalingAdapter, RoleBasedGroupScalingAdapterSpec};

pub(crate) use self::role::EXCLUSIVE;

/// The controller of RoleBasedGroups.
pub struct RoleBasedGroups {
    context: Context,
    client: Client,
    subjects: Subjects<RoleBasedGroup>,
    deployments: Informer<Deployment>,
    sets: Informer<StatefulSet>,
    services: Informer<Service>,
    configs: Informer<ConfigMap>,
    pods: Informer<Pod>,
    /// Kinds with definitions of their own: LeaderWorkerSets, adapters, PodGroups of both projects.
    custom: [Objects; 4],
    recorder: Recorder,
    applier: Applier,
    /// What was told last of each group: it is not told again before something else was.
    told: Mutex<HashMap<ObjectKey, Vec<(&'static str, String)>>>,
}

impl Controller for RoleBasedGroups {
    const NAME: &'static str = "rolebasedgroup";
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        let pods = context.informer::<Pod>();
        pods.index(pods::BY_LABEL, pods::label_values);
        let (deployments, sets) = (context.informer::<Deployment>(), context.informer::<StatefulSet>());
        deployments.index(meta::BY_CONTROLLER, meta::controller_uids);
        sets.index(meta::BY_CONTROLLER, meta::controller_uids);
        let services = context.informer::<Service>();
        services.index(meta::BY_CONTROLLER, meta::controller_uids);
        // Nobody else reads ConfigMaps: only those of groups are kept.
        let labelled = watcher::Config::default().labels(make::GROUP_LABEL);
        let custom = [
            (Workload::LeaderWorkerSet.resource(), InstalledBy::Anybody),
            // Their status is written here.
            (RoleBasedGroupScalingAdapter::api_resource(), InstalledBy::Addon(crate::NAME)),
            (applier::resource("scheduling.x-k8s.io/v1alpha1", "PodGroup"), InstalledBy::Anybody),
            (applier::resource("scheduling.volcano.sh/v1beta1", "PodGroup"), InstalledBy::Anybody),
        ];
        Self {
            subjects: Subjects::new(context, queue),
            deployments,
            sets,
            services,
            configs: context.informer_of_selected(labelled),
            pods,
            custom: custom.map(|(resource, installed_by)| Objects::new(resource, installed_by)),
            recorder: context.recorder("rolebasedgroup-controller"),
            applier: Applier::new(context.client.clone(), "rbg"),
            client: context.client.clone(),
            context: context.clone(),
            told: Mutex::default(),
        }
    }

    fn watch(self: &Arc<Self>) {
        Subjects::watch(self, |controller| &controller.subjects);
        let queue = &self.subjects.queue;
        enqueue_labelled(&self.deployments, make::GROUP_LABEL, queue);
        enqueue_labelled(&self.sets, make::GROUP_LABEL, queue);
        enqueue_labelled(&self.services, make::GROUP_LABEL, queue);
        enqueue_labelled(&self.configs, make::GROUP_LABEL, queue);
        enqueue_labelled(&self.pods, make::GROUP_LABEL, queue);
    }

    async fn synced(&self) {
        self.subjects.synced().await;
        self.deployments.synced().await;
        self.sets.synced().await;
        self.services.synced().await;
        self.configs.synced().await;
        self.pods.synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(object) = self.subjects.get(key)? else {
            self.applier.forget(key);
            self.told().remove(key);
            return Ok(Action::AwaitChange.because("the group is gone or going"));
        };
        if !self.subjects.satisfied(key).await {
            // The event that shows the write brings the key back.
            return Ok(Action::RequeueAfter(EXPECTATIONS_TIMEOUT).because("its own last write is not shown yet"));
        }
        let owner = Owner::of(&object);
        let group = Group { owner: &owner, object: &object };
        let plan = plan::plan(&self.snapshot(group), group, Timestamp::now());
        self.tell(group, &plan.events);
        if !plan.scale.is_empty() {
            self.scale(group, &plan.scale).await?;
            return Ok(Action::RequeueAfter(EXPECTATIONS_TIMEOUT));
        }
        // That the group starts anew is written before it is done.
        let status = object.status.clone().unwrap_or_default();
        self.subjects.patch_status(&self.client, &owner, (&status, &plan.status)).await?;
        for (name, state) in &plan.restart {
            self.delete(key, &state.workload.resource(), name, Some(state.uid.clone())).await?;
        }
        self.make(group, &plan).await?;
        self.remove_old(group).await?;
        Ok(Action::AwaitChange)
    }

    /// Follows the kinds that have definitions of their own.
    async fn background(&self) {
        // What could not be made while its kind was not there, can be now.
        let turned = || self.subjects.enqueue_all(&Cause::new("a kind it may be made of is served now"));
        let label = (make::GROUP_LABEL, &self.subjects.queue);
        let followed = self.custom.iter().map(|kind| kind.follow(&self.context, label, turned));
        futures::future::join_all(followed).await;
    }
}

impl CustomResourceController for RoleBasedGroups {
    const ADDON: &'static str = crate::NAME;
    type Resource = RoleBasedGroup;
}

impl RoleBasedGroups {
    /// How the group's roles stand.
    fn snapshot(&self, group: Group<'_>) -> Snapshot {
        let namespace = group.namespace();
        let mut snapshot = Snapshot {
            pods: self.pods.by_index(pods::BY_LABEL, &pods::label_value(namespace, make::GROUP_LABEL, group.name())),
            api_version: RoleBasedGroup::api_resource().api_version,
            ..Snapshot::default()
        };
        let [leader_workers, adapters, ..] = &self.custom;
        for role in group.roles() {
            let at = ObjectKey::new(namespace, role.workload_name(group));
            let found = match role.workload() {
                Ok(Workload::Deployment) => self.deployments.get(&at).map(|it| State::of_deployment(&it)),
                Ok(Workload::StatefulSet) => self.sets.get(&at).map(|it| State::of_stateful_set(&it)),
                Ok(Workload::LeaderWorkerSet) => leader_workers.get(&at).map(|it| State::of_leader_worker_set(&it)),
                Err(_) => None,
            };
            snapshot.workloads.extend(found.map(|state| (role.name().to_owned(), state)));
            if let Some(adapter) = adapters.get(&at).filter(|_| role.has_adapter()) {
                let spec = RoleBasedGroupScalingAdapterSpec::deserialize(&adapter.data["spec"]).unwrap_or_default();
                let status = RoleBasedGroupScalingAdapterStatus::deserialize(&adapter.data["status"]);
                snapshot.adapters.insert(role.name().to_owned(), (spec.replicas, status.unwrap_or_default()));
            }
        }
        snapshot
    }

    /// Says what was not said just before.
    fn tell(&self, group: Group<'_>, events: &[(EventType, &'static str, String)]) {
        let now = events.iter().map(|(_, reason, message)| (*reason, message.clone())).collect();
        let before = self.told().insert(group.owner.key.clone(), now).unwrap_or_default();
        for (type_, reason, message) in events {
            if !before.iter().any(|(known, words)| known == reason && words == message) {
                self.recorder.event(&group.owner.reference, *type_, *reason, message.clone());
            }
        }
    }

    /// Writes what adapters ask for into the group, as long as nobody else has changed it meanwhile.
    async fn scale(&self, group: Group<'_>, scale: &[(usize, i32)]) -> Result<(), Error> {
        // A merge patch replaces the list, with all that roles have and their type does not know.
        let Some(object) = self.subjects.json(&group.owner.key) else { return Ok(()) };
        if object.metadata.resource_version != group.object.metadata.resource_version {
            return Ok(());
        }
        let mut roles = object.data["spec"]["roles"].clone();
        for (place, replicas) in scale {
            roles[*place]["replicas"] = (*replicas).into();
        }
        let patch = json!({
            "metadata": { "resourceVersion": object.metadata.resource_version }, "spec": { "roles": roles },
        });
        let api: Api<RoleBasedGroup> = Api::namespaced(self.client.clone(), group.namespace());
        ok_if_not_found(api.patch(group.name(), &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(())
    }

    /// Makes what is planned. What cannot be made does not keep the rest from it.
    async fn make(&self, group: Group<'_>, plan: &Plan) -> Result<(), Error> {
        let mut failure = None;
        for object in &plan.apply {
            let there = self.mark(group, object);
            if let Err(error) = self.applier.apply(&group.owner.key, object, there).await {
                let what = [&object["kind"], &object["metadata"]["name"]].map(|name| name.as_str().unwrap_or_default());
                // The API server says no more than that there is no such page.
                let why = match error.is_not_found() {
                    true => format!(
                        "the cluster has no {} of {}",
                        what[0],
                        object["apiVersion"].as_str().unwrap_or_default()
                    ),
                    false => error.to_string(),
                };
                let message = format!("Cannot apply {} {}: {why}", what[0], what[1]);
                self.recorder.event(&group.owner.reference, EventType::Warning, "FailedReconcileWorkload", message);
                failure = Some(error);
            }
        }
        let api: Api<RoleBasedGroupScalingAdapter> = Api::namespaced(self.client.clone(), group.namespace());
        for object in &plan.create {
            let object: RoleBasedGroupScalingAdapter = serde_json::from_value(object.clone())?;
            match api.create(&PostParams::default(), &object).await.map_err(Error::from) {
                Err(error) if !error.is_already_exists() => failure = Some(error),
                _ => {}
            }
        }
        for (name, status) in &plan.adapters {
            let patch = Patch::Merge(json!({ "status": status }));
            ok_if_not_found(api.patch_status(name, &PatchParams::default(), &patch).await)?;
        }
        failure.map_or(Ok(()), Err)
    }

    /// The mark of what is there in the place of `object`.
    fn mark(&self, group: Group<'_>, object: &Value) -> Option<Mark> {
        let at = ObjectKey::new(group.namespace(), object["metadata"]["name"].as_str()?);
        let of = |metadata: &ObjectMeta| Mark::of(metadata);
        match object["kind"].as_str()? {
            "Deployment" => self.deployments.get(&at).map(|it| of(&it.metadata)),
            "StatefulSet" => self.sets.get(&at).map(|it| of(&it.metadata)),
            "Service" => self.services.get(&at).map(|it| of(&it.metadata)),
            "ConfigMap" => self.configs.get(&at).map(|it| of(&it.metadata)),
            _ => {
                let mut kinds = self.custom.iter();
                let kind = kinds.find(|kind| kind.resource.api_version == object["apiVersion"])?;
                kind.get(&at).map(|it| of(&it.metadata))
            }
        }
    }

    /// Deletes what the group has no use for any more: of roles that it no longer has, or that are run by something else.
    async fn remove_old(&self, group: Group<'_>) -> Result<(), Error> {
        let uid = group.owner.uid();
        let mut old: Vec<(ApiResource, ObjectMeta)> = Vec::new();
        let of = |workload: Workload, metadata: &ObjectMeta| (workload.resource(), metadata.clone());
        let deployments = self.deployments.by_index(meta::BY_CONTROLLER, uid);
        old.extend(deployments.iter().map(|it| of(Workload::Deployment, &it.metadata)));
        old.extend(
            self.sets.by_index(meta::BY_CONTROLLER, uid).iter().map(|it| of(Workload::StatefulSet, &it.metadata)),
        );
        let services = self.services.by_index(meta::BY_CONTROLLER, uid);
        old.extend(services.iter().map(|it| (applier::resource("v1", "Service"), it.metadata.clone())));
        for kind in &self.custom {
            old.extend(kind.controlled_by(uid).iter().map(|it| (kind.resource.clone(), it.metadata.clone())));
        }
        for (resource, metadata) in old {
            let name = metadata.name.unwrap_or_default();
            if metadata.deletion_timestamp.is_none() && !plan::is_wanted(group, &resource.kind, &name) {
                self.delete(&group.owner.key, &resource, &name, metadata.uid).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, key: &ObjectKey, of: &ApiResource, name: &str, uid: Option<String>) -> Result<(), Error> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, of);
        let params = DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
        ok_if_not_found(api.delete(name, &params).await)?;
        Ok(())
    }

    fn told(&self) -> parking_lot::MutexGuard<'_, HashMap<ObjectKey, Vec<(&'static str, String)>>> {
        // Never held across an await.
        self.told.lock()
    }
}
