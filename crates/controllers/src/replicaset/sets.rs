//! ReplicaSets and ReplicationControllers as one: the older kind is looked at as if it were the newer one.

use std::sync::Arc;

use informer::{Change, Informer, Informers, Object, ObjectKey, WorkQueue};
use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::controller::Context;
use crate::expectations::Expectations;
use crate::meta;
use crate::owner::Owner;

/// All objects of one of the two kinds.
pub(crate) enum Sets {
    /// apps/v1 ReplicaSet.
    ReplicaSets(Informer<ReplicaSet>),
    /// core/v1 ReplicationController.
    Controllers(Informer<ReplicationController>),
}

impl Sets {
    /// The ReplicaSets.
    pub(super) fn replica_sets(informers: &Informers) -> Self {
        let sets = informers.informer::<ReplicaSet>();
        sets.index(meta::BY_NAMESPACE, meta::namespaces);
        sets.index(meta::BY_CONTROLLER, meta::controller_uids);
        Self::ReplicaSets(sets)
    }

    /// The ReplicationControllers.
    pub(super) fn controllers(informers: &Informers) -> Self {
        let sets = informers.informer::<ReplicationController>();
        sets.index(meta::BY_NAMESPACE, meta::namespaces);
        sets.index(meta::BY_CONTROLLER, meta::controller_uids);
        Self::Controllers(sets)
    }

    /// The kind, as owner references name it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::ReplicaSets(_) => "ReplicaSet",
            Self::Controllers(_) => "ReplicationController",
        }
    }

    /// The object with this key, and how it owns others.
    pub(super) fn get(&self, key: &ObjectKey) -> Option<(Arc<ReplicaSet>, Owner)> {
        match self {
            Self::ReplicaSets(sets) => sets.get(key).map(|set| (Arc::clone(&set), Owner::of(&*set))),
            Self::Controllers(sets) => sets.get(key).map(|set| (Arc::new(view(&set)), Owner::of(&*set))),
        }
    }

    /// The objects that an index has under `value`.
    pub(super) fn by_index(&self, index: &'static str, value: &str) -> Vec<Arc<ReplicaSet>> {
        match self {
            Self::ReplicaSets(sets) => sets.by_index(index, value),
            Self::Controllers(sets) => sets.by_index(index, value).iter().map(|set| Arc::new(view(set))).collect(),
        }
    }

    /// What is written to these sets.
    pub(super) fn expectations(&self, context: &Context) -> Expectations {
        match self {
            Self::ReplicaSets(sets) => context.expectations(sets),
            Self::Controllers(sets) => context.expectations(sets),
        }
    }

    /// The version at which the object with this key is shown.
    pub(super) fn version(&self, key: &ObjectKey) -> Option<u64> {
        match self {
            Self::ReplicaSets(sets) => sets.get(key).and_then(|set| meta::version(&set.metadata)),
            Self::Controllers(sets) => sets.get(key).and_then(|set| meta::version(&set.metadata)),
        }
    }

    /// Enqueues every object that changes, after `expectations` has observed the change.
    pub(super) fn watch(&self, queue: &WorkQueue<ObjectKey>, expectations: &Arc<Expectations>) {
        match self {
            Self::ReplicaSets(sets) => watch(sets, queue, expectations),
            Self::Controllers(sets) => watch(sets, queue, expectations),
        }
    }

    /// Waits until all objects are known.
    pub(super) async fn synced(&self) {
        match self {
            Self::ReplicaSets(sets) => sets.synced().await,
            Self::Controllers(sets) => sets.synced().await,
        }
    }
}

/// Changes of the status alone count too: whoever writes one of these, the controller itself or somebody else, it must
/// come to what the Pods say.
fn watch<K>(sets: &Informer<K>, queue: &WorkQueue<ObjectKey>, expectations: &Arc<Expectations>)
where
    K: Object<DynamicType = ()> + Metadata<Ty = ObjectMeta>,
{
    let (queue, expectations) = (queue.clone(), Arc::clone(expectations));
    sets.on_change(move |change: &Change<K>| {
        expectations.observe(change);
        queue.add_changed(change);
    });
}

fn view(controller: &ReplicationController) -> ReplicaSet {
    let spec = controller.spec.clone().unwrap_or_default();
    let status = controller.status.clone().unwrap_or_default();
    let conditions = status.conditions.map(|conditions| {
        let same = conditions.into_iter().map(|condition| ReplicaSetCondition {
            type_: condition.type_,
            status: condition.status,
            last_transition_time: condition.last_transition_time,
            reason: condition.reason,
            message: condition.message,
        });
        same.collect()
    });
    ReplicaSet {
        metadata: controller.metadata.clone(),
        spec: Some(ReplicaSetSpec {
            replicas: spec.replicas,
            min_ready_seconds: spec.min_ready_seconds,
            selector: LabelSelector { match_labels: spec.selector, match_expressions: None },
            template: spec.template,
        }),
        status: Some(ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            conditions,
            terminating_replicas: None,
        }),
    }
}
