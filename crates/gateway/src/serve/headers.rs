//! What is passed on of the head of a request or a response. Pure.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

/// What is about one connection and not about the request (RFC 9110, section 7.6.1). `Trailer` stays: trailers pass.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// The host that a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// In lower case, without the dot of a complete name; what rules are found by.
    pub(super) name: String,
    /// As the client wrote it, with its port.
    pub(super) authority: HeaderValue,
}

/// The host of a request: that of an absolute URI, or of the header `Host` (RFC 9112, section 3.2). A client of HTTP/1.0 may say
/// nothing.
///
/// # Errors
/// When there is none, several, or what is none.
pub(super) fn host(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<Host, &'static str> {
    let mut values = headers.get_all(HOST).iter();
    let value = match (uri.authority(), values.next(), values.next()) {
        (_, _, Some(_)) => return Err("the request names several hosts"),
        (Some(authority), _, None) => {
            HeaderValue::from_str(authority.as_str()).map_err(|_| "the request's host is malformed")?
        }
        (None, Some(value), None) => value.clone(),
        (None, None, None) if version == Version::HTTP_10 => HeaderValue::from_static(""),
        (None, None, None) => return Err("the request names no host"),
    };
    if value.is_empty() {
        return Ok(Host { name: String::new(), authority: value });
    }
    let authority = Authority::try_from(value.as_bytes()).map_err(|_| "the request's host is malformed")?;
    if authority.as_str().contains('@') {
        return Err("the request's host is malformed");
    }
    let name = authority.host();
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    Ok(Host { name, authority: value })
}

/// Whether a path has elements that lead elsewhere than it looks like (`.` and `..`, encoded or not): rules would be found by one
/// path and backends asked for another. Clients resolve them (RFC 3986, section 5.2.4).
pub(super) fn has_dot_segments(path: &str) -> bool {
    path.split('/').any(|segment| {
        let dots = segment.to_ascii_lowercase().replace("%2e", ".");
        dots == "." || dots == ".."
    })
}

/// The protocol that a client of HTTP/1.1 wants to speak instead. HTTP/2 is not begun that way (RFC 9113, section 3.1).
pub(super) fn upgrade(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = values.flat_map(|value| value.split(','));
    let is_asked = version == Version::HTTP_11 && tokens.any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    let protocol = headers.get(UPGRADE).filter(|_| is_asked)?;
    (!protocol.as_bytes().to_ascii_lowercase().starts_with(b"h2c")).then(|| protocol.clone())
}

/// Whether a request is one of gRPC, which is always HTTP/2.
pub(super) fn is_grpc(version: Version, headers: &HeaderMap) -> bool {
    let type_ = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    version == Version::HTTP_2 && type_.is_some_and(|type_| type_.starts_with(b"application/grpc"))
}

/// Whether a request may be sent again when nobody knows what became of it (RFC 9110, section 9.2.1).
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Removes what is about one connection, the headers that `Connection` names included.
pub(super) fn clean(headers: &mut HeaderMap) {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> =
        values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    // Whoever frames a body in two ways is believed in neither but the one that was read.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    for name in named.into_iter().filter(|name| *name != HOST).chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// What a backend is told of where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) peer: IpAddr,
    pub(super) is_tls: bool,
    pub(super) host: &'a Host,
    pub(super) port: u16,
}

/// Makes the headers of a client's request those of the request to the backend. This is where requests come into the cluster, so
/// what a client says of where it has come from is not believed.
pub(super) fn to_backend(headers: &mut HeaderMap, upgrade: Option<&HeaderValue>, origin: Origin<'_>) {
    let trailers = headers
        .get_all(TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")));
    clean(headers);
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    headers.remove(FORWARDED);
    if let Ok(peer) = HeaderValue::from_str(&origin.peer.to_canonical().to_string()) {
        headers.insert(FORWARDED_FOR, peer);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(if origin.is_tls { "https" } else { "http" }));
    headers.insert(FORWARDED_HOST, origin.host.authority.clone());
    headers.insert(FORWARDED_PORT, HeaderValue::from(origin.port));
}

/// Puts the pieces together that HTTP/2 may split a cookie into (RFC 9113, section 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if pieces.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&pieces.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(pair).collect()
    }

    #[test]
    fn hosts_of_requests() {
        let check = |uri: &str, values: &[&'static str], version: Version, expected: Result<(&str, &str), ()>| {
            let mut map = HeaderMap::new();
            for value in values {
                map.append(HOST, HeaderValue::from_static(value));
            }
            let found = host(&uri.parse().unwrap(), &map, version).map_err(drop);
            let found = found.map(|host| (host.name, host.authority.to_str().unwrap().to_owned()));
            let expected = expected.map(|(name, authority)| (name.to_owned(), authority.to_owned()));
            assert_eq!(found, expected, "{uri} {values:?}");
        };
        check("/", &["foo.com"], Version::HTTP_11, Ok(("foo.com", "foo.com")));
        check("/", &["FOO.com.:8080"], Version::HTTP_11, Ok(("foo.com", "FOO.com.:8080")));
        check("/", &["[::1]:80"], Version::HTTP_11, Ok(("[::1]", "[::1]:80")));
        check("http://bar.com:81/", &["foo.com"], Version::HTTP_11, Ok(("bar.com", "bar.com:81")));
        check("/", &[], Version::HTTP_10, Ok(("", "")));
        check("/", &[""], Version::HTTP_11, Ok(("", "")));
        check("/", &[], Version::HTTP_11, Err(()));
        check("/", &["foo.com", "bar.com"], Version::HTTP_11, Err(()));
        check("/", &["a/b"], Version::HTTP_11, Err(()));
        check("/", &["user@foo.com"], Version::HTTP_11, Err(()));
    }

    #[test]
    fn paths_that_lead_elsewhere() {
        let check = |path: &str, expected: bool| assert_eq!(has_dot_segments(path), expected, "{path}");
        check("/a/../b", true);
        check("/a/%2E%2e/b", true);
        check("/a/.%2e", true);
        check("/./a", true);
        check("/a..b/...", false);
        check("/.well-known/x", false);
        check("/", false);
    }

    #[test]
    fn what_is_about_the_connection_stays_behind() {
        let check = |lines: &[(&'static str, &'static str)], expected: &[(&'static str, &'static str)]| {
            let mut found = headers(lines);
            clean(&mut found);
            assert_eq!(found, headers(expected), "{lines:?}");
        };
        check(
            &[
                ("connection", "close, X-Mine,upgrade,host"),
                ("host", "foo.com"),
                ("x-mine", "1"),
                ("x-other", "2"),
                ("keep-alive", "timeout=5"),
                ("proxy-authorization", "Basic"),
                ("upgrade", "websocket"),
                ("trailer", "x-end"),
            ],
            &[("host", "foo.com"), ("x-other", "2"), ("trailer", "x-end")],
        );
        check(&[("transfer-encoding", "chunked"), ("content-length", "5")], &[]);
        check(&[("content-length", "5")], &[("content-length", "5")]);
    }

    #[test]
    fn what_backends_are_told() {
        let host = Host { name: "foo.com".to_owned(), authority: HeaderValue::from_static("Foo.com:8080") };
        let origin = Origin { peer: "::ffff:10.1.2.3".parse().unwrap(), is_tls: true, host: &host, port: 8443 };
        let mut found = headers(&[
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("te", "gzip, Trailers"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil.com"),
            ("forwarded", "for=1.1.1.1"),
            ("accept", "*/*"),
        ]);
        let protocol = upgrade(Version::HTTP_11, &found);
        to_backend(&mut found, protocol.as_ref(), origin);
        let expected = headers(&[
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("te", "trailers"),
            ("x-forwarded-for", "10.1.2.3"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "Foo.com:8080"),
            ("x-forwarded-port", "8443"),
            ("accept", "*/*"),
        ]);
        assert_eq!(found, expected);
    }

    #[test]
    fn which_requests_upgrade() {
        let check = |version, connection: &'static str, protocol: &'static str, expected: bool| {
            let map = headers(&[("connection", connection), ("upgrade", protocol)]);
            assert_eq!(upgrade(version, &map).is_some(), expected, "{version:?} {connection} {protocol}");
        };
        check(Version::HTTP_11, "keep-alive, Upgrade", "websocket", true);
        check(Version::HTTP_11, "keep-alive", "websocket", false);
        check(Version::HTTP_10, "upgrade", "websocket", false);
        check(Version::HTTP_11, "Upgrade, HTTP2-Settings", "h2c", false);
        assert_eq!(upgrade(Version::HTTP_11, &headers(&[("connection", "upgrade")])), None);
    }

    #[test]
    fn cookies_are_one_header() {
        let mut map = HeaderMap::new();
        for value in ["a=1", "b=2; c=3"] {
            map.append(COOKIE, HeaderValue::from_static(value));
        }
        join_cookies(&mut map);
        assert_eq!(map.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }
}
