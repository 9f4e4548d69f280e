//! Nothing passes admission by: every verb of every resource and subresource that the API serves is seen by a webhook of
//! either kind and by the escalation check, or is on the short list of those that upstream's do not see
//! ([`unseen_by_webhooks`], [`unchecked`]).

use std::sync::{Arc, Mutex, OnceLock};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use machinery::Verb;
use machinery::status::ApiError;
use registry::{Access, EscalationCheck, Subresource, User, WebhookCall, WebhookClient, WriteAttributes};
use serde_json::{Value, json};

use super::support::Fixture;
use crate::catalog;

/// Allows what the roles allow, and keeps what it was asked.
#[derive(Default)]
struct Recorder {
    /// Name of the webhook, and the request.
    reviews: Mutex<Vec<(String, Value)>>,
    checks: Mutex<Vec<Checked>>,
    roles: OnceLock<Arc<dyn EscalationCheck>>,
}

/// What the escalation check was asked about.
#[derive(Debug, PartialEq, Eq)]
struct Checked {
    resource: String,
    subresource: &'static str,
    /// Whether there is an object as it will be, and one as it is.
    states: (bool, bool),
}

impl EscalationCheck for Recorder {
    fn check(&self, write: &WriteAttributes<'_>) -> Result<(), ApiError> {
        let resource = write.target.resource.info().plural.clone();
        let subresource = write.subresource.map_or("", Subresource::name);
        let states = (write.new.is_some(), write.old.is_some());
        self.checks.lock().unwrap().push(Checked { resource, subresource, states });
        self.roles.get().expect("the check of the roles").check(write)
    }

    fn may(&self, user: &User, access: &Access<'_>) -> Result<(), String> {
        self.roles.get().expect("the check of the roles").may(user, access)
    }

    fn may_reach(&self, user: &User, verb: Verb<'_>, path: &str) -> Result<(), String> {
        self.roles.get().expect("the check of the roles").may_reach(user, verb, path)
    }
}

/// What webhooks are not asked about, with upstream's reason.
fn unseen_by_webhooks(group: &str) -> Option<&'static str> {
    (group == "admissionregistration.k8s.io").then_some(
        "a webhook must not stand in the way of its own removal: `IsExemptAdmissionConfigurationResource` in \
         staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook/predicates/rules/rules.go",
    )
}

/// What the escalation check is not asked about, with upstream's reason.
fn unchecked(kind: &str, operation: &str) -> Option<&'static str> {
    match (kind, operation) {
        (_, "CONNECT") => Some(
            "nothing is written, and RBAC checks the storage of its own kinds alone: \
             pkg/registry/rbac/rest/storage_rbac.go",
        ),
        (kind, _) if kind.ends_with("Review") => Some(
            "nothing is stored, and RBAC checks the storage of its own kinds alone: \
             pkg/registry/rbac/rest/storage_rbac.go",
        ),
        _ => None,
    }
}

impl WebhookClient for Recorder {
    fn call(&self, call: WebhookCall) -> BoxFuture<'_, Result<Bytes, String>> {
        let review: Value = serde_json::from_slice(&call.body).unwrap();
        let request = review["request"].clone();
        let response = json!({ "uid": request["uid"], "allowed": true });
        let review = json!({ "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response });
        self.reviews.lock().unwrap().push((call.url.rsplit('/').next().unwrap().to_owned(), request));
        async move { Ok(Bytes::from(review.to_string())) }.boxed()
    }
}

/// A request to the API, and what admission must see of it.
struct Sent {
    line: String,
    body: Value,
    operation: &'static str,
    /// Whether webhooks are asked about it.
    reviewed: bool,
    /// Whether the escalation check is.
    checked: bool,
    resource: String,
    subresource: &'static str,
    kind: Option<&'static str>,
}

async fn hook(fixture: &Fixture, kind: &str, name: &str) {
    let hook = json!({
        "name": format!("{name}.example.com"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": { "url": format!("https://127.0.0.1:9/{name}") }, "matchPolicy": "Exact",
        "rules": [{ "operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"] }],
    });
    let body = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": name }, "webhooks": [hook],
    });
    let path = format!("POST /apis/admissionregistration.k8s.io/v1/{}s", kind.to_lowercase());
    fixture.json(&path, 201, &body).await;
}

/// A valid object of a kind, but for its kind, version and metadata; every kind the server brings along is here.
fn example(kind: &str) -> Value {
    let template = || {
        json!({
            "metadata": { "labels": { "app": "x" } },
            "spec": { "containers": [{ "name": "main", "image": "nginx" }] },
        })
    };
    let set = || json!({ "selector": { "matchLabels": { "app": "x" } }, "template": template() });
    let job = || {
        let mut template = template();
        template["spec"]["restartPolicy"] = "Never".into();
        json!({ "template": template })
    };
    let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view" });
    let hook = json!([{
        "name": "other.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": { "url": "https://127.0.0.1:9/other" },
    }]);
    match kind {
        "ConfigMap" | "Secret" | "ServiceAccount" | "Namespace" | "Node" | "Endpoints" | "ResourceQuota" | "Role"
        | "ClusterRole" => json!({}),
        "Event" => json!({
            "involvedObject": { "namespace": "default" }, "regarding": { "namespace": "default" }, "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": "example.com/a", "reportingComponent": "example.com/a", "reportingInstance": "a", "action": "Look", "reason": "Test", "type": "Normal",
        }),
        "LimitRange" => json!({ "spec": { "limits": [] } }),
        "Pod" => json!({ "spec": template()["spec"] }),
        "PodTemplate" => json!({ "template": template() }),
        "ReplicationController" => json!({ "spec": { "selector": { "app": "x" }, "template": template() } }),
        "Service" => json!({ "spec": { "ports": [{ "port": 80 }] } }),
        "ControllerRevision" => json!({ "revision": 1, "data": {} }),
        "DaemonSet" | "Deployment" | "ReplicaSet" => json!({ "spec": set() }),
        "StatefulSet" => {
            let mut spec = set();
            spec["serviceName"] = "x".into();
            json!({ "spec": spec })
        }
        "HorizontalPodAutoscaler" => json!({
            "spec": { "maxReplicas": 2, "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "x" } },
        }),
        "Job" => json!({ "spec": job() }),
        "CronJob" => json!({ "spec": { "schedule": "0 0 * * *", "jobTemplate": { "spec": job() } } }),
        "Lease" => json!({ "spec": {} }),
        "EndpointSlice" => json!({ "addressType": "IPv4", "endpoints": [], "ports": [] }),
        "PodDisruptionBudget" => {
            json!({ "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "none" } } } })
        }
        "PriorityClass" => json!({ "value": 1 }),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => json!({ "webhooks": hook }),
        "ValidatingAdmissionPolicy" => {
            let rules = json!([{ "operations": ["CREATE"], "apiGroups": ["none.example.com"], "apiVersions": ["v1"], "resources": ["nones"] }]);
            let validations = json!([{ "expression": "true" }]);
            json!({ "spec": { "matchConstraints": { "resourceRules": rules }, "validations": validations } })
        }
        "MutatingAdmissionPolicy" => {
            let rules = json!([{ "operations": ["CREATE"], "apiGroups": ["none.example.com"], "apiVersions": ["v1"], "resources": ["nones"] }]);
            let mutations =
                json!([{ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": "Object{}" } }]);
            let constraints = json!({ "resourceRules": rules });
            json!({ "spec": { "matchConstraints": constraints, "mutations": mutations, "reinvocationPolicy": "Never" } })
        }
        "MutatingAdmissionPolicyBinding" => json!({ "spec": { "policyName": "none.example.com" } }),
        "ValidatingAdmissionPolicyBinding" => {
            json!({ "spec": { "policyName": "none.example.com", "validationActions": ["Deny"] } })
        }
        "PersistentVolume" => json!({
            "spec": { "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "hostPath": { "path": "/x" } },
        }),
        "PersistentVolumeClaim" => json!({
            "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
        }),
        "Ingress" => json!({
            "spec": { "defaultBackend": { "service": { "name": "x", "port": { "number": 80 } } } },
        }),
        "IngressClass" => json!({ "spec": { "controller": "example.com/c" } }),
        "NetworkPolicy" => json!({ "spec": { "podSelector": {} } }),
        "ServiceCIDR" => json!({ "spec": { "cidrs": ["10.99.0.0/16"] } }),
        "IPAddress" => json!({
            "spec": { "parentRef": { "group": "", "resource": "services", "namespace": "default", "name": "kubernetes" } },
        }),
        "APIService" => json!({
            "spec": { "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100 },
        }),
        "FlowSchema" => json!({ "spec": { "priorityLevelConfiguration": { "name": "system" } } }),
        "PriorityLevelConfiguration" => {
            json!({ "spec": { "type": "Limited", "limited": { "limitResponse": { "type": "Reject" } } } })
        }
        "CertificateSigningRequest" => {
            let request = BASE64_STANDARD.encode(super::certificates::request_of("jane", "developers").0);
            json!({ "spec": { "request": request, "signerName": "example.com/mine", "usages": ["client auth"] } })
        }
        "RuntimeClass" => json!({ "handler": "x" }),
        "StorageClass" => json!({ "provisioner": "example.com/p" }),
        "VolumeAttributesClass" => json!({ "driverName": "example.com", "parameters": { "iops": "3000" } }),
        "VolumeAttachment" => json!({
            "spec": { "attacher": "example.com", "nodeName": "x", "source": { "persistentVolumeName": "x" } },
        }),
        "CSIDriver" => json!({ "spec": {} }),
        "CSINode" => json!({ "spec": { "drivers": [] } }),
        "CSIStorageCapacity" => json!({ "storageClassName": "standard" }),
        "RoleBinding" | "ClusterRoleBinding" => json!({ "roleRef": role }),
        // Of the definition that the test makes.
        "Shirt" => json!({ "spec": { "n": 1 } }),
        other => panic!("{other} has no example"),
    }
}

/// The definition of `NAME.example.com`, with both of its subresources.
fn definition(plural: &str, kind: &str) -> Value {
    let schema = json!({
        "type": "object",
        "properties": {
            "spec": { "type": "object", "properties": { "n": { "type": "integer" } } },
            "status": { "type": "object", "properties": { "n": { "type": "integer" } } },
        },
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.example.com") },
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": { "plural": plural, "kind": kind },
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema },
                "subresources": {
                    "status": {}, "scale": { "specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n" },
                },
            }],
        },
    })
}

/// A row of discovery.
struct Row {
    group: String,
    version: String,
    plural: String,
    kind: String,
    namespaced: bool,
    verbs: Vec<Verb<'static>>,
    subresources: Vec<Subresource>,
}

impl Row {
    fn path(&self, name: &str) -> String {
        let root = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        let namespace = if self.namespaced { "/namespaces/default" } else { "" };
        let name = if name.is_empty() { String::new() } else { format!("/{name}") };
        format!("{root}/{}{namespace}/{}{name}", self.version, self.plural)
    }

    fn api_version(&self) -> String {
        registry::table::api_version(&self.group, &self.version)
    }

    /// The names of two objects. Some kinds say how theirs look.
    fn names(&self) -> [String; 2] {
        match self.kind.as_str() {
            "IPAddress" => ["10.96.0.77".to_owned(), "10.96.0.78".to_owned()],
            "CustomResourceDefinition" => ["hats.example.com".to_owned(), "caps.example.com".to_owned()],
            "APIService" => ["v1.hats.example.com".to_owned(), "v1.caps.example.com".to_owned()],
            kind => [1, 2].map(|number| format!("{}-{}-{number}", kind.to_lowercase(), self.version)),
        }
    }

    fn body(&self, name: &str) -> Value {
        if self.kind == "CustomResourceDefinition" {
            let plural = name.split('.').next().unwrap();
            return definition(plural, if plural == "hats" { "Hat" } else { "Cap" });
        }
        let mut body = example(&self.kind);
        if self.kind == "APIService" {
            body["spec"]["group"] = name.trim_start_matches("v1.").into();
        }
        body["apiVersion"] = self.api_version().into();
        body["kind"] = self.kind.as_str().into();
        body["metadata"] = json!({ "name": name, "labels": { "walk": "yes" } });
        if self.namespaced {
            body["metadata"]["namespace"] = "default".into();
        }
        body
    }

    fn sent(&self, line: String, body: Value, operation: &'static str, subresource: Option<Subresource>) -> Sent {
        Sent {
            line,
            body,
            operation,
            reviewed: unseen_by_webhooks(&self.group).is_none(),
            checked: unchecked(&self.kind, operation).is_none(),
            resource: self.plural.clone(),
            subresource: subresource.map_or("", Subresource::name),
            kind: subresource.and_then(|one| one.kind(&self.kind)).map(|(_, _, kind)| kind),
        }
    }

    /// What a verb sends to a subresource of `name`. `None` for a read, which no webhook sees.
    fn below(&self, subresource: Subresource, verb: Verb<'_>, name: &str, current: &Value) -> Option<Sent> {
        use Subresource::{Attach, Binding, Eviction, Exec, PortForward, Proxy, Scale, Token};
        let path = format!("{}/{}", self.path(name), subresource.name());
        let method = match verb {
            Verb::Get => "GET",
            Verb::Create => "POST",
            Verb::Update => "PUT",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
            other => panic!("{other} of {path}"),
        };
        let (operation, path, body) = match (subresource, verb) {
            (Exec | Attach, _) => ("CONNECT", format!("{path}?stdout=true&command=ls"), Value::Null),
            (PortForward, _) => ("CONNECT", path, Value::Null),
            (Proxy, _) => ("CONNECT", format!("{path}/healthz"), Value::Null),
            (_, Verb::Get) => return None,
            (Binding, _) => {
                ("CREATE", path, json!({ "metadata": { "name": name }, "target": { "kind": "Node", "name": "n" } }))
            }
            (Eviction, _) => {
                ("CREATE", path, json!({ "metadata": { "name": name }, "deleteOptions": { "dryRun": ["All"] } }))
            }
            (Token, _) => ("CREATE", path, json!({ "spec": {} })),
            (_, Verb::Patch) => ("UPDATE", path, json!({ "metadata": { "labels": { "more": "yes" } } })),
            (Scale, _) => {
                let metadata = json!({ "name": name });
                (
                    "UPDATE",
                    path,
                    json!({ "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": { "replicas": 1 } }),
                )
            }
            _ => ("UPDATE", path, current.clone()),
        };
        Some(self.sent(format!("{method} {path}"), body, operation, Some(subresource)))
    }
}

async fn walk(fixture: &Fixture) -> Vec<Row> {
    fixture
        .json("POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions", 201, &definition("shirts", "Shirt"))
        .await;
    let resources = fixture.registry.resources();
    let served = catalog::all(&resources);
    let row = |served: &catalog::Served<'_>| Row {
        group: served.group.to_owned(),
        version: served.version.to_owned(),
        plural: served.plural.to_owned(),
        kind: served.kind.to_owned(),
        namespaced: served.namespaced,
        verbs: served.verbs.to_vec(),
        subresources: served.subresources.to_vec(),
    };
    served.iter().map(row).collect()
}

/// An object as it is; or why it is not there.
async fn stored(fixture: &Fixture, path: &str) -> Value {
    fixture.ask(&format!("GET {path}"), &[], "").await.json()
}

/// Sends a request, and checks that both webhooks and the escalation check have seen it as it should be seen. What is wrong
/// is added to `problems`.
async fn check(fixture: &Fixture, recorder: &Recorder, sent: Sent, problems: &mut Vec<String>) {
    recorder.reviews.lock().unwrap().clear();
    recorder.checks.lock().unwrap().clear();
    let patch = sent.line.starts_with("PATCH");
    let kind = if patch { "application/merge-patch+json" } else { "application/json" };
    let body = if sent.body.is_null() { String::new() } else { sent.body.to_string() };
    let reply = fixture.ask(&sent.line, &[("content-type", kind)], body).await;
    // Where a connection leads is no affair of admission.
    let connects = sent.operation == "CONNECT";
    if !connects && !reply.status.is_success() {
        problems.push(format!("{}: {}", sent.line, reply.text));
        return;
    }
    let seen = recorder.reviews.lock().unwrap();
    for name in ["mutating", "validating"] {
        let found: Vec<&Value> = seen.iter().filter(|(hook, _)| hook == name).map(|(_, request)| request).collect();
        let is_it = |request: &Value, operation: &str| {
            let (object, kind) = (&request["object"], &request["kind"]["kind"]);
            let of_kind = sent.kind.is_none_or(|expect| kind == expect);
            request["resource"]["resource"] == *sent.resource
                && request["subResource"].as_str().unwrap_or_default() == sent.subresource
                && request["operation"] == operation
                && of_kind
                && if operation == "DELETE" { object.is_null() } else { object["kind"] == *kind }
        };
        let right = match sent.reviewed {
            false => found.is_empty(),
            true => !found.is_empty() && found.iter().all(|request| is_it(request, sent.operation)),
        };
        if !right {
            problems.push(format!("{}: {name} was to see {:?} and saw {found:?}", sent.line, sent.operation));
        }
    }
    let checks = recorder.checks.lock().unwrap();
    let states = match (sent.operation, sent.subresource) {
        ("UPDATE", _) => (true, true),
        ("CREATE", _) => (true, false),
        _ => (false, true),
    };
    let expect = Checked { resource: sent.resource.clone(), subresource: sent.subresource, states };
    // An Eviction goes on as a deletion of its pod.
    if checks.first() != sent.checked.then_some(&expect) {
        problems.push(format!("{}: the escalation check was to see {expect:?} and saw {checks:?}", sent.line));
    }
}

#[tokio::test]
async fn whatever_the_api_serves_passes_admission() {
    let recorder = Arc::new(Recorder::default());
    let fixture = Fixture::with_checks(Arc::clone(&recorder) as _, |roles| {
        assert!(recorder.roles.set(roles).is_ok());
        Arc::clone(&recorder) as _
    })
    .await;
    hook(&fixture, "MutatingWebhookConfiguration", "mutating").await;
    hook(&fixture, "ValidatingWebhookConfiguration", "validating").await;
    let rows = walk(&fixture).await;
    let mut problems = Vec::new();
    assert!(rows.len() > 50, "{}", rows.len());
    for row in rows {
        if row.kind.ends_with("Review") {
            assert_eq!(row.verbs, [Verb::Create]);
            let attributes = json!({ "verb": "get", "resource": "pods", "namespace": "default" });
            let spec = match row.kind.as_str() {
                "TokenReview" => json!({ "token": "x" }),
                "SelfSubjectReview" => json!({}),
                "SelfSubjectRulesReview" => json!({ "namespace": "default" }),
                "SelfSubjectAccessReview" => json!({ "resourceAttributes": attributes }),
                _ => json!({ "user": "x", "resourceAttributes": attributes }),
            };
            let body = json!({ "apiVersion": row.api_version(), "kind": row.kind, "spec": spec });
            check(&fixture, &recorder, row.sent(format!("POST {}", row.path("")), body, "CREATE", None), &mut problems)
                .await;
            continue;
        }
        if row.kind == "Binding" {
            let mut pod = example("Pod");
            pod["metadata"] = json!({ "name": "bound" });
            fixture.json("POST /api/v1/namespaces/default/pods", 201, &pod).await;
            let body = json!({ "metadata": { "name": "bound" }, "target": { "kind": "Node", "name": "n" } });
            check(&fixture, &recorder, row.sent(format!("POST {}", row.path("")), body, "CREATE", None), &mut problems)
                .await;
            continue;
        }
        if row.verbs == [Verb::Get, Verb::List] {
            // Nobody writes it.
            continue;
        }
        // A verb that is new must find its place here.
        let known = [
            Verb::Create,
            Verb::Delete,
            Verb::DeleteCollection,
            Verb::Get,
            Verb::List,
            Verb::Patch,
            Verb::Update,
            Verb::Watch,
        ];
        assert!(row.verbs.iter().all(|verb| known.contains(verb)), "{:?}", row.verbs);
        let [first, second] = row.names();
        for name in [&first, &second] {
            let line = format!("POST {}", row.path(""));
            check(&fixture, &recorder, row.sent(line, row.body(name), "CREATE", None), &mut problems).await;
        }
        let path = row.path(&first);
        let current = stored(&fixture, &path).await;
        check(&fixture, &recorder, row.sent(format!("PUT {path}"), current, "UPDATE", None), &mut problems).await;
        let labels = json!({ "metadata": { "labels": { "more": "yes" } } });
        check(&fixture, &recorder, row.sent(format!("PATCH {path}"), labels, "UPDATE", None), &mut problems).await;
        for subresource in &row.subresources {
            for verb in subresource.verbs() {
                let current = stored(&fixture, &path).await;
                if let Some(sent) = row.below(*subresource, *verb, &first, &current) {
                    check(&fixture, &recorder, sent, &mut problems).await;
                }
            }
        }
        check(&fixture, &recorder, row.sent(format!("DELETE {path}"), Value::Null, "DELETE", None), &mut problems)
            .await;
        if !row.verbs.contains(&Verb::DeleteCollection) {
            continue;
        }
        let line = format!("DELETE {}?fieldSelector=metadata.name%3D{second}", row.path(""));
        check(&fixture, &recorder, row.sent(line, Value::Null, "DELETE", None), &mut problems).await;
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
