//! CertificateSigningRequests with the authorizer that a cluster has: who asks, who approves, who signs, and what the
//! certificate is good for.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use machinery::certificates::CertificateRequest;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use registry::User;
use serde_json::{Value, json};

use super::network::Served;
use super::support::Fixture;
use crate::pki::Credential;
use crate::{Limits, RequestLimits};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// A request in PEM, and its key.
pub(super) fn request_of(name: &str, group: &str) -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, name);
    (params.serialize_request(&key).unwrap().pem().unwrap(), key)
}

fn asked(pem: &str) -> Value {
    let request = BASE64_STANDARD.encode(pem);
    json!({
        "metadata": { "name": "jane" },
        "spec": { "request": request, "signerName": SIGNER, "usages": ["client auth"], "username": "root", "groups": ["wheel"] },
    })
}

/// Lets a user do that with requests and signers.
pub(super) async fn allow(fixture: &Fixture, user: &str, rules: Value) {
    let group = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({ "metadata": { "name": user }, "rules": rules });
    assert_eq!(fixture.ask(&format!("POST {group}/clusterroles"), &[], role.to_string()).await.status, 201);
    let binding = json!({
        "metadata": { "name": user },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
    });
    assert_eq!(fixture.ask(&format!("POST {group}/clusterrolebindings"), &[], binding.to_string()).await.status, 201);
}

async fn ask_as(fixture: &Fixture, user: &str, line: &str, body: &Value) -> (u16, Value) {
    let user = User { uid: "u1".to_owned(), ..User::new(user, &["developers"]) };
    let reply = fixture.ask_as(Some(user), line, &[("content-type", "application/json")], body.to_string()).await;
    (reply.status.as_u16(), reply.json())
}

fn all_of_requests() -> Value {
    json!({
        "apiGroups": ["certificates.k8s.io"], "verbs": ["*"],
        "resources": ["certificatesigningrequests", "certificatesigningrequests/approval", "certificatesigningrequests/status"],
    })
}

fn signers(verb: &str, name: &str) -> Value {
    json!({ "apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": [name], "verbs": [verb] })
}

fn with_condition(mut request: Value, kind: &str) -> Value {
    request["status"] = json!({ "conditions": [{ "type": kind, "status": "True" }] });
    request
}

#[tokio::test]
async fn who_asks_is_who_sent_it() {
    let fixture = Fixture::new().await;
    allow(&fixture, "joe", json!([all_of_requests()])).await;
    let mut body = asked(&request_of("jane", "developers").0);
    body["status"] = json!({ "conditions": [{ "type": "Approved", "status": "True" }] });
    let (status, made) = ask_as(&fixture, "joe", &format!("POST {REQUESTS}"), &body).await;
    assert_eq!((status, &made["status"]), (201, &json!({})), "{made}");
    let spec = &made["spec"];
    let groups = json!(["developers", "system:authenticated"]);
    assert_eq!((&spec["username"], &spec["uid"], &spec["groups"]), (&json!("joe"), &json!("u1"), &groups));
    let selected = fixture.ask(&format!("GET {REQUESTS}?fieldSelector=spec.signerName%3D{SIGNER}"), &[], "").await;
    assert_eq!(selected.json()["items"].as_array().map(Vec::len), Some(1), "{}", selected.text);
}

#[tokio::test]
async fn nobody_asks_for_the_group_that_may_do_everything() {
    let fixture = Fixture::new().await;
    let mut body = asked(&request_of("jane", "system:masters").0);
    let reply = fixture.ask(&format!("POST {REQUESTS}"), &[], body.to_string()).await;
    let why = "certificatesigningrequests.certificates.k8s.io \"jane\" is forbidden: use of \
               kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
    assert_eq!((reply.status.as_u16(), &reply.json()["message"]), (403, &json!(why)));
    body["spec"]["signerName"] = "example.com/mine".into();
    assert_eq!(fixture.ask(&format!("POST {REQUESTS}"), &[], body.to_string()).await.status, 201);
}

#[tokio::test]
async fn a_right_to_the_signer_is_needed() {
    let fixture = Fixture::new().await;
    allow(&fixture, "joe", json!([all_of_requests()])).await;
    allow(&fixture, "ann", json!([all_of_requests(), signers("approve", "kubernetes.io/*")])).await;
    allow(&fixture, "signer", json!([all_of_requests(), signers("sign", SIGNER)])).await;
    let (pem, _) = request_of("jane", "developers");
    let (_, made) = ask_as(&fixture, "joe", &format!("POST {REQUESTS}"), &asked(&pem)).await;
    let forbidden = |what: &str| {
        format!(
            "certificatesigningrequests.certificates.k8s.io \"jane\" is forbidden: user not permitted to {what} requests with \
             signerName \"{SIGNER}\""
        )
    };
    let approval = format!("PUT {REQUESTS}/jane/approval");
    let approved = with_condition(made, "Approved");
    for user in ["joe", "signer"] {
        let (status, answer) = ask_as(&fixture, user, &approval, &approved).await;
        assert_eq!((status, &answer["message"]), (403, &json!(forbidden("approve"))), "{user}");
    }
    let (status, approved) = ask_as(&fixture, "ann", &approval, &approved).await;
    assert_eq!(status, 200, "{approved}");
    assert!(approved["status"]["conditions"][0]["lastUpdateTime"].is_string(), "{approved}");

    let status = format!("PUT {REQUESTS}/jane/status");
    let mut failed = approved.clone();
    let failure = json!({ "type": "Failed", "status": "True" });
    failed["status"]["conditions"].as_array_mut().unwrap().push(failure);
    let (code, answer) = ask_as(&fixture, "ann", &status, &failed).await;
    assert_eq!((code, &answer["message"]), (403, &json!(forbidden("sign"))));
    // What is not the signer's affair needs no right to it.
    let mut labelled = approved;
    labelled["metadata"]["labels"] = json!({ "a": "b" });
    assert_eq!(ask_as(&fixture, "ann", &status, &labelled).await.0, 200);
    failed["metadata"]["resourceVersion"] = Value::Null;
    let (code, answer) = ask_as(&fixture, "signer", &status, &failed).await;
    assert_eq!((code, &answer["status"]["conditions"][1]["type"]), (200, &json!("Failed")), "{answer}");
}

#[tokio::test]
async fn what_is_issued_is_good_until_it_ends() {
    let served = Served::with(Limits::default(), RequestLimits::default()).await;
    let get_as = async |issued_ago: u64| {
        let (pem, key) = request_of("jane", "system:masters");
        let request = CertificateRequest::from_pem(pem.as_bytes()).unwrap();
        let when = SystemTime::now() - Duration::from_secs(issued_ago);
        let usages = ["client auth".to_owned(), "digital signature".to_owned()];
        let certificate_pem = served.pki.sign_at(&request, &usages, Duration::from_secs(600), when).unwrap();
        let credential = Credential { certificate_pem, key_pem: key.serialize_pem() };
        let line = b"GET /api/v1/nodes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        served.raw(Some(&credential), line).await
    };
    let reply = get_as(0).await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    let reply = get_as(601).await;
    assert!(reply.starts_with("HTTP/1.1 401"), "{reply}");
}

/// A connection does not outlive the certificate that opened it.
#[tokio::test]
async fn a_certificate_that_ends_during_a_connection_is_good_no_more() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let served = Served::with(Limits::default(), RequestLimits::default()).await;
    let (pem, key) = request_of("jane", "system:masters");
    let request = CertificateRequest::from_pem(pem.as_bytes()).unwrap();
    let when = SystemTime::now() - Duration::from_secs(590);
    let certificate_pem =
        served.pki.sign_at(&request, &["client auth".to_owned()], Duration::from_secs(600), when).unwrap();
    let credential = Credential { certificate_pem, key_pem: key.serialize_pem() };
    let mut stream = served.tls(Some(&credential), b"http/1.1").await;
    let mut status = async || {
        stream.write_all(b"GET /api/v1/namespaces/default HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut bytes = vec![0; 64 * 1024];
        let count = stream.read(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes[..count]).split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let deadline = tokio::time::Instant::now() + super::network::TEST_TIMEOUT;
    assert_eq!(status().await, "200");
    while status().await != "401" {
        assert!(tokio::time::Instant::now() < deadline, "the certificate has ended");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
