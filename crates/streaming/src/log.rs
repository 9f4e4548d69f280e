//! Logs over WebSocket, for browsers: each chunk is a message.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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
    ///
    /// # Errors
    /// [`Refusal`] with the status to answer when the client speaks nothing that is known.
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
        if self.base64 { Message::text(STANDARD.encode(chunk)) } else { Message::Binary(chunk.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    async fn serve(name: &'static str) -> Vec<Message> {
        let request = Request::builder()
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "x")
            .header("sec-websocket-protocol", name)
            .body(())
            .unwrap();
        let upgrade = LogUpgrade::negotiate(&request).unwrap();
        assert_eq!(upgrade.response().headers()["sec-websocket-protocol"], name);
        let (server, client) = tokio::io::duplex(64);
        let chunks = ["one\n", "two\n"].map(|line| Ok(Bytes::from_static(line.as_bytes())));
        let serving = tokio::spawn(upgrade.serve(server, futures::stream::iter(chunks).boxed()));
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let mut messages = Vec::new();
        while let Some(Ok(message)) = client.next().await {
            messages.push(message);
        }
        drop(client);
        serving.await.unwrap();
        messages
    }

    #[tokio::test]
    async fn chunks_are_messages() {
        let binary = serve("binary.k8s.io").await;
        assert_eq!(binary[..2], ["one\n", "two\n"].map(|line| Message::Binary(Bytes::from_static(line.as_bytes()))));
        let text = serve("base64.binary.k8s.io").await;
        assert_eq!(text[..2], [Message::text("b25lCg=="), Message::text("dHdvCg==")]);
    }

    #[test]
    fn not_over_spdy() {
        let request =
            Request::builder().header("connection", "upgrade").header("upgrade", "SPDY/3.1").body(()).unwrap();
        assert_eq!(LogUpgrade::negotiate(&request).unwrap_err().code, 400);
    }
}
