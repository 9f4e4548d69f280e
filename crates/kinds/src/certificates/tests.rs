//! Tables of what is prepared, refused and shown.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use machinery::certificates::KEY_USAGES;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use registry::kind::{Kind, Subresource};
use serde_json::{Value, json};

use super::certificate_signing_request::Requests;
use super::validation::{self, Part};
use crate::testing::{CREATED, NOW, errors, object, row, with};

fn encoded(pem: &str) -> Value {
    BASE64_STANDARD.encode(pem).into()
}

/// A request in PEM, and a certificate of the same subject.
fn pems() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "jane");
    (params.serialize_request(&key).unwrap().pem().unwrap(), params.self_signed(&key).unwrap().pem())
}

fn request() -> Value {
    json!({
        "metadata": { "name": "jane", "creationTimestamp": CREATED },
        "spec": {
            "request": encoded(&pems().0), "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"], "expirationSeconds": 600, "username": "joe",
        },
    })
}

/// A condition as clients write it.
fn condition(kind: &str) -> Value {
    json!({ "type": kind, "status": "True" })
}

/// A condition as it is stored.
fn stored(kind: &str) -> Value {
    json!({ "type": kind, "status": "True", "lastUpdateTime": CREATED, "lastTransitionTime": CREATED })
}

fn with_conditions(conditions: &[Value]) -> Value {
    with(request(), "/status", json!({ "conditions": conditions }))
}

#[test]
fn specs_that_are_wrong() {
    assert_eq!(errors::<Requests>(request()), [""; 0]);
    let check = |field: &str, value: Value, expect: &[&str]| {
        assert_eq!(errors::<Requests>(with(request(), &format!("/spec/{field}"), value)), expect, "{field}");
    };
    check(
        "request",
        encoded("hello"),
        &[r#"spec.request: Invalid value: "aGVsbG8=": PEM block type must be CERTIFICATE REQUEST"#],
    );
    check("usages", Value::Null, &["spec.usages: Required value"]);
    let known = KEY_USAGES.map(|(name, _)| format!("{name:?}")).join(", ");
    check(
        "usages",
        json!(["client auth", "everything", "client auth"]),
        &[
            &format!(r#"spec.usages[1]: Unsupported value: "everything": supported values: {known}"#),
            r#"spec.usages[2]: Duplicate value: "client auth""#,
        ],
    );
    check(
        "expirationSeconds",
        599.into(),
        &["spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)"],
    );
}

#[test]
fn signers_that_are_wrong() {
    let check = |name: &str, expect: &[&str]| {
        let found = errors::<Requests>(with(request(), "/spec/signerName", name.into()));
        let expect: Vec<String> = expect.iter().map(|message| format!("spec.signerName: {message}")).collect();
        assert_eq!(found, expect, "{name}");
    };
    check("example.com/mine.for-all", &[]);
    check("", &["Required value"]);
    check(
        "kubernetes.io/legacy-unknown",
        &[
            r#"Invalid value: "kubernetes.io/legacy-unknown": the legacy signerName is not allowed via this API version"#,
        ],
    );
    let form = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    check("example.com", &[&format!(r#"Invalid value: "example.com": {form}"#)]);
    check("example.com/a/b", &[&format!(r#"Invalid value: "example.com/a/b": {form}"#)]);
    check(
        "example/a",
        &[r#"Invalid value: "example": should be a domain with at least two segments separated by dots"#],
    );
    let label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
        with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
        '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    check("Example.com/a", &[&format!(r#"Invalid value: "Example.com": validating label "Example": {label}"#)]);
    let long = format!("{}.com/a", "a".repeat(64));
    let found = errors::<Requests>(with(request(), "/spec/signerName", long.into()));
    assert!(found[0].ends_with("must be no more than 63 characters") && found.len() == 1, "{found:?}");
}

#[test]
fn conditions_that_are_wrong() {
    let check = |conditions: &[Value], expect: &[&str]| {
        let expect: Vec<String> = expect.iter().map(|message| format!("status.conditions{message}")).collect();
        assert_eq!(errors::<Requests>(with_conditions(conditions)), expect, "{conditions:?}");
    };
    check(&[condition("Approved"), condition("Failed"), json!({ "type": "Mine", "status": "Unknown" })], &[]);
    let exclusive =
        |kind: &str| format!(": Invalid value: {kind:?}: Approved and Denied conditions are mutually exclusive");
    check(&[condition("Approved"), condition("Denied")], &[&exclusive("Denied")]);
    check(&[condition("Denied"), condition("Approved")], &[&exclusive("Approved")]);
    check(
        &[json!({ "type": "Approved", "status": "False" })],
        &[r#"[0].status: Unsupported value: "False": supported values: "True""#],
    );
    check(
        &[json!({ "type": "Mine", "status": "Perhaps" }), json!({ "type": "", "status": "" }), condition("Mine")],
        &[
            r#"[0].status: Unsupported value: "Perhaps": supported values: "False", "True", "Unknown""#,
            "[1].type: Required value",
            "[1].status: Required value",
            r#"[2].type: Duplicate value: "Mine""#,
        ],
    );
}

/// A write as the pipeline prepares it, and what is wrong with it.
fn write(part: Part, old: &Value, new: &Value) -> (Value, Vec<String>) {
    let (old, mut new) = (object::<Requests>(old.clone()), object::<Requests>(new.clone()));
    match part {
        Part::Metadata => Requests::prepare_update(&mut new, &old),
        Part::Status => Requests::prepare_status(&mut new, &old),
        Part::Approval => Requests::prepare_subresource(Subresource::Approval, &mut new, &old),
    }
    if part != Part::Metadata {
        Requests::prepare_conditions(&mut new, &old, NOW.parse().unwrap());
    }
    let errors = validation::update(&new, &old, part).iter().map(ToString::to_string).collect();
    (serde_json::to_value(new).unwrap(), errors)
}

#[test]
fn a_spec_never_changes() {
    let old = request();
    let new = with(with(old.clone(), "/spec/username", "root".into()), "/spec/usages", json!(["any"]));
    for part in [Part::Metadata, Part::Status, Part::Approval] {
        let (written, errors) = write(part, &old, &new);
        assert_eq!((&written["spec"], errors.as_slice()), (&old["spec"], &[][..]));
    }
}

#[test]
fn conditions_of_approval_are_written_by_approval_alone() {
    let forbidden = |what: &str, kind: &str| {
        vec![format!("status.conditions: Forbidden: updates may not {what} a condition of type {kind:?}")]
    };
    let (none, approved) = (request(), with_conditions(&[stored("Approved")]));
    assert_eq!(write(Part::Approval, &none, &approved).1, [""; 0]);
    assert_eq!(write(Part::Status, &none, &approved).1, forbidden("add", "Approved"));
    assert_eq!(write(Part::Metadata, &none, &approved).1, [""; 0], "the status is that of the old object");
    for part in [Part::Approval, Part::Status] {
        assert_eq!(write(part, &approved, &none).1, forbidden("remove", "Approved"));
    }
    let failed = with_conditions(&[stored("Approved"), stored("Failed")]);
    assert_eq!(write(Part::Status, &approved, &failed).1, [""; 0]);
    assert_eq!(write(Part::Status, &failed, &approved).1, forbidden("remove", "Failed"));
    let other = with(approved.clone(), "/status/conditions/0/message", "mine".into());
    let (written, errors) = write(Part::Status, &approved, &other);
    assert_eq!((written["status"]["conditions"][0].get("message"), errors.as_slice()), (None, &[][..]));
    // Both were there before: whoever writes something else is not told.
    let both = with_conditions(&[stored("Approved"), stored("Denied")]);
    assert_eq!(write(Part::Approval, &both, &both).1, [""; 0]);
}

#[test]
fn conditions_get_their_times() {
    let before = "2026-01-01T00:05:00Z";
    let mut old = condition("Mine");
    old["lastTransitionTime"] = before.into();
    let (written, _) =
        write(Part::Approval, &with_conditions(&[old]), &with_conditions(&[condition("Approved"), condition("Mine")]));
    let conditions = &written["status"]["conditions"];
    assert_eq!((&conditions[0]["lastUpdateTime"], &conditions[0]["lastTransitionTime"]), (&json!(NOW), &json!(NOW)));
    assert_eq!((&conditions[1]["lastUpdateTime"], &conditions[1]["lastTransitionTime"]), (&json!(NOW), &json!(before)));
}

#[test]
fn a_certificate_is_written_once_and_by_the_status_alone() {
    let with_certificate = |pem: &str| with(request(), "/status", json!({ "certificate": encoded(pem) }));
    let (one, other) = (with_certificate(&pems().1), with_certificate(&pems().1));
    assert_eq!(write(Part::Status, &request(), &one).1, [""; 0]);
    assert_eq!(write(Part::Status, &one, &one).1, [""; 0]);
    let (written, errors) = write(Part::Approval, &request(), &one);
    assert_eq!((written["status"].get("certificate"), errors.as_slice()), (None, &[][..]));
    let path = "status.certificate";
    let modify = format!("{path}: Forbidden: updates may not modify existing certificate content");
    assert_eq!(write(Part::Status, &one, &other).1, [modify]);
    let none = "must contain at least one CERTIFICATE PEM block";
    assert_eq!(
        write(Part::Status, &request(), &with_certificate("hello")).1,
        [format!("{path}: Invalid value: \"<certificate data>\": {none}")]
    );
}

#[test]
fn rows() {
    let cells = |value: Value| row::<Requests>(value);
    assert_eq!(
        cells(request()),
        [
            json!("jane"),
            json!("10m"),
            json!("kubernetes.io/kube-apiserver-client"),
            json!("joe"),
            json!("10m"),
            json!("Pending")
        ]
    );
    let state = |value: Value| cells(value)[5].clone();
    assert_eq!(state(with_conditions(&[condition("Denied")])), "Denied");
    assert_eq!(state(with_conditions(&[condition("Approved"), condition("Failed")])), "Approved,Failed");
    let issued = with(with_conditions(&[condition("Approved")]), "/status/certificate", encoded(&pems().1));
    assert_eq!(state(issued), "Approved,Issued");
    assert_eq!(cells(with(request(), "/spec/expirationSeconds", Value::Null))[4], "<none>");
}
