//! The kubelet's own port: who is let in, what they may, and its end.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use x509_parser::extensions::GeneralName;

use super::certificates::allow;
use super::network::{Served, TEST_TIMEOUT, read_all};
use super::support::Node;
use crate::pki::Credential;
use crate::{KubeletPort, Limits, RequestLimits};

/// A server, and the port of one of its nodes.
struct Port {
    served: Served,
    address: SocketAddr,
    port: KubeletPort,
}

impl Port {
    async fn open() -> Self {
        let served = Served::with(Limits::default(), RequestLimits::default()).await;
        let bound = served.handle.kubelet_ports().bind_at("node1", ([127, 0, 0, 1], 0).into()).unwrap();
        let address = bound.address();
        Self { address, port: bound.serve(Arc::new(Node)), served }
    }

    /// The answer to a request of HTTP/1.1, whose first line is method and path.
    async fn ask(&self, credential: Option<&Credential>, line: &str, headers: &[&str]) -> String {
        let headers = [headers, &["Connection: close"]].concat();
        read_all(&mut self.send(credential, line, &headers).await).await
    }

    async fn send(&self, credential: Option<&Credential>, line: &str, headers: &[&str]) -> TlsStream<TcpStream> {
        let mut stream = self.served.tls_to(self.address, credential, b"http/1.1").await;
        let request = format!("{line} HTTP/1.1\r\nHost: node1\r\n{}\r\n\r\n", headers.join("\r\n"));
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// A client certificate of somebody who may do that.
    async fn user(&self, name: &str, resources: &[&str], verbs: &[&str]) -> Credential {
        let rules = json!([{ "apiGroups": [""], "resources": resources, "resourceNames": ["node1"], "verbs": verbs }]);
        allow(&self.served.fixture, name, rules).await;
        self.served.pki.client(name, name, "developers").unwrap()
    }
}

#[track_caller]
fn check(reply: &str, status: u16, body: &str) {
    assert!(reply.starts_with(&format!("HTTP/1.1 {status}")) && reply.ends_with(body), "{reply}");
}

/// Every path, with nobody's credential and with those of somebody else's: nothing is told, not even health.
#[tokio::test]
async fn strangers_learn_nothing() {
    let port = Port::open().await;
    let elsewhere = crate::pki::Pki::open(&port.served.fixture.home.path().join("elsewhere")).unwrap();
    let (stranger, front_proxy) = (elsewhere.admin().unwrap(), port.served.pki.front_proxy_client().unwrap());
    let remote = ["X-Remote-User: kubernetes-admin", "X-Remote-Group: system:masters"];
    for path in ["/healthz", "/pods", "/metrics", "/stats/summary", "/configz", "/exec/default/web/main", "/nothing"] {
        let line = format!("GET {path}");
        for (credential, headers) in [
            (None, &[][..]),
            (None, &["Authorization: Bearer garbage"][..]),
            (None, &remote[..]),
            (Some(&stranger), &[][..]),
            (Some(&front_proxy), &remote[..]),
        ] {
            check(&port.ask(credential, &line, headers).await, 401, "\r\n\r\nUnauthorized");
        }
    }
}

#[tokio::test]
async fn rights_to_the_node_say_what_is_answered() {
    let port = Port::open().await;
    let admin = port.served.pki.admin().unwrap();
    let nobody = port.served.pki.client("nobody", "nobody", "developers").unwrap();
    let prometheus = port.user("prometheus", &["nodes/metrics"], &["get"]).await;
    let reader = port.user("reader", &["nodes/pods", "nodes/healthz", "nodes/stats"], &["get"]).await;
    let proxy = port.user("proxy", &["nodes/proxy"], &["get"]).await;
    for (path, subresources, body, allowed) in [
        ("/healthz", "healthz proxy", "ok", [false, true, true]),
        ("/pods", "pods proxy", r#""kind":"PodList","metadata":{}}"#, [false, true, true]),
        ("/runningpods/", "pods proxy", r#""items":[],"kind":"PodList","metadata":{}}"#, [false, true, true]),
        ("/configz", "configz proxy", r#"{"kubeletconfig":{"port":10250}}"#, [false, false, true]),
        ("/stats/summary", "stats", r#""pods":[]}"#, [false, true, false]),
        ("/metrics", "metrics", "is_Kubelet 1\n", [true, false, false]),
        ("/metrics/cadvisor", "metrics", "is_Cadvisor 1\n", [true, false, false]),
        ("/metrics/resource", "metrics", "resource_scrape_error 0\n", [true, false, false]),
        (
            "/containerLogs/default/web/main?tailLines=2",
            "proxy",
            "web/main tail=Some(2)\n\r\n0\r\n\r\n",
            [false, false, true],
        ),
    ] {
        let line = format!("GET {path}");
        check(&port.ask(Some(&admin), &line, &[]).await, 200, body);
        let users = [("prometheus", &prometheus), ("reader", &reader), ("proxy", &proxy)];
        for ((name, credential), allowed) in users.into_iter().zip(allowed).chain([(("nobody", &nobody), false)]) {
            let reply = port.ask(Some(credential), &line, &[]).await;
            if allowed {
                check(&reply, 200, body);
            } else {
                let refusal =
                    format!("Forbidden (user={name}, verb=get, resource=nodes, subresource(s)=[{subresources}])\n");
                check(&reply, 403, &refusal);
            }
        }
    }
    // Nobody acts as somebody else here.
    let headers = ["Impersonate-User: kubernetes-admin", "Impersonate-Group: system:masters"];
    let refusal = "Forbidden (user=nobody, verb=get, resource=nodes, subresource(s)=[metrics])\n";
    check(&port.ask(Some(&nobody), "GET /metrics", &headers).await, 403, refusal);
    let refusal = "Forbidden (user=reader, verb=create, resource=nodes, subresource(s)=[pods proxy])\n";
    check(&port.ask(Some(&reader), "POST /pods", &[]).await, 403, refusal);
    check(&port.ask(Some(&admin), "POST /pods", &[]).await, 405, "Method Not Allowed");
    check(
        &port.ask(Some(&admin), "GET /containerLogs/default/web/none", &[]).await,
        404,
        r#"container "none" not found in pod "web""#,
    );
    check(
        &port.ask(Some(&admin), "GET /containerLogs/default/none/main", &[]).await,
        404,
        r#"pod "none" does not exist"#,
    );
    check(&port.ask(Some(&admin), "GET /logs/", &[]).await, 404, "404 page not found\n");
    // A fault of the program ends the request and nothing else.
    check(&port.ask(Some(&admin), "GET /metrics/probes", &[]).await, 500, "Internal Server Error");
}

/// As Prometheus asks: with the token of a service account, over HTTP/1.1 and HTTP/2's negotiation, verifying the certificate.
#[tokio::test]
async fn a_service_account_asks_by_its_token() {
    let port = Port::open().await;
    let fixture = &port.served.fixture;
    let account = json!({ "metadata": { "name": "prometheus" } });
    fixture.json("POST /api/v1/namespaces/default/serviceaccounts", 201, &account).await;
    let line = "POST /api/v1/namespaces/default/serviceaccounts/prometheus/token";
    let token = fixture.json(line, 201, &json!({ "spec": {} })).await;
    let header = format!("Authorization: Bearer {}", token["status"]["token"].as_str().unwrap());
    let user = "system:serviceaccount:default:prometheus";
    let refusal = format!("Forbidden (user={user}, verb=get, resource=nodes, subresource(s)=[metrics])\n");
    check(&port.ask(None, "GET /metrics/cadvisor", &[&header]).await, 403, &refusal);
    allow(fixture, user, json!([{ "apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"] }])).await;
    check(&port.ask(None, "GET /metrics/cadvisor", &[&header]).await, 200, "is_Cadvisor 1\n");

    let stream = port.served.tls_to(port.address, None, b"h2").await;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let (_, certificate) = x509_parser::parse_x509_certificate(&shown).unwrap();
    assert_eq!(certificate.subject().to_string(), "O=system:nodes, CN=system:node:node1");
    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(names.as_slice(), [GeneralName::DNSName("node1"), GeneralName::IPAddress(&[127, 0, 0, 1])]);
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth, "it proves nobody's identity to the API");
}

#[tokio::test]
async fn a_connection_into_a_pod_is_more_than_a_read() {
    let port = Port::open().await;
    let reader = port.user("reader", &["nodes/proxy"], &["get"]).await;
    let writer = port.user("writer", &["nodes/proxy"], &["get", "create"]).await;
    let line = "GET /exec/default/web/main?command=echo&command=hi&output=1";
    let upgrade = [
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: v4.channel.k8s.io",
    ];
    let refusal = "Forbidden (user=reader, verb=create, resource=nodes, subresource(s)=[proxy])\n";
    check(&port.ask(Some(&reader), line, &upgrade).await, 403, refusal);
    let mut stream = port.send(Some(&writer), line, &upgrade).await;
    let (mut reply, mut chunk) = (String::new(), [0; 4096]);
    while !reply.contains("echo hi") {
        let read = tokio::time::timeout(TEST_TIMEOUT, stream.read(&mut chunk)).await.expect("the command prints");
        let count = read.unwrap();
        assert!(count > 0, "{reply}");
        reply.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    assert!(reply.starts_with("HTTP/1.1 101"), "{reply}");
    check(&port.ask(Some(&writer), line, &[]).await, 400, "Upgrade request required");
    let elsewhere = "GET /exec/default/web/other-uid/main?command=ls&output=1";
    check(&port.ask(Some(&writer), elsewhere, &upgrade).await, 404, "pod not found");
}

#[tokio::test]
async fn a_node_goes_and_the_api_stays() {
    let port = Port::open().await;
    let ports = port.served.handle.kubelet_ports();
    // Its port is taken: another node gets another one.
    let other = ports.bind_at("node2", port.address).unwrap();
    assert_ne!(other.address().port(), port.address.port());

    let admin = port.served.pki.admin().unwrap();
    let mut stream = port.served.tls_to(port.address, Some(&admin), b"http/1.1").await;
    stream.write_all(b"GET /containerLogs/default/web/main?follow=true HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    tokio::time::timeout(TEST_TIMEOUT, port.port.shutdown()).await.expect("a followed log does not hold it up");
    read_all(&mut stream).await;
    assert!(TcpStream::connect(port.address).await.is_err());
    port.served.serves_others().await;

    // And the last one goes with the API.
    let address = other.address();
    let last = other.serve(Arc::new(Node));
    port.served.handle.shutdown().await;
    tokio::time::timeout(TEST_TIMEOUT, last.shutdown()).await.expect("it has ended");
    assert!(TcpStream::connect(address).await.is_err());
}
