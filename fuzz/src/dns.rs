//! DNS: a byte for the transport, and a message or all that a connection carries. The responder is a whole one, without sockets.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use dns::{Config, Responder, Transport};
use hickory_server::proto::op::{Message, MessageType, OpCode};
use hickory_server::proto::rr::{RData, Record};
use http::{Request, Response};
use informer::Informers;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::connection::{block_on, converse};

/// Who asks.
const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5353);
/// A question that is always answered, and the address: A of `web.default.svc.cluster.local`.
const QUESTION: &[u8] = b"\x03web\x07default\x03svc\x07cluster\x05local\0\0\x01\0\x01";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 7);
/// Bytes of a header.
const HEADER: usize = 12;
/// The largest answer by UDP, to a client that says nothing and to any other.
const DATAGRAMS: (usize, usize) = (512, 1232);
/// Members of the service whose records are too many for a datagram.
const MEMBERS: usize = 120;

thread_local! {
    static RESPONDER: OnceCell<(Responder, Informers)> = const { OnceCell::const_new() };
}

/// Answers what may be questions.
///
/// # Panics
/// When a law is broken.
pub fn run(data: &[u8]) {
    let Some((transport, bytes)) = data.split_first() else { return };
    let responder = RESPONDER.with(|cell| block_on(async { cell.get_or_init(start).await.0.clone() }));
    match transport % 2 {
        0 => message(&responder, bytes),
        _ => connection(&responder, bytes),
    }
}

/// One message by UDP, and the same one by TCP.
fn message(responder: &Responder, bytes: &[u8]) {
    let ask = |transport| block_on(responder.answer(bytes.to_vec(), CLIENT, transport));
    let is_silent = bytes.len() < HEADER || bytes[2] & 0x80 != 0;
    let (Some(datagram), Some(whole)) = (ask(Transport::Udp), ask(Transport::Tcp)) else {
        return assert!(is_silent, "a message is not answered");
    };
    assert!(!is_silent, "an answer to what is no question");
    let (short, long) = (decoded(bytes, &datagram), decoded(bytes, &whole));
    let question = Message::from_vec(bytes).ok();
    let takes = question.as_ref().and_then(|question| question.edns.as_ref()).map(|edns| edns.max_payload().into());
    let limit = takes.unwrap_or(DATAGRAMS.0).clamp(DATAGRAMS.0, DATAGRAMS.1);
    assert!(datagram.len() <= limit, "{} bytes for a client that takes {limit}", datagram.len());
    assert!(!long.metadata.truncation, "an answer by TCP is cut off");
    if !short.metadata.truncation && short.metadata.response_code == long.metadata.response_code {
        let records = |answer: &Message| {
            [&answer.answers, &answer.authorities, &answer.additionals].map(|records| sorted(records))
        };
        assert_eq!(records(&short), records(&long), "by UDP and by TCP");
    }
    if let Some(question) = question {
        known(bytes, &question, &long);
    }
}

/// Records without their order, which changes from answer to answer.
fn sorted(records: &[Record]) -> Vec<String> {
    let mut lines: Vec<String> = records.iter().map(ToString::to_string).collect();
    lines.sort();
    lines
}

/// An answer: to this message, whole, and encoded and decoded again the same.
fn decoded(question: &[u8], bytes: &[u8]) -> Message {
    let answer = Message::from_vec(bytes).unwrap_or_else(|error| panic!("{error}: {bytes:02x?}"));
    assert_eq!(bytes.get(..2), question.get(..2), "an answer to another message");
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert_eq!((question[2] ^ bytes[2]) & 0x79, 0, "another operation, or recursion as nobody asked for it");
    let again = answer.to_vec().and_then(|bytes| Ok(Message::from_vec(&bytes)?));
    assert_eq!(again.ok().as_ref(), Some(&answer));
    answer
}

/// Who asks for a name that there is, and writes it out, is told its address.
fn known(bytes: &[u8], question: &Message, answer: &Message) {
    let is_question = question.metadata.op_code == OpCode::Query && question.queries.len() == 1;
    if !is_question || !bytes[HEADER..].to_ascii_lowercase().starts_with(QUESTION) {
        return;
    }
    let [record] = &answer.answers[..] else { panic!("{answer:?} is not one record") };
    assert!(matches!(&record.data, RData::A(address) if address.0 == ADDRESS), "{record}");
}

/// All that a client sends on a connection, which ends by itself.
fn connection(responder: &Responder, bytes: &[u8]) {
    let received = converse(bytes, async |stream| {
        // What is cut off is an error, and ends the connection as well.
        let _ = responder.converse(stream, CLIENT).await;
    });
    let (mut asked, mut answered) = (bytes, &received[..]);
    while let Some(answer) = piece(&mut answered) {
        let question = piece(&mut asked).expect("an answer without a question");
        decoded(question, answer);
    }
    assert!(answered.is_empty(), "an answer is cut off");
}

/// The next message of a connection, behind its length.
fn piece<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (message, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    *bytes = rest;
    Some(message)
}

/// A responder that has seen the cluster, and what it follows.
async fn start() -> (Responder, Informers) {
    let informers = Informers::new(client(), CancellationToken::new());
    let mut config = Config::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    config.address = Some(Ipv4Addr::new(10, 96, 0, 10).into());
    config.subnets = vec!["10.96.0.0/16".to_owned()];
    // Nobody else is asked.
    config.resolv_conf = "/dev/null".into();
    let responder = Responder::new(&config, Vec::new(), &informers).expect("a responder");
    (responder, informers)
}

/// The API of a cluster in which nothing happens.
fn client() -> Client {
    let service = |name: &str, spec: Value| json!({ "metadata": metadata(name), "spec": spec });
    let ports = json!([{ "name": "http", "port": 80 }, { "name": "dns", "port": 53, "protocol": "UDP" }]);
    let alias = |target: &str| json!({ "type": "ExternalName", "externalName": target });
    let services = [
        service("web", json!({ "clusterIP": ADDRESS.to_string(), "ports": ports })),
        service("redis", json!({ "clusterIP": "None", "ports": ports })),
        service("six", json!({ "clusterIPs": ["fd00::7", "10.96.0.8"], "clusterIP": "fd00::7" })),
        service("alias", alias("web.default.svc.cluster.local")),
        service("loop", alias("loop.default.svc.cluster.local")),
        service("out", alias("example.org")),
    ];
    let mut slice = json!({ "metadata": metadata("redis-x"), "addressType": "IPv4", "ports": ports });
    slice["metadata"]["labels"] = json!({ "kubernetes.io/service-name": "redis" });
    let member = |number| json!({ "addresses": [format!("10.244.0.{number}")], "hostname": format!("redis-{number}") });
    slice["endpoints"] = (0..MEMBERS).map(member).collect();
    let answer = tower::service_fn(move |request: Request<Body>| {
        let path = request.uri().path();
        let (version, kind, objects) = match path.rsplit('/').next() {
            Some("services") => ("v1", "Service", services.to_vec()),
            Some("namespaces") => ("v1", "Namespace", vec![json!({ "metadata": metadata("default") })]),
            _ => ("discovery.k8s.io/v1", "EndpointSlice", vec![slice.clone()]),
        };
        // The first list comes as a watch; the ones behind it stay silent.
        let first = request.uri().query().is_some_and(|query| query.contains("sendInitialEvents=true"));
        let body = first.then(|| events(version, kind, objects));
        async move {
            match body {
                Some(body) => Ok::<_, Infallible>(Response::new(Body::from(body.into_bytes()))),
                None => std::future::pending().await,
            }
        }
    });
    Client::new(answer, "default")
}

fn metadata(name: &str) -> Value {
    json!({ "name": name, "namespace": "default", "uid": name, "resourceVersion": "1" })
}

/// A watch that sends what there is, and that this is all.
fn events(version: &str, kind: &str, objects: Vec<Value>) -> String {
    let event = |event: &str, mut object: Value| {
        object["apiVersion"] = version.into();
        object["kind"] = kind.into();
        format!("{}\n", json!({ "type": event, "object": object }))
    };
    let end = json!({ "metadata": { "resourceVersion": "1", "annotations": { "k8s.io/initial-events-end": "true" } } });
    let added: String = objects.into_iter().map(|object| event("ADDED", object)).collect();
    added + &event("BOOKMARK", end)
}
