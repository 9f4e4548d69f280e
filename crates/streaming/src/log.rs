//! Logs over WebSocket, for browsers: each chunk is a message.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::Message;

use crate::LogChunks;
use crate::upgrade::{Refusal, Transport};
use crate::websocket;

const PROTOCOLS: &[(&str, bool)] = &[("", false), ("binary.k8s.io", false), ("base64.binary.k8s.io", true)];

/// A request for a log over WebSocket.
#[derive(Clone, Debug)]
pub struct LogUpgrade {
    transport: Transport,
    name: &'static str,
    base64: bool,
}

impl LogUpgrade {
    /// Finds out what the client wants to speak.
    pub fn negotiate<B>(request: &Request<B>) -> Result<Self, Refusal> {
        let transport = Transport::of(request)?;
        if matches!(transport, Transport::Spdy(_)) {
            return Err(Refusal::bad_request("unable to upgrade: logs are not spoken over SPDY"));
        }
        let (name, base64) = transport.choose(PROTOCOLS)?;
        Ok(Self { transport, name, base64 })
    }

    /// What the server answers.
    pub fn response(&self) -> Response<()> {
        self.transport.response(self.name)
    }

    /// Sends a log until its end, or until the client is gone.
    pub async fn serve<S>(self, io: S, mut log: LogChunks)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, mut source) = websocket::open(io).await;
        let gone = async { while websocket::next(&mut source).await.is_some() {} };
        let send = async {
            while let Some(Ok(chunk)) = log.next().await {
                if sender.send(self.message(&chunk)).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = send => websocket::close(&mut sender, &mut source).await,
            () = gone => {}
        }
    }

    fn message(&self, chunk: &Bytes) -> Message {
        use base64::Engine;
        if self.base64 {
            Message::text(base64::engine::general_purpose::STANDARD.encode(chunk))
        } else {
            Message::Binary(chunk.clone())
        }
    }
}
