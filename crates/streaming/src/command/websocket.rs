//! Remote commands over WebSocket: one channel for each of the client's streams.

use std::future::Future;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tracing::debug;

use super::{Version, outcome, resize};
use crate::websocket::{self, Encoding, Source};
use crate::{CommandOptions, NodeError, Streams};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// From version 5 on: the channel that follows is closed.
const CLOSE: u8 = 255;

/// Chunks between the connection and the command.
const QUEUE: usize = 4;

pub(super) async fn serve<S, F, R>(io: S, version: Version, encoding: Encoding, options: CommandOptions, command: F)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: FnOnce(Streams) -> R + Send,
    R: Future<Output = Result<i32, NodeError>> + Send,
{
    let (mut sender, mut source) = websocket::open(io).await;
    let (messages, mut queue) = mpsc::channel(websocket::QUEUE);
    // An empty message on the lowest channel tells the client that it is connected.
    let lowest = if options.stdout {
        STDOUT
    } else if options.stderr {
        STDERR
    } else {
        ERROR
    };
    // The queue is empty and has room.
    let _ = messages.try_send(encoding.encode(lowest, &[]));

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
    let mut input =
        Input { version, encoding, stdin: options.stdin.then_some(stdin_tx), sizes: options.tty.then_some(sizes) };

    let work = async move {
        let command = async {
            if options.tty {
                resize::wait(seen).await;
            }
            command(streams).await
        };
        let (result, (), ()) = tokio::join!(
            command,
            write_output(STDOUT, encoding, stdout_rx, &messages),
            write_output(STDERR, encoding, stderr_rx, &messages),
        );
        // A client that is gone has no use for the outcome.
        let _ = messages.send(encoding.encode(ERROR, &outcome(version, &result))).await;
    };
    let gone = async {
        // A command that takes no sizes must not hide that the client has left.
        let feed = async {
            feed.run().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = input.run(&mut source) => {}
            () = feed => {}
        }
    };
    tokio::select! {
        // The writer ends when the work has ended and everything is written.
        ((), written) = async { tokio::join!(work, websocket::write(&mut sender, &mut queue)) } => {
            if written.is_ok() {
                websocket::close(&mut sender, &mut source).await;
            }
        }
        () = gone => debug!("the client left before its command ended"),
    }
}

/// What the client sends.
struct Input {
    version: Version,
    encoding: Encoding,
    stdin: Option<mpsc::Sender<Bytes>>,
    sizes: Option<resize::Sizes>,
}

impl Input {
    /// Reads until the client is gone.
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(&mut self, source: &mut Source<S>) {
        while let Some(message) = websocket::next(source).await {
            self.message(message).await;
        }
        self.stdin = None;
        self.sizes = None;
    }

    async fn message(&mut self, message: Message) {
        match self.encoding.decode(message) {
            Some((STDIN, bytes)) if !bytes.is_empty() => {
                if let Some(stdin) = &self.stdin
                    && stdin.send(bytes).await.is_err()
                {
                    self.stdin = None;
                }
            }
            Some((RESIZE, bytes)) => {
                if let Some(sizes) = &mut self.sizes
                    && !sizes.feed(&bytes)
                {
                    self.sizes = None;
                }
            }
            Some((CLOSE, bytes)) if self.version >= 5 && *bytes == [STDIN] => self.stdin = None,
            // Nothing for us, as upstream has it.
            _ => {}
        }
    }
}

async fn write_output(
    channel: u8,
    encoding: Encoding,
    mut receiver: mpsc::Receiver<Bytes>,
    messages: &mpsc::Sender<Message>,
) {
    while let Some(bytes) = receiver.recv().await {
        if !bytes.is_empty() && messages.send(encoding.encode(channel, &bytes)).await.is_err() {
            return;
        }
    }
}
