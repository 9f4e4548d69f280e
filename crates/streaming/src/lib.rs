//! The protocols of `exec`, `attach`, `port-forward` and `logs`, and what a node answers to them.
//!
//! [`NodeApi`] is the question: the kubelet implements it, the API server asks it, neither knows the other. The rest is
//! the served side of the protocols that clients speak:
//!
//! | request | over SPDY/3.1 | over WebSocket |
//! |---|---|---|
//! | `exec`, `attach` | [`CommandUpgrade`]: `v5`…`v1` | [`CommandUpgrade`]: `v5`, `v4` and older, these also in base64 |
//! | `port-forward` | [`ForwardUpgrade`] | [`ForwardUpgrade`]: SPDY in a tunnel, or the older channels |
//! | `log` | – | [`LogUpgrade`] |
//!
//! Each of them works alike: `negotiate` looks at the request and says what will be spoken, or why not; `response` is what
//! the server answers; `serve` runs on the connection that [`upgraded`] yields. Nothing here knows HTTP beyond that.
//!
//! ```no_run
//! # use coracle_streaming as streaming;
//! # async fn example(request: http::Request<hyper::body::Incoming>) -> Result<http::Response<()>, streaming::Refusal> {
//! use streaming::{CommandOptions, CommandUpgrade, Streams};
//!
//! let options = CommandOptions { stdout: true, ..CommandOptions::default() };
//! let upgrade = CommandUpgrade::negotiate(&request)?;
//! let response = upgrade.response();
//! let connection = hyper::upgrade::on(request);
//! tokio::spawn(async move {
//!     if let Ok(io) = streaming::upgraded(connection).await {
//!         upgrade.serve(io, options, |streams: Streams| async move { Ok(0) }).await;
//!     }
//! });
//! # Ok(response) }
//! ```
//!
//! Every buffer is bounded. A slow client holds back what it asked for and nobody else, and garbage ends the connection it
//! came on. A client that leaves ends the future that answers it: it is dropped, so it must be safe to drop.

mod command;
pub mod exposition;
mod forward;
mod log;
mod node;
mod spdy;
pub mod stats;
mod upgrade;
mod websocket;

pub use command::{CommandUpgrade, OptionsError};
pub use forward::ForwardUpgrade;
pub use log::LogUpgrade;
pub use node::{
    CommandOptions, Duplex, LogChunks, LogOptions, LogStream, NodeApi, NodeError, NodeMetrics, NodePod, PodRef,
    Streams, TerminalSize,
};
pub use upgrade::{Refusal, is_upgrade, upgraded};
