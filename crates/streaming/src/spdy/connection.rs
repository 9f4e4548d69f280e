//! One SPDY/3.1 connection, served.
//!
//! One task drives a connection: it reads frames, feeds them to the streams through bounded pipes, and writes what the
//! streams have to say. Every buffer is bounded; a stream whose user does not read holds back its own connection and no other.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::frame::{self, Control};
use super::headers::{Encoder, Headers};
use super::inbound::Inbound;
use super::pump;
use super::stream::{CHUNK, MAX_STREAMS, Opened, Out};

/// Frames that wait for the writer.
const QUEUE: usize = 8;
/// How long, and for how much, the peer's last words are read after ours: closing a socket with unread input would
/// destroy what the peer has not read yet.
const LINGER: Duration = Duration::from_secs(1);

/// A connection to which the peer opens streams.
pub(crate) struct Connection {
    opened: mpsc::Receiver<Opened>,
    stop: CancellationToken,
    dead: CancellationToken,
    driver: AbortOnDropHandle<()>,
}

impl Connection {
    /// Serves a connection on these two directions.
    pub(crate) fn serve<R, W>(reader: R, writer: W) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let (opened_tx, opened) = mpsc::channel(QUEUE);
        let (stop, dead) = (CancellationToken::new(), CancellationToken::new());
        let driver = tokio::spawn(drive(reader, writer, opened_tx, stop.clone(), dead.clone()));
        Self { opened, stop, dead, driver: AbortOnDropHandle::new(driver) }
    }

    /// The next stream that the peer opens; `None` when it is gone.
    pub(crate) async fn next(&mut self) -> Option<Opened> {
        self.opened.recv().await
    }

    /// Waits until the peer is gone.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        self.dead.clone().cancelled_owned()
    }

    /// Writes what the streams still hold, says goodbye and ends the connection. All streams must have been dropped.
    pub(crate) async fn shutdown(mut self) {
        self.stop.cancel();
        self.opened.close();
        while self.opened.recv().await.is_some() {}
        // A task that panicked has closed the connection as well.
        let _ = self.driver.await;
    }
}

async fn drive<R, W>(
    reader: R,
    writer: W,
    opened: mpsc::Sender<Opened>,
    stop: CancellationToken,
    dead: CancellationToken,
) where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
{
    let (out, queue) = mpsc::channel(QUEUE);
    // One place for every stream, so that handing over a pump never waits.
    let (pumps_tx, pumps) = mpsc::channel(MAX_STREAMS);
    let mut reader = BufReader::with_capacity(CHUNK, reader);
    {
        let reading = async {
            let mut inbound = Inbound::new(out, opened, pumps_tx);
            tokio::select! {
                // First: whoever stops also closes the queue that the reader may be waiting for.
                biased;
                () = stop.cancelled() => {}
                () = dead.cancelled() => {}
                Err(error) = inbound.run(&mut reader) => {
                    debug!(%error, "SPDY connection ended");
                    dead.cancel();
                }
            }
        };
        let pumping = async {
            tokio::select! {
                () = pump::run_all(pumps) => {}
                () = dead.cancelled() => {}
            }
        };
        let writing = async {
            tokio::select! {
                result = write(writer, queue) => {
                    if let Err(error) = result {
                        debug!(%error, "SPDY connection cannot be written");
                        dead.cancel();
                    }
                }
                () = dead.cancelled() => {}
            }
        };
        tokio::join!(reading, pumping, writing);
    }
    if !dead.is_cancelled() {
        let _ = tokio::time::timeout(LINGER, tokio::io::copy_buf(&mut reader, &mut tokio::io::sink())).await;
    }
    dead.cancel();
}

/// Writes frames until nobody has any more, then says goodbye.
async fn write<W: AsyncWrite + Unpin>(mut writer: W, mut queue: mpsc::Receiver<Out>) -> io::Result<()> {
    let mut encoder = Encoder::new();
    let mut buffer = BytesMut::new();
    while let Some(mut out) = queue.recv().await {
        // What waits already goes into the same write.
        loop {
            append(out, &mut encoder, &mut buffer)?;
            match queue.try_recv() {
                Ok(next) if buffer.len() < 2 * CHUNK => out = next,
                Ok(next) => {
                    append(next, &mut encoder, &mut buffer)?;
                    break;
                }
                Err(_) => break,
            }
        }
        writer.write_all_buf(&mut buffer).await?;
        writer.flush().await?;
    }
    Control::GoAway { last: 0, status: 0 }.write(&mut buffer);
    writer.write_all_buf(&mut buffer).await?;
    writer.shutdown().await
}

fn append(out: Out, encoder: &mut Encoder, buffer: &mut BytesMut) -> io::Result<()> {
    match out {
        Out::Control(control) => control.write(buffer),
        Out::Reply(id) => {
            let block = encoder.encode(&Headers::default()).map_err(io::Error::other)?;
            Control::SynReply { id, fin: false, block }.write(buffer);
        }
        Out::Data(id, bytes) => frame::write_data(id, false, &bytes, buffer),
        Out::Fin(id) => frame::write_data(id, true, &[], buffer),
    }
    Ok(())
}
