//! APIs that others answer, and requests that are passed on.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use machinery::Verb;
use serde_json::{Value, json};

use super::support::{Fixture, pod};
use crate::{AggregatedApi, AggregatedResource, AggregatedService, User};

/// Answers what it was asked.
struct Echo(Arc<[AggregatedResource]>);

#[async_trait]
impl AggregatedService for Echo {
    fn resources(&self, _group: &str, _version: &str) -> Arc<[AggregatedResource]> {
        Arc::clone(&self.0)
    }

    async fn call(&self, request: Request<Bytes>) -> Response<Bytes> {
        let asked = json!({
            "method": request.method().as_str(),
            "uri": request.uri().to_string(),
            "body": String::from_utf8_lossy(request.body()),
        });
        Response::new(Bytes::from(asked.to_string()))
    }
}

async fn extended() -> Fixture {
    let resource = |name: &str, kind: &str| AggregatedResource {
        name: name.to_owned(),
        kind: kind.to_owned(),
        namespaced: true,
        verbs: vec![Verb::Get, Verb::List],
        ..AggregatedResource::default()
    };
    let resources = [resource("echoes", "Echo"), resource("pods/queue", "EchoList")];
    let service = Arc::new(Echo(resources.into()));
    Fixture::with(vec![AggregatedApi { group: "echo.example.com", version: "v1", service }]).await
}

#[tokio::test]
async fn an_extension_is_discovered_in_both_forms() {
    let fixture = extended().await;
    let groups = fixture.json("GET /apis", 200, &Value::Null).await;
    let group = groups["groups"].as_array().unwrap().last().unwrap();
    assert_eq!(group["preferredVersion"]["groupVersion"], "echo.example.com/v1");
    let listed = fixture.json("GET /apis/echo.example.com/v1", 200, &Value::Null).await;
    assert_eq!(listed["resources"][0]["kind"], "Echo");
    assert_eq!(listed["resources"][1]["name"], "pods/queue");

    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let aggregated = fixture.ask("GET /apis", &accept, "").await.json();
    let group = aggregated["items"].as_array().unwrap().last().unwrap();
    let resources = &group["versions"][0]["resources"];
    assert_eq!((&resources[0]["resource"], &resources[0]["scope"]), (&json!("echoes"), &json!("Namespaced")));
    assert_eq!(resources[1]["resource"], "pods");
    assert_eq!(resources[1]["responseKind"]["kind"], "");
    assert_eq!(resources[1]["subresources"][0]["subresource"], "queue");
    assert_eq!(resources[1]["subresources"][0]["responseKind"]["kind"], "EchoList");
}

#[tokio::test]
async fn an_extension_answers_who_may_ask() {
    let fixture = extended().await;
    let line = "GET /apis/echo.example.com/v1/namespaces/n/pods/*/queue?labelSelector=a%3Db";
    let asked = fixture.json(line, 200, &Value::Null).await;
    assert_eq!(asked["method"], "GET");
    assert_eq!(asked["uri"], line.split_once(' ').unwrap().1);
    let refused = fixture.ask_as(Some(User::new("x", &[])), line, &[], "").await;
    assert_eq!(refused.status.as_u16(), 403);
    assert!(refused.json()["message"].as_str().unwrap().starts_with("pods.echo.example.com \"*\" is forbidden"));
    let missing = fixture.ask("GET /apis/echo.example.com/v2/echoes", &[], "").await;
    assert_eq!(missing.status.as_u16(), 404);
}

#[tokio::test]
async fn a_node_tells_what_it_uses() {
    let fixture = Fixture::new().await;
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node1" } });
    fixture.json("POST /api/v1/nodes", 201, &node).await;
    for name in ["node1", "node1:10250", "https:node1:10250"] {
        let summary = fixture.json(&format!("GET /api/v1/nodes/{name}/proxy/stats/summary"), 200, &Value::Null).await;
        assert!(summary["node"]["cpu"].is_object(), "{summary}");
    }
    let text = fixture.ask("GET /api/v1/nodes/node1/proxy/metrics/resource", &[], "").await.text;
    assert!(text.contains("resource_scrape_error 0"), "{text}");
    for (path, expect) in [
        ("healthz", "ok"),
        ("metrics/cadvisor", "is_Cadvisor 1\n"),
        ("pods", r#"{"apiVersion":"v1","items":[{"metadata":{"name":"web"}}],"kind":"PodList","metadata":{}}"#),
        ("configz", r#"{"kubeletconfig":{"port":10250}}"#),
        ("containerLogs/default/web/main?tail=3", "web/main tail=Some(3)\n"),
    ] {
        let reply = fixture.ask(&format!("GET /api/v1/nodes/node1/proxy/{path}"), &[], "").await;
        assert_eq!((reply.status.as_u16(), reply.text.as_str()), (200, expect), "{path}");
    }
    for (line, code) in [
        ("POST /api/v1/nodes/node1/proxy/pods", 405),
        ("GET /api/v1/nodes/node1/proxy/exec/default/web/main?command=ls&output=1", 400),
        ("GET /api/v1/nodes/node2/proxy/stats/summary", 404),
        ("GET /api/v1/nodes/node1/proxy/nothing", 404),
        ("GET /api/v1/nodes/a:b:c:d/proxy/", 400),
        ("GET /api/v1/nodes/node1/proxy", 301),
    ] {
        assert_eq!(fixture.ask(line, &[], "").await.status.as_u16(), code, "{line}");
    }
}

/// A right to read what nodes serve is none to run something there, however the path is written.
#[tokio::test]
async fn a_connection_through_a_node_is_no_read() {
    let fixture = Fixture::new().await;
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node1" } });
    fixture.json("POST /api/v1/nodes", 201, &node).await;
    let rules = json!([{ "apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get", "watch"] }]);
    super::certificates::allow(&fixture, "reader", rules).await;
    let reader = || Some(User::new("reader", &[]));
    assert_eq!(fixture.ask_as(reader(), "GET /api/v1/nodes/node1/proxy/pods", &[], "").await.status, 200);
    let exec = "exec/default/web/main?command=ls&output=1";
    for path in [
        format!("nodes/node1/proxy/{exec}"),
        format!("nodes/node1:10250/proxy/{exec}"),
        format!("nodes/node1/proxy///{exec}"),
        format!("watch/nodes/node1/proxy/{exec}"),
        "nodes/node1/proxy/portForward/default/web".to_owned(),
    ] {
        let reply = fixture.ask_as(reader(), &format!("GET /api/v1/{path}"), &[], "").await;
        assert_eq!(reply.status, 403, "{path}: {}", reply.text);
        assert!(reply.text.contains("cannot create resource \\\"nodes/proxy\\\""), "{}", reply.text);
    }
}

#[tokio::test]
async fn what_cannot_be_reached_says_why() {
    let fixture = Fixture::new().await;
    fixture.json("POST /api/v1/namespaces/default/pods", 201, &pod("web", "node1")).await;
    for (line, code, message) in [
        ("GET /api/v1/namespaces/default/pods/web/proxy/", 400, "address not allowed"),
        ("POST /api/v1/namespaces/default/pods/none/proxy/", 404, "pods \"none\" not found"),
        ("GET /api/v1/namespaces/default/pods/web:0/proxy/", 400, "invalid port"),
        (
            "GET /api/v1/namespaces/default/services/https:kubernetes:1/proxy/",
            503,
            "no service port 1 found for service \"kubernetes\"",
        ),
        (
            "GET /api/v1/namespaces/default/services/kubernetes/proxy/",
            503,
            "no endpoints available for service \"kubernetes\"",
        ),
    ] {
        let found = fixture.json(line, code, &Value::Null).await;
        assert!(found["message"].as_str().unwrap().starts_with(message), "{line}: {found}");
    }
}
