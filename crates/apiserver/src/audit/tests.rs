//! What is in the audit log after requests of all kinds.

use std::fs;

use futures::FutureExt;
use http::StatusCode;
use machinery::Verb;
use serde_json::{Value, json};

use super::log::Log;
use super::*;
use crate::server::Caller;
use crate::tests::support::{Fixture, PANICS, pod, request};

struct Audited {
    fixture: Fixture,
    audit: Audit,
    folder: tempfile::TempDir,
}

impl Audited {
    async fn new(rules: Value) -> Self {
        let policy = json!({ "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules });
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(Policy::read(&policy).unwrap(), &folder.path().join("audit.log")).unwrap();
        Self { fixture: Fixture::with_audit(audit.clone()).await, audit, folder }
    }

    /// The events, once all are written.
    async fn events(&self) -> Vec<Value> {
        self.audit.close().await;
        let text = fs::read_to_string(self.folder.path().join("audit.log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "a": "b" } })
}

fn stages(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["stage"].as_str().unwrap()).collect()
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn an_event_says_who_did_what_and_what_became_of_it() {
    let audited = Audited::new(json!([{ "level": "Metadata", "resources": [{ "group": "" }] }])).await;
    let headers = [
        ("content-type", "application/json"),
        ("user-agent", "kubectl/v1"),
        ("audit-id", "mine"),
        ("x-forwarded-for", "192.0.2.7, nonsense"),
        ("impersonate-user", "ann"),
        ("impersonate-group", "system:masters"),
    ];
    let line = format!("POST {MAPS}?fieldManager=me");
    let reply = audited.fixture.ask(&line, &headers, config_map("x").to_string()).await;
    assert_eq!((reply.status, reply.header("audit-id")), (StatusCode::CREATED, "mine"));
    let events = audited.events().await;
    assert_eq!(stages(&events), ["RequestReceived", "ResponseComplete"]);
    let event = &events[1];
    for (pointer, expect) in [
        ("/kind", json!("Event")),
        ("/apiVersion", json!("audit.k8s.io/v1")),
        ("/level", json!("Metadata")),
        ("/auditID", json!("mine")),
        ("/requestURI", json!(format!("{MAPS}?fieldManager=me"))),
        ("/verb", json!("create")),
        ("/user/username", json!("kubernetes-admin")),
        ("/impersonatedUser/username", json!("ann")),
        ("/impersonatedUser/groups", json!(["system:masters", "system:authenticated"])),
        ("/sourceIPs", json!(["192.0.2.7", "127.0.0.1"])),
        ("/userAgent", json!("kubectl/v1")),
        ("/objectRef/resource", json!("configmaps")),
        ("/objectRef/namespace", json!("default")),
        ("/objectRef/name", json!("x")),
        ("/objectRef/apiVersion", json!("v1")),
        ("/responseStatus", json!({ "metadata": {}, "code": 201 })),
        ("/annotations/authorization.k8s.io~1decision", json!("allow")),
    ] {
        assert_eq!(event.pointer(pointer), Some(&expect), "{pointer}: {event}");
    }
    assert!(event.get("requestObject").is_none() && event.get("responseObject").is_none(), "{event}");
    let time = event["stageTimestamp"].as_str().unwrap();
    assert!(time.len() == "2026-01-01T00:00:00.000000Z".len() && time.ends_with('Z'), "{time}");
    assert!(events[0].get("responseStatus").is_none() && events[0].get("impersonatedUser").is_none());
}

#[tokio::test]
async fn objects_are_shown_at_the_levels_that_ask_for_them() {
    let audited = Audited::new(json!([
        { "level": "RequestResponse", "omitStages": ["RequestReceived"], "omitManagedFields": true, "verbs": ["create", "list"], "resources": [{ "group": "" }] },
        { "level": "Request", "omitStages": ["RequestReceived"], "resources": [{ "group": "" }] },
    ]))
    .await;
    let fixture = &audited.fixture;
    let ask = async |line: &str, headers: &[(&str, &str)], body: String| {
        let reply = fixture.ask(line, headers, body).await;
        assert!(reply.status.is_success(), "{line}: {}", reply.text);
    };
    let collection = format!("POST {MAPS}");
    ask(&collection, &[("content-type", "application/json")], config_map("a").to_string()).await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n".to_owned();
    let protobuf = ("accept", "application/vnd.kubernetes.protobuf");
    ask(&collection, &[("content-type", "application/yaml"), protobuf], yaml).await;
    let patch = json!({ "data": { "a": "c" } }).to_string();
    ask(&format!("PATCH {MAPS}/a"), &[("content-type", "application/merge-patch+json")], patch).await;
    ask(&format!("GET {MAPS}"), &[], String::new()).await;
    let events = audited.events().await;
    assert_eq!(stages(&events), ["ResponseComplete"; 4]);
    assert_eq!(events[0]["requestObject"]["data"], json!({ "a": "b" }));
    assert_eq!(events[0]["responseObject"]["metadata"]["name"], "a");
    assert!(events[0]["responseObject"]["metadata"].get("managedFields").is_none(), "{}", events[0]);
    assert_eq!(events[1]["requestObject"]["metadata"]["name"], "b", "{}", events[1]);
    assert_eq!(events[1]["responseObject"]["metadata"]["namespace"], "default", "{}", events[1]);
    assert_eq!(events[2]["requestObject"], json!({ "data": { "a": "c" } }));
    assert!(events[2].get("responseObject").is_none());
    let listed = events[3]["responseObject"]["items"].as_array().unwrap();
    assert!(listed.len() >= 2 && listed.iter().all(|item| item["metadata"].get("managedFields").is_none()));
}

#[tokio::test]
async fn what_fails_is_noted_with_its_reason() {
    let audited = Audited::new(json!([{ "level": "Request", "omitStages": ["RequestReceived"] }])).await;
    let fixture = &audited.fixture;
    let body = config_map("x").to_string();
    let stranger = || Some(User::new("stranger", &[]));
    fixture.ask_as(stranger(), &format!("POST {MAPS}"), &[("content-type", "application/json")], body).await;
    fixture.ask(&format!("GET {MAPS}/none"), &[], "").await;
    fixture.ask_as(None, "GET /version", &[("authorization", "Bearer nonsense")], "").await;
    fixture.ask_as(stranger(), &format!("GET {MAPS}"), &[("impersonate-user", "root")], "").await;
    let events = audited.events().await;
    assert_eq!(stages(&events), ["ResponseComplete", "ResponseComplete", "ResponseStarted", "ResponseComplete"]);
    assert_eq!(events[0]["responseStatus"]["code"], 403);
    assert_eq!(events[0]["responseStatus"]["reason"], "Forbidden");
    assert_eq!(events[0]["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert!(events[0].get("requestObject").is_none(), "nothing is read of who may not ask");
    assert_eq!(events[1]["responseStatus"]["status"], "Failure");
    assert_eq!(events[1]["responseStatus"]["message"], "configmaps \"none\" not found");
    assert_eq!(events[2]["responseStatus"]["code"], 401);
    assert_eq!(events[2]["responseStatus"]["message"], "Authentication failed, attempted: bearer");
    assert_eq!(events[2]["user"], json!({}));
    assert_eq!(
        (&events[3]["user"]["username"], &events[3]["responseStatus"]["code"]),
        (&json!("stranger"), &json!(403))
    );
    assert!(events[3].get("impersonatedUser").is_none());
}

#[tokio::test]
async fn what_lasts_begins_and_ends() {
    let audited = Audited::new(json!([
        { "level": "Metadata", "verbs": ["watch"] },
        { "level": "Metadata", "resources": [{ "group": "", "resources": ["pods/log"] }] },
    ]))
    .await;
    let fixture = &audited.fixture;
    // The answer goes on: the watch has begun, and ends when nobody reads it any more.
    assert_eq!(fixture.answered(&format!("GET {MAPS}?watch=true"), &[], "").await.0, 200);
    fixture.json("POST /api/v1/namespaces/default/pods", 201, &pod("p", "node1")).await;
    let panics = format!("GET /api/v1/namespaces/default/pods/p/log?tailLines={PANICS}");
    assert_eq!(fixture.ask(&panics, &[], "").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    let events = audited.events().await;
    let expected = ["RequestReceived", "ResponseStarted", "ResponseComplete", "RequestReceived", "Panic"];
    assert_eq!(stages(&events), expected);
    assert_eq!(events[4]["responseStatus"]["code"], 500);
    assert!(events[4]["responseStatus"]["message"].as_str().unwrap().contains("APIServer panic'd"), "{}", events[4]);
}

#[tokio::test]
async fn pod_security_has_its_say() {
    let audited = Audited::new(json!([
        { "level": "Metadata", "omitStages": ["RequestReceived"], "verbs": ["create"], "resources": [{ "group": "", "resources": ["pods"] }] },
    ]))
    .await;
    let labels = json!({ "pod-security.kubernetes.io/audit": "restricted", "pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "privileged" });
    let namespace =
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "tight", "labels": labels } });
    audited.fixture.json("POST /api/v1/namespaces", 201, &namespace).await;
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
    audited.fixture.json("POST /api/v1/namespaces/tight/serviceaccounts", 201, &account).await;
    audited.fixture.json("POST /api/v1/namespaces/tight/pods", 201, &pod("a", "node1")).await;
    audited.fixture.json("POST /api/v1/namespaces/default/pods", 201, &pod("b", "node1")).await;
    let events = audited.events().await;
    let annotation =
        |event: usize, key: &str| events[event]["annotations"][format!("pod-security.kubernetes.io/{key}")].clone();
    assert_eq!(annotation(0, "enforce-policy"), "baseline:latest");
    let violations = annotation(0, "audit-violations");
    let violations = violations.as_str().unwrap();
    assert!(
        violations.starts_with("would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation"),
        "{violations}"
    );
    assert_eq!(
        (annotation(1, "enforce-policy"), annotation(1, "audit-violations")),
        (json!("privileged:latest"), json!(null))
    );
}

#[tokio::test]
async fn who_is_not_in_the_policy_is_not_in_the_log() {
    let audited = Audited::new(json!([{ "level": "Metadata", "users": ["ann"] }])).await;
    audited.fixture.ask(&format!("GET {MAPS}"), &[], "").await;
    assert_eq!(audited.events().await, Vec::<Value>::new());
}

/// Who asks and is gone before the answer is in the log nevertheless.
#[tokio::test]
async fn a_client_that_goes_away_is_noted() {
    let audited = Audited::new(json!([{ "level": "Metadata", "resources": [{ "group": "" }] }])).await;
    let fixture = &audited.fixture;
    let agent = "x".repeat(2_000);
    let headers = [("content-type", "application/json"), ("user-agent", &*agent)];
    let user = Some(Arc::new(User::master("kubernetes-admin")));
    let mut asked = (0..100).map(|number| {
        let line = format!("POST https://10.0.0.1:6443{MAPS}?fieldManager=me");
        let request = request(&line, &headers, config_map(&format!("x{number}")).to_string());
        fixture.server.handle(request, user.clone(), Caller::Client).now_or_never()
    });
    assert!(asked.any(|answered| answered.is_none()), "a write takes a moment");
    let events = audited.events().await;
    let events = &events[events.len() - 2..];
    assert_eq!(stages(events), ["RequestReceived", "ResponseComplete"]);
    let closed = json!({ "metadata": {}, "status": "Success", "message": "Connection closed early", "code": 200 });
    assert_eq!(events[1]["responseStatus"], closed);
    assert_eq!(events[1]["requestURI"], format!("{MAPS}?fieldManager=me"));
    assert_eq!(events[1]["userAgent"], format!("{}...TRUNCATED", "x".repeat(1024)));
}

/// A disk that is slow, or gone, holds nobody up.
#[test]
fn what_finds_the_queue_full_is_dropped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    // It is opened for writing only once somebody reads it, and cannot be written at an offset: every write fails.
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::File::open(fifo).unwrap()
    });
    let log = Log::open(&fifo).unwrap();
    let _reader = reader.join().unwrap();
    let rule = json!({ "level": "Metadata", "omitStages": ["ResponseComplete"] });
    let policy = json!({ "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [rule] });
    let audit = Audit(Arc::new(Inner { policy: Policy::read(&policy).unwrap(), log }));
    let (parts, ()) = http::Request::get("/version").body(()).unwrap().into_parts();
    let user = Arc::new(User::anonymous());
    for _ in 0..50 {
        let id = HeaderValue::from_static("id");
        let _ = audit.begin(Some(&user), Verb::Get, Target::Path("/version"), &parts, &id);
    }
    audit.0.log.close();
    let _ = audit.begin(Some(&user), Verb::Get, Target::Path("/version"), &parts, &HeaderValue::from_static("id"));
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register_collector(audit.metrics());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for expect in [
        "apiserver_audit_event_total 51",
        "apiserver_audit_error_total{plugin=\"log\"} 51",
        "apiserver_audit_level_total{level=\"Metadata\"} 51",
    ] {
        assert!(text.contains(expect), "{expect}: {text}");
    }
}
