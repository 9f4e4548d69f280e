//! X.509 as certificates.k8s.io has it: certificate signing requests (PKCS#10, RFC 2986), the certificates that answer them,
//! and the key usages that they name.
//!
//! What is verified are the algorithms that the API server accepts of clients: RSA of 2048 bits and more, ECDSA on P-256 and
//! P-384, Ed25519.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use x509_parser::asn1_rs::Any;
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{AttributeTypeAndValue, SubjectPublicKeyInfo};

/// What a key may be used for, as X.509 writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUsage {
    /// A bit of the extension `keyUsage`, by its number in RFC 5280, section 4.2.1.3.
    Basic(u8),
    /// An object identifier in the extension `extKeyUsage`, section 4.2.1.12 there.
    Extended(&'static [u64]),
}

/// The usages that a CertificateSigningRequest may ask for, sorted by name.
///
/// Upstream: `keyUsageDict` and `extKeyUsageDict` in `pkg/controller/certificates/authority/policies.go`.
pub const KEY_USAGES: [(&str, KeyUsage); 23] = {
    use KeyUsage::{Basic, Extended};
    [
        ("any", Extended(&[2, 5, 29, 37, 0])),
        ("cert sign", Basic(5)),
        ("client auth", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 2])),
        ("code signing", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 3])),
        ("content commitment", Basic(1)),
        ("crl sign", Basic(6)),
        ("data encipherment", Basic(3)),
        ("decipher only", Basic(8)),
        ("digital signature", Basic(0)),
        ("email protection", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 4])),
        ("encipher only", Basic(7)),
        ("ipsec end system", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 5])),
        ("ipsec tunnel", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 6])),
        ("ipsec user", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 7])),
        ("key agreement", Basic(4)),
        ("key encipherment", Basic(2)),
        ("microsoft sgc", Extended(&[1, 3, 6, 1, 4, 1, 311, 10, 3, 3])),
        ("netscape sgc", Extended(&[2, 16, 840, 1, 113_730, 4, 1])),
        ("ocsp signing", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 9])),
        ("s/mime", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 4])),
        ("server auth", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 1])),
        ("signing", Basic(0)),
        ("timestamping", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 8])),
    ]
};

/// The usage of that name.
#[must_use]
pub fn key_usage(name: &str) -> Option<KeyUsage> {
    KEY_USAGES.iter().find(|(known, _)| *known == name).map(|(_, usage)| *usage)
}

/// The condition of a request that is to be signed.
pub const APPROVED: &str = "Approved";
/// The condition of a request that is not to be signed.
pub const DENIED: &str = "Denied";
/// The condition of a request that its signer cannot sign.
pub const FAILED: &str = "Failed";

/// The signer of client certificates of users.
pub const API_SERVER_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// The signer of client certificates of kubelets.
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// The signer of the certificates with which kubelets serve.
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// The conditions of a request.
#[must_use]
pub fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

/// The certificate of a request in PEM; empty before it is issued.
#[must_use]
pub fn certificate(request: &CertificateSigningRequest) -> &[u8] {
    request.status.as_ref().and_then(|status| status.certificate.as_ref()).map_or(&[], |bytes| bytes.0.as_slice())
}

/// The bits of the shortest RSA key.
const RSA_MIN: usize = 2048;

/// A certificate signing request whose signature is good: whoever sent it has the key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateRequest {
    /// The last common name of the subject, as Go's `pkix.Name` has it; empty where there is none.
    pub common_name: String,
    /// The organizations of the subject.
    pub organizations: Vec<String>,
    /// Alternative names that are DNS names.
    pub dns_names: Vec<String>,
    /// Alternative names that are e-mail addresses.
    pub email_addresses: Vec<String>,
    /// Alternative names that are addresses.
    pub ip_addresses: Vec<IpAddr>,
    /// Alternative names that are URIs.
    pub uris: Vec<String>,
    /// The whole subject, in DER.
    pub subject_der: Vec<u8>,
    /// The `SubjectPublicKeyInfo`, in DER.
    pub public_key_der: Vec<u8>,
}

impl CertificateRequest {
    /// The request in the first PEM block of `pem`.
    ///
    /// # Errors
    /// When it is none, is malformed, or was not signed by the key that it is for.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let block = Pem::iter_from_buffer(pem).next().and_then(Result::ok);
        let block = block.filter(|block| block.label == "CERTIFICATE REQUEST");
        let block = block.ok_or("PEM block type must be CERTIFICATE REQUEST")?;
        Self::from_der(&block.contents)
    }

    fn from_der(der: &[u8]) -> Result<Self, String> {
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| "malformed certificate request")?;
        if !rest.is_empty() {
            return Err("malformed certificate request: trailing data".to_owned());
        }
        request.verify_signature().map_err(|error| error.to_string())?;
        let info = &request.certification_request_info;
        // They are signed as they are. What claims to be longer than it is would make what follows it in the certificate a part
        // of itself, and the rest of it the requester's.
        if !is_whole(info.subject.as_raw()) || !is_whole(info.subject_pki.raw) {
            return Err("malformed certificate request: trailing data".to_owned());
        }
        check_key(&info.subject_pki)?;
        let mut parsed = Self {
            common_name: values(info.subject.iter_common_name())?.pop().unwrap_or_default(),
            organizations: values(info.subject.iter_organization())?,
            subject_der: info.subject.as_raw().to_vec(),
            public_key_der: info.subject_pki.raw.to_vec(),
            ..Self::default()
        };
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else { continue };
            for extension in requested.extensions.iter().filter(|one| one.oid == OID_X509_EXT_SUBJECT_ALT_NAME) {
                let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
                    return Err("malformed subjectAltName".to_owned());
                };
                names.general_names.iter().try_for_each(|name| parsed.add_alternative_name(name))?;
            }
        }
        Ok(parsed)
    }

    /// Names of other types are not asked about, and are not signed.
    fn add_alternative_name(&mut self, name: &GeneralName<'_>) -> Result<(), String> {
        let (names, name) = match name {
            GeneralName::DNSName(name) => (&mut self.dns_names, name),
            GeneralName::RFC822Name(name) => (&mut self.email_addresses, name),
            GeneralName::URI(name) => (&mut self.uris, name),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                self.ip_addresses.push(address.map_err(|_| "subjectAltName has a malformed IP address")?);
                return Ok(());
            }
            GeneralName::Invalid(..) => return Err("malformed subjectAltName".to_owned()),
            _ => return Ok(()),
        };
        if !name.is_ascii() {
            return Err("subjectAltName has a name that is not ASCII".to_owned());
        }
        names.push((*name).to_owned());
        Ok(())
    }
}

/// Whether this is one value of DER, as long as it says: the parser of names and keys ends where it cannot read on.
fn is_whole(der: &[u8]) -> bool {
    Any::from_der(der).is_ok_and(|(rest, _)| rest.is_empty())
}

/// Refuses keys that the API server does not accept of clients.
fn check_key(key: &SubjectPublicKeyInfo<'_>) -> Result<(), String> {
    match key.parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() < RSA_MIN => Err(format!("RSA keys need {RSA_MIN} bits")),
        Ok(_) => Ok(()),
        Err(_) => Err("malformed public key".to_owned()),
    }
}

/// The values of an attribute of a subject. One that cannot be read is an error: whoever compares names must not miss one that
/// somebody else may read.
fn values<'s, 'd: 's>(attributes: impl Iterator<Item = &'s AttributeTypeAndValue<'d>>) -> Result<Vec<String>, String> {
    let value = |attribute: &AttributeTypeAndValue<'_>| attribute.as_str().map(str::to_owned);
    attributes.map(value).collect::<Result<_, _>>().map_err(|_| "malformed subject".to_owned())
}

/// Checks that `pem` is nothing, or certificates: what a signer may write as the certificate of a CertificateSigningRequest.
///
/// Upstream: `validateCertificate` in `pkg/apis/certificates/validation/validation.go`.
///
/// # Errors
/// What is wrong with it.
pub fn check_chain(pem: &[u8]) -> Result<(), String> {
    if pem.is_empty() {
        return Ok(());
    }
    let mut blocks = 0_usize;
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|error| error.to_string())?;
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        let mut rest = block.contents.as_slice();
        while !rest.is_empty() {
            (rest, _) = X509Certificate::from_der(rest).map_err(|_| "malformed certificate")?;
        }
        blocks += 1;
    }
    if blocks == 0 {
        return Err("must contain at least one CERTIFICATE PEM block".to_owned());
    }
    Ok(())
}

/// When the first certificate in `pem` ends; nothing if there is none.
#[must_use]
pub fn not_after(pem: &[u8]) -> Option<Timestamp> {
    let block = Pem::iter_from_buffer(pem).next()?.ok()?;
    let certificate = block.parse_x509().ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

#[cfg(test)]
mod tests;
