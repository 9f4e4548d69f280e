//! What requests and connections may take, and that others are served meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::network::{Served, TEST_TIMEOUT, read_all};
use crate::pki::Credential;
use crate::{Limits, RequestLimits};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn post(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")
}

fn config_map(name: &str, size: usize) -> String {
    format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"a":"{}"}}}}"#, "x".repeat(size))
}

async fn within<T>(done: impl Future<Output = T>) -> T {
    tokio::time::timeout(TEST_TIMEOUT, done).await.expect("the server does nothing")
}

/// The head of the next response on a connection, and its body.
async fn response(stream: &mut TlsStream<TcpStream>) -> String {
    let (mut got, mut chunk) = (String::new(), [0; 4096]);
    let read = async {
        loop {
            let last = got.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&got);
            let length = last.split_once("\r\n\r\n").and_then(|(head, body)| {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
                Some(body.len() >= length.parse().unwrap())
            });
            if length == Some(true) {
                return;
            }
            let count = stream.read(&mut chunk).await.unwrap();
            assert_ne!(count, 0, "the connection has ended: {got}");
            got.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
    };
    within(read).await;
    got
}

async fn begin(served: &Served, credential: &Credential, bytes: &[u8]) -> TlsStream<TcpStream> {
    begin_at(served, served.address(), credential, bytes).await
}

async fn begin_at(served: &Served, address: SocketAddr, credential: &Credential, bytes: &[u8]) -> TlsStream<TcpStream> {
    let mut stream = served.tls_to(address, Some(credential), b"http/1.1").await;
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

/// Somebody who may write ConfigMaps, and is not exempt from flow control.
async fn developer(served: &Served) -> Credential {
    let rule = serde_json::json!({ "verbs": ["create"], "apiGroups": [""], "resources": ["configmaps"] });
    served.fixture.grant("devs", rule, serde_json::json!({ "kind": "Group", "name": "devs" })).await;
    served.pki.client("developer", "jane", "devs").unwrap()
}

#[tokio::test]
async fn a_request_ends_in_time() {
    let requests = RequestLimits { timeout: Duration::from_millis(300), ..RequestLimits::default() };
    let served = Served::with(Limits::default(), requests).await;
    let admin = served.pki.admin().unwrap();
    let mut stream = begin(&served, &admin, format!("{}{{", post(MAPS, 100)).as_bytes()).await;
    let reply = within(read_all(&mut stream)).await;
    assert!(reply.starts_with("HTTP/1.1 504") && reply.contains("connection: close"), "{reply}");
    assert!(reply.contains("allotted timeout") && reply.contains(r#""reason":"Timeout""#), "{reply}");
    // What lasts may.
    let line = format!("GET {MAPS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut watch = begin(&served, &admin, line.as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    served.fixture.json(&format!("POST {MAPS}"), 201, &serde_json::json!({ "metadata": { "name": "late" } })).await;
    let (mut got, mut chunk) = (String::new(), [0; 4096]);
    let heard = async {
        while !got.contains("late") {
            let count = watch.read(&mut chunk).await.unwrap();
            assert_ne!(count, 0, "{got}");
            got.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
    };
    within(heard).await;
}

#[tokio::test]
async fn a_client_may_ask_for_less_time() {
    let served = Served::with(Limits::default(), RequestLimits::default()).await;
    let admin = served.pki.admin().unwrap();
    for (timeout, expect) in [("200ms", "504"), ("1h30m0.5s", "201"), ("0", "201"), ("soon", "400"), ("-1s", "201")] {
        let body = config_map(&format!("a{}", timeout.len()), 10);
        let path = format!("{MAPS}?timeout={timeout}");
        let half = expect == "504";
        let sent = if half { &body[..10] } else { &body };
        let mut stream = begin(&served, &admin, format!("{}{sent}", post(&path, body.len())).as_bytes()).await;
        let reply = response(&mut stream).await;
        assert!(reply.starts_with(&format!("HTTP/1.1 {expect}")), "{timeout}: {reply}");
    }
    // Of what lasts, it is not about this server.
    assert_eq!(served.fixture.answered(&format!("GET {MAPS}?watch=true&timeout=soon"), &[], "").await.0, 200);
}

#[tokio::test]
async fn bodies_have_a_budget_together() {
    let requests = RequestLimits { body_bytes: 1_000_000, ..RequestLimits::default() };
    let served = Served::with(Limits::default(), requests).await;
    let (admin, developer) = (served.pki.admin().unwrap(), developer(&served).await);
    let large = config_map("large", 900_000);
    let head = post(MAPS, large.len());
    let stalled = begin(&served, &developer, format!("{head}{}", &large[..600_000]).as_bytes()).await;
    let bodies = &served.fixture.server.0.bodies;
    let read = async {
        while bodies.used() < 600_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(read).await;
    let medium = config_map("medium", 300_000);
    let medium = format!("{}{medium}", post(MAPS, medium.len()));
    let mut stream = begin(&served, &developer, medium.as_bytes()).await;
    let refused = response(&mut stream).await;
    assert!(refused.starts_with("HTTP/1.1 429") && refused.contains("retry-after: 1"), "{refused}");
    let mut stream = begin(&served, &admin, medium.as_bytes()).await;
    assert!(response(&mut stream).await.starts_with("HTTP/1.1 201"), "an administrator gets in");
    let small = config_map("small", 1_000);
    let mut stream = begin(&served, &developer, format!("{}{small}", post(MAPS, small.len())).as_bytes()).await;
    assert!(response(&mut stream).await.starts_with("HTTP/1.1 201"), "what is small gets in");
    drop(stalled);
    let given_back = async {
        while bodies.used() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(given_back).await;
    let large = config_map("next", 650_000);
    let mut stream = begin(&served, &developer, format!("{}{large}", post(MAPS, large.len())).as_bytes()).await;
    assert!(response(&mut stream).await.starts_with("HTTP/1.1 201"));
}

#[tokio::test]
async fn bodies_from_a_pod_leave_room_for_others() {
    let requests = RequestLimits { body_bytes: 1_000_000, ..RequestLimits::default() };
    let served = Served::with(Limits::default(), requests).await;
    let bridge = served.handle.listen(([127, 0, 0, 2], 0).into()).await.unwrap();
    let (admin, developer) = (served.pki.admin().unwrap(), developer(&served).await);
    // One pod may have 62,500 bytes at once.
    let body = config_map("slow", 50_000);
    let head = post(MAPS, body.len());
    let _stalled = begin_at(&served, bridge, &developer, format!("{head}{}", &body[..50_000]).as_bytes()).await;
    let read = async {
        while served.fixture.server.0.bodies.used() < 50_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(read).await;
    for (name, address, credential, expect) in [
        ("same-pod", bridge, &developer, "429"),
        ("administrator", bridge, &admin, "201"),
        ("user", served.address(), &developer, "201"),
    ] {
        let body = config_map(name, 20_000);
        let request = format!("{}{body}", post(MAPS, body.len()));
        let mut stream = begin_at(&served, address, credential, request.as_bytes()).await;
        let reply = response(&mut stream).await;
        assert!(reply.starts_with(&format!("HTTP/1.1 {expect}")), "{name}: {reply}");
    }
}

#[tokio::test]
async fn who_may_not_is_told_before_the_body_is_read() {
    let served = Served::with(Limits::default(), RequestLimits::default()).await;
    let developer = served.pki.client("developer", "jane", "developers").unwrap();
    // Nothing of the body has come.
    let mut stream = begin(&served, &developer, post(MAPS, 3_000_000).as_bytes()).await;
    let reply = within(read_all(&mut stream)).await;
    assert!(reply.starts_with("HTTP/1.1 403") && reply.contains("connection: close"), "{reply}");
    let head = post(MAPS, 10).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let mut stream = begin(&served, &developer, head.as_bytes()).await;
    let reply = within(read_all(&mut stream)).await;
    assert!(reply.starts_with("HTTP/1.1 403"), "{reply}");
    // Who may goes on with the connection.
    let body = config_map("a", 10);
    let head = post(MAPS, body.len()).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let mut stream = begin(&served, &served.pki.admin().unwrap(), format!("{head}{body}").as_bytes()).await;
    let reply = response(&mut stream).await;
    assert!(reply.contains("HTTP/1.1 201") && !reply.contains("connection: close"), "{reply}");
}

#[tokio::test]
async fn a_body_that_nobody_reads_does_not_cost_the_answer() {
    let served = Served::with(Limits::default(), RequestLimits::default()).await;
    let developer = served.pki.client("developer", "jane", "developers").unwrap();
    // A small one is read, and the connection goes on.
    let body = config_map("a", 50_000);
    let mut stream = served.tls(Some(&developer), b"http/1.1").await;
    for _ in 0..20 {
        stream.write_all(format!("{}{body}", post(MAPS, body.len())).as_bytes()).await.unwrap();
        let reply = response(&mut stream).await;
        assert!(reply.starts_with("HTTP/1.1 403") && !reply.contains("connection: close"), "{reply}");
    }
    // Of a large one the client sends all before it reads.
    let body = config_map("a", 2_500_000);
    for round in 0..5 {
        let mut stream = served.tls(Some(&developer), b"http/1.1").await;
        let _ = stream.write_all(format!("{}{body}", post(MAPS, body.len())).as_bytes()).await;
        let reply = within(read_all(&mut stream)).await;
        assert!(reply.starts_with("HTTP/1.1 403") && reply.contains("connection: close"), "{round}: {reply}");
    }
    let admin = served.pki.admin().unwrap();
    let body = config_map("a", 5_000_000);
    for round in 0..5 {
        let mut stream = served.tls(Some(&admin), b"http/1.1").await;
        let _ = stream.write_all(format!("{}{body}", post(MAPS, body.len())).as_bytes()).await;
        let reply = within(read_all(&mut stream)).await;
        assert!(reply.starts_with("HTTP/1.1 413") && reply.contains("RequestEntityTooLarge"), "{round}: {reply}");
    }
    served.serves_others().await;
}

#[tokio::test]
async fn pods_do_not_lock_out_users_nor_each_other() {
    let limits = Limits { connections: 8, peer_connections: 3, ..Limits::default() };
    let served = Served::with(limits, RequestLimits::default()).await;
    let bridge = served.handle.listen(([127, 0, 0, 2], 0).into()).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(served.tls_to(bridge, None, b"http/1.1").await);
    }
    // One address has as many as it may have.
    let mut refused = TcpStream::connect(bridge).await.unwrap();
    assert_eq!(within(refused.read(&mut [0])).await.unwrap_or(0), 0);
    // Others have the rest, up to half of all.
    let from = async |address: [u8; 4]| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        socket.connect(bridge).await.unwrap()
    };
    let another = from([127, 0, 0, 3]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut waits = from([127, 0, 0, 4]).await;
    waits.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), waits.read(&mut [0])).await.is_err(), "it has to wait");
    served.serves_others().await;
    drop(another);
    assert_eq!(within(waits.read(&mut [0])).await.unwrap(), 1, "a place is free");
    drop(held);
    let taken = async {
        loop {
            let mut stream = TcpStream::connect(bridge).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            if matches!(stream.read(&mut [0]).await, Ok(1)) {
                return;
            }
        }
    };
    within(taken).await;
}

/// An exec, say, has a descriptor for as long as it lasts.
#[tokio::test]
async fn what_is_upgraded_keeps_its_place() {
    let limits = Limits { connections: 8, peer_connections: 1, ..Limits::default() };
    let served = Served::with(limits, RequestLimits::default()).await;
    let bridge = served.handle.listen(([127, 0, 0, 2], 0).into()).await.unwrap();
    let pods = "/api/v1/namespaces/default/pods";
    served.fixture.json(&format!("POST {pods}"), 201, &super::support::pod("p", "node1")).await;
    let head = format!(
        "GET {pods}/p/log?follow=true HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: binary.k8s.io\r\n\r\n"
    );
    let mut log = begin_at(&served, bridge, &served.pki.admin().unwrap(), head.as_bytes()).await;
    let (mut got, mut chunk) = (String::new(), [0; 4096]);
    let read = async {
        while !got.contains("p/main tail") {
            let count = log.read(&mut chunk).await.unwrap();
            assert_ne!(count, 0, "{got}");
            got.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
    };
    within(read).await;
    assert!(got.starts_with("HTTP/1.1 101"), "{got}");
    // What answered the request has ended by then.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut refused = TcpStream::connect(bridge).await.unwrap();
    assert_eq!(within(refused.read(&mut [0])).await.unwrap_or(0), 0);
}

type Sender = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

async fn http2(served: &Served, window: u32) -> (Sender, tokio::task::JoinHandle<hyper::Result<()>>) {
    let admin = served.pki.admin().unwrap();
    let io = hyper_util::rt::TokioIo::new(served.tls(Some(&admin), b"h2").await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let mut builder = hyper::client::conn::http2::Builder::new(executor);
    let (sender, connection) = builder.initial_stream_window_size(window).handshake(io).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn get(served: &Served, path: &str) -> http::Request<Empty<Bytes>> {
    http::Request::get(format!("https://{}{path}", served.address())).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn an_idle_connection_ends() {
    let limits = Limits { idle: Duration::from_millis(200), ..Limits::default() };
    let served = Served::with(limits, RequestLimits::default()).await;
    let (mut sender, connection) = http2(&served, 65_535).await;
    let mut watch = sender.send_request(get(&served, &format!("{MAPS}?watch=1"))).await.unwrap().into_body();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!connection.is_finished(), "a watch is not idle");
    let first = tokio::time::timeout(Duration::from_millis(10), watch.frame()).await;
    drop((first, watch));
    let _ = within(connection).await;
}

#[tokio::test]
async fn who_reads_nothing_keeps_nothing() {
    let requests = RequestLimits { timeout: Duration::from_millis(700), ..RequestLimits::default() };
    let served = Served::with(Limits::default(), requests).await;
    // It is made only once.
    served.fixture.server.0.non_resource.documents.get(crate::documents::DocumentKey::OpenApiV2);
    let (mut sender, _connection) = http2(&served, 100).await;
    let mut body = sender.send_request(get(&served, "/openapi/v2")).await.unwrap().into_body();
    tokio::time::sleep(Duration::from_millis(2_000)).await;
    let ended = async {
        loop {
            match body.frame().await {
                Some(Ok(_)) => {}
                Some(Err(_)) => return true,
                None => return false,
            }
        }
    };
    assert!(within(ended).await, "the stream was reset");
    let list = sender.send_request(get(&served, "/version")).await.unwrap();
    assert_eq!(list.status(), 200, "the connection goes on");
}

/// A seat is for work: who sends slowly takes it from nobody.
#[tokio::test]
async fn a_body_on_its_way_has_no_seat() {
    let requests = RequestLimits { seats: 246, timeout: Duration::from_secs(3), ..RequestLimits::default() };
    let served = Served::with(Limits::default(), requests).await;
    // One seat for `devs`, who may write ConfigMaps.
    super::flow_control::limited(&served.fixture, 1, serde_json::json!({ "type": "Reject" })).await;
    let developer = developer(&served).await;
    let body = config_map("slow", 1_000);
    let mut slow = Vec::new();
    for _ in 0..5 {
        slow.push(begin(&served, &developer, format!("{}{}", post(MAPS, body.len()), &body[..500]).as_bytes()).await);
    }
    let read = async {
        while served.fixture.server.0.bodies.used() < 5 * 500 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(read).await;
    let other = config_map("other", 1_000);
    let mut stream = begin(&served, &developer, format!("{}{other}", post(MAPS, other.len())).as_bytes()).await;
    let reply = response(&mut stream).await;
    assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
    slow[0].write_all(&body.as_bytes()[500..]).await.unwrap();
    let reply = response(&mut slow[0]).await;
    assert!(reply.starts_with("HTTP/1.1 201"), "{reply}");
}

/// Two connections of an account without rights, each with as many streams as it may have, used to hold 1.3 GB.
#[tokio::test]
async fn many_large_bodies_at_once_hold_no_more_than_the_budget() {
    use http_body_util::Full;
    let requests = RequestLimits { body_bytes: 1_000_000, ..RequestLimits::default() };
    let served = Served::with(Limits::default(), requests).await;
    let developer = served.pki.client("developer", "jane", "developers").unwrap();
    let uri = format!("https://{}/apis/authentication.k8s.io/v1/selfsubjectreviews", served.address());
    let body = Bytes::from(format!(r#"{{"metadata":{{"name":"{}"}}}}"#, "x".repeat(200_000)));
    let mut asked = Vec::new();
    for _ in 0..2 {
        let io = hyper_util::rt::TokioIo::new(served.tls(Some(&developer), b"h2").await);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..50 {
            let request = http::Request::post(&uri).body(Full::new(body.clone())).unwrap();
            let mut sender = sender.clone();
            asked.push(tokio::spawn(async move { sender.send_request(request).await.unwrap().status().as_u16() }));
        }
    }
    let bodies = &served.fixture.server.0.bodies;
    let (mut most, mut codes) = (0, Vec::new());
    let watched = async {
        for asked in asked {
            while !asked.is_finished() {
                most = most.max(bodies.used());
                tokio::task::yield_now().await;
            }
            codes.push(asked.await.unwrap());
        }
    };
    within(watched).await;
    assert!(most <= 1_000_000, "{most}");
    assert!(codes.iter().all(|code| matches!(code, 201 | 422 | 429)) && codes.contains(&429), "{codes:?}");
    served.serves_others().await;
    assert_eq!(bodies.used(), 0, "all of it is given back");
}
