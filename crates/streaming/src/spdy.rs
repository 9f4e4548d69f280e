//! SPDY/3.1, the server's side: many streams over one connection, as kubectl up to 1.30 speaks it, and newer ones inside of
//! WebSockets for port-forward.
//!
//! | module | subject |
//! |---|---|
//! | [`frame`] | frames to and from bytes |
//! | [`headers`] | the compressed header blocks |
//! | [`stream`] | one stream |
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
mod stream;
#[cfg(test)]
mod tests;
mod window;

pub(crate) use connection::Connection;
pub(crate) use headers::Headers;
pub(crate) use stream::Stream;
