//! Tables of what is approved, signed and deleted.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use serde_json::{Value, from_value, json};

use super::approver::{self, Right};
use super::cleaner::is_due;
use super::signer::{self, Decision};
use machinery::certificates::{API_SERVER_CLIENT, APPROVED, KUBELET_CLIENT, KUBELET_SERVING};

use super::*;

const NODE: &str = "system:node:laptop";
const CLIENT_USAGES: [&str; 3] = ["digital signature", "key encipherment", "client auth"];
const SERVER_USAGES: [&str; 3] = ["digital signature", "key encipherment", "server auth"];

/// A request of a subject, for names.
fn request(
    signer: &str,
    (group, name): (&str, &str),
    names: &[SanType],
    usages: &[&str],
    conditions: &[&str],
) -> CertificateSigningRequest {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = names.to_vec();
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let conditions: Vec<Value> = conditions.iter().map(|kind| json!({ "type": kind, "status": "True" })).collect();
    let mut request: CertificateSigningRequest = from_value(json!({
        "metadata": { "name": "r" },
        "spec": { "request": "", "signerName": signer, "usages": usages, "username": NODE },
        "status": { "conditions": conditions },
    }))
    .unwrap();
    request.spec.request = ByteString(pem.into_bytes());
    request
}

fn dns() -> SanType {
    SanType::DnsName("laptop".try_into().unwrap())
}

fn node_client(conditions: &[&str]) -> CertificateSigningRequest {
    request(KUBELET_CLIENT, ("system:nodes", NODE), &[], &CLIENT_USAGES, conditions)
}

#[test]
fn client_certificates_of_kubelets_are_approved_by_right() {
    let both = [Right::SelfNodeClient, Right::NodeClient];
    assert_eq!(approver::plan(&node_client(&[])), both);
    let subject = ("system:nodes", NODE);
    assert_eq!(
        approver::plan(&request(KUBELET_CLIENT, subject, &[], &["digital signature", "client auth"], &[])),
        both
    );
    let other = ("system:nodes", "system:node:other");
    assert_eq!(approver::plan(&request(KUBELET_CLIENT, other, &[], &CLIENT_USAGES, &[])), [Right::NodeClient]);
    let nothing = [
        node_client(&["Approved"]),
        node_client(&["Denied"]),
        request(API_SERVER_CLIENT, subject, &[], &CLIENT_USAGES, &[]),
        request(KUBELET_SERVING, subject, &[dns()], &SERVER_USAGES, &[]),
        request(KUBELET_CLIENT, ("system:masters", NODE), &[], &CLIENT_USAGES, &[]),
        request(KUBELET_CLIENT, ("system:nodes", "jane"), &[], &CLIENT_USAGES, &[]),
        request(KUBELET_CLIENT, subject, &[dns()], &CLIENT_USAGES, &[]),
        request(KUBELET_CLIENT, subject, &[], &["client auth", "any"], &[]),
    ];
    for request in nothing {
        assert_eq!(approver::plan(&request), [], "{:?}", request.spec);
    }
    let approved = approver::approved(&node_client(&[]), Right::NodeClient);
    let condition = &conditions(&approved)[0];
    assert_eq!((condition.type_.as_str(), condition.reason.as_deref()), (APPROVED, Some("AutoApproved")));
    assert_eq!(approver::plan(&approved), [], "once");
}

#[test]
fn approved_requests_are_signed_as_their_signer_does() {
    let user = ("developers", "jane");
    let node = ("system:nodes", NODE);
    let address = || SanType::IpAddress("10.0.0.1".parse().unwrap());
    let email = || SanType::Rfc822Name("jane@example.com".try_into().unwrap());
    let uri = || SanType::URI("spiffe://example.com/jane".try_into().unwrap());
    let check = |signer: &str, subject: (&str, &str), names: &[SanType], usages: &[&str], fault: Option<&str>| {
        let decision = signer::plan(&request(signer, subject, names, usages, &["Approved"])).expect("a decision");
        match (decision, fault) {
            (Decision::Sign(parsed, lifetime), None) => {
                assert_eq!((parsed.common_name.as_str(), lifetime), (subject.1, Duration::from_secs(31_536_000)));
            }
            (Decision::Fail(found), Some(fault)) => assert_eq!(found, fault),
            (decision, fault) => panic!("{decision:?} and not {fault:?}"),
        }
    };
    check(API_SERVER_CLIENT, user, &[], &["client auth"], None);
    check(API_SERVER_CLIENT, user, &[dns(), email()], &CLIENT_USAGES, None);
    check(
        API_SERVER_CLIENT,
        user,
        &[],
        &["client auth", "server auth"],
        Some("invalid usage for client certificate: server auth"),
    );
    check(
        API_SERVER_CLIENT,
        user,
        &[],
        &["digital signature"],
        Some("missing required usage for client certificate: client auth"),
    );

    check(KUBELET_CLIENT, node, &[], &CLIENT_USAGES, None);
    check(KUBELET_CLIENT, user, &[], &CLIENT_USAGES, Some("subject organization is not system:nodes"));
    let jane = ("system:nodes", "jane");
    check(KUBELET_CLIENT, jane, &[], &CLIENT_USAGES, Some("subject common name does not begin with system:node:"));
    for (name, kind) in [(dns(), "DNS"), (email(), "Email"), (address(), "IP"), (uri(), "URI")] {
        let fault = format!("{kind} subjectAltNames are not allowed");
        check(KUBELET_CLIENT, node, &[name], &CLIENT_USAGES, Some(&fault));
    }
    let usages = "usages did not match [client auth digital signature key encipherment]";
    check(KUBELET_CLIENT, node, &[], &["client auth"], Some(usages));

    check(KUBELET_SERVING, node, &[dns()], &SERVER_USAGES, None);
    check(KUBELET_SERVING, node, &[address()], &["digital signature", "server auth"], None);
    check(KUBELET_SERVING, node, &[], &SERVER_USAGES, Some("DNS or IP subjectAltName is required"));
    check(KUBELET_SERVING, node, &[dns(), uri()], &SERVER_USAGES, Some("URI subjectAltNames are not allowed"));
    let usages = "usages did not match [digital signature key encipherment server auth]";
    check(KUBELET_SERVING, node, &[dns()], &CLIENT_USAGES, Some(usages));
}

#[test]
fn what_is_not_approved_is_not_signed() {
    let mut issued = node_client(&["Approved"]);
    issued.status.as_mut().unwrap().certificate = Some(ByteString(b"pem".to_vec()));
    for request in [
        node_client(&[]),
        node_client(&["Denied"]),
        node_client(&["Approved", "Denied"]),
        node_client(&["Approved", "Failed"]),
        issued,
        request("example.com/mine", ("developers", "jane"), &[], &["client auth"], &["Approved"]),
    ] {
        assert_eq!(signer::plan(&request), None, "{:?}", request.status);
    }
}

#[test]
fn a_certificate_lives_no_longer_than_it_may() {
    for (asked, lifetime) in [(600, 600), (3_600, 3_600), (1, 600), (-1, 600), (i32::MAX, 31_536_000)] {
        let mut request = node_client(&["Approved"]);
        request.spec.expiration_seconds = Some(asked);
        let Some(Decision::Sign(_, found)) = signer::plan(&request) else { panic!("{asked}") };
        assert_eq!(found.as_secs(), lifetime, "{asked}");
    }
}

#[test]
fn old_requests_are_deleted() {
    let now: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
    let mut params = CertificateParams::default();
    params.not_after = rcgen::date_time_ymd(2026, 1, 1);
    let ended = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    params.not_after = rcgen::date_time_ymd(2027, 1, 1);
    let good = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let check = |created: &str, conditions: Value, certificate: Option<&str>, due: bool| {
        let mut request: CertificateSigningRequest = from_value(json!({
            "metadata": { "name": "r", "creationTimestamp": created },
            "spec": { "request": "", "signerName": "example.com/mine" },
            "status": { "conditions": conditions },
        }))
        .unwrap();
        let pem = certificate.map(|pem| ByteString(pem.as_bytes().to_vec()));
        request.status.as_mut().unwrap().certificate = pem;
        assert_eq!(is_due(&request, now), due, "{created} {conditions}");
    };
    let (long_ago, today) = ("2025-12-01T00:00:00Z", "2026-01-02T00:00:00Z");
    let condition = |kind: &str, time: &str| json!([{ "type": kind, "status": "True", "lastUpdateTime": time }]);
    check("2026-01-01T12:00:00Z", json!([]), None, false);
    check("2026-01-01T11:59:59Z", json!([]), None, true);
    for kind in ["Denied", "Failed"] {
        check(long_ago, condition(kind, "2026-01-02T11:00:00Z"), None, false);
        check(today, condition(kind, "2026-01-02T10:59:59Z"), None, true);
    }
    check(today, condition("Approved", long_ago), None, false);
    check(long_ago, condition("Approved", "2026-01-02T11:00:00Z"), Some(&good), false);
    check(today, condition("Approved", "2026-01-02T10:59:59Z"), Some(&good), true);
    check(today, condition("Approved", "2026-01-02T11:30:00Z"), Some(&ended), true);
    check(long_ago, condition("Mine", long_ago), None, false);
}
