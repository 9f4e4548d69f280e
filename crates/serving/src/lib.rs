//! What the servers of HTTP in this process have in common: how a client's socket is set up, when a client has taken nothing for
//! too long, and when an HTTP/2 connection is idle.
//!
//! The API server and the proxy of Ingresses differ in all that they answer, and bound their clients in the same way.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// How many streams a client may open and reset at once before the connection ends ("rapid reset", CVE-2023-44487); h2's own
/// default, which is not to change unnoticed.
pub const PENDING_RESETS: usize = 20;
/// How many streams a client may make the server reset before the connection ends.
pub const LOCAL_RESETS: usize = 250;

/// Small writes go out at once, and a peer that has vanished is noticed after about a minute.
pub fn prepare_socket(stream: &TcpStream) {
    use rustix::net::sockopt;
    let set = || {
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, Duration::from_secs(30))?;
        sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10))?;
        sockopt::set_tcp_keepcnt(stream, 3)?;
        io::Result::Ok(())
    };
    if let Err(error) = set() {
        tracing::debug!(%error, "cannot set socket options");
    }
}

/// The streams of an HTTP/2 connection.
#[derive(Debug)]
pub struct Streams {
    open: AtomicUsize,
    // Never held across an await.
    last_closed: Mutex<Instant>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { open: AtomicUsize::new(0), last_closed: Mutex::new(Instant::now()) }
    }
}

impl Streams {
    /// Notes a further stream.
    #[must_use = "it is open until this is dropped"]
    pub fn open(self: &Arc<Self>) -> OpenStream {
        self.open.fetch_add(1, Ordering::AcqRel);
        OpenStream(Arc::clone(self))
    }

    /// Waits until there has been no stream for so long. It looks from time to time, so that streams that come and go wake
    /// nobody.
    pub async fn idle(&self, limit: Duration) {
        loop {
            let end =
                if self.open.load(Ordering::Acquire) > 0 { Instant::now() } else { *self.last_closed.lock() } + limit;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// A stream that is open until this is dropped.
#[derive(Debug)]
pub struct OpenStream(Arc<Streams>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        *self.0.last_closed.lock() = Instant::now();
        self.0.open.fetch_sub(1, Ordering::Release);
    }
}

/// Whether the client of a connection takes what it is sent.
#[derive(Debug)]
pub struct Stall {
    limit: Duration,
    /// When it has taken nothing for too long; there while it takes nothing.
    end: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// Of a client that may take nothing for so long.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self { limit, end: None }
    }

    /// What became of a write, unless the client has taken nothing for too long. While it `lasts`, what is sent may wait for
    /// ever.
    pub fn or_stalled<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        lasts: bool,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() || lasts {
            self.end = None;
            return written;
        }
        let until = Instant::now() + self.limit;
        let end = self.end.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        ready!(end.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_its_last_stream_was_closed_long_ago() {
        let streams = Arc::new(Streams::default());
        let (first, second) = (streams.open(), streams.open());
        assert!(tokio::time::timeout(LIMIT * 5, streams.idle(LIMIT)).await.is_err(), "two are open");
        drop(first);
        assert!(tokio::time::timeout(LIMIT * 5, streams.idle(LIMIT)).await.is_err(), "one is open");
        drop(second);
        let closed = Instant::now();
        streams.idle(LIMIT).await;
        assert!(closed.elapsed() >= LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up_unless_what_it_is_sent_lasts() {
        let mut stall = Stall::new(LIMIT);
        let mut ask = async |written: fn() -> Poll<io::Result<()>>, lasts| {
            let asked = poll_fn(|context| stall.or_stalled(context, written(), lasts));
            tokio::time::timeout(LIMIT * 2, asked).await
        };
        let pending = || Poll::Pending;
        assert!(ask(pending, true).await.is_err(), "it may wait for ever");
        let given_up = ask(pending, false).await.expect("it ends").expect_err("it fails");
        assert_eq!(given_up.kind(), io::ErrorKind::TimedOut);
        assert!(ask(|| Poll::Ready(Ok(())), false).await.expect("it ends").is_ok());
    }
}
