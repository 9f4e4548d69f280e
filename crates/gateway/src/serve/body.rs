//! Bodies of requests and responses.

use std::any::Any;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

/// Why a body ended early.
pub(super) type BodyError = Box<dyn Error + Send + Sync>;

/// So many pieces of a copy may wait to be taken.
const WAITING: usize = 16;

/// A body that is sent.
pub(crate) enum ProxyBody {
    Empty,
    Text(Bytes),
    /// One that comes in from the other side.
    Passed(Box<Passed>),
    /// A copy of one that is passed: its pieces as they pass, and none in their place at its end.
    Copied(mpsc::Receiver<Option<Bytes>>, SizeHint),
}

/// A body as it comes in from one side and goes out to the other, piece by piece.
pub(crate) struct Passed {
    body: Incoming,
    /// How long nothing of it may come.
    stall: Duration,
    /// Until when all of it must have come.
    until: Option<Instant>,
    /// Runs while nothing comes.
    timer: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
    /// Who gets a copy.
    copies: Vec<mpsc::Sender<Option<Bytes>>>,
    /// Kept until the end.
    _held: Option<Box<dyn Any + Send>>,
}

impl ProxyBody {
    /// Passes a body on.
    pub(super) fn pass(
        body: Incoming,
        stall: Duration,
        until: Option<Instant>,
        held: Option<Box<dyn Any + Send>>,
    ) -> Self {
        if body.is_end_stream() {
            return Self::Empty;
        }
        Self::Passed(Box::new(Passed {
            body,
            stall,
            until,
            timer: None,
            is_waiting: false,
            copies: Vec::new(),
            _held: held,
        }))
    }
}

impl ProxyBody {
    /// A copy, whose pieces come as they pass here; without trailers. Nobody waits for whoever takes it: when it is taken too slowly
    /// it breaks off.
    pub(super) fn copied(&mut self) -> Self {
        match self {
            Self::Empty => Self::Empty,
            Self::Text(text) => Self::Text(text.clone()),
            Self::Passed(passed) => {
                let (sender, receiver) = mpsc::channel(WAITING);
                passed.copies.push(sender);
                Self::Copied(receiver, passed.body.size_hint())
            }
            Self::Copied(..) => unreachable!("copies are made of what is passed"),
        }
    }
}

impl Passed {
    /// Hands out copies of what has come.
    fn copy(&mut self, frame: Option<&Result<Frame<Bytes>, hyper::Error>>) {
        let data = match frame {
            Some(Ok(frame)) => frame.data_ref(),
            // Copies break off as well.
            Some(Err(_)) => return self.copies.clear(),
            None => None,
        };
        let is_end = frame.is_none() || self.body.is_end_stream();
        self.copies.retain(|copy| {
            data.is_none_or(|data| copy.try_send(Some(data.clone())).is_ok())
                && (!is_end || copy.try_send(None).is_ok())
        });
        if is_end {
            self.copies.clear();
        }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let now = Instant::now();
        if self.until.is_none_or(|until| now < until) {
            if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
                self.is_waiting = false;
                if !self.copies.is_empty() {
                    self.copy(frame.as_ref());
                }
                return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
            }
            if !self.is_waiting {
                self.is_waiting = true;
                let stalled = now + self.stall;
                let deadline = self.until.map_or(stalled, |until| until.min(stalled));
                match &mut self.timer {
                    Some(timer) => timer.as_mut().reset(deadline),
                    None => self.timer = Some(Box::pin(tokio::time::sleep_until(deadline))),
                }
            }
            if let Some(timer) = &mut self.timer {
                ready!(timer.as_mut().poll(context));
            }
        }
        let error = io::Error::new(io::ErrorKind::TimedOut, "the rest of the body took too long");
        Poll::Ready(Some(Err(error.into())))
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Text(text) => {
                let text = std::mem::take(text);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(text))))
            }
            Self::Passed(passed) => passed.poll_frame(context),
            Self::Copied(pieces, _) => Poll::Ready(match ready!(pieces.poll_recv(context)) {
                Some(Some(piece)) => Some(Ok(Frame::data(piece))),
                Some(None) => {
                    *self = Self::Empty;
                    None
                }
                None => Some(Err("the copy of a body breaks off".into())),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Text(_) | Self::Copied(..) => false,
            Self::Passed(passed) => passed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Text(text) => SizeHint::with_exact(text.len() as u64),
            Self::Passed(passed) => passed.body.size_hint(),
            Self::Copied(_, size) => *size,
        }
    }
}
