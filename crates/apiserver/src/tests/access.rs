//! Who may do what: every endpoint there is, asked by nobody and by somebody without rights.

use serde_json::{Value, json};

use super::support::Fixture;
use crate::User;
use crate::body::RequestBody;
use crate::server::Caller;

/// Method and path of everything the OpenAPI document and discovery know.
async fn endpoints(fixture: &Fixture) -> Vec<String> {
    let document = fixture.json("GET /openapi/v2", 200, &Value::Null).await;
    let mut endpoints = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path.replace("{namespace}", "default").replace("{name}", "x");
        let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
        endpoints.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
    }
    let pod = "/api/v1/namespaces/default/pods/x";
    endpoints.extend(["exec", "attach", "portforward", "binding"].map(|name| format!("POST {pod}/{name}")));
    endpoints.extend(["log", "exec"].map(|name| format!("GET {pod}/{name}")));
    endpoints.push("GET /apis/apps/v1/namespaces/default/deployments/x/scale".to_owned());
    endpoints.push("GET /metrics".to_owned());
    endpoints
}

const DISCOVERY: [&str; 8] = [
    "GET /api",
    "GET /apis",
    "GET /apis/apps",
    "GET /api/v1",
    "GET /apis/apps/v1",
    "GET /openapi/v2",
    "GET /openapi/v3",
    "GET /openapi/v3/api/v1",
];

#[tokio::test]
async fn a_false_certificate_is_nobody() {
    let fixture = Fixture::new().await;
    let request = http::Request::get("/healthz").body(RequestBody::Local(kube::client::Body::empty())).unwrap();
    assert_eq!(fixture.server.handle(request, None, Caller::Client).await.status(), 401);
}

#[tokio::test]
async fn nobody_gets_anywhere() {
    let fixture = Fixture::new().await;
    let endpoints = endpoints(&fixture).await;
    assert!(endpoints.len() > 80, "{}", endpoints.len());
    let others = DISCOVERY.into_iter().chain(["GET /", "GET /nonsense", "POST /api/v1/namespaces/default/nonsense"]);
    for line in endpoints.iter().map(String::as_str).chain(others) {
        let reply = fixture.ask_as(None, line, &[], "").await;
        assert_eq!(reply.status, 403, "{line}");
        assert!(reply.text.contains(r#"User \"system:anonymous\" cannot"#), "{line}: {}", reply.text);
    }
}

#[tokio::test]
async fn somebody_without_rights_may_look_around_and_nothing_else() {
    let fixture = Fixture::new().await;
    let user = || Some(User::new("x", &["developers"]));
    for line in endpoints(&fixture).await {
        let reply = fixture.ask_as(user(), &line, &[], "{}").await;
        let about_oneself = line.contains("/selfsubject") || line.contains("/namespaces/default/selfsubject");
        assert_eq!(reply.status == 403, !about_oneself, "{line}: {}", reply.text);
    }
    for line in DISCOVERY {
        assert_eq!(fixture.ask_as(user(), line, &[], "").await.status, 200, "{line}");
    }
    let reply = fixture.ask_as(user(), "GET /api/v1/namespaces/default/pods", &[], "").await;
    let expect =
        r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#;
    assert_eq!(reply.json()["message"], expect);
    let reply = fixture.ask_as(user(), "GET /api/v1/nodes?watch=true", &[], "").await;
    let expect = r#"nodes is forbidden: User "x" cannot watch resource "nodes" in API group "" at the cluster scope"#;
    assert_eq!(reply.json()["message"], expect);
}

#[tokio::test]
async fn health_and_version_are_for_everybody() {
    let fixture = Fixture::new().await;
    for (path, status, expect) in [
        ("/healthz", 200, "ok"),
        ("/livez?verbose", 200, "[+]ping ok\n[+]log ok\n[+]etcd ok\nlivez check passed\n"),
        ("/readyz/ping", 200, "ok"),
        ("/readyz/nonsense", 404, "404 page not found\n"),
    ] {
        // Upstream, too, lets everybody ask for the whole, and administrators alone for single checks.
        let user = path.contains("z/").then(|| User::master("kubernetes-admin"));
        let reply = fixture.ask_as(user, &format!("GET {path}"), &[], "").await;
        assert_eq!((reply.status.as_u16(), reply.text.as_str()), (status, expect), "{path}");
        // Upstream's texts but that of a check alone are from Go's `http.Error`, or as if they were.
        let sniffed = if path == "/readyz/ping" { "" } else { "nosniff" };
        assert_eq!(reply.header("x-content-type-options"), sniffed, "{path}");
    }
    let version = fixture.ask_as(None, "GET /version", &[], "").await.json();
    assert_eq!(
        (version["emulationMinor"].as_str(), version["minCompatibilityMinor"].as_str()),
        (Some("36"), Some("35"))
    );
    assert_eq!((version["major"].as_str(), version["minor"].as_str()), (Some("1"), Some("36")));
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.36.0+coracle"));
}

#[tokio::test]
async fn questions_about_oneself() {
    let fixture = Fixture::new().await;
    let can_i = |user: User, spec: Value| {
        let fixture = &fixture;
        async move {
            let body = serde_json::json!({ "spec": spec }).to_string();
            let line = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
            let reply = fixture.ask_as(Some(user), line, &[], body).await;
            (reply.status.as_u16(), reply.json()["status"]["allowed"].clone())
        }
    };
    let pods = serde_json::json!({ "resourceAttributes": { "verb": "list", "resource": "pods" } });
    let path = serde_json::json!({ "nonResourceAttributes": { "verb": "get", "path": "/apis" } });
    assert_eq!(can_i(User::master("admin"), pods.clone()).await, (201, true.into()));
    assert_eq!(can_i(User::new("x", &[]), pods).await, (201, false.into()));
    assert_eq!(can_i(User::new("x", &[]), path).await, (201, true.into()));
    assert_eq!(can_i(User::new("x", &[]), serde_json::json!({})).await.0, 422);

    let line = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews";
    let reply = fixture.ask_as(Some(User::new("x", &["developers"])), line, &[], "{}").await;
    let info = &reply.json()["status"]["userInfo"];
    assert_eq!(*info, serde_json::json!({ "username": "x", "groups": ["developers", "system:authenticated"] }));
}

/// A right that moved on to another identity does not stay where it was, unless an administrator wants it to.
#[tokio::test]
async fn roles_that_are_no_longer_part_of_a_cluster_go() {
    let fixture = Fixture::new().await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    for (name, autoupdate) in [("coracle:addons", "true"), ("coracle:scheduler", "false")] {
        let metadata =
            json!({ "name": name, "annotations": { "rbac.authorization.kubernetes.io/autoupdate": autoupdate } });
        fixture.json(&format!("POST {roles}"), 201, &json!({ "metadata": metadata })).await;
        let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name });
        fixture.json(&format!("POST {bindings}"), 201, &json!({ "metadata": metadata, "roleRef": role })).await;
    }
    crate::authz::bootstrap(&fixture.registry, &[]).await.unwrap();
    for (name, status) in [("coracle:addons", 404), ("coracle:scheduler", 200)] {
        for kind in [roles, bindings] {
            fixture.json(&format!("GET {kind}/{name}"), status, &Value::Null).await;
        }
    }
}
