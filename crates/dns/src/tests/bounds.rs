//! One client that asks for more than its share: it gets refusals, and nobody else notices.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hickory_server::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::RecordType;
use parking_lot::RwLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::forwarding::{Cluster, TEST_TIMEOUT, Upstream, name};
use super::{authority, zone};
use crate::Bounds;
use crate::forward::Forwarder;
use crate::serve::Responder;
use crate::slots::Slots;
use crate::tcp;

/// Two clients: all of 127.0.0.0/8 is this machine.
const GREEDY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

fn question(id: u16, text: &str) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), RecordType::A));
    message.to_vec().unwrap()
}

/// A client with an address of its own.
struct Client(UdpSocket);

impl Client {
    async fn new(address: Ipv4Addr, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((address, 0)).await.unwrap();
        socket.connect(server).await.unwrap();
        Self(socket)
    }

    async fn answer(&self) -> Message {
        let mut answer = vec![0; 4096];
        let length = timeout(TEST_TIMEOUT, self.0.recv(&mut answer)).await.expect("an answer").unwrap();
        Message::from_vec(&answer[..length]).unwrap()
    }

    /// The code of the answer to this question, whatever else comes before it.
    async fn ask(&self, text: &str) -> ResponseCode {
        self.0.send(&question(u16::MAX, text)).await.unwrap();
        loop {
            let answer = self.answer().await;
            if answer.metadata.id == u16::MAX {
                return answer.metadata.response_code;
            }
        }
    }
}

#[tokio::test]
async fn a_flood_of_questions_is_bounded_and_harms_nobody() {
    const LIMIT: usize = 40;
    let upstream = Upstream::default();
    let (_running, port) = upstream.start().await;
    // Long enough that what is asked first still waits when everything else is over.
    let cluster = Cluster::start_with(Some(port), "timeout:2 attempts:5", LIMIT).await;
    let greedy = Client::new(GREEDY, cluster.address).await;
    let mut refused = 0;
    for number in 0..3000 {
        greedy.0.send(&question(1, &format!("silent-{number}.example.org."))).await.unwrap();
        // As many as its share wait for an answer; each of the others has one at once.
        if number >= LIMIT / 2 {
            assert_eq!(greedy.answer().await.metadata.response_code, ResponseCode::Refused, "{number}");
            refused += 1;
        }
    }
    assert_eq!(refused, 3000 - LIMIT / 2);

    // The cluster's own names cost nothing but memory, so they are answered to everybody.
    assert_eq!(greedy.ask("web.default.svc.cluster.local.").await, ResponseCode::NoError);
    let other = Client::new(OTHER, cluster.address).await;
    assert_eq!(other.ask("web.default.svc.cluster.local.").await, ResponseCode::NoError);
    // Others have their share of questions for the outside.
    assert_eq!(greedy.ask("alias.example.org.").await, ResponseCode::Refused);
    assert_eq!(other.ask("long.example.org.").await, ResponseCode::NoError);
    assert_eq!(other.ask("nobody.example.org.").await, ResponseCode::NXDomain);
    // What is known already is no question for the outside.
    assert_eq!(greedy.ask("long.example.org.").await, ResponseCode::NoError);
    assert_eq!(greedy.ask("nobody.example.org.").await, ResponseCode::NXDomain);
    assert_eq!(upstream.names(), LIMIT / 2 + 2);
}

#[tokio::test]
async fn what_is_being_asked_already_is_not_asked_again() {
    let upstream = Upstream::default();
    let (_running, port) = upstream.start().await;
    let cluster = Cluster::start_with(Some(port), "timeout:1 attempts:1", 1000).await;
    let client = Client::new(OTHER, cluster.address).await;
    for _ in 0..200 {
        client.0.send(&question(1, "silent.example.org.")).await.unwrap();
    }
    for _ in 0..200 {
        assert_eq!(client.answer().await.metadata.response_code, ResponseCode::ServFail);
    }
    // Some repetitions of what got no answer, rather than one for each that asked.
    let asked = upstream.asked("silent.example.org.");
    assert!((1..50).contains(&asked), "asked {asked} times");
}

/// The server by TCP, for so many connections.
async fn by_tcp(connections: usize) -> SocketAddr {
    let (_, synced) = watch::channel(true);
    let forwarder = Forwarder::new("/nonexistent".into(), 53, Vec::new(), 1);
    let responder = Responder::over(authority(), Arc::new(RwLock::new(zone())), synced, forwarder);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(tcp::serve(listener, responder, Slots::new(connections), CancellationToken::new()));
    address
}

async fn connect(client: Ipv4Addr, server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((client, 0).into()).unwrap();
    socket.connect(server).await.unwrap()
}

/// Asks over a connection; `None` when that is closed.
async fn ask(stream: &mut TcpStream) -> Option<Message> {
    let question = question(1, "web.default.svc.cluster.local.");
    let length = u16::try_from(question.len()).unwrap();
    // It may be closed by now, which shows in the answer.
    let _ = stream.write_all(&[&length.to_be_bytes()[..], &question].concat()).await;
    let length = timeout(TEST_TIMEOUT, stream.read_u16()).await.expect("an answer or an end").ok()?;
    let mut answer = vec![0; length.into()];
    timeout(TEST_TIMEOUT, stream.read_exact(&mut answer)).await.expect("the rest").ok()?;
    Some(Message::from_vec(&answer).unwrap())
}

#[tokio::test]
async fn connections_are_bounded_and_those_that_say_nothing_are_closed() {
    let server = by_tcp(8).await;
    let mut open = Vec::new();
    for number in 0..20 {
        let mut stream = connect(GREEDY, server).await;
        let answered = ask(&mut stream).await.is_some();
        assert_eq!(answered, number < 4, "connection {number}");
        if answered {
            open.push(stream);
        }
    }
    // Several questions may come over one connection, of this client and of others.
    let mut other = connect(OTHER, server).await;
    for _ in 0..3 {
        assert!(ask(&mut other).await.is_some());
        assert!(ask(&mut open[0]).await.is_some());
    }
    // Half a question is as good as none.
    open[1].write_all(&[0]).await.unwrap();
    for stream in &mut open {
        assert_eq!(timeout(TEST_TIMEOUT, stream.read(&mut [0])).await.expect("it is closed").unwrap(), 0);
    }
    let mut again = connect(GREEDY, server).await;
    assert!(ask(&mut again).await.is_some(), "there is room again");
}

#[test]
fn the_process_keeps_descriptors() {
    let check = |descriptors: Option<u64>, forwarded: usize, connections: usize| {
        assert_eq!(Bounds::of(descriptors), Bounds { forwarded, connections }, "{descriptors:?}");
    };
    check(Some(20_000), 833, 256);
    check(Some(1024), 42, 64);
    check(Some(1 << 20), 1000, 256);
    check(Some(0), 2, 2);
    check(None, 1000, 256);
}
