//! Certificates from Secrets of type `kubernetes.io/tls`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use informer::ObjectKey;
use k8s_openapi::api::core::v1::Secret;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::backend::Objects;

/// What signs and verifies here.
pub(crate) static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

/// The type of a Secret with a certificate.
pub(crate) const TLS: &str = "kubernetes.io/tls";

/// Why a Secret has no certificate to serve with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("Secret {0} of type kubernetes.io/tls does not exist")]
    NotFound(ObjectKey),
    #[error("Secret {0} has no certificate that can be used: {1}")]
    Invalid(ObjectKey, String),
}

/// The certificates in use. To read a key takes longer than to make a table, so each is read once for each version of its Secret.
#[derive(Default)]
pub(crate) struct CertificateCache {
    read: HashMap<ObjectKey, Read>,
}

struct Read {
    version: (Option<String>, Option<String>),
    certificate: Result<Arc<CertifiedKey>, String>,
    /// Whether it was asked for since the last [`CertificateCache::retain_used`].
    is_used: bool,
}

impl CertificateCache {
    /// The certificate of a Secret.
    pub(crate) fn get(
        &mut self,
        objects: &dyn Objects,
        key: &ObjectKey,
    ) -> Result<Arc<CertifiedKey>, CertificateError> {
        let secret = objects.secret(key).ok_or_else(|| CertificateError::NotFound(key.clone()))?;
        let version = (secret.metadata.uid.clone(), secret.metadata.resource_version.clone());
        let read = match self.read.get_mut(key) {
            Some(read) if read.version == version => read,
            _ => {
                let read = Read { version, certificate: of_secret(&secret), is_used: true };
                self.read.entry(key.clone()).insert_entry(read).into_mut()
            }
        };
        read.is_used = true;
        read.certificate.clone().map_err(|why| CertificateError::Invalid(key.clone(), why))
    }

    /// Forgets what nobody has asked for since the last time.
    pub(crate) fn retain_used(&mut self) {
        self.read.retain(|_, read| std::mem::take(&mut read.is_used));
    }
}

fn of_secret(secret: &Secret) -> Result<Arc<CertifiedKey>, String> {
    if secret.type_.as_deref() != Some(TLS) {
        return Err(format!("it is of type {}", secret.type_.as_deref().unwrap_or("Opaque")));
    }
    let part = |name: &str| {
        let data = secret.data.as_ref().and_then(|data| data.get(name)).filter(|data| !data.0.is_empty());
        data.map(|data| data.0.as_slice()).ok_or_else(|| format!("{name} is missing"))
    };
    certified(part("tls.crt")?, part("tls.key")?)
}

/// A chain of certificates and its key, both in PEM.
///
/// # Errors
/// Why they cannot be used.
pub(crate) fn certified(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|error| format!("tls.crt: {error}"))?;
    if chain.is_empty() {
        return Err("tls.crt has no certificate".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("tls.key: {error}"))?;
    let certified = CertifiedKey::from_der(chain, key, &PROVIDER);
    certified.map(Arc::new).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestObjects, certificate, secret};

    #[test]
    fn secrets_are_read_once_for_each_version() {
        let key = ObjectKey::new("a", "cert");
        let one = TestObjects::new().secret(secret("a", "cert", "1", &certificate("one.example.com")));
        let two = TestObjects::new().secret(secret("a", "cert", "2", &certificate("two.example.com")));
        let mut cache = CertificateCache::default();
        let first = cache.get(&one, &key).unwrap();
        assert!(Arc::ptr_eq(&first, &cache.get(&one, &key).unwrap()));
        let second = cache.get(&two, &key).unwrap();
        assert_ne!(first.cert, second.cert);
        cache.retain_used();
        assert_eq!(cache.read.len(), 1, "it was used");
        cache.retain_used();
        assert_eq!(cache.read.len(), 0);
        let nobody = cache.get(&TestObjects::new(), &key).unwrap_err();
        assert_eq!(nobody, CertificateError::NotFound(key));
    }

    #[test]
    fn what_is_no_certificate() {
        let check = |change: fn(&mut Secret), expected: &str| {
            let mut secret = secret("a", "cert", "1", &certificate("example.com"));
            change(&mut secret);
            let error = of_secret(&secret).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        let set = |secret: &mut Secret, name: &str, value: &[u8]| {
            secret.data.get_or_insert_default().insert(name.to_owned(), k8s_openapi::ByteString(value.to_vec()));
        };
        check(|secret| secret.type_ = Some("Opaque".to_owned()), "it is of type Opaque");
        check(|secret| secret.data = None, "tls.crt is missing");
        check(|secret| drop(secret.data.as_mut().unwrap().remove("tls.key")), "tls.key is missing");
        let mut other = secret("a", "cert", "1", &certificate("example.com"));
        set(&mut other, "tls.crt", b"Hello world");
        assert_eq!(of_secret(&other).unwrap_err(), "tls.crt has no certificate");
        let mut other = secret("a", "cert", "1", &certificate("example.com"));
        set(&mut other, "tls.key", b"Hello world");
        assert!(of_secret(&other).unwrap_err().starts_with("tls.key: "));
        let mut other = secret("a", "cert", "1", &certificate("example.com"));
        set(&mut other, "tls.key", certificate("example.com").1.as_bytes());
        assert!(of_secret(&other).is_err(), "a key that is another certificate's");
    }
}
