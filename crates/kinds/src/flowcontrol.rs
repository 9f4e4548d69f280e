//! The kinds of flowcontrol.apiserver.k8s.io, by which the API server shares what it can do at once: a FlowSchema says which
//! requests it is about and what a flow of them is, a PriorityLevelConfiguration how many of a level may run and wait.

mod bootstrap;
mod flow_schema;
mod priority_level_configuration;

#[cfg(test)]
mod tests;

pub use bootstrap::{bootstrap, mandatory};
pub(crate) use flow_schema::condition_types;

use registry::ops::Typed;
use registry::table::Resource;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// The name of the FlowSchema and of the PriorityLevelConfiguration of requests that are not limited.
const EXEMPT: &str = "exempt";

/// The rows of the group.
pub(super) fn all() -> [Resource; 2] {
    [
        Typed::<flow_schema::FlowSchema>::shared(),
        Typed::<priority_level_configuration::PriorityLevelConfiguration>::shared(),
    ]
}
