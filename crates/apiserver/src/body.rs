//! Bodies of responses. Those of requests are in [`request`].

mod request;

use std::collections::VecDeque;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use http_body::{Body, Frame, SizeHint};

use crate::flowcontrol::Seat;

pub(crate) use request::{BodyBudget, LIMIT, RequestBody};

/// The body of a response.
pub(crate) struct ResponseBody {
    kind: Kind,
    /// The request has its seats until the body has been taken.
    _seat: Option<Seat>,
    /// Until when it has to be taken.
    until: Option<Instant>,
}

enum Kind {
    Empty,
    Once(Bytes),
    /// Pieces whose sum is known, sent in frames of a good size.
    Pieces {
        pieces: VecDeque<Bytes>,
        left: u64,
    },
    Stream {
        stream: BoxStream<'static, io::Result<Bytes>>,
        /// How many bytes are still to come, where that is known.
        left: Option<u64>,
    },
}

/// Small pieces are gathered into frames of about this size.
const FRAME: usize = 64 * 1024;

impl ResponseBody {
    /// No body.
    #[must_use]
    pub(crate) const fn empty() -> Self {
        Self { kind: Kind::Empty, _seat: None, until: None }
    }

    /// One piece.
    #[must_use]
    pub(crate) fn once(bytes: impl Into<Bytes>) -> Self {
        Kind::Once(bytes.into()).into()
    }

    /// Many pieces, one after the other: a list, without a copy of it in memory.
    #[must_use]
    pub(crate) fn pieces(pieces: VecDeque<Bytes>) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Kind::Pieces { pieces, left }.into()
    }

    /// What comes, as it comes. A panic on the way ends this body and nothing else.
    #[must_use]
    pub(crate) fn stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self::streamed(None, stream)
    }

    /// As [`ResponseBody::stream`], of so many bytes.
    #[must_use]
    pub(crate) fn sized_stream(length: u64, stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self::streamed(Some(length), stream)
    }

    /// What is to be sent, where it is known already.
    pub(crate) fn at_hand(&self) -> Option<VecDeque<Bytes>> {
        match &self.kind {
            Kind::Once(bytes) => Some([bytes.clone()].into()),
            Kind::Pieces { pieces, .. } => Some(pieces.clone()),
            Kind::Empty | Kind::Stream { .. } => None,
        }
    }

    /// Keeps something until the end of a stream. Of what is at hand, the end is now.
    #[must_use]
    pub(crate) fn keeping(self, held: impl Send + 'static) -> Self {
        let Self { kind, _seat, until } = self;
        let kind = match kind {
            Kind::Stream { stream, left } => {
                let stream = stream.map(move |item| {
                    let _ = &held;
                    item
                });
                Kind::Stream { stream: stream.boxed(), left }
            }
            kind => kind,
        };
        Self { kind, _seat, until }
    }

    fn streamed(left: Option<u64>, stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        let caught = AssertUnwindSafe(stream).catch_unwind().map(|item| {
            item.unwrap_or_else(|panic| {
                tracing::error!(panic = panic_text(&*panic), "the stream of a response panicked");
                Err(io::Error::other("the server failed"))
            })
        });
        Kind::Stream { stream: caught.boxed(), left }.into()
    }

    /// The same, which breaks off when it has not been taken by then, as upstream does with what takes too long.
    #[must_use]
    pub(crate) fn ending(self, until: Option<Instant>) -> Self {
        Self { until, ..self }
    }

    /// The same, whose request keeps its seats until it has been taken. Only what is large and was made for this one response is
    /// worth that: pieces are the store's own bytes, streams are made as they are taken, and what is small is buffered at once.
    #[must_use]
    pub(crate) fn holding(self, seat: Option<Seat>) -> Self {
        let is_large = matches!(&self.kind, Kind::Once(bytes) if bytes.len() > FRAME);
        Self { _seat: seat.filter(|_| is_large), ..self }
    }
}

impl From<Kind> for ResponseBody {
    fn from(kind: Kind) -> Self {
        Self { kind, _seat: None, until: None }
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self::once(bytes)
    }
}

impl From<http_body_util::Empty<Bytes>> for ResponseBody {
    fn from(_: http_body_util::Empty<Bytes>) -> Self {
        Self::empty()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.until.is_some_and(|until| Instant::now() > until) {
            return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the response took too long"))));
        }
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Once(bytes) => {
                if bytes.len() > FRAME {
                    // In pieces: what has been handed out is buffered, whether or not the client takes it.
                    let piece = bytes.split_to(FRAME);
                    if bytes.len() <= FRAME {
                        // The last one may be kept for long, and is not to keep the whole.
                        *bytes = Bytes::copy_from_slice(bytes);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Kind::Pieces { pieces, left } => {
                let frame = next_frame(pieces);
                *left -= frame.as_ref().map_or(0, |frame| frame.len() as u64);
                Poll::Ready(frame.map(|frame| Ok(Frame::data(frame))))
            }
            Kind::Stream { stream, left } => {
                let next = ready!(stream.as_mut().poll_next(context));
                if let (Some(left), Some(Ok(bytes))) = (left, &next) {
                    *left = left.saturating_sub(bytes.len() as u64);
                }
                Poll::Ready(next.map(|item| item.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Once(bytes) => bytes.is_empty(),
            Kind::Pieces { left, .. } => *left == 0,
            Kind::Stream { left, .. } => *left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Once(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Pieces { left, .. } => SizeHint::with_exact(*left),
            Kind::Stream { left, .. } => left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

fn next_frame(pieces: &mut VecDeque<Bytes>) -> Option<Bytes> {
    let first = pieces.pop_front()?;
    if first.len() >= FRAME || pieces.is_empty() {
        return Some(first);
    }
    let mut frame = BytesMut::with_capacity(FRAME);
    frame.extend_from_slice(&first);
    while pieces.front().is_some_and(|next| frame.len() + next.len() <= FRAME) {
        let Some(next) = pieces.pop_front() else { break };
        frame.extend_from_slice(&next);
    }
    Some(frame.freeze())
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)")
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn pieces_are_gathered_and_add_up() {
        let pieces: VecDeque<Bytes> = (0..200_u32).map(|n| Bytes::from(vec![b'a' + (n % 26) as u8; 1000])).collect();
        let expect: Vec<u8> = pieces.iter().flatten().copied().collect();
        let body = ResponseBody::pieces(pieces);
        assert_eq!(body.size_hint().exact(), Some(200_000));
        let mut body = std::pin::pin!(body);
        let (mut all, mut frames) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            all.extend_from_slice(&frame.unwrap().into_data().unwrap());
            frames += 1;
        }
        assert_eq!(all, expect);
        assert_eq!(frames, 4);
        assert!(body.is_end_stream());
    }
}
