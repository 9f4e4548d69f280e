//! Tables: defaults, validation, dependent fields, cells, allocation of Services.

use registry::allocate::{AllocatorConfig, Allocators};
use registry::kind::Kind;
use serde_json::{Value, json};

use super::{Service, allocation, fields};
use crate::testing::{CREATED, check_defaults, defaulted, errors, object, row, update_errors, with};

fn service(spec: Value) -> Value {
    json!({"metadata": {"name": "web", "namespace": "default", "creationTimestamp": CREATED}, "spec": spec})
}

fn plain() -> Value {
    service(json!({"selector": {"app": "web"}, "ports": [{"port": 80}]}))
}

#[test]
fn defaults() {
    check_defaults::<Service>(
        plain(),
        &service(json!({
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        })),
    );
    check_defaults::<Service>(
        service(
            json!({"type": "NodePort", "sessionAffinity": "ClientIP", "ports": [{"port": 80, "targetPort": "http"}]}),
        ),
        &service(json!({
            "type": "NodePort", "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
            "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": "http"}],
        })),
    );
}

#[test]
fn validation() {
    let cases: Vec<(&str, Value, Vec<&str>)> = vec![
        ("/metadata/labels", json!({}), vec![]),
        ("/spec/ports", json!([]), vec!["spec.ports: Required value"]),
        (
            "/spec/type",
            json!("X"),
            vec![
                "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ],
        ),
        (
            "/spec/ports",
            json!([{"port": 0, "targetPort": 1}]),
            vec!["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
        ),
        (
            "/spec/ports",
            json!([{"port": 1}, {"port": 2}]),
            vec!["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
        ),
        (
            "/spec/ports",
            json!([{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]),
            vec!["spec.ports[1].name: Duplicate value: \"a\""],
        ),
        (
            "/spec/ports",
            json!([{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]),
            vec!["spec.ports[1]: Duplicate value: {\"port\":1,\"protocol\":\"TCP\"}"],
        ),
        (
            "/spec/ports",
            json!([{"port": 1, "nodePort": 30080}]),
            vec!["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        ),
        (
            "/spec/ports",
            json!([{"port": 1, "protocol": "ICMP"}]),
            vec!["spec.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\""],
        ),
        (
            "/spec/sessionAffinity",
            json!("Cookie"),
            vec!["spec.sessionAffinity: Unsupported value: \"Cookie\": supported values: \"ClientIP\", \"None\""],
        ),
        (
            "/spec/clusterIP",
            json!("10.96.0.300"),
            vec![
                "spec.clusterIPs[0]: Invalid value: \"10.96.0.300\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ],
        ),
        (
            "/spec/externalIPs",
            json!(["127.0.0.1"]),
            vec![
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ],
        ),
        (
            "/spec/externalTrafficPolicy",
            json!("Local"),
            vec![
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ],
        ),
        (
            "/spec/loadBalancerClass",
            json!("x"),
            vec!["spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'"],
        ),
    ];
    for (pointer, value, expect) in cases {
        let mut input = with(plain(), pointer, value.clone());
        if let Some(ip) = input["spec"]["clusterIP"].as_str().map(str::to_owned) {
            input["spec"]["clusterIPs"] = json!([ip]);
        }
        assert_eq!(errors::<Service>(input), expect, "{pointer} = {value}");
    }
    let headless_node_port =
        service(json!({"type": "NodePort", "clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]}));
    assert_eq!(
        errors::<Service>(headless_node_port),
        ["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"]
    );
    assert_eq!(errors::<Service>(service(json!({"type": "ExternalName"}))), ["spec.externalName: Required value"]);
    assert_eq!(errors::<Service>(service(json!({"type": "ExternalName", "externalName": "a.example."}))), [""; 0]);
}

/// A stored Service: defaulted, prepared, allocated.
fn stored(value: Value, allocators: &Allocators) -> super::Object {
    let mut new = defaulted::<Service>(value);
    let spec = new.spec.get_or_insert_default();
    fields::mirror_cluster_ip(spec);
    fields::default_families(spec);
    assert_eq!(Service::validate(&new).to_string(), "[]");
    allocation::allocate(&mut new, None, allocators).expect("free").committed();
    new
}

fn refused(value: Value, allocators: &Allocators) -> String {
    let mut new = defaulted::<Service>(value);
    fields::mirror_cluster_ip(new.spec.get_or_insert_default());
    match allocation::allocate(&mut new, None, allocators) {
        Ok(_) => panic!("allocated"),
        Err(error) => error.to_string(),
    }
}

/// Updates a stored Service as the write path does.
fn updated(old: &super::Object, value: Value, allocators: &Allocators) -> super::Object {
    let mut new = defaulted::<Service>(value);
    Service::prepare_update(&mut new, old);
    assert_eq!(Service::validate(&new).to_string(), "[]");
    assert_eq!(Service::validate_update(&new, old).to_string(), "[]");
    allocation::allocate(&mut new, Some(old), allocators).expect("free").committed();
    new
}

#[test]
fn what_a_service_is_given() {
    let allocators = Allocators::new(&AllocatorConfig::default());
    let spec = stored(plain(), &allocators).spec.expect("spec");
    assert_eq!(spec.cluster_ips.as_deref(), spec.cluster_ip.clone().map(|ip| vec![ip]).as_deref());
    assert_eq!(spec.ip_families, Some(vec!["IPv4".to_owned()]));
    assert_eq!(spec.ip_family_policy.as_deref(), Some("SingleStack"));

    let headless = service(json!({"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 80}]}));
    let spec = stored(headless, &allocators).spec.expect("spec");
    assert_eq!((spec.cluster_ip.as_deref(), spec.cluster_ips), (Some("None"), Some(vec!["None".to_owned()])));

    let dns = service(json!({"type": "NodePort", "ports": [
        {"name": "udp", "port": 53, "protocol": "UDP"}, {"name": "tcp", "port": 53, "protocol": "TCP"}]}));
    let ports = stored(dns, &allocators).spec.expect("spec").ports.expect("ports");
    assert!(ports[0].node_port.is_some_and(|port| (30_000..=32_767).contains(&port)));
    assert_eq!(ports[0].node_port, ports[1].node_port, "one number serves both protocols");

    let external = stored(service(json!({"type": "ExternalName", "externalName": "a.example"})), &allocators);
    let spec = external.spec.expect("spec");
    assert_eq!((spec.cluster_ip, spec.ip_families, spec.ip_family_policy), (None, None, None));
}

#[test]
fn what_is_refused() {
    let allocators = Allocators::new(&AllocatorConfig::default());
    let fixed = |ip: &str, port: i32| {
        service(json!({"type": "NodePort", "clusterIP": ip, "ports": [{"port": 80, "nodePort": port}]}))
    };
    let first = stored(fixed("10.96.0.20", 30_080), &allocators);
    for (value, expect) in [
        (
            fixed("10.96.0.20", 30_081),
            "Service \"web\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.20\"]: failed to allocate IP 10.96.0.20: provided IP is already allocated",
        ),
        (
            fixed("10.97.0.1", 30_081),
            "Service \"web\" is invalid: spec.clusterIPs: Invalid value: [\"10.97.0.1\"]: failed to allocate IP 10.97.0.1: the provided IP (10.97.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16",
        ),
        (
            fixed("10.96.0.21", 30_080),
            "Service \"web\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated",
        ),
        (
            fixed("10.96.0.21", 80),
            "Service \"web\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
        ),
    ] {
        assert_eq!(refused(value, &allocators), expect);
    }
    // What a refused write took before it was refused is free again.
    stored(fixed("10.96.0.21", 30_081), &allocators);
    allocation::release(&first, &allocators);
    stored(fixed("10.96.0.20", 30_080), &allocators);
}

#[test]
fn what_a_load_balancer_gives_is_had_once() {
    let allocators = Allocators::new(&AllocatorConfig::default());
    let balanced = json!({"type": "LoadBalancer", "ports": [{"port": 80}]});
    let mut first = stored(service(balanced.clone()), &allocators);
    let own = first.spec.as_ref().and_then(|spec| spec.cluster_ip.clone()).expect("a cluster IP");
    let second = stored(service(balanced), &allocators);
    let give = |to: &super::Object, addresses: &[&str]| {
        let ingress: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
        let mut new = to.clone();
        new.status = serde_json::from_value(json!({"loadBalancer": {"ingress": ingress}})).expect("a status");
        let reservation = allocation::allocate_status(&new, to, &allocators).map_err(|error| error.message)?;
        reservation.committed();
        Ok::<_, String>(new)
    };
    let refusal = |index, ip: &str| {
        Err(format!(
            "Service \"web\" is invalid: status.loadBalancer.ingress[{index}].ip: Invalid value: \"{ip}\": failed to \
             allocate IP {ip}: provided IP is already allocated"
        ))
    };
    // Its own cluster IP, addresses of others' ranges, and one that is free.
    first = give(&first, &[&own, "192.0.2.1", "10.96.0.30"]).expect("free");
    assert_eq!(give(&second, &["192.0.2.1", "10.96.0.30"]).map(drop), refusal(1, "10.96.0.30"));
    assert_eq!(give(&second, &[&own]).map(drop), refusal(0, &own));
    let fixed = || service(json!({"clusterIP": "10.96.0.30", "ports": [{"port": 80}]}));
    assert!(refused(fixed(), &allocators).contains("already allocated"));
    // A change of the Service itself keeps what it was given; what the status no longer has is free.
    let manifest = serde_json::to_value(&first).expect("JSON");
    first = updated(&first, manifest, &allocators);
    assert!(refused(fixed(), &allocators).contains("already allocated"));
    first = give(&first, &[&own]).expect("its own");
    stored(fixed(), &allocators);
    first = give(&first, &["10.96.0.31"]).expect("free");
    // Its cluster IP stays its own.
    assert_eq!(give(&second, &[&own]).map(drop), refusal(0, &own));
    allocation::release(&first, &allocators);
    give(&second, &[&own, "10.96.0.31"]).expect("free");
}

#[test]
fn a_manifest_applied_again_keeps_what_was_allocated() {
    let allocators = Allocators::new(&AllocatorConfig::default());
    let manifest = service(json!({"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80}]}));
    let old = stored(manifest.clone(), &allocators);
    let new = updated(&old, manifest, &allocators);
    assert_eq!(new.spec, old.spec);
}

#[test]
fn a_change_of_type_takes_and_gives_back() {
    let allocators = Allocators::new(&AllocatorConfig::default());
    let manifest =
        |kind: &str, port: Option<i32>| service(json!({"type": kind, "ports": [{"port": 80, "nodePort": port}]}));
    let cluster = stored(manifest("ClusterIP", None), &allocators);
    let node = updated(&cluster, manifest("NodePort", Some(30_080)), &allocators);
    assert_eq!(
        refused(manifest("NodePort", Some(30_080)), &allocators).split(": ").last(),
        Some("provided port is already allocated")
    );
    let mut back = serde_json::to_value(&node).expect("JSON");
    back["spec"]["type"] = json!("ClusterIP");
    let back = updated(&node, back, &allocators);
    let spec = back.spec.as_ref().expect("spec");
    assert_eq!(spec.ports.as_ref().expect("ports")[0].node_port, None);
    assert_eq!(spec.external_traffic_policy, None);
    assert_eq!(spec.cluster_ip, cluster.spec.expect("spec").cluster_ip);
    stored(manifest("NodePort", Some(30_080)), &allocators);
    let external = updated(&back, service(json!({"type": "ExternalName", "externalName": "a.example"})), &allocators);
    let address = spec.cluster_ip.clone().expect("an address");
    assert_eq!(external.spec.expect("spec").cluster_ips, None);
    stored(service(json!({"clusterIP": address, "ports": [{"port": 80}]})), &allocators);
}

#[test]
fn the_cluster_ip_is_fixed() {
    let with_ip = |ip: &str| service(json!({"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]}));
    assert_eq!(
        update_errors::<Service>(with_ip("10.96.0.5"), with_ip("10.96.0.6")),
        ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.6\"]: may not change once set"]
    );
    let only_old_name =
        service(json!({"clusterIP": "10.96.0.6", "clusterIPs": ["10.96.0.5"], "ports": [{"port": 80}]}));
    assert_eq!(
        update_errors::<Service>(with_ip("10.96.0.5"), only_old_name),
        ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.6\"]: may not change once set"]
    );
}

#[test]
fn cells() {
    let cases = [
        (
            json!({"type": "ClusterIP", "clusterIPs": ["10.96.0.5"], "ports": [{"port": 80, "protocol": "TCP"}]}),
            ["ClusterIP", "10.96.0.5", "<none>", "80/TCP", "<none>"],
        ),
        (
            json!({"type": "NodePort", "clusterIPs": ["10.96.0.5"], "selector": {"b": "2", "a": "1"},
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]}),
            ["NodePort", "10.96.0.5", "<none>", "80:30080/TCP,53/UDP", "a=1,b=2"],
        ),
        (json!({"type": "ClusterIP", "clusterIPs": ["None"]}), ["ClusterIP", "None", "<none>", "<none>", "<none>"]),
        (
            json!({"type": "ExternalName", "externalName": "a.example"}),
            ["ExternalName", "<none>", "a.example", "<none>", "<none>"],
        ),
        (
            json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.5"]}),
            ["LoadBalancer", "10.96.0.5", "<pending>", "<none>", "<none>"],
        ),
    ];
    for (spec, [kind, cluster, external, ports, selector]) in cases {
        assert_eq!(row::<Service>(service(spec)), ["web", kind, cluster, external, ports, "10m", selector]);
    }
    let mut balanced =
        service(json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.5"], "externalIPs": ["1.2.3.4"]}));
    balanced["status"] = json!({"loadBalancer": {"ingress": [{"ip": "9.9.9.9"}, {"hostname": "lb.example"}]}});
    assert_eq!(row::<Service>(balanced)[3], "9.9.9.9,lb.example,1.2.3.4");
    assert_eq!(
        Service::fields(&object::<Service>(service(json!({"type": "ClusterIP", "clusterIP": "10.96.0.5"})))),
        [("spec.clusterIP", "10.96.0.5".to_owned()), ("spec.type", "ClusterIP".to_owned())]
    );
}

#[test]
fn fields_without_effect_are_warned_of() {
    for (spec, expect) in [
        (json!({"type": "ClusterIP", "sessionAffinity": "None"}), &[][..]),
        (
            json!({"type": "NodePort", "externalIPs": ["192.0.2.9"], "externalName": "x"}),
            &[
                "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            ],
        ),
        (
            json!({"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "ClientIP"}),
            &["spec.SessionAffinity is ignored for headless services"],
        ),
        (
            json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"], "externalTrafficPolicy": "Local",
                "internalTrafficPolicy": "Cluster", "sessionAffinity": "None"}),
            &["spec.externalTrafficPolicy: not enforced: endpoints of all nodes are used, as with Cluster"],
        ),
    ] {
        let service = object::<Service>(json!({"metadata": {"name": "s"}, "spec": spec}));
        assert_eq!(Service::warnings(&service, None), expect);
        let again = Service::warnings(&service, Some(&service));
        assert!(again.iter().all(|warning| !warning.contains("not enforced")), "{again:?}");
    }
}
