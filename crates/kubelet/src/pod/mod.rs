//! One pod: what it should be, what it is, what to do about it.
//!
//! ```text
//!   DesiredPod (API) ───┐
//!   Observed (runtime) ─┤
//!   ProbeResults ───────┼─► plan ──► actions ──► operations ──► outcomes ─► PodState
//!   PodState, now ──────┘        └──► waiting ─► status ─► API
//! ```

pub(crate) mod desired;
mod execute;
pub(crate) mod observed;
mod operations;
pub(crate) mod plan;
mod probing;
pub(crate) mod state;
pub(crate) mod status;
mod termination_message;
mod worker;

pub(crate) use worker::{Message, View, Worker};
