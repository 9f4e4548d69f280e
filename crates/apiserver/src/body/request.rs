//! Bodies of requests: what each may have, and all of them together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use machinery::Verb;
use machinery::status::ApiError;
use parking_lot::Mutex;

/// What is accepted at most as the body of a request: 3 MiB, as upstream.
pub(crate) const LIMIT: usize = 3 * 1024 * 1024;
/// How long a client may pause within the body of a request.
const STALL: Duration = Duration::from_secs(30);
/// A body that says beforehand that it has at most so many bytes is small: there is always a quarter of the budget that large ones
/// do not get, so that most requests get in while these take all they can.
const SMALL: usize = 64 * 1024;
/// Pods get half of the budget at most, and each address of theirs one of so many parts of that half.
const PARTS: usize = 8;
/// How much of a body that nobody wants is read, so that its connection can go on (`maxPostHandlerReadBytes` in Go's `net/http`).
const DRAIN_BYTES: usize = 256 * 1024;
/// For how long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How many bytes the bodies of all requests may have that are being worked on. What pods send locks out neither the users of this
/// machine nor, as long as it is few of them, other pods; who is exempt from flow control needs none of it.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    limit: usize,
    used: AtomicUsize,
    /// What each address of pods has of it. Never held across an await.
    of_pods: Mutex<HashMap<IpAddr, usize>>,
}

/// What a request's body has taken of the budget, until the request is answered, and what of the body nobody has read.
pub(crate) struct Inbound {
    budget: Arc<BodyBudget>,
    /// The address it comes from, where that is a pod's.
    pod: Option<IpAddr>,
    reserved: AtomicUsize,
    // Never held across an await.
    unread: Mutex<Option<Incoming>>,
}

/// The body of a request, from the network or from a client in this process.
pub(crate) enum RequestBody {
    /// Over a connection.
    Network(NetworkBody),
    /// From the in-process client.
    Local(kube::client::Body),
    /// That has arrived.
    Whole(Bytes),
}

/// A body that comes over a connection. What is not read of it when it is dropped stays in its [`Inbound`].
pub(crate) struct NetworkBody {
    incoming: Option<Incoming>,
    /// None of a body that is empty.
    inbound: Option<Arc<Inbound>>,
}

impl BodyBudget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0), of_pods: Mutex::default() }
    }

    /// How many bytes there are now.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn reserve(&self, bytes: usize, is_small: bool, pod: Option<IpAddr>) -> bool {
        let quarters = match (pod, is_small) {
            (None, true) => 4,
            (None, false) => 3,
            (Some(_), true) => 2,
            (Some(_), false) => 1,
        };
        let limit = self.limit / 4 * quarters;
        let take = || {
            let fits = |used: usize| used.checked_add(bytes).filter(|after| *after <= limit);
            self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
        };
        let Some(pod) = pod else { return take() };
        let mut of_pods = self.of_pods.lock();
        let has = of_pods.get(&pod).copied().unwrap_or_default();
        let fits = has + bytes <= self.limit / 2 / PARTS && take();
        if fits && bytes > 0 {
            of_pods.insert(pod, has + bytes);
        }
        fits
    }

    fn release(&self, bytes: usize, pod: Option<IpAddr>) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        let Some(pod) = pod else { return };
        let mut of_pods = self.of_pods.lock();
        if let Some(has) = of_pods.get_mut(&pod) {
            *has -= bytes;
            if *has == 0 {
                of_pods.remove(&pod);
            }
        }
    }
}

impl Inbound {
    /// Takes what has come of the body.
    ///
    /// # Errors
    /// 429 when the bodies of all requests, or of those of its pod, have too many.
    fn reserve(&self, bytes: usize, is_small: bool) -> Result<(), ApiError> {
        if !self.budget.reserve(bytes, is_small, self.pod) {
            let why =
                "the bodies of the requests that are being worked on are too large together, please try again later";
            return Err(ApiError::too_many_requests(why, 1));
        }
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Reads what nobody has read, if it is little and comes soon; false when there may be more.
    pub(crate) async fn drain(&self, is_expected: bool) -> bool {
        let Some(mut unread) = self.unread.lock().take() else { return true };
        // Who waits for a `100 Continue` has sent nothing yet, and may send nothing at all.
        if is_expected || unread.size_hint().lower() > DRAIN_BYTES as u64 {
            return false;
        }
        let read = async {
            let mut left = DRAIN_BYTES;
            while let Some(frame) = unread.frame().await {
                let length = frame.ok()?.into_data().map_or(0, |data| data.len());
                left = left.checked_sub(length)?;
            }
            Some(())
        };
        matches!(tokio::time::timeout(DRAIN_TIMEOUT, read).await, Ok(Some(())))
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.budget.release(*self.reserved.get_mut(), self.pod);
    }
}

impl Drop for NetworkBody {
    fn drop(&mut self) {
        if let (Some(unread), Some(inbound)) = (self.incoming.take(), &self.inbound) {
            *inbound.unread.lock() = Some(unread);
        }
    }
}

impl NetworkBody {
    /// The body itself, for who passes it on.
    pub(crate) fn into_incoming(mut self) -> Option<Incoming> {
        self.incoming.take()
    }
}

impl RequestBody {
    /// A body that comes over a connection, from `pod` where that is a pod's address, and what is to be kept until its request is
    /// answered.
    pub(crate) fn network(
        incoming: Incoming,
        budget: &Arc<BodyBudget>,
        pod: Option<IpAddr>,
    ) -> (Self, Option<Arc<Inbound>>) {
        let inbound = (!incoming.is_end_stream()).then(|| {
            let budget = Arc::clone(budget);
            Arc::new(Inbound { budget, pod, reserved: AtomicUsize::new(0), unread: Mutex::new(None) })
        });
        (Self::Network(NetworkBody { incoming: Some(incoming), inbound: inbound.clone() }), inbound)
    }

    /// Reads it all.
    ///
    /// # Errors
    /// 413 when it is larger than [`LIMIT`], 429 when there is no room for it, 400 when the client breaks off, 504 when it
    /// stalls.
    pub(crate) async fn read(self) -> Result<Bytes, ApiError> {
        self.read_as(false).await
    }

    async fn read_as(self, is_exempt: bool) -> Result<Bytes, ApiError> {
        match self {
            Self::Network(mut body) => {
                let inbound = body.inbound.clone().filter(|_| !is_exempt);
                let Some(incoming) = &mut body.incoming else { return Ok(Bytes::new()) };
                let whole = collect(incoming, inbound.as_deref()).await?;
                // Nothing is left of it.
                body.incoming = None;
                Ok(whole)
            }
            Self::Local(body) => collect(body, None).await,
            Self::Whole(bytes) => Ok(bytes),
        }
    }

    /// How many bytes of it are here already: all of what has arrived.
    pub(crate) fn arrived(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Network(_) | Self::Local(_) => 0,
        }
    }

    /// Waits until the body of a write has arrived. That of a request that is exempt from flow control finds room whatever others
    /// have: an administrator can always do something about these.
    ///
    /// # Errors
    /// As [`RequestBody::read`].
    pub(crate) async fn arrive(self, verb: Verb<'_>, is_exempt: bool) -> Result<Self, ApiError> {
        match self {
            Self::Network(body) if !verb.is_read() && body.inbound.is_some() => {
                Self::Network(body).read_as(is_exempt).await.map(Self::Whole)
            }
            other => Ok(other),
        }
    }
}

async fn collect<B>(body: B, inbound: Option<&Inbound>) -> Result<Bytes, ApiError>
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
    let is_small = body.size_hint().upper().is_some_and(|length| length <= SMALL as u64);
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
        let total = had + data.len();
        if total > LIMIT {
            return Err(too_large());
        }
        if let Some(inbound) = inbound {
            inbound.reserve(data.len(), is_small)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        for (size, fits) in [(0, true), (1, true), (LIMIT, true), (LIMIT + 1, false)] {
            let body = kube::client::Body::from(vec![b' '; size]);
            assert_eq!(RequestBody::Local(body).read().await.is_ok(), fits, "{size}");
            let chunks = futures::stream::iter((0..size / 1_000_000 + 1).map(move |n| {
                let chunk = size.saturating_sub(n * 1_000_000).min(1_000_000);
                Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(vec![b' '; chunk])))
            }));
            let read = collect(http_body_util::StreamBody::new(chunks), None).await;
            assert_eq!(read.map(|bytes| bytes.len()).ok(), fits.then_some(size), "{size} in chunks");
        }
    }

    fn inbound(budget: &Arc<BodyBudget>, bytes: usize, pod: Option<u8>) -> Result<Inbound, ApiError> {
        let pod = pod.map(|number| IpAddr::from([10, 0, 0, number]));
        let budget = Arc::clone(budget);
        let inbound = Inbound { budget, pod, reserved: AtomicUsize::new(0), unread: Mutex::new(None) };
        inbound.reserve(bytes, bytes <= SMALL).map(|()| inbound)
    }

    #[test]
    fn the_last_quarter_is_for_small_bodies() {
        let budget = Arc::new(BodyBudget::new(1_000_000));
        let large = inbound(&budget, 750_000, None).unwrap();
        assert_eq!(inbound(&budget, SMALL + 1, None).err().unwrap().code, 429);
        let small: Vec<_> = (0..3).map(|_| inbound(&budget, SMALL, None).unwrap()).collect();
        assert!(inbound(&budget, SMALL, None).is_err());
        drop(large);
        drop(small);
        inbound(&budget, 750_000, None).unwrap();
    }

    #[test]
    fn pods_leave_room_for_each_other_and_for_users() {
        let budget = Arc::new(BodyBudget::new(1_600_000));
        let flood = |pod: u8| -> Vec<_> { (0..100).map_while(|_| inbound(&budget, 10_000, Some(pod)).ok()).collect() };
        let first = flood(1);
        assert_eq!(first.len(), 10, "a sixteenth of it is for one pod");
        inbound(&budget, 80_000, Some(2)).unwrap();
        let pods: Vec<_> = (2..30).map(flood).collect();
        assert_eq!(budget.used(), 800_000, "half of it is for all pods");
        drop(inbound(&budget, 400_000, None).unwrap());
        assert!(inbound(&budget, 400_001, None).is_err());
        let small: Vec<_> = (0..12).map(|_| inbound(&budget, SMALL, None).unwrap()).collect();
        drop((first, pods, small));
        assert_eq!((budget.used(), budget.of_pods.lock().len()), (0, 0));
        // A large body of a pod needs more room than a small one.
        let users = inbound(&budget, 350_000, None).unwrap();
        assert!(inbound(&budget, SMALL + 1, Some(1)).is_err());
        inbound(&budget, SMALL, Some(1)).unwrap();
        drop(users);
        inbound(&budget, SMALL + 1, Some(1)).unwrap();
    }
}
