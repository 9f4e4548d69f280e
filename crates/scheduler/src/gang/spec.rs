//! Groups and queues as their objects specify them.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;
use serde_json::Value;

use crate::resources::Resources;
use crate::types::Family;

/// The name under which refusals of gangs are told, beside those of plugins.
pub(crate) const NAME: &str = "Coscheduling";

/// The name under which refusals for the share of a queue are told.
pub(crate) const PROPORTION: &str = "Proportion";

/// The queue of a group that names none. Upstream has it always.
pub(super) const DEFAULT_QUEUE: &str = "default";

/// A group, as its object says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Group {
    /// Fewer members are of no use.
    pub min_member: usize,
    /// What the cluster must have left before a member is placed.
    pub min_resources: Resources,
    /// How long the group may wait before somebody is told.
    pub timeout: Option<Duration>,
    /// Volcano: the queue that it counts against.
    pub queue: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct GroupSpec {
    min_member: usize,
    min_resources: BTreeMap<String, Quantity>,
    schedule_timeout_seconds: Option<u64>,
    queue: Option<String>,
}

impl Group {
    /// Reads the object of a group. What is missing or malformed counts as not said.
    pub fn read(family: Family, object: &Value) -> Self {
        let spec = GroupSpec::deserialize(&object["spec"]).unwrap_or_default();
        Self {
            min_member: spec.min_member,
            min_resources: Resources::from_list(&spec.min_resources),
            timeout: spec.schedule_timeout_seconds.map(Duration::from_secs),
            queue: (family == Family::Volcano)
                .then(|| spec.queue.filter(|queue| !queue.is_empty()).unwrap_or_else(|| DEFAULT_QUEUE.to_owned())),
        }
    }
}

/// A queue: what its groups may use together.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// Its share, in proportion to those of others.
    pub weight: u32,
    /// The most that it may have, of the resources that are limited.
    pub capability: Resources,
    /// The resources that are limited.
    pub limited: Vec<String>,
    /// What is kept free for it.
    pub guarantee: Resources,
    /// Whether it takes new groups.
    pub open: bool,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            weight: 1,
            capability: Resources::default(),
            limited: Vec::new(),
            guarantee: Resources::default(),
            open: true,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct QueueSpec {
    weight: Option<u32>,
    capability: BTreeMap<String, Quantity>,
    guarantee: Guarantee,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Guarantee {
    resource: BTreeMap<String, Quantity>,
}

impl Queue {
    /// Reads the object of a queue. What is missing or malformed counts as not said.
    pub fn read(object: &Value) -> Self {
        let spec = QueueSpec::deserialize(&object["spec"]).unwrap_or_default();
        Self {
            weight: spec.weight.unwrap_or(1).max(1),
            limited: spec.capability.keys().cloned().collect(),
            capability: Resources::from_list(&spec.capability),
            guarantee: Resources::from_list(&spec.guarantee.resource),
            open: !matches!(object["status"]["state"].as_str(), Some("Closed" | "Closing")),
        }
    }

    /// The most that it may have of a resource, of which the cluster has `total`, and all queues are guaranteed
    /// `guaranteed`.
    pub(super) fn limit(&self, resource: &str, total: i64, guaranteed: i64) -> i64 {
        let free = total - (guaranteed - self.guarantee.of(resource));
        if self.limited.iter().any(|name| name == resource) { free.min(self.capability.of(resource)) } else { free }
    }
}
