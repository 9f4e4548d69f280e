//! The LeaderWorkerSet: `api/leaderworkerset/v1/leaderworkerset_types.go` in kubernetes-sigs/lws.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::CustomResource;
use machinery::int_or_string;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The groups that a set asks for.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[kube(
    group = "leaderworkerset.x-k8s.io",
    version = "v1",
    kind = "LeaderWorkerSet",
    namespaced,
    shortname = "lws",
    status = "LeaderWorkerSetStatus",
    doc = "Groups of pods, each of a leader and its workers, replicated as one.",
    scale = r#"{"specReplicasPath":".spec.replicas","statusReplicasPath":".status.replicas","labelSelectorPath":".status.hpaPodSelector"}"#,
    printcolumn = r#"{"name":"Ready","type":"integer","jsonPath":".status.readyReplicas"}"#,
    printcolumn = r#"{"name":"Desired","type":"integer","jsonPath":".spec.replicas"}"#,
    printcolumn = r#"{"name":"Up-to-date","type":"integer","jsonPath":".status.updatedReplicas"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct LeaderWorkerSetSpec {
    /// The number of groups.
    #[serde(default = "one")]
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// What each group consists of.
    pub leader_worker_template: LeaderWorkerTemplate,
    /// How groups get a new template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout_strategy: Option<RolloutStrategy>,
    /// When workers start: once their leader is created, or once it is ready.
    #[serde(default)]
    pub startup_policy: StartupPolicy,
    /// How pods of a group find each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_config: Option<NetworkConfig>,
}

/// What a group consists of.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
// Upstream's webhook refuses the same, in the same words and at the same places (`pkg/webhooks/leaderworkerset_webhook.go`).
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.subGroupPolicy) || !has(self.subGroupPolicy.subGroupSize) || \
                 self.subGroupPolicy.subGroupSize <= self.size",
        "message": "subGroupSize cannot be larger than size",
        "fieldPath": ".subGroupPolicy.subGroupSize",
    },
    {
        "rule": "!has(self.subGroupPolicy) || !has(self.subGroupPolicy.subGroupSize) || \
                 self.subGroupPolicy.subGroupSize > self.size || \
                 (self.size - 1) % self.subGroupPolicy.subGroupSize == 0 || \
                 self.subGroupPolicy.subGroupPolicyType != 'LeaderExcluded' && \
                 self.size % self.subGroupPolicy.subGroupSize == 0",
        "message": "size or size - 1 must be divisible by subGroupSize",
        "fieldPath": ".subGroupPolicy.subGroupSize",
    },
]))]
pub struct LeaderWorkerTemplate {
    /// The pod template of leaders; that of the workers where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<addons::schema::Anything>")]
    pub leader_template: Option<Value>,
    /// The pod template of workers.
    #[schemars(with = "addons::schema::Anything")]
    pub worker_template: Value,
    /// The number of pods in a group, its leader included.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub size: i32,
    /// What becomes of a group when one of its pods fails.
    #[serde(default)]
    pub restart_policy: RestartPolicy,
    /// How the pods of a group are divided further.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_group_policy: Option<SubGroupPolicy>,
    /// The PersistentVolumeClaims of each leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<addons::schema::Anything>>")]
    pub volume_claim_templates: Option<Vec<Value>>,
    /// What becomes of these claims when their leader goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim_retention_policy: Option<ClaimRetentionPolicy>,
}

/// What becomes of a group when one of its pods fails.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    /// As None: what is left of an earlier version of the API.
    Default,
    /// The group starts anew.
    #[default]
    RecreateGroupOnPodRestart,
    /// The group starts anew if all of its pods have been started before.
    RecreateGroupAfterStart,
    /// The pod is restarted by itself.
    None,
}

/// When workers start.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartupPolicy {
    /// Once their leader is there.
    #[default]
    LeaderCreated,
    /// Once their leader is ready.
    LeaderReady,
}

/// How the pods of a group are divided further.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SubGroupPolicy {
    /// Whether the leader counts.
    #[serde(default)]
    pub sub_group_policy_type: SubGroupPolicyType,
    /// The number of pods in a subgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub sub_group_size: Option<i32>,
}

/// Whether a leader is in a subgroup.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubGroupPolicyType {
    /// It is in the first.
    #[default]
    LeaderWorker,
    /// It is in none.
    LeaderExcluded,
}

impl SubGroupPolicyType {
    /// As the API has it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::LeaderWorker => "LeaderWorker",
            Self::LeaderExcluded => "LeaderExcluded",
        }
    }
}

/// What becomes of the claims of leaders: as in a StatefulSet.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRetentionPolicy {
    /// When the set is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_deleted: Option<ClaimRetention>,
    /// When the leader's group is scaled away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_scaled: Option<ClaimRetention>,
}

/// What becomes of a claim.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimRetention {
    /// It stays.
    Retain,
    /// It is deleted.
    Delete,
}

/// How groups get a new template.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["type"]))]
pub struct RolloutStrategy {
    /// The kind of rollout.
    #[serde(rename = "type", default)]
    pub type_: RolloutStrategyType,
    /// The bounds of a rolling update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolling_update_configuration: Option<RollingUpdate>,
}

/// The kinds of rollout.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RolloutStrategyType {
    /// A few groups at a time.
    #[default]
    RollingUpdate,
}

/// The bounds of a rolling update.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!((has(self.maxUnavailable) && (self.maxUnavailable == 0 || self.maxUnavailable == '0%')) && \
             (has(self.maxSurge) && (self.maxSurge == 0 || self.maxSurge == '0%')))",
    "message": "must not be 0 when `maxSurge` is 0",
    "fieldPath": ".maxUnavailable",
}]))]
pub struct RollingUpdate {
    /// Groups below this index keep the old template.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub partition: i32,
    /// Groups that may be missing during an update: a number, or a percentage of replicas, rounded down.
    #[serde(default = "one_or_percent")]
    #[schemars(with = "addons::schema::IntOrPercent")]
    pub max_unavailable: IntOrString,
    /// Groups that there may be beyond replicas during an update: a number, or a percentage of replicas, rounded up.
    #[serde(default)]
    #[schemars(with = "addons::schema::IntOrPercent")]
    pub max_surge: IntOrString,
}

/// How pods of a group find each other.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NetworkConfig {
    /// One headless service for all groups, or one for each.
    pub subdomain_policy: SubdomainPolicy,
}

/// Whose a headless service is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubdomainPolicy {
    /// That of all groups.
    Shared,
    /// That of one group.
    UniquePerReplica,
}

/// How a set stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LeaderWorkerSetStatus {
    /// Available, Progressing and UpdateInProgress.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<addons::schema::Conditions>")]
    pub conditions: Option<Vec<Condition>>,
    /// How many groups there are, ready or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// How many groups are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// How many groups are of the present template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_replicas: Option<i32>,
    /// The label selector of the pods that an autoscaler looks at: the leaders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hpa_pod_selector: Option<String>,
    /// The generation that this is the status of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

const fn one() -> i32 {
    1
}

const fn one_or_percent() -> IntOrString {
    IntOrString::Int(1)
}

impl LeaderWorkerSetSpec {
    /// The leader's template: the workers' one, if it has none of its own.
    pub(crate) fn leader_template(&self) -> &Value {
        let template = &self.leader_worker_template;
        template.leader_template.as_ref().unwrap_or(&template.worker_template)
    }

    /// Whether each group has a subdomain of its own.
    pub(crate) fn has_own_subdomains(&self) -> bool {
        let policy = self.network_config.as_ref().map(|config| config.subdomain_policy);
        policy == Some(SubdomainPolicy::UniquePerReplica)
    }

    /// The policy for subgroups: how they count, and their size.
    pub(crate) fn subgroups(&self) -> Option<(SubGroupPolicyType, i32)> {
        let policy = self.leader_worker_template.sub_group_policy.as_ref()?;
        Some((policy.sub_group_policy_type, policy.sub_group_size?))
    }

    fn rolling_update(&self) -> Option<&RollingUpdate> {
        self.rollout_strategy.as_ref()?.rolling_update_configuration.as_ref()
    }

    /// Groups below this one are not updated.
    pub(crate) fn partition(&self) -> i32 {
        self.rolling_update().map_or(0, |rolling| rolling.partition)
    }

    /// The bounds of a rollout in groups: how many may be unavailable, and how many there may be beyond `replicas`.
    pub(crate) fn bounds(&self) -> (i32, i32) {
        let (mut unavailable, mut surge) = (1, 0);
        if let Some(rolling) = self.rolling_update() {
            let scaled = |value, up| int_or_string::scaled(value, self.replicas, up).ok();
            unavailable = scaled(&rolling.max_unavailable, false).unwrap_or(1).max(0);
            surge = scaled(&rolling.max_surge, true).unwrap_or_default().clamp(0, self.replicas);
        }
        // With neither, no rollout could ever begin.
        (if surge == 0 { unavailable.max(1) } else { unavailable }, surge)
    }

    /// What a ControllerRevision keeps: that which makes pods different.
    pub(crate) fn revision_data(&self) -> Value {
        let mut template = json!(self.leader_worker_template);
        template["$patch"] = "replace".into();
        json!({ "spec": { "leaderWorkerTemplate": template, "networkConfig": self.network_config } })
    }

    /// The groups that a ControllerRevision with this data asks for.
    pub(crate) fn of_revision(data: &Value) -> Option<Self> {
        Self::deserialize(&data["spec"]).ok()
    }
}
