//! The scheduler: finds the node on which a pod is to run.
//!
//! ```text
//!  pods without a node ──► queue ──► schedule(nodes, pod) ──► assume ──► POST .../binding
//!                           ▲            filter → score           (bind.rs, in the background)
//!                           └── cluster changes wake what was refused
//! ```
//!
//! [`schedule`] is the decision: a pure function of the nodes as they are and the pod, made of [plugins], each a file
//! and a row in a table. Around it, one task owns all state (the [`cache::Cache`] of nodes and the
//! [`queue::SchedulingQueue`]), takes messages from informers and bindings, and schedules one pod after another: each
//! decision sees the ones before it, because a chosen node is charged at once, before the API server has heard of it.
//!
//! This crate knows the API as any client does, and neither the store nor HTTP.

mod bind;
pub mod cache;
pub mod framework;
pub mod plugins;
pub mod queue;
pub mod resources;
mod schedule;
mod service;

pub use schedule::{Decision, Unschedulable, schedule};
pub use service::{Config, Deps, Handle, start};
