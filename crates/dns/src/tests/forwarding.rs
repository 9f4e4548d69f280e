//! What is asked of the machine's resolvers: of one that lives in this process, on a port of its own.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Header, HeaderCounts, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::rdata::{A, CNAME, SOA};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use parking_lot::{Mutex, RwLock};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{authority, zone};
use crate::forward::Forwarder;
use crate::serve::Responder;
use crate::udp;

/// How long anything may take here. Far more than it should.
pub(super) const TEST_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// The resolver of the machine: knows a few names, and remembers what it was asked.
#[derive(Clone)]
pub(super) struct Upstream {
    asked: Arc<Mutex<Vec<String>>>,
    /// Whether it keeps silent. About names that begin with `silent` it always does.
    silent: Arc<AtomicBool>,
    /// Closed once it answers questions about names that begin with `late`.
    late: Arc<Semaphore>,
    /// Asks this server instead of answering.
    passes_on: Arc<Mutex<Option<SocketAddr>>>,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            asked: Arc::default(),
            silent: Arc::default(),
            late: Arc::new(Semaphore::new(0)),
            passes_on: Arc::default(),
        }
    }
}

impl Upstream {
    /// Starts it by UDP and TCP on the same port.
    pub(super) async fn start(&self) -> (Server<Self>, u16) {
        loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = tcp.local_addr().unwrap();
            // The port may be somebody's by UDP; then another one.
            if let Ok(udp) = UdpSocket::bind(address).await {
                let mut server = Server::new(self.clone());
                server.register_socket(udp);
                server.register_listener(tcp, TEST_TIMEOUT, 8);
                return (server, address.port());
            }
        }
    }

    pub(super) fn asked(&self, text: &str) -> usize {
        self.asked.lock().iter().filter(|asked| *asked == text).count()
    }

    /// How many different names it was asked for.
    pub(super) fn names(&self) -> usize {
        self.asked.lock().iter().collect::<HashSet<_>>().len()
    }

    fn answers(question: &Name) -> (ResponseCode, Vec<Record>, Option<Record>) {
        let address = |name: &Name, number: u8, ttl| {
            Record::from_rdata(name.clone(), ttl, RData::A(A(Ipv4Addr::new(192, 0, 2, number))))
        };
        let origin = name("example.org.");
        let soa = SOA::new(name("ns.example.org."), name("root.example.org."), 1, 2, 3, 4, 60);
        let negative = || Some(Record::from_rdata(origin.clone(), 60, RData::SOA(soa.clone())));
        match question.to_string().as_str() {
            "short.example.org." => (ResponseCode::NoError, vec![address(question, 1, 1)], None),
            "long.example.org." => (ResponseCode::NoError, vec![address(question, 2, 3600)], None),
            "alias.example.org." => {
                let target = name("long.example.org.");
                let alias = Record::from_rdata(question.clone(), 3600, RData::CNAME(CNAME(target.clone())));
                (ResponseCode::NoError, vec![alias, address(&target, 2, 3600)], None)
            }
            "example.org." => (ResponseCode::NoError, vec![address(question, 3, 3600)], None),
            "many.example.org." => {
                let all = (0..200).map(|number| address(question, number, 3600)).collect();
                (ResponseCode::NoError, all, None)
            }
            "empty.example.org." => (ResponseCode::NoError, Vec::new(), negative()),
            "refused.example.org." => (ResponseCode::Refused, Vec::new(), None),
            _ => (ResponseCode::NXDomain, Vec::new(), negative()),
        }
    }
}

#[async_trait]
impl RequestHandler for Upstream {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut out: R) -> ResponseInfo {
        let query = &request.queries.queries()[0];
        let question = Name::from(query.name().clone());
        self.asked.lock().push(question.to_string());
        let mut metadata = Metadata::response_from_request(&request.metadata);
        if self.silent.load(Ordering::Relaxed) || question.to_string().starts_with("silent") {
            return Header { metadata, counts: HeaderCounts::default() }.into();
        }
        if question.to_string().starts_with("late") {
            // It is never given: whoever waits goes on when it is closed.
            let _ = self.late.acquire().await;
        }
        let passes_on = *self.passes_on.lock();
        let (code, answers, authority) = match passes_on {
            Some(server) => {
                let reply = ask(server, &question.to_string(), query.query_type()).await;
                (reply.metadata.response_code, reply.answers, None)
            }
            None => Self::answers(&question),
        };
        metadata.response_code = code;
        let response =
            MessageResponseBuilder::from_message_request(request).build(metadata, &answers, &authority, &[], &[]);
        out.send_response(response).await.unwrap()
    }
}

/// One question by UDP, or by TCP if the answer is too long for that.
async fn ask(server: SocketAddr, question: &str, query_type: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(question), query_type));
    let packet = message.to_vec().unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.send_to(&packet, server).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = tokio::time::timeout(TEST_TIMEOUT, socket.recv(&mut answer)).await.expect("an answer").unwrap();
    Message::from_vec(&answer[..length]).unwrap()
}

/// The cluster's server, told to ask `upstream`; the file is what the machine says of its resolvers.
pub(super) struct Cluster {
    _running: DropGuard,
    resolv_conf: tempfile::NamedTempFile,
    pub(super) address: SocketAddr,
}

impl Cluster {
    /// With the resolver at this port of the loopback address; none for its own port.
    async fn start(upstream: Option<u16>) -> Self {
        Self::start_with(upstream, "timeout:1 attempts:1", 1000).await
    }

    /// With these options in the machine's configuration, and so many questions at a time.
    pub(super) async fn start_with(upstream: Option<u16>, options: &str, limit: usize) -> Self {
        let resolv_conf = tempfile::NamedTempFile::new().unwrap();
        let text = format!("nameserver 127.0.0.1\nsearch example.org\noptions {options}\n");
        std::fs::write(&resolv_conf, text).unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let port = upstream.unwrap_or(address.port());
        let forwarder = Forwarder::new(resolv_conf.path().to_owned(), port, vec![address], limit);
        let (_, synced) = watch::channel(true);
        let responder = Responder::over(authority(), Arc::new(RwLock::new(zone())), synced, forwarder);
        let cancel = CancellationToken::new();
        tokio::spawn(udp::serve(socket, responder, cancel.clone()));
        Self { _running: cancel.drop_guard(), resolv_conf, address }
    }

    /// The answer in one line: its code if it is none, the addresses and other data of its records, sorted.
    async fn ask(&self, question: &str, query_type: RecordType) -> String {
        let reply = ask(self.address, question, query_type).await;
        if reply.metadata.response_code != ResponseCode::NoError {
            return reply.metadata.response_code.to_string();
        }
        let mut data: Vec<String> = reply.answers.iter().map(|record| record.data.to_string()).collect();
        data.sort();
        data.join(", ")
    }
}

#[tokio::test]
async fn what_is_not_the_clusters_is_asked_of_others() {
    let upstream = Upstream::default();
    let (_running, port) = upstream.start().await;
    let cluster = Cluster::start(Some(port)).await;
    for (question, query_type, expected) in [
        ("long.example.org.", RecordType::A, "192.0.2.2"),
        ("alias.example.org.", RecordType::A, "192.0.2.2, long.example.org."),
        ("empty.example.org.", RecordType::A, ""),
        ("nobody.example.org.", RecordType::A, "Non-Existent Domain"),
        ("refused.example.org.", RecordType::A, "Query Refused"),
        // A service that is a name elsewhere.
        ("out.default.svc.cluster.local.", RecordType::A, "192.0.2.3, example.org."),
    ] {
        assert_eq!(cluster.ask(question, query_type).await, expected, "{question}");
    }
    // What does not fit into a datagram is fetched by TCP; to be had from here by TCP as well, which the bit says.
    let reply = ask(cluster.address, "many.example.org.", RecordType::A).await;
    assert!(reply.metadata.truncation);
    assert!(upstream.asked("many.example.org.") >= 2, "by UDP, then by TCP");
    // Negative answers say how long they may be kept.
    let reply = ask(cluster.address, "nobody.example.org.", RecordType::A).await;
    assert_eq!(reply.authorities.len(), 1);
    assert!(!reply.metadata.authoritative && reply.metadata.recursion_available);
}

#[tokio::test]
async fn answers_are_kept_for_as_long_as_they_may_be() {
    let upstream = Upstream::default();
    let (_running, port) = upstream.start().await;
    let cluster = Cluster::start(Some(port)).await;
    for _ in 0..5 {
        assert_eq!(cluster.ask("long.example.org.", RecordType::A).await, "192.0.2.2");
        assert_eq!(cluster.ask("nobody.example.org.", RecordType::A).await, "Non-Existent Domain");
    }
    assert_eq!((upstream.asked("long.example.org."), upstream.asked("nobody.example.org.")), (1, 1));
    // What a client may keep shrinks with the time that it lay here.
    let lives = async |question| ask(cluster.address, question, RecordType::A).await.answers[0].ttl;
    let first = lives("long.example.org.").await;
    let deadline = Instant::now() + TEST_TIMEOUT;
    while lives("long.example.org.").await >= first {
        assert!(Instant::now() < deadline, "it does not age");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(upstream.asked("long.example.org."), 1);
    // After its second it is asked for again.
    assert_eq!(cluster.ask("short.example.org.", RecordType::A).await, "192.0.2.1");
    while upstream.asked("short.example.org.") < 2 {
        assert!(Instant::now() < deadline, "it is kept for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(cluster.ask("short.example.org.", RecordType::A).await, "192.0.2.1");
    }
}

#[tokio::test]
async fn nobody_else_is_asked_for_the_clusters_names() {
    let upstream = Upstream::default();
    let (_running, port) = upstream.start().await;
    let cluster = Cluster::start(Some(port)).await;
    for (question, expected) in [
        // What a pod's resolver makes of `example.org`, of `long` and of a typo, by its search list.
        ("example.org.default.svc.cluster.local.", "Non-Existent Domain"),
        ("example.org.svc.cluster.local.", "Non-Existent Domain"),
        ("example.org.cluster.local.", "Non-Existent Domain"),
        ("long.default.svc.cluster.local.", "Non-Existent Domain"),
        ("wbe.default.svc.cluster.local.", "Non-Existent Domain"),
        ("web.default.svc.cluster.local.", "10.96.0.7"),
        ("empty.default.svc.cluster.local.", ""),
        // Addresses of pods and services that nobody has.
        ("99.0.96.10.in-addr.arpa.", "Non-Existent Domain"),
    ] {
        assert_eq!(cluster.ask(question, RecordType::A).await, expected, "{question}");
    }
    // Nor does the machine's own search list add anything: `long` is no name.
    assert_eq!(cluster.ask("long.", RecordType::A).await, "Non-Existent Domain");
    assert_eq!(*upstream.asked.lock(), ["long."]);
}

#[tokio::test]
async fn without_an_answer_there_is_an_error_and_only_until_there_is_one() {
    let upstream = Upstream::default();
    let (_running, port) = upstream.start().await;
    let cluster = Cluster::start(Some(port)).await;
    upstream.silent.store(true, Ordering::Relaxed);
    assert_eq!(cluster.ask("long.example.org.", RecordType::A).await, "Server Failure");
    // The cluster's own names need nobody else.
    assert_eq!(cluster.ask("web.default.svc.cluster.local.", RecordType::A).await, "10.96.0.7");
    upstream.silent.store(false, Ordering::Relaxed);
    assert_eq!(cluster.ask("long.example.org.", RecordType::A).await, "192.0.2.2");

    // Where nobody listens.
    let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let cluster = Cluster::start(Some(port)).await;
    assert_eq!(cluster.ask("long.example.org.", RecordType::A).await, "Server Failure");
}

#[tokio::test]
async fn it_does_not_ask_itself() {
    // The machine was told to ask this very server.
    let cluster = Cluster::start(None).await;
    let started = Instant::now();
    assert_eq!(cluster.ask("long.example.org.", RecordType::A).await, "Server Failure");
    assert!(started.elapsed() < Duration::from_secs(1), "at once: nobody was asked");

    // A resolver of the machine that asks this server in turn.
    let upstream = Upstream::default();
    let (_running, port) = upstream.start().await;
    let cluster = Cluster::start(Some(port)).await;
    *upstream.passes_on.lock() = Some(cluster.address);
    assert_eq!(cluster.ask("long.example.org.", RecordType::A).await, "Server Failure");
    let rounds = upstream.asked("long.example.org.");
    // Some repetitions of what got no answer, rather than as often as packets can go round in that time.
    assert!(rounds < 50, "it went round {rounds} times");
    // And it is none of the other questions' affair.
    *upstream.passes_on.lock() = None;
    assert_eq!(cluster.ask("example.org.", RecordType::A).await, "192.0.2.3");
}

#[tokio::test]
async fn a_late_answer_of_earlier_resolvers_is_not_kept_for_the_present_ones() {
    let upstream = Upstream::default();
    let (_running, port) = upstream.start().await;
    let cluster = Cluster::start_with(Some(port), "timeout:5 attempts:1", 1000).await;
    let (late, ()) = tokio::join!(cluster.ask("late.example.org.", RecordType::A), async {
        while upstream.asked("late.example.org.") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The laptop moves to another network while the question is under way.
        let changed = std::time::SystemTime::now() + Duration::from_secs(1);
        cluster.resolv_conf.as_file().set_modified(changed).unwrap();
        assert_eq!(cluster.ask("long.example.org.", RecordType::A).await, "192.0.2.2");
        upstream.late.close();
    });
    assert_eq!(late, "Non-Existent Domain", "whoever asked earlier is answered all the same");
    let before = upstream.asked("late.example.org.");
    assert_eq!(cluster.ask("late.example.org.", RecordType::A).await, "Non-Existent Domain");
    assert!(upstream.asked("late.example.org.") > before, "the present resolvers were not asked");
    assert_eq!(cluster.ask("late.example.org.", RecordType::A).await, "Non-Existent Domain");
    assert_eq!(upstream.asked("late.example.org."), before + 1, "their answer is kept");
}
