//! The FlowSchemas and PriorityLevelConfigurations that every cluster has, upstream's of 1.36
//! (apiserver `pkg/apis/flowcontrol/bootstrap/default.go`), and how they are kept.
//!
//! Two of each are mandatory and as they are here, whatever somebody makes of them. The others are suggested: the annotation
//! `apf.kubernetes.io/autoupdate-spec` says whether they follow what is here (`true`) or are their administrator's.

use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, FlowSchemaSpec, PriorityLevelConfiguration, PriorityLevelConfigurationSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::status::ApiError;
use registry::table::Resource;
use registry::user::{ACCOUNTS, AUTHENTICATED, MASTERS, NODES, UNAUTHENTICATED};
use registry::{DeleteRequest, Registry, Target};
use serde_json::{Value, json};

use super::{EXEMPT, GROUP};

const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const CATCH_ALL: &str = "catch-all";
const MANDATORY: [&str; 2] = [EXEMPT, CATCH_ALL];

/// The limited levels: shares, percent of them that others may have, and queues, hand size and length of a queue.
const LIMITED: [(&str, i32, i32, Option<[i32; 3]>); 7] = [
    (CATCH_ALL, 5, 0, None),
    ("system", 30, 33, Some([64, 6, 50])),
    ("node-high", 40, 25, Some([64, 6, 50])),
    ("leader-election", 10, 0, Some([16, 4, 50])),
    ("workload-high", 40, 50, Some([128, 6, 50])),
    ("workload-low", 100, 90, Some([128, 6, 50])),
    ("global-default", 20, 50, Some([128, 6, 50])),
];

/// Creates what is missing of the FlowSchemas and PriorityLevelConfigurations every cluster has, and makes those that are not
/// their administrator's what they should be. One that is right is not written.
///
/// # Errors
/// When the store takes no writes.
pub async fn bootstrap(registry: &Registry) -> Result<(), ApiError> {
    // A schema is of no use before its level.
    for (plural, objects) in [("prioritylevelconfigurations", priority_levels()), ("flowschemas", flow_schemas())] {
        let resources = registry.resources();
        let Some(resource) = resources.get(GROUP, "v1", plural).cloned() else { continue };
        for (name, spec) in &objects {
            keep(registry, &Target::object(&resource, "", *name), spec).await?;
        }
        retire(registry, &resource, &objects).await?;
    }
    Ok(())
}

/// Makes an object what it should be, unless it is its administrator's. Somebody else may write it at the same moment, the one who
/// follows the objects at the start for example: then it is looked at once more.
async fn keep(registry: &Registry, target: &Target, spec: &Value) -> Result<(), ApiError> {
    if keep_as_it_is_now(registry, target, spec).await.is_ok() {
        return Ok(());
    }
    keep_as_it_is_now(registry, target, spec).await
}

/// As [`keep`], of the object as it is now: an error if it is another one by the time it is written.
async fn keep_as_it_is_now(registry: &Registry, target: &Target, spec: &Value) -> Result<(), ApiError> {
    let Ok(entry) = registry.get(target, "").await else {
        let object = json!({ "metadata": { "annotations": { AUTOUPDATE: "true" } }, "spec": spec });
        return registry.ensure(target, object).await;
    };
    let stored: Value = serde_json::from_slice(&entry.value).map_err(ApiError::internal)?;
    let is_mandatory = MANDATORY.contains(&target.name.as_str());
    let follows = follows(&stored);
    let mut desired = stored.clone();
    if is_mandatory || follows {
        desired["spec"] = spec.clone();
    }
    if is_mandatory && !follows {
        // Of the mandatory ones this is the one part that may be somebody's.
        if let Some(exempt) = stored["spec"].get("exempt") {
            desired["spec"]["exempt"] = exempt.clone();
        }
    }
    desired["metadata"]["annotations"][AUTOUPDATE] = follows.to_string().into();
    if desired == stored { Ok(()) } else { registry.upsert(target, desired).await.map(drop) }
}

/// Whether an object follows what is here. One that does not say is somebody's as soon as they have changed it.
fn follows(stored: &Value) -> bool {
    match stored["metadata"]["annotations"][AUTOUPDATE].as_str() {
        Some("true") => true,
        Some("false") => false,
        _ => stored["metadata"]["generation"] == 1,
    }
}

/// Deletes what says that it follows what is here, where there is no such thing any more.
async fn retire(registry: &Registry, resource: &Resource, objects: &[(&str, Value)]) -> Result<(), ApiError> {
    for entry in registry.store().snapshot(&resource.info().storage).iter() {
        let name = &*entry.key.name;
        if objects.iter().any(|(desired, _)| *desired == name) {
            continue;
        }
        let stored: Value = serde_json::from_slice(&entry.value).map_err(ApiError::internal)?;
        if stored["metadata"]["annotations"][AUTOUPDATE] == "true" {
            match registry.delete(&Target::object(resource, "", name), &DeleteRequest::default()).await {
                Err(error) if error.code != 404 => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The mandatory objects, as they are before anything is stored: FlowSchemas and PriorityLevelConfigurations.
#[must_use]
pub fn mandatory() -> (Vec<FlowSchema>, Vec<PriorityLevelConfiguration>) {
    let metadata = |name: &str| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let schemas = MANDATORY.into_iter().map(|name| FlowSchema {
        metadata: metadata(name),
        spec: mandatory_flow_schema(name),
        status: None,
    });
    let levels = MANDATORY.into_iter().map(|name| PriorityLevelConfiguration {
        metadata: metadata(name),
        spec: mandatory_priority_level(name),
        status: None,
    });
    (schemas.collect(), levels.collect())
}

/// What the spec of a mandatory FlowSchema has to be; none for any other.
pub(super) fn mandatory_flow_schema(name: &str) -> Option<FlowSchemaSpec> {
    let (_, spec) = flow_schemas().into_iter().find(|(known, _)| MANDATORY.contains(&name) && *known == name)?;
    serde_json::from_value(spec).ok()
}

/// What the spec of a mandatory PriorityLevelConfiguration has to be; none for any other.
pub(super) fn mandatory_priority_level(name: &str) -> Option<PriorityLevelConfigurationSpec> {
    let (_, spec) = priority_levels().into_iter().find(|(known, _)| MANDATORY.contains(&name) && *known == name)?;
    serde_json::from_value(spec).ok()
}

fn priority_levels() -> Vec<(&'static str, Value)> {
    let exempt = json!({ "type": "Exempt", "exempt": { "nominalConcurrencyShares": 0, "lendablePercent": 0 } });
    let limited = LIMITED.into_iter().map(|(name, shares, lendable, queuing)| {
        let response = match queuing {
            None => json!({ "type": "Reject" }),
            Some([queues, hand, length]) => json!({
                "type": "Queue",
                "queuing": { "queues": queues, "handSize": hand, "queueLengthLimit": length },
            }),
        };
        let limits =
            json!({ "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response });
        (name, json!({ "type": "Limited", "limited": limits }))
    });
    [(EXEMPT, exempt)].into_iter().chain(limited).collect()
}

fn flow_schemas() -> Vec<(&'static str, Value)> {
    let everybody = || groups(&[UNAUTHENTICATED, AUTHENTICATED]);
    let components = || users(&["system:kube-controller-manager", "system:kube-scheduler"]);
    let all = |subjects: Vec<Value>| {
        let resources = json!({
            "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
        });
        let others = json!({ "verbs": ["*"], "nonResourceURLs": ["*"] });
        json!({ "subjects": subjects, "resourceRules": [resources], "nonResourceRules": [others] })
    };
    let some = |subjects: Vec<Value>, rules: &[Value]| json!({ "subjects": subjects, "resourceRules": rules });
    let updates = |group: &str, resource: &str| {
        json!({
            "verbs": ["get", "create", "update"], "apiGroups": [group], "resources": [resource], "namespaces": ["*"],
        })
    };
    let leases = || updates("coordination.k8s.io", "leases");
    let probes = json!({ "verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"] });
    let node = json!({
        "verbs": ["*"], "apiGroups": [""], "resources": ["nodes", "nodes/status"], "namespaces": ["*"], "clusterScope": true,
    });
    let node_leases =
        json!({ "verbs": ["*"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "namespaces": ["*"] });
    let schema = |name, level: &str, precedence: i32, method: &str, rule: Value| {
        let mut spec = json!({
            "priorityLevelConfiguration": { "name": level },
            "matchingPrecedence": precedence,
            "rules": [rule],
        });
        if !method.is_empty() {
            spec["distinguisherMethod"] = json!({ "type": method });
        }
        (name, spec)
    };
    let election = [components(), accounts(&["*"])].concat();
    let endpoints = [
        users(&["system:kube-controller-manager"]),
        accounts(&["endpoint-controller", "endpointslicemirroring-controller"]),
    ];
    vec![
        schema(EXEMPT, EXEMPT, 1, "", all(groups(&[MASTERS]))),
        schema("probes", EXEMPT, 2, "", json!({ "subjects": everybody(), "nonResourceRules": [probes] })),
        schema("system-leader-election", "leader-election", 100, "ByUser", some(election, &[leases()])),
        schema(
            "endpoint-controller",
            "workload-high",
            150,
            "ByUser",
            some(endpoints.concat(), &[updates("", "endpoints")]),
        ),
        schema("workload-leader-election", "leader-election", 200, "ByUser", some(accounts(&["*"]), &[leases()])),
        schema("system-node-high", "node-high", 400, "ByUser", some(groups(&[NODES]), &[node, node_leases])),
        schema("system-nodes", "system", 500, "ByUser", all(groups(&[NODES]))),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            "ByNamespace",
            all(users(&["system:kube-controller-manager"])),
        ),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", all(users(&["system:kube-scheduler"]))),
        schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", all(accounts(&["*"]))),
        schema("service-accounts", "workload-low", 9_000, "ByUser", all(groups(&[ACCOUNTS]))),
        schema("global-default", "global-default", 9_900, "ByUser", all(everybody())),
        schema(CATCH_ALL, CATCH_ALL, 10_000, "ByUser", all(everybody())),
    ]
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({ "kind": "Group", "group": { "name": name } })).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({ "kind": "User", "user": { "name": name } })).collect()
}

/// Service accounts of kube-system.
fn accounts(names: &[&str]) -> Vec<Value> {
    let account = |name| json!({ "namespace": "kube-system", "name": name });
    names.iter().map(|name| json!({ "kind": "ServiceAccount", "serviceAccount": account(name) })).collect()
}
