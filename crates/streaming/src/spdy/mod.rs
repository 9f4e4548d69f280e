//! SPDY/3.1, the server's side: many streams over one connection, as kubectl up to 1.30 speaks it, and newer ones inside of
//! WebSockets for port-forward.
//!
//! | module | subject |
//! |---|---|
//! | [`frame`] | frames to and from bytes |
//! | [`headers`] | the compressed header blocks |
//! | [`window`] | flow control |
//! | [`inbound`] | reading frames and feeding the streams |
//! | [`pump`] | carrying what the streams write |
//! | [`connection`] | the connection as a whole |

mod connection;
mod frame;
mod headers;
mod inbound;
#[cfg(test)]
pub(crate) mod peer;
mod pump;
#[cfg(test)]
mod tests;
mod window;

pub(crate) use connection::{Connection, Stream};
pub(crate) use headers::Headers;
