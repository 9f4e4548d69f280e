//! A pod's veth pair, which connects it to the bridge: two virtual links, one end in the pod's network, the other a port of the bridge.
//!
//! The end on the machine is named after the pod's address, so that it is found again without anything being kept, and
//! says in its alias whose it is (`ip -d link`). It goes with the pod's network, so nothing need be removed. It becomes a
//! port of the bridge last: a port is a pod that is connected.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::host::on_own_thread;
use crate::netlink::{Request, Socket};
use crate::subnet::Subnet;

/// The pod's own end.
const INSIDE: &str = "eth0";
/// The loopback device, in every network namespace.
const LOOPBACK: u32 = 1;
const LINKS: &str = "/sys/class/net";
/// What Docker sets in networks that it makes: any user may listen below 1024, and send pings; IPv6 is off where there are no
/// addresses for it.
const SYSCTLS: [(&str, &str); 3] = [
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
    ("net.ipv6.conf.eth0.disable_ipv6", "1"),
];

/// A veth pair that is to connect a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Veth {
    /// The bridge.
    pub(crate) bridge: String,
    /// The bridge's own address, by which the pod reaches everything else.
    pub(crate) gateway: Ipv4Addr,
    /// The pod's address.
    pub(crate) address: Ipv4Addr,
    /// Length of the prefix that all pods share.
    pub(crate) prefix: u8,
    /// Whose it is.
    pub(crate) alias: String,
    /// Kernel parameters of the pod's network, `net.…`.
    pub(crate) sysctls: Vec<(String, String)>,
}

/// Connects a pod's network, given as its namespace.
pub(crate) async fn connect(veth: Veth, namespace: File) -> io::Result<()> {
    on_own_thread("connect-pod", move || veth.make(&namespace)).await?
}

impl Veth {
    fn make(&self, namespace: &File) -> io::Result<()> {
        let Self { gateway, address, prefix, .. } = *self;
        let outside = Socket::open()?;
        let bridge = outside.index(&self.bridge)?;
        let name = name(address);
        let pair = Request::new_pair(&name, INSIDE, hardware(address), namespace.as_fd());
        match outside.call(std::slice::from_ref(&pair)) {
            // The last pod with this address, whose network the kernel has not taken down yet.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let _ = outside.call(&[Request::delete_link(&name)]);
                outside.call(&[pair])?;
            }
            result => result?,
        }
        let index = outside.index(&name)?;

        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        for (key, value) in SYSCTLS {
            // Not every kernel has all of them.
            let _ = set(key, value);
        }
        let inside = Socket::open()?;
        let eth0 = inside.index(INSIDE)?;
        inside.call(&[
            Request::up(LOOPBACK),
            Request::add_address(eth0, address, prefix),
            Request::up(eth0),
            Request::default_route(eth0, gateway),
        ])?;
        for (key, value) in &self.sysctls {
            set(key, value).map_err(|error| io::Error::new(error.kind(), format!("sysctl {key}={value}: {error}")))?;
        }
        // The socket from before still speaks of the machine's network.
        outside.call(&[Request::join(index, bridge, &self.alias), Request::hairpin(index)])
    }
}

/// Whether a pod with this address is connected.
pub(crate) fn connected(address: Ipv4Addr) -> bool {
    folder(address).join("brport").exists()
}

/// How many links a bridge has.
pub(crate) fn ports(bridge: &str) -> usize {
    fs::read_dir(Path::new(LINKS).join(bridge).join("brif")).map_or(0, Iterator::count)
}

/// Makes the links of all pods in a subnet ports of the bridge that is there now, in place of the one they were connected to.
pub(crate) fn reconnect(bridge: &str, subnet: Subnet) -> io::Result<()> {
    let socket = Socket::open()?;
    let bridge = socket.index(bridge)?;
    for link in fs::read_dir(LINKS)?.flatten() {
        let address = link.file_name().to_str().and_then(address);
        let Some(address) = address.filter(|address| subnet.contains(*address) && !connected(*address)) else {
            continue;
        };
        // A pod may go at any moment, and its link with it.
        let Ok(index) = socket.index(&name(address)) else { continue };
        let alias = fs::read_to_string(link.path().join("ifalias")).unwrap_or_default();
        if let Err(error) = socket.call(&[Request::join(index, bridge, alias.trim()), Request::hairpin(index)]) {
            tracing::warn!(%error, %address, "cannot connect a pod again");
        }
    }
    Ok(())
}

/// Gives a bridge a further address, or takes it away.
pub(crate) fn set_address(bridge: &str, address: Ipv4Addr, wanted: bool) -> io::Result<()> {
    let socket = Socket::open()?;
    let index = socket.index(bridge)?;
    socket.call(&[match wanted {
        true => Request::add_address(index, address, 32),
        false => Request::delete_address(index, address, 32),
    }])
}

fn folder(address: Ipv4Addr) -> PathBuf {
    Path::new(LINKS).join(name(address))
}

/// The machine's end. Pods of all profiles have different addresses. What manages networks leaves `veth…` alone.
fn name(address: Ipv4Addr) -> String {
    format!("veth{:08x}", address.to_bits())
}

/// The address of the pod that a link is for, from the link's name.
fn address(name: &str) -> Option<Ipv4Addr> {
    let digits = name.strip_prefix("veth").filter(|digits| digits.len() == 8)?;
    Some(Ipv4Addr::from_bits(u32::from_str_radix(digits, 16).ok()?))
}

/// A hardware address that follows from the IP address: whoever remembers it for the last pod with that address is right.
fn hardware(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// Sets a kernel parameter of the network namespace that the calling thread is in.
fn set(key: &str, value: &str) -> io::Result<()> {
    let path = path(key).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    fs::write(path, value)
}

/// The file of a kernel parameter of networks. Its parts are separated by dots, or by slashes where a part has dots.
fn path(key: &str) -> Option<PathBuf> {
    let separator = key.find(['.', '/']).and_then(|at| key.get(at..=at))?;
    let parts: Vec<&str> = key.split(separator).collect();
    let legal = |part: &&str| !part.is_empty() && !matches!(*part, "." | "..") && !part.contains('/');
    (parts.first() == Some(&"net") && parts.len() > 1 && parts.iter().all(legal))
        .then(|| Path::new("/proc/sys").join(parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_addresses() {
        let pod = Ipv4Addr::new(10, 244, 0, 5);
        assert_eq!(name(pod), "veth0af40005");
        assert_eq!(address("veth0af40005"), Some(pod));
        for other in ["veth0af4005", "vethx0af4005", "cor-coracle", "lo"] {
            assert_eq!(address(other), None, "{other}");
        }
        assert_eq!(hardware(pod), [0x0a, 0x58, 10, 244, 0, 5]);
        assert!(!connected(Ipv4Addr::new(0, 0, 0, 1)));
    }

    #[test]
    fn only_parameters_of_networks_are_paths() {
        let check =
            |key: &str, expected: Option<&str>| assert_eq!(path(key).as_deref(), expected.map(Path::new), "{key}");
        check("net.ipv4.ip_forward", Some("/proc/sys/net/ipv4/ip_forward"));
        check("net/ipv4/conf/eth0.1/rp_filter", Some("/proc/sys/net/ipv4/conf/eth0.1/rp_filter"));
        check("kernel.shmmax", None);
        check("net", None);
        check("net.", None);
        check("net..kernel", None);
        check("net/../kernel/shmmax", None);
        check("net.ipv4/../../kernel.shmmax", None);
        check("/etc/passwd", None);
    }
}
