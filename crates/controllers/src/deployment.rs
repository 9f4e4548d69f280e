//! Deployments: rolls templates out over ReplicaSets.
//!
//! Watches Deployments, ReplicaSets and, for the strategy Recreate, Pods; owns ReplicaSets. The decision is
//! [`plan::plan`]; this file carries it out. A plan is made only once the informers show what the last one wrote, so
//! that no step of a rollout is ever decided on a state that this controller itself has left behind.

pub(crate) mod history;
pub(crate) mod plan;
mod recreate;
pub(crate) mod replicas;
mod rolling;
mod rollout;
mod scaling;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use informer::{Action, Change, EventType, Informer, ObjectKey, Recorder, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use machinery::selector::LabelSelector;
use serde_json::{Map, Value, json};

use self::plan::{RolloutStep, Snapshot, Update};
use crate::claim::{self, Claim};
use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::expectations::{EXPECTATIONS_TIMEOUT, Expectations};
use crate::owner::Owner;
use crate::{meta, pods};

/// The controller of Deployments.
pub(crate) struct Deployments {
    client: Client,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    recorder: Recorder,
    queue: WorkQueue<ObjectKey>,
    /// What was written to ReplicaSets.
    set_expectations: Expectations,
    /// What was written to the Deployments themselves.
    own_expectations: Expectations,
}

impl Controller for Deployments {
    const NAME: &'static str = "deployment";
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        let deployments = context.informer::<Deployment>();
        let (sets, pods) = (context.informer::<ReplicaSet>(), context.informer::<Pod>());
        deployments.index(meta::BY_NAMESPACE, meta::namespaces);
        sets.index(meta::BY_CONTROLLER, meta::controller_uids);
        sets.index(meta::ORPHANS, meta::orphan_namespaces);
        pods.index(meta::BY_CONTROLLER, meta::controller_uids);
        Self {
            recorder: context.recorder("deployment-controller"),
            client: context.client.clone(),
            set_expectations: context.expectations(&sets),
            own_expectations: context.expectations(&deployments),
            deployments,
            sets,
            pods,
            queue,
        }
    }

    fn watch(self: &Arc<Self>) {
        let controller = Arc::clone(self);
        self.deployments.on_change(move |change| {
            controller.own_expectations.observe(change);
            controller.queue.add_changed(change);
        });
        let controller = Arc::clone(self);
        self.sets.on_change(move |change| {
            controller.set_expectations.observe(change);
            controller.enqueue_owners(change);
        });
        let controller = Arc::clone(self);
        self.pods.on_change(move |change| controller.enqueue_recreate(change));
    }

    async fn synced(&self) {
        self.deployments.synced().await;
        self.sets.synced().await;
        self.pods.synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(deployment) = self.deployments.get(key) else {
            self.own_expectations.forget(key);
            self.set_expectations.forget(key);
            return Ok(Action::AwaitChange.because("the deployment is gone"));
        };
        if !Expectations::all_satisfied(&[&self.own_expectations, &self.set_expectations], key).await {
            // The event that shows the write brings the key back.
            return Ok(Action::RequeueAfter(EXPECTATIONS_TIMEOUT).because("its own last write is not shown yet"));
        }
        let sets = self.claim(key, &deployment).await?;
        let snapshot = self.snapshot(&deployment, sets);
        let now = Timestamp::now();
        let plan = plan::plan(&snapshot, &deployment, now);
        let mut owner = Owner::of(&*deployment);
        for action in plan.actions {
            if !self.apply(&mut owner, &deployment, action, now).await? {
                break;
            }
        }
        Ok(plan.requeue_after.into())
    }
}

impl Deployments {
    fn enqueue_owners(&self, change: &Change<ReplicaSet>) {
        for rs in [&change.old, &change.new].into_iter().flatten() {
            if let Some(owner) = meta::controller_of(&rs.metadata) {
                if owner.kind == "Deployment" {
                    self.queue.add(ObjectKey::new(meta::namespace(&**rs), &owner.name), change.cause());
                }
            } else if change.new.is_some() {
                let labels = rs.metadata.labels.clone().unwrap_or_default();
                for deployment in self.deployments.by_index(meta::BY_NAMESPACE, meta::namespace(&**rs)) {
                    if selector(&deployment).is_ok_and(|selector| selector.matches(&labels)) {
                        self.queue.add(ObjectKey::of(&*deployment), change.cause());
                    }
                }
            }
        }
    }

    /// The strategy Recreate waits for the end of Pods, of which ReplicaSets do not tell.
    fn enqueue_recreate(&self, change: &Change<Pod>) {
        let Some(old) = &change.old else {
            return;
        };
        let ended = change.new.as_ref().is_none_or(|pod| pods::is_finished(pod));
        if !ended || pods::is_finished(old) {
            return;
        }
        let deployment = meta::controller_of(&old.metadata)
            .filter(|owner| owner.kind == "ReplicaSet")
            .and_then(|owner| self.sets.get(&ObjectKey::new(meta::namespace(&**old), &owner.name)))
            .and_then(|rs| {
                let owner = meta::controller_of(&rs.metadata)?;
                let key = ObjectKey::new(meta::namespace(&*rs), &owner.name);
                self.deployments.get(&key)
            });
        if let Some(deployment) = deployment
            && !is_rolling(&deployment)
        {
            self.queue.add(ObjectKey::of(&*deployment), change.cause());
        }
    }

    fn snapshot(&self, deployment: &Deployment, sets: Vec<Arc<ReplicaSet>>) -> Snapshot {
        let mut running = BTreeMap::new();
        if !is_rolling(deployment) {
            for rs in &sets {
                let mut pods = self.pods.by_index(meta::BY_CONTROLLER, meta::uid(&**rs));
                pods.retain(|pod| !pods::is_finished(pod));
                running.insert(meta::uid(&**rs).to_owned(), pods.len());
            }
        }
        Snapshot { sets, running }
    }

    /// The ReplicaSets that are the Deployment's, after orphans were taken in and strangers let go.
    async fn claim(&self, key: &ObjectKey, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, Error> {
        let selector = selector(deployment)?;
        let mut candidates = self.sets.by_index(meta::BY_CONTROLLER, meta::uid(deployment));
        candidates.extend(self.sets.by_index(meta::ORPHANS, &key.namespace));
        let mut owned = Vec::with_capacity(candidates.len());
        let mut may_adopt = None;
        for rs in candidates {
            match claim::claim(deployment, |labels| selector.matches(labels), &*rs) {
                Claim::Owned => owned.push(rs),
                Claim::Foreign => {}
                Claim::Release => {
                    self.patch_set(key, &rs, claim::release(meta::uid(deployment), &*rs)).await?;
                }
                Claim::Adopt => {
                    let may = match may_adopt {
                        Some(may) => may,
                        None => *may_adopt.insert(self.is_alive(deployment).await?),
                    };
                    if may {
                        let owner = meta::controller_ref(deployment);
                        let adopted = self.patch_set(key, &rs, claim::adoption(&owner, &*rs)).await?;
                        owned.extend(adopted.map(Arc::new));
                    }
                }
            }
        }
        Ok(owned)
    }

    async fn patch_set(&self, key: &ObjectKey, rs: &ReplicaSet, patch: Value) -> Result<Option<ReplicaSet>, Error> {
        let patch = Patch::Strategic(patch);
        let answer = self.sets_api(key).patch(meta::name(rs), &PatchParams::default(), &patch).await;
        let written = ok_if_not_found(answer)?;
        if let Some(written) = &written {
            self.set_expectations.expect_write(key, written, |key| self.sets.get(key));
        }
        Ok(written)
    }

    /// Upstream: who adopts must be sure that it is not being deleted itself.
    async fn is_alive(&self, deployment: &Deployment) -> Result<bool, Error> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), meta::namespace(deployment));
        let live = ok_if_not_found(api.get(meta::name(deployment)).await)?;
        Ok(live.is_some_and(|live| meta::uid(&live) == meta::uid(deployment) && !meta::is_deleting(&live)))
    }

    /// Carries one action out. False if the rest of the plan has lost its ground.
    async fn apply(
        &self,
        owner: &mut Owner,
        deployment: &Deployment,
        action: RolloutStep,
        now: Timestamp,
    ) -> Result<bool, Error> {
        match action {
            RolloutStep::Create(rs) => return self.create(owner, deployment, &rs, now).await,
            RolloutStep::Update(update) => return self.update(&owner.key, deployment, update).await,
            RolloutStep::Delete(rs) => {
                let params = DeleteParams::background().preconditions(Preconditions {
                    uid: rs.metadata.uid.clone(),
                    resource_version: rs.metadata.resource_version.clone(),
                });
                ok_if_not_found(self.sets_api(&owner.key).delete(meta::name(&*rs), &params).await)?;
            }
            RolloutStep::SetRevision(revision) => {
                let patch = json!({ "metadata": {
                    "uid": meta::uid(deployment), "annotations": { history::REVISION: revision }
                } });
                // With the status, as upstream (`getNewReplicaSet` in `pkg/controller/deployment/sync.go`): a write to the
                // Deployment itself that changes its annotations would count as a new generation.
                let api: Api<Deployment> = Api::namespaced(self.client.clone(), &owner.key.namespace);
                let answer = api.patch_status(owner.name(), &PatchParams::default(), &Patch::Merge(patch)).await;
                if let Some(written) = ok_if_not_found(answer)? {
                    self.own_expectations.expect_write(&owner.key, &written, |key| self.deployments.get(key));
                    owner.written(&written.metadata);
                }
            }
            RolloutStep::UpdateStatus(status) => self.update_status(owner, deployment, &status).await?,
            RolloutStep::Warn { reason, message } => self.event(deployment, EventType::Warning, reason, message),
        }
        Ok(true)
    }

    async fn create(
        &self,
        owner: &Owner,
        deployment: &Deployment,
        rs: &ReplicaSet,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let key = &owner.key;
        let set_key = ObjectKey::of(rs);
        self.set_expectations.expect_creation(key, set_key.clone());
        let answer = self.sets_api(key).create(&PostParams::default(), rs).await;
        let Err(error) = answer.map_err(Error::from) else {
            let size = replicas::wanted(rs);
            if size > 0 {
                self.scaled(deployment, &set_key.name, 0, size);
            }
            return Ok(true);
        };
        self.set_expectations.observed(&set_key);
        if error.is_namespace_terminating() {
            return Ok(false);
        }
        if !error.is_already_exists() {
            let (status, message) = plan::creation_failed(deployment, &set_key.name, &error.to_string(), now);
            self.event(deployment, EventType::Warning, status::reason::CREATE_FAILED, message);
            self.update_status(owner, deployment, &status).await?;
            return Err(error);
        }
        let live = ok_if_not_found(self.sets_api(key).get(&set_key.name).await)?;
        let is_ours = live.as_ref().is_some_and(|live| {
            let controller = meta::controller_of(&live.metadata);
            controller.is_some_and(|owner| owner.uid == meta::uid(deployment))
                && history::template(live).zip(history::template(rs)).is_some_and(|(a, b)| history::same_template(a, b))
        });
        if let Some(live) = live.filter(|_| is_ours) {
            // The informer is behind; what it will show brings the key back.
            self.set_expectations.expect_write(key, &live, |key| self.sets.get(key));
            return Ok(false);
        }
        self.update_status(owner, deployment, &plan::collided(deployment)).await?;
        Err(error)
    }

    async fn update(&self, key: &ObjectKey, deployment: &Deployment, update: Update) -> Result<bool, Error> {
        let mut spec = Map::new();
        if let Some((_, size)) = update.scale {
            spec.insert("replicas".to_owned(), size.into());
        }
        if let Some(seconds) = update.min_ready_seconds {
            spec.insert("minReadySeconds".to_owned(), seconds.into());
        }
        let patch = json!({
            "metadata": { "uid": update.uid, "resourceVersion": update.version, "annotations": update.annotations },
            "spec": spec,
        });
        let answer = self.sets_api(key).patch(&update.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        let Some(written) = ok_if_not_found(answer)? else {
            return Ok(false);
        };
        self.set_expectations.expect_write(key, &written, |key| self.sets.get(key));
        if let Some((from, to)) = update.scale {
            self.scaled(deployment, &update.name, from, to);
        }
        Ok(true)
    }

    async fn update_status(
        &self,
        owner: &Owner,
        deployment: &Deployment,
        status: &DeploymentStatus,
    ) -> Result<(), Error> {
        let old = deployment.status.clone().unwrap_or_default();
        let shown = || self.deployments.get(&owner.key).and_then(|shown| meta::version(&shown.metadata));
        owner.patch_status(&self.client, (&old, status), Some((&self.own_expectations, &shown))).await
    }

    fn scaled(&self, deployment: &Deployment, name: &str, from: i32, to: i32) {
        let direction = if from < to { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
        self.event(deployment, EventType::Normal, "ScalingReplicaSet", message);
    }

    fn event(&self, deployment: &Deployment, type_: EventType, reason: &str, message: String) {
        self.recorder.event(&meta::reference(deployment), type_, reason, message);
    }

    fn sets_api(&self, key: &ObjectKey) -> Api<ReplicaSet> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }
}

fn selector(deployment: &Deployment) -> Result<LabelSelector, Error> {
    let spec = deployment.spec.as_ref();
    Ok(LabelSelector::from_object(spec.map(|spec| &spec.selector))?)
}

fn is_rolling(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().is_none_or(replicas::is_rolling)
}
