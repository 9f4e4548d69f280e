//! One pod: what it should be, what it is, what to do about it.
//!
//! ```text
//!   PodWish (API) ─┐
//!   Observed (runtime) ─┤
//!   ProbeResults ─┼─► plan ──► actions ──► operations ──► outcomes ─► Memory
//!   Memory, now ─┘        └──► waiting ─► status ─► API
//! ```

mod act;
pub(crate) mod memory;
pub(crate) mod observed;
mod operations;
pub(crate) mod plan;
mod probing;
pub(crate) mod status;
pub(crate) mod wish;
mod words;
mod worker;

pub(crate) use worker::{Message, View, Worker};
