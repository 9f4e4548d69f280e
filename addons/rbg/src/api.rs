//! The kinds of workloads.x-k8s.io: `api/workloads` in sgl-project/rbg, versions v1alpha1 and v1alpha2.
//!
//! Objects are stored as v1alpha2. What only v1alpha1 has is kept all the same, since roles and specs keep what they do not
//! know: a role with a `workload` was written in v1alpha1, one without says by its pattern and annotations what it is. So the
//! types of v1alpha2, which the controllers read, have the fields of v1alpha1 too; their schema has not.

pub mod v1alpha1;
pub mod v1alpha2;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a role has in each version.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RoleBase {
    /// The name of the role.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Labels of what the role becomes.
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations of what the role becomes.
    pub annotations: Option<BTreeMap<String, String>>,
    /// How many instances of the role there are.
    #[serde(default = "one")]
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// How instances get a new template.
    pub rollout_strategy: Option<RolloutStrategy>,
    /// Roles that must be ready before this one starts.
    pub dependencies: Option<Vec<String>>,
    /// The ports of the role's service.
    #[schemars(with = "Option<Vec<addons::schema::Anything>>")]
    pub service_ports: Option<Vec<Value>>,
    /// Containers to put into its pods. Nothing is put into them here.
    pub engine_runtimes: Option<Vec<EngineRuntime>>,
    /// Whether the role can be scaled by itself.
    pub scaling_adapter: Option<ScalingAdapter>,
    /// How long a pod must be ready to count as available, in seconds.
    #[serde(default)]
    pub min_ready_seconds: i32,
}

/// How instances of a role get a new template.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["type"]))]
pub struct RolloutStrategy {
    /// The kind of rollout.
    #[serde(rename = "type", default)]
    pub type_: RolloutStrategyType,
    /// The bounds of a rolling update.
    pub rolling_update: Option<RollingUpdate>,
}

/// The kinds of rollout.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RolloutStrategyType {
    /// A few instances at a time.
    #[default]
    RollingUpdate,
}

/// The bounds of a rolling update.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RollingUpdate {
    /// The kind of update.
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// Instances below this index keep the old template: a number, or a percentage of replicas.
    #[serde(default)]
    #[schemars(with = "addons::schema::IntOrPercent")]
    pub partition: IntOrString,
    /// Instances that may be missing during an update: a number, or a percentage of replicas.
    #[serde(default = "one_or_percent")]
    #[schemars(with = "addons::schema::IntOrPercent")]
    pub max_unavailable: IntOrString,
    /// Instances that there may be beyond replicas during an update: a number, or a percentage of replicas.
    #[serde(default)]
    #[schemars(with = "addons::schema::IntOrPercent")]
    pub max_surge: IntOrString,
    /// Whether the update is halted.
    pub paused: Option<bool>,
    /// How pods are updated where they are.
    pub in_place_update_strategy: Option<InPlaceUpdateStrategy>,
}

/// How pods are updated where they are.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct InPlaceUpdateStrategy {
    /// For how long a pod is out of service before, in seconds.
    pub grace_period_seconds: Option<i32>,
}

/// Containers to put into the pods of a role.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EngineRuntime {
    /// The profile that has the containers.
    pub profile_name: String,
    /// Which of them.
    pub inject_containers: Option<Vec<String>>,
    /// What is different about them.
    #[schemars(with = "Option<Vec<addons::schema::Anything>>")]
    pub containers: Option<Vec<Value>>,
}

/// Whether a role can be scaled by itself.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct ScalingAdapter {
    /// Whether it has a RoleBasedGroupScalingAdapter.
    #[serde(default)]
    pub enable: bool,
    /// Labels of that.
    pub labels: Option<BTreeMap<String, String>>,
}

/// One of several kinds of pods in an instance of a role.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// The name of the component.
    pub name: String,
    /// How many pods of it there are in an instance.
    pub size: Option<i32>,
    /// The name of its service.
    pub service_name: Option<String>,
    /// Labels of its pods.
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations of its pods.
    pub annotations: Option<BTreeMap<String, String>>,
    /// Its pod template.
    #[schemars(with = "addons::schema::Anything")]
    pub template: Value,
}

/// A pod template that roles share.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct RoleTemplate {
    /// Its name.
    #[schemars(length(min = 1, max = 63), extend("pattern" = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The pod template.
    #[schemars(with = "addons::schema::Anything")]
    pub template: Value,
}

/// How a group stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RoleBasedGroupStatus {
    /// The generation that this is the status of.
    pub observed_generation: Option<i64>,
    /// Ready and RestartInProgress.
    #[schemars(with = "Option<addons::schema::Conditions>")]
    pub conditions: Option<Vec<Condition>>,
    /// The state of each role.
    pub role_statuses: Vec<RoleStatus>,
}

/// How a role stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RoleStatus {
    /// The name of the role.
    pub name: String,
    /// How many instances are ready.
    pub ready_replicas: i32,
    /// How many instances are asked of its workload.
    pub replicas: i32,
    /// How many instances are of the present template.
    pub updated_replicas: i32,
}

/// How a set stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RoleBasedGroupSetStatus {
    /// The generation that this is the status of.
    pub observed_generation: Option<i64>,
    /// How many groups there are.
    pub replicas: Option<i32>,
    /// How many of them are ready.
    pub ready_replicas: Option<i32>,
    /// How many of them are of an earlier template.
    pub current_replicas: Option<i32>,
    /// How many of them are of the present template.
    pub updated_replicas: Option<i32>,
    /// How many of the present template are ready.
    pub updated_ready_replicas: Option<i32>,
    /// How many are to be of the present template once the update is over.
    pub expected_updated_replicas: Option<i32>,
    /// The hash of the template that all groups had last.
    pub current_revision: Option<String>,
    /// The hash of the present template.
    pub update_revision: Option<String>,
    /// Ready.
    #[schemars(with = "Option<addons::schema::Conditions>")]
    pub conditions: Option<Vec<Condition>>,
}

/// The role that an adapter scales.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct AdapterTarget {
    /// The name of the group.
    pub name: String,
    /// The name of its role.
    pub role: String,
}

/// How an adapter stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RoleBasedGroupScalingAdapterStatus {
    /// Bound, once it scales its role.
    pub phase: Option<String>,
    /// How many instances the role is asked for.
    pub replicas: Option<i32>,
    /// How many instances are ready.
    pub ready_replicas: Option<i32>,
    /// The label selector of the pods that an autoscaler looks at.
    pub selector: Option<String>,
    /// When the role was scaled last.
    pub last_scale_time: Option<Time>,
    /// Nothing says any here.
    #[schemars(with = "Option<addons::schema::Conditions>")]
    pub conditions: Option<Vec<Condition>>,
}

const fn one() -> i32 {
    1
}

const fn one_or_percent() -> IntOrString {
    IntOrString::Int(1)
}
