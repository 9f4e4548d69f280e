//! GatewayClasses, Gateways and their listeners.

use super::*;
use crate::testing::{certificate, secret};

const FINE: [&str; 4] = [
    "Accepted=True/Accepted",
    "Programmed=True/Programmed",
    "ResolvedRefs=True/ResolvedRefs",
    "Conflicted=False/NoConflicts",
];

/// The conditions of a Gateway, and of its listeners.
fn status(cluster: &Cluster, name: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let status = &cluster.statuses()[&format!("Gateway a/{name}")]["status"];
    let listeners = status["listeners"].as_array().unwrap();
    (conditions(&status["conditions"]), listeners.iter().map(|one| conditions(&one["conditions"])).collect())
}

#[test]
fn a_gateway_that_is_served() {
    let mut cluster = Cluster::new().gateway("gw", &[http("http", None)]);
    cluster.gateways[0]["status"] = json!({ "conditions": [
        { "type": "Theirs", "status": "True", "reason": "Theirs" },
        { "type": "Accepted", "status": "Unknown", "reason": "Pending", "lastTransitionTime": "1970-01-01T00:00:00Z" },
    ] });
    let statuses = cluster.statuses();
    let status = &statuses["Gateway a/gw"]["status"];
    let expected = ["Theirs=True/Theirs", "Accepted=True/Accepted", "Programmed=True/Programmed"];
    assert_eq!(conditions(&status["conditions"]), expected);
    assert_eq!(status["conditions"][1]["observedGeneration"], 3);
    assert_eq!(status["addresses"], json!([{ "type": "IPAddress", "value": "192.0.2.1" }]));
    let listener = &status["listeners"][0];
    assert_eq!(conditions(&listener["conditions"]), FINE);
    let kinds = json!([{ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute" }]);
    assert_eq!(
        (&listener["name"], &listener["supportedKinds"], &listener["attachedRoutes"]),
        (&json!("http"), &kinds, &json!(0))
    );
    assert_eq!(conditions(&statuses["GatewayClass coracle"]["status"]["conditions"]), ["Accepted=True/Accepted"]);

    // All of it is written once.
    cluster.gateways[0]["status"] = status.clone();
    cluster.classes[0]["status"] = statuses["GatewayClass coracle"]["status"].clone();
    assert_eq!(cluster.statuses(), BTreeMap::new());
    cluster.gateways[0]["metadata"]["generation"] = 4.into();
    let bumped = &cluster.statuses()["Gateway a/gw"]["status"];
    for conditions in [&bumped["conditions"], &bumped["listeners"][0]["conditions"]] {
        let ours = conditions.as_array().unwrap().iter().filter(|one| one["type"] != "Theirs");
        assert!(ours.clone().all(|one| one["observedGeneration"] == 4), "{conditions}");
    }
}

/// The cases of the conformance tests (`httproute-https-listener-detect-misdirected-requests.go`).
#[test]
fn requests_that_come_by_a_connection_for_another_listener() {
    let names = [None, Some("second.org"), Some("*.wildcard.org"), Some("fourth.wildcard.org")];
    let listeners: Vec<Value> = names.iter().enumerate().map(|(n, name)| http(&format!("l{n}"), *name)).collect();
    let hosts = ["example.org", "unknown.org", "second.org", "third.wildcard.org", "fourth.wildcard.org"];
    Cluster::new().gateway("gw", &listeners).compile(|_, sites| {
        let entry = &sites.0[&(Site::Shared, 80)];
        for server_name in hosts {
            let misdirected = hosts.map(|host| entry.is_misdirected(server_name, host));
            let expected = match server_name {
                "example.org" | "unknown.org" => [false, false, true, true, true],
                "second.org" => [true, true, false, true, true],
                "third.wildcard.org" => [true, true, true, false, true],
                _ => [true, true, true, true, false],
            };
            assert_eq!(misdirected, expected, "{server_name}");
        }
        assert!(!entry.is_misdirected("third.wildcard.org", "fifth.wildcard.org"), "one listener");
    });
}

#[test]
fn the_features_of_a_class_are_in_the_order_of_the_alphabet() {
    let statuses = Cluster::new().statuses();
    let said = statuses["GatewayClass coracle"]["status"]["supportedFeatures"].as_array().unwrap();
    let names: Vec<&str> = said.iter().map(|feature| feature["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted() && names.contains(&"HTTPRoute") && names.len() <= 64, "{names:?}");
}

#[test]
fn what_is_of_another_class_is_left_alone() {
    let mut cluster = Cluster::new().gateway("gw", &[http("http", None)]);
    cluster
        .classes
        .push(json!({ "metadata": { "name": "theirs" }, "spec": { "controllerName": "example.com/theirs" } }));
    cluster.classes.push(json!({ "metadata": { "name": "broken" }, "spec": { "controllerName": 7 } }));
    cluster.gateways[0]["spec"]["gatewayClassName"] = "theirs".into();
    assert_eq!(cluster.statuses().keys().collect::<Vec<_>>(), ["GatewayClass coracle"]);
    assert_eq!(cluster.answer(80, &get("foo.com", "/")), "closed");
    cluster.gateways[0]["spec"]["gatewayClassName"] = "coracle".into();
    cluster.classes[0]["spec"]["parametersRef"] = json!({ "group": "", "kind": "ConfigMap", "name": "p" });
    let statuses = cluster.statuses();
    assert_eq!(statuses.keys().collect::<Vec<_>>(), ["GatewayClass coracle"]);
    let said = conditions(&statuses["GatewayClass coracle"]["status"]["conditions"]);
    assert_eq!(said, ["Accepted=False/InvalidParameters"]);
}

#[test]
fn listeners_that_are_not_served() {
    let check = |listener: Value, kinds: usize, expected: [&str; 4]| {
        let cluster = Cluster::new().gateway("gw", &[listener.clone(), http("fine", Some("fine.com"))]);
        let (gateway, listeners) = status(&cluster, "gw");
        assert_eq!(listeners[0], expected, "{listener}");
        assert_eq!(listeners[1], FINE, "{listener}");
        assert_eq!(gateway, ["Accepted=True/ListenersNotValid", "Programmed=True/Programmed"], "{listener}");
        let supported = cluster.statuses()["Gateway a/gw"]["status"]["listeners"][0]["supportedKinds"].clone();
        assert_eq!(supported.as_array().unwrap().len(), kinds, "{listener}");
        let alone = Cluster::new().gateway("gw", std::slice::from_ref(&listener));
        let is_served = expected[1] == FINE[1];
        assert_eq!(status(&alone, "gw").0[0] == "Accepted=True/ListenersNotValid", is_served, "{listener}");
    };
    let [accepted, programmed, resolved, no_conflict] = FINE;
    let not_programmed = "Programmed=False/Invalid";
    let tcp = json!({ "name": "x", "port": 81, "protocol": "TCP" });
    check(tcp, 0, ["Accepted=False/UnsupportedProtocol", not_programmed, resolved, no_conflict]);
    let kinds =
        |kinds: Value| json!({ "name": "x", "port": 81, "protocol": "HTTP", "allowedRoutes": { "kinds": kinds } });
    let invalid = "ResolvedRefs=False/InvalidRouteKinds";
    check(kinds(json!([{ "kind": "TCPRoute" }])), 0, [accepted, programmed, invalid, no_conflict]);
    check(
        kinds(json!([{ "kind": "TCPRoute" }, { "kind": "HTTPRoute" }])),
        1,
        [accepted, programmed, invalid, no_conflict],
    );
    check(
        kinds(json!([{ "kind": "HTTPRoute", "group": "example.com" }])),
        0,
        [accepted, programmed, invalid, no_conflict],
    );
    let tls = |tls: Value| json!({ "name": "x", "port": 443, "protocol": "HTTPS", "tls": tls });
    let invalid = "ResolvedRefs=False/InvalidCertificateRef";
    check(tls(json!({})), 1, [accepted, not_programmed, invalid, no_conflict]);
    let passed = "Accepted=False/UnsupportedValue";
    check(tls(json!({ "mode": "Passthrough" })), 1, [passed, not_programmed, invalid, no_conflict]);
    let clients = json!({ "frontendValidation": { "caCertificateRefs": [] } });
    check(tls(clients), 1, [passed, not_programmed, invalid, no_conflict]);
    let gone = json!({ "certificateRefs": [{ "name": "gone" }] });
    check(tls(gone), 1, [accepted, not_programmed, invalid, no_conflict]);
    let kind = json!({ "certificateRefs": [{ "name": "gone", "kind": "ConfigMap" }] });
    check(tls(kind), 1, [accepted, not_programmed, invalid, no_conflict]);
    let group = json!({ "certificateRefs": [{ "name": "gone", "group": "example.com" }] });
    check(tls(group), 1, [accepted, not_programmed, invalid, no_conflict]);
    let elsewhere = json!({ "certificateRefs": [{ "name": "cert", "namespace": "b" }] });
    check(tls(elsewhere), 1, [accepted, not_programmed, "ResolvedRefs=False/RefNotPermitted", no_conflict]);
}

#[test]
fn listeners_with_certificates() {
    let listener = |name: &str, hostname: &str, secret: &str, namespace: &str| {
        json!({ "name": name, "port": 443, "protocol": "HTTPS", "hostname": hostname,
            "tls": { "certificateRefs": [{ "name": secret, "namespace": namespace }] } })
    };
    let mut cluster = Cluster::new()
        .gateway("gw", &[listener("one", "one.com", "one", "a"), listener("two", "*.two.com", "two", "b")])
        .route("a", "r", route("gw", &[], &[rule("/", "v1")]));
    let [one, two] = ["one.com", "*.two.com"].map(certificate);
    cluster.objects = std::mem::take(&mut cluster.objects)
        .secret(secret("a", "one", "1", &one))
        .secret(secret("b", "two", "1", &two));
    cluster.grants = vec![json!({ "metadata": { "namespace": "b", "name": "grant" }, "spec": {
        "from": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "a" }],
        "to": [{ "group": "", "kind": "Secret", "name": "two" }],
    } })];
    assert_eq!(status(&cluster, "gw").1, [FINE, FINE]);
    let certified = |host: &str| {
        cluster.compile(|_, sites| {
            let tls = sites.0[&(Site::Shared, 443)].tls.as_ref().unwrap();
            assert!(!tls.or_default);
            tls.by_host.matching(host).next().map(|(_, found)| found.cert.clone())
        })
    };
    let of = |(chain, key): &(String, String)| {
        crate::certificate::certified(chain.as_bytes(), key.as_bytes()).unwrap().cert.clone()
    };
    assert_eq!(certified("one.com"), Some(of(&one)));
    assert_eq!(certified("a.b.two.com"), Some(of(&two)));
    assert_eq!(certified("three.com"), None);
    assert_eq!(cluster.answer(443, &get("one.com", "/")), "a/v1");
}

#[test]
fn listeners_that_stand_against_each_other() {
    let listener = |name: &str, port: u16, protocol: &str| json!({ "name": name, "port": port, "protocol": protocol });
    let cluster = Cluster::new().gateway(
        "gw",
        &[
            http("a", Some("x.com")),
            http("b", Some("x.com")),
            http("c", Some("y.com")),
            listener("d", 81, "HTTP"),
            listener("e", 81, "HTTPS"),
        ],
    );
    let (gateway, listeners) = status(&cluster, "gw");
    assert_eq!(gateway, ["Accepted=True/ListenersNotValid", "Programmed=True/Programmed"]);
    let conflicts: Vec<&str> = listeners.iter().map(|listener| listener[3].as_str()).collect();
    let (hostname, protocol) = ("Conflicted=True/HostnameConflict", "Conflicted=True/ProtocolConflict");
    assert_eq!(conflicts, [hostname, hostname, FINE[3], protocol, protocol]);
    assert_eq!(listeners[0][..2], ["Accepted=False/HostnameConflict", "Programmed=False/Invalid"]);
    assert_eq!(listeners[2], FINE);
}

#[test]
fn gateways_that_share_an_address() {
    let tls =
        json!({ "name": "x", "port": 80, "protocol": "HTTPS", "tls": { "certificateRefs": [{ "name": "cert" }] } });
    let mut cluster = Cluster::new()
        .gateway("gw1", &[http("http", Some("one.com"))])
        .gateway("gw2", &[http("http", Some("two.com"))])
        .gateway("gw3", &[tls])
        .route("a", "one", route("gw1", &[], &[rule("/", "v1")]))
        .route("a", "two", route("gw2", &[], &[rule("/", "v2")]));
    cluster.objects = std::mem::take(&mut cluster.objects).secret(secret("a", "cert", "1", &certificate("x.com")));
    assert_eq!(cluster.answer(80, &get("one.com", "/")), "a/v1");
    assert_eq!(cluster.answer(80, &get("two.com", "/")), "a/v2");
    assert_eq!(status(&cluster, "gw3").1[0][..2], ["Accepted=False/PortUnavailable", "Programmed=False/Invalid"]);
    // A port that somebody else has on this machine.
    cluster.unavailable = vec![80];
    let (gateway, listeners) = status(&cluster, "gw1");
    assert_eq!(gateway, ["Accepted=False/ListenersNotValid", "Programmed=False/Invalid"]);
    assert_eq!(listeners[0][..2], ["Accepted=False/PortUnavailable", "Programmed=False/Invalid"]);
}

#[test]
fn addresses_of_gateways() {
    let check = |asked: &[(Value, Value)], expected: &[(Option<&str>, Option<&str>)]| {
        let gateways: Vec<Typed<GatewaySpec>> = asked
            .iter()
            .map(|(asked, current)| {
                crate::testing::typed(
                    json!({ "metadata": {}, "spec": { "addresses": asked }, "status": { "addresses": current } }),
                )
            })
            .collect();
        let addresses: Vec<IpAddr> = ["127.0.0.2", "127.0.0.3"].map(|ip| ip.parse().unwrap()).to_vec();
        let found: Vec<(Option<String>, Option<&str>)> = listeners::assign(&gateways, &addresses)
            .into_iter()
            .map(|(site, fault)| {
                let own = match site {
                    Site::Own(ip) => Some(ip.to_string()),
                    Site::Shared => None,
                };
                (own, fault.map(|fault| fault.reason))
            })
            .collect();
        let expected: Vec<_> = expected.iter().map(|(ip, reason)| (ip.map(str::to_owned), *reason)).collect();
        assert_eq!(found, expected, "{asked:?}");
    };
    let ip = |value: &str| json!([{ "type": "IPAddress", "value": value }]);
    let (none, two, three) = (json!([]), "127.0.0.2", "127.0.0.3");
    let any = || (none.clone(), none.clone());
    check(&[any(), any(), any()], &[(Some(two), None), (Some(three), None), (None, None)]);
    check(&[any(), (ip(two), none.clone())], &[(Some(three), None), (Some(two), None)]);
    check(&[any(), (none.clone(), ip(two))], &[(Some(three), None), (Some(two), None)]);
    check(&[any(), (none.clone(), ip("10.0.0.1"))], &[(Some(two), None), (Some(three), None)]);
    check(&[(ip("10.0.0.1"), none.clone()), any()], &[(None, Some("AddressNotUsable")), (Some(two), None)]);
    check(&[(ip(two), none.clone()), (ip(two), none.clone())], &[(Some(two), None), (None, Some("AddressNotUsable"))]);
    check(&[(json!([{ "value": "" }]), none.clone())], &[(Some(two), None)]);
    let name = json!([{ "type": "Hostname", "value": "foo.com" }]);
    check(&[(name, none.clone())], &[(None, Some("UnsupportedAddress"))]);
}

#[test]
fn gateways_that_ask_for_what_cannot_be_had() {
    let check = |change: fn(&mut Value), expected: [&str; 2]| {
        let mut cluster =
            Cluster::new().gateway("gw", &[http("http", None)]).route("a", "r", route("gw", &[], &[rule("/", "v1")]));
        change(&mut cluster.gateways[0]["spec"]);
        let (gateway, listeners) = status(&cluster, "gw");
        assert_eq!(gateway, expected);
        assert_eq!(listeners[0][1], "Programmed=False/Invalid");
        assert_eq!(cluster.answer(80, &get("foo.com", "/")), "closed");
        assert_eq!(cluster.statuses()["Gateway a/gw"]["status"]["addresses"], json!([]));
    };
    let address = |spec: &mut Value| spec["addresses"] = json!([{ "type": "IPAddress", "value": "10.9.9.9" }]);
    check(address, ["Accepted=True/Accepted", "Programmed=False/AddressNotUsable"]);
    let hostname = |spec: &mut Value| spec["addresses"] = json!([{ "type": "Hostname", "value": "foo.com" }]);
    check(hostname, ["Accepted=False/UnsupportedAddress", "Programmed=False/Invalid"]);
    let parameters = |spec: &mut Value| spec["infrastructure"] = json!({ "parametersRef": { "name": "p" } });
    check(parameters, ["Accepted=False/InvalidParameters", "Programmed=False/Invalid"]);
    let clients = |spec: &mut Value| spec["tls"] = json!({ "frontend": { "default": {} } });
    check(clients, ["Accepted=False/Invalid", "Programmed=False/Invalid"]);
}

#[test]
fn a_listener_without_routes_keeps_its_hostname() {
    let cluster = Cluster::new().gateway("gw", &[http("http", Some("foo.com"))]);
    cluster.compile(|_, sites| {
        assert!(sites.0[&(Site::Shared, 80)].listeners.contains(&HostPattern::of_gateway(Some("foo.com"))));
    });
}
