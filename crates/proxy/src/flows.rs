//! Flows of UDP whose endpoint is gone, which the kernel is to forget.
//!
//! It remembers for each flow (two addresses with their ports) where its first packet was translated to, and asks the
//! rules no more. For UDP nobody says when a flow ends: it is remembered for up to two minutes after its last packet. A
//! client that keeps its socket, or gets the port of one from before, would be led to an endpoint that is gone. Upstream:
//! `pkg/proxy/conntrack/cleanup.go`.
//!
//! The messages are written here byte by byte, as `linux/netfilter/nfnetlink_conntrack.h` defines them. Where this process may
//! not send them, the program `conntrack` does it where the machine has it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, socket_with};
use tokio::task::spawn_blocking;
use tracing::debug;

use crate::table::Table;
use crate::tools::NetworkTools;

/// What kinds of message are.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const CT_NEW: u16 = 1 << 8;
const CT_GET: u16 = 1 << 8 | 1;
const CT_DELETE: u16 = 1 << 8 | 2;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;

/// Attributes, and those within them.
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
/// What of an attribute's kind is not flags.
const KIND: u16 = 0x3fff;

const AF_INET: u8 = 2;
const UDP: u8 = 17;
/// Length of a message's header, and of that of netfilter behind it.
const HEADER: usize = 16;
const NETFILTER_HEADER: usize = 4;

/// The UDP ports that have changed, and where each leads now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// Those of services, by address and port.
    pub(crate) addresses: BTreeMap<(Ipv4Addr, u16), BTreeSet<SocketAddrV4>>,
    /// Those of nodes.
    pub(crate) node_ports: BTreeMap<u16, BTreeSet<SocketAddrV4>>,
}

impl Changed {
    fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.node_ports.is_empty()
    }

    /// Whether a flow leads where its port does not lead any more. Those of others than the pods and this machine, which speak
    /// from the pods' range here, are left alone.
    fn is_stale(&self, flow: &Flow, table: &Table) -> bool {
        let destination = (*flow.destination.ip(), flow.destination.port());
        let now = self.addresses.get(&destination).or_else(|| {
            let is_node = destination.0 & table.node_mask == table.gateway;
            self.node_ports.get(&destination.1).filter(|_| is_node)
        });
        table.is_pod(*flow.source.ip()) && now.is_some_and(|endpoints| !endpoints.contains(&flow.target))
    }
}

/// A flow of UDP.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flow {
    /// Who has begun it, and whom that asked.
    source: SocketAddrV4,
    destination: SocketAddrV4,
    /// Who answers.
    target: SocketAddrV4,
    /// The attributes by which the kernel finds it.
    key: Vec<u8>,
}

/// Has the kernel forget the flows that changed ports have left behind. Without that some datagrams are lost for a while,
/// so what goes wrong is only noted.
pub(crate) async fn forget(changed: Changed, table: &Table, tools: &dyn NetworkTools) {
    if changed.is_empty() {
        return;
    }
    let ports: Vec<(Ipv4Addr, u16)> = changed.addresses.keys().copied().collect();
    let for_kernel = table.clone();
    // Reading them all takes a while where there are many.
    let forgotten = spawn_blocking(move || forget_here(&changed, &for_kernel)).await;
    match forgotten.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(0) => {}
        Ok(count) => debug!(count, "forgot flows of UDP to endpoints that are gone"),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            for (address, port) in ports {
                forget_by_program(address, port, table, tools).await;
            }
        }
        Err(error) => debug!(%error, "cannot forget flows of UDP"),
    }
}

/// Forgets all flows to a port, also those that lead where they should: their next packets are translated anew.
async fn forget_by_program(address: Ipv4Addr, port: u16, table: &Table, tools: &dyn NetworkTools) {
    let (address, port) = (address.to_string(), port.to_string());
    let arguments =
        ["-D", "-p", "udp", "--orig-src", &table.pod_cidr, "--orig-dst", &address, "--orig-port-dst", &port];
    // It fails where there are none.
    if let Err(error) = tools.run("conntrack", &arguments, "").await {
        debug!(%error, "cannot forget flows of UDP");
    }
}

fn forget_here(changed: &Changed, table: &Table) -> io::Result<usize> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?;
    let mut stale = Vec::new();
    dump(&socket, |flow| {
        if changed.is_stale(&flow, table) {
            stale.push(flow);
        }
    })?;
    for flow in &stale {
        match delete(&socket, flow) {
            // It has ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(stale.len())
}

/// Hands out all flows of UDP, one after the other.
fn dump(socket: &OwnedFd, mut each: impl FnMut(Flow)) -> io::Result<()> {
    rustix::net::send(socket, &request(CT_GET, NLM_F_DUMP, &[]), SendFlags::empty())?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let (_, length) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
        for (kind, body) in messages(buffer.get(..length).unwrap_or(&buffer)) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => result(body)?,
                CT_NEW => body.get(NETFILTER_HEADER..).and_then(Flow::read).into_iter().for_each(&mut each),
                _ => {}
            }
        }
    }
}

fn delete(socket: &OwnedFd, flow: &Flow) -> io::Result<()> {
    rustix::net::send(socket, &request(CT_DELETE, NLM_F_ACK, &flow.key), SendFlags::empty())?;
    let mut buffer = [0; 8 << 10];
    let (_, length) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
    let mut answers = messages(buffer.get(..length).unwrap_or(&buffer));
    answers.find(|(kind, _)| *kind == NLMSG_ERROR).map_or(Ok(()), |(_, body)| result(body))
}

/// A message of netfilter's for IPv4.
fn request(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + NETFILTER_HEADER + attributes.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    // Number and sender are for those who ask several things at once; family, version and resource are netfilter's.
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[AF_INET, 0, 0, 0]);
    bytes.extend_from_slice(attributes);
    bytes
}

/// What an answer says came of a request.
fn result(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().copied().map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The messages in what was received: kind and what is behind the header.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
        let message = bytes.get(..length).filter(|message| message.len() >= HEADER)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([message[4], message[5]]), &message[HEADER..]))
    })
}

/// The attributes in a row of them: kind, value, and the whole with what fills it up.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (bytes.first_chunk::<2>()?, bytes.get(2..4)?.first_chunk()?);
        let length = usize::from(u16::from_ne_bytes(*length));
        let value = bytes.get(4..length)?;
        let whole = bytes.get(..length.next_multiple_of(4)).unwrap_or(bytes);
        bytes = &bytes[whole.len()..];
        Some((u16::from_ne_bytes(*kind) & KIND, value, whole))
    })
}

/// The value of an attribute.
fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value, _)| (kind == wanted).then_some(value))
}

impl Flow {
    /// Of the attributes of a message; `None` when it is none of UDP over IPv4.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (source, destination) = tuple(attribute(bytes, CTA_TUPLE_ORIG)?)?;
        let (target, _) = tuple(attribute(bytes, CTA_TUPLE_REPLY)?)?;
        let of_key = attributes(bytes).filter(|(kind, _, _)| matches!(*kind, CTA_TUPLE_ORIG | CTA_ZONE));
        Some(Self { source, destination, target, key: of_key.flat_map(|(_, _, whole)| whole).copied().collect() })
    }
}

/// Source and destination of one direction.
fn tuple(bytes: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4)> {
    let (ip, protocol) = (attribute(bytes, CTA_TUPLE_IP)?, attribute(bytes, CTA_TUPLE_PROTO)?);
    if attribute(protocol, CTA_PROTO_NUM)? != [UDP] {
        return None;
    }
    let end = |address, port| {
        let address = Ipv4Addr::from(*attribute(ip, address)?.first_chunk::<4>()?);
        Some(SocketAddrV4::new(address, u16::from_be_bytes(*attribute(protocol, port)?.first_chunk()?)))
    };
    Some((end(CTA_IP_V4_SRC, CTA_PROTO_SRC_PORT)?, end(CTA_IP_V4_DST, CTA_PROTO_DST_PORT)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn put(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn direction(kind: u16, protocol: u8, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
        let ip = [put(CTA_IP_V4_SRC, &from.ip().octets()), put(CTA_IP_V4_DST, &to.ip().octets())].concat();
        let ports =
            [put(CTA_PROTO_SRC_PORT, &from.port().to_be_bytes()), put(CTA_PROTO_DST_PORT, &to.port().to_be_bytes())];
        let ports = [put(CTA_PROTO_NUM, &[protocol]), ports.concat()].concat();
        put(kind | 0x8000, &[put(CTA_TUPLE_IP | 0x8000, &ip), put(CTA_TUPLE_PROTO | 0x8000, &ports)].concat())
    }

    fn address(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    fn flow(source: &str, destination: &str, target: &str) -> Flow {
        let [source, destination, target] = [source, destination, target].map(address);
        Flow { source, destination, target, key: Vec::new() }
    }

    #[test]
    fn flows_are_read_from_messages() {
        let [client, service, endpoint] = ["10.244.0.5:40000", "10.96.0.10:53", "10.244.0.1:5353"].map(address);
        let there = direction(CTA_TUPLE_ORIG, UDP, client, service);
        let (status, zone) = (put(3, &[0; 4]), put(CTA_ZONE, &[0, 1]));
        let whole = [there.clone(), direction(CTA_TUPLE_REPLY, UDP, endpoint, client), status, zone.clone()].concat();
        let read = Flow::read(&whole).unwrap();
        let expected = Flow { source: client, destination: service, target: endpoint, key: [there, zone].concat() };
        assert_eq!(read, expected);
        // Another protocol, and what is cut off anywhere.
        let tcp = [direction(CTA_TUPLE_ORIG, 6, client, service), direction(CTA_TUPLE_REPLY, 6, endpoint, client)];
        assert_eq!(Flow::read(&tcp.concat()), None);
        for end in 0..100 {
            assert_eq!(Flow::read(&whole[..end]), None, "{end}");
        }

        let message = |kind, body: &[u8]| {
            let mut bytes = request(kind, 0, body);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let received = [message(CT_NEW, &whole), message(NLMSG_DONE, &[])].concat();
        let kinds: Vec<u16> = messages(&received).map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [CT_NEW, NLMSG_DONE]);
        assert_eq!(messages(&received[..HEADER - 1]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0, "a length of nothing does not go round for ever");
        assert!(result(&[0; 4]).is_ok() && result(&[]).is_err());
        assert_eq!(result(&(-2_i32).to_ne_bytes()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn only_what_leads_nowhere_is_stale() {
        let table = Table::new(&Config::new("p", "cor-p", "10.244.0.0/16", "10.96.0.0/16")).unwrap();
        let now = BTreeSet::from([address("10.244.0.1:5353")]);
        let changed = Changed {
            addresses: [
                ((Ipv4Addr::new(10, 96, 0, 10), 53), now.clone()),
                ((Ipv4Addr::new(10, 96, 0, 11), 53), BTreeSet::new()),
            ]
            .into(),
            node_ports: [(30053, now)].into(),
        };
        let check = |source, destination, target, expected: bool| {
            let flow = flow(source, destination, target);
            assert_eq!(changed.is_stale(&flow, &table), expected, "{flow:?}");
        };
        check("10.244.0.5:40000", "10.96.0.10:53", "10.244.0.1:5353", false);
        check("10.244.0.5:40000", "10.96.0.10:53", "10.244.0.1:6464", true);
        check("10.244.0.5:40000", "10.96.0.11:53", "10.244.0.7:53", true);
        // The machine itself, and nodes: each has the first address of a /24.
        check("10.244.0.1:40000", "10.96.0.10:53", "10.244.0.1:6464", true);
        check("10.244.0.5:40000", "10.244.7.1:30053", "10.244.0.1:6464", true);
        check("10.244.0.5:40000", "10.244.7.2:30053", "10.244.0.1:6464", false);
        // Another port, another service, another cluster.
        check("10.244.0.5:40000", "10.96.0.10:54", "10.244.0.1:6464", false);
        check("10.244.0.5:40000", "10.96.0.12:53", "10.244.0.1:6464", false);
        check("10.245.0.5:40000", "10.96.0.10:53", "10.244.0.1:6464", false);
    }
}
