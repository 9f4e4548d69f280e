//! How the workload of a role stands, whatever its kind.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;

use super::role::Workload;

/// How the workload of a role stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    /// What it is.
    pub(crate) workload: Workload,
    /// Its UID.
    pub(crate) uid: String,
    /// Since when it is there.
    pub(crate) created: Timestamp,
    /// How many replicas it is asked for.
    pub(crate) replicas: i64,
    /// How many are ready.
    pub(crate) ready: i64,
    /// How many are of the present template.
    pub(crate) updated: i64,
    /// Whether its controller has seen what it is asked for.
    pub(crate) settled: bool,
}

impl State {
    fn new(workload: Workload, metadata: &ObjectMeta, replicas: i64, seen: Option<i64>, counts: [i64; 2]) -> Self {
        Self {
            workload,
            uid: metadata.uid.clone().unwrap_or_default(),
            created: metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            replicas,
            ready: counts[0],
            updated: counts[1],
            settled: seen >= metadata.generation,
        }
    }

    /// That of a Deployment.
    pub(crate) fn of_deployment(it: &Deployment) -> Self {
        let status = it.status.clone().unwrap_or_default();
        let counts = [status.ready_replicas, status.updated_replicas].map(|count| i64::from(count.unwrap_or_default()));
        let replicas = it.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        Self::new(Workload::Deployment, &it.metadata, replicas.into(), status.observed_generation, counts)
    }

    /// That of a StatefulSet.
    pub(crate) fn of_stateful_set(it: &StatefulSet) -> Self {
        let status = it.status.clone().unwrap_or_default();
        let counts = [status.ready_replicas, status.updated_replicas].map(|count| i64::from(count.unwrap_or_default()));
        let replicas = it.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        Self::new(Workload::StatefulSet, &it.metadata, replicas.into(), status.observed_generation, counts)
    }

    /// That of a LeaderWorkerSet.
    pub(crate) fn of_leader_worker_set(it: &DynamicObject) -> Self {
        let status = &it.data["status"];
        let counts = ["readyReplicas", "updatedReplicas"].map(|field| status[field].as_i64().unwrap_or_default());
        let replicas = it.data["spec"]["replicas"].as_i64().unwrap_or(1);
        Self::new(Workload::LeaderWorkerSet, &it.metadata, replicas, status["observedGeneration"].as_i64(), counts)
    }

    /// Whether all is there that is `wanted`.
    pub(crate) fn is_ready(&self, wanted: i64) -> bool {
        self.settled && self.replicas == wanted && self.ready >= wanted
    }
}
