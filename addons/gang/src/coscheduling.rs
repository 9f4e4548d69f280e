//! The PodGroup of the scheduler plugins: `apis/scheduling/v1alpha1/types.go` in kubernetes-sigs/scheduler-plugins.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a group asks for.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "scheduling.x-k8s.io",
    version = "v1alpha1",
    kind = "PodGroup",
    namespaced,
    shortname = "pg",
    shortname = "pgs",
    status = "PodGroupStatus",
    doc = "Pods that are scheduled together or not at all.",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"MinMember","type":"integer","jsonPath":".spec.minMember"}"#,
    printcolumn = r#"{"name":"Running","type":"string","jsonPath":".status.running"}"#,
    printcolumn = r#"{"name":"Succeeded","type":"string","jsonPath":".status.succeeded"}"#,
    printcolumn = r#"{"name":"Failed","type":"string","jsonPath":".status.failed"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PodGroupSpec {
    /// How many pods are scheduled together: so many, or none of them.
    pub min_member: Option<i32>,
    /// What all of them need together: none is placed before the cluster has it.
    #[schemars(with = "Option<addons::schema::ResourceList>")]
    pub min_resources: Option<BTreeMap<String, Quantity>>,
    /// How long pods that have a place wait for the others, in seconds.
    pub schedule_timeout_seconds: Option<i32>,
}

/// How far a group is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodGroupStatus {
    /// Pending, Scheduling, Scheduled, Running, Finished or Failed.
    pub phase: Option<String>,
    /// The workload whose pods these are.
    pub occupied_by: Option<String>,
    /// How many pods run.
    pub running: Option<i32>,
    /// How many pods have succeeded.
    pub succeeded: Option<i32>,
    /// How many pods have failed.
    pub failed: Option<i32>,
    /// When enough pods were there to begin.
    pub schedule_start_time: Option<Time>,
}
