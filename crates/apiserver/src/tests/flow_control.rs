//! Priority and fairness: whose request is let in, who waits, and who is told to come again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::support::{Fixture, request};
use crate::respond::Answer;
use crate::server::Caller;
use crate::{AggregatedApi, AggregatedResource, AggregatedService, RequestLimits, User};

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const JSON: &str = "application/json";

fn devs(name: &str) -> User {
    User::new(name, &["devs"])
}

/// A priority level and a flow schema of the group `devs`, both called `devs`.
pub(super) async fn limited(fixture: &Fixture, shares: i32, response: Value) {
    let limited = json!({
        "nominalConcurrencyShares": shares, "borrowingLimitPercent": 0, "limitResponse": response,
    });
    let level = json!({ "metadata": { "name": "devs" }, "spec": { "type": "Limited", "limited": limited } });
    fixture.json(&format!("POST {GROUP}/prioritylevelconfigurations"), 201, &level).await;
    let schema = json!({ "metadata": { "name": "devs" }, "spec": {
        "priorityLevelConfiguration": { "name": "devs" },
        "matchingPrecedence": 50,
        "distinguisherMethod": { "type": "ByUser" },
        "rules": [{
            "subjects": [{ "kind": "Group", "group": { "name": "devs" } }],
            "resourceRules": [{
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
            }],
            "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
        }],
    } });
    fixture.json(&format!("POST {GROUP}/flowschemas"), 201, &schema).await;
    fixture.server.0.flow_control.reload();
}

/// Answers when the gate lets it.
struct Slow(Arc<Semaphore>);

#[async_trait]
impl AggregatedService for Slow {
    fn resources(&self, _group: &str, _version: &str) -> Arc<[AggregatedResource]> {
        Arc::new([])
    }

    async fn call(&self, _request: Request<Bytes>) -> Response<Bytes> {
        self.0.acquire().await.unwrap().forget();
        Response::default()
    }
}

const SLOW: &str = "GET /apis/slow.example.com/v1/namespaces/default/things";

/// A server where the group `devs` has one seat, and may ask what is slow and read ConfigMaps; and the gate of what is slow.
async fn one_seat(response: Value) -> (Fixture, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    // Of 246 shares.
    let limits = RequestLimits { seats: 246, timeout: Duration::from_millis(800), ..RequestLimits::default() };
    let slow = AggregatedApi { group: "slow.example.com", version: "v1", service: Arc::new(Slow(Arc::clone(&gate))) };
    let fixture = Fixture::with_limits(limits, vec![slow]).await;
    limited(&fixture, 1, response).await;
    let rule = json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["things", "configmaps"] });
    fixture.grant("devs", rule, json!({ "kind": "Group", "name": "devs" })).await;
    (fixture, gate)
}

/// One queue, in which two may wait.
fn short_queue() -> Value {
    json!({ "type": "Queue", "queuing": { "queues": 1, "handSize": 1, "queueLengthLimit": 2 } })
}

/// Asks in the background, until the request waits or runs.
async fn begin(fixture: &Fixture, user: User, line: &str) -> JoinHandle<Answer> {
    let (server, request) = (fixture.server.clone(), request(line, &[], ""));
    let asked = tokio::spawn(async move { server.handle(request, Some(user.into()), Caller::Client).await });
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    asked
}

/// Asks, and keeps the answer as a client does that has not read it.
async fn unread(fixture: &Fixture, user: User, line: &str) -> Answer {
    begin(fixture, user, line).await.await.unwrap()
}

#[tokio::test]
async fn responses_say_how_their_requests_were_classified() {
    let fixture = Fixture::new().await;
    let account = |namespace: &str, name: &str| User::service_account(namespace, name);
    for (user, line, schema, level) in [
        (User::master("admin"), "GET /api/v1/pods", "exempt", "exempt"),
        (User::anonymous(), "GET /readyz", "probes", "exempt"),
        (User::anonymous(), "GET /readyz/ping", "probes", "exempt"),
        (User::anonymous(), "GET /api", "global-default", "global-default"),
        (User::new("jane", &[]), "GET /api/v1/pods", "global-default", "global-default"),
        (User::node("a"), "GET /api/v1/nodes/a", "system-node-high", "node-high"),
        (User::node("a"), "PATCH /api/v1/nodes/a/status", "system-node-high", "node-high"),
        (User::node("a"), "GET /api/v1/pods", "system-nodes", "system"),
        (
            User::node("a"),
            "GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a",
            "system-node-high",
            "node-high",
        ),
        (
            User::component("system:kube-scheduler"),
            "GET /apis/coordination.k8s.io/v1/namespaces/x/leases/a",
            "system-leader-election",
            "leader-election",
        ),
        (User::component("system:kube-scheduler"), "GET /api/v1/pods", "kube-scheduler", "workload-high"),
        (account("kube-system", "x"), "GET /api/v1/pods", "kube-system-service-accounts", "workload-high"),
        (account("kube-system2", "x"), "GET /api/v1/pods", "service-accounts", "workload-low"),
        (account("default", "x"), "GET /version", "service-accounts", "workload-low"),
    ] {
        let uid = async |plural: &str, name: &str| {
            let object = fixture.json(&format!("GET {GROUP}/{plural}/{name}"), 200, &Value::Null).await;
            object["metadata"]["uid"].as_str().unwrap().to_owned()
        };
        let who = user.name.clone();
        let reply = fixture.ask_as(Some(user), line, &[], "").await;
        let found = (reply.header("x-kubernetes-pf-flowschema-uid"), reply.header("x-kubernetes-pf-prioritylevel-uid"));
        let expect = (uid("flowschemas", schema).await, uid("prioritylevelconfigurations", level).await);
        assert_eq!(found, (expect.0.as_str(), expect.1.as_str()), "{who} {line}");
    }
}

#[tokio::test]
async fn who_gets_no_seat_waits_and_is_told_to_come_again() {
    let (fixture, gate) = one_seat(short_queue()).await;
    let running = begin(&fixture, devs("jane"), SLOW).await;
    // Her second request waits a quarter of its time.
    let reply = fixture.ask_as(Some(devs("jane")), "GET /api", &[], "").await;
    assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (429, "1"), "{}", reply.text);
    assert_eq!(
        (&reply.json()["reason"], &reply.json()["details"]["retryAfterSeconds"]),
        (&json!("TooManyRequests"), &json!(1))
    );
    assert!(!reply.header("x-kubernetes-pf-flowschema-uid").is_empty());
    // Others are served meanwhile.
    for user in [User::master("admin"), User::new("x", &[]), User::service_account("default", "x")] {
        assert_eq!(fixture.ask_as(Some(user), "GET /api", &[], "").await.status, 200);
    }
    let asked = (0..4).map(|_| fixture.ask_as(Some(devs("jane")), "GET /api", &[], ""));
    let replies = futures::future::join(futures::future::join_all(asked), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        gate.add_permits(1);
    });
    let mut codes: Vec<_> = replies.await.0.iter().map(|reply| reply.status.as_u16()).collect();
    codes.sort_unstable();
    assert_eq!(codes, [200, 200, 429, 429], "two wait, and there is room for no more");
    assert_eq!(running.await.unwrap().status(), 200);
    let metrics = fixture.ask("GET /metrics", &[], "").await.text;
    for line in [
        "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"devs\",priority_level=\"devs\",reason=\"time-out\"} 1",
        "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"devs\",priority_level=\"devs\",reason=\"queue-full\"} 2",
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"devs\",priority_level=\"devs\"} 3",
        "apiserver_flowcontrol_current_executing_requests{flow_schema=\"devs\",priority_level=\"devs\"} 0",
        "apiserver_flowcontrol_current_inqueue_requests{flow_schema=\"devs\",priority_level=\"devs\"} 0",
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"devs\"} 1",
        "apiserver_flowcontrol_request_wait_duration_seconds_count{flow_schema=\"devs\",priority_level=\"devs\",execute=\"true\"} 2",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    // What is gone is not counted for ever.
    fixture.json(&format!("DELETE {GROUP}/flowschemas/devs"), 200, &Value::Null).await;
    fixture.server.0.flow_control.reload();
    let metrics = fixture.ask("GET /metrics", &[], "").await.text;
    assert!(!metrics.contains("flow_schema=\"devs\"") && metrics.contains("flow_schema=\"exempt\""), "{metrics}");
}

#[tokio::test]
async fn what_waits_can_be_looked_at() {
    const DUMP: &str = "GET /debug/api_priority_and_fairness/dump";
    let (fixture, gate) = one_seat(short_queue()).await;
    let running = begin(&fixture, devs("jane"), SLOW).await;
    let waiting = begin(&fixture, devs("jane"), "GET /api/v1/namespaces/default/configmaps/x").await;
    let dump = async |what: &str| {
        let reply = fixture.ask(&format!("{DUMP}_{what}"), &[], "").await;
        assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, "text/plain; charset=utf-8"));
        // The first line, and those of the level, with single spaces.
        let lines = reply.text.lines().enumerate().filter(|(at, line)| *at == 0 || line.starts_with("devs,"));
        lines.map(|(_, line)| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(
        dump("priority_levels").await,
        [
            "PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests, DispatchedRequests, \
         RejectedRequests, TimedoutRequests, CancelledRequests",
            "devs, 1, false, false, 1, 1, 1, 0, 0, 0",
        ]
    );
    assert_eq!(
        dump("queues").await,
        [
            "PriorityLevelName, Index, PendingRequests, ExecutingRequests, SeatsInUse, NextDispatchR, InitialSeatsSum, \
         MaxSeatsSum, TotalWorkSum",
            "devs, 0, 1, <none>, <none>, 0.00000000ss, 1, 1, <none>",
        ]
    );
    let [head, row] = &dump("requests").await[..] else { panic!("one waits") };
    assert!(head.ends_with("InitialSeats, FinalSeats, AdditionalLatency, StartTime"), "{head}");
    assert!(
        row.starts_with("devs, devs, 0, 0, jane, 20") && row.ends_with("Z, 1, 0, 0s, 0001-01-01T00:00:00Z"),
        "{row}"
    );
    let [_, row] = &dump("requests?includeRequestDetails=1").await[..] else { panic!("one waits") };
    let details = "jane, get, /api/v1/namespaces/default/configmaps/x, default, x, v1, configmaps,";
    assert!(row.ends_with(details), "{row}");
    assert_eq!(fixture.ask(&format!("{DUMP}_nothing"), &[], "").await.status, 404);
    // It shows what others do: a right of its own.
    for name in ["priority_levels", "queues", "requests"] {
        let reply = fixture.ask_as(Some(User::new("x", &[])), &format!("{DUMP}_{name}"), &[], "").await;
        assert_eq!(reply.status, 403);
    }
    gate.add_permits(1);
    assert_eq!(running.await.unwrap().status(), 200);
    assert_eq!(waiting.await.unwrap().status(), 404);
    assert!(dump("priority_levels").await[1].starts_with("devs, 0, true, false, 0, 0, 2"));
}

#[tokio::test]
async fn a_level_without_queues_rejects_at_once() {
    let (fixture, gate) = one_seat(json!({ "type": "Reject" })).await;
    let running = begin(&fixture, devs("jane"), SLOW).await;
    assert_eq!(fixture.ask_as(Some(devs("bob")), "GET /api", &[], "").await.status, 429);
    gate.add_permits(1);
    running.await.unwrap();
    assert_eq!(fixture.ask_as(Some(devs("bob")), "GET /api", &[], "").await.status, 200);
}

#[tokio::test]
async fn a_watch_has_its_seat_only_until_it_has_begun() {
    let (fixture, _gate) = one_seat(short_queue()).await;
    let mut watches = Vec::new();
    for _ in 0..5 {
        let watch = unread(&fixture, devs("jane"), "GET /api/v1/namespaces/default/configmaps?watch=1").await;
        assert_eq!(watch.status(), 200);
        watches.push(watch);
    }
    assert_eq!(fixture.ask_as(Some(devs("jane")), "GET /api", &[], "").await.status, 200);
}

#[tokio::test]
async fn an_account_has_so_many_watches_and_no_more() {
    let limits = RequestLimits { user_watches: 2, ..RequestLimits::default() };
    let fixture = Fixture::with_limits(limits, Vec::new()).await;
    let watch = "GET /api/v1/namespaces?watch=1";
    let admin = || User::master("jane");
    let first = unread(&fixture, admin(), watch).await;
    let second = unread(&fixture, admin(), watch).await;
    let refused = fixture.ask_as(Some(admin()), watch, &[], "").await;
    assert_eq!(
        (refused.status.as_u16(), refused.headers["retry-after"].to_str().unwrap()),
        (429, "5"),
        "{}",
        refused.text
    );
    assert_eq!(unread(&fixture, User::master("bob"), watch).await.status(), 200);
    drop(first);
    assert_eq!(unread(&fixture, admin(), watch).await.status(), 200);
    drop(second);
}

#[tokio::test]
async fn what_is_large_keeps_its_seat_until_it_has_been_read_and_nothing_for_ever() {
    use http_body_util::BodyExt;
    let (fixture, _gate) = one_seat(json!({ "type": "Reject" })).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({ "metadata": { "name": "m" }, "data": { "a": "x".repeat(100_000) } });
    fixture.json(&format!("POST {maps}"), 201, &map).await;
    let asked = async || fixture.ask_as(Some(devs("jane")), "GET /api", &[], "").await.status.as_u16();
    // A list is made of the store's own bytes.
    let list = unread(&fixture, devs("jane"), &format!("GET {maps}")).await;
    assert_eq!((list.status().as_u16(), asked().await), (200, 200));
    let mut pretty = unread(&fixture, devs("jane"), &format!("GET {maps}/m?pretty=1")).await;
    assert_eq!((pretty.status().as_u16(), asked().await), (200, 429));
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(pretty.body_mut().frame().await.unwrap().is_err(), "it breaks off");
    drop(pretty);
    assert_eq!(asked().await, 200);
}

#[tokio::test]
async fn schemas_say_which_level_they_miss_and_levels_come_back() {
    let fixture = Fixture::new().await;
    let server = fixture.server.clone();
    let following = tokio::spawn(async move { server.0.flow_control.run(&server.0.registry).await });
    let schema = json!({ "metadata": { "name": "lost" }, "spec": {
        "priorityLevelConfiguration": { "name": "nowhere" }, "matchingPrecedence": 3,
        "rules": [{
            "subjects": [{ "kind": "Group", "group": { "name": "devs" } }],
            "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
        }],
    } });
    fixture.json(&format!("POST {GROUP}/flowschemas"), 201, &schema).await;
    let dangling = async |name: &str, expect: &str| {
        for _ in 0..200 {
            let found = fixture.json(&format!("GET {GROUP}/flowschemas/{name}"), 200, &Value::Null).await;
            let condition = &found["status"]["conditions"][0];
            if condition["type"] == "Dangling" && condition["status"] == expect {
                return condition["message"].as_str().unwrap().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{name} is not dangling: {expect}");
    };
    assert_eq!(
        dangling("lost", "True").await,
        "This FlowSchema references the PriorityLevelConfiguration object named \"nowhere\" but there is no such object"
    );
    // It catches nobody.
    let reply = fixture.ask_as(Some(devs("jane")), "GET /api", &[], "").await;
    assert_eq!(reply.status, 200);
    dangling("global-default", "False").await;
    let level = json!({ "metadata": { "name": "nowhere" }, "spec": { "type": "Limited", "limited": {
        "limitResponse": { "type": "Reject" },
    } } });
    fixture.json(&format!("POST {GROUP}/prioritylevelconfigurations"), 201, &level).await;
    dangling("lost", "False").await;

    fixture.json(&format!("DELETE {GROUP}/prioritylevelconfigurations/catch-all"), 200, &Value::Null).await;
    for _ in 0..200 {
        let line = format!("GET {GROUP}/prioritylevelconfigurations/catch-all");
        if fixture.ask(&line, &[], "").await.status == 200 {
            following.abort();
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("catch-all did not come back");
}

#[tokio::test]
async fn the_kinds_are_there_for_every_client() {
    let fixture = Fixture::new().await;
    let table = fixture
        .ask(&format!("GET {GROUP}/flowschemas"), &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], "")
        .await;
    assert_eq!(table.json()["columnDefinitions"][1]["name"], "PriorityLevel");
    let accept = [("accept", crate::protobuf::MEDIA_TYPE)];
    let reply = fixture.ask(&format!("GET {GROUP}/prioritylevelconfigurations/system"), &accept, "").await;
    assert!(reply.bytes.starts_with(b"k8s\0"), "{}", reply.text);
    let headers = [("content-type", crate::protobuf::MEDIA_TYPE)];
    let reply = fixture.ask(&format!("PUT {GROUP}/prioritylevelconfigurations/system"), &headers, reply.bytes).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let listed = fixture.json(GROUP_LIST, 200, &Value::Null).await;
    let names: Vec<&str> =
        listed["resources"].as_array().unwrap().iter().filter_map(|resource| resource["name"].as_str()).collect();
    for name in
        ["flowschemas", "flowschemas/status", "prioritylevelconfigurations", "prioritylevelconfigurations/status"]
    {
        assert!(names.contains(&name), "{names:?}");
    }
    let status = json!({ "status": { "conditions": [{ "type": "A", "status": "True" }, { "type": "A" }] } });
    let line = format!("PATCH {GROUP}/flowschemas/system-nodes/status");
    let reply = fixture.ask(&line, &[("content-type", "application/merge-patch+json")], status.to_string()).await;
    assert_eq!(reply.status, 422, "{}", reply.text);
    let reply = fixture.ask(&format!("POST {GROUP}/flowschemas"), &[("content-type", JSON)], "{}").await;
    assert_eq!(reply.status, 422, "{}", reply.text);
}

const GROUP_LIST: &str = "GET /apis/flowcontrol.apiserver.k8s.io/v1";
