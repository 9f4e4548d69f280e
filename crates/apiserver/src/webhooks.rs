//! Calls admission webhooks: one HTTPS request each, to a URL or to an endpoint of a service.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::jiff::Timestamp;
use registry::{WebhookCall, WebhookClient};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, InvalidMessage, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

/// The most an answer may have, in bytes; upstream's figure.
const MAX_ANSWER: usize = 3 * 1024 * 1024;
/// Where distributions keep the authorities they trust.
const TRUSTED: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A [`WebhookClient`] that speaks HTTPS.
pub(crate) struct Caller;

impl WebhookClient for Caller {
    fn call(&self, call: WebhookCall) -> BoxFuture<'_, Result<Bytes, String>> {
        post(call).boxed()
    }
}

async fn post(call: WebhookCall) -> Result<Bytes, String> {
    let mut url = Url::parse(&call.url).map_err(|error| error.to_string())?;
    url.query_pairs_mut().append_pair("timeout", &format!("{}s", call.timeout.as_secs()));
    let host = url.host_str().ok_or_else(|| "no Host in request URL".to_owned())?.to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let roots = roots(&call.ca_bundle).await?;
    // The ring provider speaks all versions that rustls knows.
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let server = ServerName::try_from(name.clone()).map_err(|error| error.to_string())?;
    let stream = connect(call.address, &name, port).await?;
    let _ = stream.set_nodelay(true);
    let stream =
        TlsConnector::from(Arc::new(config)).connect(server, stream).await.map_err(|error| handshake(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, format!("{host}:{port}"))
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, */*")
        .header(USER_AGENT, "kube-apiserver-admission")
        .body(Full::new(call.body))
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| chain(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        if status == StatusCode::OK {
            return Ok(body);
        }
        let mut why = format!("the server responded with the status code {}", status.as_u16());
        if !body.is_empty() {
            let text = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
            let _ = write!(why, ": {}", text.trim());
        }
        Err(why)
    }
    .await;
    connection.abort();
    answer
}

async fn connect(address: Option<SocketAddr>, host: &str, port: u16) -> Result<TcpStream, String> {
    let addresses = match address {
        Some(address) => vec![address],
        None => {
            let found = tokio::net::lookup_host((host, port)).await;
            found.map_err(|_| format!("dial tcp: lookup {host}: no such host"))?.collect()
        }
    };
    let mut last = format!("dial tcp: lookup {host}: no such host");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                last = format!("dial tcp {address}: connect: connection refused");
            }
            Err(error) => last = format!("dial tcp {address}: connect: {error}"),
        }
    }
    Err(last)
}

/// Whom to trust: those of the bundle, or those of the machine.
async fn roots(bundle: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if !bundle.is_empty() {
        for certificate in CertificateDer::pem_slice_iter(bundle) {
            let certificate = certificate.map_err(|error| format!("unable to load root certificates: {error}"))?;
            roots.add(certificate).map_err(|error| format!("unable to load root certificates: {error}"))?;
        }
        return Ok(roots);
    }
    for file in TRUSTED {
        if let Ok(pem) = tokio::fs::read(file).await {
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
            break;
        }
    }
    Ok(roots)
}

/// Why nobody is trusted there, in the words of Go's libraries, which people search for.
fn handshake(error: &std::io::Error) -> String {
    use rustls::{CertificateError as Bad, Error};
    let stamp = |time: UnixTime| {
        let time = i64::try_from(time.as_secs()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        time.unwrap_or_default().to_string()
    };
    let bad = match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(bad)) => bad,
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            return "http: server gave HTTP response to HTTPS client".to_owned();
        }
        Some(other) => return format!("tls: {other}"),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => return "EOF".to_owned(),
        None => return error.to_string(),
    };
    let why = match bad {
        // The second is what an issuer of the same name leads to.
        Bad::UnknownIssuer | Bad::BadSignature => "certificate signed by unknown authority".to_owned(),
        Bad::ExpiredContext { time, not_after } => format!(
            "certificate has expired or is not yet valid: current time {} is after {}",
            stamp(*time),
            stamp(*not_after)
        ),
        Bad::NotValidYetContext { time, not_before } => format!(
            "certificate has expired or is not yet valid: current time {} is before {}",
            stamp(*time),
            stamp(*not_before)
        ),
        Bad::NotValidForNameContext { expected, presented } if presented.is_empty() => {
            format!("certificate is not valid for any names, but wanted to match {}", expected.to_str())
        }
        Bad::NotValidForNameContext { expected, presented } => {
            // rustls names them with their types: `DnsName("a.example")`.
            let bare = |name: &String| {
                let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
                inner.unwrap_or(name).trim_matches('"').to_owned()
            };
            let names: Vec<String> = presented.iter().map(bare).collect();
            format!("certificate is valid for {}, not {}", names.join(", "), expected.to_str())
        }
        other => other.to_string(),
    };
    format!("tls: failed to verify certificate: x509: {why}")
}

/// An error with what led to it.
fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// A server with a certificate for `name`, or one that speaks no TLS; what is said by a client that trusts `trusted`.
    async fn said(name: Option<&str>, trusted: Option<&rcgen::CertifiedKey<rcgen::KeyPair>>) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let own = name.map(|name| rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate"));
        let ca_bundle = trusted.or(own.as_ref()).map(|key| key.cert.pem()).unwrap_or_default();
        let serve = async {
            let (mut stream, _) = listener.accept().await?;
            let Some(own) = &own else {
                let mut hello = [0; 1];
                tokio::io::AsyncReadExt::read(&mut stream, &mut hello).await?;
                return tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            };
            let secret = own.signing_key.serialize_der().try_into().map_err(io::Error::other)?;
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .and_then(|config| config.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], secret))
                .map_err(io::Error::other)?;
            tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.map(drop)
        };
        let call = WebhookCall {
            url: format!("https://hook.default.svc:{}/", address.port()),
            address: Some(address),
            ca_bundle: ca_bundle.into_bytes(),
            body: Bytes::new(),
            timeout: std::time::Duration::from_secs(10),
        };
        let (answer, _) = tokio::join!(post(call), serve);
        answer.expect_err("no answer")
    }

    #[tokio::test]
    async fn who_is_not_trusted_and_why() {
        let other = rcgen::generate_simple_self_signed(vec!["hook.default.svc".to_owned()]).expect("a certificate");
        let unverified = "tls: failed to verify certificate: x509: ";
        for (name, trusted, expected) in [
            (Some("hook.default.svc"), Some(&other), format!("{unverified}certificate signed by unknown authority")),
            (
                Some("hook.other.svc"),
                None,
                format!("{unverified}certificate is valid for hook.other.svc, not hook.default.svc"),
            ),
            (None, None, "http: server gave HTTP response to HTTPS client".to_owned()),
        ] {
            assert_eq!(said(name, trusted).await, expected, "{name:?}");
        }
    }
}
