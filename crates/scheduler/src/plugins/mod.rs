//! The plugins: a file each, and a row in one of the two tables here.
//!
//! To add one, write a file with a unit type that implements [`Filter`], [`Score`] or both, and add its row. Filters
//! run in the order of the table, and the first that refuses a node is the one whose reason is reported: what costs
//! least and tells most comes first.

mod balanced_allocation;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod taint_toleration;
#[cfg(test)]
mod tests;

use crate::framework::{Filter, Score};

/// The filters, in upstream's order.
pub const FILTERS: &[&dyn Filter] = &[
    &node_unschedulable::NodeUnschedulable,
    &node_name::NodeName,
    &taint_toleration::TaintToleration,
    &node_affinity::NodeAffinity,
    &node_ports::NodePorts,
    &node_resources_fit::NodeResourcesFit,
];

/// The scores, with upstream's weights.
pub const SCORES: &[&dyn Score] = &[
    &taint_toleration::TaintToleration,
    &node_affinity::NodeAffinity,
    &node_resources_fit::NodeResourcesFit,
    &balanced_allocation::NodeResourcesBalancedAllocation,
];

/// The filter called `name`.
pub fn filter(name: &str) -> Option<&'static dyn Filter> {
    FILTERS.iter().copied().find(|filter| filter.name() == name)
}
