//! Groups and queues as their objects specify them.

use std::collections::BTreeMap;
use std::time::Duration;

pub(super) use addon_gang::volcano::DEFAULT_QUEUE;
use addon_gang::{coscheduling, volcano};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::resources::Resources;
use crate::types::Family;

/// The name under which refusals of gangs are told, beside those of plugins.
pub(crate) const NAME: &str = "Coscheduling";

/// The name under which refusals for the share of a queue are told.
pub(crate) const PROPORTION: &str = "Proportion";

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

impl Group {
    /// Reads the object of a group. What is missing or malformed counts as not said.
    pub fn read(family: Family, object: &Value) -> Self {
        match family {
            Family::Coscheduling => {
                let spec: coscheduling::PodGroupSpec = spec(object);
                Self {
                    min_member: min_member(spec.min_member),
                    min_resources: resources(spec.min_resources),
                    timeout: spec
                        .schedule_timeout_seconds
                        .and_then(|seconds| u64::try_from(seconds).ok())
                        .map(Duration::from_secs),
                    queue: None,
                }
            }
            Family::Volcano => {
                let spec: volcano::PodGroupSpec = spec(object);
                let queue = if spec.queue.is_empty() { DEFAULT_QUEUE.to_owned() } else { spec.queue };
                Self {
                    min_member: min_member(spec.min_member),
                    min_resources: resources(spec.min_resources),
                    timeout: None,
                    queue: Some(queue),
                }
            }
        }
    }
}

/// The `spec` of an object. One that its type does not fit says nothing.
fn spec<T: Default + DeserializeOwned>(object: &Value) -> T {
    if object["spec"].is_null() {
        return T::default();
    }
    T::deserialize(&object["spec"]).unwrap_or_else(|error| {
        let (kind, metadata) = (&object["kind"], &object["metadata"]);
        tracing::warn!(%kind, namespace = %metadata["namespace"], name = %metadata["name"], %error, "cannot decode a spec");
        T::default()
    })
}

fn min_member(number: Option<i32>) -> usize {
    usize::try_from(number.unwrap_or_default()).unwrap_or_default()
}

fn resources(list: Option<BTreeMap<String, Quantity>>) -> Resources {
    Resources::from_list(&list.unwrap_or_default())
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

impl Queue {
    /// Reads the object of a queue. What is missing or malformed counts as not said.
    pub fn read(object: &Value) -> Self {
        let spec: volcano::QueueSpec = spec(object);
        // Whatever else stands in the status, a closed queue is closed.
        let state = object["status"]["state"].as_str();
        Self {
            weight: u32::try_from(spec.weight).unwrap_or_default().max(1),
            limited: spec.capability.iter().flatten().map(|(resource, _)| resource.clone()).collect(),
            capability: resources(spec.capability),
            guarantee: resources(spec.guarantee.and_then(|guarantee| guarantee.resource)),
            open: !matches!(state, Some("Closed" | "Closing")),
        }
    }

    /// The most that it may have of a resource, of which the cluster has `total`, and all queues are guaranteed
    /// `guaranteed`.
    pub(super) fn limit(&self, resource: &str, total: i64, guaranteed: i64) -> i64 {
        let free = total - (guaranteed - self.guarantee.of(resource));
        if self.limited.iter().any(|name| name == resource) { free.min(self.capability.of(resource)) } else { free }
    }
}
