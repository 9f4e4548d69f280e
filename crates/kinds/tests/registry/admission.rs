//! Limit ranges, quotas and webhooks.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use registry::request::{DeleteRequest, PatchType, Target, WriteOptions};
use registry::{Subresource, WebhookCall, WebhookClient};
use serde_json::{Value, json};

use super::{Fixture, config_map, deployment, object, pod};

/// A pod whose container has these resources.
fn asking(name: &str, resources: Value) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = resources;
    pod
}

async fn limit(fixture: &Fixture, limits: Value) {
    let range = json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": { "name": "l" }, "spec": { "limits": limits },
    });
    fixture.create("v1/limitranges", "default", range).await.unwrap();
}

#[tokio::test]
async fn containers_get_what_they_leave_out() {
    let fixture = Fixture::open().await;
    limit(&fixture, json!([{ "type": "Container", "default": { "cpu": "1" }, "defaultRequest": { "cpu": "100m", "memory": "1Mi" } }])).await;
    let made = fixture.create("v1/pods", "default", pod("a")).await.unwrap();
    let container = &made["spec"]["containers"][0];
    assert_eq!(
        container["resources"],
        json!({ "limits": { "cpu": "1" }, "requests": { "cpu": "100m", "memory": "1Mi" } })
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu, memory request for container main; cpu limit for container main"
    );
    assert_eq!(made["status"]["qosClass"], "Burstable", "the class follows what is given");
    let owned = &made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:containers"]["k:{\"name\":\"main\"}"];
    assert_eq!(owned["f:resources"], json!({}), "what admission adds belongs to nobody");
    let made = fixture.create("v1/pods", "default", asking("b", json!({ "limits": { "cpu": "2" } }))).await.unwrap();
    let resources = &made["spec"]["containers"][0]["resources"];
    assert_eq!(*resources, json!({ "limits": { "cpu": "2" }, "requests": { "cpu": "2", "memory": "1Mi" } }));
}

#[tokio::test]
async fn what_is_out_of_bounds_is_refused() {
    let fixture = Fixture::open().await;
    let bounds = json!([
        { "type": "Container", "max": { "cpu": "500m" }, "min": { "cpu": "100m" } },
        { "type": "Pod", "maxLimitRequestRatio": { "memory": "2" } },
    ]);
    limit(&fixture, bounds).await;
    let asks = |cpu: &str, memory: (&str, &str)| json!({ "limits": { "cpu": cpu, "memory": memory.1 }, "requests": { "cpu": cpu, "memory": memory.0 } });
    for (resources, expect) in [
        (asks("200m", ("1Mi", "2Mi")), None),
        (
            asks("1", ("1Mi", "2Mi")),
            Some("pods \"x\" is forbidden: maximum cpu usage per Container is 500m, but limit is 1"),
        ),
        (
            asks("10m", ("1Mi", "4Mi")),
            Some(
                "pods \"x\" is forbidden: [minimum cpu usage per Container is 100m, but request is 10m, memory max limit to request ratio per Pod is 2, but provided ratio is 4.000000]",
            ),
        ),
    ] {
        let name = if expect.is_some() { "x" } else { "fine" };
        let result = fixture.create("v1/pods", "default", asking(name, resources)).await;
        assert_eq!(
            result.err().map(|error| (error.code, error.message)),
            expect.map(|message| (403, message.to_owned()))
        );
    }
    limit_claims(&fixture).await;
}

async fn limit_claims(fixture: &Fixture) {
    let range = json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": { "name": "claims" },
        "spec": { "limits": [{ "type": "PersistentVolumeClaim", "max": { "storage": "1Gi" } }] },
    });
    fixture.create("v1/limitranges", "default", range).await.unwrap();
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "c" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "2Gi" } } },
    });
    let error = fixture.create("v1/persistentvolumeclaims", "default", claim).await.unwrap_err();
    assert_eq!(
        error.message,
        "persistentvolumeclaims \"c\" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"
    );
}

/// A quota as its controller leaves it: nothing is used yet.
async fn allow(fixture: &Fixture, hard: Value) -> Target {
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "q" }, "spec": { "hard": hard },
    });
    fixture.create("v1/resourcequotas", "default", quota).await.unwrap();
    let target = fixture.target("v1/resourcequotas", "default", "q");
    let none: serde_json::Map<String, Value> =
        hard.as_object().unwrap().keys().map(|name| (name.clone(), "0".into())).collect();
    let status = json!({ "status": { "hard": hard, "used": none } }).to_string();
    let options = WriteOptions::default();
    let patched =
        fixture.registry.patch(&target, Some(Subresource::Status), PatchType::Merge, status.as_bytes(), &options);
    patched.await.unwrap();
    target
}

#[tokio::test]
async fn a_quota_is_charged_with_the_object() {
    let fixture = Fixture::open().await;
    let quota = allow(
        &fixture,
        json!({ "pods": "2", "requests.cpu": "1", "services.nodeports": "1", "count/configmaps": "1" }),
    )
    .await;
    let used = || async { fixture.get(&quota).await.unwrap()["status"]["used"].clone() };
    let error = fixture.create("v1/pods", "default", pod("a")).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (403, "pods \"a\" is forbidden: failed quota: q: must specify requests.cpu for: main")
    );
    let half = || json!({ "requests": { "cpu": "500m" } });
    fixture.create("v1/pods", "default", asking("a", half())).await.unwrap();
    fixture.create("v1/pods", "default", asking("b", half())).await.unwrap();
    assert_eq!(used().await["requests.cpu"], "1");
    let error = fixture.create("v1/pods", "default", asking("c", half())).await.unwrap_err();
    assert_eq!(
        error.message,
        "pods \"c\" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=500m, used: pods=2,requests.cpu=1, limited: pods=2,requests.cpu=1"
    );
    // What has ended makes room, and so does what goes.
    let a = fixture.target("v1/pods", "default", "a");
    fixture.update_sub(&a, Subresource::Status, &json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" }, "status": { "phase": "Succeeded" } })).await.unwrap();
    assert_eq!(used().await["pods"], "1");
    fixture.delete(&a, &DeleteRequest::default()).await.unwrap();
    assert_eq!(used().await["pods"], "1");
    fixture.delete(&fixture.target("v1/pods", "default", "b"), &DeleteRequest::default()).await.unwrap();
    assert_eq!(used().await["pods"], "0");

    // A dry run is told, and changes nothing.
    let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
    fixture.create_with("v1/configmaps", "default", config_map("x"), &dry).await.unwrap();
    assert_eq!(used().await["count/configmaps"], "0");
    fixture.create("v1/configmaps", "default", config_map("x")).await.unwrap();
    let error = fixture.create_with("v1/configmaps", "default", config_map("y"), &dry).await.unwrap_err();
    assert_eq!(
        error.message,
        "configmaps \"y\" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1"
    );

    // A service may begin to need node ports.
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s" },
        "spec": { "ports": [{ "name": "a", "port": 1 }, { "name": "b", "port": 2 }] },
    });
    fixture.create("v1/services", "default", service).await.unwrap();
    let service = fixture.target("v1/services", "default", "s");
    let error = fixture.merge(&service, json!({ "spec": { "type": "NodePort" } })).await.unwrap_err();
    assert!(error.message.contains("requested: services.nodeports=2, used: services.nodeports=0"), "{}", error.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_quota_is_exact_whoever_writes_at_the_same_time() {
    let fixture = Fixture::open().await;
    let quota = allow(&fixture, json!({ "count/configmaps": "10" })).await;
    let fixture = Arc::new(fixture);
    let writers = (0..40).map(|number| {
        let fixture = Arc::clone(&fixture);
        tokio::spawn(async move {
            fixture.create("v1/configmaps", "default", config_map(&format!("c{number}"))).await.is_ok()
        })
    });
    let made = join_all(writers).await.into_iter().filter(|made| *made.as_ref().unwrap()).count();
    assert_eq!(made, 10);
    assert_eq!(fixture.get(&quota).await.unwrap()["status"]["used"]["count/configmaps"], "10");
}

#[tokio::test]
async fn a_quota_that_is_being_counted_notices_writes() {
    let fixture = Fixture::open().await;
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "q" }, "spec": { "hard": { "pods": "1" } },
    });
    let before = fixture.create("v1/resourcequotas", "default", quota).await.unwrap();
    fixture.create("v1/pods", "default", pod("a")).await.unwrap();
    let after = fixture.get(&fixture.target("v1/resourcequotas", "default", "q")).await.unwrap();
    assert_ne!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);
}

/// What a webhook says to a review.
type Answer = dyn Fn(&Value) -> Result<Value, String> + Send + Sync;

/// Answers as the test says, and keeps what it was asked.
pub(super) struct Hooks {
    answer: Box<Answer>,
    pub(super) asked: Mutex<Vec<Value>>,
}

impl WebhookClient for Hooks {
    fn call(&self, call: WebhookCall) -> BoxFuture<'_, Result<Bytes, String>> {
        let review: Value = serde_json::from_slice(&call.body).unwrap();
        let request = review["request"].clone();
        let answer = (self.answer)(&request).map(|mut response| {
            response["uid"] = request["uid"].clone();
            let review =
                json!({ "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response });
            Bytes::from(review.to_string())
        });
        self.asked.lock().unwrap().push(request);
        async move { answer }.boxed()
    }
}

pub(super) async fn hooked(
    kind: &str,
    extra: Value,
    answer: impl Fn(&Value) -> Result<Value, String> + Send + Sync + 'static,
) -> (Fixture, Arc<Hooks>) {
    let hooks = Arc::new(Hooks { answer: Box::new(answer), asked: Mutex::default() });
    let fixture = Fixture::with_webhooks(Arc::clone(&hooks) as _).await;
    let mut hook = json!({
        "name": "h.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": { "url": "https://127.0.0.1:9/hook" },
        "rules": [{ "operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["configmaps", "deployments"] }],
    });
    hook.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let body = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": "w" }, "webhooks": [hook],
    });
    let path = format!("admissionregistration.k8s.io/v1/{}s", kind.to_lowercase());
    fixture.create(&path, "", body).await.unwrap();
    (fixture, hooks)
}

#[tokio::test]
async fn a_webhook_changes_what_is_written() {
    let (fixture, hooks) = hooked("MutatingWebhookConfiguration", json!({}), |_| {
        let patch = json!([{ "op": "add", "path": "/data/hooked", "value": "yes" }]).to_string();
        Ok(json!({ "allowed": true, "patchType": "JSONPatch", "patch": BASE64_STANDARD.encode(patch), "warnings": ["mind this"] }))
    })
    .await;
    let written =
        fixture.create_with("v1/configmaps", "default", config_map("x"), &WriteOptions::default()).await.unwrap();
    assert_eq!(object(&written)["data"], json!({ "a": "1", "hooked": "yes" }));
    assert_eq!(written.warnings, ["mind this"]);
    let target = fixture.target("v1/configmaps", "default", "x");
    let after = fixture.merge(&target, json!({ "data": { "hooked": "no" } })).await.unwrap();
    assert_eq!(after["data"]["hooked"], "yes");
    fixture.create("v1/pods", "default", pod("p")).await.unwrap();
    let made = fixture.create("apps/v1/deployments", "default", deployment("web", json!(1))).await;
    assert_eq!(made.unwrap_err().code, 500, "a patch that does not fit is the webhook's fault");
    let asked = hooks.asked.lock().unwrap();
    assert_eq!(asked.len(), 3, "nobody asks about pods");
    assert_eq!(asked[0]["operation"], "CREATE");
    assert_eq!(asked[0]["object"]["data"], json!({ "a": "1" }));
    assert_eq!(asked[0]["oldObject"], Value::Null);
    assert_eq!(asked[0]["kind"], json!({ "group": "", "version": "v1", "kind": "ConfigMap" }));
    assert_eq!((asked[1]["operation"].clone(), asked[1]["name"].clone()), (json!("UPDATE"), json!("x")));
    assert_eq!(asked[1]["oldObject"]["data"]["hooked"], "yes");
}

#[tokio::test]
async fn what_a_webhook_adds_to_a_pod_passes_the_plugins_before_it() {
    let rules = json!([{ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"] }]);
    let (fixture, hooks) = hooked("MutatingWebhookConfiguration", json!({ "rules": rules }), |request| {
        let added = json!({ "name": "sidecar", "image": "proxy" });
        let known = request["object"]["spec"]["containers"].as_array().unwrap().len();
        let operations = json!([{ "op": "add", "path": "/spec/containers/-", "value": added }]);
        let operations = if known > 1 { json!([]) } else { operations };
        let patch = BASE64_STANDARD.encode(operations.to_string());
        Ok(json!({ "allowed": true, "patchType": "JSONPatch", "patch": patch }))
    })
    .await;
    limit(&fixture, json!([{ "type": "Container", "defaultRequest": { "cpu": "100m" }, "min": { "cpu": "50m" } }]))
        .await;
    let made = fixture.create("v1/pods", "default", pod("p")).await.unwrap();
    let sidecar = &made["spec"]["containers"][1];
    assert_eq!(sidecar["resources"], json!({ "requests": { "cpu": "100m" } }));
    assert_eq!(sidecar["volumeMounts"][0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(sidecar["imagePullPolicy"], "Always", "it has the defaults of its kind");
    let asked = hooks.asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0]["object"]["status"]["qosClass"], "Burstable", "a webhook sees what the plugins before it did");
}

#[tokio::test]
async fn the_patch_of_a_webhook_has_the_bounds_of_any_patch() {
    let (fixture, _) = hooked("MutatingWebhookConfiguration", json!({}), |_| {
        let copies: Value =
            (0..30).map(|n| json!({ "op": "copy", "from": "/data", "path": format!("/data/a{n}") })).collect();
        Ok(json!({ "allowed": true, "patchType": "JSONPatch", "patch": BASE64_STANDARD.encode(copies.to_string()) }))
    })
    .await;
    let error = fixture.create("v1/configmaps", "default", config_map("x")).await.unwrap_err();
    assert!(error.code == 500 && error.message.contains("the accumulated size increase of copy is"), "{error}");
}

#[tokio::test]
async fn a_webhook_refuses() {
    let (fixture, hooks) = hooked("ValidatingWebhookConfiguration", json!({}), |request| {
        let bad = request["operation"] == "DELETE" || request["object"]["data"]["a"] == "2";
        Ok(json!({ "allowed": !bad, "status": { "message": "not so", "code": 403, "reason": "Forbidden" } }))
    })
    .await;
    fixture.create("v1/configmaps", "default", config_map("x")).await.unwrap();
    let target = fixture.target("v1/configmaps", "default", "x");
    let error = fixture.merge(&target, json!({ "data": { "a": "2" } })).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (403, "admission webhook \"h.example.com\" denied the request: not so")
    );
    let error = fixture.delete(&target, &DeleteRequest::default()).await.unwrap_err();
    assert_eq!(error.reason.as_str(), "Forbidden");
    fixture.create("apps/v1/deployments", "default", deployment("web", json!(1))).await.unwrap();
    let asked = hooks.asked.lock().unwrap().len();
    // `deployments` is not `deployments/status`, and the configuration itself can always go.
    let web = fixture.target("apps/v1/deployments", "default", "web");
    let status = json!({ "status": { "replicas": 1 } }).to_string();
    let options = WriteOptions::default();
    fixture
        .registry
        .patch(&web, Some(Subresource::Status), PatchType::Merge, status.as_bytes(), &options)
        .await
        .unwrap();
    let own = fixture.target("admissionregistration.k8s.io/v1/validatingwebhookconfigurations", "", "w");
    fixture.delete(&own, &DeleteRequest::default()).await.unwrap();
    fixture.delete(&target, &DeleteRequest::default()).await.unwrap();
    assert_eq!(hooks.asked.lock().unwrap().len(), asked);
}

#[tokio::test]
async fn a_webhook_that_is_down() {
    for (extra, expect) in [
        (
            json!({}),
            Some(
                "Internal error occurred: failed calling webhook \"h.example.com\": failed to call webhook: Post \"https://127.0.0.1:9/hook?timeout=10s\": dial tcp 127.0.0.1:9: connect: connection refused",
            ),
        ),
        (json!({ "failurePolicy": "Ignore" }), None),
        (json!({ "objectSelector": { "matchLabels": { "a": "b" } } }), None),
        (json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "other" } } }), None),
        (
            json!({ "clientConfig": { "service": { "namespace": "default", "name": "nobody" } } }),
            Some(
                "Internal error occurred: failed calling webhook \"h.example.com\": failed to call webhook: Post \"https://nobody.default.svc:443/?timeout=10s\": service \"nobody\" not found",
            ),
        ),
        (
            json!({ "clientConfig": { "service": { "namespace": "default", "name": "kubernetes", "path": "/x" } } }),
            Some(
                "Internal error occurred: failed calling webhook \"h.example.com\": failed to call webhook: Post \"https://kubernetes.default.svc:443/x?timeout=10s\": no endpoints available for service \"kubernetes\"",
            ),
        ),
    ] {
        for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
            let down = |_: &Value| Err("dial tcp 127.0.0.1:9: connect: connection refused".to_owned());
            let (fixture, _hooks) = hooked(kind, extra.clone(), down).await;
            let result = fixture.create("v1/configmaps", "default", config_map("x")).await;
            assert_eq!(result.err().map(|error| error.message).as_deref(), expect, "{kind} {extra}");
        }
    }
}

#[tokio::test]
async fn answers_that_are_none() {
    for (answer, expect) in [
        (json!({ "allowed": false }), "admission webhook \"h.example.com\" denied the request without explanation"),
        (
            json!({ "allowed": true, "patch": "W10=" }),
            "Internal error occurred: failed calling webhook \"h.example.com\": received invalid webhook response: webhook returned response.patch but not response.patchType JSONPatch: \"\"",
        ),
    ] {
        let (fixture, _hooks) = hooked("MutatingWebhookConfiguration", json!({}), move |_| Ok(answer.clone())).await;
        let error = fixture.create("v1/configmaps", "default", config_map("x")).await.unwrap_err();
        assert_eq!(error.message, expect);
    }
}

#[tokio::test]
async fn conditions_say_what_a_webhook_is_about() {
    let no = |_: &Value| Ok(json!({ "allowed": false, "status": { "message": "no" } }));
    let condition = |name: &str, expression: &str| json!({ "name": name, "expression": expression });
    let outcome = async |conditions: Value, policy: &str| {
        let extra = json!({ "matchConditions": conditions, "failurePolicy": policy });
        let mut outcomes = Vec::new();
        for kind in ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"] {
            let (fixture, _hooks) = hooked(kind, extra.clone(), no).await;
            let made = fixture.create("v1/configmaps", "default", config_map("x")).await;
            outcomes.push(made.map(|_| ()).map_err(|error| error.message));
        }
        assert_eq!(outcomes[0], outcomes[1]);
        outcomes.remove(0)
    };
    let denied = Err("admission webhook \"h.example.com\" denied the request: no".to_owned());
    let this = condition("this", "object.metadata.name == 'x' && request.operation == 'CREATE' && oldObject == null");
    let other = condition("other", "object.data.a == '2' || request.userInfo.username == 'nobody'");
    let broken = condition("broken", "object.spec.x == 1");
    assert_eq!(outcome(json!([this]), "Fail").await, denied);
    assert_eq!(outcome(json!([this, other]), "Fail").await, Ok(()));
    assert_eq!(outcome(json!([broken, other]), "Fail").await, Ok(()), "one that does not hold decides");
    assert_eq!(
        outcome(json!([this, broken]), "Fail").await,
        Err("configmaps \"x\" is forbidden: expression 'object.spec.x == 1' resulted in error: no such key: spec"
            .to_owned())
    );
    assert_eq!(outcome(json!([this, broken]), "Ignore").await, Ok(()));
}

#[tokio::test]
async fn a_priority_is_that_of_the_class() {
    let fixture = Fixture::open().await;
    let class = |name: &str, value: i32| {
        json!({ "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": { "name": name },
            "value": value, "globalDefault": true })
    };
    let classes = "scheduling.k8s.io/v1/priorityclasses";
    let refused = |error: registry::ApiError, expected: &str| assert_eq!(error.message, expected);
    fixture.create(classes, "", class("usual", 7)).await.unwrap();
    refused(
        fixture.create(classes, "", class("other", 8)).await.unwrap_err(),
        "priorityclasses.scheduling.k8s.io \"other\" is forbidden: PriorityClass usual is already marked as default. \
         Only one default can exist",
    );
    let usual = fixture.target(classes, "", "usual");
    fixture.merge(&usual, json!({ "description": "it may be written itself" })).await.unwrap();

    let of = |name: &str, fields: Value| {
        let mut pod = pod(name);
        pod["spec"].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        pod
    };
    let made = fixture.create("v1/pods", "default", of("a", json!({ "priority": 7 }))).await.unwrap();
    assert_eq!(made["spec"]["priorityClassName"], "usual");
    refused(
        fixture.create("v1/pods", "default", of("b", json!({ "priority": 8 }))).await.unwrap_err(),
        "pods \"b\" is forbidden: the integer value of priority (8) must not be provided in pod spec; priority admission \
         controller computed 7 from the given PriorityClass name",
    );
    let critical = json!({ "priorityClassName": "system-node-critical", "preemptionPolicy": "Never" });
    refused(
        fixture.create("v1/pods", "default", of("c", critical)).await.unwrap_err(),
        "pods \"c\" is forbidden: the string value of PreemptionPolicy (Never) must not be provided in pod spec; \
         priority admission controller computed PreemptLowerPriority from the given PriorityClass name",
    );
    let system = fixture.target(classes, "", "system-node-critical");
    assert_eq!(fixture.get(&system).await.unwrap()["value"], 2_000_001_000);
    refused(
        fixture.delete(&system, &DeleteRequest::default()).await.unwrap_err(),
        "priorityclasses.scheduling.k8s.io \"system-node-critical\" is forbidden: this is a system priority class and \
         cannot be deleted",
    );
}

#[tokio::test]
async fn pods_are_told_of_a_leader_worker_set_by_its_addon_alone() {
    const CRDS: &str = "apiextensions.k8s.io/v1/customresourcedefinitions";
    const NAME: &str = "leaderworkersets.leaderworkerset.x-k8s.io";
    let fixture = Fixture::open().await;
    let schema = json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": NAME },
        "spec": {
            "group": "leaderworkerset.x-k8s.io", "scope": "Namespaced",
            "names": { "plural": "leaderworkersets", "kind": "LeaderWorkerSet" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": schema }],
        },
    });
    let check = async |name: &str, told: bool| {
        let mut member = pod(name);
        member["metadata"]["labels"] = json!({ "leaderworkerset.sigs.k8s.io/name": "x" });
        member["metadata"]["annotations"] = json!({ "leaderworkerset.sigs.k8s.io/size": "3" });
        let made = fixture.create("v1/pods", "default", member).await.unwrap();
        assert_eq!(made["spec"]["containers"][0]["env"].is_array(), told, "{name}: {made}");
        assert_eq!(made["metadata"]["labels"]["leaderworkerset.sigs.k8s.io/worker-index"].is_string(), told);
    };
    check("none-1", false).await;
    fixture.create(CRDS, "", definition).await.unwrap();
    check("foreign-1", false).await;
    let target = fixture.target(CRDS, "", NAME);
    let label = |value: Value| json!({ "metadata": { "labels": { "coracle.dev/addon": value } } });
    fixture.merge(&target, label(json!("lws"))).await.unwrap();
    check("ours-1", true).await;
    fixture.merge(&target, label(Value::Null)).await.unwrap();
    check("foreign-2", false).await;
}

#[tokio::test]
async fn services_take_no_external_addresses() {
    let fixture = Fixture::open().await;
    let service = |addresses: Value| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s" },
            "spec": { "ports": [{ "port": 80 }], "externalIPs": addresses },
        })
    };
    let error = fixture.create("v1/services", "default", service(json!(["192.0.2.9"]))).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (403, "services \"s\" is forbidden: Use of external IPs is denied by admission control")
    );
    fixture.create("v1/services", "default", service(Value::Null)).await.unwrap();
    let target = fixture.target("v1/services", "default", "s");
    let error = fixture.merge(&target, json!({ "spec": { "externalIPs": ["192.0.2.9"] } })).await.unwrap_err();
    assert_eq!(error.code, 403);
    fixture.merge(&target, json!({ "metadata": { "labels": { "a": "b" } } })).await.unwrap();
}
