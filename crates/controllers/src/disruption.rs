//! PodDisruptionBudgets: how many Pods may be evicted now.
//!
//! Watches PodDisruptionBudgets, Pods and what controls them; owns the status of the budgets, which the eviction API
//! charges. The decision is [`plan::plan`]; this file carries it out.

pub(crate) mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use informer::{Action, Change, Informer, ObjectKey, Recorder, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DynamicObject, GroupVersionKind, TypeMeta};
use kube::{Client, discovery};
use machinery::selector::LabelSelector;

use self::plan::Snapshot;
use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::expectations::{EXPECTATIONS_TIMEOUT, Expectations};
use crate::meta;
use crate::owner::Owner;
use crate::pods;

/// The controller of PodDisruptionBudgets.
pub(crate) struct Disruptions {
    client: Client,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    sets: Informer<ReplicaSet>,
    deployments: Informer<Deployment>,
    stateful: Informer<StatefulSet>,
    controllers: Informer<ReplicationController>,
    recorder: Recorder,
    queue: WorkQueue<ObjectKey>,
    expectations: Expectations,
}

impl Controller for Disruptions {
    const NAME: &'static str = "disruption";
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        let (budgets, pods) = (context.informer::<PodDisruptionBudget>(), context.informer::<Pod>());
        budgets.index(meta::BY_NAMESPACE, meta::namespaces);
        pods.index(meta::BY_NAMESPACE, meta::namespaces);
        pods.index(pods::BY_LABEL, pods::label_values);
        Self {
            expectations: context.expectations(&budgets),
            budgets,
            pods,
            sets: context.informer(),
            deployments: context.informer(),
            stateful: context.informer(),
            controllers: context.informer(),
            recorder: context.recorder("controllermanager"),
            client: context.client.clone(),
            queue,
        }
    }

    fn watch(self: &Arc<Self>) {
        let controller = Arc::clone(self);
        self.budgets.on_change(move |change| {
            controller.expectations.observe(change);
            controller.queue.add_changed(change);
        });
        let controller = Arc::clone(self);
        self.pods.on_change(move |change| {
            if matters(change) {
                controller.enqueue_budgets(change);
            }
        });
        // The sizes of owners are learned when Pods come and go, which they do when a size changes.
    }

    async fn synced(&self) {
        self.budgets.synced().await;
        self.pods.synced().await;
        self.sets.synced().await;
        self.deployments.synced().await;
        self.stateful.synced().await;
        self.controllers.synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(budget) = self.budgets.get(key) else {
            self.expectations.forget(key);
            return Ok(Action::AwaitChange.because("the budget is gone"));
        };
        if !self.expectations.satisfied(key).await {
            // The event that shows the write brings the key back.
            return Ok(Action::RequeueAfter(EXPECTATIONS_TIMEOUT).because("its own last write is not shown yet"));
        }
        let owner = Owner::of(&*budget);
        let snapshot = self.snapshot(&budget).await?;
        let plan = plan::plan(&snapshot, &budget, Timestamp::now());
        for (type_, reason, message) in &plan.events {
            self.recorder.event(&owner.reference, *type_, *reason, message.clone());
        }
        let old = budget.status.clone().unwrap_or_default();
        let shown = || self.budgets.get(key).and_then(|budget| meta::version(&budget.metadata));
        // An eviction may have charged the budget meanwhile: then it is another version, and looked at again.
        owner.patch_status(&self.client, (&old, &plan.status), Some((&self.expectations, &shown))).await?;
        Ok(plan.requeue_after.into())
    }
}

impl Disruptions {
    fn enqueue_budgets(&self, change: &Change<Pod>) {
        for pod in [&change.old, &change.new].into_iter().flatten() {
            let labels = pod.metadata.labels.clone().unwrap_or_default();
            for budget in self.budgets.by_index(meta::BY_NAMESPACE, meta::namespace(&**pod)) {
                if selector(&budget).is_ok_and(|selector| selector.matches(&labels)) {
                    self.queue.add(ObjectKey::of(&*budget), change.cause());
                }
            }
        }
    }

    async fn snapshot(&self, budget: &PodDisruptionBudget) -> Result<Snapshot, Error> {
        let selector = selector(budget)?;
        let namespace = meta::namespace(budget);
        let by_label = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let one_label = by_label.and_then(|selector| selector.match_labels.as_ref()?.iter().next());
        let mut pods = match one_label {
            Some((key, value)) => self.pods.by_index(pods::BY_LABEL, &pods::label_value(namespace, key, value)),
            None => self.pods.by_index(meta::BY_NAMESPACE, namespace),
        };
        pods.retain(|pod| selector.matches(pod.metadata.labels.as_ref().unwrap_or(&BTreeMap::new())));
        let mut snapshot = Snapshot { pods, scales: Ok(BTreeMap::new()), unmanaged: Vec::new() };
        if !plan::needs_scales(budget) {
            return Ok(snapshot);
        }
        let mut scales = BTreeMap::new();
        let mut failure = None;
        for pod in &snapshot.pods {
            let Some(controller) = meta::controller_of(&pod.metadata) else {
                snapshot.unmanaged.push(meta::name(&**pod).to_owned());
                continue;
            };
            if scales.contains_key(&controller.uid) {
                continue;
            }
            match self.scale(namespace, controller).await? {
                Some((uid, size)) => {
                    scales.insert(uid, size);
                }
                None => {
                    let kind = &controller.kind;
                    failure =
                        Some(format!("found no controllers for pod {:?}: {kind} has no scale", meta::name(&**pod)));
                }
            }
        }
        snapshot.scales = failure.map_or(Ok(scales), Err);
        Ok(snapshot)
    }

    /// The size of what controls a Pod, with the UID of what has that size: for a ReplicaSet its Deployment.
    async fn scale(&self, namespace: &str, controller: &OwnerReference) -> Result<Option<(String, i32)>, Error> {
        let key = ObjectKey::new(namespace, &controller.name);
        let is_it = |uid: &str| uid == controller.uid;
        match (controller.api_version.as_str(), controller.kind.as_str()) {
            ("apps/v1", "ReplicaSet") => {
                let Some(set) = self.sets.get(&key).filter(|set| is_it(meta::uid(&**set))) else { return Ok(None) };
                let deployment = meta::controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment");
                let deployment =
                    deployment.and_then(|owner| self.deployments.get(&ObjectKey::new(namespace, &owner.name)));
                Ok(Some(match deployment {
                    Some(deployment) => {
                        let size = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                        (meta::uid(&*deployment).to_owned(), size)
                    }
                    None => (controller.uid.clone(), set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)),
                }))
            }
            ("apps/v1", "StatefulSet") => {
                let set = self.stateful.get(&key).filter(|set| is_it(meta::uid(&**set)));
                let size = |set: Arc<StatefulSet>| set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                Ok(set.map(|set| (controller.uid.clone(), size(set))))
            }
            ("v1", "ReplicationController") => {
                let set = self.controllers.get(&key).filter(|set| is_it(meta::uid(&**set)));
                let size =
                    |set: Arc<ReplicationController>| set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                Ok(set.map(|set| (controller.uid.clone(), size(set))))
            }
            _ => self.scale_of_other(namespace, controller).await,
        }
    }

    /// Any other kind is asked for its scale, if it has one.
    async fn scale_of_other(
        &self,
        namespace: &str,
        controller: &OwnerReference,
    ) -> Result<Option<(String, i32)>, Error> {
        let types = TypeMeta { api_version: controller.api_version.clone(), kind: controller.kind.clone() };
        let Ok(kind) = GroupVersionKind::try_from(&types) else { return Ok(None) };
        let Ok((resource, _)) = discovery::oneshot::pinned_kind(&self.client, &kind).await else { return Ok(None) };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let scale = ok_if_not_found(api.get_scale(&controller.name).await)?;
        let size = scale.and_then(|scale| scale.spec?.replicas);
        Ok(size.map(|size| (controller.uid.clone(), size)))
    }
}

fn selector(budget: &PodDisruptionBudget) -> Result<LabelSelector, Error> {
    Ok(LabelSelector::from_object(budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()))?)
}

/// Whether a change of a Pod matters to its budget.
fn matters(change: &Change<Pod>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else {
        return true;
    };
    old.metadata.labels != new.metadata.labels
        || meta::is_deleting(&**old) != meta::is_deleting(&**new)
        || pods::is_ready(old) != pods::is_ready(new)
        || pods::is_finished(old) != pods::is_finished(new)
}
