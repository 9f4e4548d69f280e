//! Whom a connection of TLS trusts, and why it does not come about.

use std::io;
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, InvalidMessage, RootCertStore, WantsVerifier};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Where distributions keep the authorities they trust.
const TRUSTED: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Begins to speak TLS with `host`, a name or an address.
///
/// # Errors
/// Why that does not succeed, as Go says it.
pub async fn handshake(
    stream: TcpStream,
    host: &str,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| words(&error))
}

/// Whom a client trusts.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// Anybody: for servers in pods, whose addresses were looked up in the API.
    Anybody,
    /// The authorities of this bundle in PEM, and those of the machine where it is empty.
    Authorities(&'a [u8]),
}

/// A client that takes any certificate.
///
/// Upstream: neither probes (`pkg/probe/http/http.go`) nor the `proxy` subresources (`pkg/kubelet/client`,
/// `ProxyTransport`) verify whom they talk to.
#[must_use]
pub fn trusting() -> Arc<ClientConfig> {
    static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| match builder() {
        Ok(builder) => Arc::new(trusting_anybody(builder).with_no_client_auth()),
        Err(_) => unreachable!("the provider supports the default versions"),
    });
    Arc::clone(&CONFIG)
}

/// A client that trusts the authorities of `bundle`, in PEM, and those of the machine where that is empty.
///
/// # Errors
/// When the bundle has something in it that is no certificate.
pub async fn verifying(bundle: &[u8]) -> Result<Arc<ClientConfig>, String> {
    let roots = roots(bundle).await?;
    let builder = builder().map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// A client that shows a certificate: its chain, and its key.
///
/// # Errors
/// As [`verifying`]; also when the key is none.
pub async fn authenticated(
    trust: Trust<'_>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, String> {
    let builder = builder().map_err(|error| error.to_string())?;
    let builder = match trust {
        Trust::Anybody => trusting_anybody(builder),
        Trust::Authorities(bundle) => builder.with_root_certificates(roots(bundle).await?),
    };
    builder.with_client_auth_cert(chain, key).map(Arc::new).map_err(|error| error.to_string())
}

/// The ring provider speaks all versions that rustls knows.
fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}

fn trusting_anybody(
    builder: ConfigBuilder<ClientConfig, WantsVerifier>,
) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let verifier = Arc::new(AnyCertificate(Arc::clone(builder.crypto_provider())));
    builder.dangerous().with_custom_certificate_verifier(verifier)
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

/// Why there is no connection, in the words of Go's libraries, which people search for.
fn words(error: &io::Error) -> String {
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
        None if error.kind() == io::ErrorKind::UnexpectedEof => return "EOF".to_owned(),
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

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
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
        let asked = async {
            let config = verifying(ca_bundle.as_bytes()).await?;
            handshake(crate::dial_address(address).await?, "hook.default.svc", config).await
        };
        let (answer, _) = tokio::join!(asked, serve);
        answer.expect_err("no connection")
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
