//! What ValidatingAdmissionPolicies do to requests.

use registry::audit::Annotations;
use registry::request::{DeleteRequest, WriteOptions};
use registry::{ApiError, Subresource};
use serde_json::{Value, json};

use super::{Fixture, config_map, deployment, object};

const POLICIES: &str = "admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";

fn rules(group: &str, resources: &str) -> Value {
    json!([{ "operations": ["*"], "apiGroups": [group], "apiVersions": ["v1"], "resources": [resources] }])
}

/// A policy about ConfigMaps, with more in its specification.
fn policy(spec: Value) -> Value {
    let mut whole = json!({ "matchConstraints": { "resourceRules": rules("", "configmaps") } });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({ "metadata": { "name": "p" }, "spec": whole })
}

fn binding(name: &str, spec: Value) -> Value {
    let mut whole = json!({ "policyName": "p", "validationActions": ["Deny"] });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({ "metadata": { "name": name }, "spec": whole })
}

/// A registry with a policy and a binding.
async fn with(policy_spec: Value, binding_spec: Value) -> Fixture {
    let fixture = Fixture::open().await;
    fixture.create(POLICIES, "", policy(policy_spec)).await.unwrap();
    fixture.create(BINDINGS, "", binding("b", binding_spec)).await.unwrap();
    fixture
}

fn denied(why: &str) -> String {
    format!("configmaps \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: {why}")
}

async fn create(fixture: &Fixture, body: Value) -> Result<(), ApiError> {
    fixture.create("v1/configmaps", "default", body).await.map(|_| ())
}

/// What becomes of the ConfigMap `x` under a policy with these validations.
async fn outcome(validations: Value) -> Result<(), ApiError> {
    create(&with(json!({ "validations": validations }), json!({})).await, config_map("x")).await
}

#[tokio::test]
async fn what_does_not_pass_is_denied_with_its_message_and_reason() {
    let no = "object.data.a == '2'";
    for (validation, code, reason, why) in [
        (json!({ "expression": no }), 422, "Invalid", "failed expression: object.data.a == '2'"),
        (json!({ "expression": no, "message": " two, please " }), 422, "Invalid", "two, please"),
        (
            json!({ "expression": no, "message": "m", "messageExpression": "'not ' + object.data.a", "reason": "Forbidden" }),
            403,
            "Forbidden",
            "not 1",
        ),
        (
            json!({ "expression": no, "message": "m", "messageExpression": "string(object.data.b)" }),
            422,
            "Invalid",
            "m",
        ),
        (
            json!({ "expression": no, "messageExpression": "'a\\nb'", "reason": "Unauthorized" }),
            401,
            "Unauthorized",
            "failed expression: object.data.a == '2'",
        ),
        (
            json!({ "expression": "object.spec.x == 1" }),
            422,
            "Invalid",
            "expression 'object.spec.x == 1' resulted in error: no such key: spec",
        ),
    ] {
        let error = outcome(json!([{ "expression": "true" }, validation])).await.unwrap_err();
        assert_eq!((error.code, error.reason.as_str(), error.message.as_str()), (code, reason, denied(why).as_str()));
        let details = error.details.unwrap();
        assert_eq!((details.kind.as_str(), details.name.as_str()), ("configmaps", "x"));
        assert!(details.causes[0].message.ends_with(why), "{:?}", details.causes);
    }
    outcome(json!([{ "expression": "object.data.a == '1' && request.operation == 'CREATE' && oldObject == null" }]))
        .await
        .unwrap();
}

#[tokio::test]
async fn expressions_see_the_request_the_namespace_and_who_asks() {
    let expression = "namespaceObject.metadata.name == 'default' && request.namespace == 'default' \
        && request.name == 'x' && request.resource.resource == 'configmaps' && params == null \
        && authorizer.requestResource.check('create').allowed() && variables.both == 'x1'";
    let variables = json!([
        { "name": "name", "expression": "object.metadata.name" },
        { "name": "both", "expression": "variables.name + object.data.a" },
    ]);
    let kind = json!({ "apiVersion": "v1", "kind": "ConfigMap" });
    for (expression, passes) in [(expression.to_owned(), true), (format!("!({expression})"), false)] {
        let spec = json!({ "paramKind": kind, "variables": variables, "validations": [{ "expression": expression }] });
        let made = create(&with(spec, json!({})).await, config_map("x")).await;
        assert_eq!(made.is_ok(), passes, "{expression}: {made:?}");
    }
}

#[tokio::test]
async fn a_policy_without_a_binding_does_nothing_and_one_that_is_gone_neither() {
    let fixture = Fixture::open().await;
    fixture.create(POLICIES, "", policy(json!({ "validations": [{ "expression": "false" }] }))).await.unwrap();
    create(&fixture, config_map("a")).await.unwrap();
    fixture.create(BINDINGS, "", binding("b", json!({}))).await.unwrap();
    assert!(create(&fixture, config_map("b")).await.is_err());
    // Another expression is another policy.
    let target = fixture.target(POLICIES, "", "p");
    fixture.merge(&target, json!({ "spec": { "validations": [{ "expression": "true" }] } })).await.unwrap();
    create(&fixture, config_map("b")).await.unwrap();
    fixture.merge(&target, json!({ "spec": { "validations": [{ "expression": "false" }] } })).await.unwrap();
    assert!(create(&fixture, config_map("c")).await.is_err());
    // Nothing keeps a policy from being removed, not even itself.
    fixture.delete(&target, &DeleteRequest::default()).await.unwrap();
    create(&fixture, config_map("c")).await.unwrap();
}

#[tokio::test]
async fn what_a_policy_is_about_is_narrowed_by_its_rules_and_its_binding() {
    let no = json!([{ "expression": "false" }]);
    let constraints = |more: Value| {
        let mut constraints = json!({ "resourceRules": rules("", "configmaps") });
        constraints.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "matchConstraints": constraints, "validations": no })
    };
    let labels = |key: &str, value: &str| json!({ "matchLabels": { key: value } });
    let mut named = rules("", "configmaps");
    named[0]["resourceNames"] = json!(["x"]);
    let default = "kubernetes.io/metadata.name";
    for (spec, narrowed, passes) in [
        (constraints(json!({})), json!({}), false),
        (constraints(json!({ "excludeResourceRules": named })), json!({}), true),
        (constraints(json!({ "namespaceSelector": labels(default, "other") })), json!({}), true),
        (constraints(json!({ "namespaceSelector": labels(default, "default") })), json!({}), false),
        (constraints(json!({ "objectSelector": labels("a", "b") })), json!({}), true),
        (constraints(json!({})), json!({ "matchResources": { "resourceRules": rules("", "secrets") } }), true),
        (constraints(json!({})), json!({ "matchResources": { "namespaceSelector": labels(default, "other") } }), true),
        (constraints(json!({})), json!({ "matchResources": {} }), false),
        (
            json!({ "matchConditions": [{ "name": "m", "expression": "object.metadata.name != 'x'" }], "validations": no }),
            json!({}),
            true,
        ),
        (
            json!({ "matchConditions": [{ "name": "m", "expression": "object.spec.x == 1" }], "validations": no }),
            json!({}),
            false,
        ),
        (
            json!({ "matchConditions": [{ "name": "m", "expression": "object.spec.x == 1" }], "validations": no, "failurePolicy": "Ignore" }),
            json!({}),
            true,
        ),
        (
            json!({ "validations": [{ "expression": "object.spec.x == 1" }], "failurePolicy": "Ignore" }),
            json!({}),
            true,
        ),
    ] {
        let what = format!("{spec} {narrowed}");
        let made = create(&with(spec, narrowed).await, config_map("x")).await;
        assert_eq!(made.is_ok(), passes, "{what}: {made:?}");
    }
}

#[tokio::test]
async fn a_request_is_judged_with_each_object_of_parameters() {
    let kind = json!({ "apiVersion": "v1", "kind": "ConfigMap" });
    let spec = |failure: &str| {
        json!({
            "matchConstraints": { "resourceRules": rules("apps", "deployments") }, "paramKind": kind, "failurePolicy": failure,
            "validations": [{ "expression": "object.spec.replicas <= int(params.data.max)", "messageExpression": "'at most ' + params.data.max" }],
        })
    };
    let limit = |name: &str, max: &str| json!({ "metadata": { "name": name, "labels": { "limit": "yes" } }, "data": { "max": max } });
    let scale = |fixture: Fixture, replicas: i32| async move {
        let made = fixture.create("apps/v1/deployments", "default", deployment("web", json!(replicas))).await;
        made.map(|_| ()).map_err(|error| error.message.rsplit_once("denied request: ").unwrap().1.to_owned())
    };
    let by_name = |action: &str| json!({ "paramRef": { "name": "limit", "parameterNotFoundAction": action } });
    let fixture = with(spec("Fail"), by_name("Deny")).await;
    let missing = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert_eq!(scale(fixture, 1).await, Err(missing.to_owned()));
    assert_eq!(scale(with(spec("Fail"), by_name("Allow")).await, 9).await, Ok(()));
    assert_eq!(scale(with(spec("Ignore"), by_name("Deny")).await, 9).await, Ok(()));
    for (replicas, expect) in [(2, Ok(())), (3, Err("at most 2".to_owned()))] {
        let fixture = with(spec("Fail"), by_name("Deny")).await;
        fixture.create("v1/configmaps", "default", limit("limit", "2")).await.unwrap();
        assert_eq!(scale(fixture, replicas).await, expect);
    }
    // Those of another namespace, all that are selected.
    let selected = json!({ "selector": { "matchLabels": { "limit": "yes" } }, "namespace": "kube-system", "parameterNotFoundAction": "Deny" });
    for (replicas, expect) in [(2, Ok(())), (4, Err("at most 3".to_owned()))] {
        let fixture = with(spec("Fail"), json!({ "paramRef": selected })).await;
        fixture.create("v1/configmaps", "default", limit("here", "0")).await.unwrap();
        fixture.create("v1/configmaps", "kube-system", limit("a", "5")).await.unwrap();
        fixture.create("v1/configmaps", "kube-system", limit("b", "3")).await.unwrap();
        assert_eq!(scale(fixture, replicas).await, expect);
    }
    let mut unknown = spec("Fail");
    unknown["paramKind"] = json!({ "apiVersion": "example.com/v1", "kind": "Limit" });
    let fixture = with(unknown, by_name("Deny")).await;
    let why =
        "failed to configure policy: failed to find resource referenced by paramKind: 'example.com/v1, Kind=Limit'";
    assert_eq!(scale(fixture, 1).await, Err(why.to_owned()));
}

#[tokio::test]
async fn bindings_warn_and_audit() {
    let spec = json!({
        "validations": [{ "expression": "object.data.a == '2'", "message": "not two" }],
        "auditAnnotations": [
            { "key": "name", "valueExpression": "'it is ' + object.metadata.name" },
            { "key": "none", "valueExpression": "null" },
        ],
    });
    let fixture = with(spec, json!({ "validationActions": ["Warn", "Audit"] })).await;
    let annotations = Annotations::default();
    let options = WriteOptions::default();
    let written = annotations.scope(fixture.create_with("v1/configmaps", "default", config_map("x"), &options)).await;
    let warning = "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': not two";
    assert_eq!(written.unwrap().warnings, [warning]);
    let noted = annotations.get();
    assert_eq!(noted.get("p/name").map(String::as_str), Some("it is x"));
    assert!(!noted.contains_key("p/none"));
    assert_eq!(
        noted.get("validation.policy.admission.k8s.io/validation_failure").map(String::as_str),
        Some(
            r#"[{"message":"not two","policy":"p","binding":"b","expressionIndex":0,"validationActions":["Warn","Audit"]}]"#
        )
    );
    let spec = json!({ "auditAnnotations": [{ "key": "k", "valueExpression": "string(object.data.nothing)" }] });
    let error = create(&with(spec, json!({})).await, config_map("x")).await.unwrap_err();
    assert_eq!(
        error.message,
        denied("expression 'string(object.data.nothing)' resulted in error: no such key: nothing")
    );
}

#[tokio::test]
async fn deletions_subresources_and_other_versions_are_judged() {
    let delete =
        json!([{ "expression": "request.operation != 'DELETE' || oldObject.data.a == '2' && object == null" }]);
    let fixture = with(json!({ "validations": delete }), json!({})).await;
    create(&fixture, config_map("x")).await.unwrap();
    let target = fixture.target("v1/configmaps", "default", "x");
    assert_eq!(fixture.delete(&target, &DeleteRequest::default()).await.unwrap_err().code, 422);
    fixture.merge(&target, json!({ "data": { "a": "2" } })).await.unwrap();
    fixture.delete(&target, &DeleteRequest::default()).await.unwrap();

    let about = |rules: Value, expression: &str| json!({ "matchConstraints": { "resourceRules": rules }, "validations": [{ "expression": expression }] });
    let fixture = with(
        about(rules("apps", "deployments/scale"), "object.spec.replicas < 5 && object.kind == 'Scale'"),
        json!({}),
    )
    .await;
    fixture.create("apps/v1/deployments", "default", deployment("web", json!(9))).await.unwrap();
    let target = fixture.target("apps/v1/deployments", "default", "web");
    let mut scale: Value = serde_json::from_slice(&fixture.registry.scale(&target).await.unwrap()).unwrap();
    assert!(fixture.update_sub(&target, Subresource::Scale, &scale).await.is_err());
    scale["spec"]["replicas"] = json!(4);
    fixture.update_sub(&target, Subresource::Scale, &scale).await.unwrap();

    // A rule about v1 is about the same objects in v2, and sees them as those of v1.
    let expression = "object.apiVersion == 'autoscaling/v1' && request.resource.version == 'v1' \
        && request.requestResource.version == 'v2' && object.spec.targetCPUUtilizationPercentage == 50";
    let metric = json!({ "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 50 } } });
    let autoscaler = json!({
        "metadata": { "name": "web" },
        "spec": { "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" }, "maxReplicas": 3, "metrics": [metric] },
    });
    for (expression, passes) in [(expression.to_owned(), true), (format!("!({expression})"), false)] {
        let fixture = with(about(rules("autoscaling", "horizontalpodautoscalers"), &expression), json!({})).await;
        let body = autoscaler.clone();
        let made = fixture.create("autoscaling/v2/horizontalpodautoscalers", "default", body).await.map(|_| ());
        assert_eq!(made.is_ok(), passes, "{expression}: {made:?}");
    }
}

#[tokio::test]
async fn what_expressions_cost_together_is_bounded() {
    let mut body = config_map("x");
    body["data"]["text"] = "x".repeat(200_000).into();
    let items = (0..100).map(|item| item.to_string()).collect::<Vec<_>>().join(", ");
    let dear = format!("[{items}].all(a, object.data.text + object.data.text != '')");
    let validations = |count: usize| json!(vec![json!({ "expression": dear }); count]);
    let fixture = with(json!({ "validations": validations(1) }), json!({})).await;
    let error = create(&fixture, body.clone()).await.unwrap_err();
    assert!(error.message.ends_with("resulted in error: operation cancelled: actual cost limit exceeded"), "{error}");
    let fixture = with(json!({ "validations": validations(20) }), json!({ "validationActions": ["Warn"] })).await;
    let options = WriteOptions::default();
    let written = fixture.create_with("v1/configmaps", "default", body.clone(), &options).await.unwrap();
    assert_eq!(written.warnings.len(), 1);
    assert!(written.warnings[0].ends_with("running out of cost budget, no further validation rules will be run"));
    assert_eq!(object(&written)["metadata"]["name"], "x");
    // A message that costs too much takes nothing back of what was found before.
    let message = format!("({dear}) ? 'a' : 'b'");
    let validations = json!(vec![json!({ "expression": "false", "messageExpression": message }); 20]);
    let fixture = with(json!({ "validations": validations }), json!({ "validationActions": ["Warn"] })).await;
    let written = fixture.create_with("v1/configmaps", "default", body, &options).await.unwrap();
    assert!(written.warnings[0].ends_with("failed expression: false"), "{:?}", written.warnings);
}
