//! HTTPRoutes: which requests they answer, and what is said of them.

use super::*;

const FINE: [&str; 2] = ["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"];

#[test]
fn a_route_of_the_same_namespace() {
    let cluster = Cluster::new()
        .gateway("gw", &[http("http", None)])
        .route("a", "one", route("gw", &[], &[json!({ "backendRefs": [{ "name": "v1", "port": 80 }] })]))
        .route("a", "other", route("unknown", &[], &[rule("/", "v2")]));
    assert_eq!(cluster.answer(80, &get("any.com", "/")), "a/v1");
    assert_eq!(cluster.answer(443, &get("any.com", "/")), "closed");
    let statuses = cluster.statuses();
    assert_eq!(statuses.keys().collect::<Vec<_>>(), ["Gateway a/gw", "GatewayClass coracle", "HTTPRoute a/one"]);
    let parent = &statuses["HTTPRoute a/one"]["status"]["parents"][0];
    assert_eq!(conditions(&parent["conditions"]), FINE);
    assert_eq!(parent["conditions"][0]["observedGeneration"], 5);
    assert_eq!(parent["controllerName"], CONTROLLER);
    assert_eq!(parent["parentRef"], json!({ "name": "gw", "namespace": "a" }));
}

#[test]
fn the_closest_match_is_taken_across_routes() {
    let matches =
        |matches: Value, service: &str| json!({ "matches": matches, "backendRefs": [{ "name": service, "port": 80 }] });
    let one = [
        matches(json!([{ "path": { "value": "/" } }, { "headers": [{ "name": "version", "value": "one" }] }]), "v1"),
        matches(json!([{ "path": { "type": "Exact", "value": "/exact" } }]), "v1"),
        matches(json!([{ "method": "POST" }]), "v1"),
    ];
    let two = [
        matches(json!([{ "path": { "value": "/v2" } }, { "headers": [{ "name": "version", "value": "two" }] }]), "v2"),
        matches(json!([{ "path": { "value": "/exact" }, "method": "GET" }]), "v2"),
        matches(json!([{ "queryParams": [{ "name": "animal", "value": "whale" }] }]), "v3"),
        matches(json!([{ "path": { "value": "/" } }]), "v3"),
    ];
    let cluster = Cluster::new()
        .gateway("gw", &[http("http", None)])
        .route("a", "one", route("gw", &["example.com", "example.net"], &one))
        .route("a", "two", route("gw", &["example.com"], &two));
    let header = |value: &'static [(&'static str, &'static str)]| Request { headers: value, ..get("example.com", "/") };
    let cases = [
        (get("example.com", "/"), "a/v1"),
        (get("example.com", "/exact"), "a/v1"),
        (get("example.com", "/exact/x"), "a/v2"),
        (get("example.com", "/v2"), "a/v2"),
        (get("example.com", "/v2example"), "a/v1"),
        (get("example.net", "/v2"), "a/v1"),
        (get("example.org", "/"), "404"),
        (get("example.com", "/?animal=whale"), "a/v3"),
        (header(&[("version", "two")]), "a/v2"),
        (header(&[("version", "one")]), "a/v1"),
        (Request { path: "/v2", ..header(&[("version", "one")]) }, "a/v2"),
        (Request { method: "POST", ..get("example.com", "/?animal=whale") }, "a/v1"),
    ];
    for (request, expected) in cases {
        let (host, path, method, headers) = (request.host, request.path, request.method, request.headers);
        assert_eq!(cluster.answer(80, &request), expected, "{method} {host}{path} {headers:?}");
    }
}

#[test]
fn hostnames_of_listeners_and_routes_intersect() {
    let listeners = [
        http("one", Some("very.specific.com")),
        http("two", Some("*.wildcard.io")),
        http("three", Some("*.anotherwildcard.io")),
    ];
    let cluster = Cluster::new()
        .gateway("gw", &listeners)
        .route("a", "specific", route("gw", &["non.matching.com", "*.specific.com"], &[rule("/s1", "v1")]))
        .route("a", "specific2", route("gw", &["non.matching.com", "very.specific.com"], &[rule("/s2", "v2")]))
        .route("a", "wildcard", route("gw", &["foo.wildcard.io", "wildcard.io", "*.wildcard.io"], &[rule("/s3", "v3")]))
        .route("a", "all", route("gw", &[], &[rule("/all", "v1")]))
        .route("a", "none", route("gw", &["specific.but.wrong.com", "wildcard.io"], &[rule("/none", "v1")]));
    for (host, path, expected) in [
        ("very.specific.com", "/s1", "a/v1"),
        ("very.specific.com", "/s2", "a/v2"),
        ("other.specific.com", "/s1", "404"),
        ("non.matching.com", "/s1", "404"),
        ("foo.wildcard.io", "/s3", "a/v3"),
        ("a.b.wildcard.io", "/s3", "a/v3"),
        ("wildcard.io", "/s3", "404"),
        ("x.anotherwildcard.io", "/s3", "404"),
        ("x.anotherwildcard.io", "/all", "a/v1"),
        ("very.specific.com", "/all", "a/v1"),
        ("other.com", "/all", "404"),
        ("wildcard.io", "/none", "404"),
    ] {
        assert_eq!(cluster.answer(80, &get(host, path)), expected, "{host}{path}");
    }
    let refused = ["Accepted=False/NoMatchingListenerHostname", "ResolvedRefs=True/ResolvedRefs"];
    assert_eq!(cluster.conditions_of_route("a/none"), refused);
    assert_eq!(cluster.conditions_of_route("a/all"), FINE);
    let listeners = &cluster.statuses()["Gateway a/gw"]["status"]["listeners"];
    let counts: Vec<&Value> = listeners.as_array().unwrap().iter().map(|one| &one["attachedRoutes"]).collect();
    assert_eq!(counts, [3, 2, 1]);
}

#[test]
fn a_request_is_for_one_listener() {
    // GatewayHTTPListenerIsolation: a route of a listener with a wider hostname does not stand in.
    let to = |section: &str, prefix: &str, service: &str| {
        let mut route = route("gw", &[], &[rule(prefix, service)]);
        route["parentRefs"][0]["sectionName"] = section.into();
        route
    };
    let listeners = [
        http("all", None),
        http("wild", Some("*.example.com")),
        http("foo", Some("foo.example.com")),
        http("empty", Some("x.com")),
    ];
    let cluster = Cluster::new()
        .gateway("gw", &listeners)
        .route("a", "all", to("all", "/all", "v1"))
        .route("a", "wild", to("wild", "/wild", "v2"))
        .route("a", "foo", to("foo", "/foo", "v3"));
    for (host, path, expected) in [
        ("bar.com", "/all", "a/v1"),
        ("bar.com", "/wild", "404"),
        ("bar.example.com", "/wild", "a/v2"),
        ("bar.example.com", "/all", "404"),
        ("foo.example.com", "/foo", "a/v3"),
        ("foo.example.com", "/wild", "404"),
        ("foo.example.com", "/all", "404"),
        ("x.com", "/all", "404"),
    ] {
        assert_eq!(cluster.answer(80, &get(host, path)), expected, "{host}{path}");
    }
}

#[test]
fn parents_that_do_not_take_a_route() {
    let from = |name: &str, port: u16, namespaces: Value| json!({ "name": name, "port": port, "protocol": "HTTP", "allowedRoutes": { "namespaces": namespaces } });
    let selector = json!({ "from": "Selector", "selector": { "matchLabels": { "team": "blue" } } });
    let mut cluster = Cluster::new().gateway(
        "gw",
        &[
            from("same", 80, json!({ "from": "Same" })),
            from("all", 81, json!({ "from": "All" })),
            from("selected", 82, selector),
            from("none", 83, json!({ "from": "None" })),
            from("unselected", 84, json!({ "from": "Selector" })),
        ],
    );
    let labels = |team: &str| BTreeMap::from([("team".to_owned(), team.to_owned())]);
    cluster.namespaces = [("b".to_owned(), labels("blue")), ("c".to_owned(), labels("red"))].into();
    let check = |namespace: &str, reference: Value, expected: &str| {
        let mut spec = route("gw", &[], &[]);
        for (name, value) in reference.as_object().unwrap() {
            spec["parentRefs"][0][name] = value.clone();
        }
        let cluster = Cluster {
            routes: Vec::new(),
            gateways: cluster.gateways.clone(),
            namespaces: cluster.namespaces.clone(),
            ..Cluster::new()
        };
        let cluster = cluster.route(namespace, "r", spec);
        assert_eq!(
            cluster.conditions_of_route(&format!("{namespace}/r"))[0],
            format!("Accepted={expected}"),
            "{reference}"
        );
    };
    let section = |name: &str| json!({ "sectionName": name });
    check("a", json!({}), "True/Accepted");
    check("a", section("same"), "True/Accepted");
    check("b", section("same"), "False/NotAllowedByListeners");
    check("b", section("all"), "True/Accepted");
    check("b", section("selected"), "True/Accepted");
    check("c", section("selected"), "False/NotAllowedByListeners");
    check("d", section("selected"), "False/NotAllowedByListeners");
    check("a", section("none"), "False/NotAllowedByListeners");
    check("b", section("unselected"), "False/NotAllowedByListeners");
    check("a", section("unknown"), "False/NoMatchingParent");
    check("b", json!({ "port": 81 }), "True/Accepted");
    check("b", json!({ "port": 80 }), "False/NotAllowedByListeners");
    check("b", json!({ "port": 90 }), "False/NoMatchingParent");
    check("b", json!({ "port": 80, "sectionName": "all" }), "False/NoMatchingParent");
}

#[test]
fn references_that_lead_nowhere() {
    let grant = |to: Value| {
        json!({ "metadata": { "namespace": "b", "name": "grant" }, "spec": {
            "from": [{ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "a" }], "to": [to],
        } })
    };
    let check = |reference: Value, grants: Vec<Value>, reason: &str, expected: &str| {
        let rules = [json!({ "backendRefs": [reference] }), rule("/fine", "v2")];
        let mut cluster = Cluster::new().gateway("gw", &[http("http", None)]).route("a", "r", route("gw", &[], &rules));
        cluster.grants = grants;
        let conditions = cluster.conditions_of_route("a/r");
        assert_eq!(conditions, ["Accepted=True/Accepted", &format!("ResolvedRefs={reason}")], "{reference}");
        assert_eq!(cluster.answer(80, &get("foo.com", "/")), expected, "{reference}");
        assert_eq!(cluster.answer(80, &get("foo.com", "/fine")), "a/v2", "the others work");
        let listener = &cluster.statuses()["Gateway a/gw"]["status"]["listeners"][0];
        assert_eq!(listener["attachedRoutes"], 1);
    };
    let of = |namespace: &str, name: &str| json!({ "name": name, "namespace": namespace, "port": 80 });
    check(of("a", "v1"), vec![], "True/ResolvedRefs", "a/v1");
    check(of("a", "gone"), vec![], "False/BackendNotFound", "500");
    check(json!({ "name": "v1", "port": 81 }), vec![], "False/BackendNotFound", "500");
    check(json!({ "name": "v1", "port": 80, "kind": "Bucket" }), vec![], "False/InvalidKind", "500");
    check(json!({ "name": "v1", "port": 80, "group": "example.com" }), vec![], "False/InvalidKind", "500");
    check(of("b", "v1"), vec![], "False/RefNotPermitted", "500");
    check(
        of("b", "v1"),
        vec![grant(json!({ "group": "", "kind": "Service", "name": "v1" }))],
        "True/ResolvedRefs",
        "b/v1",
    );
    check(of("b", "v1"), vec![grant(json!({ "group": "", "kind": "Service" }))], "True/ResolvedRefs", "b/v1");
    check(
        of("b", "v1"),
        vec![grant(json!({ "group": "", "kind": "Service", "name": "v2" }))],
        "False/RefNotPermitted",
        "500",
    );
}

#[test]
fn what_is_not_supported_is_not_accepted() {
    let refused = ["Accepted=False/UnsupportedValue", "ResolvedRefs=True/ResolvedRefs"];
    for rule in [
        json!({ "filters": [{ "type": "ExtensionRef" }] }),
        json!({ "backendRefs": [{ "name": "v1", "port": 80, "filters": [{ "type": "RequestMirror" }] }] }),
        json!({ "filters": [{ "type": "CORS" }] }),
        json!({ "sessionPersistence": {} }),
        json!({ "retry": {} }),
    ] {
        let cluster = Cluster::new().gateway("gw", &[http("http", None)]).route(
            "a",
            "r",
            route("gw", &[], std::slice::from_ref(&rule)),
        );
        assert_eq!(cluster.conditions_of_route("a/r"), refused, "{rule}");
        assert_eq!(cluster.answer(80, &get("foo.com", "/")), "404", "{rule}");
        assert_eq!(cluster.statuses()["Gateway a/gw"]["status"]["listeners"][0]["attachedRoutes"], 0);
    }
    let redirect = json!({ "filters": [{ "type": "RequestRedirect", "requestRedirect": { "scheme": "https" } }] });
    let cluster = Cluster::new().gateway("gw", &[http("http", None)]).route("a", "r", route("gw", &[], &[redirect]));
    assert_eq!(cluster.conditions_of_route("a/r"), FINE);
    assert_eq!(cluster.answer(80, &get("foo.com", "/")), "redirect");
    let cluster = Cluster::new().gateway("gw", &[http("http", None)]).route("a", "r", route("gw", &[], &[json!({})]));
    assert_eq!(cluster.answer(80, &get("foo.com", "/")), "no backend");
}

#[test]
fn mirrors_are_resolved() {
    let check = |service: &str, mirrors: &[&str], reason: &str| {
        let mirror = json!({ "backendRef": { "name": service, "port": 80 }, "percent": 50 });
        let mut rule = rule("/", "v1");
        rule["filters"] = json!([{ "type": "RequestMirror", "requestMirror": mirror }]);
        let cluster = Cluster::new().gateway("gw", &[http("http", None)]).route("a", "r", route("gw", &[], &[rule]));
        assert_eq!(cluster.conditions_of_route("a/r"), [FINE[0], &format!("ResolvedRefs={reason}")]);
        assert_eq!(cluster.answer(80, &get("foo.com", "/")), "a/v1", "the request itself is answered");
        let headers = HeaderMap::new();
        let wanted = Wanted { host: "foo.com", method: &Method::GET, path: "/", query: "", headers: &headers };
        let found: Vec<(String, (u32, u32))> = cluster.compile(|_, sites| {
            let action = sites.0[&(Site::Shared, 80)].find(&wanted).unwrap();
            action.mirrors.iter().map(|mirror| (mirror.endpoints.name.clone(), mirror.share)).collect()
        });
        let expected: Vec<_> = mirrors.iter().map(|name| ((*name).to_owned(), (50, 100))).collect();
        assert_eq!(found, expected);
    };
    check("v2", &["a/v2:80"], "True/ResolvedRefs");
    check("gone", &[], "False/BackendNotFound");
}

#[test]
fn what_others_say_of_a_route_stays() {
    let mut cluster =
        Cluster::new().gateway("gw", &[http("http", None)]).route("a", "r", route("gw", &[], &[rule("/", "v1")]));
    let theirs = json!({ "controllerName": "example.com/theirs", "parentRef": { "name": "x" }, "conditions": [] });
    let stale = json!({ "controllerName": CONTROLLER, "parentRef": { "name": "old" }, "conditions": [] });
    cluster.routes[0]["status"] = json!({ "parents": [stale, theirs] });
    cluster.routes[0]["metadata"]["resourceVersion"] = "7".into();
    let patch = cluster.statuses()["HTTPRoute a/r"].clone();
    assert_eq!(patch["metadata"]["resourceVersion"], "7");
    let parents = patch["status"]["parents"].as_array().unwrap();
    assert_eq!((parents.len(), &parents[0], &parents[1]["parentRef"]["name"]), (2, &theirs, &json!("gw")));

    // It is written once; and goes when the route is no longer ours.
    cluster.routes[0]["status"] = patch["status"].clone();
    assert_eq!(cluster.statuses().get("HTTPRoute a/r"), None);
    cluster.routes[0]["spec"]["parentRefs"][0]["name"] = "other".into();
    assert_eq!(cluster.statuses()["HTTPRoute a/r"]["status"], json!({ "parents": [theirs] }));
    cluster.routes[0]["status"] = json!({ "parents": [theirs] });
    assert_eq!(cluster.statuses().get("HTTPRoute a/r"), None);
}
