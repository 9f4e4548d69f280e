//! Tables for the kinds of networking.k8s.io.

use registry::kind::Kind;
use serde_json::{Value, json};

use super::ingress::Ingress;
use super::ingress_class::IngressClass;
use super::ip_address::IPAddress;
use super::network_policy::NetworkPolicy;
use super::service_cidr::ServiceCIDR;
use crate::testing::{CREATED, check_defaults, errors, object, row, update_errors, with};

#[track_caller]
fn check<K: Kind>(base: &Value, cases: &[(&str, Value, &[&str])]) {
    assert_eq!(errors::<K>(base.clone()), [""; 0]);
    for (pointer, value, expect) in cases {
        assert_eq!(errors::<K>(with(base.clone(), pointer, value.clone())), *expect, "{pointer}");
    }
}

#[test]
fn ingresses() {
    let service = json!({"service": {"name": "web", "port": {"number": 80}}});
    let ingress = json!({
        "metadata": {"name": "web", "namespace": "default", "creationTimestamp": CREATED},
        "spec": {"rules": [{"host": "a.example", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": service}]}}]},
    });
    check::<Ingress>(
        &ingress,
        &[
            (
                "/spec/rules",
                json!([]),
                &["spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"],
            ),
            (
                "/spec/rules/0/host",
                json!("1.2.3.4"),
                &["spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address"],
            ),
            (
                "/spec/rules/0/http/paths/0/path",
                json!("/a//b"),
                &["spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'"],
            ),
            (
                "/spec/rules/0/http/paths/0/pathType",
                json!("Regex"),
                &[
                    "spec.rules[0].http.paths[0].pathType: Unsupported value: \"Regex\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
                ],
            ),
            (
                "/spec/defaultBackend",
                json!({"service": {"name": "web"}}),
                &["spec.defaultBackend: Required value: port name or number is required"],
            ),
        ],
    );
    let more = json!([{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}]);
    let status = json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "lb"}]}});
    assert_eq!(
        row::<Ingress>(with(with(ingress, "/spec/rules", more), "/status", status)),
        [json!("web"), json!("<none>"), json!("a,b,c + 1 more..."), json!("1.2.3.4,lb"), json!("80"), json!("10m")]
    );
}

#[test]
fn ingress_classes() {
    let class = json!({
        "metadata": {"name": "nginx", "creationTimestamp": CREATED},
        "spec": {"controller": "k8s.io/nginx", "parameters": {"apiGroup": "a.io", "kind": "Settings", "name": "s"}},
    });
    check::<IngressClass>(
        &class,
        &[
            (
                "/spec/controller",
                json!("nginx"),
                &[
                    "spec.controller: Invalid value: \"nginx\": must be a domain-prefixed path (such as \"acme.io/foo\")",
                ],
            ),
            (
                "/spec/parameters/scope",
                json!("Namespace"),
                &["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"],
            ),
            (
                "/spec/parameters/kind",
                json!("a/b"),
                &["spec.parameters.kind: Invalid value: \"a/b\": may not contain '/'"],
            ),
        ],
    );
    assert_eq!(
        row::<IngressClass>(class),
        [json!("nginx"), json!("k8s.io/nginx"), json!("Settings.a.io/s"), json!("10m")]
    );
}

#[test]
fn network_policies() {
    let policy = json!({
        "metadata": {"name": "p", "namespace": "default", "creationTimestamp": CREATED},
        "spec": {
            "podSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 80}]}],
        },
    });
    check_defaults::<NetworkPolicy>(
        policy.clone(),
        &with(
            with(policy.clone(), "/spec/policyTypes", json!(["Ingress"])),
            "/spec/ingress/0/ports/0/protocol",
            json!("TCP"),
        ),
    );
    check::<NetworkPolicy>(
        &policy,
        &[
            (
                "/spec/ingress/0/from/0/ipBlock/except",
                json!(["10.1.0.0/16", "11.0.0.0/16", "10.0.0.0/8"]),
                &[
                    "spec.ingress[0].from[0].ipBlock.except[1]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
                    "spec.ingress[0].from[0].ipBlock.except[2]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
                ],
            ),
            (
                "/spec/ingress/0/ports/0/protocol",
                json!(""),
                &[
                    "spec.ingress[0].ports[0].protocol: Unsupported value: \"\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
                ],
            ),
            (
                "/spec/ingress/0/from/0/podSelector",
                json!({}),
                &["spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer"],
            ),
            (
                "/spec/ingress/0/from/0/ipBlock",
                Value::Null,
                &["spec.ingress[0].from[0]: Required value: must specify a peer"],
            ),
            (
                "/spec/ingress/0/ports/0/endPort",
                json!(79),
                &["spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`"],
            ),
            (
                "/spec/policyTypes",
                json!(["Sideways"]),
                &["spec.policyTypes[0]: Unsupported value: \"Sideways\": supported values: \"Egress\", \"Ingress\""],
            ),
        ],
    );
    assert_eq!(row::<NetworkPolicy>(policy), [json!("p"), json!("app=web"), json!("10m")]);
}

#[test]
fn addresses() {
    let range = json!({"metadata": {"name": "r", "creationTimestamp": CREATED}, "spec": {"cidrs": ["10.0.0.0/16"]}});
    check::<ServiceCIDR>(
        &range,
        &[("/spec/cidrs", json!([]), &["spec.cidrs: Required value: at least one CIDR required"])],
    );
    let grown = with(range.clone(), "/spec/cidrs", json!(["10.0.0.0/16", "fd00::/112"]));
    assert_eq!(update_errors::<ServiceCIDR>(range.clone(), grown), [""; 0]);
    assert_eq!(
        update_errors::<ServiceCIDR>(range.clone(), with(range.clone(), "/spec/cidrs", json!(["10.1.0.0/16"]))),
        ["spec.cidrs: Invalid value: [\"10.1.0.0/16\"]: field is immutable"]
    );
    assert_eq!(row::<ServiceCIDR>(range), [json!("r"), json!("10.0.0.0/16"), json!("10m")]);
    let address = json!({
        "metadata": {"name": "10.0.0.1", "creationTimestamp": CREATED},
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "kubernetes"}},
    });
    check::<IPAddress>(
        &address,
        &[
            (
                "/metadata/name",
                json!("2001:db8:0::1"),
                &["metadata.name: Invalid value: \"2001:db8:0::1\": must be a canonical format IP address"],
            ),
            ("/spec/parentRef/name", json!(""), &["spec.parentRef.name: Required value"]),
        ],
    );
    assert_eq!(row::<IPAddress>(address), [json!("10.0.0.1"), json!("services/default/kubernetes"), json!("10m")]);
}

#[test]
fn what_nothing_acts_on_is_warned_of() {
    let ingress = json!({"metadata": {"name": "i", "annotations": {"kubernetes.io/ingress.class": "nginx"}}});
    let old_class =
        "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead";
    let by_annotation = object::<Ingress>(ingress.clone());
    assert_eq!(Ingress::warnings(&by_annotation, None), [old_class]);
    let both = object::<Ingress>(with(ingress, "/spec", json!({"ingressClassName": "nginx"})));
    assert_eq!(Ingress::warnings(&both, None), [""; 0]);
}
