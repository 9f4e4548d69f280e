//! Who is asking: the user behind a client certificate, or, where there is none, behind a token ([`tokens`](crate::tokens)),
//! and whom they act as ([`impersonation`]); or whom a front proxy says it asks for ([`request_header`]).
//!
//! TLS itself lets every client in, with a certificate or without; what a certificate proves is decided here, after the
//! handshake. A certificate that is expired or comes from elsewhere so leads to an answer the client can read (401),
//! instead of an aborted handshake.

mod impersonation;
pub(crate) mod request_header;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use machinery::status::ApiError;
pub use registry::User;
use registry::user::UNAUTHENTICATED;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authz::Authorizer;
use crate::pki::FRONT_PROXY_CLIENT;
use crate::tokens::Tokens;

/// Finds out whom a request comes from.
pub(crate) struct Authenticator {
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
}

impl Authenticator {
    /// Whom the request comes from, given what the connection says.
    ///
    /// # Errors
    /// 401 for a token that is not good.
    pub(crate) fn authenticate(&self, headers: &HeaderMap, user: Arc<User>) -> Result<Arc<User>, ApiError> {
        match bearer(headers).filter(|_| user.is_in(UNAUTHENTICATED)) {
            Some(token) => {
                let found = self.tokens.authenticate(token, &[], jiff::Timestamp::now());
                let found = found.inspect_err(|error| tracing::debug!(%error, "a token was not accepted"));
                Ok(found.map_err(|_| ApiError::unauthorized())?.0)
            }
            None => Ok(user),
        }
    }

    /// Whom `user` acts as, if anybody. The headers that say so, and who asks, are removed: nobody behind this is to pass them
    /// on.
    ///
    /// # Errors
    /// As [`impersonation::impersonated`].
    pub(crate) fn impersonated(&self, headers: &mut HeaderMap, user: &User) -> Result<Option<Arc<User>>, ApiError> {
        let other = impersonation::impersonated(headers, user, &*self.authorizer)?;
        headers.remove(AUTHORIZATION);
        Ok(other)
    }
}

/// The token of a request, if it has one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Whom a connection is of.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    client: Client,
    /// When the client certificate that proves it ends.
    until: Option<SystemTime>,
}

#[derive(Debug, Clone)]
enum Client {
    /// Asks for itself.
    User(Arc<User>),
    /// Says in each request whom it asks for.
    FrontProxy,
}

impl Identity {
    /// A client that shows no certificate.
    pub(crate) fn anonymous() -> Self {
        Self { client: Client::User(Arc::new(User::anonymous())), until: None }
    }

    /// Who asks now, by a request with these headers; nobody once the certificate has ended. Upstream verifies it with each
    /// request (`staging/src/k8s.io/apiserver/pkg/authentication/request/x509/x509.go`).
    pub(crate) fn user(&self, headers: &mut HeaderMap) -> Option<Arc<User>> {
        if self.until.is_some_and(|until| SystemTime::now() > until) {
            return None;
        }
        match &self.client {
            Client::User(user) => Some(Arc::clone(user)),
            Client::FrontProxy => request_header::take(headers).map(Arc::new),
        }
    }
}

/// Judges client certificates.
#[derive(Debug)]
pub(crate) struct Certificates {
    trusted: Arc<dyn ClientCertVerifier>,
    /// None where nobody asks on behalf of others.
    front_proxies: Option<Arc<dyn ClientCertVerifier>>,
    /// The names of the authorities: clients show no certificate of another.
    hints: Vec<DistinguishedName>,
}

impl Certificates {
    /// `trusted` knows the authority whose certificates are believed, `front_proxies` the one whose certificates are those of
    /// front proxies, if there are any.
    pub(crate) fn new(
        trusted: Arc<dyn ClientCertVerifier>,
        front_proxies: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Self {
        let hints =
            std::iter::once(&trusted).chain(&front_proxies).flat_map(|verifier| verifier.root_hint_subjects()).cloned();
        Self { hints: hints.collect(), trusted, front_proxies }
    }

    /// Whom a certificate chain proves a client to be; `None` when it proves nothing (wrong authority, expired, no name).
    pub(crate) fn identity(&self, chain: &[CertificateDer<'_>]) -> Option<Identity> {
        let leaf = chain.first()?;
        let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
        let ends = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
        let until = Some(SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(ends))?);
        // The authority certifies no other authorities, so nothing stands between it and a client.
        if let Err(error) = self.trusted.verify_client_cert(leaf, &[], UnixTime::now()) {
            let verified = self.front_proxies.as_ref().map(|all| all.verify_client_cert(leaf, &[], UnixTime::now()));
            let is_front_proxy = verified.is_some_and(|verified| verified.is_ok())
                && certificate.subject().iter_common_name().last()?.as_str().ok()? == FRONT_PROXY_CLIENT;
            tracing::debug!(%error, is_front_proxy, "not the certificate of a client");
            return is_front_proxy.then_some(Identity { client: Client::FrontProxy, until });
        }
        // Of several names the last one counts, as in Go: also who approves a request for a certificate reads that one.
        let name = certificate.subject().iter_common_name().last()?.as_str().ok()?;
        if name.is_empty() {
            return None;
        }
        let groups: Vec<&str> =
            certificate.subject().iter_organization().filter_map(|group| group.as_str().ok()).collect();
        let mut user = User::new(name, &groups);
        // Upstream names the credential, so that an audit can tell two certificates of one user apart.
        let mut digest = String::with_capacity(80);
        digest.push_str("X509SHA256=");
        for byte in Sha256::digest(leaf) {
            // Writing to a String cannot fail.
            let _ = write!(digest, "{byte:02x}");
        }
        user.extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![digest]);
        Some(Identity { client: Client::User(Arc::new(user)), until })
    }
}

/// As far as TLS goes, a client certificate is optional and its issuer does not matter; that the client holds its key does.
impl ClientCertVerifier for Certificates {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trusted.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trusted.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trusted.supported_verify_schemes()
    }
}
