//! What objects charge to a quota, by cases.

use serde_json::{Value, json};

use super::*;

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn pod(spec: Value) -> Pod {
    from(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": spec }))
}

fn printed(amounts: &Amounts) -> String {
    amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_objects_use() {
    let check = |object: Counted<'_>, expect: &str| assert_eq!(printed(&usage(object)), expect);
    let asks = |requests: Value, limits: Value| json!({ "requests": requests, "limits": limits });
    check(Counted::Pod(&pod(json!({ "containers": [{ "name": "a" }] }))), "count/pods=1 pods=1");
    check(
        Counted::Pod(&pod(json!({
            "initContainers": [
                { "name": "i", "resources": asks(json!({ "cpu": "2" }), json!({})) },
                { "name": "s", "restartPolicy": "Always", "resources": asks(json!({ "cpu": "100m" }), json!({})) },
            ],
            "containers": [
                { "name": "a", "resources": asks(json!({ "cpu": "500m", "memory": "1Gi" }), json!({ "cpu": "1", "nvidia.com/gpu": "2" })) },
                { "name": "b", "resources": asks(json!({ "cpu": "500m", "nvidia.com/gpu": "2", "hugepages-2Mi": "4Mi" }), json!({})) },
            ],
        }))),
        "count/pods=1 cpu=2 hugepages-2Mi=4Mi limits.cpu=1 memory=1Gi pods=1 requests.cpu=2 requests.hugepages-2Mi=4Mi requests.memory=1Gi requests.nvidia.com/gpu=2",
    );
    let mut ended = pod(json!({ "containers": [{ "name": "a" }] }));
    ended.status = from(json!({ "phase": "Succeeded" }));
    check(Counted::Pod(&ended), "count/pods=1");
    for (spec, expect) in [
        (
            json!({ "ports": [{ "port": 1 }] }),
            "count/services=1 services=1 services.loadbalancers=0 services.nodeports=0",
        ),
        (
            json!({ "type": "NodePort", "ports": [{ "port": 1 }, { "port": 2 }] }),
            "count/services=1 services=1 services.loadbalancers=0 services.nodeports=2",
        ),
        (
            json!({ "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{ "port": 1 }] }),
            "count/services=1 services=1 services.loadbalancers=1 services.nodeports=0",
        ),
    ] {
        check(Counted::Service(&from(json!({ "apiVersion": "v1", "kind": "Service", "spec": spec }))), expect);
    }
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "spec": { "storageClassName": "fast", "resources": { "requests": { "storage": "2Gi" } } },
    });
    check(
        Counted::Claim(&from(claim)),
        "count/persistentvolumeclaims=1 fast.storageclass.storage.k8s.io/persistentvolumeclaims=1 fast.storageclass.storage.k8s.io/requests.storage=2Gi persistentvolumeclaims=1 requests.storage=2Gi",
    );
    check(Counted::Other(&GroupResource::new("apps", "deployments")), "count/deployments.apps=1");
    check(Counted::Other(&GroupResource::new("", "secrets")), "count/secrets=1 secrets=1");
}

#[test]
fn whom_a_quota_is_about() {
    let plain = pod(json!({ "containers": [{ "name": "a" }] }));
    let busy = pod(json!({
        "priorityClassName": "high", "activeDeadlineSeconds": 5,
        "containers": [{ "name": "a", "resources": { "limits": { "cpu": "1" } } }],
        "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{ "topologyKey": "k", "namespaces": ["x"] }] } },
    }));
    let selector = |operator: &str, values: Value| json!({ "scopeSelector": { "matchExpressions": [{ "scopeName": "PriorityClass", "operator": operator, "values": values }] } });
    for (rest, of_plain, of_busy) in [
        (json!({}), true, true),
        (json!({ "scopes": ["BestEffort"] }), true, false),
        (json!({ "scopes": ["NotBestEffort", "Terminating"] }), false, true),
        (json!({ "scopes": ["NotTerminating"] }), true, false),
        (json!({ "scopes": ["CrossNamespacePodAffinity"] }), false, true),
        (json!({ "scopes": ["PriorityClass"] }), false, true),
        (selector("In", json!(["high", "higher"])), false, true),
        (selector("NotIn", json!(["high"])), true, false),
        (selector("DoesNotExist", json!([])), true, false),
    ] {
        let mut spec = rest.clone();
        spec["hard"] = json!({ "pods": "1", "services": "1" });
        let spec: k8s_openapi::api::core::v1::ResourceQuotaSpec = from(spec);
        assert_eq!(
            (matches(&spec, Counted::Pod(&plain)), matches(&spec, Counted::Pod(&busy))),
            (of_plain, of_busy),
            "{rest}"
        );
        let service = Counted::Service(&Service::default());
        assert_eq!(matches(&spec, service), rest == json!({}), "{rest}");
        assert!(!matches(&spec, Counted::Other(&GroupResource::new("", "secrets"))));
    }
}

#[test]
fn whether_there_is_room() {
    let check = |hard: Value, used: Value, object: &Pod, expect: &str| {
        let quota: ResourceQuota = from(json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "q" }, "status": { "hard": hard, "used": used },
        }));
        let object = Counted::Pod(object);
        let found = match judge(&quota, Some(object), &usage(object)) {
            Verdict::Unaffected => "unaffected".to_owned(),
            Verdict::Room(used) => printed(&used),
            Verdict::Refused(why) => why,
        };
        assert_eq!(found, expect);
    };
    let plain = pod(json!({ "containers": [{ "name": "a" }, { "name": "b" }] }));
    let busy = pod(
        json!({ "containers": [{ "name": "a", "resources": { "requests": { "cpu": "1" }, "limits": { "cpu": "1" } } }] }),
    );
    check(json!({ "pods": "2" }), json!({ "pods": "1" }), &plain, "pods=2");
    check(
        json!({ "pods": "2" }),
        json!({ "pods": "2" }),
        &plain,
        "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2",
    );
    check(
        json!({ "pods": "2", "requests.cpu": "1500m", "cpu": "1" }),
        json!({ "pods": "1", "requests.cpu": "1", "cpu": "1" }),
        &busy,
        "exceeded quota: q, requested: cpu=1,requests.cpu=1, used: cpu=1,requests.cpu=1, limited: cpu=1,requests.cpu=1500m",
    );
    check(
        json!({ "limits.cpu": "2", "requests.memory": "1Gi", "pods": "9" }),
        json!({}),
        &plain,
        "failed quota: q: must specify limits.cpu for: a,b; requests.memory for: a,b",
    );
    check(
        json!({ "pods": "2", "cpu": "9" }),
        json!({ "pods": "0" }),
        &busy,
        "status unknown for quota: q, resources: cpu,pods",
    );
    check(json!({ "services": "0" }), json!({ "services": "3" }), &plain, "unaffected");
}

#[test]
fn what_changes() {
    let amounts = |pairs: &[(&str, &str)]| -> Amounts {
        pairs.iter().map(|(name, amount)| ((*name).to_owned(), amount.parse().unwrap())).collect()
    };
    let more = difference(&amounts(&[("a", "2"), ("b", "1")]), &amounts(&[("a", "1"), ("b", "1"), ("c", "3")]));
    assert_eq!(printed(&more), "a=1 c=-3");
    // What is too much already may become less.
    let quota: ResourceQuota = from(
        json!({ "apiVersion": "v1", "kind": "ResourceQuota", "status": { "hard": { "c": "1" }, "used": { "c": "9" } } }),
    );
    assert_eq!(judge(&quota, None, &more), Verdict::Room(amounts(&[("c", "6")])));
}
