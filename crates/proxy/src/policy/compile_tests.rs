//! The rules of the specification as tables: policies in, and who reaches whom.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

use super::compile::{Model, compile};
use super::ranges::Addresses;
use crate::service::Protocol;

/// Names for the addresses of the world below.
const ADDRESSES: [(&str, Ipv4Addr); 11] = [
    ("node", Ipv4Addr::new(10, 0, 0, 1)),
    ("web-1", Ipv4Addr::new(10, 0, 0, 10)),
    ("web-2", Ipv4Addr::new(10, 0, 0, 11)),
    ("client", Ipv4Addr::new(10, 0, 0, 20)),
    ("b/client", Ipv4Addr::new(10, 0, 0, 30)),
    ("b/web", Ipv4Addr::new(10, 0, 0, 31)),
    ("c/client", Ipv4Addr::new(10, 0, 0, 40)),
    ("ended", Ipv4Addr::new(10, 0, 0, 50)),
    ("near", Ipv4Addr::new(192, 0, 2, 7)),
    ("far", Ipv4Addr::new(192, 0, 2, 200)),
    ("dns", Ipv4Addr::new(198, 51, 100, 53)),
];

fn address(name: &str) -> Ipv4Addr {
    ADDRESSES.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no {name}")).1
}

fn namespaces() -> Vec<Namespace> {
    let namespace = |name: &str, labels: Value| {
        serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).unwrap()
    };
    let labels = [json!({ "team": "a" }), json!({ "team": "b" }), json!({ "team": "b", "env": "prod" })];
    ["a", "b", "c"].into_iter().zip(labels).map(|(name, labels)| namespace(name, labels)).collect()
}

/// A pod in the namespace before the slash, or in `a`.
fn pod(name: &str, labels: Value, ports: Value) -> Value {
    let (namespace, own) = name.split_once('/').unwrap_or(("a", name));
    json!({
        "metadata": { "name": own, "namespace": namespace, "labels": labels },
        "spec": { "containers": [{ "name": "main", "ports": ports }] },
        "status": { "phase": "Running", "podIPs": [{ "ip": address(name) }, { "ip": "fd00::7" }] },
    })
}

fn pods() -> Vec<Pod> {
    let client = json!({ "app": "client" });
    let http = |number: u16| json!({ "name": "http", "containerPort": number });
    let mut host = pod("node", client.clone(), json!([http(80)]));
    host["spec"]["hostNetwork"] = true.into();
    let mut ended = pod("ended", client.clone(), json!([]));
    ended["status"]["phase"] = "Succeeded".into();
    let mut sidecar = pod("web-2", json!({ "app": "web", "version": "2" }), json!([]));
    sidecar["spec"]["initContainers"] = json!([
        { "name": "proxy", "restartPolicy": "Always", "ports": [http(9090)] },
        { "name": "early", "ports": [http(7070)] },
    ]);
    let web = json!([http(8080), { "name": "http", "containerPort": 8053, "protocol": "UDP" }]);
    let pods = [
        host,
        ended,
        pod("web-1", json!({ "app": "web" }), web),
        sidecar,
        pod("client", client.clone(), json!([])),
        pod("b/client", client.clone(), json!([])),
        pod("b/web", json!({ "app": "web" }), json!([http(80)])),
        pod("c/client", client, json!([])),
        json!({ "metadata": { "name": "starting", "namespace": "a", "labels": { "app": "web" } }, "spec": { "containers": [] } }),
    ];
    pods.into_iter().map(|pod| serde_json::from_value(pod).unwrap()).collect()
}

fn model(specs: &[Value]) -> Model {
    let policies: Vec<NetworkPolicy> = specs
        .iter()
        .enumerate()
        .map(|(index, spec)| {
            let metadata = json!({ "name": format!("p{index}"), "namespace": "a" });
            serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
        })
        .collect();
    let (namespaces, pods) = (namespaces(), pods());
    let model = compile(&policies, &namespaces, &pods);
    assert_eq!(
        model,
        compile(policies.iter().rev(), namespaces.iter().rev(), pods.iter().rev()),
        "the order is no matter"
    );
    model
}

/// What the kernel makes of a packet for `PORT/PROTOCOL`.
fn passes(model: &Model, from: Ipv4Addr, to: Ipv4Addr, port: &str) -> bool {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "TCP"));
    let (number, protocol): (u16, _) = (number.parse().unwrap(), Protocol::parse(Some(protocol)).unwrap());
    let within = |range: &Addresses, address| (range.0..=range.1).contains(&address);
    let allows = |pod: Option<&usize>, other| {
        pod.map(|pod| &model.allowed[*pod]).is_none_or(|allowed| {
            let ports = allowed.ports.iter().filter(|(range, _)| within(range, other)).map(|(_, ports)| ports);
            allowed.all.iter().any(|range| within(range, other))
                || ports.into_iter().any(|ports| ports.0 == protocol && (ports.1..=ports.2).contains(&number))
        })
    };
    from == to || (allows(model.egress.get(&from), to) && allows(model.ingress.get(&to), from))
}

/// Policies in the namespace `a`, and lines `FROM > TO PORT`, with `!` before those that must not pass.
fn check(specs: &[Value], lines: &[&str]) {
    let model = model(specs);
    for line in lines {
        let (expected, rest) = line.strip_prefix('!').map_or((true, *line), |rest| (false, rest));
        let [from, ">", to, port] = rest.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert_eq!(passes(&model, address(from), address(to), port), expected, "{line}\n{specs:?}\n{model:?}");
    }
}

fn web() -> Value {
    json!({ "matchLabels": { "app": "web" } })
}

fn clients() -> Value {
    json!({ "matchLabels": { "app": "client" } })
}

#[test]
fn only_selected_pods_are_isolated() {
    assert!(model(&[]).is_empty());
    check(&[], &["client > web-1 80", "client > near 80", "near > web-1 80"]);
    let deny = ["!client > web-1 80", "!b/client > web-1 80", "!near > web-1 80/UDP", "!web-2 > web-1 80/SCTP"];
    let others =
        ["client > b/web 80", "web-1 > client 80", "web-1 > near 443", "b/client > b/web 1", "web-1 > web-1 80"];
    for spec in [
        json!({ "podSelector": web() }),
        json!({ "podSelector": web(), "ingress": [] }),
        json!({ "podSelector": web(), "policyTypes": ["Ingress"] }),
        json!({ "podSelector": web(), "policyTypes": [] }),
        json!({ "podSelector": { "matchExpressions": [{ "key": "app", "operator": "In", "values": ["web"] }] } }),
    ] {
        check(std::slice::from_ref(&spec), &[&deny[..], &others].concat());
    }
    // All pods of the namespace, and of no other.
    for spec in [json!({ "podSelector": {} }), json!({})] {
        check(&[spec], &["!near > client 80", "!client > web-1 80", "near > b/client 80", "client > near 80"]);
    }
    check(&[json!({ "podSelector": { "matchLabels": { "app": "none" } } })], &["near > web-1 80"]);
}

#[test]
fn types_are_those_given_or_follow_from_the_rules() {
    let spec = |types: Value, egress: Value| json!({ "podSelector": web(), "policyTypes": types, "egress": egress });
    let nothing_out = ["!web-1 > client 80", "!web-1 > near 80/UDP"];
    let nothing_in = ["!client > web-1 80"];
    check(
        &[spec(json!(["Egress"]), json!([]))],
        &[&nothing_out[..], &["client > web-1 80", "b/web > near 1"]].concat(),
    );
    check(&[spec(json!(["Ingress", "Egress"]), json!([]))], &[&nothing_out[..], &nothing_in].concat());
    // Without types: egress if there is a rule for it, ingress always.
    let rule = json!([{ "to": [{ "ipBlock": { "cidr": "198.51.100.53/32" } }] }]);
    check(&[spec(json!(null), rule.clone())], &[&nothing_out[..], &nothing_in, &["web-1 > dns 53/UDP"]].concat());
    check(&[spec(json!(null), json!([]))], &[&nothing_in[..], &["web-1 > near 80"]].concat());
    // Rules of a type that is not given play no part.
    check(&[spec(json!(["Ingress"]), rule)], &[&nothing_in[..], &["web-1 > near 80"]].concat());
}

#[test]
fn peers_are_pods_namespaces_and_blocks() {
    let from = |peers: Value| json!({ "podSelector": web(), "ingress": [{ "from": peers }] });
    // No peers are all peers.
    for spec in [json!({ "podSelector": web(), "ingress": [{}] }), from(json!([]))] {
        check(&[spec], &["client > web-1 80", "near > web-1 9/UDP"]);
    }
    // Pods of the policy's own namespace; neither the node's nor those that have ended.
    check(
        &[from(json!([{ "podSelector": clients() }]))],
        &["client > web-1 80", "!b/client > web-1 80", "!web-2 > web-1 80", "!ended > web-1 80", "!node > web-1 80"],
    );
    check(&[from(json!([{ "podSelector": {} }]))], &["web-2 > web-1 80", "client > web-1 80", "!b/web > web-1 80"]);
    // All pods of namespaces.
    let team_b = json!({ "matchLabels": { "team": "b" } });
    check(
        &[from(json!([{ "namespaceSelector": team_b }]))],
        &["b/client > web-1 80", "b/web > web-1 80", "c/client > web-1 80", "!client > web-1 80", "!near > web-1 80"],
    );
    check(
        &[from(json!([{ "namespaceSelector": {} }]))],
        &["b/web > web-1 80", "client > web-1 80", "!near > web-1 80"],
    );
    // Both in one peer must hold; in two peers one is enough.
    check(
        &[from(json!([{ "namespaceSelector": team_b, "podSelector": clients() }]))],
        &["b/client > web-1 80", "c/client > web-1 80", "!b/web > web-1 80", "!client > web-1 80"],
    );
    check(
        &[from(json!([{ "namespaceSelector": team_b }, { "podSelector": clients() }]))],
        &["b/web > web-1 80", "client > web-1 80", "!web-2 > web-1 80"],
    );
    // Blocks, whoever is in them.
    check(
        &[from(json!([{ "ipBlock": { "cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"] } }]))],
        &["near > web-1 80", "!far > web-1 80", "!client > web-1 80"],
    );
    check(&[from(json!([{ "ipBlock": { "cidr": "10.0.0.16/29" } }]))], &["client > web-1 80", "!b/client > web-1 80"]);
    check(&[from(json!([{ "ipBlock": { "cidr": "fd00::/8" } }]))], &["!near > web-1 80", "!client > web-1 80"]);
    check(
        &[
            json!({ "podSelector": web(), "policyTypes": ["Egress"], "egress": [{ "to": [{ "podSelector": clients() }] }] }),
        ],
        &["web-1 > client 80", "!web-1 > web-2 80", "!web-1 > near 80", "near > web-1 80"],
    );
}

#[test]
fn ports_are_numbers_ranges_and_names() {
    let ingress = |ports: Value| json!({ "podSelector": web(), "ingress": [{ "ports": ports }] });
    // TCP unless it says otherwise.
    check(
        &[ingress(json!([{ "port": 80 }]))],
        &["client > web-1 80", "near > web-1 80", "!client > web-1 81", "!client > web-1 80/UDP"],
    );
    check(&[ingress(json!([{ "port": 53, "protocol": "UDP" }]))], &["client > web-1 53/UDP", "!client > web-1 53"]);
    check(&[ingress(json!([{ "port": 53, "protocol": "SCTP" }]))], &["client > web-1 53/SCTP", "!client > web-1 53"]);
    check(&[ingress(json!([{ "protocol": "UDP" }]))], &["client > web-1 9/UDP", "!client > web-1 9"]);
    check(
        &[ingress(json!([{ "port": 80, "endPort": 90 }, { "port": 443 }]))],
        &["!client > web-1 79", "client > web-1 80", "client > web-1 90", "!client > web-1 91", "client > web-1 443"],
    );
    for everything in [json!([]), json!(null)] {
        check(&[ingress(everything)], &["client > web-1 9", "client > web-1 9/SCTP"]);
    }
    // By name: each pod's own number, also a sidecar's, and of this protocol.
    check(
        &[ingress(json!([{ "port": "http" }]))],
        &[
            "client > web-1 8080",
            "!client > web-1 9090",
            "!client > web-1 8053/UDP",
            "client > web-2 9090",
            "!client > web-2 8080",
            "!client > web-2 7070",
        ],
    );
    check(
        &[ingress(json!([{ "port": "http", "protocol": "UDP" }]))],
        &["client > web-1 8053/UDP", "!client > web-1 8080", "!client > web-2 9090/UDP"],
    );
    check(&[ingress(json!([{ "port": "none" }]))], &["!client > web-1 8080"]);
    // For egress the name is the other pod's.
    let egress = |to: Value| {
        let rule = json!({ "to": to, "ports": [{ "port": "http" }] });
        json!({ "podSelector": clients(), "policyTypes": ["Egress"], "egress": [rule] })
    };
    let own = ["client > web-1 8080", "client > web-2 9090", "!client > web-1 9090", "!client > web-2 8080"];
    check(&[egress(json!([{ "podSelector": web() }]))], &[&own[..], &["!client > b/web 80"]].concat());
    check(&[egress(json!([]))], &[&own[..], &["client > b/web 80", "!client > near 80", "!client > node 80"]].concat());
    check(&[egress(json!([{ "ipBlock": { "cidr": "0.0.0.0/0" } }]))], &["!client > web-1 8080", "!client > near 80"]);
}

#[test]
fn policies_and_rules_add_up() {
    let deny = json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] });
    let web_in = json!({ "podSelector": web(), "ingress": [
        { "from": [{ "podSelector": clients() }], "ports": [{ "port": 80 }] },
        { "from": [{ "ipBlock": { "cidr": "192.0.2.0/25" } }], "ports": [{ "port": 443 }] },
    ] });
    check(
        std::slice::from_ref(&web_in),
        &["client > web-1 80", "!client > web-1 443", "near > web-1 443", "!near > web-1 80"],
    );
    // Both ends must allow it.
    check(&[deny.clone(), web_in.clone()], &["near > web-1 443", "!client > web-1 80", "!web-1 > client 80"]);
    let client_out = json!({ "podSelector": clients(), "policyTypes": ["Egress"], "egress": [
        { "to": [{ "podSelector": web() }] },
        { "to": [{ "ipBlock": { "cidr": "198.51.100.53/32" } }], "ports": [{ "port": 53, "protocol": "UDP" }] },
    ] });
    check(
        &[deny, web_in.clone(), client_out],
        &["client > web-1 80", "!client > web-1 81", "client > dns 53/UDP", "!client > dns 53", "!client > near 80"],
    );
    // One allows what another does not speak of.
    let more = json!({ "podSelector": web(), "ingress": [{ "from": [{ "namespaceSelector": {} }] }] });
    check(&[web_in, more], &["b/web > web-1 9999", "client > web-1 22/UDP", "near > web-1 443", "!far > web-1 443"]);
}

#[test]
fn pods_under_the_same_policies_share_their_rules() {
    let number = json!({ "podSelector": {}, "ingress": [{ "ports": [{ "port": 80 }] }] });
    let shared = model(std::slice::from_ref(&number));
    assert_eq!((shared.allowed.len(), shared.ingress.len(), shared.egress.len()), (1, 3, 0));
    // What comes out the same is the same, whatever led to it.
    let again = model(&[number, json!({ "podSelector": web(), "ingress": [{ "ports": [{ "port": 80 }] }] })]);
    assert_eq!(again.allowed.len(), 1);
    let named = model(&[json!({ "podSelector": {}, "ingress": [{ "ports": [{ "port": "http" }] }] })]);
    assert_eq!(named.allowed.len(), 3, "8080, 9090 and none");
    // A pod of IPv6 alone, and one without an address yet, are in no map.
    assert!(named.ingress.keys().all(|address| ADDRESSES.iter().any(|known| known.1 == *address)));
}
