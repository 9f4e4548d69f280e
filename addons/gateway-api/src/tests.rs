//! The definitions are the published ones, take what the project's manifests look like, and refuse what cannot be.

use addons::testing::{check_manifest, difference, schema};
use machinery::field::Path;
use machinery::schema::{Schema, rules};
use serde_json::{Value, json};

use super::ADDON;

#[test]
fn definitions_have_the_facts_that_they_were_published_with() {
    assert_eq!(difference(&ADDON, include_str!("published.txt")), "");
}

#[test]
fn definitions_say_whose_they_are() {
    for definition in ADDON.definitions() {
        let definition = json!(definition);
        let annotations = &definition["metadata"]["annotations"];
        assert_eq!(annotations["gateway.networking.k8s.io/bundle-version"], "v1.5.1");
        assert_eq!(annotations["gateway.networking.k8s.io/channel"], "standard");
        assert!(annotations["api-approved.kubernetes.io"].as_str().is_some_and(|url| url.starts_with("https://")));
    }
}

#[test]
fn definitions_may_be_compiled_in_all_their_versions() {
    for definition in ADDON.definitions() {
        let mut work = rules::Work::default();
        for version in &definition.spec.versions {
            let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
            let errors =
                rules::check(schema.expect("a schema"), &Path::new("schema"), rules::Costs::Limited(&mut work));
            assert_eq!(errors.to_string(), "[]", "{} {}", definition.spec.names.kind, version.name);
        }
    }
}

#[test]
fn manifests_are_taken_and_completed() {
    let check = |kind: &str, spec: Value, defaulted: &[(&str, Value)]| {
        for version in ["v1", "v1beta1"] {
            check_manifest(&ADDON, kind, version, &spec, defaulted);
        }
    };
    check(
        "GatewayClass",
        json!({ "controllerName": "example.net/gateway-controller" }),
        &[("/status/conditions/0/type", json!("Accepted"))],
    );
    let https = json!({
        "name": "https", "port": 443, "protocol": "HTTPS", "hostname": "*.example.com",
        "tls": { "certificateRefs": [{ "name": "example-com" }] },
        "allowedRoutes": { "kinds": [{ "kind": "HTTPRoute" }], "namespaces": { "from": "All" } },
    });
    check(
        "Gateway",
        json!({
            "gatewayClassName": "coracle", "addresses": [{ "value": "127.0.0.1" }],
            "listeners": [{ "name": "http", "port": 80, "protocol": "HTTP" }, https],
            "infrastructure": { "labels": { "example.com/part": "entry" } },
        }),
        &[
            ("/spec/addresses/0/type", json!("IPAddress")),
            ("/spec/listeners/0/allowedRoutes", json!({ "namespaces": { "from": "Same" } })),
            ("/spec/listeners/1/allowedRoutes/kinds/0/group", json!("gateway.networking.k8s.io")),
            ("/spec/listeners/1/tls/mode", json!("Terminate")),
            (
                "/spec/listeners/1/tls/certificateRefs/0",
                json!({ "group": "", "kind": "Secret", "name": "example-com" }),
            ),
            ("/status/conditions/1/reason", json!("Pending")),
            ("/status/conditions/1/type", json!("Programmed")),
        ],
    );
    let everything = json!([{ "path": { "type": "PathPrefix", "value": "/" } }]);
    check(
        "HTTPRoute",
        json!({ "parentRefs": [{ "name": "entry" }] }),
        &[
            ("/spec/parentRefs/0", json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "entry" })),
            ("/spec/rules", json!([{ "matches": everything }])),
        ],
    );
    let redirect = json!({ "type": "RequestRedirect", "requestRedirect": { "scheme": "https" } });
    let rewrite = json!({
        "type": "URLRewrite",
        "urlRewrite": { "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/" } },
    });
    let mirror = json!({
        "type": "RequestMirror",
        "requestMirror": { "backendRef": { "name": "copy", "port": 80 }, "fraction": { "numerator": 1 } },
    });
    check(
        "HTTPRoute",
        json!({
            "hostnames": ["www.example.com", "*.example.org"],
            "rules": [
                { "name": "all", "backendRefs": [{ "name": "web", "port": 80 }] },
                {
                    "matches": [{
                        "method": "GET",
                        "headers": [{ "name": "x-canary", "value": "yes" }],
                        "queryParams": [{ "name": "q", "value": "x.*", "type": "RegularExpression" }],
                    }],
                    "filters": [redirect],
                },
                {
                    "matches": [{ "path": { "value": "/old%20ones" } }], "filters": [rewrite, mirror],
                    "timeouts": { "request": "1m30s", "backendRequest": "10s" },
                },
            ],
        }),
        &[
            ("/spec/rules/0/matches", everything),
            (
                "/spec/rules/0/backendRefs/0",
                json!({ "group": "", "kind": "Service", "name": "web", "port": 80, "weight": 1 }),
            ),
            ("/spec/rules/1/matches/0/path/value", json!("/")),
            ("/spec/rules/1/matches/0/headers/0/type", json!("Exact")),
            ("/spec/rules/1/filters/0/requestRedirect/statusCode", json!(302)),
            ("/spec/rules/2/matches/0/path/type", json!("PathPrefix")),
            ("/spec/rules/2/filters/1/requestMirror/fraction/denominator", json!(100)),
        ],
    );
    check(
        "ReferenceGrant",
        json!({
            "from": [{ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "default" }],
            "to": [{ "group": "", "kind": "Service" }],
        }),
        &[],
    );
}

/// What is wrong with an object that has this spec.
fn faults(schema: &Schema, kind: &str, spec: &Value) -> String {
    let mut object = json!({ "spec": spec });
    schema.default(&mut object);
    let around = [("kind", json!(kind)), ("metadata", json!({ "name": "x" }))];
    let form = schema.validate(&object, None).to_string();
    let faults = if form == "[]" { schema.evaluate((&object, &around), None).to_string() } else { form };
    // Several are a list, whose first one is looked at.
    if faults == "[]" { faults } else { faults.trim_start_matches('[').to_owned() }
}

#[test]
fn gateways_that_cannot_be_are_refused() {
    let schema = schema(&ADDON, "Gateway", "v1");
    let check = |listeners: Value, expected: &str| {
        let faults = faults(&schema, "Gateway", &json!({ "gatewayClassName": "coracle", "listeners": listeners }));
        assert!(faults.starts_with(expected), "{faults}\nand not {expected}");
    };
    let listener = |more: Value| {
        let mut listener = json!({ "name": "a", "port": 80, "protocol": "HTTP" });
        let members = more.as_object().cloned().unwrap_or_default();
        listener.as_object_mut().expect("an object").extend(members);
        listener
    };
    let one = |more: Value| json!([listener(more)]);
    check(one(json!({})), "[]");
    check(json!([]), "spec.listeners: Invalid value");
    check(one(json!({ "port": 0 })), "spec.listeners[0].port: Invalid value");
    check(one(json!({ "hostname": "10.*" })), "spec.listeners[0].hostname: Invalid value");
    check(one(json!({ "tls": { "options": { "a": "b" } } })), "spec.listeners: Invalid value: tls must not be set");
    let secure = |tls: Value| one(json!({ "protocol": "HTTPS", "tls": tls }));
    check(secure(json!({ "certificateRefs": [{ "name": "x" }] })), "[]");
    check(
        secure(json!({})),
        "spec.listeners[0].tls.certificateRefs: Invalid value: certificateRefs or options must be set",
    );
    check(secure(json!({ "mode": "Passthrough" })), "spec.listeners: Invalid value: the mode of tls");
    check(one(json!({ "protocol": "TLS" })), "spec.listeners: Invalid value: tls must be set");
    check(
        one(json!({ "protocol": "TCP", "hostname": "x" })),
        "spec.listeners: Invalid value: hostname must not be set",
    );
    let two = |more: Value| json!([listener(json!({ "hostname": "x" })), listener(more)]);
    check(two(json!({ "name": "b" })), "[]");
    check(two(json!({ "name": "b", "hostname": "y" })), "[]");
    check(two(json!({ "name": "b", "hostname": "x" })), "spec.listeners: Invalid value: no two listeners");

    let check = |addresses: Value, expected: &str| {
        let spec = json!({ "gatewayClassName": "coracle", "listeners": one(json!({})), "addresses": addresses });
        let faults = faults(&schema, "Gateway", &spec);
        assert!(faults.starts_with(expected), "{faults}\nand not {expected}");
    };
    check(json!([{ "value": "::1" }, { "type": "Hostname", "value": "x" }, {}]), "[]");
    // As an API server writes it, which does not say the place of alternatives.
    let neither = "<nil>: Invalid value: \"\": \"spec.addresses[0]\" must validate one and only one schema (oneOf)";
    check(json!([{ "value": "x" }]), neither);
    check(json!([{ "type": "Hostname", "value": "-" }]), "spec.addresses[0].value: Invalid value: must be a hostname");
    check(json!([{ "value": "::1" }, { "value": "::1" }]), "spec.addresses: Invalid value: an IP address");
    let twice = json!([{ "type": "Hostname", "value": "x" }, { "type": "Hostname", "value": "x" }]);
    check(twice, "spec.addresses: Invalid value: a hostname must not");
    let labels = json!({ "labels": { "-": "x" } });
    let spec = json!({ "gatewayClassName": "x", "listeners": one(json!({})), "infrastructure": labels });
    assert!(faults(&schema, "Gateway", &spec).starts_with("spec.infrastructure.labels: Invalid value: a key must be"));
}

#[test]
fn routes_that_cannot_be_are_refused() {
    let schema = schema(&ADDON, "HTTPRoute", "v1");
    let check = |spec: Value, expected: &str| {
        let faults = faults(&schema, "HTTPRoute", &spec);
        assert!(faults.starts_with(expected), "{faults}\nand not {expected}");
    };
    check(
        json!({ "hostnames": ["a_b"] }),
        "spec.hostnames[0]: Invalid value: \"a_b\": spec.hostnames[0] in body should match",
    );
    let parent = |section: Option<&str>| match section {
        Some(section) => json!({ "name": "entry", "namespace": "x", "sectionName": section }),
        None => json!({ "name": "entry", "namespace": "x" }),
    };
    check(json!({ "parentRefs": [parent(Some("a")), parent(Some("b"))] }), "[]");
    check(json!({ "parentRefs": [parent(None), { "name": "entry" }] }), "[]");
    check(
        json!({ "parentRefs": [parent(Some("a")), parent(None)] }),
        "spec.parentRefs: Invalid value: sectionName must be set",
    );
    check(
        json!({ "parentRefs": [parent(Some("a")), parent(Some("a"))] }),
        "spec.parentRefs: Invalid value: references to the same parent",
    );
    check(
        json!({ "rules": [{ "backendRefs": [{ "name": "x" }] }] }),
        "spec.rules[0].backendRefs[0].port: Invalid value: must be set",
    );
    check(json!({ "rules": [{ "backendRefs": [{ "name": "x", "kind": "Other" }] }] }), "[]");
    let many = |count: usize| json!({ "matches": vec![json!({}); count] });
    check(json!({ "rules": [many(64), many(64)] }), "[]");
    check(json!({ "rules": [many(64), many(64), {}] }), "spec.rules: Invalid value: all rules together");
    let times = |request: &str, backend: &str| json!({ "rules": [{ "timeouts": { "request": request, "backendRequest": backend } }] });
    check(times("0s", "5s"), "[]");
    check(times("1s", "5s"), "spec.rules[0].timeouts.backendRequest: Invalid value: must not be longer");

    let path = |type_: &str, value: &str, expected: &str| {
        let expected = if expected.is_empty() {
            "[]".to_owned()
        } else {
            format!("spec.rules[0].matches[0].path.value: Invalid value: {expected}")
        };
        check(json!({ "rules": [{ "matches": [{ "path": { "type": type_, "value": value } }] }] }), &expected);
    };
    path("Exact", "/a", "");
    path("RegularExpression", "a//#", "");
    path("Exact", "a", "must begin");
    for part in ["//", "/./", "/../", "%2f", "%2F", "#"] {
        path("PathPrefix", &format!("/x{part}y"), &format!("must not contain '{part}'"));
    }
    path("PathPrefix", "/x/..", "must not end with '/..'");
    path("PathPrefix", "/x/.", "must not end with '/.'");
    path("PathPrefix", "/ä", "must consist of");

    let filters = |filters: Value, expected: &str| check(json!({ "rules": [{ "filters": filters }] }), expected);
    let place = "spec.rules[0].filters";
    let redirect = |path: Value| json!({ "type": "RequestRedirect", "requestRedirect": path });
    filters(json!([{ "type": "CORS" }]), &format!("{place}[0].cors: Invalid value: must be set"));
    let other = json!({ "type": "RequestRedirect", "requestRedirect": {}, "urlRewrite": {} });
    filters(
        json!([other]),
        &format!("{place}[0].urlRewrite: Invalid value: must be set where the type is URLRewrite, and not"),
    );
    let rewrite = json!({ "type": "URLRewrite", "urlRewrite": {} });
    filters(json!([redirect(json!({})), rewrite]), &format!("{place}: Invalid value: there may be a filter of type"));
    filters(json!([rewrite, rewrite]), &format!("{place}: Invalid value: there may be one filter of type URLRewrite"));
    filters(
        json!([redirect(json!({ "statusCode": 300 }))]),
        &format!("{place}[0].requestRedirect.statusCode: Unsupported"),
    );
    let path = json!({ "path": { "type": "ReplaceFullPath" } });
    filters(
        json!([redirect(path)]),
        &format!("{place}[0].requestRedirect.path.replaceFullPath: Invalid value: must be"),
    );
    let mirror = |more: Value| {
        let mut mirror =
            json!({ "backendRef": { "name": "x", "port": 1 }, "fraction": { "numerator": 2, "denominator": 2 } });
        mirror.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        json!([{ "type": "RequestMirror", "requestMirror": mirror }])
    };
    filters(mirror(json!({})), "[]");
    filters(
        mirror(json!({ "percent": 5 })),
        &format!("{place}[0].requestMirror.fraction: Invalid value: must not be set"),
    );
    filters(
        mirror(json!({ "fraction": { "numerator": 2, "denominator": 1 } })),
        &format!("{place}[0].requestMirror.fraction.numerator: Invalid value: must not be larger"),
    );
    let cors = |methods: Value| json!([{ "type": "CORS", "cors": { "allowMethods": methods } }]);
    filters(cors(json!(["*"])), "[]");
    filters(cors(json!(["GET", "*"])), &format!("{place}[0].cors.allowMethods: Invalid value: '*' must stand alone"));

    let to = json!([{ "name": "x", "port": 80 }]);
    check(
        json!({ "rules": [{ "filters": [redirect(json!({}))], "backendRefs": to }] }),
        "spec.rules[0].backendRefs: Invalid value: must not be set beside",
    );
    let prefix = json!({ "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/" } });
    for filter in [redirect(prefix.clone()), json!({ "type": "URLRewrite", "urlRewrite": prefix })] {
        for rule in [
            json!({ "filters": [filter] }),
            json!({ "backendRefs": [{ "name": "x", "port": 1, "filters": [filter] }] }),
        ] {
            check(json!({ "rules": [rule] }), "[]");
            let mut exact = rule;
            exact["matches"] = json!([{ "path": { "type": "Exact", "value": "/" } }]);
            check(json!({ "rules": [exact] }), "spec.rules[0].matches: Invalid value: with a filter that replaces");
        }
    }
}

#[test]
fn the_controller_of_a_class_stays() {
    let schema = schema(&ADDON, "GatewayClass", "v1");
    let class = |controller: &str| json!({ "spec": { "controllerName": controller } });
    let around = [("kind", json!("GatewayClass")), ("metadata", json!({ "name": "x" }))];
    let old = class("example.net/a");
    let check = |new: &Value, expected: &str| {
        let faults = schema.evaluate((new, &around), Some((&old, &around[..]))).to_string();
        assert!(faults.starts_with(expected), "{faults}");
    };
    check(&old, "[]");
    check(&class("example.net/b"), "spec.controllerName: Invalid value");
}
