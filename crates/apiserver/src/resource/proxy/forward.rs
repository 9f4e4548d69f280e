//! Passing a request on to what is proxied, and its redirects back to the proxy.

use std::net::SocketAddr;

use http::header::{HOST, HeaderName, LOCATION};
use http::{HeaderMap, HeaderValue, Uri};
use machinery::status::ApiError;
use streaming::Duplex;

use super::super::Call;
use super::target::{Address, Scheme};
use crate::body::RequestBody;
use crate::forward::{self, Outgoing};
use crate::lifecycle::Lifecycle;
use crate::respond::Answer;

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
    let (host, uri) =
        (SocketAddr::new(address.ip, address.port).to_string(), path_and_query(inner, parts.uri.query())?);
    let headers = outgoing(&parts.headers, &host, &parts.uri, forward::is_upgrade(&parts));
    let unreachable = |error: String| ApiError::service_unavailable(format!("error trying to reach service: {error}"));
    let outgoing = Outgoing { parts, uri, headers, body };
    let mut answer = forward::send(lifecycle, connect(address), outgoing).await.map_err(unreachable)?;
    let headers = answer.headers_mut();
    if let Some(place) = headers.get(LOCATION).and_then(|place| outer(place.to_str().ok()?, &host, prefix)) {
        headers.insert(LOCATION, place);
    }
    Ok(answer)
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

fn path_and_query(path: &str, query: Option<&str>) -> Result<Uri, ApiError> {
    let text = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    text.parse().map_err(|error: http::uri::InvalidUri| ApiError::bad_request(error.to_string()))
}

/// The headers to send: those that are passed on, and where the client has sent its request.
fn outgoing(headers: &HeaderMap, host: &str, uri: &Uri, upgrade: bool) -> HeaderMap {
    let mut out = forward::headers(headers, upgrade);
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
    use http::header::{CONNECTION, UPGRADE};

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
