//! What there is to know about a certificate already issued.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PublicKeyData};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::{Pem, parse_x509_pem};

/// The facts by which a stored certificate is judged.
pub(super) struct Facts {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    /// DNS names and addresses, sorted.
    pub(super) names: Vec<String>,
    /// Values of the subject, in order.
    pub(super) subject: Vec<String>,
    public_key: Vec<u8>,
    pem: Pem,
}

impl Facts {
    /// `None` when the text is not a certificate.
    pub(super) fn of_pem(text: &str) -> Option<Self> {
        let (_, pem) = parse_x509_pem(text.as_bytes()).ok()?;
        let certificate = pem.parse_x509().ok()?;
        let mut names: Vec<String> = match certificate.subject_alternative_name().ok()? {
            Some(extension) => extension.value.general_names.iter().filter_map(name).collect(),
            None => Vec::new(),
        };
        names.sort_unstable();
        let subject = certificate.subject().iter_attributes().filter_map(|part| part.as_str().ok()).map(str::to_owned);
        let facts = Self {
            not_before: time(certificate.validity().not_before.timestamp()),
            not_after: time(certificate.validity().not_after.timestamp()),
            names,
            subject: subject.collect(),
            public_key: certificate.public_key().raw.to_vec(),
            pem: pem.clone(),
        };
        Some(facts)
    }

    pub(super) fn belongs_to(&self, key: &KeyPair) -> bool {
        self.public_key == key.subject_public_key_info()
    }

    /// Whether it is time for a new one: within `renewal` of the end, or not valid yet.
    pub(super) fn due_at(&self, now: SystemTime, renewal: Duration) -> bool {
        now < self.not_before || now + renewal >= self.not_after
    }

    pub(super) fn signed_by(&self, authority: &str) -> bool {
        let Some(authority) = parse_x509_pem(authority.as_bytes()).ok() else { return false };
        match (self.pem.parse_x509(), authority.1.parse_x509()) {
            (Ok(certificate), Ok(authority)) => certificate.verify_signature(Some(authority.public_key())).is_ok(),
            _ => false,
        }
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or(v6).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

fn time(seconds: i64) -> SystemTime {
    match u64::try_from(seconds) {
        Ok(seconds) => SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        Err(_) => SystemTime::UNIX_EPOCH,
    }
}
