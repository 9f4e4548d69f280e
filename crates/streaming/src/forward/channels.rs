//! Port-forward over a WebSocket's channels, as it was before SPDY went through one: for the port number `n` of the query,
//! channel `2n` carries data and `2n + 1` errors, and each starts with the port in two bytes, the lower one first. There is
//! one connection for each port.

use std::future::Future;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::complaint;
use crate::upgrade::Refusal;
use crate::websocket::{self, Encoding, Source};
use crate::{Duplex, NodeError, PodRef};

/// The most ports of one request; two channels each, and a channel is a byte.
const MAX_PORTS: usize = 64;
/// What a connection holds in each direction, in bytes.
const PIPE: usize = 64 * 1024;
/// The longest message we send.
const CHUNK: usize = 16 * 1024;

/// Reads the ports of a query.
pub(super) fn ports(query: &str) -> Result<Vec<u16>, Refusal> {
    let mut ports = Vec::new();
    for value in query.split('&').filter_map(|pair| pair.strip_prefix("ports=").or_else(|| pair.strip_prefix("port=")))
    {
        for text in value.replace("%2C", ",").replace("%2c", ",").split(',') {
            match text.parse() {
                Ok(port @ 1..) => ports.push(port),
                _ => return Err(Refusal::bad_request(format!("unable to parse {text:?} as a port"))),
            }
        }
    }
    match ports.len() {
        0 => Err(Refusal::bad_request("query parameter \"port\" is required")),
        1..=MAX_PORTS => Ok(ports),
        _ => Err(Refusal::bad_request(format!("at most {MAX_PORTS} ports at a time"))),
    }
}

pub(super) async fn serve<S, F, R>(io: S, encoding: Encoding, ports: &[u16], pod: &PodRef, connect: F)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Fn(u16, Box<dyn Duplex>) -> R + Send + Sync,
    R: Future<Output = Result<(), NodeError>> + Send,
{
    let (mut sender, mut source) = websocket::open(io).await;
    let (messages, mut queue) = mpsc::channel(websocket::QUEUE);
    let mut inputs = Vec::new();
    let mut forwards = FuturesUnordered::new();
    for (index, &port) in (0_u8..).zip(ports) {
        let (theirs, ours) = tokio::io::duplex(PIPE);
        let (output, input) = tokio::io::split(ours);
        inputs.push(Some(input));
        let ends = Ends { port, data: 2 * index, error: 2 * index + 1, encoding, messages: messages.clone() };
        forwards.push(ends.run(output, pod, connect(port, Box::new(theirs))));
    }
    drop(messages);
    let work = async { while forwards.next().await.is_some() {} };
    tokio::select! {
        ((), written) = async { tokio::join!(work, websocket::write(&mut sender, &mut queue)) } => {
            if written.is_ok() {
                websocket::close(&mut sender, &mut source).await;
            }
        }
        () = read(&mut source, encoding, inputs) => {}
    }
}

/// Reads until the client is gone.
async fn read<S: AsyncRead + AsyncWrite + Unpin>(
    source: &mut Source<S>,
    encoding: Encoding,
    mut inputs: Vec<Option<WriteHalf<DuplexStream>>>,
) {
    while let Some(message) = websocket::next(source).await {
        // Clients have nothing to say on the channels of errors.
        let Some((channel, bytes)) = encoding.decode(message).filter(|(channel, _)| channel % 2 == 0) else { continue };
        if let Some(place) = inputs.get_mut(usize::from(channel / 2))
            && let Some(input) = place
            && input.write_all(&bytes).await.is_err()
        {
            *place = None;
        }
    }
}

/// One port's two channels.
struct Ends {
    port: u16,
    data: u8,
    error: u8,
    encoding: Encoding,
    messages: mpsc::Sender<Message>,
}

impl Ends {
    async fn run(
        self,
        mut output: ReadHalf<DuplexStream>,
        pod: &PodRef,
        connection: impl Future<Output = Result<(), NodeError>>,
    ) {
        self.send(self.data, &self.port.to_le_bytes()).await;
        self.send(self.error, &self.port.to_le_bytes()).await;
        let copy = async {
            let mut chunk = vec![0; CHUNK];
            while let Ok(count @ 1..) = output.read(&mut chunk).await {
                self.send(self.data, &chunk[..count]).await;
            }
        };
        let (result, ()) = tokio::join!(connection, copy);
        if let Err(failure) = result {
            self.send(self.error, complaint(self.port, pod, &failure).as_bytes()).await;
        }
    }

    async fn send(&self, channel: u8, bytes: &[u8]) {
        // Fails when the client is gone, which ends all of this anyway.
        let _ = self.messages.send(self.encoding.encode(channel, &Bytes::copy_from_slice(bytes))).await;
    }
}
