//! Who asks: whoever the front proxy says, by the configuration that the cluster publishes for servers like this one.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use http::HeaderMap;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What is known of the front proxy, from the ConfigMap `kube-system/extension-apiserver-authentication`.
pub(crate) struct FrontProxy {
    authority_pem: String,
    allowed_names: Vec<String>,
    username_headers: Vec<String>,
    group_headers: Vec<String>,
    extra_prefixes: Vec<String>,
}

/// Who asks.
#[derive(Debug, PartialEq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

impl FrontProxy {
    /// Reads the configuration, which the Role `extension-apiserver-authentication-reader` lets it.
    pub(crate) async fn load(client: &Client) -> Result<Self> {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
        let map = maps.get("extension-apiserver-authentication").await;
        let data = map.context("cannot read whom to believe")?.data.unwrap_or_default();
        let text = |key: &str| data.get(key).cloned().with_context(|| format!("{key} is missing"));
        let list = |key: &str| Ok::<Vec<String>, anyhow::Error>(serde_json::from_str(&text(key)?)?);
        Ok(Self {
            authority_pem: text("requestheader-client-ca-file")?,
            allowed_names: list("requestheader-allowed-names")?,
            username_headers: list("requestheader-username-headers")?,
            group_headers: list("requestheader-group-headers")?,
            extra_prefixes: list("requestheader-extra-headers-prefix")?,
        })
    }

    /// Judges client certificates: none, or one of the front proxy's authority.
    pub(crate) fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.authority_pem.as_bytes()) {
            roots.add(certificate?)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        Ok(verifier.allow_unauthenticated().build()?)
    }

    /// Whether a certificate of that authority is for one of the names that may speak for others.
    pub(crate) fn is_allowed(&self, leaf: &[u8]) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return false };
        let name = certificate.subject().iter_common_name().last().and_then(|name| name.as_str().ok());
        self.allowed_names.is_empty() || name.is_some_and(|name| self.allowed_names.iter().any(|one| one == name))
    }

    /// Whom the headers name.
    pub(crate) fn user(&self, headers: &HeaderMap) -> Option<User> {
        let values = |name: &String| {
            headers
                .get_all(name.as_str())
                .iter()
                .filter_map(|value| value.to_str().ok())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let name = self.username_headers.iter().flat_map(values).find(|name| !name.is_empty())?;
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (header, value) in headers {
            let mut prefixes = self.extra_prefixes.iter().map(|prefix| prefix.to_lowercase());
            let key = prefixes.find_map(|prefix| header.as_str().strip_prefix(prefix.as_str()));
            if let (Some(key), Ok(value)) = (key, value.to_str()) {
                let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
                extra.entry(key).or_default().push(value.to_owned());
            }
        }
        Some(User { name, groups: self.group_headers.iter().flat_map(values).collect(), extra })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_by_headers() {
        let front_proxy = FrontProxy {
            authority_pem: String::new(),
            allowed_names: vec!["front-proxy-client".to_owned()],
            username_headers: vec!["X-Remote-User".to_owned()],
            group_headers: vec!["X-Remote-Group".to_owned()],
            extra_prefixes: vec!["X-Remote-Extra-".to_owned()],
        };
        let mut headers = HeaderMap::new();
        assert_eq!(front_proxy.user(&headers), None);
        headers.insert("x-remote-user", "jane".parse().expect("a value"));
        headers.append("x-remote-group", "a".parse().expect("a value"));
        headers.append("x-remote-group", "b".parse().expect("a value"));
        headers.insert("x-remote-extra-example.com%2fkey", "1".parse().expect("a value"));
        let user = front_proxy.user(&headers).expect("a user");
        assert_eq!((user.name.as_str(), user.groups), ("jane", vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(user.extra["example.com/key"], ["1"]);
        assert!(!front_proxy.is_allowed(b"no certificate"));
    }
}
