//! The plugins: a file each, and a row in the table here.
//!
//! To add one, write a file with a type that implements [`Plugin`], and add its row. Filters run in the order of the
//! table, and the first that refuses a node is the one whose reason is reported: upstream's order.

mod balanced_allocation;
mod image_locality;
mod inter_pod_affinity;
pub(crate) mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod pod_topology_spread;
pub(crate) mod taint_toleration;
#[cfg(test)]
mod tests;
mod volume_binding;
mod volume_restrictions;

use std::sync::Arc;

use serde_json::Value;

use crate::framework::Plugin;

/// A plugin that profiles are made of.
pub struct Row {
    /// Its name, as in a configuration file.
    pub name: &'static str,
    /// How much its scores count where the file says nothing: upstream's numbers.
    pub weight: i64,
    /// Makes it from its arguments in the file (`Null` without); the error says what is wrong with them.
    pub new: fn(&Value) -> Result<Arc<dyn Plugin>, String>,
}

/// All plugins, in upstream's order.
pub const ROWS: &[Row] = &[
    Row { name: "NodeUnschedulable", weight: 0, new: |_| Ok(Arc::new(node_unschedulable::NodeUnschedulable)) },
    Row { name: "NodeName", weight: 0, new: |_| Ok(Arc::new(node_name::NodeName)) },
    Row { name: "TaintToleration", weight: 3, new: |_| Ok(Arc::new(taint_toleration::TaintToleration)) },
    Row { name: "NodeAffinity", weight: 2, new: |args| Ok(Arc::new(node_affinity::NodeAffinity::new(args)?)) },
    Row { name: "NodePorts", weight: 0, new: |_| Ok(Arc::new(node_ports::NodePorts)) },
    Row {
        name: "NodeResourcesFit",
        weight: 1,
        new: |args| Ok(Arc::new(node_resources_fit::NodeResourcesFit::new(args)?)),
    },
    Row { name: "VolumeRestrictions", weight: 0, new: |_| Ok(Arc::new(volume_restrictions::VolumeRestrictions)) },
    Row { name: "VolumeBinding", weight: 0, new: |_| Ok(Arc::new(volume_binding::VolumeBinding)) },
    Row {
        name: "PodTopologySpread",
        weight: 2,
        new: |args| Ok(Arc::new(pod_topology_spread::PodTopologySpread::new(args)?)),
    },
    Row {
        name: "InterPodAffinity",
        weight: 2,
        new: |args| Ok(Arc::new(inter_pod_affinity::InterPodAffinity::new(args)?)),
    },
    Row {
        name: "NodeResourcesBalancedAllocation",
        weight: 1,
        new: |args| Ok(Arc::new(balanced_allocation::NodeResourcesBalancedAllocation::new(args)?)),
    },
    Row { name: "ImageLocality", weight: 1, new: |_| Ok(Arc::new(image_locality::ImageLocality)) },
];

/// Upstream's plugins that are no rows, because what they do is part of the scheduler itself or has no object here.
/// Configuration files may name them.
pub const BUILT_IN: &[&str] = &[
    "PrioritySort",
    "SchedulingGates",
    "DefaultPreemption",
    "DefaultBinder",
    "NodeVolumeLimits",
    "VolumeZone",
    "DynamicResources",
    "Coscheduling",
    "GangScheduling",
    "NodeDeclaredFeatures",
];

/// Reads arguments; none at all are the defaults.
fn arguments<T: serde::de::DeserializeOwned + Default>(args: &Value) -> Result<T, String> {
    if args.is_null() {
        return Ok(T::default());
    }
    T::deserialize(args).map_err(|error| error.to_string())
}
