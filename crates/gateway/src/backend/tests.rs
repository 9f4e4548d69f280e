//! Services and slices in, endpoints out.

use serde_json::{Value, json};

use super::*;
use crate::testing::{TestObjects, slice};

fn check(spec: &Value, slices: &[Value], port: PortRef, expected: Result<(Protocol, &[&str]), &str>) {
    let service = json!({ "metadata": { "namespace": "a", "name": "web" }, "spec": spec });
    let objects = TestObjects::new().service(service).slices(slices.iter().cloned());
    let found = Backends::new(&objects).get(&ObjectKey::new("a", "web"), &port);
    let texts = |addresses: &[SocketAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    let found = found.map(|found| (found.protocol, texts(&found.addresses)));
    let expected =
        expected.map(|(protocol, addresses)| (protocol, addresses.iter().map(ToString::to_string).collect()));
    assert_eq!(found.map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{spec} {port}");
}

#[test]
fn ports_are_found_by_number_and_name() {
    let two = json!({ "ports": [{ "name": "http", "port": 80 }, { "name": "admin", "port": 81 }] });
    let slices = [
        slice("a", "web", ("http", 8080), &["10.0.0.2", "10.0.0.1"]),
        slice("a", "web", ("admin", 9090), &["10.0.0.1"]),
        slice("a", "other", ("http", 1), &["10.0.0.9"]),
    ];
    let number = PortRef::Number;
    let name = |name: &str| PortRef::Name(name.to_owned());
    let http: Result<_, &str> = Ok((Protocol::Http, &["10.0.0.1:8080", "10.0.0.2:8080"][..]));
    check(&two, &slices, number(80), http);
    check(&two, &slices, name("http"), http);
    check(&two, &slices, name("admin"), Ok((Protocol::Http, &["10.0.0.1:9090"])));
    check(&two, &slices, number(8080), Err("Service a/web has no port 8080"));
    check(&two, &slices, name("80"), Err("Service a/web has no port 80"));
    let only_udp = json!({ "ports": [{ "port": 80, "protocol": "UDP" }] });
    check(&only_udp, &[], number(80), Err("Service a/web has no port 80"));
    let external = json!({ "type": "ExternalName", "externalName": "example.com", "ports": [{ "port": 80 }] });
    check(&external, &[], number(80), Err("Service a/web is of type ExternalName, which leads out of the cluster"));
    let nobody = Backends::new(&TestObjects::new()).get(&ObjectKey::new("a", "no"), &number(80)).unwrap_err();
    assert_eq!(nobody.to_string(), "Service a/no does not exist");
}

#[test]
fn endpoints_that_can_answer() {
    let spec = json!({ "ports": [{ "port": 80 }] });
    let case = |endpoints: &[&str], expected: &[&str]| {
        check(&spec, &[slice("a", "web", ("", 80), endpoints)], PortRef::Number(80), Ok((Protocol::Http, expected)));
    };
    case(&[], &[]);
    case(&["10.0.0.1", "10.0.0.2 unready", "10.0.0.3 going"], &["10.0.0.1:80"]);
    case(&["10.0.0.2 unready", "10.0.0.3 going"], &["10.0.0.3:80"]);
    case(&["10.0.0.2 unready"], &[]);
    let mut six = slice("a", "web", ("", 80), &["fd00::1"]);
    six["addressType"] = "IPv6".into();
    check(&spec, &[six.clone()], PortRef::Number(80), Ok((Protocol::Http, &["[fd00::1]:80"])));
    let four = slice("a", "web", ("", 80), &["10.0.0.1"]);
    check(&spec, &[six, four], PortRef::Number(80), Ok((Protocol::Http, &["10.0.0.1:80"])));
}

#[test]
fn protocols_of_applications() {
    let case = |name: &str, expected: Result<Protocol, &str>| {
        let spec = json!({ "ports": [{ "port": 80, "appProtocol": name }] });
        check(&spec, &[], PortRef::Number(80), expected.map(|protocol| (protocol, &[][..])));
    };
    case("kubernetes.io/h2c", Ok(Protocol::H2c));
    case("grpc", Ok(Protocol::H2c));
    case("kubernetes.io/ws", Ok(Protocol::Http));
    case("http", Ok(Protocol::Http));
    case("example.com/mine", Ok(Protocol::Http));
    let why = "port 80 of Service a/web has the appProtocol kubernetes.io/wss, which is not supported";
    case("kubernetes.io/wss", Err(why));
}

#[test]
fn endpoints_take_turns() {
    let addresses: Vec<SocketAddr> = (1..=3).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
    let endpoints =
        Endpoints { name: String::new(), protocol: Protocol::Http, addresses, next: AtomicUsize::new(usize::MAX) };
    let turn = || endpoints.in_turn().map(|address| address.port()).collect::<Vec<_>>();
    let turns: Vec<Vec<u16>> = (0..4).map(|_| turn()).collect();
    assert_eq!(turns[1..], [vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2]], "{turns:?}");
    let none = Endpoints { addresses: Vec::new(), ..endpoints };
    assert_eq!(none.in_turn().count(), 0);
}
