//! The zone by questions and answers, and the server by real packets.

mod bounds;
mod forwarding;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ProtocolConfig, ResolverConfig};
use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::{LowerName, Name, Record, RecordType};
use informer::{Cause, ObjectKey, Reconciles};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::RwLock;
use serde_json::{Value, json};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::answer::{Answer, Authority};
use crate::forward::Forwarder;
use crate::serve::{Responder, Transport};
use crate::slots::Slots;
use crate::zone::Zone;
use crate::{tcp, udp};

/// A service with the slice that belongs to it; endpoints are `ADDRESS`, `ADDRESS HOSTNAME` or `ADDRESS unready`.
fn add(zone: &mut Zone, name: &str, spec: Value, ports: Value, endpoints: &[&str]) {
    let service: Service =
        serde_json::from_value(json!({ "metadata": { "namespace": "default", "name": name }, "spec": spec })).unwrap();
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|text| match text.split_once(' ') {
            Some((address, "unready")) => json!({ "addresses": [address], "conditions": { "ready": false } }),
            Some((address, hostname)) => json!({ "addresses": [address], "hostname": hostname }),
            None => json!({ "addresses": [text] }),
        })
        .collect();
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": { "namespace": "default", "name": format!("{name}-x"), "labels": { "kubernetes.io/service-name": name } },
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    }))
    .unwrap();
    zone.set(&ObjectKey::new("default", name), Some(&service), &[Arc::new(slice)]);
}

fn zone() -> Zone {
    let mut zone = Zone::default();
    zone.set_namespace("default", true);
    let http = json!([{ "name": "http", "port": 80 }, { "name": "dns", "port": 53, "protocol": "UDP" }]);
    let target = json!([{ "name": "http", "port": 8080 }, { "name": "dns", "port": 5353, "protocol": "UDP" }]);
    add(&mut zone, "web", json!({ "clusterIP": "10.96.0.7", "ports": http }), target, &["10.244.0.2", "10.244.0.3"]);
    let redis = json!([{ "name": "redis", "port": 6379 }]);
    let members = ["10.244.0.4 redis-0", "10.244.0.5 redis-1", "10.244.0.6 unready"];
    add(&mut zone, "redis", json!({ "clusterIP": "None", "ports": redis }), redis.clone(), &members);
    let all = json!({ "clusterIP": "None", "publishNotReadyAddresses": true });
    add(&mut zone, "seeds", all, json!([]), &["10.244.0.6 unready"]);
    add(&mut zone, "empty", json!({ "clusterIP": "None" }), json!([]), &[]);
    add(&mut zone, "out", json!({ "type": "ExternalName", "externalName": "example.org" }), json!([]), &[]);
    add(
        &mut zone,
        "alias",
        json!({ "type": "ExternalName", "externalName": "web.default.svc.cluster.local" }),
        json!([]),
        &[],
    );
    zone
}

fn authority() -> Authority {
    let subnets = ["10.96.0.0/16".to_owned(), "10.244.0.0/16".to_owned()];
    Authority::new("cluster.local", Some("10.96.0.10".parse().unwrap()), &subnets).unwrap()
}

/// An answer in one line: the data of its records, sorted, and behind a bar what goes along.
fn line(answer: &Answer) -> String {
    let data = |records: &[Record]| {
        let mut data: Vec<String> = records.iter().map(|record| record.data.to_string()).collect();
        data.sort();
        data.join(", ")
    };
    match answer {
        Answer::Records(records, along) if along.is_empty() => data(records),
        Answer::Records(records, along) => format!("{} | {}", data(records), data(along)),
        Answer::Nothing => "nothing".to_owned(),
        Answer::NoSuchName => "no such name".to_owned(),
        Answer::Alias(_, target) => format!("alias of {target}"),
        Answer::Elsewhere => "elsewhere".to_owned(),
    }
}

#[test]
fn questions_and_answers() {
    let (zone, authority) = (zone(), authority());
    let check = |name: &str, query_type: RecordType, expected: &str| {
        let parsed = LowerName::new(&Name::from_ascii(name).unwrap());
        assert_eq!(line(&authority.answer(&zone, &parsed, query_type)), expected, "{name} {query_type}");
    };
    use RecordType::{A, AAAA, NS, PTR, SRV, TXT};
    check("web.default.svc.cluster.local.", A, "10.96.0.7");
    check("WEB.Default.svc.cluster.local.", A, "10.96.0.7");
    check("web.default.svc.cluster.local.", AAAA, "nothing");
    check("web.default.svc.cluster.local.", TXT, "nothing");
    check("web.other.svc.cluster.local.", A, "no such name");
    check("nobody.default.svc.cluster.local.", AAAA, "no such name");
    check("web.default.cluster.local.", A, "no such name");
    let http = "0 100 80 web.default.svc.cluster.local. | 10.96.0.7";
    check("_http._tcp.web.default.svc.cluster.local.", SRV, http);
    check("_http._tcp.web.default.svc.cluster.local.", A, "10.96.0.7");
    check("_http._udp.web.default.svc.cluster.local.", SRV, "no such name");
    check("_https._tcp.web.default.svc.cluster.local.", SRV, "no such name");
    let both = "0 50 53 web.default.svc.cluster.local., 0 50 80 web.default.svc.cluster.local. | 10.96.0.7";
    check("web.default.svc.cluster.local.", SRV, both);
    check("10-244-0-2.web.default.svc.cluster.local.", A, "10.244.0.2");

    check("redis.default.svc.cluster.local.", A, "10.244.0.4, 10.244.0.5");
    check("redis-0.redis.default.svc.cluster.local.", A, "10.244.0.4");
    check("redis-0.redis.default.svc.cluster.local.", AAAA, "nothing");
    check("redis-2.redis.default.svc.cluster.local.", A, "no such name");
    let members = "0 50 6379 redis-0.redis.default.svc.cluster.local., 0 50 6379 redis-1.redis.default.svc.cluster.local. \
                   | 10.244.0.4, 10.244.0.5";
    check("_redis._tcp.redis.default.svc.cluster.local.", SRV, members);
    check("seeds.default.svc.cluster.local.", A, "10.244.0.6");
    check("empty.default.svc.cluster.local.", A, "nothing");
    check("out.default.svc.cluster.local.", A, "alias of example.org.");

    check("10-244-0-9.default.pod.cluster.local.", A, "10.244.0.9");
    check("10-244-0-9.other.pod.cluster.local.", A, "no such name");
    check("default.svc.cluster.local.", A, "nothing");
    check("other.svc.cluster.local.", A, "no such name");
    check("cluster.local.", A, "nothing");
    check("cluster.local.", NS, "ns.dns.cluster.local. | 10.96.0.10");
    check("ns.dns.cluster.local.", A, "10.96.0.10");
    check("dns-version.cluster.local.", TXT, "1.1.0");

    check("7.0.96.10.in-addr.arpa.", PTR, "web.default.svc.cluster.local.");
    check("4.0.244.10.in-addr.arpa.", PTR, "redis-0.redis.default.svc.cluster.local.");
    check("4.0.244.10.in-addr.arpa.", A, "nothing");
    check("2.0.244.10.in-addr.arpa.", PTR, "no such name");
    check("1.0.0.127.in-addr.arpa.", PTR, "elsewhere");
    check("example.org.", A, "elsewhere");
    check("local.", A, "elsewhere");
}

#[test]
fn what_goes_leaves_nothing() {
    let mut zone = zone();
    let serial = zone.serial();
    for name in ["web", "redis", "seeds"] {
        zone.set(&ObjectKey::new("default", name), None, &[]);
    }
    assert_eq!(zone.serial(), serial + 3);
    for address in ["10.96.0.7", "10.244.0.4", "10.244.0.6"] {
        assert!(zone.owners(address.parse().unwrap()).is_empty(), "{address}");
    }
    zone.set(&ObjectKey::new("default", "web"), None, &[]);
    assert_eq!(zone.serial(), serial + 3, "nothing changed");
}

#[test]
fn each_change_says_what_woke_it_and_what_it_came_to() {
    let reconciles = Reconciles::default();
    let zone = (Arc::new(RwLock::new(Zone::default())), reconciles.reporter::<Zone>());
    let key = ObjectKey::new("default", "web");
    let service: Arc<Service> = Arc::new(
        serde_json::from_value(json!({
            "metadata": { "namespace": "default", "name": "web", "resourceVersion": "7" },
            "spec": { "clusterIP": "10.96.0.7" },
        }))
        .unwrap(),
    );
    let kind: Arc<str> = "Service".into();
    for (service, is_deleted) in [(&service, false), (&service, false), (&service, true)] {
        let cause = Cause::change(&kind, service, is_deleted);
        let present = (!is_deleted).then_some(service.as_ref());
        crate::write(&zone, &key, cause, |zone| zone.set(&key, present, &[]));
    }
    let told: Vec<String> = reconciles.latest("dns").iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "woken by Service default/web @7; did publish 1 addresses and names; waits for a change",
            "woken by Service default/web @7; wrote nothing; waits for a change (what it publishes stays the same)",
            "woken by Service default/web @7 deleted; did withdraw all records; waits for a change",
        ]
    );
}

/// The zone with a service of 200 addresses.
fn with_many(mut zone: Zone) -> Zone {
    let members: Vec<String> = (0..200).map(|number| format!("10.244.1.{number}")).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    add(&mut zone, "many", json!({ "clusterIP": "None" }), json!([]), &members);
    zone
}

/// What answers from `zone`, without anybody to ask for the rest.
fn responder(zone: Zone) -> Responder {
    let (_, synced) = watch::channel(true);
    let forwarder = Forwarder::new("/nonexistent".into(), 53, Vec::new(), 100);
    Responder::over(authority(), Arc::new(RwLock::new(zone)), synced, forwarder)
}

/// A server over `zone` without anybody to ask for the rest, and a resolver that asks it.
async fn server(zone: Zone) -> (DropGuard, SocketAddr, TokioResolver) {
    let responder = responder(zone);
    let cancel = CancellationToken::new();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let tcp_port = listener.local_addr().unwrap().port();
    tokio::spawn(udp::serve(socket, responder.clone(), cancel.clone()));
    tokio::spawn(tcp::serve(listener, responder, Slots::new(100), cancel.clone()));
    let connection = |protocol, port| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = port;
        connection
    };
    let connections = vec![connection(ProtocolConfig::Udp, address.port()), connection(ProtocolConfig::Tcp, tcp_port)];
    let config = NameServerConfig::new(address.ip(), true, connections);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![config]);
    let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build().unwrap();
    (cancel.drop_guard(), address, resolver)
}

#[tokio::test]
async fn a_large_answer_comes_by_tcp() {
    let (_server, _, resolver) = server(with_many(zone())).await;
    let found = resolver.lookup_ip("many.default.svc.cluster.local.").await.unwrap();
    assert_eq!(found.iter().count(), 200);
}

#[tokio::test]
async fn answers_fit_into_what_their_client_takes() {
    let responder = responder(with_many(zone()));
    let question = |questions: usize, takes: Option<u16>| {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        for _ in 0..questions {
            message
                .add_query(Query::query(Name::from_ascii("many.default.svc.cluster.local.").unwrap(), RecordType::A));
        }
        message.edns = takes.map(|bytes| {
            let mut edns = Edns::new();
            edns.set_max_payload(bytes);
            edns
        });
        message.to_vec().unwrap()
    };
    let check = async |message: Vec<u8>, transport, limit: usize, is_cut_off, code| {
        let answer = responder.answer(message, (Ipv4Addr::LOCALHOST, 5353).into(), transport).await.unwrap();
        assert!(answer.len() <= limit, "{} bytes, not {limit}", answer.len());
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!((answer.metadata.truncation, answer.metadata.response_code), (is_cut_off, code));
        assert_eq!(answer.answers.len() == 200, transport == Transport::Tcp && code == ResponseCode::NoError);
    };
    check(question(1, None), Transport::Udp, 512, true, ResponseCode::NoError).await;
    check(question(1, Some(700)), Transport::Udp, 700, true, ResponseCode::NoError).await;
    check(question(1, Some(4096)), Transport::Udp, 1232, true, ResponseCode::NoError).await;
    check(question(1, None), Transport::Tcp, usize::from(u16::MAX), false, ResponseCode::NoError).await;
    // Only one question can be answered, and repeated.
    check(question(2, None), Transport::Udp, 12, false, ResponseCode::FormErr).await;
    check(question(100, None), Transport::Udp, 12, false, ResponseCode::FormErr).await;
    // Its name may not point into the header, which is another one in the answer.
    let pointing = [&question(1, None)[..12], &[3, b'w', b'e', b'b', 0xc0, 5, 0, 1, 0, 1]].concat();
    check(pointing, Transport::Udp, 12, false, ResponseCode::FormErr).await;
    // A header that announces a question, and none behind it.
    let cut = question(1, None)[..20].to_vec();
    check(cut.clone(), Transport::Udp, 12, false, ResponseCode::FormErr).await;
    check(cut, Transport::Tcp, 12, false, ResponseCode::FormErr).await;
}

#[tokio::test]
async fn an_alias_into_the_cluster_is_followed_and_the_rest_fails_without_resolvers() {
    let (_server, _, resolver) = server(zone()).await;
    let found = resolver.lookup_ip("alias.default.svc.cluster.local.").await.unwrap();
    assert_eq!(found.iter().map(|ip| ip.to_string()).collect::<Vec<_>>(), ["10.96.0.7"]);
    let error = resolver.lookup_ip("example.org.").await.unwrap_err();
    assert!(!error.is_nx_domain(), "{error}");
    let error = resolver.lookup_ip("nobody.default.svc.cluster.local.").await.unwrap_err();
    assert!(error.is_nx_domain(), "{error}");
}

#[tokio::test]
async fn what_is_not_a_question_gets_an_error() {
    let (_server, address, _) = server(zone()).await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(address).await.unwrap();
    let ask = async |packet: Vec<u8>| {
        socket.send(&packet).await.unwrap();
        let mut answer = [0; 1500];
        let length = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut answer)).await.unwrap().unwrap();
        Message::from_vec(&answer[..length]).unwrap().metadata.response_code
    };
    let question = |op_code, queries: &[(&str, RecordType)]| {
        let mut message = Message::new(7, MessageType::Query, op_code);
        for (name, query_type) in queries {
            message.add_query(Query::query(Name::from_ascii(name).unwrap(), *query_type));
        }
        message.to_vec().unwrap()
    };
    let web = ("web.default.svc.cluster.local.", RecordType::A);
    assert_eq!(ask(question(OpCode::Query, &[web])).await, ResponseCode::NoError);
    assert_eq!(ask(question(OpCode::Query, &[])).await, ResponseCode::FormErr);
    assert_eq!(ask(question(OpCode::Query, &[web, web])).await, ResponseCode::FormErr);
    assert_eq!(ask(question(OpCode::Status, &[web])).await, ResponseCode::NotImp);
    let transfer = ("cluster.local.", RecordType::AXFR);
    assert_eq!(ask(question(OpCode::Query, &[transfer])).await, ResponseCode::Refused);
    // Garbage costs nobody anything: the next question is answered.
    socket.send(&[1, 2, 3]).await.unwrap();
    assert_eq!(ask(question(OpCode::Query, &[web])).await, ResponseCode::NoError);
}
