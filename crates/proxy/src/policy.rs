//! NetworkPolicies: which packets between pods, and between them and the outside, the kernel lets pass.
//!
//! ```text
//!   NetworkPolicies ─┐
//!   Pods ────────────┼─► compile (pure) ─► Model ─► table (pure) ─► nftables table `coracle-PROFILE/policies`
//!   Namespaces ──────┘
//! ```
//!
//! | module | what is in it |
//! |---|---|
//! | `compile` | pure: policies, pods and namespaces → for each isolated pod, who may reach it and whom it may reach |
//! | `peers` | pure: what a rule's peers and ports select |
//! | `ranges` | pure: addresses and ports as ranges that do not overlap, as sets of the kernel want them |
//! | `table` | pure: the model as a transaction for `nft` |
//! | `enforcer` | what is in the kernel, and how to change it |
//! | `sync` | the task that follows the informers |
//!
//! Every packet is judged by its own addresses and ports, in both directions, and not only the first of a connection: what
//! a new policy forbids ends at once. Maps with pods' addresses as keys lead to the rules of the pod, so that a packet costs
//! the same however many policies there are. As upstream has it, nothing stands between a pod and its own node: such
//! packets are not forwarded and pass no hook used here. Packets for a service are judged by the pod that they lead to.
//!
//! Where there is no policy there is no table.

mod compile;
mod enforcer;
mod peers;
mod ranges;
mod sync;
mod table;

#[cfg(test)]
mod compile_tests;
#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod sync_tests;

pub(crate) use self::sync::run;
pub(crate) use self::table::{PolicyTable, name};
