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
use registry::{WebhookCall, WebhookClient};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

/// The most an answer may have, in bytes; upstream's figure.
const MAX_ANSWER: usize = 3 * 1024 * 1024;
/// Where distributions keep the authorities they trust.
const TRUSTED: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The client.
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
    let stream = TlsConnector::from(Arc::new(config))
        .connect(server, stream)
        .await
        .map_err(|error| format!("tls: failed to verify certificate: {error}"))?;
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

/// An error with what led to it.
fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
}
