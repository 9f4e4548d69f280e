//! One SPDY/3.1 connection, served.
//!
//! One task drives a connection: it reads frames, feeds them to the streams through bounded pipes, and writes what the
//! streams have to say. Every buffer is bounded; a stream whose user does not read holds back its own connection and no other.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{future::Future, io};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream, ReadBuf, ReadHalf,
    WriteHalf,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::frame::{self, Control, FrameError, HEAD, Head, status};
use super::headers::{BlockError, Decoder, Encoder, Headers};
use super::window::{self, Window};

/// The most streams at a time.
pub(crate) const MAX_STREAMS: usize = 256;
/// What a stream holds in each direction, in bytes.
const PIPE: usize = 64 * 1024;
/// The longest data frame we send.
const CHUNK: usize = 16 * 1024;
/// Frames that wait for the writer.
const QUEUE: usize = 8;
/// Received bytes after which the peer is granted more.
const GRANT: u32 = 32 * 1024;
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

/// A stream that the peer wants to open.
pub(crate) struct Opened {
    pub(crate) headers: Headers,
    stream: Stream,
    out: mpsc::Sender<Out>,
}

/// An open stream. Reading ends when the peer closed its side; shutting down closes ours.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    io: DuplexStream,
}

/// Something to write.
#[derive(Debug)]
enum Out {
    Control(Control),
    Reply(u32),
    Data(u32, Bytes),
    Fin(u32),
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Block(#[from] BlockError),
    #[error("the connection is closed")]
    Closed,
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

impl Opened {
    /// The stream's number.
    pub(crate) fn id(&self) -> u32 {
        self.stream.id
    }

    /// Lets the stream open.
    pub(crate) async fn accept(self) -> Stream {
        // Should the connection be gone, the stream says so itself.
        let _ = self.out.send(Out::Reply(self.stream.id)).await;
        self.stream
    }

    /// Refuses the stream.
    pub(crate) async fn refuse(self) {
        let reset = Control::Reset { id: self.stream.id, status: status::REFUSED_STREAM };
        let _ = self.out.send(Out::Control(reset)).await;
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
                () = run_pumps(pumps) => {}
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

async fn run_pumps(mut new: mpsc::Receiver<Pump>) {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            pump = new.recv() => match pump {
                Some(pump) => running.push(pump.run()),
                None => break,
            },
            Some(()) = running.next() => {}
        }
    }
    // No stream can open any more: what is open writes its rest.
    while running.next().await.is_some() {}
}

/// Carries what a stream writes to the connection.
struct Pump {
    id: u32,
    pipe: ReadHalf<DuplexStream>,
    window: Arc<Window>,
    session: Arc<Window>,
    reset: CancellationToken,
    out: mpsc::Sender<Out>,
}

impl Pump {
    async fn run(mut self) {
        let reset = self.reset.clone();
        tokio::select! {
            _ = self.copy() => {}
            () = reset.cancelled() => {}
        }
        self.reset.cancel();
    }

    async fn copy(&mut self) -> Option<()> {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK);
            if (&mut self.pipe).take(CHUNK as u64).read_buf(&mut buffer).await.ok()? == 0 {
                return self.out.send(Out::Fin(self.id)).await.ok();
            }
            while !buffer.is_empty() {
                let allowed = self.window.take(buffer.len()).await;
                let taken = self.session.take(allowed).await;
                self.window.put_back(allowed - taken);
                self.out.send(Out::Data(self.id, buffer.split_to(taken).freeze())).await.ok()?;
            }
        }
    }
}

/// What the reading side knows of a stream.
struct Entry {
    /// Where its data goes; `None` when the peer has closed its side or nobody reads.
    pipe: Option<WriteHalf<DuplexStream>>,
    window: Arc<Window>,
    /// Cancelled when our side is closed.
    done: CancellationToken,
    /// Bytes received since the last grant.
    ungranted: u32,
}

/// The reading side of a connection.
struct Inbound {
    out: mpsc::Sender<Out>,
    opened: mpsc::Sender<Opened>,
    pumps: mpsc::Sender<Pump>,
    decoder: Decoder,
    streams: HashMap<u32, Entry>,
    last: u32,
    /// The windows of streams hold; see [`Window`].
    holds: Arc<AtomicBool>,
    session: Arc<Window>,
    session_holds: Arc<AtomicBool>,
    session_ungranted: u32,
    initial_window: i64,
}

impl Inbound {
    fn new(out: mpsc::Sender<Out>, opened: mpsc::Sender<Opened>, pumps: mpsc::Sender<Pump>) -> Self {
        let session_holds = Arc::new(AtomicBool::new(false));
        Self {
            out,
            opened,
            pumps,
            decoder: Decoder::new(),
            streams: HashMap::new(),
            last: 0,
            holds: Arc::default(),
            session: Arc::new(Window::new(session_holds.clone(), window::INITIAL)),
            session_holds,
            session_ungranted: 0,
            initial_window: window::INITIAL,
        }
    }

    /// Reads frames until the peer is gone or breaks the rules.
    async fn run<R: AsyncRead + Unpin>(&mut self, reader: &mut BufReader<R>) -> Result<(), ReadError> {
        loop {
            let mut head = [0; HEAD];
            reader.read_exact(&mut head).await?;
            match Head::read(head)? {
                Head::Control { kind, flags, length } => {
                    let mut payload = vec![0; length];
                    reader.read_exact(&mut payload).await?;
                    let control = Control::read(kind, flags, &payload)?;
                    self.control(control).await?;
                }
                Head::Data { id, fin, length } => self.data(reader, id, fin, length).await?,
            }
        }
    }

    async fn send(&self, out: Out) -> Result<(), ReadError> {
        self.out.send(out).await.map_err(|_| ReadError::Closed)
    }

    async fn control(&mut self, control: Control) -> Result<(), ReadError> {
        match control {
            Control::SynStream { id, fin, block } => {
                // Every block passes the decompressor, or all later ones would be unreadable.
                let headers = self.decoder.decode(&block)?;
                self.open(id, fin, headers).await?;
            }
            Control::Headers { id, fin, block } => {
                self.decoder.decode(&block)?;
                if fin {
                    self.finish(id).await;
                }
            }
            // We open no streams, so a reply answers nothing.
            Control::SynReply { block, .. } => {
                self.decoder.decode(&block)?;
            }
            Control::Reset { id, .. } => {
                if let Some(entry) = self.streams.remove(&id) {
                    entry.done.cancel();
                }
            }
            // Odd numbers are the peer's own pings; even ones would answer ours.
            Control::Ping { id } if id % 2 == 1 => self.send(Out::Control(Control::Ping { id })).await?,
            Control::Settings { initial_window: Some(size) } => {
                let delta = i64::from(size) - self.initial_window;
                self.initial_window = i64::from(size);
                self.holds.store(true, Ordering::Release);
                for entry in self.streams.values() {
                    entry.window.grant(delta);
                }
            }
            Control::WindowUpdate { id: 0, delta } => {
                self.session_holds.store(true, Ordering::Release);
                self.session.grant(i64::from(delta));
            }
            Control::WindowUpdate { id, delta } => {
                self.holds.store(true, Ordering::Release);
                if let Some(entry) = self.streams.get(&id) {
                    entry.window.grant(i64::from(delta));
                }
            }
            Control::Ping { .. } | Control::Settings { .. } | Control::GoAway { .. } | Control::Other => {}
        }
        Ok(())
    }

    async fn open(&mut self, id: u32, fin: bool, headers: Headers) -> Result<(), ReadError> {
        self.streams.retain(|_, entry| entry.pipe.is_some() || !entry.done.is_cancelled());
        // The peer's numbers are odd and rise.
        if id % 2 == 0 || id <= self.last {
            return self.send(Out::Control(Control::Reset { id, status: status::PROTOCOL_ERROR })).await;
        }
        self.last = id;
        if self.streams.len() >= MAX_STREAMS {
            return self.send(Out::Control(Control::Reset { id, status: status::REFUSED_STREAM })).await;
        }
        let (io, ours) = tokio::io::duplex(PIPE);
        let (read, write) = tokio::io::split(ours);
        let window = Arc::new(Window::new(self.holds.clone(), self.initial_window));
        let done = CancellationToken::new();
        let pump = Pump {
            id,
            pipe: read,
            window: window.clone(),
            session: self.session.clone(),
            reset: done.clone(),
            out: self.out.clone(),
        };
        self.streams.insert(id, Entry { pipe: Some(write), window, done, ungranted: 0 });
        self.pumps.send(pump).await.map_err(|_| ReadError::Closed)?;
        if fin {
            self.finish(id).await;
        }
        let opened = Opened { headers, stream: Stream { id, io }, out: self.out.clone() };
        self.opened.send(opened).await.map_err(|_| ReadError::Closed)
    }

    /// The peer has closed its side of a stream.
    async fn finish(&mut self, id: u32) {
        if let Some(mut pipe) = self.streams.get_mut(&id).and_then(|entry| entry.pipe.take()) {
            let _ = pipe.shutdown().await;
        }
    }

    /// Passes the payload of a data frame on as it comes, without ever holding the whole of it.
    async fn data<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut BufReader<R>,
        id: u32,
        fin: bool,
        length: usize,
    ) -> Result<(), ReadError> {
        if id > self.last {
            self.send(Out::Control(Control::Reset { id, status: status::INVALID_STREAM })).await?;
        }
        let mut left = length;
        while left > 0 {
            let available = reader.fill_buf().await?;
            if available.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let count = available.len().min(left);
            if let Some(entry) = self.streams.get_mut(&id)
                && let Some(pipe) = &mut entry.pipe
                && pipe.write_all(&available[..count]).await.is_err()
            {
                // Nobody reads this stream: its data goes nowhere, and the others go on.
                entry.pipe = None;
            }
            reader.consume(count);
            left -= count;
        }
        self.grant(id, length as u32).await?;
        if fin {
            self.finish(id).await;
        }
        Ok(())
    }

    /// Grants the peer what was taken in.
    async fn grant(&mut self, id: u32, received: u32) -> Result<(), ReadError> {
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.ungranted = entry.ungranted.saturating_add(received);
            if entry.ungranted >= GRANT {
                let delta = std::mem::take(&mut entry.ungranted);
                self.send(Out::Control(Control::WindowUpdate { id, delta })).await?;
            }
        }
        // The window of the whole connection came with 3.1; only a peer that has shown that it counts gets told of it.
        self.session_ungranted = self.session_ungranted.saturating_add(received);
        let counts = self.holds.load(Ordering::Acquire) || self.session_holds.load(Ordering::Acquire);
        if counts && self.session_ungranted >= GRANT {
            let delta = std::mem::take(&mut self.session_ungranted);
            self.send(Out::Control(Control::WindowUpdate { id: 0, delta })).await?;
        }
        Ok(())
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
