//! Who somebody is and what that lets them do: tokens, roles, acting as somebody else, and rights that do not grow.

use serde_json::{Value, json};

use super::support::{Fixture, Reply, pod};
use crate::User;

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1";

impl Fixture {
    async fn send(&self, user: User, line: &str, body: Value) -> Reply {
        self.ask_as(Some(user), line, &[("content-type", "application/json")], body.to_string()).await
    }

    pub(super) async fn account(&self, name: &str) {
        let account = json!({ "metadata": { "name": name } });
        self.json("POST /api/v1/namespaces/default/serviceaccounts", 201, &account).await;
    }

    pub(super) async fn token(&self, account: &str, spec: Value) -> String {
        let line = format!("POST /api/v1/namespaces/default/serviceaccounts/{account}/token");
        let answer = self.json(&line, 201, &json!({ "spec": spec })).await;
        answer["status"]["token"].as_str().unwrap().to_owned()
    }

    async fn with_token(&self, token: &str, line: &str, body: &str) -> Reply {
        self.ask_as(None, line, &[("authorization", &format!("Bearer {token}"))], body.to_owned()).await
    }

    /// Gives a role, made of one rule, to a subject.
    pub(super) async fn grant(&self, name: &str, rule: Value, subject: Value) {
        let role = json!({ "metadata": { "name": name }, "rules": [rule] });
        self.json(&format!("POST {ROLES}/namespaces/default/roles"), 201, &role).await;
        let binding = json!({ "metadata": { "name": name }, "subjects": [subject],
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name } });
        self.json(&format!("POST {ROLES}/namespaces/default/rolebindings"), 201, &binding).await;
    }
}

pub(super) fn claims(token: &str) -> Value {
    use base64::Engine;
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_is_its_account() {
    let fixture = Fixture::new().await;
    fixture.account("robot").await;
    let token = fixture.token("robot", json!({})).await;
    let claims = claims(&token);
    assert_eq!(claims["sub"], "system:serviceaccount:default:robot");
    assert_eq!(claims["aud"], json!(["https://kubernetes.default.svc.cluster.local"]));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    assert_eq!(claims["kubernetes.io"]["serviceaccount"]["name"], "robot");

    let me = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews";
    let reply = fixture.with_token(&token, me, "{}").await;
    let info = &reply.json()["status"]["userInfo"];
    assert_eq!(info["username"], "system:serviceaccount:default:robot");
    let groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    assert_eq!(info["groups"], json!(groups));
    assert!(info["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap().starts_with("JTI="));

    let pods = "GET /api/v1/namespaces/default/pods";
    let reply = fixture.with_token(&token, pods, "").await;
    assert_eq!(reply.status, 403);
    assert_eq!(
        reply.json()["message"],
        "pods is forbidden: User \"system:serviceaccount:default:robot\" cannot list resource \"pods\" in API group \
         \"\" in the namespace \"default\""
    );
    let rule = json!({ "verbs": ["list"], "apiGroups": [""], "resources": ["pods"] });
    fixture.grant("lister", rule, json!({ "kind": "ServiceAccount", "name": "robot" })).await;
    assert_eq!(fixture.with_token(&token, pods, "").await.status, 200, "a binding counts at once");
    fixture.json(&format!("DELETE {ROLES}/namespaces/default/rolebindings/lister"), 200, &Value::Null).await;
    assert_eq!(fixture.with_token(&token, pods, "").await.status, 403, "and so does its end");

    for bad in ["x", "a.b.c", &format!("{token}x"), &token.replace('.', "")] {
        assert_eq!(fixture.with_token(bad, pods, "").await.status, 401, "{bad}");
    }
    fixture.json("DELETE /api/v1/namespaces/default/serviceaccounts/robot", 200, &Value::Null).await;
    assert_eq!(fixture.with_token(&token, me, "{}").await.status, 401, "the account is gone");
    fixture.account("robot").await;
    assert_eq!(fixture.with_token(&token, me, "{}").await.status, 401, "another account has its name");
}

#[tokio::test]
async fn a_bound_token_ends_with_its_pod() {
    let fixture = Fixture::new().await;
    fixture.json("POST /api/v1/namespaces/default/pods", 201, &pod("web", "")).await;
    let bound = |uid: &str| {
        json!({ "expirationSeconds": 3607, "boundObjectRef":
            { "apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid } })
    };
    let token = fixture.token("default", bound("")).await;
    let claims = claims(&token);
    assert_eq!(claims["kubernetes.io"]["pod"]["name"], "web");
    let issued = claims["iat"].as_i64().unwrap();
    assert_eq!(claims["kubernetes.io"]["warnafter"].as_i64().unwrap() - issued, 3607);
    assert_eq!(claims["exp"].as_i64().unwrap() - issued, 365 * 24 * 3600, "clients that do not read again go on");
    let me = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews";
    let reply = fixture.with_token(&token, me, "{}").await;
    let extra = &reply.json()["status"]["userInfo"]["extra"];
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["web"]));
    let line = "POST /api/v1/namespaces/default/serviceaccounts/default/token";
    fixture.json(line, 409, &json!({ "spec": bound("other") })).await;
    fixture.json("DELETE /api/v1/namespaces/default/pods/web?gracePeriodSeconds=0", 200, &Value::Null).await;
    assert_eq!(fixture.with_token(&token, me, "{}").await.status, 401);
}

#[tokio::test]
async fn what_is_wrong_with_a_token_request() {
    let fixture = Fixture::new().await;
    fixture.account("robot").await;
    let line = |account: &str| format!("POST /api/v1/namespaces/default/serviceaccounts/{account}/token");
    for (account, spec, status, message) in [
        ("nobody", json!({}), 404, "serviceaccounts \"nobody\" not found"),
        (
            "robot",
            json!({ "expirationSeconds": 599 }),
            422,
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not \
             specify a duration less than 10 minutes",
        ),
        (
            "robot",
            json!({ "boundObjectRef": { "apiVersion": "v1", "kind": "ConfigMap", "name": "x" } }),
            400,
            "cannot bind token to object of type /v1, Kind=ConfigMap",
        ),
        (
            "robot",
            json!({ "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": "x" } }),
            404,
            "pods \"x\" not found",
        ),
    ] {
        let answer = fixture.json(&line(account), status, &json!({ "spec": spec })).await;
        assert_eq!(answer["message"], message);
    }
}

#[tokio::test]
async fn tokens_for_others_are_for_others() {
    let fixture = Fixture::new().await;
    fixture.account("robot").await;
    let token = fixture.token("robot", json!({ "audiences": ["vault"] })).await;
    assert_eq!(fixture.with_token(&token, "GET /api", "").await.status, 401);
    let review = |spec: Value| {
        let fixture = &fixture;
        async move {
            let line = "POST /apis/authentication.k8s.io/v1/tokenreviews";
            fixture.json(line, 201, &json!({ "spec": spec })).await["status"].clone()
        }
    };
    let answer = review(json!({ "token": token, "audiences": ["vault", "x"] })).await;
    assert_eq!(answer["authenticated"], true);
    assert_eq!(answer["audiences"], json!(["vault"]));
    assert_eq!(answer["user"]["username"], "system:serviceaccount:default:robot");
    let answer = review(json!({ "token": token })).await;
    assert_eq!(
        answer["error"],
        r#"[invalid bearer token, token audiences ["vault"] is invalid for the target audiences ["https://kubernetes.default.svc.cluster.local"]]"#
    );
    assert_eq!(review(json!({ "token": "x" })).await["error"], "invalid bearer token");

    let configuration = fixture.json("GET /.well-known/openid-configuration", 200, &Value::Null).await;
    assert_eq!(configuration["issuer"], "https://kubernetes.default.svc.cluster.local");
    let keys = fixture.ask("GET /openid/v1/jwks", &[], "").await;
    assert_eq!(keys.header("content-type"), "application/jwk-set+json");
    assert_eq!(keys.json()["keys"][0]["alg"], "ES256");
    let own = fixture.token("robot", json!({})).await;
    assert_eq!(fixture.with_token(&own, "GET /openid/v1/jwks", "").await.status, 200);
}

#[tokio::test]
async fn acting_as_somebody_else_takes_a_right() {
    let fixture = Fixture::new().await;
    let line = "POST /apis/authentication.k8s.io/v1beta1/selfsubjectreviews";
    let ask = |user: User, headers: Vec<(&'static str, &'static str)>| {
        let fixture = &fixture;
        async move { fixture.ask_as(Some(user), line, &headers, "{}").await }
    };
    let reply = ask(
        User::master("admin"),
        vec![("impersonate-user", "jane"), ("impersonate-group", "devs"), ("impersonate-extra-a%2fb", "c")],
    )
    .await;
    let answer = reply.json();
    assert_eq!(answer["apiVersion"], "authentication.k8s.io/v1beta1");
    // There is no protobuf type of this version.
    let go = ("accept", "application/vnd.kubernetes.protobuf,application/json");
    let reply = ask(User::master("admin"), vec![go]).await;
    assert_eq!(reply.status, 201);
    assert_eq!(reply.json()["apiVersion"], "authentication.k8s.io/v1beta1");
    let expect = json!({ "username": "jane", "groups": ["devs", "system:authenticated"], "extra": { "a/b": ["c"] } });
    assert_eq!(answer["status"]["userInfo"], expect);
    let reply = ask(User::master("admin"), vec![("impersonate-user", "system:serviceaccount:x:y")]).await;
    assert_eq!(reply.json()["status"]["userInfo"]["groups"][1], "system:serviceaccounts:x");
    let reply = ask(User::new("jane", &[]), vec![("impersonate-user", "bob")]).await;
    assert_eq!(
        reply.json()["message"],
        r#"users "bob" is forbidden: User "jane" cannot impersonate resource "users" in API group "" at the cluster scope"#
    );
    for header in [("impersonate-group", "devs"), ("impersonate-uid", "x"), ("impersonate-extra-scopes", "view")] {
        let reply = ask(User::master("admin"), vec![header]).await;
        assert_eq!(reply.status, 400, "{header:?}: {}", reply.text);
        let reply = ask(User::master("admin"), vec![header, ("impersonate-user", "")]).await;
        assert_eq!(reply.status, 400, "{header:?}: {}", reply.text);
    }
    let reply = ask(User::master("admin"), vec![("impersonate-user", "")]).await;
    assert_eq!(reply.json()["status"]["userInfo"]["username"], "admin", "no name is nobody else's");
}

/// To read a pod is not to run something in it, whatever a connection begins with.
#[tokio::test]
async fn a_connection_that_begins_with_a_get_takes_the_right_to_create_one() {
    let fixture = Fixture::new().await;
    fixture.json("POST /api/v1/namespaces/default/pods", 201, &pod("web", "node1")).await;
    let connections = json!(["pods/exec", "pods/attach", "pods/portforward", "pods/log", "pods/proxy"]);
    for (name, verbs) in [("reader", json!(["get"])), ("writer", json!(["get", "create"]))] {
        let rule = json!({ "verbs": verbs, "apiGroups": [""], "resources": connections });
        fixture.grant(name, rule, json!({ "kind": "User", "name": name })).await;
    }
    let pod = "/api/v1/namespaces/default/pods/web";
    for line in ["exec?command=ls&stdout=1", "attach?stdout=1", "portforward?ports=80"] {
        let line = format!("GET {pod}/{line}");
        let reply = fixture.ask_as(Some(User::new("reader", &[])), &line, &[], "").await;
        assert_eq!(reply.status, 403, "{line}: {}", reply.text);
        assert!(reply.text.contains("cannot create resource \\\"pods/"), "{line}: {}", reply.text);
        let reply = fixture.ask_as(Some(User::new("writer", &[])), &line, &[], "").await;
        assert_eq!(reply.status, 400, "what is missing is the upgrade: {line}: {}", reply.text);
    }
    let reply = fixture.ask_as(Some(User::new("reader", &[])), &format!("GET {pod}/log"), &[], "").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}

#[tokio::test]
async fn rights_do_not_grow_by_being_written_down() {
    let fixture = Fixture::new().await;
    let jane = || User::new("jane", &["devs"]);
    let rule = json!({ "verbs": ["bind"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"] });
    let to_jane = json!({ "kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io" });
    let read = json!({ "verbs": ["create"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"] });
    fixture.grant("author", read, to_jane.clone()).await;
    let pods = json!({ "verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"] });
    let role = |name: &str| json!({ "metadata": { "name": name }, "rules": [pods] });
    let roles = format!("POST {ROLES}/namespaces/default/roles");
    let reply = fixture.send(jane(), &roles, role("r")).await;
    assert_eq!(reply.status, 403);
    assert_eq!(
        reply.json()["message"],
        "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"jane\" (groups=[\"devs\" \"system:authenticated\"]) \
         is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], \
         Verbs:[\"get\" \"list\"]}"
    );
    let bind = json!({ "metadata": { "name": "b" }, "subjects": [to_jane],
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" } });
    let bindings = format!("POST {ROLES}/namespaces/default/rolebindings");
    assert_eq!(fixture.send(jane(), &bindings, bind.clone()).await.status, 403);
    let mut nowhere = bind.clone();
    nowhere["roleRef"]["name"] = "none".into();
    let reply = fixture.send(jane(), &bindings, nowhere).await;
    assert_eq!(reply.json()["message"], "clusterroles.rbac.authorization.k8s.io \"none\" not found");

    fixture.grant("pods", pods.clone(), to_jane.clone()).await;
    assert_eq!(fixture.send(jane(), &roles, role("r")).await.status, 201, "what one has one may give");
    fixture.grant("anything", rule, to_jane).await;
    assert_eq!(fixture.send(jane(), &bindings, bind).await.status, 201, "`bind` is such a right itself");
}

#[tokio::test]
async fn a_kubelet_writes_and_reads_what_is_its_own() {
    let fixture = Fixture::new().await;
    let node = |name: &str| User::node(name);
    for name in ["a", "b"] {
        fixture.json("POST /api/v1/nodes", 201, &json!({ "metadata": { "name": name } })).await;
    }
    for name in ["used", "other"] {
        let map = json!({ "metadata": { "name": name } });
        fixture.json("POST /api/v1/namespaces/default/configmaps", 201, &map).await;
    }
    let mut mine = pod("mine", "a");
    mine["spec"]["volumes"] = json!([{ "name": "v", "configMap": { "name": "used" } }]);
    fixture.json("POST /api/v1/namespaces/default/pods", 201, &mine).await;
    fixture.json("POST /api/v1/namespaces/default/pods", 201, &pod("theirs", "b")).await;

    let map = |name: &str| format!("GET /api/v1/namespaces/default/configmaps/{name}");
    assert_eq!(fixture.send(node("a"), &map("used"), Value::Null).await.status, 200);
    let reply = fixture.send(node("a"), &map("other"), Value::Null).await;
    assert_eq!(
        reply.json()["message"],
        "configmaps \"other\" is forbidden: User \"system:node:a\" cannot get resource \"configmaps\" in API group \"\" \
         in the namespace \"default\": no relationship found between node 'a' and this object"
    );
    assert_eq!(fixture.send(node("b"), &map("used"), Value::Null).await.status, 403);
    // Of nodes and pods, too, it reads its own only.
    let own = "fieldSelector=spec.nodeName%3Da";
    for (line, code, why) in [
        ("GET /api/v1/nodes/a".to_owned(), 200, ""),
        ("GET /api/v1/nodes?fieldSelector=metadata.name%3Da".to_owned(), 200, ""),
        ("GET /api/v1/nodes/b".to_owned(), 403, "node 'a' cannot read 'b', only its own Node object"),
        ("GET /api/v1/nodes".to_owned(), 403, "node 'a' cannot read all nodes, only its own Node object"),
        ("GET /api/v1/nodes?watch=1".to_owned(), 403, "only its own Node object"),
        ("GET /api/v1/nodes?fieldSelector=metadata.name!%3Db".to_owned(), 403, "cannot read all nodes"),
        (format!("GET /api/v1/pods?{own}"), 200, ""),
        (format!("GET /api/v1/namespaces/default/pods?{own},status.phase%3DRunning"), 200, ""),
        ("GET /api/v1/namespaces/default/pods/mine".to_owned(), 200, ""),
        ("GET /api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dmine".to_owned(), 200, ""),
        ("GET /api/v1/namespaces/default/pods/theirs".to_owned(), 403, "no relationship found between node 'a'"),
        ("GET /api/v1/pods".to_owned(), 403, "can only list/watch pods with spec.nodeName field selector"),
        ("GET /api/v1/pods?fieldSelector=spec.nodeName%3Db".to_owned(), 403, "with spec.nodeName field selector"),
        ("GET /api/v1/pods?fieldSelector=spec.nodeName!%3Da".to_owned(), 403, "with spec.nodeName field selector"),
        ("GET /api/v1/pods?watch=1".to_owned(), 403, "with spec.nodeName field selector"),
    ] {
        let reply = fixture.send(node("a"), &line, Value::Null).await;
        assert_eq!(reply.status, code, "{line}: {}", reply.text);
        assert!(code == 200 || reply.json()["message"].as_str().unwrap().contains(why), "{line}: {}", reply.text);
    }
    let review = |selector: Value| {
        let attributes = json!({ "verb": "list", "resource": "pods", "fieldSelector": selector });
        json!({ "spec": { "user": "system:node:a", "groups": ["system:nodes"], "resourceAttributes": attributes } })
    };
    let term = |value: &str| json!({ "key": "spec.nodeName", "operator": "In", "values": [value] });
    for (selector, allowed) in [
        (json!({ "rawSelector": "spec.nodeName=a" }), true),
        (json!({ "rawSelector": "spec.nodeName=b" }), false),
        (json!({ "requirements": [term("a")] }), true),
        (json!({ "requirements": [term("b")] }), false),
        (Value::Null, false),
    ] {
        let review = review(selector.clone());
        let answer = fixture.json("POST /apis/authorization.k8s.io/v1/subjectaccessreviews", 201, &review).await;
        assert_eq!(answer["status"]["allowed"], allowed, "{selector}");
    }
    let patch = json!({ "status": { "message": "x" } }).to_string();
    let headers = [("content-type", "application/merge-patch+json")];
    let status = |name: &str| format!("PATCH /api/v1/namespaces/default/pods/{name}/status");
    assert_eq!(fixture.ask_as(Some(node("a")), &status("mine"), &headers, patch.clone()).await.status, 200);
    let reply = fixture.ask_as(Some(node("a")), &status("theirs"), &headers, patch.clone()).await;
    assert_eq!(
        reply.json()["message"],
        "pods \"theirs\" is forbidden: node \"a\" can only update pod status for pods with spec.nodeName set to itself"
    );
    let other = fixture.ask_as(Some(node("a")), "PATCH /api/v1/nodes/b", &headers, "{}".to_owned()).await;
    assert_eq!(other.status, 403, "{}", other.text);
    let token = "POST /api/v1/namespaces/default/serviceaccounts/default/token";
    let reply = fixture.send(node("a"), token, json!({})).await;
    assert!(reply.text.contains("node requested token not bound to a pod"), "{}", reply.text);
    fixture.json("DELETE /api/v1/namespaces/default/pods/mine?gracePeriodSeconds=0", 200, &Value::Null).await;
    assert_eq!(fixture.send(node("a"), &map("used"), Value::Null).await.status, 403, "the pod is gone");
}

#[tokio::test]
async fn what_somebody_may_do_can_be_asked() {
    let fixture = Fixture::new().await;
    let jane = || User::new("jane", &[]);
    let rule = json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] });
    fixture.grant("reader", rule.clone(), json!({ "kind": "User", "name": "jane" })).await;
    let rules = "POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let reply = fixture.send(jane(), rules, json!({ "spec": { "namespace": "default" } })).await;
    let status = &reply.json()["status"];
    assert!(status["resourceRules"].as_array().unwrap().contains(&rule), "{status}");
    assert_eq!(status["incomplete"], false);
    assert_eq!(fixture.send(jane(), rules, json!({})).await.status, 400);

    let local = "POST /apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
    let question = |namespace: &str| {
        json!({ "spec": { "user": "jane", "resourceAttributes":
            { "verb": "get", "resource": "pods", "namespace": namespace } } })
    };
    let answer = fixture.json(local, 201, &question("default")).await;
    assert_eq!(answer["status"]["allowed"], true);
    let why = r#"RBAC: allowed by RoleBinding "reader/default" of Role "reader" to User "jane""#;
    assert_eq!(answer["status"]["reason"], why);
    fixture.json(local, 422, &question("other")).await;
    let general = "POST /apis/authorization.k8s.io/v1/subjectaccessreviews";
    assert_eq!(fixture.json(general, 201, &question("other")).await["status"], json!({ "allowed": false }));
    assert_eq!(fixture.send(jane(), general, question("default")).await.status, 403, "asking about others is a right");
    fixture.json(general, 422, &json!({ "spec": { "user": "jane" } })).await;
}
