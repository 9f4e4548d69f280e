//! TLS: the server's certificate, which may be replaced while it runs, and who the clients are.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::authn::Certificates;
use crate::pki::Credential;

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The server's certificate or its key is not one.
    #[error("the server's certificate or key cannot be used")]
    Certificate,
    /// The authority's certificate is not one.
    #[error("the certificate authority cannot be used")]
    Authority,
    /// rustls refuses.
    #[error("cannot set up TLS")]
    Rustls(#[from] rustls::Error),
}

/// Everything about TLS, shared by all listeners.
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    /// Judges what clients show.
    pub(crate) clients: Arc<Certificates>,
    certificate: Arc<Current>,
}

impl Tls {
    /// Serves with `credential`, believes clients whose certificates `authority_pem` signed, and front proxies whose
    /// certificates `front_proxy_pem` did, if any.
    pub(crate) fn new(
        credential: &Credential,
        authority_pem: &str,
        front_proxy_pem: Option<&str>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trusted = verifier(authority_pem, &provider)?;
        let front_proxies = front_proxy_pem.map(|pem| verifier(pem, &provider)).transpose()?;
        let clients = Arc::new(Certificates::new(trusted, front_proxies));
        let certificate = Arc::new(Current(ArcSwap::new(certified(credential, &provider)?)));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::clone(&clients) as _)
            .with_cert_resolver(Arc::clone(&certificate) as _);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), clients, certificate })
    }

    /// Serves new connections with another certificate.
    pub(crate) fn replace(&self, credential: &Credential) -> Result<(), TlsError> {
        let provider = self.acceptor.config().crypto_provider();
        let certified = certified(credential, provider)?;
        self.certificate.0.store(certified);
        Ok(())
    }
}

/// Judges whether certificates are those of clients of this authority.
fn verifier(authority_pem: &str, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority_pem.as_bytes()) {
        roots.add(certificate.map_err(|_| TlsError::Authority)?)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    verifier.map_err(|_| TlsError::Authority)
}

fn certified(credential: &Credential, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let (chain, key) = credential.to_der().ok_or(TlsError::Certificate)?;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, provider)?))
}

/// The certificate in use.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}
