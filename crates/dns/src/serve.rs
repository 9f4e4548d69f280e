//! Messages: questions are decoded, answered from the zone or by the machine's resolvers, and the answers encoded.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, LowerQuery, MessageType, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::{DNSClass, LowerName, Name, Record, RecordType};
use hickory_server::proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};
use hickory_server::server::Request;
use hickory_server::zone_handler::MessageResponseBuilder;
use informer::Informers;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::debug;

use crate::answer::{Answer, Authority};
use crate::forward::Forwarder;
use crate::slots::Slots;
use crate::zone::Zone;
use crate::{Bounds, Config, Error, PORT, follow};

/// How long a question waits for the first full list.
const SYNC_TIMEOUT: Duration = Duration::from_secs(4);
/// Questions that may wait for it: a few kilobytes of memory each.
const WAITING: usize = 1000;
/// The largest answer by UDP to a client that does not say what it takes (RFC 1035, 4.2.1), in bytes.
const SMALLEST_DATAGRAM: u16 = 512;
/// The largest answer by UDP that passes every network unfragmented (DNS flag day 2020), in bytes.
const LARGEST_DATAGRAM: u16 = 1232;
/// What a question has behind the labels of its name, in bytes: the root's empty one, a type and a class.
const BEHIND_LABELS: usize = 5;
/// How far aliases are followed.
const ALIASES: usize = 8;

/// How a message comes and its answer goes, which bounds the answer's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In one datagram; what does not fit is cut off, and the answer says so.
    Udp,
    /// On a connection.
    Tcp,
}

/// Answers DNS messages, wherever they come from. Clones share everything.
#[derive(Clone)]
pub struct Responder(Arc<Inner>);

struct Inner {
    authority: Authority,
    zone: Arc<RwLock<Zone>>,
    synced: watch::Receiver<bool>,
    forwarder: Forwarder,
    /// For the requests that wait for the first full list.
    waiting: Slots,
    /// Counts answers, so that each begins with another address.
    turn: AtomicUsize,
}

/// What is sent back.
#[derive(Default)]
struct Reply {
    code: ResponseCode,
    /// Whether the cluster itself answered.
    authoritative: bool,
    answers: Vec<Record>,
    authority: Option<Record>,
    along: Vec<Record>,
}

impl Responder {
    /// A responder that follows the cluster, for the addresses in `own`: the machine's resolvers are asked for the rest, but
    /// never itself.
    ///
    /// # Errors
    /// When the configuration is wrong.
    pub fn new(config: &Config, mut own: Vec<SocketAddr>, informers: &Informers) -> Result<Self, Error> {
        let authority = Authority::new(&config.domain, config.address, &config.subnets)?;
        own.extend(config.address.map(|address| SocketAddr::new(address, PORT)));
        let (zone, synced) = follow(informers);
        let forwarder = Forwarder::new(config.resolv_conf.clone(), PORT, own, Bounds::of_process().forwarded);
        Ok(Self::over(authority, zone, synced, forwarder))
    }

    pub(crate) fn over(
        authority: Authority,
        zone: Arc<RwLock<Zone>>,
        synced: watch::Receiver<bool>,
        forwarder: Forwarder,
    ) -> Self {
        let (waiting, turn) = (Slots::new(WAITING), AtomicUsize::new(0));
        Self(Arc::new(Inner { authority, zone, synced, forwarder, waiting, turn }))
    }

    /// Answers a message of a client. `None` when it has no whole header, and when it is itself an answer: answering answers
    /// could go round for ever.
    pub async fn answer(&self, message: Vec<u8>, client: SocketAddr, transport: Transport) -> Option<Vec<u8>> {
        let Header { metadata, .. } = Header::read(&mut BinDecoder::new(&message)).ok()?;
        if metadata.message_type == MessageType::Response {
            return None;
        }
        let protocol = match transport {
            Transport::Udp => Protocol::Udp,
            Transport::Tcp => Protocol::Tcp,
        };
        let Ok(request) = Request::from_bytes(message, client, protocol) else {
            return error(&metadata, ResponseCode::FormErr);
        };
        let reply = self.0.reply(&request).await;
        encode(&request, &reply, transport)
    }
}

impl Inner {
    async fn reply(&self, request: &Request) -> Reply {
        let refuse = |code| Reply { code, ..Reply::default() };
        if request.metadata.op_code != OpCode::Query {
            return refuse(ResponseCode::NotImp);
        }
        let Some(query) = question(request) else {
            return refuse(ResponseCode::FormErr);
        };
        if query.query_class() != DNSClass::IN {
            return refuse(ResponseCode::Refused);
        }
        if matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR) {
            return refuse(ResponseCode::Refused);
        }
        let client = request.src().ip();
        if !*self.synced.borrow() {
            let Some(_slot) = self.waiting.take(client) else {
                return refuse(ResponseCode::ServFail);
            };
            let mut synced = self.synced.clone();
            if !matches!(timeout(SYNC_TIMEOUT, synced.wait_for(|synced| *synced)).await, Ok(Ok(_))) {
                return refuse(ResponseCode::ServFail);
            }
        }
        self.resolve(query.name().clone(), query.query_type(), client).await
    }

    /// Answers from the zone, following aliases out of it and back.
    async fn resolve(&self, mut name: LowerName, query_type: RecordType, client: IpAddr) -> Reply {
        let mut reply = Reply { authoritative: true, ..Reply::default() };
        for _ in 0..ALIASES {
            // In a statement of its own: the lock is let go before anything waits.
            let (answer, serial) = {
                let zone = self.zone.read();
                (self.authority.answer(&zone, &name, query_type), zone.serial())
            };
            let negative = || Some(self.authority.start_of_authority(serial));
            match answer {
                Answer::Records(mut records, along) => {
                    let turn = self.turn.fetch_add(1, Ordering::Relaxed) % records.len().max(1);
                    records.rotate_left(turn);
                    reply.answers.append(&mut records);
                    reply.along = along;
                    return reply;
                }
                Answer::Nothing => {
                    reply.authority = negative();
                    return reply;
                }
                Answer::NoSuchName => {
                    reply.code = ResponseCode::NXDomain;
                    reply.authority = negative();
                    return reply;
                }
                Answer::Alias(record, target) => {
                    reply.answers.push(*record);
                    if query_type == RecordType::CNAME {
                        return reply;
                    }
                    name = LowerName::new(&target);
                }
                Answer::Elsewhere => {
                    let mut forwarded = self.forwarder.ask(Name::from(name), query_type, client).await;
                    // With an alias of ours in front, the answer still is partly the cluster's.
                    reply.authoritative = !reply.answers.is_empty();
                    reply.code = forwarded.code;
                    reply.answers.append(&mut forwarded.answers);
                    reply.authority = forwarded.authority;
                    return reply;
                }
            }
        }
        reply.code = ResponseCode::ServFail;
        reply
    }
}

/// The one question of a request. `None` when there is another number of them, and when its name points elsewhere: in front
/// of the first name there is only the header, which is another one in the answer, so that the name would be, too.
fn question(request: &Request) -> Option<&LowerQuery> {
    let [query] = request.queries.queries() else { return None };
    let labels: usize = query.name().iter().map(|label| 1 + label.len()).sum();
    (request.queries.as_bytes().len() == labels + BEHIND_LABELS).then_some(query)
}

/// The message that a reply is, within what its client and its transport can take.
fn encode(request: &Request, reply: &Reply, transport: Transport) -> Option<Vec<u8>> {
    // What cannot be repeated is not.
    if question(request).is_none() {
        return error(&request.metadata, reply.code);
    }
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.response_code = reply.code;
    metadata.authoritative = reply.authoritative;
    metadata.recursion_available = true;
    let edns = request.edns.as_ref().map(|asked| {
        let mut edns = Edns::new();
        edns.set_max_payload(asked.max_payload().clamp(SMALLEST_DATAGRAM, LARGEST_DATAGRAM));
        edns
    });
    let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
    let response = builder.build(metadata, &reply.answers, &reply.authority, &[], &reply.along);
    let mut message = Vec::with_capacity(SMALLEST_DATAGRAM.into());
    let mut encoder = BinEncoder::new(&mut message);
    encoder.set_max_size(match (transport, &edns) {
        (Transport::Udp, Some(edns)) => edns.max_payload(),
        (Transport::Udp, None) => SMALLEST_DATAGRAM,
        (Transport::Tcp, _) => u16::MAX,
    });
    match response.destructive_emit(&mut encoder) {
        Ok(_) => Some(message),
        Err(problem) => {
            debug!(%problem, "an answer cannot be encoded");
            error(&request.metadata, ResponseCode::ServFail)
        }
    }
}

/// An answer that only consists of a code.
fn error(request: &Metadata, code: ResponseCode) -> Option<Vec<u8>> {
    let mut metadata = Metadata::response_from_request(request);
    metadata.response_code = code;
    let mut message = Vec::new();
    Header { metadata, counts: HeaderCounts::default() }.emit(&mut BinEncoder::new(&mut message)).ok()?;
    Some(message)
}
