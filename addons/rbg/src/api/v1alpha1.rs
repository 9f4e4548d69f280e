//! workloads.x-k8s.io/v1alpha1: a role has a workload and a template for it.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    AdapterTarget, Component, RoleBase, RoleBasedGroupScalingAdapterStatus, RoleBasedGroupSetStatus,
    RoleBasedGroupStatus, RoleTemplate, one,
};

/// What a group consists of.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[kube(
    group = "workloads.x-k8s.io",
    version = "v1alpha1",
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
    /// The policies of the group.
    #[serde(flatten)]
    pub policies: Policies,
}

/// The policies that a group of v1alpha2 has in annotations, if at all.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Policies {
    /// How all pods of the group are scheduled together.
    pub pod_group_policy: Option<PodGroupPolicy>,
    /// How updates of roles keep pace with each other. They do not here.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub coordination: Option<Vec<Coordination>>,
}

/// How all pods of a group are scheduled together.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodGroupPolicy {
    /// By a PodGroup of the scheduler plugins.
    pub kube_scheduling: Option<KubeScheduling>,
    /// By a PodGroup of Volcano.
    pub volcano_scheduling: Option<VolcanoScheduling>,
}

/// What there is to say to the scheduler plugins.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KubeScheduling {
    /// How long pods that have a place wait for the others, in seconds.
    #[serde(default = "a_minute")]
    pub schedule_timeout_seconds: i32,
}

const fn a_minute() -> i32 {
    60
}

/// What there is to say to Volcano.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VolcanoScheduling {
    /// The PriorityClass of the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// The queue in which the group waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
}

/// How updates of some roles keep pace with each other.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct Coordination {
    /// A name for it.
    pub name: String,
    /// The roles.
    pub roles: Vec<String>,
    /// How far they may be apart.
    pub strategy: Option<CoordinationStrategy>,
}

/// How far updates may be apart.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CoordinationStrategy {
    /// In rolling updates.
    pub rolling_update: Option<CoordinatedRollingUpdate>,
}

/// How far rolling updates may be apart.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CoordinatedRollingUpdate {
    /// The largest difference of what is updated.
    #[schemars(extend("pattern" = "^([0-9]|[1-9][0-9]|100)%$"))]
    pub max_skew: Option<String>,
    /// The part of the instances that keeps the old template.
    #[schemars(extend("pattern" = "^([0-9]|[1-9][0-9]|100)%$"))]
    pub partition: Option<String>,
    /// The part of the instances that may be missing.
    #[schemars(extend("pattern" = "^([0-9]|[1-9][0-9]|100)%$"))]
    pub max_unavailable: Option<String>,
}

/// A part of the application.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[schemars(extend(
    "required" = ["name", "replicas"],
    "x-kubernetes-preserve-unknown-fields" = true,
    "x-kubernetes-validations" = [{
        "rule": "!(has(self.template) && has(self.templateRef))",
        "message": "template and templateRef are mutually exclusive",
    }],
))]
pub struct Role {
    /// What it has in each version.
    #[serde(flatten)]
    pub base: RoleBase,
    /// What it is.
    #[serde(flatten)]
    pub workload: RoleWorkload,
}

/// What a role of this version is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RoleWorkload {
    /// The kind of workload the role becomes: StatefulSet, Deployment or LeaderWorkerSet.
    #[schemars(with = "Workload", extend("default" = { "apiVersion": "apps/v1", "kind": "StatefulSet" }))]
    pub workload: Option<Workload>,
    /// The pod template.
    #[schemars(with = "Option<addons::schema::Anything>")]
    pub template: Option<Value>,
    /// A template of the group's, in its place.
    pub template_ref: Option<TemplateRef>,
    /// What is different about that: a strategic merge patch.
    #[schemars(with = "Option<addons::schema::Anything>")]
    pub template_patch: Option<Value>,
    /// Of how many pods an instance consists, where the workload is a LeaderWorkerSet.
    pub leader_worker_set: Option<LeaderWorkers>,
    /// The kinds of pods in an instance.
    pub components: Option<Vec<Component>>,
    /// What becomes of the others when a pod restarts.
    pub restart_policy: Option<RestartPolicy>,
}

/// A kind of workload.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Its group and version.
    #[serde(default = "apps_v1")]
    #[schemars(extend(
        "pattern" = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/v[0-9]+((alpha|beta)[0-9]+)?$"
    ))]
    pub api_version: String,
    /// The kind.
    #[serde(default = "stateful_set")]
    pub kind: String,
}

fn apps_v1() -> String {
    "apps/v1".to_owned()
}

fn stateful_set() -> String {
    "StatefulSet".to_owned()
}

/// A template of the group's.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct TemplateRef {
    /// Its name.
    pub name: String,
}

/// Of how many pods an instance consists.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LeaderWorkers {
    /// The number of pods, the leader included.
    #[serde(default = "one")]
    pub size: i32,
    /// What is different about the leader's template: a strategic merge patch.
    #[schemars(with = "Option<addons::schema::Anything>")]
    pub patch_leader_template: Option<Value>,
    /// What is different about the workers' template: a strategic merge patch.
    #[schemars(with = "Option<addons::schema::Anything>")]
    pub patch_worker_template: Option<Value>,
}

/// What becomes of the others when a pod restarts.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Nothing.
    None,
    /// The whole group starts anew.
    RecreateRBGOnPodRestart,
    /// The pods of its instance start anew.
    RecreateRoleInstanceOnPodRestart,
}

/// The groups of a set.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[kube(
    group = "workloads.x-k8s.io",
    version = "v1alpha1",
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
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct RoleBasedGroupSetSpec {
    /// The number of groups.
    #[serde(default = "one")]
    pub replicas: i32,
    /// What each group is.
    pub template: Option<RoleBasedGroupSpec>,
}

/// What an adapter asks for.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "workloads.x-k8s.io",
    version = "v1alpha1",
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
