//! One pod: what it should be, what it is, what to do about it.
//!
//! ```text
//!   DesiredPod (API) ───┐
//!   Observed (runtime) ─┤
//!   ProbeResults ───────┼─► plan ──► actions ──► operations ──► outcomes ─► PodState
//!   PodState, now ──────┘        └──► waiting ─► status ─► API
//! ```
//!
//! A worker owns all that is known of its pod as one [`state::PodState`], and [`transition::StateMachine::apply`] is the
//! one function that changes it.

mod execute;
mod message;
mod operations;
pub(crate) mod plan;
mod probing;
pub(crate) mod resize;
pub(crate) mod state;
pub(crate) mod status;
pub(crate) mod step;
mod sync;
mod termination_message;
mod transition;
mod worker;

pub(crate) use message::{Message, View};
pub(crate) use worker::Worker;
