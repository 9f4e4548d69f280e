//! What decisions are made of: nodes, pods and pod groups as the scheduler knows them, and the refusal of a node.
//!
//! Plain data: the cache is made of it and plugins look at it, and it knows neither.

mod group;
mod node;
mod pod;
mod refusal;

pub use group::{Family, GroupKey};
pub use node::{NodeId, NodeInfo};
pub use pod::{Candidate, Namespaces, PodAffinity, PodInfo, Term};
pub use refusal::Refusal;
