//! Remote commands over SPDY: one stream for each of the client's.

use std::future::Future;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tracing::debug;

use super::{Version, outcome, resize};
use crate::spdy::{Connection, Stream};
use crate::{CommandOptions, NodeError, Streams};

/// How long the client has to open its streams.
const OPENING: Duration = Duration::from_secs(30);
/// Bytes that are read from a stream at once.
const CHUNK: usize = 16 * 1024;
/// Chunks between a stream and the command.
const QUEUE: usize = 4;

/// The client's streams, as it opened them.
#[derive(Default)]
struct Opened {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

impl Opened {
    /// The place of a stream, if the client is to have it.
    fn place(&mut self, kind: &str, version: Version, options: CommandOptions) -> Option<&mut Option<Stream>> {
        match kind {
            "error" => Some(&mut self.error),
            "stdin" if options.stdin => Some(&mut self.stdin),
            "stdout" if options.stdout => Some(&mut self.stdout),
            "stderr" if options.stderr => Some(&mut self.stderr),
            "resize" if options.tty && version >= 3 => Some(&mut self.resize),
            _ => None,
        }
    }

    fn complete(&self, version: Version, options: CommandOptions) -> bool {
        self.error.is_some()
            && self.stdin.is_some() == options.stdin
            && self.stdout.is_some() == options.stdout
            && self.stderr.is_some() == options.stderr
            && self.resize.is_some() == (options.tty && version >= 3)
    }
}

pub(super) async fn serve<S, F, R>(io: S, version: Version, options: CommandOptions, command: F)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: FnOnce(Streams) -> R + Send,
    R: Future<Output = Result<i32, NodeError>> + Send,
{
    let (reader, writer) = tokio::io::split(io);
    let mut connection = Connection::serve(reader, writer);
    let opened = tokio::time::timeout(OPENING, open(&mut connection, version, options)).await;
    let Ok(Some(opened)) = opened else {
        debug!("the client did not open its streams");
        return connection.shutdown().await;
    };
    let error = opened.error;
    let closed = connection.closed();
    tokio::select! {
        result = run(opened.stdin, opened.stdout, opened.stderr, opened.resize, options, command) => {
            if let Some(mut error) = error {
                // A client that is gone has no use for the outcome.
                let _ = error.write_all(&outcome(version, &result)).await;
                let _ = error.shutdown().await;
            }
        }
        () = closed => debug!("the client left before its command ended"),
    }
    connection.shutdown().await;
}

async fn open(connection: &mut Connection, version: Version, options: CommandOptions) -> Option<Opened> {
    let mut streams = Opened::default();
    while !streams.complete(version, options) {
        let stream = connection.next().await?;
        let kind = stream.headers.get("streamtype").unwrap_or_default().to_owned();
        match streams.place(&kind, version, options) {
            Some(place @ None) => *place = Some(stream.accept().await),
            // One that was not asked for, or the second of its kind.
            _ => stream.refuse().await,
        }
    }
    Some(streams)
}

/// Runs the command with its streams, and returns when it has ended and all of its output is on the way.
async fn run<F, R>(
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
    options: CommandOptions,
    command: F,
) -> Result<i32, NodeError>
where
    F: FnOnce(Streams) -> R + Send,
    R: Future<Output = Result<i32, NodeError>> + Send,
{
    let (sizes, feed, resize_rx, seen) = resize::channel();
    let (stdin_tx, stdin_rx) = mpsc::channel(QUEUE);
    let (stdout_tx, stdout_rx) = mpsc::channel(QUEUE);
    let (stderr_tx, stderr_rx) = mpsc::channel(QUEUE);
    let streams = Streams {
        stdin: options.stdin.then_some(stdin_rx),
        stdout: options.stdout.then_some(stdout_tx),
        stderr: options.stderr.then_some(stderr_tx),
        resize: resize_rx,
    };
    let sized = resize.is_some();
    let input = async { tokio::join!(read_input(stdin, stdin_tx), read_sizes(resize, sizes), feed.run()) };
    let work = async {
        let command = async {
            if sized {
                resize::wait(seen).await;
            }
            command(streams).await
        };
        tokio::join!(command, write_output(stdout, stdout_rx), write_output(stderr, stderr_rx)).0
    };
    tokio::pin!(work);
    tokio::select! {
        result = &mut work => result,
        // The client has nothing more to say: the command goes on.
        _ = input => work.await,
    }
}

async fn read_input(stream: Option<Stream>, sender: mpsc::Sender<Bytes>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match stream.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                if sender.send(buffer.split().freeze()).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn read_sizes(stream: Option<Stream>, mut sizes: resize::Sizes) {
    let Some(mut stream) = stream else { return };
    let mut chunk = [0; 256];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        if !sizes.feed(&chunk[..count]) {
            return;
        }
    }
}

async fn write_output(stream: Option<Stream>, mut receiver: mpsc::Receiver<Bytes>) {
    let Some(mut stream) = stream else { return };
    while let Some(bytes) = receiver.recv().await {
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}
