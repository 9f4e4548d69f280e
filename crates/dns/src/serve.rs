//! The handler between the library's server, the zone and the machine's resolvers.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hickory_server::net::NetError;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::{DNSClass, LowerName, Name, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::debug;

use crate::answer::{Answer, Authority};
use crate::forward::Forwarder;
use crate::slots::Slots;
use crate::zone::Zone;

/// How long a question waits for the first full list.
const SYNC_TIMEOUT: Duration = Duration::from_secs(4);
/// Questions that may wait for it: a few kilobytes of memory each.
const WAITING: usize = 1000;
/// The largest answer by UDP that passes every network unfragmented (DNS flag day 2020), in bytes.
const LARGEST_DATAGRAM: u16 = 1232;
/// How far aliases are followed.
const ALIASES: usize = 8;

/// Answers requests. Clones share everything.
#[derive(Clone)]
pub(crate) struct Handler(Arc<Inner>);

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

impl Handler {
    pub(crate) fn new(
        authority: Authority,
        zone: Arc<RwLock<Zone>>,
        synced: watch::Receiver<bool>,
        forwarder: Forwarder,
    ) -> Self {
        let (waiting, turn) = (Slots::new(WAITING), AtomicUsize::new(0));
        Self(Arc::new(Inner { authority, zone, synced, forwarder, waiting, turn }))
    }
}

impl Inner {
    async fn reply(&self, request: &Request) -> Reply {
        let refuse = |code| Reply { code, ..Reply::default() };
        if request.metadata.message_type != MessageType::Query {
            return refuse(ResponseCode::FormErr);
        }
        if request.metadata.op_code != OpCode::Query {
            return refuse(ResponseCode::NotImp);
        }
        let [query] = request.queries.queries() else {
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

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut out: R) -> ResponseInfo {
        let reply = self.0.reply(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = true;
        let mut builder = MessageResponseBuilder::from_message_request(request);
        let mut edns = Edns::new();
        if let Some(asked) = &request.edns {
            edns.set_max_payload(asked.max_payload().clamp(512, LARGEST_DATAGRAM));
            builder.edns(&edns);
        }
        let response = builder.build(metadata, &reply.answers, &reply.authority, &[], &reply.along);
        out.send_response(response).await.unwrap_or_else(|error: NetError| {
            debug!(%error, "an answer was not sent");
            metadata.response_code = ResponseCode::ServFail;
            Header { metadata, counts: HeaderCounts::default() }.into()
        })
    }
}
