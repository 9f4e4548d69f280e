//! Attaching to a container's main process.
//!
//! Who attaches to a short command comes late: it has said everything and ended, maybe, before its pod is seen to run, and
//! Docker lets one attach to what has ended, and wait for ever. So a container with standard input, which is made to be
//! attached to (`kubectl run -i`, `kubectl debug -i`), is attached to before it starts, as `docker run` does, and the first
//! who comes takes that over. (Upstream loses what was said before, and leaves it to kubectl to print the log when nothing
//! can be attached to any more.) Every attachment ends with its container, and one to an ended container that nothing is
//! held of is refused before anything is passed on: kubectl prints the log then, so nothing may be told twice. kubectl from
//! 1.36 on prints the log before it attaches, too: what was read of the log is not told again to the one who attaches.

use std::collections::{HashMap, HashSet};
use std::io::{self, Cursor};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bollard::query_parameters::ResizeContainerTTYOptionsBuilder;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, MutexGuard};
use runtime::{ContainerState, Error};
use streaming::{CommandOptions, Streams, TerminalSize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::Sleep;
use tokio_util::codec::Decoder;

use crate::exec::{DETACH_KEYS, End, RETRIES, RETRY_PAUSE, relay};
use crate::stdcopy::{Source, StdcopyDecoder, frame};
use crate::{CALL_TIMEOUT, Docker};

/// How long a container is listened to for somebody who may come.
const HOLD: Duration = Duration::from_secs(60);
/// The most that is kept for them, in bytes. A container that says more without anybody there is not made to wait: what is
/// kept is dropped, and whoever comes later hears it from then on.
const HOLD_LIMIT: usize = 64 * 1024;
/// The most containers that are listened to at a time.
const HOLD_COUNT: usize = 64;
/// After a container's end its output is over when nothing has come for so long: Docker may forget to close it.
const QUIET: Duration = Duration::from_secs(2);

type Connection = TokioIo<Upgraded>;

/// The containers that wait for somebody to attach to them. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attachments(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Made with standard input, and not started yet.
    expected: HashSet<String>,
    held: HashMap<String, Holder>,
}

/// Where a container's outputs can be had.
#[derive(Debug)]
struct Holder {
    claim: oneshot::Sender<oneshot::Sender<Held>>,
    logged: Logged,
}

/// How many bytes of a held container's standard output (or terminal) and standard error were read from its log, from its
/// start on. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logged(Arc<[AtomicUsize; 2]>);

impl Logged {
    /// One reader of the log, who begins at its start: what it is told counts as far as nobody was told as much before.
    pub(crate) fn reader(&self) -> impl FnMut(Source, usize) + Send + 'static {
        let (logged, mut told) = (self.clone(), [0; 2]);
        move |source, length| {
            let index = usize::from(source == Source::Stderr);
            told[index] += length;
            logged.0[index].fetch_max(told[index], Ordering::Relaxed);
        }
    }

    /// Takes what was read from the log out of the outputs that were kept.
    fn forget(&self, early: &BytesMut, tty: bool) -> BytesMut {
        let [out, err] = [0, 1].map(|index| self.0[index].load(Ordering::Relaxed));
        if tty {
            return early[out.min(early.len())..].into();
        }
        let (mut kept, mut frames, mut left) = (BytesMut::new(), early.clone(), [out, err]);
        while let Ok(Some((source, data))) = StdcopyDecoder.decode(&mut frames) {
            let left = &mut left[usize::from(source == Source::Stderr)];
            let known = data.len().min(*left);
            *left -= known;
            kept.extend_from_slice(&frame(source, &data[known..]));
        }
        // What is left is the beginning of a frame.
        kept.extend_from_slice(&frames);
        kept
    }
}

/// A container's outputs from its start on: what has been read, and where the rest comes from.
#[derive(Debug)]
struct Held {
    early: BytesMut,
    rest: Connection,
}

impl Attachments {
    /// Notes that somebody may attach to a container as soon as it starts.
    pub(crate) fn expect(&self, id: &str) {
        self.state().expected.insert(id.to_owned());
    }

    /// Whether that was noted; it is forgotten with the answer.
    pub(crate) fn take_expected(&self, id: &str) -> bool {
        self.state().expected.remove(id)
    }

    /// Takes over a container's outputs, if they are held.
    async fn claim(&self, id: &str, tty: bool) -> Option<Held> {
        let Holder { claim, logged } = self.state().held.remove(id)?;
        let (send, held) = oneshot::channel();
        claim.send(send).ok()?;
        let Held { early, rest } = held.await.ok()?;
        Some(Held { early: logged.forget(&early, tty), rest })
    }

    /// Where to note what is read of the log of a container whose outputs are held.
    pub(crate) fn logged(&self, id: &str) -> Option<Logged> {
        self.state().held.get(id).map(|holder| holder.logged.clone())
    }

    fn hold(&self, id: String, outputs: Connection) {
        let (claim, claimed) = oneshot::channel();
        {
            let mut state = self.state();
            if state.held.len() >= HOLD_COUNT {
                return;
            }
            state.held.insert(id.clone(), Holder { claim, logged: Logged::default() });
        }
        let attachments = self.clone();
        tokio::spawn(async move {
            keep(outputs, claimed).await;
            attachments.state().held.remove(&id);
        });
    }

    /// Held for a look or a change, and consistent after each.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

/// Listens to a container until somebody takes over, or nobody comes.
async fn keep(mut outputs: Connection, mut claimed: oneshot::Receiver<oneshot::Sender<Held>>) {
    let mut early = BytesMut::new();
    let mut open = true;
    let nobody = tokio::time::sleep(HOLD);
    tokio::pin!(nobody);
    loop {
        tokio::select! {
            biased;
            claim = &mut claimed => {
                if let Ok(claim) = claim {
                    // A caller that has left meanwhile leaves nothing to be told.
                    let _ = claim.send(Held { early, rest: outputs });
                }
                return;
            }
            () = &mut nobody => return,
            read = outputs.read_buf(&mut early), if open => match read {
                // It may have ended, and somebody is on the way.
                Ok(0) | Err(_) => open = false,
                Ok(_) if early.len() > HOLD_LIMIT => return,
                Ok(_) => {}
            },
        }
    }
}

/// Attaches to a container that is about to start, for whoever comes. That this fails is no reason not to start it.
pub(crate) async fn hold(docker: &Docker, id: &str) {
    let outputs = async {
        let tty = docker.terminal(id).await?;
        open(docker, id, CommandOptions { stdin: false, stdout: true, stderr: !tty, tty }).await
    };
    match outputs.await {
        Ok(outputs) => docker.attachments().hold(id.to_owned(), outputs),
        Err(error) => tracing::debug!(%error, container = id, "cannot attach to a container before its start"),
    }
}

/// Connects `streams` to the container's main process.
pub(crate) async fn attach(docker: &Docker, id: &str, options: CommandOptions, streams: Streams) -> Result<i32, Error> {
    let tty = docker.terminal(id).await?;
    let wanted = CommandOptions { stdout: options.stdout || tty, stderr: options.stderr && !tty, ..options };
    let (outputs, input): (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>) =
        match docker.attachments().claim(id, tty).await {
            Some(Held { early, rest }) => {
                let input: Box<dyn AsyncWrite + Send + Unpin> = match options.stdin {
                    true => {
                        Box::new(open(docker, id, CommandOptions { stdin: true, ..CommandOptions::default() }).await?)
                    }
                    false => Box::new(tokio::io::sink()),
                };
                (Box::new(Cursor::new(early).chain(rest)), input)
            }
            None => {
                let (outputs, input) = tokio::io::split(open(docker, id, wanted).await?);
                // Asked after the connection is there: what runs now will end it.
                if !docker.inspect(id).await?.is_some_and(|container| container.state.is_running()) {
                    return Err(Error::Conflict(format!("container {id} is not running")));
                }
                (Box::new(outputs), Box::new(input))
            }
        };
    let resize = |size: TerminalSize| {
        let (docker, id) = (docker.clone(), id.to_owned());
        async move {
            let options = ResizeContainerTTYOptionsBuilder::new().w(size.width.into()).h(size.height.into()).build();
            let resized = docker.call(CALL_TIMEOUT, docker.client().resize_container_tty(&id, options)).await;
            if let Err(error) = resized {
                tracing::debug!(%error, container = id, "cannot resize the terminal");
            }
        }
    };
    let outputs = UntilEnd::new(outputs, end_of(docker, id));
    match relay(outputs, input, tty, streams, resize).await {
        Ok(End::CallerLeft) => Ok(0),
        Ok(End::Finished) => Ok(exit_code(docker, id).await),
        Err(error) => Err(Error::Other(format!("lost the connection to the container: {error}"))),
    }
}

async fn open(docker: &Docker, id: &str, streams: CommandOptions) -> Result<Connection, Error> {
    let flag = u8::from;
    let path = format!(
        "/containers/{id}/attach?stream=1&stdin={}&stdout={}&stderr={}&detachKeys={}",
        flag(streams.stdin),
        flag(streams.stdout),
        flag(streams.stderr),
        percent_encoding::utf8_percent_encode(DETACH_KEYS, percent_encoding::NON_ALPHANUMERIC),
    );
    docker.transport().hijack(&path, Bytes::new()).await
}

/// Done when the container has ended; never if Docker cannot tell.
fn end_of(docker: &Docker, id: &str) -> BoxFuture<'static, ()> {
    let (docker, id) = (docker.clone(), id.to_owned());
    Box::pin(async move {
        match docker.ended(&id).await {
            Ok(()) | Err(Error::NotFound(_)) => {}
            Err(error) => {
                tracing::debug!(%error, container = id, "cannot wait for the end of an attached container");
                std::future::pending::<()>().await;
            }
        }
    })
}

/// How a container ended whose outputs are closed; 0 where that cannot be told. No error: its caller has all it said.
async fn exit_code(docker: &Docker, id: &str) -> i32 {
    for _ in 0..RETRIES {
        match docker.inspect(id).await.map(|found| found.map(|container| container.state)) {
            Ok(Some(ContainerState::Exited { exit_code, .. })) => return exit_code,
            // The output can end a moment before the container does.
            Ok(Some(_)) => tokio::time::sleep(RETRY_PAUSE).await,
            Ok(None) | Err(_) => break,
        }
    }
    0
}

/// A container's outputs, which are over once it has ended and nothing more comes.
struct UntilEnd<R> {
    outputs: R,
    end: BoxFuture<'static, ()>,
    ended: bool,
    /// The connection broke, as it may when the container ends.
    broken: Option<io::Error>,
    /// Runs while there is nothing to read.
    quiet: Option<Pin<Box<Sleep>>>,
}

impl<R> UntilEnd<R> {
    fn new(outputs: R, end: BoxFuture<'static, ()>) -> Self {
        Self { outputs, end, ended: false, broken: None, quiet: None }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for UntilEnd<R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ended && this.end.as_mut().poll(cx).is_ready() {
            this.ended = true;
            this.quiet = None;
        }
        if this.broken.is_none() {
            match Pin::new(&mut this.outputs).poll_read(cx, buffer) {
                Poll::Ready(Ok(())) => {
                    this.quiet = None;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => {
                    this.broken = Some(error);
                    this.quiet = None;
                }
                Poll::Pending => {}
            }
        }
        match (this.ended, this.broken.is_some()) {
            (true, true) => return Poll::Ready(Ok(())),
            // It goes on, and has nothing to say.
            (false, false) => return Poll::Pending,
            _ => {}
        }
        let quiet = this.quiet.get_or_insert_with(|| Box::pin(tokio::time::sleep(QUIET)));
        ready!(quiet.as_mut().poll(cx));
        Poll::Ready(this.broken.take().map_or(Ok(()), Err))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::pending;
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn what_was_read_of_the_log_is_not_told_again() {
        let early: BytesMut = [
            frame(Source::Stdout, b"first\n"),
            frame(Source::Stderr, b"second\n"),
            frame(Source::Stdout, b"third\n"),
            b"\x01\0\0".to_vec(),
        ]
        .concat()
        .as_slice()
        .into();
        let check = |out: usize, err: usize, expected: &[(Source, &str)]| {
            let logged = Logged::default();
            // Two who read the log have not been told twice as much.
            for _ in 0..2 {
                let mut note = logged.reader();
                note(Source::Stdout, out);
                note(Source::Stderr, err);
            }
            let mut kept = logged.forget(&early, false);
            let mut told = Vec::new();
            while let Ok(Some((source, data))) = StdcopyDecoder.decode(&mut kept) {
                told.push((source, String::from_utf8_lossy(&data).into_owned()));
            }
            told.retain(|(_, data)| !data.is_empty());
            let expected: Vec<_> = expected.iter().map(|(source, data)| (*source, (*data).to_owned())).collect();
            assert_eq!(told, expected, "{out} {err}");
            assert_eq!(&kept[..], b"\x01\0\0", "the beginning of a frame stays");
        };
        let (out, err) = (Source::Stdout, Source::Stderr);
        check(0, 0, &[(out, "first\n"), (err, "second\n"), (out, "third\n")]);
        check(6, 0, &[(err, "second\n"), (out, "third\n")]);
        check(8, 7, &[(out, "ird\n")]);
        check(100, 100, &[]);
        let logged = Logged::default();
        logged.reader()(Source::Stdout, 2);
        assert_eq!(&logged.forget(&BytesMut::from(&b"typed"[..]), true)[..], b"ped");
    }

    #[tokio::test(start_paused = true)]
    async fn outputs_that_nobody_closes_are_over_after_the_end() {
        let (mut far, near) = tokio::io::duplex(64);
        let (end, ended) = oneshot::channel::<()>();
        let mut outputs = UntilEnd::new(near, Box::pin(ended.map(drop)));
        let mut buffer = [0; 64];
        assert!(tokio::time::timeout(QUIET * 5, outputs.read(&mut buffer)).await.is_err(), "a quiet one goes on");
        end.send(()).unwrap();
        far.write_all(b"last").await.unwrap();
        assert_eq!(outputs.read(&mut buffer).await.unwrap(), 4, "what is there is read");
        assert_eq!(outputs.read(&mut buffer).await.unwrap(), 0, "and then it is over");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_breaks_is_over_with_its_container_only() {
        struct Broken;
        impl AsyncRead for Broken {
            fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
        }
        let mut buffer = [0; 64];
        let soon = tokio::time::sleep(QUIET / 2);
        assert_eq!(UntilEnd::new(Broken, Box::pin(soon)).read(&mut buffer).await.unwrap(), 0);
        let running = UntilEnd::new(Broken, Box::pin(pending())).read(&mut buffer).await.unwrap_err();
        assert_eq!(running.kind(), io::ErrorKind::ConnectionReset);
    }
}
