//! The HTTP side of an upgrade: what the client asks for, and what it is answered.

use std::io;

use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::Duplex;

const SPDY: &str = "SPDY/3.1";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// Why an upgrade is refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP status code.
    pub code: StatusCode,
    /// What to tell the client.
    pub message: String,
    /// What the server would have spoken, as a header.
    accepted: Vec<&'static str>,
}

impl Refusal {
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self { code: StatusCode::BAD_REQUEST, message: message.into(), accepted: Vec::new() }
    }

    /// The response in plain text. A server that prefers a `Status` takes [`Self::code`] and [`Self::message`].
    pub fn response(&self) -> Response<String> {
        let mut response = Response::new(self.message.clone());
        *response.status_mut() = self.code;
        for protocol in &self.accepted {
            response.headers_mut().append(ACCEPTED_PROTOCOLS, HeaderValue::from_static(protocol));
        }
        response
    }
}

/// The transport that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// SPDY/3.1, with the stream protocols in the order of preference.
    Spdy(Vec<String>),
    /// WebSocket, with the answer to its key and the subprotocols in the order of preference.
    WebSocket {
        /// `Sec-WebSocket-Accept`.
        accept: String,
        /// `Sec-WebSocket-Protocol`.
        protocols: Vec<String>,
    },
}

/// Whether a request asks for an upgrade of its connection.
pub fn is_upgrade<B>(request: &Request<B>) -> bool {
    tokens(request.headers(), &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
        && request.headers().contains_key(UPGRADE)
}

/// The connection of an upgraded request, once the response is out.
///
/// # Errors
/// When the connection broke before it was upgraded.
pub async fn upgraded(upgrade: OnUpgrade) -> io::Result<impl Duplex + 'static> {
    upgrade.await.map(TokioIo::new).map_err(io::Error::other)
}

impl Transport {
    pub(crate) fn of<B>(request: &Request<B>) -> Result<Self, Refusal> {
        let headers = request.headers();
        if !is_upgrade(request) {
            return Err(Refusal::bad_request("Upgrade request required"));
        }
        if request.version() != Version::HTTP_11 {
            return Err(Refusal::bad_request("unable to upgrade: HTTP/1.1 is required"));
        }
        if tokens(headers, &UPGRADE).any(|token| token.eq_ignore_ascii_case("websocket")) {
            if request.method() != Method::GET {
                return Err(Refusal::bad_request("unable to upgrade: a WebSocket request must be a GET"));
            }
            if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version.as_bytes() != b"13") {
                return Err(Refusal::bad_request("unable to upgrade: only version 13 of WebSocket is spoken"));
            }
            let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
                return Err(Refusal::bad_request("unable to upgrade: \"Sec-WebSocket-Key\" header is required"));
            };
            let protocols = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).map(str::to_owned).collect();
            return Ok(Self::WebSocket { accept: derive_accept_key(key.as_bytes()), protocols });
        }
        if tokens(headers, &UPGRADE).any(|token| token.eq_ignore_ascii_case(SPDY)) {
            let protocols: Vec<String> = tokens(headers, &STREAM_PROTOCOL).map(str::to_owned).collect();
            return Ok(Self::Spdy(protocols));
        }
        Err(Refusal::bad_request("unable to upgrade: only SPDY/3.1 and WebSocket are spoken"))
    }

    /// The protocol to speak: the client's first that `known` contains.
    pub(crate) fn choose<T: Copy>(&self, known: &[(&'static str, T)]) -> Result<(&'static str, T), Refusal> {
        let offered = match self {
            Self::Spdy(protocols) if protocols.is_empty() => {
                return Err(Refusal::bad_request(
                    "unable to upgrade: \"X-Stream-Protocol-Version\" header is required",
                ));
            }
            // A WebSocket client need not name a subprotocol; the empty one stands for its default.
            Self::WebSocket { protocols, .. } if protocols.is_empty() => &[String::new()],
            Self::Spdy(protocols) | Self::WebSocket { protocols, .. } => protocols.as_slice(),
        };
        offered.iter().find_map(|offer| known.iter().find(|(name, _)| name == offer)).copied().ok_or_else(|| {
            let accepted: Vec<&'static str> =
                known.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
            Refusal {
                code: StatusCode::FORBIDDEN,
                message: format!(
                    "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
                    offered.join(" "),
                    accepted.join(" ")
                ),
                accepted,
            }
        })
    }

    /// The response that switches to this transport and protocol.
    pub(crate) fn response(&self, protocol: &'static str) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        match self {
            Self::Spdy(_) => {
                headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
                headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
            }
            Self::WebSocket { accept, .. } => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                // Base64 is always a legal header value.
                if let Ok(accept) = HeaderValue::from_str(accept) {
                    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
                }
                if !protocol.is_empty() {
                    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
                }
            }
        }
        response
    }
}

/// The comma-separated parts of all values of a header.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method("GET").version(Version::HTTP_11);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    const KNOWN: &[(&str, u8)] = &[("v5.channel.k8s.io", 5), ("v4.channel.k8s.io", 4), ("", 1)];

    #[test]
    fn spdy() {
        let transport = Transport::of(&request(&[
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v9.channel.k8s.io"),
            ("x-stream-protocol-version", "v4.channel.k8s.io, v5.channel.k8s.io"),
        ]))
        .unwrap();
        let (name, version) = transport.choose(KNOWN).unwrap();
        assert_eq!(version, 4, "the client's order counts");
        let response = transport.response(name);
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["upgrade"], "SPDY/3.1");
        assert_eq!(response.headers()["connection"], "Upgrade");
        assert_eq!(response.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
    }

    #[test]
    fn web_socket() {
        let base = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let transport = Transport::of(&request(&base)).unwrap();
        let (name, version) = transport.choose(KNOWN).unwrap();
        assert_eq!((name, version), ("", 1));
        let response = transport.response(name);
        // The example of RFC 6455.
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!response.headers().contains_key("sec-websocket-protocol"));

        let mut with = base.to_vec();
        with.push(("sec-websocket-protocol", "v5.channel.k8s.io, v4.channel.k8s.io"));
        let transport = Transport::of(&request(&with)).unwrap();
        let (name, _) = transport.choose(KNOWN).unwrap();
        assert_eq!(transport.response(name).headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
    }

    #[test]
    fn refusals() {
        let code = |headers: &[(&str, &str)]| {
            Transport::of(&request(headers)).and_then(|transport| transport.choose(KNOWN)).unwrap_err().code.as_u16()
        };
        assert_eq!(code(&[]), 400);
        assert_eq!(code(&[("upgrade", "websocket")]), 400);
        assert_eq!(code(&[("connection", "upgrade"), ("upgrade", "h2c")]), 400);
        assert_eq!(code(&[("connection", "upgrade"), ("upgrade", "websocket")]), 400);
        assert_eq!(code(&[("connection", "upgrade"), ("upgrade", "SPDY/3.1")]), 400);
        let wrong = [("connection", "upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "x")];
        assert_eq!(code(&wrong), 403);
        let refusal = Transport::of(&request(&wrong)).unwrap().choose(KNOWN).unwrap_err();
        assert_eq!(refusal.response().headers().get_all("x-accepted-stream-protocol-versions").iter().count(), 2);
        assert!(refusal.message.contains("client supports [x], server accepts [v5.channel.k8s.io v4.channel.k8s.io]"));
    }
}
