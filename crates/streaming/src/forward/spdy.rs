//! Port-forward over SPDY: a pair of streams, one for data and one for errors, for every connection.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tracing::debug;

use super::complaint;
use crate::spdy::{Connection, Headers, Stream};
use crate::{Duplex, NodeError, PodRef};

/// How long the client has to open the second stream of a pair.
const PAIRING: Duration = Duration::from_secs(30);
/// The most pairs that may lack a stream.
const MAX_HALVES: usize = 128;

/// Which of a pair's streams one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Data,
    Error,
}

/// The first stream of a pair, waiting for the other.
struct Half {
    part: Part,
    stream: Stream,
    port: u16,
    /// Tells this half from a later one of the same name.
    serial: u64,
}

pub(super) async fn serve<I, O, F, R>(reader: I, writer: O, pod: &PodRef, connect: F)
where
    I: AsyncRead + Send + Unpin + 'static,
    O: AsyncWrite + Send + Unpin + 'static,
    F: Fn(u16, Box<dyn Duplex>) -> R + Send + Sync,
    R: Future<Output = Result<(), NodeError>> + Send,
{
    let mut connection = Connection::serve(reader, writer);
    {
        let mut halves: HashMap<String, Half> = HashMap::new();
        let mut forwards = FuturesUnordered::new();
        let mut deadlines = FuturesUnordered::new();
        let mut serial = 0;
        loop {
            tokio::select! {
                opened = connection.next() => {
                    let Some(opened) = opened else { break };
                    let Some((part, port)) = read(&opened.headers) else {
                        opened.refuse().await;
                        continue;
                    };
                    let id = request_id(&opened.headers, part, opened.id());
                    match halves.remove(&id) {
                        Some(half) if half.part != part && half.port == port => {
                            let stream = opened.accept().await;
                            let (data, error) = match part {
                                Part::Data => (stream, half.stream),
                                Part::Error => (half.stream, stream),
                            };
                            forwards.push(forward(port, data, error, pod, &connect));
                        }
                        Some(half) => {
                            debug!(id, "two streams of a pair do not fit");
                            halves.insert(id, half);
                            opened.refuse().await;
                        }
                        None if halves.len() >= MAX_HALVES => opened.refuse().await,
                        None => {
                            serial += 1;
                            let due = (id.clone(), serial);
                            deadlines.push(async move {
                                tokio::time::sleep(PAIRING).await;
                                due
                            });
                            halves.insert(id, Half { part, stream: opened.accept().await, port, serial });
                        }
                    }
                }
                Some(()) = forwards.next() => {}
                Some((id, serial)) = deadlines.next() => {
                    if halves.get(&id).is_some_and(|half| half.serial == serial)
                        && let Some(mut half) = halves.remove(&id)
                        && half.part == Part::Error
                    {
                        let text = format!("timed out waiting for the data stream of port {}", half.port);
                        let _ = half.stream.write_all(text.as_bytes()).await;
                    }
                }
            }
        }
    }
    connection.shutdown().await;
}

/// What a stream is for; `None` for one that is for nothing.
fn read(headers: &Headers) -> Option<(Part, u16)> {
    let part = match headers.get("streamtype")? {
        "data" => Part::Data,
        "error" => Part::Error,
        _ => return None,
    };
    let port: u16 = headers.get("port")?.parse().ok()?;
    (port > 0).then_some((part, port))
}

/// The name of a stream's pair. Old clients give none, but open the error stream just before the data stream.
fn request_id(headers: &Headers, part: Part, stream: u32) -> String {
    match (headers.get("requestid"), part) {
        (Some(id), _) => id.to_owned(),
        (None, Part::Error) => stream.to_string(),
        (None, Part::Data) => stream.saturating_sub(2).to_string(),
    }
}

async fn forward<F, R>(port: u16, data: Stream, mut error: Stream, pod: &PodRef, connect: &F)
where
    F: Fn(u16, Box<dyn Duplex>) -> R,
    R: Future<Output = Result<(), NodeError>>,
{
    if let Err(failure) = connect(port, Box::new(data)).await {
        // A client that is gone has no use for the complaint.
        let _ = error.write_all(complaint(port, pod, &failure).as_bytes()).await;
    }
    let _ = error.shutdown().await;
}
