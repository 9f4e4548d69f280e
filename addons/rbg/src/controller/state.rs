//! How the workload of a role stands, whatever its kind.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use serde_json::Value;

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
    pub(crate) replicas: i32,
    /// How many are ready.
    pub(crate) ready: i32,
    /// How many are of the present template.
    pub(crate) updated: i32,
    /// Whether its controller has seen what it is asked for.
    pub(crate) settled: bool,
}

impl State {
    fn new(workload: Workload, metadata: &ObjectMeta, replicas: i32, seen: Option<i64>, counts: [i32; 2]) -> Self {
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
        let counts = [status.ready_replicas, status.updated_replicas].map(Option::unwrap_or_default);
        let replicas = it.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        Self::new(Workload::Deployment, &it.metadata, replicas, status.observed_generation, counts)
    }

    /// That of a StatefulSet.
    pub(crate) fn of_stateful_set(it: &StatefulSet) -> Self {
        let status = it.status.clone().unwrap_or_default();
        let counts = [status.ready_replicas, status.updated_replicas].map(Option::unwrap_or_default);
        let replicas = it.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        Self::new(Workload::StatefulSet, &it.metadata, replicas, status.observed_generation, counts)
    }

    /// That of a LeaderWorkerSet.
    pub(crate) fn of_leader_worker_set(it: &DynamicObject) -> Self {
        let status = &it.data["status"];
        let number = |value: &Value| value.as_i64().and_then(|number| i32::try_from(number).ok());
        let counts = ["readyReplicas", "updatedReplicas"].map(|field| number(&status[field]).unwrap_or_default());
        let replicas = number(&it.data["spec"]["replicas"]).unwrap_or(1);
        Self::new(Workload::LeaderWorkerSet, &it.metadata, replicas, status["observedGeneration"].as_i64(), counts)
    }

    /// Whether all is there that is `wanted`.
    pub(crate) fn is_ready(&self, wanted: i32) -> bool {
        self.settled && self.replicas == wanted && self.ready >= wanted
    }
}
