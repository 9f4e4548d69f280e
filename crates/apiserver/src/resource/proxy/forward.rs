//! Passing a request on, its answer back, and both directions of an upgraded connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderName, LOCATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, BodyStream, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use machinery::status::ApiError;
use streaming::Duplex;

use super::super::Call;
use super::target::{Address, Scheme};
use crate::body::{RequestBody, ResponseBody};
use crate::lifecycle::Lifecycle;
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

/// What the headers begin with that say who asks: those of a client of the API server, and those in which it would say so itself
/// to the APIs it aggregates (upstream: `--requestheader-username-headers` and the like).
const IDENTITY: [&str; 2] = ["impersonate-", "x-remote-"];

type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Sends the request to `address` under the path `inner`, and answers what comes back. `prefix` is where the outer path
/// of `/` is.
pub(super) async fn forward(
    call: Call<'_>,
    lifecycle: &Lifecycle,
    address: &Address,
    inner: &str,
    prefix: &str,
    body: RequestBody,
) -> Result<Answer, ApiError> {
    let parts = call.parts;
    let upgrade = streaming::is_upgrade(&Request::from_parts(parts.clone(), ()));
    let (host, uri) =
        (SocketAddr::new(address.ip, address.port).to_string(), path_and_query(inner, parts.uri.query())?);
    let headers = outgoing(&parts.headers, &host, &parts.uri, upgrade);
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

    let unreachable = |error: String| ApiError::service_unavailable(format!("error trying to reach service: {error}"));
    let response = exchange(lifecycle, address, request).await.map_err(unreachable)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client) = client
    {
        return Ok(switch(lifecycle, client, response));
    }
    let (mut parts, body) = response.into_parts();
    clean(&mut parts.headers);
    if let Some(place) = parts.headers.get(LOCATION).and_then(|place| outer(place.to_str().ok()?, &host, prefix)) {
        parts.headers.insert(LOCATION, place);
    }
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
    address: &Address,
    request: Request<Body>,
) -> Result<Response<Incoming>, String> {
    let answered = async {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect(address)).await;
        http_client::send(connected.map_err(|_| "i/o timeout".to_owned())??, request).await
    };
    let http_client::Answer { response, connection } = tokio::select! {
        answered = answered => answered?,
        () = lifecycle.stopping.cancelled() => return Err("the server is shutting down".to_owned()),
    };
    lifecycle.spawn(connection);
    Ok(response)
}

async fn connect(address: &Address) -> Result<Box<dyn Duplex>, String> {
    let stream = http_client::dial_address(SocketAddr::new(address.ip, address.port)).await?;
    Ok(match address.scheme {
        Scheme::Http => Box::new(stream),
        Scheme::Https => {
            Box::new(http_client::handshake(stream, &address.ip.to_string(), http_client::trusting()).await?)
        }
    })
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

fn path_and_query(path: &str, query: Option<&str>) -> Result<Uri, ApiError> {
    let text = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    text.parse().map_err(|error: http::uri::InvalidUri| ApiError::bad_request(error.to_string()))
}

/// The headers to send: the client's, without its credentials, what says on whose behalf it asks, and what is about its
/// connection.
fn outgoing(headers: &HeaderMap, host: &str, uri: &Uri, upgrade: bool) -> HeaderMap {
    let mut out = headers.clone();
    let kept = out.get(UPGRADE).cloned().filter(|_| upgrade);
    clean(&mut out);
    out.remove(AUTHORIZATION);
    let is_identity = |name: &&HeaderName| IDENTITY.iter().any(|prefix| name.as_str().starts_with(prefix));
    for name in headers.keys().filter(is_identity) {
        out.remove(name);
    }
    if let Some(protocol) = kept {
        out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        out.insert(UPGRADE, protocol);
    }
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            out.insert(name, value);
        }
    };
    if let Some(asked) = headers.get(HOST).and_then(|asked| asked.to_str().ok()) {
        set(HeaderName::from_static("x-forwarded-host"), asked);
    }
    set(HeaderName::from_static("x-forwarded-uri"), uri.path());
    set(HeaderName::from_static("x-forwarded-proto"), "https");
    set(HOST, host);
    out
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

/// Where a redirect leads, seen from outside; `None` when it leads somewhere else.
fn outer(place: &str, host: &str, prefix: &str) -> Option<HeaderValue> {
    let uri: Uri = place.parse().ok()?;
    if uri.authority().is_some_and(|authority| authority.as_str() != host) || !uri.path().starts_with('/') {
        return None;
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    HeaderValue::from_str(&format!("{prefix}{path}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_back_to_the_proxy() {
        let check = |place: &str, expected: Option<&str>| {
            let found = outer(place, "10.0.0.1:80", "/api/v1/namespaces/n/pods/p/proxy");
            assert_eq!(found.as_ref().map(|value| value.to_str().unwrap()), expected, "{place}");
        };
        check("/login?x=1", Some("/api/v1/namespaces/n/pods/p/proxy/login?x=1"));
        check("http://10.0.0.1:80/a", Some("/api/v1/namespaces/n/pods/p/proxy/a"));
        check("http://example.com/a", None);
        check("login", None);
    }

    #[test]
    fn what_is_about_the_connection_stays_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("impersonate-user", "jane"),
            ("impersonate-extra-scopes", "x"),
            ("x-remote-user", "admin"),
            ("x-remote-group", "system:masters"),
            ("connection", "X-Mine, Upgrade"),
            ("upgrade", "websocket"),
            ("x-mine", "1"),
            ("accept", "text/html"),
            ("host", "127.0.0.1:6443"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let uri: Uri = "/api/v1/nodes/n/proxy/".parse().unwrap();
        let plain = outgoing(&headers, "10.0.0.1:80", &uri, false);
        let names = |headers: &HeaderMap| {
            let mut names: Vec<String> = headers.keys().map(ToString::to_string).collect();
            names.sort();
            names
        };
        assert_eq!(names(&plain), ["accept", "host", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-uri"]);
        assert_eq!(plain[HOST], "10.0.0.1:80");
        let upgrade = outgoing(&headers, "10.0.0.1:80", &uri, true);
        assert_eq!(
            (&upgrade[CONNECTION], &upgrade[UPGRADE]),
            (&"Upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
    }
}
