//! Bodies of requests and responses.

use std::collections::VecDeque;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use machinery::status::ApiError;

/// What is accepted at most as the body of a request: 3 MiB, as upstream.
pub(crate) const LIMIT: usize = 3 * 1024 * 1024;
/// How long a client may pause within the body of a request.
const STALL: Duration = Duration::from_secs(30);

/// The body of a request, from the network or from a client in this process.
pub(crate) enum RequestBody {
    /// Over a connection.
    Network(Incoming),
    /// From the in-process client.
    Local(kube::client::Body),
}

impl RequestBody {
    /// Reads it all.
    ///
    /// # Errors
    /// 413 when it is larger than [`LIMIT`], 400 when the client breaks off, 504 when it stalls.
    pub(crate) async fn read(self) -> Result<Bytes, ApiError> {
        match self {
            Self::Network(body) => collect(body).await,
            Self::Local(body) => collect(body).await,
        }
    }
}

async fn collect<B>(body: B) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    if body.size_hint().lower() > LIMIT as u64 {
        return Err(too_large());
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let mut body = std::pin::pin!(body);
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    loop {
        let Ok(frame) = tokio::time::timeout(STALL, body.frame()).await else {
            return Err(ApiError::timeout("the request body did not arrive in time", 0));
        };
        let data = match frame {
            None => break,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => return Err(ApiError::bad_request(format!("cannot read the request body: {error}"))),
        };
        let had = first.as_ref().map_or(rest.len(), Bytes::len);
        if had + data.len() > LIMIT {
            return Err(too_large());
        }
        // One frame is the rule: it is passed on without a copy.
        match first.take() {
            None if rest.is_empty() => first = Some(data),
            Some(before) => {
                rest.reserve(before.len() + data.len());
                rest.extend_from_slice(&before);
                rest.extend_from_slice(&data);
            }
            None => rest.extend_from_slice(&data),
        }
    }
    Ok(first.unwrap_or_else(|| rest.freeze()))
}

fn too_large() -> ApiError {
    ApiError::too_large(format!("limit is {LIMIT}"))
}

/// The body of a response.
pub(crate) struct ResponseBody(Kind);

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
        Self(Kind::Empty)
    }

    /// One piece.
    #[must_use]
    pub(crate) fn once(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Once(bytes.into()))
    }

    /// Many pieces, one after the other: a list, without a copy of it in memory.
    #[must_use]
    pub(crate) fn pieces(pieces: VecDeque<Bytes>) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self(Kind::Pieces { pieces, left })
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

    fn streamed(left: Option<u64>, stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        let caught = AssertUnwindSafe(stream).catch_unwind().map(|item| {
            item.unwrap_or_else(|panic| {
                tracing::error!(panic = panic_text(&*panic), "the stream of a response panicked");
                Err(io::Error::other("the server failed"))
            })
        });
        Self(Kind::Stream { stream: caught.boxed(), left })
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
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Once(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Empty;
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
        match &self.0 {
            Kind::Empty => true,
            Kind::Once(bytes) => bytes.is_empty(),
            Kind::Pieces { left, .. } => *left == 0,
            Kind::Stream { left, .. } => *left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
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

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        for (size, fits) in [(0, true), (1, true), (LIMIT, true), (LIMIT + 1, false)] {
            let body = kube::client::Body::from(vec![b' '; size]);
            assert_eq!(RequestBody::Local(body).read().await.is_ok(), fits, "{size}");
            let chunks = futures::stream::iter((0..size / 1_000_000 + 1).map(move |n| {
                let chunk = size.saturating_sub(n * 1_000_000).min(1_000_000);
                Ok::<_, io::Error>(Frame::data(Bytes::from(vec![b' '; chunk])))
            }));
            let read = collect(http_body_util::StreamBody::new(chunks)).await;
            assert_eq!(read.map(|bytes| bytes.len()).ok(), fits.then_some(size), "{size} in chunks");
        }
    }
}
