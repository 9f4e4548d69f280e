//! The protocols of `exec`, `attach`, `port-forward` and `logs`, and what a node answers to them.
//!
//! [`NodeApi`] is the question: the kubelet implements it, the API server asks it, neither knows the other. The rest is
//! the served side of the protocols that clients speak.

mod node;

pub use node::{
    CommandOptions, Duplex, LogChunks, LogOptions, LogStream, NodeApi, NodeError, PodRef, Streams,
    TerminalSize,
};
