//! A certificate authority: its key, and its certificate, which is made again with the same key and name before it ends.

use std::path::Path;
use std::time::SystemTime;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber};

use super::certificate::Facts;
use super::{AUTHORITY_LIFETIME, AUTHORITY_RENEWAL, PkiError, SKEW, files, random_serial};

/// An authority. Its key does not leave the module [`pki`](super).
pub(super) struct Authority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub(super) pem: String,
    /// When that ends.
    pub(super) ends: SystemTime,
}

impl Authority {
    /// Opens the authority `name`, whose certificate and key are `FILE.crt` and `FILE.key`, or founds it there.
    pub(super) fn open(directory: &Path, file: &str, name: &str, now: SystemTime) -> Result<Self, PkiError> {
        let (certificate_path, key_path) =
            (directory.join(format!("{file}.crt")), directory.join(format!("{file}.key")));
        let broken = || PkiError::Authority { path: certificate_path.clone() };

        let (pem, key, ends) = match (files::read(&certificate_path)?, files::read(&key_path)?) {
            (Some(pem), Some(key)) => {
                let key = KeyPair::from_pem(&key).map_err(|_| broken())?;
                let facts = Facts::of_pem(&pem).filter(|facts| facts.belongs_to(&key)).ok_or_else(broken)?;
                match facts.due_at(now, AUTHORITY_RENEWAL) {
                    false => (pem, key, facts.not_after),
                    true => certify(key, &certificate_path, name, now)?,
                }
            }
            // The key is written first, and a start may have ended there. Also where the certificate got lost later, another
            // one of the same key and name is as good.
            (None, Some(key)) => certify(KeyPair::from_pem(&key).map_err(|_| broken())?, &certificate_path, name, now)?,
            // Who trusts the certificate would trust no other.
            (Some(_), None) => return Err(PkiError::AuthorityKey { certificate: certificate_path, key: key_path }),
            (None, None) => {
                let key = KeyPair::generate()?;
                files::write_private(&key_path, &key.serialize_pem())?;
                certify(key, &certificate_path, name, now)?
            }
        };
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|_| broken())?;
        Ok(Self { issuer, pem, ends })
    }
}

/// Writes the authority's certificate for `key`. What an earlier one of the same key has issued stays valid.
fn certify(key: KeyPair, path: &Path, name: &str, now: SystemTime) -> Result<(String, KeyPair, SystemTime), PkiError> {
    let (pem, ends) = found(&key, name, now)?;
    files::write_private(path, &pem)?;
    Ok((pem, key, ends))
}

fn found(key: &KeyPair, name: &str, now: SystemTime) -> Result<(String, SystemTime), PkiError> {
    let mut params = CertificateParams::default();
    let ends = now + AUTHORITY_LIFETIME;
    params.not_before = (now - SKEW).into();
    params.not_after = ends.into();
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok((params.self_signed(key)?.pem(), ends))
}
