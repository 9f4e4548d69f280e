//! Volcano's PodGroup and Queue: `pkg/apis/scheduling/v1beta1/types.go` in volcano-sh/apis.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of the definition of queues.
pub const QUEUES: &str = "queues.scheduling.volcano.sh";

/// The queue of a group that names none. Upstream has it always.
pub const DEFAULT_QUEUE: &str = "default";

fn default_queue() -> String {
    DEFAULT_QUEUE.to_owned()
}

fn pending() -> String {
    "Pending".to_owned()
}

const fn one() -> i32 {
    1
}

/// What a group asks for.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "scheduling.volcano.sh",
    version = "v1beta1",
    kind = "PodGroup",
    namespaced,
    shortname = "pg",
    shortname = "podgroup-v1beta1",
    status = "PodGroupStatus",
    doc = "Pods that are scheduled together or not at all.",
    printcolumn = r#"{"name":"STATUS","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"minMember","type":"integer","jsonPath":".spec.minMember"}"#,
    printcolumn = r#"{"name":"RUNNINGS","type":"integer","jsonPath":".status.running"}"#,
    printcolumn = r#"{"name":"AGE","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"QUEUE","type":"string","jsonPath":".spec.queue","priority":1}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PodGroupSpec {
    /// How many pods are scheduled together: so many, or none of them.
    pub min_member: Option<i32>,
    /// The same for each task, by its name.
    pub min_task_member: Option<BTreeMap<String, i32>>,
    /// What all of them need together: none is placed before the cluster has it.
    #[schemars(with = "Option<addons::schema::ResourceList>")]
    pub min_resources: Option<BTreeMap<String, Quantity>>,
    /// The queue in which the group waits.
    #[serde(default = "default_queue")]
    pub queue: String,
    /// The PriorityClass of the group.
    pub priority_class_name: Option<String>,
}

/// How far a group is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodGroupStatus {
    /// Pending, Inqueue, Running, Unknown or Completed.
    #[serde(default = "pending")]
    pub phase: String,
    /// Whether the group can be scheduled, and if not, why.
    pub conditions: Option<Vec<PodGroupCondition>>,
    /// How many pods run.
    pub running: Option<i32>,
    /// How many pods have succeeded.
    pub succeeded: Option<i32>,
    /// How many pods have failed.
    pub failed: Option<i32>,
}

/// A condition of a group.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodGroupCondition {
    /// Scheduled or Unschedulable.
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// True, False or Unknown.
    pub status: Option<String>,
    /// Why, in a word.
    pub reason: Option<String>,
    /// Why, in a sentence.
    pub message: Option<String>,
    /// The session of the scheduler that led to it.
    #[serde(rename = "transitionID")]
    pub transition_id: Option<String>,
    /// When it became what it is.
    pub last_transition_time: Option<Time>,
}

/// What a queue gives its groups.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "scheduling.volcano.sh",
    version = "v1beta1",
    kind = "Queue",
    shortname = "q",
    shortname = "queue-v1beta1",
    status = "QueueStatus",
    doc = "A queue in which groups of pods wait for their turn.",
    printcolumn = r#"{"name":"AGE","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {}))]
pub struct QueueSpec {
    /// What the queue may have while others want it too, in proportion to their weights.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub weight: i32,
    /// What the groups of the queue may use at most.
    #[schemars(with = "Option<addons::schema::ResourceList>")]
    pub capability: Option<BTreeMap<String, Quantity>>,
    /// Whether others may take back what the queue uses beyond its share. Nothing is taken back here.
    pub reclaimable: Option<bool>,
    /// What is kept for the queue.
    pub guarantee: Option<Guarantee>,
    /// Other clusters that the queue may use. Nothing is sent there here.
    pub extend_clusters: Option<Vec<Cluster>>,
    /// Groups of nodes that the queue prefers or avoids. Nothing is made of it here.
    pub affinity: Option<Affinity>,
}

/// What is kept for a queue.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct Guarantee {
    /// What is kept free for the queue.
    #[schemars(with = "Option<addons::schema::ResourceList>")]
    pub resource: Option<BTreeMap<String, Quantity>>,
}

/// Another cluster that a queue may use.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    /// Its name.
    pub name: Option<String>,
    /// Its weight among them.
    pub weight: Option<i32>,
    /// What it has.
    #[schemars(with = "Option<addons::schema::ResourceList>")]
    pub capacity: Option<BTreeMap<String, Quantity>>,
}

/// Groups of nodes that a queue prefers or avoids.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Affinity {
    /// Groups of nodes that its pods are placed on.
    pub node_group_affinity: Option<NodeGroups>,
    /// Groups of nodes that its pods are kept from.
    pub node_group_anti_affinity: Option<NodeGroups>,
}

/// Names of groups of nodes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeGroups {
    /// Those that must be.
    pub required_during_scheduling_ignored_during_execution: Option<Vec<String>>,
    /// Those that had better be.
    pub preferred_during_scheduling_ignored_during_execution: Option<Vec<String>>,
}

/// How a queue stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct QueueStatus {
    /// Open, Closing, Closed or Unknown.
    pub state: Option<String>,
    /// How many groups have the phase Unknown.
    pub unknown: Option<i32>,
    /// How many groups have the phase Pending.
    pub pending: Option<i32>,
    /// How many groups have the phase Running.
    pub running: Option<i32>,
    /// How many groups have the phase Inqueue.
    pub inqueue: Option<i32>,
    /// How many groups have the phase Completed.
    pub completed: Option<i32>,
    /// What is reserved for the queue.
    pub reservation: Option<Reservation>,
    /// What the groups of the queue use.
    #[schemars(with = "Option<addons::schema::ResourceList>")]
    pub allocated: Option<BTreeMap<String, Quantity>>,
}

/// What is reserved for a queue.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct Reservation {
    /// The nodes.
    pub nodes: Option<Vec<String>>,
    /// What they have.
    #[schemars(with = "Option<addons::schema::ResourceList>")]
    pub resource: Option<BTreeMap<String, Quantity>>,
}
