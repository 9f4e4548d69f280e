//! Every route there is, as discovery and the root document list it, asked with every kind of credential. A new resource, verb,
//! subresource or path is walked without a line here.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use machinery::Verb;
use serde_json::{Value, json};

use super::support::{Fixture, request};
use crate::User;
use crate::server::Caller;

/// One request of the walk.
#[derive(Debug, Clone)]
struct Route {
    /// Method and path.
    line: String,
    /// `VERB RESOURCE[/SUBRESOURCE]`; empty of other paths.
    what: String,
}

/// Open to everybody, whoever they are (upstream: the role `system:public-info-viewer`).
const PUBLIC: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

/// What a kubelet may do, by `VERB RESOURCE[/SUBRESOURCE]`, here to what none of its pods refers to.
const OF_NODES: [&str; 31] = [
    "create certificatesigningrequests",
    "create csinodes",
    "create events",
    "create localsubjectaccessreviews",
    "create nodes",
    "create pods",
    "create pods/eviction",
    "create subjectaccessreviews",
    "create tokenreviews",
    "delete pods",
    "get certificatesigningrequests",
    "get csidrivers",
    "get endpoints",
    "get runtimeclasses",
    "get services",
    "list certificatesigningrequests",
    "list csidrivers",
    "list runtimeclasses",
    "list services",
    "patch events",
    "patch nodes",
    "patch nodes/status",
    "patch pods/status",
    "update events",
    "update nodes",
    "update nodes/status",
    "update pods/status",
    "watch certificatesigningrequests",
    "watch csidrivers",
    "watch runtimeclasses",
    "watch services",
];

/// All routes, with those of a custom resource.
async fn routes(fixture: &Fixture) -> Vec<Route> {
    let crd = json!({
        "metadata": { "name": "things.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": { "plural": "things", "kind": "Thing" },
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": { "type": "object", "properties": { "status": { "type": "object" } } } },
            }],
        },
    });
    fixture.json("POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions", 201, &crd).await;
    let mut routes = Vec::new();
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    for root in ["/api", "/apis"] {
        let groups = fixture.ask(&format!("GET {root}"), &accept, "").await.json();
        for group in groups["items"].as_array().unwrap() {
            let name = group["metadata"]["name"].as_str().unwrap_or_default();
            for version in group["versions"].as_array().unwrap() {
                let version_path = format!("{root}/{name}/{}", version["version"].as_str().unwrap()).replace("//", "/");
                for resource in version["resources"].as_array().unwrap() {
                    of_resource(&mut routes, &version_path, resource);
                }
            }
        }
    }
    let root = fixture.json("GET /", 200, &Value::Null).await;
    let paths = root["paths"].as_array().unwrap().iter().filter_map(Value::as_str);
    let lines = paths.chain(["/", "/openapi/v3/api/v1", "/nonsense"]).map(|path| format!("GET {path}"));
    routes.extend(lines.map(|line| Route { line, what: String::new() }));
    routes
}

fn of_resource(routes: &mut Vec<Route>, version: &str, resource: &Value) {
    let name = resource["resource"].as_str().unwrap();
    let is_namespaced = resource["scope"] == "Namespaced";
    let place =
        if is_namespaced { format!("{version}/namespaces/default/{name}") } else { format!("{version}/{name}") };
    let verbs = |of: &Value| {
        let verbs = of["verbs"].as_array().unwrap().iter();
        verbs.map(|verb| Verb::from(verb.as_str().unwrap().to_owned().leak() as &'static str)).collect::<Vec<_>>()
    };
    let mut add = |verb: Verb<'_>, what: &str, lines: Vec<String>| {
        let what = format!("{verb} {what}");
        routes.extend(lines.into_iter().map(|line| Route { line, what: what.clone() }));
    };
    for verb in verbs(resource) {
        let lines = match verb {
            Verb::List => vec![format!("GET {place}"), format!("GET {version}/{name}")],
            Verb::Watch => vec![format!("GET {place}?watch=1"), format!("GET {version}/watch/{name}")],
            Verb::Create => vec![format!("POST {place}")],
            Verb::DeleteCollection => vec![format!("DELETE {place}")],
            one => vec![format!("{} {place}/x", method(one))],
        };
        add(verb, name, lines);
    }
    for subresource in resource["subresources"].as_array().into_iter().flatten() {
        let below = subresource["subresource"].as_str().unwrap();
        for verb in verbs(subresource) {
            add(verb, &format!("{name}/{below}"), vec![format!("{} {place}/x/{below}", method(verb))]);
        }
    }
}

fn method(verb: Verb<'_>) -> &'static str {
    match verb {
        Verb::Get | Verb::List | Verb::Watch => "GET",
        Verb::Create => "POST",
        Verb::Update => "PUT",
        Verb::Patch => "PATCH",
        Verb::Delete | Verb::DeleteCollection => "DELETE",
        other => panic!("{other} has no method here"),
    }
}

/// The codes with which the routes are answered.
async fn walk(fixture: &Fixture, routes: &[Route], user: Option<User>, headers: &[(&str, &str)]) -> Vec<u16> {
    let user = user.map(std::sync::Arc::new);
    let asked = routes.iter().map(|route| {
        let request = request(&route.line, headers, "{}");
        let user = user.clone();
        async move { fixture.server.handle(request, user, Caller::Client).await.status().as_u16() }
    });
    stream::iter(asked).buffered(64).collect().await
}

fn is_public(route: &Route) -> bool {
    let path = route.line.split(' ').nth(1).unwrap();
    PUBLIC.contains(&path)
}

#[tokio::test]
async fn every_route_is_walked_with_every_credential() {
    let fixture = Fixture::new().await;
    let routes = routes(&fixture).await;
    let kinds: BTreeSet<&str> = routes.iter().map(|route| route.what.as_str()).collect();
    assert!(routes.len() > 650 && kinds.len() > 450, "{} {}", routes.len(), kinds.len());
    for known in
        ["create pods/exec", "get pods/exec", "patch things/status", "create selfsubjectreviews", "delete nodes"]
    {
        assert!(kinds.contains(known), "{known} is not walked");
    }

    fixture.account("robot").await;
    let token = fixture.token("robot", json!({})).await;
    let (head, signature) = token.rsplit_once('.').unwrap();
    let elsewhere = Fixture::new().await;
    elsewhere.account("robot").await;
    let foreign = elsewhere.token("robot", json!({})).await;
    let tampered = format!("{head}.{}{}", if signature.starts_with('A') { "B" } else { "A" }, &signature[1..]);
    let now = jiff::Timestamp::now().as_second();
    let mut claims = super::identity::claims(&token);
    for (name, value) in [("exp", now - 3_600), ("iat", now - 7_200), ("nbf", now - 7_200)] {
        claims[name] = value.into();
    }
    let expired = fixture.token_key.sign(&claims).unwrap();
    let bearer = |token: &str| format!("Bearer {token}");
    for (what, token) in
        [("foreign", &foreign), ("tampered", &tampered), ("expired", &expired), ("no", &"x".to_owned())]
    {
        let codes = walk(&fixture, &routes, Some(User::anonymous()), &[("authorization", &bearer(token))]).await;
        for (route, code) in routes.iter().zip(codes) {
            assert_eq!(code, 401, "{what} token: {}", route.line);
        }
    }
    // A certificate that proves nothing.
    for (route, code) in routes.iter().zip(walk(&fixture, &routes, None, &[]).await) {
        assert_eq!(code, 401, "{}", route.line);
    }
    let codes = walk(&fixture, &routes, Some(User::anonymous()), &[]).await;
    for (route, code) in routes.iter().zip(codes) {
        assert_eq!(code, if is_public(route) { 200 } else { 403 }, "nobody: {}", route.line);
    }
    let is_for_all = |route: &Route| is_public(route) || route.what.contains(" selfsubject");
    let is_document = |route: &Route| {
        route.what.is_empty() && ["/api", "openid", "/openapi"].iter().any(|of| route.line.contains(of))
    };
    let accounts = [(Some(User::new("x", &["developers"])), String::new()), (Some(User::anonymous()), bearer(&token))];
    for (user, token) in accounts {
        let headers: &[(&str, &str)] = if token.is_empty() { &[] } else { &[("authorization", &token)] };
        for (route, code) in routes.iter().zip(walk(&fixture, &routes, user, headers).await) {
            if !is_document(route) {
                assert_eq!(code != 403, is_for_all(route), "an account without rights: {} {code}", route.line);
            }
        }
    }
    let codes = walk(&fixture, &routes, Some(User::node("a")), &[]).await;
    let allowed: BTreeSet<&str> = routes
        .iter()
        .zip(codes)
        .filter(|(route, code)| *code != 403 && !route.what.is_empty() && !is_for_all(route))
        .map(|(route, _)| route.what.as_str())
        .collect();
    let expect: BTreeSet<&str> = OF_NODES.into_iter().collect();
    assert_eq!(allowed, expect, "what a kubelet may do");
}
