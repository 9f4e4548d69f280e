//! What is read of requests and chains, and what is refused.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

use super::*;

fn request(params: &CertificateParams, key: &KeyPair) -> String {
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "developers");
    params.distinguished_name.push(DnType::CommonName, "jane");
    params.subject_alt_names = vec![
        SanType::DnsName("example.com".try_into().unwrap()),
        SanType::Rfc822Name("jane@example.com".try_into().unwrap()),
        SanType::URI("spiffe://example.com/jane".try_into().unwrap()),
        SanType::IpAddress("10.0.0.1".parse().unwrap()),
        SanType::IpAddress("fd00::1".parse().unwrap()),
    ];
    params
}

#[test]
fn a_request_says_who_asks_for_which_names() {
    let key = KeyPair::generate().unwrap();
    let parsed = CertificateRequest::from_pem(request(&params(), &key).as_bytes()).unwrap();
    assert_eq!(
        (parsed.common_name.as_str(), parsed.organizations.as_slice()),
        ("jane", &["developers".to_owned()][..])
    );
    assert_eq!(parsed.dns_names, ["example.com"]);
    assert_eq!(parsed.email_addresses, ["jane@example.com"]);
    assert_eq!(parsed.uris, ["spiffe://example.com/jane"]);
    let addresses: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    assert_eq!(parsed.ip_addresses, addresses);
    assert_eq!(parsed.public_key_der, rcgen::PublicKeyData::subject_public_key_info(&key));
}

/// openssl's, with an RSA key, two organizations and two common names: what rcgen cannot make.
#[test]
fn every_organization_counts_and_the_last_common_name() {
    let parsed = CertificateRequest::from_pem(include_bytes!("openssl.csr")).unwrap();
    assert_eq!(parsed.common_name, "jane");
    assert_eq!(parsed.organizations, ["developers", "operators"]);
    assert!(parsed.dns_names.is_empty() && parsed.ip_addresses.is_empty());
}

/// A value of DER that is shorter than 128 bytes, or than 32 KiB.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let head = if content.len() < 128 { vec![tag, length[1]] } else { vec![tag, 0x82, length[0], length[1]] };
    [head, content].concat()
}

#[test]
fn a_request_in_which_a_part_claims_the_rest_is_refused() {
    let key = KeyPair::generate().unwrap();
    let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
    let name = der(0x31, &[&der(0x30, &[&[6, 3, 0x55, 4, 3], &der(0x0c, &[b"jane"])])]);
    let check = |subject: &[u8], spki: &[u8], expect: Result<(), &str>| {
        let info = der(0x30, &[&[2, 1, 0], subject, spki, &[0xa0, 0]]);
        let ecdsa_with_sha256 = [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
        let signature = rcgen::SigningKey::sign(&key, &info).unwrap();
        let request = der(0x30, &[&info, &ecdsa_with_sha256, &der(3, &[&[0], &signature])]);
        let found = CertificateRequest::from_der(&request);
        assert_eq!(found.map(|found| assert_eq!(found.common_name, "jane")), expect.map_err(str::to_owned));
    };
    check(&der(0x30, &[&name]), &spki, Ok(()));
    let trailing = Err("malformed certificate request: trailing data");
    check(&der(0x30, &[&name, &[4, 0]]), &spki, trailing);
    // Behind the algorithm and the key.
    check(&der(0x30, &[&name]), &der(0x30, &[&spki[2..], &[4, 0]]), trailing);
}

#[test]
fn what_is_no_request_or_not_signed_by_its_key_is_refused() {
    let key = KeyPair::generate().unwrap();
    let pem = request(&params(), &key);
    let no_block = "PEM block type must be CERTIFICATE REQUEST";
    let check = |pem: &str, expect: &str| assert_eq!(CertificateRequest::from_pem(pem.as_bytes()).unwrap_err(), expect);
    check("", no_block);
    check("hello", no_block);
    check(&pem.replace("CERTIFICATE REQUEST", "CERTIFICATE"), no_block);
    check(
        "-----BEGIN CERTIFICATE REQUEST-----\naGVsbG8=\n-----END CERTIFICATE REQUEST-----",
        "malformed certificate request",
    );
    let block = Pem::iter_from_buffer(pem.as_bytes()).next().unwrap().unwrap();
    let mut longer = block.contents.clone();
    longer.push(0);
    assert_eq!(CertificateRequest::from_der(&longer).unwrap_err(), "malformed certificate request: trailing data");
    // One letter of the name is another.
    let mut other = block.contents;
    let at = other.windows(4).position(|bytes| bytes == b"jane").unwrap();
    other[at] = b'k';
    assert_eq!(CertificateRequest::from_der(&other).unwrap_err(), "signature verification error");
}

#[test]
fn a_chain_is_certificates_and_nothing_else() {
    let key = KeyPair::generate().unwrap();
    let certificate = params().self_signed(&key).unwrap().pem();
    assert_eq!(check_chain(b""), Ok(()));
    assert_eq!(check_chain(format!("of jane\n{certificate}{certificate}").as_bytes()), Ok(()));
    let refused = |pem: String| check_chain(pem.as_bytes()).unwrap_err();
    assert_eq!(refused("hello".to_owned()), "must contain at least one CERTIFICATE PEM block");
    let both = certificate.clone() + &request(&params(), &key);
    assert_eq!(refused(both), r#"only CERTIFICATE PEM blocks are allowed, found "CERTIFICATE REQUEST""#);
    let empty = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----";
    assert_eq!(refused(empty.to_owned()), "malformed certificate");
    assert!(not_after(certificate.as_bytes()) > Some(Timestamp::UNIX_EPOCH));
    assert_eq!(not_after(b"hello"), None);
}

#[test]
fn usages_are_sorted_by_name() {
    assert!(KEY_USAGES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert_eq!(key_usage("digital signature"), Some(KeyUsage::Basic(0)));
    assert_eq!(key_usage("everything"), None);
}
