//! workloads.x-k8s.io/v1alpha2, as which objects are stored: a role has a pattern that says of how many pods an instance
//! consists.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    AdapterTarget, Component, RoleBase, RoleBasedGroupScalingAdapterStatus, RoleBasedGroupSetStatus,
    RoleBasedGroupStatus, RoleTemplate, one, one_or_percent, v1alpha1,
};

/// What a group consists of.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[kube(
    group = "workloads.x-k8s.io",
    version = "v1alpha2",
    kind = "RoleBasedGroup",
    namespaced,
    shortname = "rbg",
    status = "RoleBasedGroupStatus",
    doc = "An application of several roles, each a workload of its own.",
    printcolumn = r#"{"name":"READY","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name":"AGE","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct RoleBasedGroupSpec {
    /// The parts of the application.
    #[schemars(
        length(min = 1),
        extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["name"],
            "x-kubernetes-preserve-unknown-fields" = true,
        )
    )]
    pub roles: Vec<Role>,
    /// Pod templates that roles share, by name.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub role_templates: Option<Vec<RoleTemplate>>,
    /// What a group has that was written in v1alpha1.
    #[serde(flatten)]
    #[schemars(skip)]
    pub earlier: v1alpha1::Policies,
}

/// A part of the application.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend(
    "required" = ["name", "replicas"],
    "x-kubernetes-preserve-unknown-fields" = true,
    "x-kubernetes-validations" = [{
        "rule": "!(has(self.standalonePattern) && has(self.leaderWorkerPattern))",
        "message": "standalonePattern and leaderWorkerPattern are mutually exclusive",
    }],
))]
pub struct Role {
    /// What it has in each version.
    #[serde(flatten)]
    pub base: RoleBase,
    /// An instance is a pod.
    pub standalone_pattern: Option<StandalonePattern>,
    /// An instance is a leader and its workers.
    pub leader_worker_pattern: Option<LeaderWorkerPattern>,
    /// An instance is several components.
    pub custom_components_pattern: Option<CustomComponentsPattern>,
    /// Whether instances are started one after the other.
    #[serde(default)]
    pub pod_management_policy: PodManagementPolicy,
    /// What a role has that was written in v1alpha1.
    #[serde(flatten)]
    #[schemars(skip)]
    pub earlier: v1alpha1::RoleWorkload,
}

/// Whether instances are started one after the other.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodManagementPolicy {
    /// They are started at once.
    #[default]
    Parallel,
    /// Each waits for the one before it.
    OrderedReady,
}

/// An instance is a pod.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!(has(self.template) && has(self.templateRef))",
    "message": "template and templateRef are mutually exclusive",
}]))]
pub struct StandalonePattern {
    /// The pod template.
    #[schemars(with = "Option<addons::schema::Anything>")]
    pub template: Option<Value>,
    /// A template of the group's, in its place.
    pub template_ref: Option<TemplateRef>,
}

/// A template of the group's.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct TemplateRef {
    /// Its name.
    pub name: String,
    /// What is different about it: a strategic merge patch.
    #[schemars(with = "Option<addons::schema::Anything>")]
    pub patch: Option<Value>,
}

/// An instance is a leader and its workers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!(has(self.template) && has(self.templateRef))",
    "message": "template and templateRef are mutually exclusive",
}]))]
pub struct LeaderWorkerPattern {
    /// The number of pods, the leader included.
    #[serde(default = "one")]
    pub size: i32,
    /// The pod template.
    #[schemars(with = "Option<addons::schema::Anything>")]
    pub template: Option<Value>,
    /// A template of the group's, in its place.
    pub template_ref: Option<TemplateRef>,
    /// What is different about the leader's template: a strategic merge patch.
    #[schemars(with = "Option<addons::schema::Anything>")]
    pub leader_template_patch: Option<Value>,
    /// What is different about the workers' template: a strategic merge patch.
    #[schemars(with = "Option<addons::schema::Anything>")]
    pub worker_template_patch: Option<Value>,
    /// Which pods the service of the role selects.
    pub shared_service_selection: Option<ServiceSelection>,
    /// What becomes of the others when a pod restarts.
    pub restart_policy: Option<RestartPolicy>,
}

/// Which pods a service selects.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceSelection {
    /// All.
    All,
    /// Leaders.
    LeaderOnly,
}

/// An instance is several components.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CustomComponentsPattern {
    /// The kinds of pods in an instance.
    pub components: Option<Vec<Component>>,
    /// What becomes of the others when a pod restarts.
    pub restart_policy: Option<RestartPolicy>,
}

/// What becomes of the others when a pod restarts.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.maxDelaySeconds >= self.baseDelaySeconds",
    "message": "maxDelaySeconds must be greater than or equal to baseDelaySeconds",
}]))]
pub struct RestartPolicy {
    /// Whether they start anew.
    #[serde(rename = "type")]
    pub type_: Option<RestartPolicyType>,
    /// How long to wait the first time, in seconds.
    #[serde(default = "base_delay")]
    #[schemars(range(min = 0))]
    pub base_delay_seconds: i32,
    /// How long to wait at most, in seconds.
    #[serde(default = "max_delay")]
    #[schemars(range(min = 0))]
    pub max_delay_seconds: i32,
}

/// Whether the pods of an instance start anew when one restarts.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicyType {
    /// They do not.
    None,
    /// They do.
    RecreateRoleInstanceOnPodRestart,
}

const fn base_delay() -> i32 {
    30
}

const fn max_delay() -> i32 {
    600
}

/// The groups of a set.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[kube(
    group = "workloads.x-k8s.io",
    version = "v1alpha2",
    kind = "RoleBasedGroupSet",
    namespaced,
    shortname = "rbgs",
    status = "RoleBasedGroupSetStatus",
    doc = "Several RoleBasedGroups of the same kind.",
    scale = r#"{"specReplicasPath":".spec.replicas","statusReplicasPath":".status.replicas"}"#,
    printcolumn = r#"{"name":"DESIRED","type":"string","jsonPath":".status.replicas"}"#,
    printcolumn = r#"{"name":"READY","type":"string","jsonPath":".status.readyReplicas"}"#,
    printcolumn = r#"{"name":"AGE","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct RoleBasedGroupSetSpec {
    /// The number of groups.
    #[serde(default = "one")]
    pub replicas: i32,
    /// What each group is.
    pub group_template: Option<GroupTemplate>,
    /// How groups get a new template.
    pub rollout_strategy: Option<GroupRolloutStrategy>,
    /// What each group is, in a set that was written in v1alpha1: a spec of that version.
    #[schemars(skip)]
    pub template: Option<Value>,
}

/// What each group of a set is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct GroupTemplate {
    /// Labels of each group.
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations of each group.
    pub annotations: Option<BTreeMap<String, String>>,
    /// The spec of each group. It is passed on as it is, also what this version does not know.
    #[schemars(with = "RoleBasedGroupSpec")]
    pub spec: Value,
}

/// How groups get a new template.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GroupRolloutStrategy {
    /// Whether a group is made anew or changed.
    #[serde(rename = "type", default)]
    pub type_: GroupRolloutType,
    /// Groups below this index keep the old template: a number, or a percentage of replicas.
    #[serde(default)]
    #[schemars(with = "addons::schema::IntOrPercent")]
    pub partition: IntOrString,
    /// Groups that may be missing during an update: a number, or a percentage of replicas.
    #[serde(default = "one_or_percent")]
    #[schemars(with = "addons::schema::IntOrPercent")]
    pub max_unavailable: IntOrString,
    /// Groups that there may be beyond replicas during an update: a number, or a percentage of replicas.
    #[serde(default)]
    #[schemars(with = "addons::schema::IntOrPercent")]
    pub max_surge: IntOrString,
}

/// Whether a group is made anew or changed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupRolloutType {
    /// It is deleted and made anew.
    Recreate,
    /// It is changed.
    #[default]
    InPlaceUpdate,
}

/// What an adapter asks for.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "workloads.x-k8s.io",
    version = "v1alpha2",
    kind = "RoleBasedGroupScalingAdapter",
    namespaced,
    shortname = "rbgsa",
    status = "RoleBasedGroupScalingAdapterStatus",
    doc = "The scale of one role of a RoleBasedGroup, for autoscalers.",
    scale = r#"{"specReplicasPath":".spec.replicas","statusReplicasPath":".status.replicas","labelSelectorPath":".status.selector"}"#,
    printcolumn = r#"{"name":"PHASE","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"REPLICAS","type":"integer","jsonPath":".status.replicas"}"#,
    printcolumn = r#"{"name":"READY_REPLICAS","type":"integer","jsonPath":".status.readyReplicas"}"#,
    printcolumn = r#"{"name":"AGE","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct RoleBasedGroupScalingAdapterSpec {
    /// The number of instances the role is to have.
    pub replicas: Option<i32>,
    /// The group and its role.
    pub scale_target_ref: AdapterTarget,
}
