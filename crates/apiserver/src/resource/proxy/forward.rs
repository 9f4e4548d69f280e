//! Passing a request on to what is proxied, and its answer back.

use std::net::SocketAddr;

use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, HOST, HeaderName,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Uri};
use machinery::status::ApiError;
use streaming::Duplex;

use super::super::Call;
use super::links::Outside;
use super::target::{Address, Scheme};
use crate::body::RequestBody;
use crate::forward::{self, Outgoing};
use crate::lifecycle::Lifecycle;
use crate::respond::Answer;

/// What an answer says of whom a browser lets read it: that is not for what is proxied to say. Upstream: `removeCORSHeaders`
/// in `k8s.io/apimachinery/pkg/util/proxy/upgradeaware.go`.
const CROSS_ORIGIN: [HeaderName; 4] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
];

/// Sends the request to `address` under the path `inner`, and answers what comes back. `prefix` is where the outer path
/// of `/` is.
pub(super) async fn forward(
    call: Call<'_>,
    lifecycle: &Lifecycle,
    address: &Address,
    inner: &str,
    prefix: String,
    body: RequestBody,
) -> Result<Answer, ApiError> {
    let parts = call.parts;
    let (host, uri) =
        (SocketAddr::new(address.ip, address.port).to_string(), path_and_query(inner, parts.uri.query())?);
    let headers = outgoing(&parts, &host);
    let asked = parts.headers.get(HOST).and_then(|asked| asked.to_str().ok()).map(str::to_owned);
    let outside = Outside { host, asked, prefix };
    let unreachable = |error: String| ApiError::service_unavailable(format!("error trying to reach service: {error}"));
    let outgoing = Outgoing { parts, uri, headers, body };
    let mut answer = forward::send(lifecycle, connect(address), outgoing).await.map_err(unreachable)?;
    for name in CROSS_ORIGIN {
        answer.headers_mut().remove(name);
    }
    Ok(outside.of(answer))
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
fn outgoing(parts: &Parts, host: &str) -> HeaderMap {
    let mut out = forward::headers(parts);
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            out.insert(name, value);
        }
    };
    if let Some(asked) = parts.headers.get(HOST).and_then(|asked| asked.to_str().ok()) {
        set(HeaderName::from_static("x-forwarded-host"), asked);
    }
    set(HeaderName::from_static("x-forwarded-uri"), parts.uri.path());
    set(HeaderName::from_static("x-forwarded-proto"), "https");
    set(HOST, host);
    // The links of a page can be changed where it is not compressed.
    if parts
        .headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"))
    {
        out.remove(ACCEPT_ENCODING);
    }
    out
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::header::{CONNECTION, UPGRADE};

    use super::*;
    use crate::peer::PeerAddress;

    #[test]
    fn what_is_about_the_connection_stays_behind() {
        let asked = |more: &[(&'static str, &'static str)]| {
            let mut request = Request::builder().uri("/api/v1/nodes/n/proxy/");
            for (name, value) in [
                ("authorization", "Bearer secret"),
                ("impersonate-user", "jane"),
                ("impersonate-extra-scopes", "x"),
                ("x-remote-user", "admin"),
                ("x-remote-group", "system:masters"),
                ("x-mine", "1"),
                ("accept", "text/html"),
                ("accept-encoding", "br"),
                ("host", "127.0.0.1:6443"),
            ]
            .iter()
            .chain(more)
            {
                request = request.header(*name, *value);
            }
            let mut parts = request.body(()).unwrap().into_parts().0;
            parts.extensions.insert(PeerAddress("192.0.2.7:4711".parse().unwrap()));
            parts
        };
        let plain = outgoing(&asked(&[("connection", "X-Mine")]), "10.0.0.1:80");
        let mut names: Vec<&str> = plain.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let forwarded = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-uri"];
        assert_eq!(names, [&["accept", "host"][..], &forwarded].concat());
        assert_eq!(
            (&plain[HOST], &plain["x-forwarded-for"]),
            (&"10.0.0.1:80".parse().unwrap(), &"192.0.2.7".parse().unwrap())
        );
        // Behind other proxies, and where it is no page that is asked for.
        let further = asked(&[("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "198.51.100.2")]);
        assert_eq!(outgoing(&further, "10.0.0.1:80")["x-forwarded-for"], "198.51.100.1, 198.51.100.2, 192.0.2.7");
        let mut script = asked(&[]);
        script.headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        assert_eq!(outgoing(&script, "10.0.0.1:80")[ACCEPT_ENCODING], "br");
        let upgrade = outgoing(&asked(&[("connection", "X-Mine, Upgrade"), ("upgrade", "websocket")]), "10.0.0.1:80");
        assert_eq!(
            (&upgrade[CONNECTION], &upgrade[UPGRADE]),
            (&"Upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
    }
}
