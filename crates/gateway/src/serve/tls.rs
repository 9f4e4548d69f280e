//! TLS: the certificate for the name that a client asks for.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use super::Proxy;
use crate::certificate::PROVIDER;
use crate::table::Place;

/// What accepts TLS at a place.
///
/// # Errors
/// When rustls refuses.
pub(super) fn acceptor(proxy: &Arc<Proxy>, place: Place) -> Result<TlsAcceptor, rustls::Error> {
    let resolver = Arc::new(Resolver { proxy: Arc::clone(proxy), place });
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

struct Resolver {
    proxy: Arc<Proxy>,
    place: Place,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resolver({:?})", self.place)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = self.proxy.table.load();
        let tls = table.entry_points.get(&self.place)?.tls.as_ref()?;
        // Somebody who gives no name gets what is there for all.
        let name = hello.server_name().unwrap_or_default().to_ascii_lowercase();
        let named = tls.by_host.matching(&name).next().map(|(_, certificate)| Arc::clone(certificate));
        named.or_else(|| self.proxy.default_certificate.load_full().filter(|_| tls.or_default))
    }
}
