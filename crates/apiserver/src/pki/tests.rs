//! Issuing, reuse, renewal, damage.

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn names() -> Vec<String> {
    server_names(["10.96.0.1".to_owned(), "172.30.0.1".to_owned()])
}

#[test]
fn what_is_there_is_used_again() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("pki");
    let first = Pki::open(&directory).unwrap();
    let server = first.server(&names()).unwrap();
    let admin = first.admin().unwrap();

    let second = Pki::open(&directory).unwrap();
    assert_eq!(first.authority_pem(), second.authority_pem());
    assert_eq!(server.certificate_pem, second.server(&names()).unwrap().certificate_pem);
    assert_eq!(admin.key_pem, second.admin().unwrap().key_pem);
    let front_proxy = first.front_proxy_client().unwrap();
    assert_eq!(front_proxy.key_pem, second.front_proxy_client().unwrap().key_pem);
    let facts = Facts::of_pem(&front_proxy.certificate_pem).unwrap();
    assert!(facts.signed_by(second.front_proxy_authority_pem()) && !facts.signed_by(second.authority_pem()));
}

#[test]
fn new_names_need_a_new_certificate() {
    let home = tempfile::tempdir().unwrap();
    let pki = Pki::open(home.path()).unwrap();
    let before = pki.server(&names()).unwrap();
    let mut more = names();
    more.push("cluster.example".to_owned());
    let after = pki.server(&more).unwrap();
    assert_ne!(before.certificate_pem, after.certificate_pem);
    let facts = Facts::of_pem(&after.certificate_pem).unwrap();
    for name in
        ["127.0.0.1", "::1", "localhost", "kubernetes.default.svc.cluster.local", "10.96.0.1", "cluster.example"]
    {
        assert!(facts.names.iter().any(|have| have == name), "{name} is missing from {:?}", facts.names);
    }
}

#[test]
fn renewal_comes_before_the_end_and_after_a_clock_was_set_back() {
    let home = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let pki = Pki::open_at(home.path(), now).unwrap();
    let first = pki.client_at("admin", "kubernetes-admin", "system:masters", now).unwrap();
    for (when, renewed) in [(now + 300 * DAY, false), (now + 336 * DAY, true), (now, true)] {
        let before = fs::read_to_string(home.path().join("admin.crt")).unwrap();
        let after = pki.client_at("admin", "kubernetes-admin", "system:masters", when).unwrap();
        assert_eq!(before != after.certificate_pem, renewed, "{:?} later", when.duration_since(now));
    }
    assert!(Facts::of_pem(&first.certificate_pem).is_some());
}

#[test]
fn a_renewed_authority_keeps_its_key() {
    let home = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let old = Pki::open_at(home.path(), now).unwrap();
    let leaf = old.server_at(&names(), now).unwrap();
    let new = Pki::open_at(home.path(), now + 3400 * DAY).unwrap();
    assert_ne!(old.authority_pem(), new.authority_pem());
    assert!(Facts::of_pem(&leaf.certificate_pem).unwrap().signed_by(new.authority_pem()));
}

#[test]
fn nobody_else_may_read_the_files() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("deep/pki");
    let pki = Pki::open(&directory).unwrap();
    pki.admin().unwrap();
    pki.front_proxy_client().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    let front_proxy = ["front-proxy-ca.crt", "front-proxy-ca.key", "front-proxy-client.crt", "front-proxy-client.key"];
    for file in ["ca.crt", "ca.key", "admin.crt", "admin.key"].into_iter().chain(front_proxy) {
        assert_eq!(mode(&directory.join(file)), 0o600, "{file}");
    }
}

#[test]
fn a_damaged_leaf_is_replaced_a_damaged_authority_is_not() {
    let home = tempfile::tempdir().unwrap();
    let pki = Pki::open(home.path()).unwrap();
    pki.admin().unwrap();
    fs::write(home.path().join("admin.key"), "garbage").unwrap();
    assert!(pki.admin().unwrap().key_pem.contains("PRIVATE KEY"));

    fs::write(home.path().join("ca.crt"), b"\xff\xfe garbage").unwrap();
    assert!(matches!(Pki::open(home.path()), Err(PkiError::Authority { .. })));
    fs::write(home.path().join("ca.key"), "garbage").unwrap();
    fs::remove_file(home.path().join("ca.crt")).unwrap();
    assert!(matches!(Pki::open(home.path()), Err(PkiError::Authority { .. })));
}

/// What a start leaves that ended between the two files, and what is left when one of them got lost.
#[test]
fn half_of_a_pair() {
    let home = tempfile::tempdir().unwrap();
    let [certificate, key] = ["ca.crt", "ca.key"].map(|name| home.path().join(name));
    let old = Pki::open(home.path()).unwrap();
    let admin = old.admin().unwrap();
    for lost in [None, Some(""), Some("\n")] {
        fs::remove_file(&certificate).unwrap();
        if let Some(text) = lost {
            fs::write(&certificate, text).unwrap();
        }
        let new = Pki::open(home.path()).unwrap();
        assert!(Facts::of_pem(&admin.certificate_pem).unwrap().signed_by(new.authority_pem()));
        assert_eq!(new.admin().unwrap().certificate_pem, admin.certificate_pem, "it is as good as before");
    }
    for half in ["admin.crt", "admin.key"] {
        fs::remove_file(home.path().join(half)).unwrap();
        assert!(Pki::open(home.path()).unwrap().admin().unwrap().to_der().is_some());
    }
    fs::write(home.path().join("sa.key"), "").unwrap();
    Pki::open(home.path()).unwrap().token_key().unwrap();

    // Others may trust it, and a new one would lock them out.
    let kept = fs::read_to_string(&certificate).unwrap();
    fs::remove_file(&key).unwrap();
    let error = Pki::open(home.path()).err().unwrap();
    assert!(matches!(error, PkiError::AuthorityKey { .. }));
    assert!(error.to_string().contains(&format!("delete {}", certificate.display())), "{error}");
    assert_eq!(fs::read_to_string(&certificate).unwrap(), kept);
    fs::remove_file(&certificate).unwrap();
    let new = Pki::open(home.path()).unwrap().admin().unwrap();
    assert_ne!(new.certificate_pem, admin.certificate_pem);
}

#[test]
fn a_foreign_authority_means_new_leaves() {
    let home = tempfile::tempdir().unwrap();
    let before = Pki::open(home.path()).unwrap().admin().unwrap();
    fs::remove_file(home.path().join("ca.crt")).unwrap();
    fs::remove_file(home.path().join("ca.key")).unwrap();
    let after = Pki::open(home.path()).unwrap().admin().unwrap();
    assert_ne!(before.certificate_pem, after.certificate_pem);
}

fn usages(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The request of a key of its own for two groups, which rcgen cannot make, and for names.
fn request() -> CertificateRequest {
    let openssl = include_bytes!("../../../machinery/src/certificates/openssl.csr");
    let mut request = CertificateRequest::from_pem(openssl).unwrap();
    request.dns_names = vec!["example.com".to_owned()];
    request.email_addresses = vec!["jane@example.com".to_owned()];
    request.uris = vec!["spiffe://example.com/jane".to_owned()];
    request.ip_addresses = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    request
}

#[test]
fn what_is_signed_for_others_says_what_they_asked_for() {
    use x509_parser::extensions::GeneralName;
    let home = tempfile::tempdir().unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let pki = Pki::open_at(home.path(), now).unwrap();
    let asked = usages(&["digital signature", "decipher only", "client auth", "s/mime", "email protection"]);
    let issued = pki.sign_at(&request(), &asked, DAY, now).unwrap();
    assert!(Facts::of_pem(&issued).unwrap().signed_by(pki.authority_pem()));
    let (_, pem) = x509_parser::pem::parse_x509_pem(issued.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    assert_eq!(certificate.version, x509_parser::x509::X509Version::V3);
    assert_eq!(certificate.subject().to_string(), "CN=joe, O=developers, O=operators, CN=jane");
    assert_eq!(certificate.issuer().to_string(), "CN=coracle");
    assert_eq!(certificate.public_key().raw, request().public_key_der);
    assert!(!certificate.is_ca());
    assert!(certificate.basic_constraints().unwrap().unwrap().critical);
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.decipher_only() && !usage.key_cert_sign());
    let extended = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.client_auth && extended.email_protection && !extended.server_auth && extended.other.is_empty());
    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    let (v4, v6) = ([10, 0, 0, 1], "fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    let expect = [
        GeneralName::DNSName("example.com"),
        GeneralName::RFC822Name("jane@example.com"),
        GeneralName::URI("spiffe://example.com/jane"),
        GeneralName::IPAddress(&v4),
        GeneralName::IPAddress(&v6),
    ];
    assert_eq!(names.as_slice(), expect);
    let (_, other) = x509_parser::pem::parse_x509_pem(pki.authority_pem().as_bytes()).unwrap();
    let authority = other.parse_x509().unwrap();
    let id_of = |certificate: &x509_parser::certificate::X509Certificate<'_>| {
        certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(id) => {
                id.key_identifier.as_ref().map(|id| id.0.to_vec())
            }
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        })
    };
    assert_eq!(id_of(&certificate).expect("an identifier"), id_of(&authority).expect("an identifier"));
    assert!(pki.sign_at(&request(), &usages(&["everything"]), DAY, now).is_err());
}

#[test]
fn what_is_signed_for_others_ends_when_they_asked_and_before_the_authority() {
    let home = tempfile::tempdir().unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let pki = Pki::open_at(home.path(), now).unwrap();
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
    let ten_years = 3650 * DAY;
    for (lifetime, at, ends) in [
        (10 * minute, now, now + 10 * minute),
        (8 * hour, now, now + 8 * hour - 5 * minute),
        (365 * DAY, now, now + 365 * DAY - 5 * minute),
        (365 * DAY, now + 3400 * DAY, now + ten_years),
    ] {
        let issued = pki.sign_at(&request(), &usages(&["client auth"]), lifetime, at).unwrap();
        let facts = Facts::of_pem(&issued).unwrap();
        assert_eq!((facts.not_before, facts.not_after), (at - 5 * minute, ends), "{lifetime:?}");
    }
}

/// The years that two digits do not tell.
#[test]
fn a_certificate_may_end_after_2049() {
    let home = tempfile::tempdir().unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(2_524_600_000);
    let pki = Pki::open_at(home.path(), now).unwrap();
    let issued = pki.sign_at(&request(), &usages(&["client auth"]), 30 * DAY, now).unwrap();
    assert_eq!(Facts::of_pem(&issued).unwrap().not_after, now + 30 * DAY - Duration::from_secs(300));
}
