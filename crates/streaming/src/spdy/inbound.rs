//! The reading side of a connection: frames in, streams fed.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, WriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::frame::{Control, FrameError, HEAD, Head, status};
use super::headers::{BlockError, Decoder, Headers};
use super::pump::Pump;
use super::stream::{MAX_STREAMS, Opened, Out, Stream};
use super::window::{self, Window};

/// What a stream holds in each direction, in bytes.
const PIPE: usize = 64 * 1024;
/// Received bytes after which the peer is granted more.
const GRANT: u32 = 32 * 1024;

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Block(#[from] BlockError),
    #[error("the connection is closed")]
    Closed,
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
pub(super) struct Inbound {
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
    pub(super) fn new(out: mpsc::Sender<Out>, opened: mpsc::Sender<Opened>, pumps: mpsc::Sender<Pump>) -> Self {
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
    pub(super) async fn run<R: AsyncRead + Unpin>(&mut self, reader: &mut BufReader<R>) -> Result<(), ReadError> {
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
        if id.is_multiple_of(2) || id <= self.last {
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
