//! The scheduler: finds the node on which a pod is to run.
//!
//! ```text
//!  pods without a node ──► queue ──► schedule(cluster, profile, pod) ──► assume ──► POST .../binding
//!                           ▲  ▲        filter → score │                  (bind.rs, in the background)
//!                           │  └── waits ◄── preempt ◄─┘ no node
//!                           └── cluster changes wake those they may help
//! ```
//!
//! [`schedule()`] is the decision: a pure function of the cluster as it is and the pod, made of [plugins], each a file and
//! a row in a table; a [`Profile`] says which of them count and how much. Where no node will do, [`preempt`] looks for
//! pods of lower priority to preempt. Pods that are of use only together are placed together, or not at all: [`gang`].
//!
//! Around it, one task owns all state (the [`cache::Cache`] and the [`queue::SchedulingQueue`]), takes messages from
//! informers and bindings, and schedules one pod after another: each decision sees the ones before it, because a chosen
//! node is charged at once, before the API server has heard of it. Every decision is kept for a while with all that led
//! to it: [`record`]. What would be decided about a pod that is not there can be asked for: [`Previews`].
//!
//! This crate knows the API as any client does, and neither the store nor HTTP.

mod bind;
pub mod cache;
mod config;
pub mod framework;
pub mod gang;
pub mod plugins;
pub mod preempt;
mod profile;
pub mod queue;
pub mod record;
mod schedule;
mod service;
mod storage;
#[cfg(test)]
mod testing;
pub mod types;

pub use config::{Config, ConfigError};
pub use machinery::resources;
pub use profile::{DEFAULT_SCHEDULER, Entry, Profile};
pub use queue::BackOff;
pub use schedule::{Decision, NotPreempted, Trace, Unschedulable, schedule};
pub use service::{Deps, Handle, PreviewError, Previews, start};
pub use storage::Storage;
