//! What MutatingAdmissionPolicies do to objects.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use registry::request::{DeleteRequest, WriteOptions};
use registry::{ApiError, Subresource};
use serde_json::{Value, json};

use super::admission::hooked;
use super::{Fixture, config_map, deployment, pod};

const POLICIES: &str = "admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
const BINDINGS: &str = "admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings";

fn rules(group: &str, resources: &str) -> Value {
    json!([{ "operations": ["CREATE", "UPDATE"], "apiGroups": [group], "apiVersions": ["v1"], "resources": [resources] }])
}

fn configuration(expression: &str) -> Value {
    json!({ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": expression } })
}

fn patch(expression: &str) -> Value {
    json!({ "patchType": "JSONPatch", "jsonPatch": { "expression": expression } })
}

fn merged(mut base: Value, more: Value) -> Value {
    base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    base
}

/// A policy about ConfigMaps, with more in its specification.
fn policy(name: &str, mutations: Value, more: Value) -> Value {
    let spec = json!({
        "matchConstraints": { "resourceRules": rules("", "configmaps") }, "reinvocationPolicy": "Never", "mutations": mutations,
    });
    json!({ "metadata": { "name": name }, "spec": merged(spec, more) })
}

impl Fixture {
    /// Adds a policy and a binding of it.
    async fn mutate(&self, policy: Value, binding: Value) {
        let spec = merged(json!({ "policyName": policy["metadata"]["name"] }), binding);
        let binding = json!({ "metadata": { "name": policy["metadata"]["name"] }, "spec": spec });
        self.create(POLICIES, "", policy).await.unwrap();
        self.create(BINDINGS, "", binding).await.unwrap();
    }
}

/// What the ConfigMap `x` becomes by the mutations of one policy.
async fn outcome(mutations: Value, more: Value) -> Result<Value, ApiError> {
    let fixture = Fixture::open().await;
    fixture.mutate(policy("p", mutations, more), json!({})).await;
    fixture.create("v1/configmaps", "default", config_map("x")).await
}

#[tokio::test]
async fn configurations_are_merged_by_the_keys_of_lists() {
    let fixture = Fixture::open().await;
    let sidecar = "Object{spec: Object.spec{
        initContainers: [Object.spec.initContainers{name: 'mesh', image: 'mesh:1', restartPolicy: 'Always'}],
        containers: object.spec.containers.map(c, Object.spec.containers{name: c.name, env: [
            Object.spec.containers.env{name: 'MESH', value: variables.mesh}]}),
        shareProcessNamespace: true}}";
    let more = json!({
        "matchConstraints": { "resourceRules": rules("", "pods") },
        "matchConditions": [{ "name": "once", "expression": "!object.spec.?initContainers.orValue([]).exists(c, c.name == 'mesh')" }],
        "variables": [{ "name": "mesh", "expression": "object.metadata.name + '.' + request.namespace" }],
    });
    fixture.mutate(policy("mesh", json!([configuration(sidecar)]), more), json!({})).await;
    let mut body = pod("web");
    body["spec"]["containers"][0]["env"] = json!([{ "name": "A", "value": "1" }]);
    let made = fixture.create("v1/pods", "default", body).await.unwrap();
    let spec = &made["spec"];
    assert_eq!(spec["initContainers"][0]["name"], "mesh");
    assert_eq!(spec["initContainers"][0]["imagePullPolicy"], "IfNotPresent", "with the defaults");
    assert_eq!(spec["containers"].as_array().unwrap().len(), 1, "merged by name");
    assert_eq!(spec["containers"][0]["image"], "nginx");
    let env = json!([{ "name": "MESH", "value": "web.default" }, { "name": "A", "value": "1" }]);
    let mut found = spec["containers"][0]["env"].clone();
    found.as_array_mut().unwrap().sort_by_key(|item| item["name"] != "MESH");
    assert_eq!(found, env);
    assert_eq!(spec["shareProcessNamespace"], true);
    let owned = made["metadata"]["managedFields"].to_string();
    assert!(!owned.contains("mesh"), "what a policy adds belongs to nobody: {owned}");
}

#[tokio::test]
async fn patches_are_applied_one_after_the_other() {
    let label = "[JSONPatch{op: 'add', path: '/metadata/labels', value: {}},
        JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/a'), value: object.data.a},
        JSONPatch{op: 'copy', from: '/data/a', path: '/data/b'}]";
    let next = "Object{data: {'c': object.data.b + object.metadata.labels['example.com/a']}}";
    let made = outcome(json!([patch(label), configuration(next)]), json!({})).await.unwrap();
    assert_eq!(made["metadata"]["labels"], json!({ "example.com/a": "1" }));
    assert_eq!(made["data"], json!({ "a": "1", "b": "1", "c": "11" }));
    let tested = "[JSONPatch{op: 'test', path: '/data/a', value: '2'}, JSONPatch{op: 'remove', path: '/data/a'}]";
    let made = outcome(json!([patch(tested)]), json!({})).await.unwrap();
    assert_eq!(made["data"], json!({ "a": "1" }), "what is not as it is tested for is left alone");
}

#[tokio::test]
async fn what_cannot_be_carried_out_is_refused_unless_that_is_ignored() {
    let atomic = "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'a': 'b'}}}}";
    for (group, resource, mutation, why) in [
        ("", "configmaps", configuration("Object{data: {'a': object.data.b}}"), "resulted in error: no such key: b"),
        (
            "",
            "configmaps",
            configuration("Object{spec: Object.spec{}}"),
            "error applying patch: failed to convert patch object to typed object: .spec: field not declared in schema",
        ),
        (
            "",
            "configmaps",
            configuration("Object{metadata: Object.data{}}"),
            "type mismatch: unexpected type name \"Object.data\", expected \"Object.metadata\"",
        ),
        ("", "configmaps", patch("[JSONPatch{op: 'remove', path: '/data/b'}]"), "JSONPath: "),
        (
            "apps",
            "deployments",
            configuration(atomic),
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector",
        ),
    ] {
        for ignored in [false, true] {
            let fixture = Fixture::open().await;
            let more = json!({
                "matchConstraints": { "resourceRules": rules(group, resource) }, "failurePolicy": if ignored { "Ignore" } else { "Fail" },
            });
            fixture.mutate(policy("p", json!([mutation]), more), json!({})).await;
            let path = if group.is_empty() { format!("v1/{resource}") } else { format!("{group}/v1/{resource}") };
            let body = if group.is_empty() { config_map("x") } else { deployment("x", json!(1)) };
            let made = fixture.create(&path, "default", body).await;
            if ignored {
                made.unwrap_or_else(|error| panic!("{why}: {error}"));
                continue;
            }
            let error = made.unwrap_err();
            assert_eq!((error.code, error.reason.as_str()), (403, "Invalid"), "{error}");
            assert!(error.message.starts_with("policy 'p' with binding 'p' denied request: "), "{error}");
            assert!(error.message.contains(why), "{error}");
            assert!(error.details.unwrap().causes[0].message.contains(why));
        }
    }
    // What has no place in the object fails the request, whatever the policy says.
    let unknown = patch("[JSONPatch{op: 'add', path: '/nothing', value: 1}]");
    let error = outcome(json!([unknown]), json!({ "failurePolicy": "Ignore" })).await.unwrap_err();
    assert_eq!(error.code, 500);
    assert!(error.message.contains("unknown field \"nothing\""), "{error}");
}

#[tokio::test]
async fn parameters_and_bindings_narrow_it() {
    let kind = json!({ "apiVersion": "v1", "kind": "ConfigMap" });
    let mutation =
        json!([configuration("Object{metadata: Object.metadata{labels: {params.metadata.name: params.data.a}}}")]);
    let more = json!({ "paramKind": kind, "matchConstraints": { "resourceRules": rules("", "secrets") } });
    let labels = |made: Result<Value, ApiError>| {
        made.map(|made| made["metadata"]["labels"].clone()).map_err(|error| error.message)
    };
    let secret = || json!({ "metadata": { "name": "s" } });
    let missing = "policy 'p' with binding 'p' denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    for (action, found) in [("Allow", Ok(Value::Null)), ("Deny", Err(missing.to_owned()))] {
        let fixture = Fixture::open().await;
        let reference = json!({ "paramRef": { "name": "x", "parameterNotFoundAction": action } });
        fixture.mutate(policy("p", mutation.clone(), more.clone()), reference).await;
        assert_eq!(labels(fixture.create("v1/secrets", "default", secret()).await), found);
        fixture.create("v1/configmaps", "default", config_map("x")).await.unwrap();
        let mut other = secret();
        other["metadata"]["name"] = json!("t");
        assert_eq!(labels(fixture.create("v1/secrets", "default", other).await), Ok(json!({ "x": "1" })));
    }
    // Each of the objects that are selected is one invocation.
    let fixture = Fixture::open().await;
    let selector = json!({ "matchLabels": { "p": "yes" } });
    let reference = json!({
        "paramRef": { "selector": selector, "parameterNotFoundAction": "Allow" },
        "matchResources": { "objectSelector": { "matchLabels": { "wanted": "yes" } } },
    });
    fixture.mutate(policy("p", mutation, more), reference).await;
    for name in ["x", "y", "z"] {
        let mut body = config_map(name);
        body["metadata"]["labels"] = json!({ "p": if name == "z" { "no" } else { "yes" } });
        fixture.create("v1/configmaps", "default", body).await.unwrap();
    }
    assert_eq!(labels(fixture.create("v1/secrets", "default", secret()).await), Ok(Value::Null));
    let wanted = json!({ "metadata": { "name": "w", "labels": { "wanted": "yes" } } });
    let all = json!({ "wanted": "yes", "x": "1", "y": "1" });
    assert_eq!(labels(fixture.create("v1/secrets", "default", wanted).await), Ok(all));
}

#[tokio::test]
async fn what_was_changed_after_is_asked_again_if_needed() {
    let count = configuration("Object{data: {'count': string(int(object.data.?count.orValue('0')) + 1)}}");
    let copy = configuration("Object{data: {'copy': object.data.?later.orValue('')}}");
    let later = configuration("Object{data: {'later': 'yes'}}");
    // The second time, the first policy changes the object after the last one.
    for (reinvocation, copied, counted) in [("Never", "", "1"), ("IfNeeded", "yes", "2")] {
        let fixture = Fixture::open().await;
        let again = json!({ "reinvocationPolicy": reinvocation });
        fixture.mutate(policy("a", json!([copy]), again.clone()), json!({})).await;
        fixture.mutate(policy("b", json!([later]), json!({})), json!({})).await;
        fixture.mutate(policy("c", json!([count]), again), json!({})).await;
        let made = fixture.create("v1/configmaps", "default", config_map("x")).await.unwrap();
        let data = json!({ "a": "1", "copy": copied, "later": "yes", "count": counted });
        assert_eq!(made["data"], data, "{reinvocation}");
    }
    let made = outcome(json!([count]), json!({ "reinvocationPolicy": "IfNeeded" })).await.unwrap();
    assert_eq!(made["data"]["count"], "1", "nothing is changed after it");
}

#[tokio::test]
async fn policies_come_before_webhooks_and_each_may_be_asked_again_after_the_other() {
    let (fixture, hooks) =
        hooked("MutatingWebhookConfiguration", json!({ "reinvocationPolicy": "IfNeeded" }), |request| {
            let seen = request["object"]["data"]["policy"].as_str().unwrap_or("nothing").to_owned();
            let patch = json!([{ "op": "add", "path": "/data/hook", "value": seen }]).to_string();
            Ok(json!({ "allowed": true, "patchType": "JSONPatch", "patch": BASE64_STANDARD.encode(patch) }))
        })
        .await;
    let mutation = configuration("Object{data: {'policy': has(object.data.hook) ? 'after' : 'before'}}");
    let more = json!({ "reinvocationPolicy": "IfNeeded" });
    fixture.mutate(policy("p", json!([mutation]), more), json!({})).await;
    let made = fixture.create("v1/configmaps", "default", config_map("x")).await.unwrap();
    assert_eq!(made["data"], json!({ "a": "1", "policy": "after", "hook": "after" }));
    assert_eq!(hooks.asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn other_versions_and_subresources_are_changed_as_the_policy_sees_them() {
    let fixture = Fixture::open().await;
    let v1 = configuration(
        "Object{spec: Object.spec{targetCPUUtilizationPercentage: object.spec.targetCPUUtilizationPercentage + 1}}",
    );
    let more = json!({ "matchConstraints": { "resourceRules": rules("autoscaling", "horizontalpodautoscalers") } });
    fixture.mutate(policy("hpa", json!([v1]), more), json!({})).await;
    let metric = json!({ "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 50 } } });
    let autoscaler = json!({
        "metadata": { "name": "web" },
        "spec": { "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" }, "maxReplicas": 3, "metrics": [metric] },
    });
    let made = fixture.create("autoscaling/v2/horizontalpodautoscalers", "default", autoscaler).await.unwrap();
    assert_eq!(made["apiVersion"], "autoscaling/v2");
    assert_eq!(made["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 51);

    let more = json!({ "matchConstraints": { "resourceRules": rules("apps", "deployments/scale") } });
    let halved = configuration("Object{spec: Object.spec{replicas: object.spec.replicas / 2}}");
    fixture.mutate(policy("scale", json!([halved]), more), json!({})).await;
    fixture.create("apps/v1/deployments", "default", deployment("web", json!(9))).await.unwrap();
    let target = fixture.target("apps/v1/deployments", "default", "web");
    let mut scale: Value = serde_json::from_slice(&fixture.registry.scale(&target).await.unwrap()).unwrap();
    scale["spec"]["replicas"] = json!(8);
    fixture.update_sub(&target, Subresource::Scale, &scale).await.unwrap();
    assert_eq!(fixture.get(&target).await.unwrap()["spec"]["replicas"], 4);
}

#[tokio::test]
async fn a_namespace_is_within_itself() {
    let fixture = Fixture::open().await;
    let mutation = configuration(
        "Object{metadata: Object.metadata{labels: {'within': request.namespace, 'none': string(namespaceObject == null)}}}",
    );
    let more = json!({ "matchConstraints": { "resourceRules": rules("", "namespaces") } });
    fixture.mutate(policy("p", json!([mutation]), more), json!({})).await;
    let made = fixture.create("v1/namespaces", "", json!({ "metadata": { "name": "team" } })).await.unwrap();
    let labels = &made["metadata"]["labels"];
    assert_eq!((&labels["within"], &labels["none"]), (&json!("team"), &json!("true")));
    let target = fixture.target("v1/namespaces", "", "team");
    let changed = fixture.merge(&target, json!({ "metadata": { "labels": { "within": "x" } } })).await.unwrap();
    assert_eq!(changed["metadata"]["labels"]["within"], "team", "in an update, too");
}

#[tokio::test]
async fn nothing_is_stored_in_a_dry_run_and_policies_are_not_about_themselves() {
    let fixture = Fixture::open().await;
    let everything = json!([{ "operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"] }]);
    let label = configuration("Object{metadata: Object.metadata{labels: {'seen': 'yes'}}}");
    let more = json!({ "matchConstraints": { "resourceRules": everything } });
    fixture.mutate(policy("p", json!([label]), more), json!({})).await;
    let options = WriteOptions { dry_run: true, ..WriteOptions::default() };
    let tried = fixture.create_with("v1/configmaps", "default", config_map("x"), &options).await.unwrap();
    assert_eq!(super::object(&tried)["metadata"]["labels"]["seen"], "yes");
    let target = fixture.target("v1/configmaps", "default", "x");
    assert_eq!(fixture.get(&target).await.unwrap_err().code, 404);
    let policy = fixture.target(POLICIES, "", "p");
    let same = fixture.merge(&policy, json!({ "metadata": { "annotations": { "a": "b" } } })).await.unwrap();
    assert!(same["metadata"]["labels"].is_null(), "{same}");
    assert_eq!(same["metadata"]["generation"], 1);
    fixture.create("v1/configmaps", "default", config_map("x")).await.unwrap();
    fixture.delete(&target, &DeleteRequest::default()).await.unwrap();
    fixture.delete(&policy, &DeleteRequest::default()).await.unwrap();
}

#[tokio::test]
async fn what_an_expression_makes_is_bounded() {
    let doubled = (0..24).fold("'x'".to_owned(), |text, _| format!("[{text}].map(x, [x, x])"));
    let large = patch(&format!("[JSONPatch{{op: 'add', path: '/metadata/annotations', value: dyn({doubled})}}]"));
    let error = outcome(json!([large]), json!({})).await.unwrap_err();
    assert!(error.message.contains("the result is larger than") || error.message.contains("cost limit"), "{error}");
}
