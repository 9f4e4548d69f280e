//! The conditions of a status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::names::CONDITION_TYPE;

/// Conditions by their type.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(transparent)]
#[schemars(extend(
    "maxItems" = 8,
    "x-kubernetes-list-type" = "map",
    "x-kubernetes-list-map-keys" = ["type"],
))]
pub struct Conditions(pub Vec<Condition>);

/// One thing that is so, or is not: `metav1.Condition`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    #[schemars(extend("maxLength" = 316, "pattern" = CONDITION_TYPE))]
    pub type_: String,
    /// Whether it is so: True, False or Unknown.
    pub status: ConditionStatus,
    /// Why, in a word.
    #[schemars(extend("minLength" = 1, "maxLength" = 1024, "pattern" = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"))]
    pub reason: String,
    /// Why, in a sentence.
    #[schemars(extend("maxLength" = 32768))]
    pub message: String,
    /// When it became what it is.
    pub last_transition_time: Time,
    /// The generation of the object that was looked at.
    #[schemars(extend("minimum" = 0))]
    pub observed_generation: Option<i64>,
}

/// Whether a condition is so.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It is.
    True,
    /// It is not.
    False,
    /// Nobody has said yet.
    Unknown,
}

/// The conditions of what no controller has looked at yet.
pub(super) fn pending(types: &[&str]) -> Value {
    let condition = |type_: &&str| {
        json!({
            "type": type_, "status": "Unknown", "reason": "Pending", "message": "Waiting for controller",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        })
    };
    types.iter().map(condition).collect()
}
