//! What a plugin is, and what it sees.
//!
//! A [`Plugin`] has one part or both: it refuses nodes ([`Plugin::filter`]), it prefers some of the rest
//! ([`Plugin::score`]). It sees the [`Candidate`] that is to be placed, each [`NodeInfo`], and the whole
//! [`crate::cache::Cache`]. A whole plugin reads like this:
//!
//! ```
//! use coracle_scheduler::cache::Cache;
//! use coracle_scheduler::framework::{Candidate, ClusterEvent, Filtering, NodeInfo, Plugin, Refusal};
//!
//! /// Keeps pods that ask for a rack, by their label `rack`, on nodes with the same label.
//! struct Rack;
//!
//! impl Plugin for Rack {
//!     fn name(&self) -> &'static str {
//!         "Rack"
//!     }
//!
//!     fn filter<'a>(&'a self, pod: &'a Candidate, _cache: &'a Cache) -> Filtering<'a> {
//!         // What is looked up once for the pod stands here; a pod that asks for nothing costs nothing further.
//!         let Some(rack) = pod.labels.get("rack") else {
//!             return Filtering::Skip;
//!         };
//!         Filtering::each_node(move |node: &NodeInfo| match node.label("rack") {
//!             Some(found) if found == rack => Ok(()),
//!             _ => Err(Refusal::unresolvable("node(s) were in another rack")),
//!         })
//!     }
//!
//!     fn score(&self, _pod: &Candidate, _cache: &Cache, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
//!         // From 0 to 100 for each of `nodes`: here, fewer pods are better.
//!         let most = nodes.iter().map(|node| node.pods.len()).max().unwrap_or(0).max(1);
//!         Some(nodes.iter().map(|node| (100 - 100 * node.pods.len() / most) as i64).collect())
//!     }
//!
//!     fn queueing_hint(&self, _pod: &Candidate, event: &ClusterEvent<'_>) -> bool {
//!         matches!(event, ClusterEvent::Node(_))
//!     }
//! }
//! ```
//!
//! With a row in [`crate::plugins::ROWS`] it is part of every profile; without, it can be handed to
//! [`crate::Config::plugin`] by whoever embeds the scheduler.

mod plugin;

pub use crate::types::{Candidate, Namespaces, NodeId, NodeInfo, PodAffinity, PodInfo, Refusal, Term};
pub use plugin::{Check, ClusterEvent, Filtering, MAX_SCORE, Plugin, normalize_score};
