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
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for file in ["ca.crt", "ca.key", "admin.crt", "admin.key"] {
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
