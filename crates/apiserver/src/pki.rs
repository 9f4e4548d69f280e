//! The profile's own certificate authorities and the certificates they issue.
//!
//! One directory per profile holds `ca.crt`, the server's certificate, those of the clients, and a key (ECDSA P-256) for
//! each; beside them `front-proxy-ca.crt` and the server's certificate as a front proxy, which are trusted for nothing else. What is there is used again; what is missing, damaged, near its end, from the future (a clock was set back) or made for
//! other names is issued anew. Files are readable by their owner only and are replaced by a rename, so that a crash
//! leaves either the old or the new one. The authorities' keys do not leave this module: who signs for others has a [`Pki`].

mod authority;
mod certificate;
mod files;
mod issue;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use machinery::certificates::CertificateRequest;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType, SerialNumber};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use authority::Authority;
use certificate::Facts;

use crate::tokens::TokenKey;

/// The authority's certificate lives for ten years, and is renewed (same key, same name) in its last.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
const AUTHORITY_RENEWAL: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// All others live for a year, and are renewed in their last thirty days.
const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const LEAF_RENEWAL: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Whom the server is to aggregated API servers; kubeadm's name.
pub(crate) const FRONT_PROXY_CLIENT: &str = "front-proxy-client";
/// A certificate is valid a little before it is issued: the clocks of containers and laptops jump.
const SKEW: Duration = Duration::from_secs(60 * 60);

/// Why the certificates could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A request for a certificate is not what it seems to be.
    #[error("the certificate would not be what the request asks for")]
    Request,
    /// The authority's certificate has ended: what it signs now is good for nothing.
    #[error("the certificate authority has ended; delete its certificate and key to have a new one founded")]
    AuthorityEnded,
    /// A file or directory could not be read or written.
    #[error("cannot use {path}: {source}; check its owner and permissions")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The authority's files exist and are not a certificate and its key. Replacing them would lock out every client,
    /// so that is left to a person.
    #[error(
        "{path} and its key are no certificate authority; restore them from a copy, or delete both to have a new authority founded"
    )]
    Authority {
        /// The certificate.
        path: PathBuf,
    },
    /// The authority's certificate is there, its key is not. Founding another one would lock out who trusts this one, so that
    /// is left to a person.
    #[error(
        "the certificate authority's key {} is missing; restore it from a copy, or delete {} to have a new authority founded",
        key.display(), certificate.display()
    )]
    AuthorityKey {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The key that signs tokens is there and is none. Replacing it would end all tokens, so that is left to a person.
    #[error("{path} does not hold a P-256 key; delete it to have a new one made, which ends all tokens")]
    TokenKey {
        /// The key.
        path: PathBuf,
    },
    /// A request asks for a usage that there is not.
    #[error("there is no key usage {0:?}")]
    Usage(String),
    /// A key or certificate could not be made.
    #[error("cannot issue a certificate")]
    Issue(#[from] rcgen::Error),
}

/// A certificate and its key, both in PEM.
#[derive(Clone)]
pub struct Credential {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key, PKCS#8.
    pub key_pem: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

impl Credential {
    /// The certificate chain and the key as rustls takes them; `None` when the PEM holds neither.
    pub(crate) fn to_der(&self) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain = CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes());
        Some((chain.ok().filter(|chain| !chain.is_empty())?, key.ok()?))
    }
}

/// The certificate authorities of one profile, with their directory: one for the server and its clients, and one by whose
/// certificates the server says that it asks on somebody's behalf.
pub struct Pki {
    directory: PathBuf,
    authority: Authority,
    front_proxy: Authority,
}

impl Pki {
    /// Opens the authorities kept in `directory`, or founds them there.
    ///
    /// # Errors
    /// When the directory cannot be written, or holds something that is not an authority.
    pub fn open(directory: &Path) -> Result<Self, PkiError> {
        Self::open_at(directory, SystemTime::now())
    }

    fn open_at(directory: &Path, now: SystemTime) -> Result<Self, PkiError> {
        files::make_private_directory(directory)?;
        let authority = Authority::open(directory, "ca", "coracle", now)?;
        let front_proxy = Authority::open(directory, "front-proxy-ca", "front-proxy-ca", now)?;
        Ok(Self { directory: directory.to_owned(), authority, front_proxy })
    }

    /// The authority's certificate in PEM: what clients trust.
    #[must_use]
    pub fn authority_pem(&self) -> &str {
        &self.authority.pem
    }

    /// The certificate, in PEM, of the authority whose clients may ask on somebody's behalf.
    #[must_use]
    pub fn front_proxy_authority_pem(&self) -> &str {
        &self.front_proxy.pem
    }

    /// The certificate by which the server asks aggregated API servers on somebody's behalf.
    ///
    /// # Errors
    /// As [`Pki::client`].
    pub(crate) fn front_proxy_client(&self) -> Result<Credential, PkiError> {
        self.front_proxy_client_named(FRONT_PROXY_CLIENT)
    }

    /// A certificate of the same authority for another name, under which nobody is believed.
    pub(crate) fn front_proxy_client_named(&self, name: &str) -> Result<Credential, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.leaf(&self.front_proxy, name, params, SystemTime::now())
    }

    /// The server's certificate for `names` (DNS names and IP addresses); the one on disk if it is good for exactly
    /// these.
    ///
    /// # Errors
    /// When the files cannot be read or written, or a name is not one a certificate can carry.
    pub fn server(&self, names: &[String]) -> Result<Credential, PkiError> {
        self.server_at(names, SystemTime::now())
    }

    fn server_at(&self, names: &[String], now: SystemTime) -> Result<Credential, PkiError> {
        self.serving("apiserver", "kube-apiserver", names, now)
    }

    fn serving(&self, file: &str, name: &str, names: &[String], now: SystemTime) -> Result<Credential, PkiError> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.leaf(&self.authority, file, params, now)
    }

    /// The serving certificate of the kubelet of `node` at `address`, by the name upstream's have (`kubernetes.io/kubelet-serving`
    /// signs no other). It is made anew each time and not kept: nobody trusts it by anything but the authority.
    ///
    /// # Errors
    /// When the name is not one a certificate can carry.
    pub(crate) fn kubelet(&self, node: &str, address: IpAddr) -> Result<Credential, PkiError> {
        let mut params = CertificateParams::new(vec![node.to_owned(), address.to_string()])?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Self::issue(&self.authority, params, SystemTime::now())
    }

    /// The certificate of the proxy of Ingresses for `names`, as [`Pki::server`].
    ///
    /// # Errors
    /// As [`Pki::server`].
    pub fn ingress(&self, names: &[String]) -> Result<Credential, PkiError> {
        self.serving("ingress", "coracle-ingress", names, SystemTime::now())
    }

    /// The certificate of a client: `user` and the one group it belongs to. `file` names it on disk.
    ///
    /// # Errors
    /// When the files cannot be read or written.
    pub fn client(&self, file: &str, user: &str, group: &str) -> Result<Credential, PkiError> {
        self.client_at(file, user, group, SystemTime::now())
    }

    fn client_at(&self, file: &str, user: &str, group: &str, now: SystemTime) -> Result<Credential, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.distinguished_name.push(DnType::CommonName, user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.leaf(&self.authority, file, params, now)
    }

    /// The certificate for a kubeconfig: kubernetes-admin, of the group that may do everything.
    ///
    /// # Errors
    /// As [`Pki::client`].
    pub fn admin(&self) -> Result<Credential, PkiError> {
        self.client("admin", "kubernetes-admin", "system:masters")
    }

    /// The key that signs the tokens of service accounts, made at its first use.
    ///
    /// # Errors
    /// As [`Pki::client`]; also when there is a file that holds no such key.
    pub fn token_key(&self) -> Result<TokenKey, PkiError> {
        let path = self.directory.join("sa.key");
        let pair = match files::read(&path)? {
            Some(pem) => KeyPair::from_pem(&pem).map_err(|_| PkiError::TokenKey { path: path.clone() })?,
            None => {
                let pair = KeyPair::generate()?;
                files::write_private(&path, &pair.serialize_pem())?;
                pair
            }
        };
        TokenKey::from_pkcs8(&pair.serialize_der()).ok_or(PkiError::TokenKey { path })
    }

    /// A certificate for a request of somebody else, in PEM: for `usages`, by the names that a CertificateSigningRequest has for
    /// them, and for `lifetime`, but no longer than the authority's.
    ///
    /// # Errors
    /// When there is no such usage, or the authority's key cannot sign.
    pub fn sign(
        &self,
        request: &CertificateRequest,
        usages: &[String],
        lifetime: Duration,
    ) -> Result<String, PkiError> {
        self.sign_at(request, usages, lifetime, SystemTime::now())
    }

    pub(crate) fn sign_at(
        &self,
        request: &CertificateRequest,
        usages: &[String],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<String, PkiError> {
        issue::issue(&self.authority, request, usages, lifetime, &random_serial(), now)
    }

    fn leaf(
        &self,
        authority: &Authority,
        file: &str,
        params: CertificateParams,
        now: SystemTime,
    ) -> Result<Credential, PkiError> {
        let certificate_path = self.directory.join(format!("{file}.crt"));
        let key_path = self.directory.join(format!("{file}.key"));
        if let (Some(certificate_pem), Some(key_pem)) = (files::read(&certificate_path)?, files::read(&key_path)?) {
            let good =
                Facts::of_pem(&certificate_pem).zip(KeyPair::from_pem(&key_pem).ok()).is_some_and(|(facts, key)| {
                    facts.belongs_to(&key)
                        && !facts.due_at(now, LEAF_RENEWAL)
                        && facts.names == wanted_names(&params)
                        && facts.subject == wanted_subject(&params)
                        && facts.signed_by(&authority.pem)
                });
            if good {
                return Ok(Credential { certificate_pem, key_pem });
            }
        }
        let credential = Self::issue(authority, params, now)?;
        files::write_private(&key_path, &credential.key_pem)?;
        files::write_private(&certificate_path, &credential.certificate_pem)?;
        Ok(credential)
    }

    /// A new certificate, for a new key.
    fn issue(authority: &Authority, mut params: CertificateParams, now: SystemTime) -> Result<Credential, PkiError> {
        let key = KeyPair::generate()?;
        params.not_before = (now - SKEW).into();
        params.not_after = (now + LEAF_LIFETIME).min(authority.ends).into();
        params.serial_number = Some(SerialNumber::from_slice(&random_serial()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate_pem = params.signed_by(&key, &authority.issuer)?.pem();
        Ok(Credential { certificate_pem, key_pem: key.serialize_pem() })
    }
}

/// How often to ask [`Pki::server`] and [`Pki::ingress`] again while running, so that nothing ever expires.
pub const RENEWAL_CHECK: Duration = Duration::from_secs(12 * 60 * 60);

/// The names and addresses the server answers to: those every cluster has, and `more`.
#[must_use]
pub fn server_names(more: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = [
        "127.0.0.1",
        "::1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    .map(str::to_owned)
    .into();
    for name in more {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn wanted_names(params: &CertificateParams) -> Vec<String> {
    let mut names: Vec<String> = params
        .subject_alt_names
        .iter()
        .map(|name| match name {
            SanType::DnsName(name) => name.as_str().to_owned(),
            SanType::IpAddress(address) => IpAddr::to_string(address),
            _ => String::new(),
        })
        .collect();
    names.sort_unstable();
    names
}

fn wanted_subject(params: &CertificateParams) -> Vec<String> {
    params
        .distinguished_name
        .iter()
        .map(|(_, value)| match value {
            rcgen::DnValue::Utf8String(value) => value.clone(),
            _ => String::new(),
        })
        .collect()
}

/// 127 random bits: positive, as X.509 wants serial numbers to be.
fn random_serial() -> [u8; 16] {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] &= 0x7f;
    bytes[0] |= 0x01;
    bytes
}

#[cfg(test)]
mod tests;
