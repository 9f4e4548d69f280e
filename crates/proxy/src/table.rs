//! The fixed part of a profile's table: where its rules hook in, and what becomes of packets that none of them took. Pure.
//!
//! Written in nft's own language, whole transactions at a time: it reads as the manual does, and what a test compares is
//! what one would type. The values put in are numbers, addresses and names checked here.

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

use crate::{Config, Error, parse_cidr};

/// How many DNS questions an address of a pod may send in a second, and how many at once beyond that; the kernel drops the
/// others. The server answers several times as many, and none that was lost because a socket's buffer was full of another's.
const QUESTIONS: (u32, u32) = (5000, 2000);

/// What the fixed part depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) bridge: String,
    pub(crate) pod_cidr: String,
    pub(crate) service_cidr: String,
    /// The bridge's own address.
    pub(crate) gateway: Ipv4Addr,
    /// What of an address tells that it is a node's: each has the first address of a /24 of the pods' range.
    pub(crate) node_mask: Ipv4Addr,
    /// Whether packets between pods of one bridge do not pass the hooks, so that answers would bypass the translation:
    /// then they must go through the machine's own address.
    pub(crate) masquerade_pods: bool,
    /// Where pods ask the cluster's DNS by UDP.
    pub(crate) dns: Vec<SocketAddrV4>,
}

impl Table {
    /// Checks the settings.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let (pods, pod_prefix) = parse_cidr("pod CIDR", &config.pod_cidr)?;
        let (services, service_prefix) = parse_cidr("service CIDR", &config.service_cidr)?;
        let is_interface = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if config.bridge.is_empty() || config.bridge.len() > 15 || !config.bridge.bytes().all(is_interface) {
            return Err(Error::Config { what: "bridge", value: config.bridge.clone() });
        }
        Ok(Self {
            name: name(&config.profile)?,
            bridge: config.bridge.clone(),
            pod_cidr: format!("{pods}/{pod_prefix}"),
            service_cidr: format!("{services}/{service_prefix}"),
            gateway: Ipv4Addr::from_bits(pods.to_bits() + 1),
            node_mask: Ipv4Addr::from_bits((u32::MAX << (32 - pod_prefix)) | 0xff),
            masquerade_pods: false,
            dns: config.dns.clone(),
        })
    }

    /// The services' range.
    pub(crate) fn services(&self) -> Ipv4Net {
        // It was checked when the table was made.
        self.service_cidr.parse().unwrap_or_default()
    }

    /// Whether an address is in the pods' range; so are those by which this machine speaks to services.
    pub(crate) fn is_pod(&self, address: Ipv4Addr) -> bool {
        parse_cidr("pod CIDR", &self.pod_cidr).is_ok_and(|(pods, prefix)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or_default();
            (address.to_bits() ^ pods.to_bits()) & mask == 0
        })
    }

    /// A transaction that makes the table anew, empty of services.
    ///
    /// Its translation comes just before that of others (-105; iptables has -100), and only for the machine itself and its
    /// pods: nobody outside gets at a service by sending packets here. Refusal is in the filter hooks, since only what no
    /// rule translated still has an address of the service range there.
    /// Addresses outside the service range are whatever somebody wrote into a Service: nobody gets those of pods, of nodes and of
    /// the machine itself by that. DNS questions are counted before connections are tracked: a flood fills no table of those.
    pub(crate) fn base(&self) -> String {
        let Self { name, bridge, pod_cidr, service_cidr, gateway, node_mask, .. } = self;
        let masquerade = if self.masquerade_pods {
            format!("\n    ct status dnat ip saddr {pod_cidr} oifname \"{bridge}\" masquerade")
        } else {
            String::new()
        };
        let (rate, burst) = QUESTIONS;
        let limit =
            format!("update @askers {{ ip saddr limit rate over {rate}/second burst {burst} packets }} counter drop");
        let limit = |at: &SocketAddrV4| {
            let (ip, port) = (at.ip(), at.port());
            format!("\n    iifname \"{bridge}\" ip daddr {ip} udp dport {port} {limit}")
        };
        let questions: String = self.dns.iter().map(limit).collect();
        let removal = removal(name);
        format!(
            "{removal}\
table ip {name} {{
  map services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map node-ports {{ type inet_proto . inet_service : verdict; }}
  set hairpin {{ type ipv4_addr . ipv4_addr; }}
  set askers {{ type ipv4_addr; size 65535; flags dynamic,timeout; timeout 10s; }}
  chain questions {{
    type filter hook prerouting priority -300;{questions}
  }}
  chain translate {{
    ip daddr {service_cidr} ip daddr . meta l4proto . th dport vmap @services
    ip daddr != {pod_cidr} fib daddr type != local ip daddr . meta l4proto . th dport vmap @services
    ip daddr & {node_mask} == {gateway} meta l4proto . th dport vmap @node-ports
  }}
  chain prerouting {{
    type nat hook prerouting priority -105;
    iifname \"{bridge}\" jump translate
  }}
  chain output {{
    type nat hook output priority -105;
    jump translate
  }}
  chain postrouting {{
    type nat hook postrouting priority 100;
    ip saddr . ip daddr @hairpin ct status dnat masquerade{masquerade}
  }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmp type port-unreachable
  }}
  chain forward {{
    type filter hook forward priority 0;
    ip daddr {service_cidr} jump refuse
  }}
  chain outgoing {{
    type filter hook output priority 0;
    ip daddr {service_cidr} jump refuse
  }}
}}
"
        )
    }
}

/// The table's name.
pub(crate) fn name(profile: &str) -> Result<String, Error> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if profile.is_empty() || profile.len() > 100 || !profile.bytes().all(fits) {
        return Err(Error::Config { what: "profile", value: profile.to_owned() });
    }
    Ok(format!("coracle-{profile}"))
}

/// A transaction that removes a table, there or not: the first line makes sure that there is one.
pub(crate) fn removal(name: &str) -> String {
    format!("add table ip {name}\ndelete table ip {name}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        let good = Config::new("p", "cor-p", "10.244.0.0/16", "10.96.0.0/16");
        let table = Table::new(&good).unwrap();
        assert_eq!(table.gateway, Ipv4Addr::new(10, 244, 0, 1));
        let bad = [
            Config { profile: "a b".to_owned(), ..good.clone() },
            Config { profile: String::new(), ..good.clone() },
            Config { bridge: "a\" accept".to_owned(), ..good.clone() },
            Config { bridge: "an-interface-too-long".to_owned(), ..good.clone() },
            Config { pod_cidr: "10.244.0.0".to_owned(), ..good.clone() },
            Config { service_cidr: "10.96.0.0/33".to_owned(), ..good.clone() },
            Config { service_cidr: "fd00::/64".to_owned(), ..good },
        ];
        for config in bad {
            assert!(Table::new(&config).is_err(), "{config:?}");
        }
    }
}
