//! Certificates that others asked for, by CertificateSigningRequests.
//!
//! They are written field by field (RFC 5280, section 4.1): rcgen's names hold one value of a kind, and the subject of a user
//! has an organization for each group. What is not of the request is as upstream's `PermissiveSigningPolicy` has it
//! (`pkg/controller/certificates/authority/policies.go`).

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use machinery::certificates::{CertificateRequest, KeyUsage, key_usage};
use rcgen::{SignatureAlgorithm, SigningKey};
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use yasna::models::{GeneralizedTime, ObjectIdentifier, UTCTime};
use yasna::{DERWriter, DERWriterSeq, Tag};

use super::PkiError;
use super::authority::Authority;

/// A certificate is valid so long before it is issued, and so much shorter, unless it is short-lived.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
const SHORT: Duration = Duration::from_secs(8 * 60 * 60);

const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const EXT_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const AUTHORITY_KEY_IDENTIFIER: &[u64] = &[2, 5, 29, 35];
/// A subject without any name.
const EMPTY_NAME: [u8; 2] = [0x30, 0];

/// Issues a certificate for a request, in PEM.
pub(super) fn issue(
    authority: &Authority,
    request: &CertificateRequest,
    usages: &[String],
    lifetime: Duration,
    serial: &[u8],
    now: SystemTime,
) -> Result<String, PkiError> {
    let (_, pem) = parse_x509_pem(authority.pem.as_bytes()).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
    let issuer = pem.parse_x509().map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
    let key = authority.issuer.key();
    let algorithm = algorithm_identifier(key.algorithm())?;
    let ends = now + if lifetime < SHORT { lifetime } else { lifetime - BACKDATE };
    if now >= authority.ends {
        return Err(PkiError::AuthorityEnded);
    }
    let (begins, ends) = (now - BACKDATE, ends.min(authority.ends));
    let key_id = issuer.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    let usages = Usages::of(usages)?;
    let tbs = sequence(|certificate| {
        // Version 3.
        certificate.next().write_tagged(Tag::context(0), |version| version.write_u8(2));
        certificate.next().write_bigint_bytes(serial, true);
        certificate.next().write_der(&algorithm);
        certificate.next().write_der(issuer.subject().as_raw());
        certificate.next().write_sequence(|validity| {
            write_time(validity.next(), begins);
            write_time(validity.next(), ends);
        });
        certificate.next().write_der(&request.subject_der);
        certificate.next().write_der(&request.public_key_der);
        certificate.next().write_tagged(Tag::context(3), |extensions| {
            extensions.write_sequence(|extensions| write_extensions(extensions, request, &usages, key_id));
        });
    });
    let signature = key.sign(&tbs)?;
    let certificate = sequence(|certificate| {
        certificate.next().write_der(&tbs);
        certificate.next().write_der(&algorithm);
        certificate.next().write_bitvec_bytes(&signature, signature.len() * 8);
    });
    check(&certificate, request)?;
    Ok(to_pem(&certificate))
}

/// Refuses to hand out anything but a certificate of this subject and key, which is no authority, whatever the request was.
fn check(certificate: &[u8], request: &CertificateRequest) -> Result<(), PkiError> {
    let issued = X509Certificate::from_der(certificate).ok().filter(|(rest, _)| rest.is_empty());
    let is_as_asked = issued.is_some_and(|(_, issued)| {
        issued.subject().as_raw() == request.subject_der
            && issued.public_key().raw == request.public_key_der
            && !issued.is_ca()
    });
    if is_as_asked { Ok(()) } else { Err(PkiError::Request) }
}

/// The usages of a certificate, sorted by extension.
struct Usages {
    /// The bits of `keyUsage`, and how many there are.
    basic: ([u8; 2], usize),
    extended: Vec<&'static [u64]>,
}

impl Usages {
    fn of(names: &[String]) -> Result<Self, PkiError> {
        let mut usages = Self { basic: ([0; 2], 0), extended: Vec::new() };
        for name in names {
            match key_usage(name).ok_or_else(|| PkiError::Usage(name.clone()))? {
                KeyUsage::Basic(bit) => {
                    let bit = usize::from(bit);
                    usages.basic.0[bit / 8] |= 0x80 >> (bit % 8);
                    usages.basic.1 = usages.basic.1.max(bit + 1);
                }
                KeyUsage::Extended(id) => usages.extended.push(id),
            }
        }
        // Two names may mean the same.
        usages.extended.sort_unstable();
        usages.extended.dedup();
        Ok(usages)
    }
}

fn write_extensions(
    extensions: &mut DERWriterSeq<'_>,
    request: &CertificateRequest,
    usages: &Usages,
    key_id: Option<&[u8]>,
) {
    let (bits, count) = usages.basic;
    if count > 0 {
        write_extension(extensions, KEY_USAGE, true, |usage| {
            usage.write_bitvec_bytes(&bits[..count.div_ceil(8)], count);
        });
    }
    if !usages.extended.is_empty() {
        write_extension(extensions, EXT_KEY_USAGE, false, |ids| {
            ids.write_sequence(|ids| {
                for id in &usages.extended {
                    ids.next().write_oid(&ObjectIdentifier::from_slice(id));
                }
            });
        });
    }
    // No authority: nothing is what is left out.
    write_extension(extensions, BASIC_CONSTRAINTS, true, |constraints| constraints.write_sequence(|_| {}));
    if let Some(id) = key_id {
        write_extension(extensions, AUTHORITY_KEY_IDENTIFIER, false, |identifier| {
            identifier.write_sequence(|fields| {
                fields.next().write_tagged_implicit(Tag::context(0), |field| field.write_bytes(id));
            });
        });
    }
    let text = [(2, &request.dns_names), (1, &request.email_addresses), (6, &request.uris)];
    if request.ip_addresses.is_empty() && text.iter().all(|(_, names)| names.is_empty()) {
        return;
    }
    write_extension(extensions, SUBJECT_ALT_NAME, request.subject_der == EMPTY_NAME, |names| {
        names.write_sequence(|names| {
            for (tag, name) in text.iter().flat_map(|(tag, names)| names.iter().map(move |name| (*tag, name))) {
                names.next().write_tagged_implicit(Tag::context(tag), |field| field.write_ia5_string(name));
            }
            for address in &request.ip_addresses {
                names.next().write_tagged_implicit(Tag::context(7), |field| match address {
                    IpAddr::V4(address) => field.write_bytes(&address.octets()),
                    IpAddr::V6(address) => field.write_bytes(&address.octets()),
                });
            }
        });
    });
}

fn write_extension(extensions: &mut DERWriterSeq<'_>, id: &[u64], critical: bool, value: impl FnOnce(DERWriter<'_>)) {
    extensions.next().write_sequence(|extension| {
        extension.next().write_oid(&ObjectIdentifier::from_slice(id));
        // What is the default is left out.
        if critical {
            extension.next().write_bool(true);
        }
        extension.next().write_bytes(&yasna::construct_der(value));
    });
}

/// A time in whole seconds: from 2050 on it is a GeneralizedTime (RFC 5280, section 4.1.2.5).
fn write_time(writer: DERWriter<'_>, time: SystemTime) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs());
    match UTCTime::from_datetime_opt(time.into()) {
        Some(time) => writer.write_utctime(&time),
        None => writer.write_generalized_time(&GeneralizedTime::from_datetime(time.into())),
    }
}

/// The `AlgorithmIdentifier` of signatures of a key, in DER.
fn algorithm_identifier(algorithm: &SignatureAlgorithm) -> Result<Vec<u8>, rcgen::Error> {
    let known: [(&SignatureAlgorithm, &[u64], bool); 4] = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, &[1, 2, 840, 10045, 4, 3, 2], false),
        (&rcgen::PKCS_ECDSA_P384_SHA384, &[1, 2, 840, 10045, 4, 3, 3], false),
        (&rcgen::PKCS_ED25519, &[1, 3, 101, 112], false),
        (&rcgen::PKCS_RSA_SHA256, &[1, 2, 840, 113_549, 1, 1, 11], true),
    ];
    let found = known.into_iter().find(|(known, ..)| *known == algorithm);
    let (_, id, has_null) = found.ok_or(rcgen::Error::UnsupportedSignatureAlgorithm)?;
    Ok(sequence(|identifier| {
        identifier.next().write_oid(&ObjectIdentifier::from_slice(id));
        if has_null {
            identifier.next().write_null();
        }
    }))
}

/// A SEQUENCE, in DER.
fn sequence(fields: impl FnOnce(&mut DERWriterSeq<'_>)) -> Vec<u8> {
    yasna::construct_der(|writer| writer.write_sequence(fields))
}

fn to_pem(der: &[u8]) -> String {
    let encoded = BASE64_STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in encoded.as_bytes().chunks(64) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
