//! Admission of what is no write of an object itself: subresources that take something else, connections, deletes, reviews.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::authentication::v1::TokenRequest;
use registry::request::{DeleteRequest, PatchType, Target, WriteOptions};
use registry::{ApiError, ConnectOptions, Descriptor, ResourceInfo, Subresource, User};
use serde_json::{Value, json};

use super::admission::{Hooks, hooked};
use super::{Fixture, deployment, object, pod};

const MUTATING: &str = "MutatingWebhookConfiguration";
const VALIDATING: &str = "ValidatingWebhookConfiguration";

/// The rules of a webhook that wants to know everything about these resources.
fn about(resources: &[&str]) -> Value {
    json!({ "rules": [{ "operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources }] })
}

fn allow() -> Value {
    json!({ "allowed": true })
}

fn change(operations: &Value) -> Value {
    json!({ "allowed": true, "patchType": "JSONPatch", "patch": BASE64_STANDARD.encode(operations.to_string()) })
}

fn deny() -> Value {
    json!({ "allowed": false, "status": { "message": "never", "code": 403, "reason": "Forbidden" } })
}

const DENIED: &str = "admission webhook \"h.example.com\" denied the request: never";

async fn a_pod(fixture: &Fixture) -> Target {
    fixture.create("v1/pods", "default", pod("a")).await.unwrap();
    fixture.target("v1/pods", "default", "a")
}

async fn bind(fixture: &Fixture, target: &Target, options: &WriteOptions) -> Result<(), ApiError> {
    let binding = json!({ "metadata": { "name": "a" }, "target": { "kind": "Node", "name": "n1" } }).to_string();
    fixture.registry.bind(target, binding.as_bytes(), options).await.map(drop)
}

async fn evict(fixture: &Fixture, target: &Target) -> Result<(), ApiError> {
    let eviction = br#"{"metadata":{"name":"a"}}"#;
    fixture.registry.evict(target, eviction, &WriteOptions::default()).await.map(drop)
}

async fn exec(fixture: &Fixture, target: &Target) -> Result<ConnectOptions, ApiError> {
    let asked = ConnectOptions { stdout: true, command: vec!["ls".into()], ..ConnectOptions::default() };
    let user = Arc::new(User::new("jane", &["developers"]));
    fixture.registry.admit_connect(target, Subresource::Exec, asked, &user, &mut Vec::new()).await
}

/// What each request says of itself: operation, resource, subresource, kind of the object.
fn seen(hooks: &Arc<Hooks>) -> Vec<String> {
    let asked = hooks.asked.lock().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    asked
        .iter()
        .map(|request| {
            format!(
                "{} {}/{} {} {}",
                text(&request["operation"]),
                text(&request["resource"]["resource"]),
                text(&request["subResource"]),
                text(&request["kind"]["kind"]),
                text(&request["name"])
            )
        })
        .collect()
}

#[tokio::test]
async fn a_scale_is_admitted_in_place_of_its_workload() {
    let scale = |replicas: i32| json!({ "spec": { "replicas": replicas } }).to_string();
    let options = WriteOptions::default();
    let set = async |fixture: &Fixture, replicas: i32| {
        let target = fixture.target("apps/v1/deployments", "default", "web");
        let body = scale(replicas);
        let scale = Some(Subresource::Scale);
        let written = fixture.registry.patch(&target, scale, PatchType::Merge, body.as_bytes(), &options).await?;
        Ok::<_, ApiError>((object(&written), fixture.get(&target).await.unwrap()))
    };
    let patch = json!([{ "op": "replace", "path": "/spec/replicas", "value": 5 }]);
    let (fixture, hooks) = hooked(MUTATING, about(&["*/scale"]), move |_| Ok(change(&patch))).await;
    fixture.create("apps/v1/deployments", "default", deployment("web", 1.into())).await.unwrap();
    let (answer, stored) = set(&fixture, 3).await.unwrap();
    assert_eq!((&answer["spec"]["replicas"], &stored["spec"]["replicas"]), (&json!(5), &json!(5)));
    assert_eq!(seen(&hooks), ["UPDATE deployments/scale Scale web"]);
    {
        let asked = hooks.asked.lock().unwrap();
        assert_eq!(asked[0]["kind"], json!({ "group": "autoscaling", "version": "v1", "kind": "Scale" }));
        assert_eq!(
            (&asked[0]["object"]["spec"]["replicas"], &asked[0]["oldObject"]["spec"]["replicas"]),
            (&json!(3), &json!(1))
        );
        assert_eq!(asked[0]["object"]["status"]["selector"], "app=web");
    }
    // What a webhook makes of it is validated.
    let patch = json!([{ "op": "replace", "path": "/spec/replicas", "value": -1 }]);
    let (fixture, _hooks) = hooked(MUTATING, about(&["deployments/scale"]), move |_| Ok(change(&patch))).await;
    fixture.create("apps/v1/deployments", "default", deployment("web", 1.into())).await.unwrap();
    assert_eq!(set(&fixture, 3).await.unwrap_err().code, 422);

    let (fixture, _hooks) = hooked(VALIDATING, about(&["deployments/*"]), |request| {
        let much = request["subResource"] == "scale" && request["object"]["spec"]["replicas"] == 9;
        Ok(if much { deny() } else { allow() })
    })
    .await;
    fixture.create("apps/v1/deployments", "default", deployment("web", 1.into())).await.unwrap();
    assert_eq!(set(&fixture, 9).await.unwrap_err().message, DENIED);
    set(&fixture, 2).await.unwrap();
}

#[tokio::test]
async fn a_binding_is_admitted() {
    let patch = json!([{ "op": "add", "path": "/metadata/annotations", "value": { "by": "hook" } }]);
    let (fixture, hooks) = hooked(MUTATING, about(&["pods/binding"]), move |_| Ok(change(&patch))).await;
    let target = a_pod(&fixture).await;
    let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
    bind(&fixture, &target, &dry).await.unwrap();
    assert_eq!(fixture.get(&target).await.unwrap()["spec"]["nodeName"], Value::Null);
    assert_eq!(hooks.asked.lock().unwrap()[0]["dryRun"], true);
    bind(&fixture, &target, &WriteOptions::default()).await.unwrap();
    let bound = fixture.get(&target).await.unwrap();
    assert_eq!((&bound["spec"]["nodeName"], &bound["metadata"]["annotations"]["by"]), (&json!("n1"), &json!("hook")));
    assert_eq!(seen(&hooks), ["CREATE pods/binding Binding a", "CREATE pods/binding Binding a"]);

    let (fixture, hooks) = hooked(VALIDATING, about(&["*/*"]), |request| {
        Ok(if request["subResource"] == "binding" { deny() } else { allow() })
    })
    .await;
    let target = a_pod(&fixture).await;
    assert_eq!(bind(&fixture, &target, &WriteOptions::default()).await.unwrap_err().message, DENIED);
    assert_eq!(fixture.get(&target).await.unwrap()["spec"]["nodeName"], Value::Null);
    assert_eq!(seen(&hooks), ["CREATE pods/- Pod a", "CREATE pods/binding Binding a"]);
}

#[tokio::test]
async fn an_eviction_is_admitted_and_not_asked_about_as_a_delete() {
    let (fixture, hooks) = hooked(VALIDATING, about(&["pods", "pods/eviction"]), |request| {
        Ok(if request["operation"] == "DELETE" { deny() } else { allow() })
    })
    .await;
    let target = a_pod(&fixture).await;
    evict(&fixture, &target).await.unwrap();
    assert_eq!(seen(&hooks), ["CREATE pods/- Pod a", "CREATE pods/eviction Eviction a"]);
    assert_eq!(fixture.get(&target).await.unwrap_err().code, 404);

    let (fixture, _hooks) = hooked(VALIDATING, about(&["pods/eviction"]), |_| Ok(deny())).await;
    let target = a_pod(&fixture).await;
    assert_eq!(evict(&fixture, &target).await.unwrap_err().message, DENIED);
    fixture.get(&target).await.unwrap();

    // A webhook may have it do nothing.
    let patch = json!([{ "op": "add", "path": "/deleteOptions", "value": { "dryRun": ["All"] } }]);
    let (fixture, _hooks) = hooked(MUTATING, about(&["pods/eviction"]), move |_| Ok(change(&patch))).await;
    let target = a_pod(&fixture).await;
    evict(&fixture, &target).await.unwrap();
    fixture.get(&target).await.unwrap();
}

#[tokio::test]
async fn a_connection_is_admitted() {
    let patch = json!([{ "op": "replace", "path": "/command", "value": ["true"] }]);
    let (fixture, hooks) = hooked(MUTATING, about(&["pods/exec"]), move |_| Ok(change(&patch))).await;
    let target = a_pod(&fixture).await;
    let admitted = exec(&fixture, &target).await.unwrap();
    assert_eq!((admitted.command, admitted.stdout, admitted.stdin), (vec!["true".to_owned()], true, false));
    assert_eq!(seen(&hooks), ["CONNECT pods/exec PodExecOptions a"]);
    let asked = hooks.asked.lock().unwrap()[0].clone();
    let options = json!({ "kind": "PodExecOptions", "apiVersion": "v1", "stdout": true, "command": ["ls"] });
    assert_eq!((&asked["object"], &asked["oldObject"], &asked["options"]), (&options, &Value::Null, &Value::Null));
    assert_eq!((&asked["namespace"], &asked["userInfo"]["username"]), (&json!("default"), &json!("jane")));
}

/// Which rules and selectors are about a connection.
#[tokio::test]
async fn who_is_asked_about_a_connection() {
    let denied = Some(DENIED);
    let namespace =
        |name: &str| json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": name } } });
    let condition = |expression: &str| json!({ "matchConditions": [{ "name": "c", "expression": expression }] });
    for (resources, extra, expect) in [
        (vec!["pods/exec"], json!({}), denied),
        (vec!["pods/*"], json!({}), denied),
        (vec!["*/exec"], json!({}), denied),
        (vec!["*/*"], json!({}), denied),
        (vec!["*"], json!({}), None),
        (vec!["pods"], json!({}), None),
        (vec!["pods/attach"], json!({}), None),
        (vec!["pods/exec"], namespace("default"), denied),
        (vec!["pods/exec"], namespace("other"), None),
        // Options have no labels.
        (
            vec!["pods/exec"],
            json!({ "objectSelector": { "matchExpressions": [{ "key": "x", "operator": "DoesNotExist" }] } }),
            None,
        ),
        (vec!["pods/exec"], condition("object.command[0] == 'ls' && request.operation == 'CONNECT'"), denied),
        (vec!["pods/exec"], condition("object.command[0] == 'sh'"), None),
    ] {
        for kind in [VALIDATING, MUTATING] {
            let mut all = about(&resources);
            all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let answer = |request: &Value| Ok(if request["operation"] == "CONNECT" { deny() } else { allow() });
            let (fixture, _hooks) = hooked(kind, all, answer).await;
            let target = a_pod(&fixture).await;
            let refused = exec(&fixture, &target).await.err().map(|error| error.message);
            assert_eq!(refused.as_deref(), expect, "{kind} {resources:?} {extra}");
        }
    }
    for (operations, scope, expect) in
        [("CONNECT", "Namespaced", denied), ("CONNECT", "Cluster", None), ("CREATE", "*", None)]
    {
        let mut rules = about(&["pods/exec"]);
        rules["rules"][0]["operations"] = json!([operations]);
        rules["rules"][0]["scope"] = scope.into();
        let (fixture, _hooks) = hooked(VALIDATING, rules, |_| Ok(deny())).await;
        let target = a_pod(&fixture).await;
        let refused = exec(&fixture, &target).await.err().map(|error| error.message);
        assert_eq!(refused.as_deref(), expect, "{operations} {scope}");
    }
}

#[tokio::test]
async fn a_webhook_that_is_down_lets_nothing_pass() {
    for (policy, passes) in [("Fail", false), ("Ignore", true)] {
        for kind in [VALIDATING, MUTATING] {
            let mut all = about(&["pods/*"]);
            all["failurePolicy"] = policy.into();
            all["rules"][0]["operations"] = json!(["CONNECT", "CREATE"]);
            all["rules"][0]["resources"] = json!(["pods/exec", "pods/binding", "pods/eviction"]);
            let (fixture, _hooks) = hooked(kind, all, |_| Err("connect: connection refused".to_owned())).await;
            let target = a_pod(&fixture).await;
            let outcomes = [
                exec(&fixture, &target).await.map(drop),
                bind(&fixture, &target, &WriteOptions::default()).await,
                evict(&fixture, &target).await,
            ];
            for outcome in outcomes {
                assert_eq!(outcome.is_ok(), passes, "{kind} {policy} {outcome:?}");
                assert!(outcome.err().is_none_or(|error| error.code == 500));
            }
        }
    }
}

#[tokio::test]
async fn a_token_request_and_a_review_are_admitted() {
    let patch = json!([{ "op": "add", "path": "/spec", "value": { "audiences": ["hooked"], "user": "hooked" } }]);
    let resources = ["serviceaccounts/token", "subjectaccessreviews"];
    let (fixture, hooks) = hooked(MUTATING, about(&resources), move |_| Ok(change(&patch))).await;
    let account = fixture.target("v1/serviceaccounts", "default", "default");
    let (options, mut warnings) = (WriteOptions::default(), Vec::new());
    let asked = TokenRequest::default();
    let token = Subresource::Token;
    let admitted = fixture.registry.admit_subresource(&account, token, asked, &options, &mut warnings, |request| {
        assert_eq!(request.spec.as_ref().unwrap().audiences.as_deref(), Some(&["hooked".to_owned()][..]));
        request.metadata.name = Some("default".into());
        Ok(())
    });
    assert_eq!(admitted.await.unwrap().metadata.name.as_deref(), Some("default"));

    let descriptor = Descriptor::cluster("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews");
    let info = ResourceInfo::from_descriptor(&descriptor, "");
    let review =
        json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": {} });
    let admitted = fixture.registry.admit_review(&info, "", review, &options, &mut warnings).await.unwrap();
    assert_eq!(admitted["spec"]["user"], "hooked");
    assert_eq!(
        seen(&hooks),
        ["CREATE serviceaccounts/token TokenRequest default", "CREATE subjectaccessreviews/- SubjectAccessReview -"]
    );
}

#[tokio::test]
async fn a_mutating_webhook_may_refuse_a_delete_and_not_change_it() {
    let (fixture, hooks) = hooked(MUTATING, about(&["pods"]), |request| {
        Ok(if request["operation"] == "DELETE" { deny() } else { allow() })
    })
    .await;
    let target = a_pod(&fixture).await;
    let error = fixture.delete(&target, &DeleteRequest::default()).await.unwrap_err();
    assert_eq!(error.message, DENIED);
    assert_eq!(seen(&hooks), ["CREATE pods/- Pod a", "DELETE pods/- Pod a"]);

    let patch = json!([{ "op": "add", "path": "/metadata/labels", "value": {} }]);
    let (fixture, _hooks) = hooked(MUTATING, about(&["pods"]), move |request| {
        Ok(if request["operation"] == "DELETE" { change(&patch) } else { allow() })
    })
    .await;
    let target = a_pod(&fixture).await;
    let error = fixture.delete(&target, &DeleteRequest::default()).await.unwrap_err();
    assert_eq!(
        error.message,
        "Internal error occurred: admission webhook \"h.example.com\" attempted to modify the object, which is not supported \
         for this operation"
    );

    let warn = |_: &Value| Ok(json!({ "allowed": true, "warnings": ["mind this"] }));
    let (fixture, _hooks) = hooked(VALIDATING, about(&["pods", "pods/binding"]), warn).await;
    let target = a_pod(&fixture).await;
    let deleted = fixture.registry.delete(&target, &DeleteRequest::default()).await.unwrap();
    assert_eq!(deleted.warnings, ["mind this"]);
}
