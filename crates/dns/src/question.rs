//! A name, taken apart by the rules of the DNS specification of Kubernetes, 1.1.0. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a name below the cluster's domain is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question<'a> {
    /// The domain itself.
    Apex,
    /// `dns-version`: which version of the specification holds.
    Version,
    /// `ns.dns`: the server itself.
    NameServer,
    /// A name that only has others below it: `svc`, `pod`, `dns`.
    Between,
    /// `NAMESPACE.svc` and `NAMESPACE.pod`.
    Namespace(&'a str),
    /// `SERVICE.NAMESPACE.svc`.
    Service { namespace: &'a str, service: &'a str },
    /// `_PORT._PROTOCOL.SERVICE.NAMESPACE.svc`; the port without its underscore.
    Port { namespace: &'a str, service: &'a str, port: &'a str, protocol: &'a str },
    /// `ENDPOINT.SERVICE.NAMESPACE.svc`.
    Endpoint { namespace: &'a str, service: &'a str, endpoint: &'a str },
    /// `ADDRESS-WITH-DASHES.NAMESPACE.pod`.
    Pod { namespace: &'a str, address: IpAddr },
    /// Nothing that could exist.
    Unknown,
}

impl<'a> Question<'a> {
    /// Reads the labels in front of the cluster's domain, in lower case.
    pub(crate) fn parse(labels: &[&'a str]) -> Self {
        match *labels {
            [] => Self::Apex,
            ["dns-version"] => Self::Version,
            ["ns", "dns"] => Self::NameServer,
            ["svc" | "pod" | "dns"] => Self::Between,
            [namespace, "svc" | "pod"] => Self::Namespace(namespace),
            [address, namespace, "pod"] => match dashed(address) {
                Some(address) => Self::Pod { namespace, address },
                None => Self::Unknown,
            },
            [service, namespace, "svc"] => Self::Service { namespace, service },
            [endpoint, service, namespace, "svc"] => Self::Endpoint { namespace, service, endpoint },
            [port, protocol, service, namespace, "svc"] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                (Some(port), Some(protocol)) => Self::Port { namespace, service, port, protocol },
                _ => Self::Unknown,
            },
            _ => Self::Unknown,
        }
    }
}

/// An address whose separators are dashes: `10-244-0-7`.
fn dashed(text: &str) -> Option<IpAddr> {
    let v4 = || text.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    let v6 = || text.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    v4().or_else(v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let check = |name: &str, expected: Question<'_>| {
            let labels: Vec<&str> = name.split('.').filter(|label| !label.is_empty()).collect();
            assert_eq!(Question::parse(&labels), expected, "{name}");
        };
        let (namespace, service) = ("default", "redis");
        let address = "10.244.0.7".parse().expect("an address");
        check("", Question::Apex);
        check("dns-version", Question::Version);
        check("ns.dns", Question::NameServer);
        check("svc", Question::Between);
        check("default.svc", Question::Namespace(namespace));
        check("redis.default.svc", Question::Service { namespace, service });
        check("redis-0.redis.default.svc", Question::Endpoint { namespace, service, endpoint: "redis-0" });
        check("_peer._tcp.redis.default.svc", Question::Port { namespace, service, port: "peer", protocol: "tcp" });
        check("10-244-0-7.default.pod", Question::Pod { namespace, address });
        let v6 = "fd00::7".parse().expect("an address");
        check("fd00--7.default.pod", Question::Pod { namespace, address: v6 });
        check("redis-0.default.pod", Question::Unknown);
        check("peer._tcp.redis.default.svc", Question::Unknown);
        check("a.b.c.redis.default.svc", Question::Unknown);
        check("redis.default", Question::Unknown);
        check("www", Question::Unknown);
    }
}
