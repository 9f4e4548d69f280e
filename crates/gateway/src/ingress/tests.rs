//! Ingresses in, answers to requests out.

use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::*;
use crate::route::Wanted;
use crate::testing::{TestObjects, certificate, parse, secret};

/// An Ingress that was made at this second.
fn ingress(name: &str, second: u8, spec: Value) -> Arc<Ingress> {
    Arc::new(parse(json!({
        "metadata": { "namespace": "a", "name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z") },
        "spec": spec,
    })))
}

/// A rule for a host: type, path and Service.
fn rule(host: &str, paths: &[(&str, &str, &str)]) -> Value {
    let paths = paths
        .iter()
        .map(|(type_, path, service)| json!({ "pathType": type_, "path": path, "backend": backend(service) }));
    let mut rule = json!({ "http": { "paths": paths.collect::<Vec<_>>() } });
    if !host.is_empty() {
        rule["host"] = host.into();
    }
    rule
}

fn backend(service: &str) -> Value {
    json!({ "service": { "name": service, "port": { "number": 80 } } })
}

/// Services with these names.
fn services(names: &[&str]) -> TestObjects {
    names.iter().fold(TestObjects::new(), |objects, name| objects.web("a", name, ("", 80), &["10.0.0.1"]))
}

fn compile_all(ingresses: &[Arc<Ingress>], objects: &TestObjects) -> Compiled {
    compile(ingresses, &mut Backends::new(objects), &mut CertificateCache::default())
}

/// The Service that a request leads to, the status where there is none, or 404.
fn answer(entry: &EntryPoint, host: &str, path: &str) -> String {
    let headers = HeaderMap::new();
    let wanted = Wanted { host, method: &Method::GET, path, query: "", headers: &headers };
    match entry.find(&wanted).map(|action| &action.backends[0].target) {
        Some(Target::Endpoints(endpoints)) => {
            endpoints.name.strip_prefix("a/").and_then(|name| name.strip_suffix(":80")).unwrap().to_owned()
        }
        Some(Target::Invalid(status)) => status.as_str().to_owned(),
        None => "404".to_owned(),
    }
}

fn check(ingresses: &[Arc<Ingress>], cases: &[(&str, &str, &str)]) {
    let names = ["s1", "s2", "s3", "s4", "s5", "s6"];
    let compiled = compile_all(ingresses, &services(&names));
    assert_eq!(compiled.problems, BTreeSet::new());
    for (host, path, expected) in cases {
        assert_eq!(answer(&compiled.http, host, path), *expected, "http {host} {path}");
        assert_eq!(answer(&compiled.https, host, path), *expected, "https {host} {path}");
    }
}

#[test]
fn hosts_and_paths_lead_to_services() {
    let hosts = json!({ "rules": [
        rule("foo.com", &[("Prefix", "/", "s1"), ("Prefix", "/aaa", "s2"), ("Exact", "/aaa/b", "s3"), ("Prefix", "/aaa/b", "s4")]),
        rule("*.foo.com", &[("Prefix", "/", "s5")]),
        rule("Bar.com", &[("ImplementationSpecific", "/x/", "s6")]),
    ] });
    check(
        &[ingress("i", 0, hosts)],
        &[
            ("foo.com", "/", "s1"),
            ("foo.com", "/bbb", "s1"),
            ("foo.com", "/aaa", "s2"),
            ("foo.com", "/aaab", "s1"),
            ("foo.com", "/aaa/c", "s2"),
            ("foo.com", "/aaa/b", "s3"),
            ("foo.com", "/aaa/b/", "s4"),
            ("foo.com", "/aaa/b/c", "s4"),
            ("www.foo.com", "/aaa", "s5"),
            ("www.www.foo.com", "/", "404"),
            ("bar.com", "/x", "s6"),
            ("bar.com", "/x/y", "s6"),
            ("bar.com", "/", "404"),
            ("10.0.0.1", "/", "404"),
        ],
    );
}

#[test]
fn a_closer_host_comes_first_and_leaves_what_it_does_not_match() {
    let exact = json!({ "rules": [rule("a.foo.com", &[("Exact", "/x", "s1")])] });
    let wildcard = json!({ "rules": [rule("*.foo.com", &[("Prefix", "/x", "s2")])] });
    let all = json!({ "rules": [rule("", &[("Exact", "/x", "s3"), ("Prefix", "/y", "s4")])] });
    check(
        &[ingress("all", 0, all), ingress("wildcard", 1, wildcard), ingress("exact", 2, exact)],
        &[
            ("a.foo.com", "/x", "s1"),
            ("a.foo.com", "/x/z", "s2"),
            ("b.foo.com", "/x", "s2"),
            ("a.foo.com", "/y", "s4"),
            ("foo.com", "/x", "s3"),
            ("foo.com", "/z", "404"),
        ],
    );
}

#[test]
fn default_backends_get_what_is_left() {
    let one = json!({ "defaultBackend": backend("s1"), "rules": [rule("foo.com", &[("Prefix", "/x", "s2")])] });
    let two = json!({ "defaultBackend": backend("s3"), "rules": [{ "host": "bar.com" }] });
    let all = json!({ "rules": [rule("", &[("Prefix", "/y", "s4")])] });
    check(
        &[ingress("one", 1, one), ingress("two", 0, two), ingress("all", 2, all)],
        &[
            ("foo.com", "/x", "s2"),
            ("foo.com", "/", "s1"),
            ("foo.com", "/y", "s4"),
            ("bar.com", "/", "s3"),
            ("other.com", "/", "s3"),
            ("other.com", "/y", "s4"),
        ],
    );
}

#[test]
fn the_oldest_has_precedence() {
    let rules = |service| json!({ "rules": [rule("foo.com", &[("Prefix", "/", service)])] });
    let ingresses = vec![ingress("a", 2, rules("s2")), ingress("z", 1, rules("s1")), ingress("b", 2, rules("s3"))];
    check(&ours(ingresses.clone(), &[]), &[("foo.com", "/", "404")]);
    check(&ours(ingresses.clone(), &[class("other", "example.com/other", true, 0)]), &[("foo.com", "/", "404")]);
    check(&ours(ingresses, &[class("ours", CONTROLLER, true, 0)]), &[("foo.com", "/", "s1")]);
}

fn class(name: &str, controller: &str, is_default: bool, second: u8) -> Arc<IngressClass> {
    let annotations = if is_default { json!({ DEFAULT_CLASS: "true" }) } else { json!({}) };
    let created = format!("2026-01-01T00:00:{second:02}Z");
    Arc::new(parse(json!({
        "metadata": { "name": name, "annotations": annotations, "creationTimestamp": created },
        "spec": { "controller": controller },
    })))
}

#[test]
fn ingresses_are_ours_by_their_class() {
    let check = |named: Option<&str>, annotated: Option<&str>, classes: &[Arc<IngressClass>], expected: bool| {
        let mut object = (*ingress("i", 0, json!({ "ingressClassName": named }))).clone();
        object.metadata.annotations =
            annotated.map(|name| [(CLASS_ANNOTATION.to_owned(), name.to_owned())].into_iter().collect());
        assert_eq!(is_ours(&object, classes), expected, "{named:?} {annotated:?} {classes:?}");
    };
    let ours = || class("ours", CONTROLLER, false, 0);
    let theirs = || class("theirs", "example.com/theirs", false, 0);
    check(Some("ours"), None, &[ours(), theirs()], true);
    check(Some("theirs"), None, &[ours(), theirs()], false);
    check(Some("gone"), None, &[ours()], false);
    check(Some("theirs"), Some("ours"), &[ours(), theirs()], false);
    check(None, Some("ours"), &[ours()], true);
    check(None, Some("theirs"), &[ours(), theirs()], false);
    check(None, Some("coracle"), &[theirs()], true);
    check(None, Some("nginx"), &[class("ours", CONTROLLER, true, 0)], false);
    check(None, None, &[ours(), theirs()], false);
    check(None, None, &[class("ours", CONTROLLER, true, 0), theirs()], true);
    check(None, None, &[class("ours", CONTROLLER, true, 0), class("theirs", "x", true, 1)], false);
    check(None, None, &[class("ours", CONTROLLER, true, 1), class("theirs", "x", true, 0)], true);
    check(None, None, &[], false);
}

#[test]
fn backends_that_are_missing_are_told() {
    let check = |backend: Value, expected: &str, reason: &str| {
        let spec =
            json!({ "rules": [{ "http": { "paths": [{ "pathType": "Exact", "path": "/", "backend": backend }] } }] });
        let compiled = compile_all(&[ingress("i", 0, spec)], &services(&["s1"]));
        let problems: Vec<_> = compiled.problems.iter().collect();
        let [(key, problem)] = problems[..] else { panic!("{problems:?}") };
        assert_eq!(
            (key, problem.to_string().as_str(), problem.reason()),
            (&ObjectKey::new("a", "i"), expected, reason)
        );
        assert_eq!(answer(&compiled.http, "foo.com", "/"), "503");
    };
    check(backend("s9"), "Service a/s9 does not exist", "ServiceNotFound");
    let port = json!({ "service": { "name": "s1", "port": { "name": "web" } } });
    check(port, "Service a/s1 has no port web", "PortNotFound");
    let resource = json!({ "resource": { "kind": "Bucket", "name": "icons" } });
    check(resource, "the backend Bucket icons is no Service; only Services are supported", "UnsupportedBackend");
}

#[test]
fn certificates_are_found_by_host() {
    let certificates = ["foo.com", "*.foo.com", "bar.com", "old.com"].map(certificate);
    let names = ["foo", "wildcard", "bar", "old"];
    let objects = names
        .iter()
        .zip(&certificates)
        .fold(services(&["s1"]), |objects, (name, certificate)| objects.secret(secret("a", name, "1", certificate)));
    let hosts = |names: &[&str]| names.iter().map(|name| rule(name, &[("Prefix", "/", "s1")])).collect::<Vec<_>>();
    let compiled = compile_all(
        &[
            ingress(
                "one",
                0,
                json!({
                    "tls": [{ "hosts": ["foo.com"], "secretName": "foo" }, { "hosts": ["*.foo.com"], "secretName": "wildcard" }],
                    "rules": hosts(&["foo.com", "a.foo.com", "plain.com", "*.plain.com"]),
                }),
            ),
            // Its hosts are those of its rules.
            ingress("two", 1, json!({ "tls": [{ "secretName": "bar" }], "rules": hosts(&["bar.com"]) })),
            ingress(
                "three",
                2,
                json!({
                    "tls": [
                        { "hosts": ["foo.com"], "secretName": "old" },
                        { "hosts": ["default.com"] },
                        { "hosts": ["gone.com"], "secretName": "gone" },
                    ],
                    "rules": hosts(&["gone.com"]),
                }),
            ),
        ],
        &objects,
    );
    let tls = compiled.https.tls.as_ref().unwrap();
    let of = |name: &str| CertificateCache::default().get(&objects, &ObjectKey::new("a", name)).unwrap().cert.clone();
    for (host, expected) in [
        ("foo.com", Some("foo")),
        ("a.foo.com", Some("wildcard")),
        ("a.a.foo.com", None),
        ("bar.com", Some("bar")),
        ("plain.com", None),
        ("gone.com", None),
    ] {
        let found = tls.by_host.matching(host).next().map(|(_, found)| found.cert.clone());
        assert_eq!(found, expected.map(of), "{host}");
    }
    assert!(tls.or_default);
    assert!(compiled.http.tls.is_none());
    let uncertified: Vec<&str> = compiled.uncertified.iter().map(String::as_str).collect();
    assert_eq!(uncertified, ["*.plain.com", "default.com", "gone.com", "plain.com"]);
    let problems: Vec<String> = compiled.problems.iter().map(|(key, problem)| format!("{key}: {problem}")).collect();
    assert_eq!(problems, ["a/three: Secret a/gone of type kubernetes.io/tls does not exist"]);
    assert!(!compile_all(&[], &objects).https.tls.unwrap().or_default, "nobody asks for TLS");
}
