//! The model as a transaction for `nft`: a table of its own, made anew as a whole. Pure.
//!
//! Which packets come by: those forwarded from the pods' bridge or to it, between two pods too where bridged packets pass
//! the hooks. What the node itself sends to its pods and gets from them is not forwarded, so it always passes.
//!
//! The receiver's address and port are looked for where the direction of the packet has them. A packet of no known connection
//! counts as one of the direction in which connections begin: as an answer it would pass wherever a sender liked.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;

use super::compile::{Allowed, Model};
use super::ranges::{Addresses, EVERYWHERE};
use crate::service::Protocol;
use crate::table;
use crate::{Config, Error};

/// What the table depends on beside the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyTable {
    pub(super) name: String,
    pub(super) bridge: String,
}

/// The chain by which it is known whether the table is there.
pub(super) const FORWARD: &str = "forward";

/// The table's name. A profile's name has no slash, so it is no other profile's table.
pub(crate) fn name(profile: &str) -> Result<String, Error> {
    Ok(format!("{}/policies", table::name(profile)?))
}

impl PolicyTable {
    /// Of settings whose bridge was checked for the table of services.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self { name: name(&config.profile)?, bridge: config.bridge.clone() })
    }

    /// A transaction that makes the table anew for this model.
    ///
    /// It hooks in behind the refusal of what no service takes. To pass here means to be judged by the others' tables.
    pub(super) fn transaction(&self, model: &Model) -> String {
        let Self { name, bridge } = self;
        let mut text = format!("{}table ip {name} {{\n", table::removal(name));
        for (number, allowed) in model.allowed.iter().enumerate() {
            sets_and_chains(&mut text, number, allowed);
        }
        // Through its service a pod may reach itself.
        let pods = model.ingress.keys().chain(model.egress.keys()).map(|address| format!("{address} . {address}"));
        set(&mut text, "set self", "ipv4_addr . ipv4_addr", pods);
        let maps = [
            ("egress", &model.egress, "to"),
            ("ingress", &model.ingress, "from"),
            ("egress-replies", &model.egress, "replies-from"),
            ("ingress-replies", &model.ingress, "replies-to"),
        ];
        for (map, pods, chain) in maps {
            set(&mut text, &format!("map {map}"), "ipv4_addr : verdict", verdicts(pods, chain));
        }
        // Errors about a connection, such as that a packet is too big, come from anywhere on the way.
        let judge = format!(
            "  chain replies {{
    ip daddr vmap @egress-replies
    ip saddr vmap @ingress-replies
  }}
  chain judge {{
    ip saddr . ip daddr @self return
    ct state related meta l4proto icmp return
    ct direction reply goto replies
    ip saddr vmap @egress
    ip daddr vmap @ingress
  }}
  chain {FORWARD} {{
    type filter hook forward priority 1;
    iifname \"{bridge}\" goto judge
    oifname \"{bridge}\" goto judge
  }}
}}
"
        );
        text + &judge
    }
}

fn verdicts<'a>(pods: &'a BTreeMap<Ipv4Addr, usize>, chain: &'a str) -> impl Iterator<Item = String> + 'a {
    pods.iter().map(move |(address, number)| format!("{address} : jump {chain}-{number}"))
}

/// The sets of one entry of the model, and the chains that ask them: for what a pod gets from others and what it sends to
/// them, and for the answers.
fn sets_and_chains(text: &mut String, number: usize, allowed: &Allowed) {
    let everybody = allowed.all == [EVERYWHERE];
    if !everybody {
        let elements = allowed.all.iter().map(addresses);
        set(text, &format!("set all-{number}"), "ipv4_addr; flags interval", elements);
        let elements = allowed.ports.iter().map(|(range, (protocol, first, last))| {
            let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
            format!("{} . {} . {ports}", addresses(range), protocol_number(*protocol))
        });
        let of = "ipv4_addr . inet_proto . inet_service; flags interval";
        set(text, &format!("set ports-{number}"), of, elements);
    }
    for (chain, other, port) in [
        ("from", "saddr", "dport"),
        ("to", "daddr", "dport"),
        ("replies-to", "daddr", "sport"),
        ("replies-from", "saddr", "sport"),
    ] {
        // Writing to a string cannot fail.
        let _ = if everybody {
            writeln!(text, "  chain {chain}-{number} {{\n    return\n  }}")
        } else {
            writeln!(
                text,
                "  chain {chain}-{number} {{\n    ip {other} @all-{number} return\n    ip {other} . meta l4proto . th {port} \
                 @ports-{number} return\n    drop\n  }}"
            )
        };
    }
}

/// A set or a map; nft takes no empty list of elements.
fn set(text: &mut String, what: &str, of: &str, elements: impl Iterator<Item = String>) {
    let elements: Vec<String> = elements.collect();
    let elements =
        if elements.is_empty() { String::new() } else { format!(" elements = {{ {} }};", elements.join(", ")) };
    let _ = writeln!(text, "  {what} {{ type {of};{elements} }}");
}

fn addresses((first, last): &Addresses) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// Names of protocols are for machines that have a list of them.
fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transaction_reads_as_one_would_type_it() {
        let table = PolicyTable::new(&Config::new("p", "cor-p", "10.244.0.0/16", "10.96.0.0/16")).unwrap();
        let range = |first: [u8; 4], last: [u8; 4]| (Ipv4Addr::from(first), Ipv4Addr::from(last));
        let (one, some) = (range([10, 244, 0, 9], [10, 244, 0, 9]), range([192, 0, 2, 0], [192, 0, 2, 127]));
        let ports = vec![(one, (Protocol::Tcp, 80, 80)), (some, (Protocol::Udp, 1000, 1999))];
        let model = Model {
            allowed: vec![
                Allowed { all: vec![one, some], ports },
                Allowed { all: vec![EVERYWHERE], ports: Vec::new() },
            ],
            ingress: [(Ipv4Addr::new(10, 244, 0, 5), 0)].into(),
            egress: [(Ipv4Addr::new(10, 244, 0, 5), 1)].into(),
        };
        let text = table.transaction(&model);
        let has = |expected: &str| assert!(text.contains(expected), "{expected}\n{text}");
        assert!(
            text.starts_with("add table ip coracle-p/policies\ndelete table ip coracle-p/policies\ntable ip "),
            "{text}"
        );
        has("set all-0 { type ipv4_addr; flags interval; elements = { 10.244.0.9, 192.0.2.0-192.0.2.127 }; }");
        has("elements = { 10.244.0.9 . 6 . 80, 192.0.2.0-192.0.2.127 . 17 . 1000-1999 }; }");
        has("map ingress { type ipv4_addr : verdict; elements = { 10.244.0.5 : jump from-0 }; }");
        has("map ingress-replies { type ipv4_addr : verdict; elements = { 10.244.0.5 : jump replies-to-0 }; }");
        has("map egress { type ipv4_addr : verdict; elements = { 10.244.0.5 : jump to-1 }; }");
        has("map egress-replies { type ipv4_addr : verdict; elements = { 10.244.0.5 : jump replies-from-1 }; }");
        has("chain from-1 {\n    return\n  }\n");
        has("iifname \"cor-p\" goto judge");
        assert!(!text.contains("@all-1") && text.matches("drop").count() == 4, "{text}");
        // Where nobody is isolated for a direction, there is no list of elements.
        let text = table.transaction(&Model { egress: BTreeMap::new(), ..model });
        assert!(text.contains("map egress { type ipv4_addr : verdict; }"), "{text}");
    }

    #[test]
    fn profiles_have_tables_of_their_own() {
        // A profile that ends as a table of policies could be called.
        assert_ne!(name("a").unwrap(), table::name("a-policies").unwrap());
        assert!(name("a/policies").is_err());
    }
}
