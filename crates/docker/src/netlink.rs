//! Requests to the kernel about links, addresses and routes, over a routing socket.
//!
//! The few messages that are needed are written here byte by byte, as the kernel's headers define them (`linux/netlink.h`,
//! `rtnetlink.h`, `if_link.h`): that is less than a library for all of them would bring.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, socket_with};

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLA_F_NESTED: u16 = 0x8000;

const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

/// Length of a message's header: its length, kind, flags, number and sender.
const HEADER: usize = 16;
/// Longest alias of a link.
const ALIAS: usize = 255;

/// A socket to the kernel's routing tables, for the network namespace in which it was opened.
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// Opens one.
    pub(crate) fn open() -> io::Result<Self> {
        // NETLINK_ROUTE is protocol 0, the one that is meant when none is named.
        Ok(Self(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?))
    }

    /// The number of a link.
    pub(crate) fn index(&self, name: &str) -> io::Result<u32> {
        Ok(netdevice::name_to_index(&self.0, name)?)
    }

    /// Has the requests carried out, all of them, in order. The error is the first one met.
    pub(crate) fn call(&self, requests: &[Request]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (number, request) in requests.iter().enumerate() {
            bytes.extend_from_slice(&request.numbered(u32::try_from(number).unwrap_or_default()));
        }
        rustix::net::send(&self.0, &bytes, SendFlags::empty())?;
        let mut answers = 0;
        let mut first_error = Ok(());
        while answers < requests.len() {
            // The kernel answers before it returns from sending.
            let mut buffer = [0; 8192];
            let (_, length) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            for result in answers_in(buffer.get(..length).unwrap_or(&buffer)) {
                answers += 1;
                if first_error.is_ok() {
                    first_error = result;
                }
            }
        }
        first_error
    }
}

/// The results of requests, from what the kernel sent.
fn answers_in(mut bytes: &[u8]) -> Vec<io::Result<()>> {
    let number = |bytes: &[u8], at: usize| bytes.get(at..at + 4)?.try_into().ok().map(i32::from_ne_bytes);
    let mut answers = Vec::new();
    while let Some(length) = number(bytes, 0).and_then(|length| usize::try_from(length).ok()) {
        let kind = bytes.get(4..6).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
        if let (Some(NLMSG_ERROR), Some(code)) = (kind, number(bytes, HEADER)) {
            answers.push(if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) });
        }
        bytes = bytes.get(length.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request(Vec<u8>);

impl Request {
    /// Makes a pair of virtual links: `name` here, and `peer`, with this hardware address, in another network namespace.
    pub(crate) fn new_pair(name: &str, peer: &str, hardware: [u8; 6], namespace: BorrowedFd<'_>) -> Self {
        Self::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link(0, 0, 0)).text(IFLA_IFNAME, name).nested(
            IFLA_LINKINFO,
            |info| {
                info.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| {
                    data.nested(VETH_INFO_PEER, |mut other| {
                        other.0.extend_from_slice(&link(0, 0, 0));
                        other
                            .text(IFLA_IFNAME, peer)
                            .bytes(IFLA_ADDRESS, &hardware)
                            .bytes(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes())
                    })
                })
            },
        )
    }

    /// Removes a link, and with it the other one of its pair.
    pub(crate) fn delete_link(name: &str) -> Self {
        Self::new(RTM_DELLINK, 0, &link(0, 0, 0)).text(IFLA_IFNAME, name)
    }

    /// Takes a link into use.
    pub(crate) fn up(index: u32) -> Self {
        Self::new(RTM_NEWLINK, 0, &link(0, index, IFF_UP))
    }

    /// Makes a link a port of a bridge, takes it into use and says what it is for.
    pub(crate) fn join(index: u32, bridge: u32, alias: &str) -> Self {
        let end = alias.floor_char_boundary(ALIAS);
        Self::new(RTM_NEWLINK, 0, &link(0, index, IFF_UP))
            .bytes(IFLA_MASTER, &bridge.to_ne_bytes())
            .text(IFLA_IFALIAS, &alias[..end])
    }

    /// Lets a bridge send packets back through the port they came from.
    pub(crate) fn hairpin(index: u32) -> Self {
        Self::new(RTM_SETLINK, 0, &link(AF_BRIDGE, index, 0))
            .nested(IFLA_PROTINFO, |port| port.bytes(IFLA_BRPORT_MODE, &[1]))
    }

    /// Gives a link an address; it may have it already.
    pub(crate) fn add_address(index: u32, address: Ipv4Addr, prefix: u8) -> Self {
        Self::address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, index, address, prefix)
    }

    /// Takes an address away.
    pub(crate) fn delete_address(index: u32, address: Ipv4Addr, prefix: u8) -> Self {
        Self::address(RTM_DELADDR, 0, index, address, prefix)
    }

    fn address(kind: u16, flags: u16, index: u32, address: Ipv4Addr, prefix: u8) -> Self {
        // struct ifaddrmsg: family, prefix, flags, scope, index.
        let mut header = vec![AF_INET, prefix, 0, 0];
        header.extend_from_slice(&index.to_ne_bytes());
        Self::new(kind, flags, &header).bytes(IFA_LOCAL, &address.octets()).bytes(IFA_ADDRESS, &address.octets())
    }

    /// Sends what nothing else is known of to a gateway.
    pub(crate) fn default_route(index: u32, gateway: Ipv4Addr) -> Self {
        // struct rtmsg: family, lengths of destination and source, type of service, table, protocol, scope, type, flags.
        let header = [AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0];
        Self::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &header)
            .bytes(RTA_OIF, &index.to_ne_bytes())
            .bytes(RTA_GATEWAY, &gateway.octets())
    }

    fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        bytes.extend_from_slice(header);
        Self(bytes).padded()
    }

    fn bytes(self, kind: u16, value: &[u8]) -> Self {
        self.attribute(kind, |mut this| {
            this.0.extend_from_slice(value);
            this
        })
    }

    fn text(self, kind: u16, value: &str) -> Self {
        self.attribute(kind, |mut this| {
            this.0.extend_from_slice(value.as_bytes());
            this.0.push(0);
            this
        })
    }

    fn nested(self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        self.attribute(kind | NLA_F_NESTED, fill)
    }

    /// An attribute: its length, its kind, its value.
    fn attribute(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        let mut this = fill(self);
        let length = u16::try_from(this.0.len() - start).unwrap_or(u16::MAX);
        this.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        this.padded()
    }

    fn padded(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn numbered(&self, number: u32) -> Vec<u8> {
        let mut bytes = self.0.clone();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[8..12].copy_from_slice(&number.to_ne_bytes());
        bytes
    }
}

/// struct ifinfomsg: family, type, index, flags, and which flags to change.
fn link(family: u8, index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn messages_are_as_the_kernel_reads_them() {
        let request = Request::default_route(3, Ipv4Addr::new(10, 0, 0, 1)).numbered(7);
        let expect: &[&[u8]] = &[
            &[44, 0, 0, 0, 24, 0, 5, 5, 7, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0],
            &[8, 0, 4, 0, 3, 0, 0, 0],
            &[8, 0, 5, 0, 10, 0, 0, 1],
        ];
        assert_eq!(request, expect.concat());
        // Attributes begin at multiples of four, and a nest is as long as what is in it.
        let request = Request::hairpin(5);
        assert_eq!(request.0[HEADER + 16..], [12, 0, 12, 0x80, 5, 0, 4, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn answers_are_told_apart() {
        let mut bytes = Vec::new();
        for code in [0, -17_i32] {
            bytes.extend_from_slice(&36_u32.to_ne_bytes());
            bytes.extend_from_slice(&NLMSG_ERROR.to_ne_bytes());
            bytes.extend_from_slice(&[0; 10]);
            bytes.extend_from_slice(&code.to_ne_bytes());
            bytes.extend_from_slice(&[0; 16]);
        }
        let answers = answers_in(&bytes);
        assert!(answers[0].is_ok());
        assert_eq!(answers[1].as_ref().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(answers.len(), 2);
        assert!(answers_in(&[]).is_empty());
        assert!(answers_in(&[1, 0, 0]).is_empty());
    }

    #[test]
    fn the_kernel_understands() {
        // No privilege is needed to be told that a link does not exist.
        let socket = Socket::open().unwrap();
        let error = socket.call(&[Request::delete_link("no-such-link"), Request::up(u32::MAX >> 1)]).unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error}");
        assert!(socket.index("no-such-link").is_err());
        assert_eq!(socket.index("lo").unwrap(), 1);
    }
}
