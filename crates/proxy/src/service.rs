//! From a Service and its EndpointSlices to ports with endpoints. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use informer::ObjectKey;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// A service with this label is somebody else's to proxy.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// Upstream's default for how long a client stays with its endpoint, in seconds.
const AFFINITY_TIMEOUT: u32 = 10_800;

/// Transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub(crate) fn parse(name: Option<&str>) -> Option<Self> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// As nftables writes it.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) service: ObjectKey,
    pub(crate) protocol: Protocol,
    /// Where it is reached: its cluster IP, the external IPs that it asks for, and what a load balancer gave it. In order,
    /// without duplicates.
    pub(crate) addresses: Vec<Ipv4Addr>,
    /// Of these, those that a load balancer gave it, and who may reach the service there; none: everybody.
    pub(crate) guard: Option<Guard>,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
    /// How long a client stays with its endpoint, in seconds; `None` for every connection anew.
    pub(crate) affinity: Option<u32>,
    /// In order, without duplicates.
    pub(crate) endpoints: Vec<SocketAddrV4>,
}

/// Who may reach a service at the addresses that a load balancer gave it (`loadBalancerSourceRanges`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guard {
    /// The addresses.
    pub(crate) addresses: Vec<Ipv4Addr>,
    /// From where, in order; none is in another.
    pub(crate) sources: Vec<Ipv4Net>,
}

impl Guard {
    fn of(spec: &ServiceSpec, addresses: &BTreeSet<Ipv4Addr>) -> Option<Self> {
        let ranges = spec.load_balancer_source_ranges.as_deref().filter(|ranges| !ranges.is_empty())?;
        if addresses.is_empty() {
            return None;
        }
        // Validation lets blanks around them through, as upstream's. Ranges of IPv6 let nobody in here.
        let sources = ranges.iter().filter_map(|range| range.trim().parse::<Ipv4Net>().ok()).map(|net| net.trunc());
        let sources = Ipv4Net::aggregate(&sources.collect());
        if sources == [Ipv4Net::default()] {
            return None;
        }
        Some(Self { addresses: addresses.iter().copied().collect(), sources })
    }
}

/// The ports of a service; none when it is not for this proxy: headless, an alias, or another proxy's. External IPs in the range
/// of services are left out: there an address is who has reserved it, as its cluster IP or its load balancer's.
pub(crate) fn ports(service: &Service, slices: &[Arc<EndpointSlice>], range: Ipv4Net) -> Vec<Port> {
    let other = service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(OTHER_PROXY));
    let Some(spec) = service.spec.as_ref().filter(|_| !other) else {
        return Vec::new();
    };
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    let mut cluster_ips = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let Some(cluster_ip) = cluster_ips.find_map(|ip| ip.parse::<Ipv4Addr>().ok()).filter(|_| kind != "ExternalName")
    else {
        return Vec::new();
    };
    let mut addresses = BTreeSet::from([cluster_ip]);
    let external = spec.external_ips.iter().flatten().filter_map(|ip| ip.parse::<Ipv4Addr>().ok());
    addresses.extend(external.filter(|ip| !range.contains(ip)));
    let mut guard = None;
    if kind == "LoadBalancer" {
        // Its cluster IP is inside, and open to all.
        let given: BTreeSet<Ipv4Addr> = balanced(service).filter(|address| *address != cluster_ip).collect();
        guard = Guard::of(spec, &given);
        addresses.extend(given);
    }
    let addresses: Vec<Ipv4Addr> = addresses.into_iter().collect();
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        spec.session_affinity_config
            .as_ref()
            .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
            .and_then(|seconds| u32::try_from(seconds).ok())
            .unwrap_or(AFFINITY_TIMEOUT)
    });
    let has_node_ports = kind == "NodePort" || kind == "LoadBalancer";
    let node_port = |port: &ServicePort| {
        let number = port.node_port.filter(|_| has_node_ports)?;
        u16::try_from(number).ok().filter(|number| *number > 0)
    };
    let of_port = |port: &ServicePort| {
        Some(Port {
            service: ObjectKey::of(service),
            protocol: Protocol::parse(port.protocol.as_deref())?,
            addresses: addresses.clone(),
            guard: guard.clone(),
            port: u16::try_from(port.port).ok()?,
            node_port: node_port(port),
            affinity,
            endpoints: endpoints(port, slices),
        })
    };
    spec.ports.iter().flatten().filter_map(of_port).collect()
}

/// The addresses a load balancer gave the service, but those behind which it forwards by itself.
fn balanced(service: &Service) -> impl Iterator<Item = Ipv4Addr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
    ingress
        .iter()
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|ingress| ingress.ip.as_deref()?.parse().ok())
}

/// The ready endpoints of a port. When there is none, those that are going away but still serve, as upstream has it: a
/// rollout of a single pod then loses no connection.
fn endpoints(port: &ServicePort, slices: &[Arc<EndpointSlice>]) -> Vec<SocketAddrV4> {
    let select = |wanted: fn(&Endpoint) -> bool| {
        let mut found = BTreeSet::new();
        for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
            let Some(number) = target(port, slice) else { continue };
            for endpoint in slice.endpoints.iter().flatten().filter(|endpoint| wanted(endpoint)) {
                // All addresses of an endpoint are equal; upstream uses the first.
                let address = endpoint.addresses.first().and_then(|address| address.parse::<Ipv4Addr>().ok());
                found.extend(address.map(|address| SocketAddrV4::new(address, number)));
            }
        }
        found.into_iter().collect::<Vec<_>>()
    };
    let ready = select(is_ready);
    if ready.is_empty() { select(still_serves) } else { ready }
}

/// How many endpoints of a service are ready.
pub(crate) fn ready(slices: &[Arc<EndpointSlice>]) -> usize {
    let slices = slices.iter().filter(|slice| slice.address_type == "IPv4");
    let endpoints = slices.flat_map(|slice| slice.endpoints.iter().flatten()).filter(|endpoint| is_ready(endpoint));
    endpoints.filter_map(|endpoint| endpoint.addresses.first()).collect::<BTreeSet<_>>().len()
}

/// The endpoints' number of a service's port: slices name ports as the service does.
fn target(port: &ServicePort, slice: &EndpointSlice) -> Option<u16> {
    let name = port.name.as_deref().unwrap_or_default();
    let protocol = Protocol::parse(port.protocol.as_deref());
    let mut ports = slice.ports.iter().flatten();
    let found = ports.find(|found| {
        found.name.as_deref().unwrap_or_default() == name && Protocol::parse(found.protocol.as_deref()) == protocol
    })?;
    u16::try_from(found.port?).ok().filter(|number| *number > 0)
}

/// Unknown counts as ready.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn still_serves(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    conditions.terminating == Some(true) && conditions.serving == Some(true)
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The range of services in tests, `10.96.0.0/16`.
    pub(crate) const RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);

    pub(crate) fn service(name: &str, spec: Value) -> Service {
        serde_json::from_value(json!({ "metadata": { "namespace": "default", "name": name }, "spec": spec })).unwrap()
    }

    /// A slice whose endpoints are `ADDRESS`, `ADDRESS unready` or `ADDRESS going`.
    pub(crate) fn slice(service: &str, port: (&str, u16), endpoints: &[&str]) -> Arc<EndpointSlice> {
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|text| {
                let (address, state) = text.split_once(' ').unwrap_or((text, ""));
                let conditions = match state {
                    "" => json!({}),
                    "unready" => json!({ "ready": false, "serving": false, "terminating": false }),
                    _ => json!({ "ready": false, "serving": true, "terminating": true }),
                };
                json!({ "addresses": [address], "conditions": conditions })
            })
            .collect();
        let slice = json!({
            "metadata": { "namespace": "default", "name": format!("{service}-x"), "labels": { informer::SERVICE_NAME: service } },
            "addressType": "IPv4",
            "ports": [{ "name": port.0, "port": port.1, "protocol": "TCP" }],
            "endpoints": endpoints,
        });
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    fn check(spec: Value, slices: &[Arc<EndpointSlice>], expect: &[(u16, Option<u16>, &[&str])]) {
        let ports = ports(&service("web", spec.clone()), slices, RANGE);
        let got: Vec<(u16, Option<u16>, Vec<String>)> = ports
            .iter()
            .map(|port| (port.port, port.node_port, port.endpoints.iter().map(ToString::to_string).collect()))
            .collect();
        let expect: Vec<(u16, Option<u16>, Vec<String>)> = expect
            .iter()
            .map(|(port, node, endpoints)| (*port, *node, endpoints.iter().map(ToString::to_string).collect()))
            .collect();
        assert_eq!(got, expect, "{spec}");
    }

    #[test]
    fn kinds_of_services() {
        let slices = [slice("web", ("", 8080), &["10.0.0.2", "10.0.0.1"])];
        let both: &[&str] = &["10.0.0.1:8080", "10.0.0.2:8080"];
        let ports = json!([{ "port": 80, "nodePort": 30080 }]);
        let ip = "10.96.0.1";
        check(json!({ "clusterIP": ip, "ports": ports }), &slices, &[(80, None, both)]);
        check(json!({ "clusterIP": ip, "type": "NodePort", "ports": ports }), &slices, &[(80, Some(30080), both)]);
        check(json!({ "clusterIP": ip, "type": "LoadBalancer", "ports": ports }), &slices, &[(80, Some(30080), both)]);
        check(
            json!({ "clusterIP": ip, "type": "LoadBalancer", "ports": [{ "port": 80 }] }),
            &slices,
            &[(80, None, both)],
        );
        check(json!({ "clusterIP": "None", "ports": ports }), &slices, &[]);
        check(json!({ "type": "ExternalName", "externalName": "x", "ports": ports }), &slices, &[]);
        check(json!({ "ports": ports }), &slices, &[]);
        check(
            json!({ "clusterIPs": ["fd00::1", ip], "clusterIP": "fd00::1", "ports": ports }),
            &slices,
            &[(80, None, both)],
        );
        check(json!({ "clusterIP": ip, "ports": [{ "port": 99999 }] }), &slices, &[]);
    }

    #[test]
    fn which_endpoints_serve() {
        let spec = json!({ "clusterIP": "10.96.0.1", "ports": [{ "name": "http", "port": 80 }] });
        let cases: [(&[&str], &[&str]); 5] = [
            (&[], &[]),
            (&["10.0.0.1", "10.0.0.2 unready", "10.0.0.3 going"], &["10.0.0.1:80"]),
            (&["10.0.0.2 unready", "10.0.0.3 going"], &["10.0.0.3:80"]),
            (&["10.0.0.2 unready"], &[]),
            (&["not an address", "10.0.0.1", "10.0.0.1"], &["10.0.0.1:80"]),
        ];
        for (endpoints, expect) in cases {
            check(spec.clone(), &[slice("web", ("http", 80), endpoints)], &[(80, None, expect)]);
        }
        check(spec, &[slice("web", ("other", 80), &["10.0.0.1"])], &[(80, None, &[])]);
    }

    #[test]
    fn addresses_beside_the_cluster_ip() {
        let spec = json!({
            "type": "LoadBalancer", "clusterIP": "10.96.0.1", "ports": [{ "port": 80 }],
            "externalIPs": ["192.0.2.9", "fd00::9", "192.0.2.9", "10.96.0.7"],
        });
        let mut service = service("web", spec);
        service.status = serde_json::from_value(json!({ "loadBalancer": { "ingress": [
            { "ip": "192.0.2.1", "ipMode": "VIP" }, { "ip": "192.0.2.2", "ipMode": "Proxy" }, { "hostname": "lb.example" },
        ]}}))
        .unwrap();
        let got: Vec<String> = ports(&service, &[], RANGE)[0].addresses.iter().map(ToString::to_string).collect();
        assert_eq!(got, ["10.96.0.1", "192.0.2.1", "192.0.2.9"]);
    }

    #[test]
    fn who_reaches_what_a_load_balancer_gave() {
        let check = |ranges: Value, given: &[&str], expect: Option<(&[&str], &[&str])>| {
            let mut service = service(
                "web",
                json!({
                    "type": "LoadBalancer", "clusterIP": "10.96.0.1", "ports": [{ "port": 80 }],
                    "loadBalancerSourceRanges": ranges,
                }),
            );
            let ingress: Vec<Value> = given.iter().map(|ip| json!({ "ip": ip, "ipMode": "VIP" })).collect();
            service.status = serde_json::from_value(json!({ "loadBalancer": { "ingress": ingress } })).unwrap();
            let strings = |items: &[&str]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
            let got = ports(&service, &[], RANGE)[0].guard.as_ref().map(|guard| {
                let addresses: Vec<String> = guard.addresses.iter().map(ToString::to_string).collect();
                (addresses, guard.sources.iter().map(ToString::to_string).collect::<Vec<_>>())
            });
            let expect = expect.map(|(addresses, sources)| (strings(addresses), strings(sources)));
            assert_eq!(got, expect, "{ranges} {given:?}");
        };
        check(json!(null), &["192.0.2.1"], None);
        check(json!([]), &["192.0.2.1"], None);
        check(json!(["10.0.0.0/8"]), &[], None);
        // Who may reach it inside is not asked.
        check(json!(["10.0.0.0/8"]), &["10.96.0.1"], None);
        check(json!(["10.0.0.0/8", "0.0.0.0/0"]), &["192.0.2.1"], None);
        check(
            json!(["10.1.0.0/16", " 10.2.3.4/8 ", "192.0.2.7/32"]),
            &["192.0.2.1", "10.96.0.1"],
            Some((&["192.0.2.1"], &["10.0.0.0/8", "192.0.2.7/32"])),
        );
        check(json!(["fd00::/8"]), &["192.0.2.1"], Some((&["192.0.2.1"], &[])));
    }

    #[test]
    fn affinity_and_other_proxies() {
        let spec = json!({
            "clusterIP": "10.96.0.1", "ports": [{ "port": 80 }], "sessionAffinity": "ClientIP",
        });
        let mut service = service("web", spec.clone());
        assert_eq!(ports(&service, &[], RANGE)[0].affinity, Some(AFFINITY_TIMEOUT));
        service.metadata.labels = Some([(OTHER_PROXY.to_owned(), "theirs".to_owned())].into());
        assert_eq!(ports(&service, &[], RANGE), []);
        let mut spec = spec;
        spec["sessionAffinityConfig"] = json!({ "clientIP": { "timeoutSeconds": 60 } });
        assert_eq!(ports(&super::tests::service("web", spec), &[], RANGE)[0].affinity, Some(60));
    }
}
