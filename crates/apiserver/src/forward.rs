//! Requests that are passed on to another server, with both directions of an upgraded connection: to what the `proxy`
//! subresources lead to, and to the API servers that are aggregated.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{AUTHORIZATION, CONNECTION, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, BodyStream, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use streaming::Duplex;

use crate::authn::request_header;
use crate::body::{RequestBody, ResponseBody};
use crate::lifecycle::Lifecycle;
use crate::peer::PeerAddress;
use crate::respond::Answer;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What is about one connection and not about the request.
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Whom a request has come from, by way of proxies.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What the headers begin with that say whom a client acts as.
const IMPERSONATION: &str = "impersonate-";

type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A request as it is to be sent.
pub(crate) struct Outgoing {
    /// The client's request.
    pub(crate) parts: Parts,
    /// Path and query.
    pub(crate) uri: Uri,
    /// Made of [`headers`].
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
}

/// Whether the client wants to speak another protocol.
pub(crate) fn is_upgrade(parts: &Parts) -> bool {
    streaming::is_upgrade(&Request::from_parts(parts.clone(), ()))
}

/// Sends the request over what `connect` opens, and answers what comes back.
///
/// # Errors
/// Why there is no answer, as Go says it.
pub(crate) async fn send(
    lifecycle: &Lifecycle,
    connect: impl Future<Output = Result<Box<dyn Duplex>, String>>,
    outgoing: Outgoing,
) -> Result<Answer, String> {
    let Outgoing { parts, uri, headers, body } = outgoing;
    let upgrade = is_upgrade(&parts);
    let mut request = Request::new(match body {
        RequestBody::Network(body) => match body.into_incoming() {
            Some(body) => body.map_err(Into::into).boxed_unsync(),
            None => Empty::new().map_err(|never| match never {}).boxed_unsync(),
        },
        RequestBody::Local(body) => body.map_err(Into::into).boxed_unsync(),
        RequestBody::Whole(bytes) => Full::new(bytes).map_err(|never| match never {}).boxed_unsync(),
    });
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    // The client's side of an upgrade is in the extensions of its request.
    let client = upgrade.then(|| hyper::upgrade::on(Request::from_parts(parts, ())));

    let response = exchange(lifecycle, connect, request).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client) = client
    {
        return Ok(switch(lifecycle, client, response));
    }
    let (mut parts, body) = response.into_parts();
    clean(&mut parts.headers);
    let stopping = lifecycle.stopping.clone();
    let chunks = BodyStream::new(body).filter_map(|frame| async {
        match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(error) => Some(Err(io::Error::other(error))),
        }
    });
    Ok(Response::from_parts(parts, ResponseBody::stream(chunks.take_until(stopping.cancelled_owned()))))
}

async fn exchange(
    lifecycle: &Lifecycle,
    connect: impl Future<Output = Result<Box<dyn Duplex>, String>>,
    request: Request<Body>,
) -> Result<Response<Incoming>, String> {
    let answered = async {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect).await;
        http_client::send(connected.map_err(|_| "i/o timeout".to_owned())??, request).await
    };
    let http_client::Answer { response, connection } = tokio::select! {
        answered = answered => answered?,
        () = lifecycle.stopping.cancelled() => return Err("the server is shutting down".to_owned()),
    };
    lifecycle.spawn(connection);
    Ok(response)
}

/// Joins both sides once each has switched protocols.
fn switch(lifecycle: &Lifecycle, client: hyper::upgrade::OnUpgrade, mut response: Response<Incoming>) -> Answer {
    let backend = hyper::upgrade::on(&mut response);
    lifecycle.spawn(async move {
        let joined = async {
            let (client, backend) = tokio::try_join!(client, backend).map_err(io::Error::other)?;
            tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(backend)).await
        };
        if let Err(error) = joined.await {
            tracing::debug!(%error, "a proxied connection ended early");
        }
    });
    response.map(|_| ResponseBody::empty())
}

/// The headers to pass on: the client's, without its credentials, what says on whose behalf it asks, and what is about its
/// connection; and where it comes from.
pub(crate) fn headers(parts: &Parts) -> HeaderMap {
    let headers = &parts.headers;
    let mut out = headers.clone();
    let kept = out.get(UPGRADE).cloned().filter(|_| is_upgrade(parts));
    clean(&mut out);
    if let Some(came) = forwarded_for(parts) {
        out.insert(FORWARDED_FOR, came);
    }
    out.remove(AUTHORIZATION);
    request_header::remove(&mut out);
    for name in headers.keys().filter(|name| name.as_str().starts_with(IMPERSONATION)) {
        out.remove(name);
    }
    if let Some(protocol) = kept {
        out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        out.insert(UPGRADE, protocol);
    }
    out
}

/// The addresses that a request has come from: those that proxies on its way have noted, and that of the connection. `None` for
/// what is asked in this process.
fn forwarded_for(parts: &Parts) -> Option<HeaderValue> {
    let PeerAddress(peer) = parts.extensions.get::<PeerAddress>()?;
    let noted = parts.headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let all: Vec<&str> = noted.collect();
    let peer = peer.ip().to_canonical().to_string();
    HeaderValue::from_str(&[all.as_slice(), &[&peer]].concat().join(", ")).ok()
}

/// Removes what is about one connection, the headers that `Connection` names included.
fn clean(headers: &mut HeaderMap) {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> =
        values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    for name in named.into_iter().chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}
