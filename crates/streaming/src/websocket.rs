//! Channels inside of a WebSocket: the first byte of every message says which one it belongs to.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{Sink, SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

/// The longest message that is taken. kubectl sends 32 KiB at a time; other clients send what they are given in one piece.
const MAX_MESSAGE: usize = 8 << 20;
/// Messages that wait for the writer.
pub(crate) const QUEUE: usize = 8;
/// How long the client's side of a farewell is waited for.
const LINGER: std::time::Duration = std::time::Duration::from_secs(1);

pub(crate) type Source<S> = SplitStream<WebSocketStream<S>>;
pub(crate) type Sender<S> = SplitSink<WebSocketStream<S>, Message>;

/// How a channel and its bytes make a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Binary messages; the channel is a byte.
    Binary,
    /// Text messages; the channel is a digit, the rest is base64.
    Base64,
}

impl Encoding {
    pub(crate) fn encode(self, channel: u8, bytes: &[u8]) -> Message {
        match self {
            Self::Binary => {
                let mut message = BytesMut::with_capacity(1 + bytes.len());
                message.put_u8(channel);
                message.put_slice(bytes);
                Message::Binary(message.freeze())
            }
            Self::Base64 => {
                let mut text = channel.to_string();
                STANDARD.encode_string(bytes, &mut text);
                Message::text(text)
            }
        }
    }

    /// The channel and bytes of a message; `None` for one that has no channel.
    pub(crate) fn decode(self, message: Message) -> Option<(u8, Bytes)> {
        let mut bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            _ => return None,
        };
        if bytes.is_empty() {
            return None;
        }
        let first = bytes.split_to(1)[0];
        match self {
            Self::Binary => Some((first, bytes)),
            Self::Base64 => {
                let channel = first.checked_sub(b'0')?;
                Some((channel, STANDARD.decode(&bytes).ok()?.into()))
            }
        }
    }
}

/// Speaks WebSocket on an upgraded connection.
pub(crate) async fn open<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> (Sender<S>, Source<S>) {
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(32 * 1024)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await.split()
}

/// The next message that carries something; `None` when the client is gone.
pub(crate) async fn next<S: AsyncRead + AsyncWrite + Unpin>(source: &mut Source<S>) -> Option<Message> {
    loop {
        match source.next().await? {
            Ok(message @ (Message::Binary(_) | Message::Text(_))) => return Some(message),
            Ok(Message::Close(_)) | Err(_) => return None,
            // Pings are answered below us.
            Ok(_) => {}
        }
    }
}

/// Writes messages until nobody has any more.
pub(crate) async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    sender: &mut Sender<S>,
    queue: &mut mpsc::Receiver<Message>,
) -> tungstenite::Result<()> {
    while let Some(message) = queue.recv().await {
        sender.feed(message).await?;
        // What waits already goes into the same write.
        while let Ok(message) = queue.try_recv() {
            sender.feed(message).await?;
        }
        sender.flush().await?;
    }
    Ok(())
}

/// The end as it should be. kubectl takes a farewell without this code for a failure.
fn farewell() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// Says goodbye and gives the client a moment to say it too, so that nothing it has not read yet is destroyed.
pub(crate) async fn close<S: AsyncRead + AsyncWrite + Unpin>(sender: &mut Sender<S>, source: &mut Source<S>) {
    let exchange = async {
        if sender.send(farewell()).await.is_ok() {
            while let Some(Ok(_)) = source.next().await {}
        }
    };
    let _ = tokio::time::timeout(LINGER, exchange).await;
}

/// A WebSocket whose binary messages carry a stream of bytes, as both of its directions.
pub(crate) async fn tunnel<S>(
    io: S,
) -> (impl AsyncRead + Send + Unpin + 'static, impl AsyncWrite + Send + Unpin + 'static)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, source) = open(io).await;
    let chunks = source
        .take_while(|message| std::future::ready(!matches!(message, Ok(Message::Close(_)) | Err(_))))
        .filter_map(|message| {
            std::future::ready(match message {
                Ok(Message::Binary(bytes)) => Some(Ok::<_, io::Error>(bytes)),
                Ok(Message::Text(text)) => Some(Ok(Bytes::from(text))),
                _ => None,
            })
        });
    let messages = Tunnel { sender, closing: false };
    (StreamReader::new(chunks), SinkWriter::new(CopyToBytes::new(messages)))
}

/// The sending direction of a tunnel, which ends with a farewell.
struct Tunnel<S> {
    sender: Sender<S>,
    closing: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Bytes> for Tunnel<S> {
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sender.poll_ready_unpin(cx).map_err(io::Error::other)
    }

    fn start_send(mut self: Pin<&mut Self>, bytes: Bytes) -> io::Result<()> {
        self.sender.start_send_unpin(Message::Binary(bytes)).map_err(io::Error::other)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sender.poll_flush_unpin(cx).map_err(io::Error::other)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closing {
            ready!(self.sender.poll_ready_unpin(cx)).map_err(io::Error::other)?;
            self.sender.start_send_unpin(farewell()).map_err(io::Error::other)?;
            self.closing = true;
        }
        self.sender.poll_flush_unpin(cx).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        for encoding in [Encoding::Binary, Encoding::Base64] {
            for (channel, bytes) in [(0, &b"abc"[..]), (3, b""), (4, b"\x00\xff")] {
                let message = encoding.encode(channel, bytes);
                assert_eq!(encoding.decode(message), Some((channel, Bytes::copy_from_slice(bytes))));
            }
        }
        assert_eq!(Encoding::Base64.encode(1, b"hi"), Message::text("1aGk="));
        assert_eq!(Encoding::Binary.decode(Message::Binary(Bytes::new())), None);
        assert_eq!(Encoding::Base64.decode(Message::text("1%%%")), None);
        assert_eq!(Encoding::Base64.decode(Message::text("é")).map(|(channel, _)| channel), None);
    }
}
