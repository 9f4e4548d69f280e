//! `port-forward`: connections to ports of a pod, several over one connection.

mod channels;
mod spdy;
#[cfg(test)]
mod tests;

use std::future::Future;

use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::upgrade::{Refusal, Transport};
use crate::websocket::{self, Encoding};
use crate::{Duplex, NodeError, PodRef};

const SPDY_PROTOCOLS: &[(&str, ())] = &[("portforward.k8s.io", ())];

const WEBSOCKET_PROTOCOLS: &[(&str, Option<Encoding>)] = &[
    ("SPDY/3.1+portforward.k8s.io", None),
    ("v4.channel.k8s.io", Some(Encoding::Binary)),
    ("v4.base64.channel.k8s.io", Some(Encoding::Base64)),
    ("", Some(Encoding::Binary)),
];

/// A request for a port-forward, and what will be spoken.
#[derive(Clone, Debug)]
pub struct ForwardUpgrade {
    transport: Transport,
    name: &'static str,
    protocol: Protocol,
}

#[derive(Clone, Debug)]
enum Protocol {
    Spdy,
    /// SPDY inside of a WebSocket's messages.
    Tunnel,
    /// Two channels for each port that the query names.
    Channels(Encoding, Vec<u16>),
}

impl ForwardUpgrade {
    /// Finds out what the client wants to speak. The ports of the old WebSocket protocol stand in the query, as
    /// `ports=80&ports=443` or `ports=80,443`.
    ///
    /// # Errors
    /// [`Refusal`] with the status to answer when the client speaks nothing that is known.
    pub fn negotiate<B>(request: &Request<B>) -> Result<Self, Refusal> {
        let transport = Transport::of(request)?;
        let (name, protocol) = match &transport {
            Transport::Spdy(_) => (transport.choose(SPDY_PROTOCOLS)?.0, Protocol::Spdy),
            Transport::WebSocket { .. } => match transport.choose(WEBSOCKET_PROTOCOLS)? {
                (name, None) => (name, Protocol::Tunnel),
                (name, Some(encoding)) => {
                    let ports = channels::ports(request.uri().query().unwrap_or_default())?;
                    (name, Protocol::Channels(encoding, ports))
                }
            },
        };
        Ok(Self { transport, name, protocol })
    }

    /// What the server answers.
    pub fn response(&self) -> Response<()> {
        self.transport.response(self.name)
    }

    /// Forwards until the client is gone. `connect` is called for every connection that the client makes, and runs until
    /// either side of it closes; when the client leaves, its futures are dropped.
    pub async fn serve<S, F, R>(self, io: S, pod: &PodRef, connect: F)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        F: Fn(u16, Box<dyn Duplex>) -> R + Send + Sync,
        R: Future<Output = Result<(), NodeError>> + Send,
    {
        match self.protocol {
            Protocol::Spdy => {
                let (reader, writer) = tokio::io::split(io);
                spdy::serve(reader, writer, pod, connect).await;
            }
            Protocol::Tunnel => {
                let (reader, writer) = websocket::tunnel(io).await;
                spdy::serve(reader, writer, pod, connect).await;
            }
            Protocol::Channels(encoding, ports) => channels::serve(io, encoding, &ports, pod, connect).await,
        }
    }
}

/// What the client is told when a port cannot be forwarded.
fn complaint(port: u16, pod: &PodRef, error: &NodeError) -> String {
    format!("error forwarding port {port} to pod {}, uid {}: {error}", pod.name, pod.uid)
}
