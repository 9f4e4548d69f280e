//! Where a redirect leads. Pure.

use crate::route::Redirect;

/// The request that is redirected.
#[derive(Debug, Clone, Copy)]
pub(super) struct From<'a> {
    pub(super) is_tls: bool,
    /// The host's name.
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    /// The port that it came in by.
    pub(super) port: u16,
    /// The ports that HTTP and HTTPS are on, at the same address.
    pub(super) http: u16,
    pub(super) https: u16,
}

/// The value of `Location` (`HTTPRequestRedirectFilter` in `apis/v1/httproute_types.go`): a port that is the scheme's own is left
/// out. On a machine where the scheme's port was taken, it is the one that is open instead.
pub(super) fn location(redirect: &Redirect, from: From<'_>) -> String {
    let scheme = redirect.scheme.as_deref().unwrap_or(if from.is_tls { "https" } else { "http" });
    let port = match (redirect.port, redirect.scheme.as_deref()) {
        (Some(port), _) => port,
        (None, Some("https")) => from.https,
        (None, Some(_)) => from.http,
        (None, None) => from.port,
    };
    let host = redirect.hostname.as_deref().unwrap_or(from.host);
    let port = match (scheme, port) {
        ("http", 80) | ("https", 443) => String::new(),
        (_, port) => format!(":{port}"),
    };
    let path = redirect.path.as_ref().map_or_else(|| from.path.to_owned(), |path| path.apply(from.path));
    let query = from.query.map_or_else(String::new, |query| format!("?{query}"));
    format!("{scheme}://{host}{port}{path}{query}")
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::route::PathRewrite;

    #[test]
    fn locations() {
        let from =
            From { is_tls: false, host: "foo.com", path: "/a/b", query: Some("x=1"), port: 80, http: 80, https: 443 };
        let plain = Redirect { scheme: None, hostname: None, port: None, path: None, status: StatusCode::FOUND };
        let scheme =
            |scheme: &str, port: Option<u16>| Redirect { scheme: Some(scheme.to_owned()), port, ..plain.clone() };
        let check = |redirect: &Redirect, from: From<'_>, expected: &str| {
            assert_eq!(location(redirect, from), expected, "{redirect:?} {from:?}");
        };
        let host = Redirect { hostname: Some("example.org".to_owned()), ..plain.clone() };
        let high = From { port: 8080, http: 8080, https: 8443, ..from };
        let tls = From { is_tls: true, port: 443, ..from };
        check(&host, from, "http://example.org/a/b?x=1");
        check(&host, high, "http://example.org:8080/a/b?x=1");
        check(&host, tls, "https://example.org/a/b?x=1");
        check(&scheme("https", None), from, "https://foo.com/a/b?x=1");
        check(&scheme("https", None), high, "https://foo.com:8443/a/b?x=1");
        check(&scheme("http", None), tls, "http://foo.com/a/b?x=1");
        check(&scheme("https", Some(8443)), from, "https://foo.com:8443/a/b?x=1");
        check(&scheme("https", Some(443)), from, "https://foo.com/a/b?x=1");
        check(&scheme("http", Some(443)), from, "http://foo.com:443/a/b?x=1");
        check(&Redirect { port: Some(8081), ..plain.clone() }, tls, "https://foo.com:8081/a/b?x=1");
        check(&Redirect { port: Some(80), ..plain.clone() }, high, "http://foo.com/a/b?x=1");
        let path = PathRewrite::Prefix { matched: "/a".to_owned(), with: "/z".to_owned() };
        check(&Redirect { path: Some(path), ..plain.clone() }, From { query: None, ..from }, "http://foo.com/z/b");
    }
}
