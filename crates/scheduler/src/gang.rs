//! Gangs: pods that are of use only together, so that either enough of them are placed or none.
//!
//! A pod names its group: by the label `scheduling.x-k8s.io/pod-group` or `pod-group.scheduling.sigs.k8s.io/name` a
//! PodGroup of scheduling.x-k8s.io/v1alpha1, by the annotation `scheduling.k8s.io/group-name` one of
//! scheduling.volcano.sh/v1beta1. Where the addon has defined the kind, the pod waits for its group. Anybody else's
//! definition is there for somebody else's scheduler: here the label then means nothing, as with upstream's default
//! scheduler, and objects of the kind are left alone.
//!
//! ```text
//!   a member's turn ──► all waiting members of the group, one after the other, each on the books of those before it
//!                          ├─ enough of them placed (minMember): all are bound
//!                          └─ too few: every placement is taken back, nothing is held
//!                                └─ enough if pods of lower priority went: they go, and the nodes are kept for the gang
//! ```
//!
//! Because nothing is held between tries, two gangs that fit only one after the other cannot block each other, which is
//! what happens where each member waits, bound in the books, for the rest of its group.
//!
//! Volcano's groups are in queues, which share the cluster: [`proportion`].

mod clear;
mod groups;
mod objects;
mod place;
mod proportion;
mod queue_status;
mod spec;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use clear::{Clearing, clear};
pub use groups::Groups;
pub(crate) use objects::{GangEvent, known, watch};
pub(crate) use place::{Placement, Refused, in_order, place};
pub(crate) use proportion::Standings;
pub use spec::{Group, Queue};
pub(crate) use spec::{NAME, PROPORTION};
