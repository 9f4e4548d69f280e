//! One table for each plugin: a pod's specification, nodes, and the verdict.

use serde_json::{Value, json};

use super::*;
use crate::framework::Candidate;
use crate::testing::{asks, cache, node, pod, pod_with, reasons, scores, sized_node};

/// Checks that the plugin `name` refuses the only node with this reason; with none, that it lets the pod in.
#[track_caller]
fn check(name: &str, pod: &Candidate, cache: &crate::cache::Cache, reason: &str) {
    assert_eq!(reasons(name, cache, pod), [reason], "{:?}", pod.pod.spec);
}

fn none() -> Value {
    json!({})
}

#[test]
fn names_are_unique_and_those_of_the_rows() {
    let mut names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
    for row in ROWS {
        assert_eq!((row.new)(&Value::Null).expect("defaults").name(), row.name);
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ROWS.len());
}

#[test]
fn node_name() {
    let cache = cache(&[node("a", &none(), &none())], &[]);
    let check = |spec: Value, reason: &str| check("NodeName", &pod("p", &none(), &spec), &cache, reason);
    check(json!({}), "");
    check(json!({ "nodeName": "a" }), "");
    check(json!({ "nodeName": "m" }), "node(s) didn't match the requested node name");
}

#[test]
fn node_unschedulable() {
    let cache = cache(&[node("a", &json!({ "unschedulable": true }), &none())], &[]);
    let check = |spec: Value, reason: &str| check("NodeUnschedulable", &pod("p", &none(), &spec), &cache, reason);
    check(json!({}), "node(s) were unschedulable");
    let toleration = json!({ "key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule" });
    check(json!({ "tolerations": [toleration] }), "");
}

#[test]
fn taint_toleration() {
    let taints = json!({ "taints": [{ "key": "gpu", "value": "a100", "effect": "NoSchedule" }] });
    let tainted = cache(&[node("a", &taints, &none())], &[]);
    let refused = "node(s) had untolerated taint(s)";
    let check = |toleration: Value, reason: &str| {
        check("TaintToleration", &pod("p", &none(), &json!({ "tolerations": [toleration] })), &tainted, reason);
    };
    check(json!({ "key": "gpu", "value": "a100", "effect": "NoSchedule" }), "");
    check(json!({ "key": "gpu", "operator": "Exists" }), "");
    check(json!({ "operator": "Exists" }), "");
    check(json!({ "key": "gpu", "operator": "Equal", "value": "a100" }), "");
    check(json!({ "key": "gpu", "operator": "Equal", "value": "v100" }), refused);
    check(json!({ "key": "gpu", "operator": "Exists", "effect": "NoExecute" }), refused);
    check(json!({ "key": "cpu", "operator": "Exists" }), refused);
    check(json!({ "value": "a100" }), refused);

    let soft = json!({ "taints": [{ "key": "slow", "effect": "PreferNoSchedule" }] });
    let both = cache(&[node("soft", &soft, &none()), node("clean", &none(), &none())], &[]);
    assert_eq!(reasons("TaintToleration", &both, &pod("p", &none(), &none())), ["", ""]);
    assert_eq!(scores("TaintToleration", &Value::Null, &both, &pod("p", &none(), &none())), [0, 100]);
    let patient = pod("p", &none(), &json!({ "tolerations": [{ "operator": "Exists" }] }));
    assert_eq!(scores("TaintToleration", &Value::Null, &both, &patient), [100, 100]);
}

#[test]
fn node_affinity() {
    let cache = cache(&[node("n", &none(), &json!({ "zone": "a", "cores": "8" }))], &[]);
    let refused = "node(s) didn't match Pod's node affinity/selector";
    let check = |spec: Value, reason: &str| check("NodeAffinity", &pod("p", &none(), &spec), &cache, reason);
    check(json!({ "nodeSelector": { "zone": "a" } }), "");
    check(json!({ "nodeSelector": { "zone": "b" } }), refused);
    check(json!({ "nodeSelector": { "zone": "a", "disk": "ssd" } }), refused);

    let terms = |terms: Value, reason: &str| {
        let required = json!({ "nodeSelectorTerms": terms });
        let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": required } });
        check(json!({ "affinity": affinity }), reason);
    };
    let label = |key: &str, operator: &str, values: Value| json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
    terms(json!([label("zone", "In", json!(["a", "b"]))]), "");
    terms(json!([label("zone", "NotIn", json!(["a"]))]), refused);
    terms(json!([label("disk", "NotIn", json!(["a"]))]), "");
    terms(json!([label("zone", "Exists", json!([]))]), "");
    terms(json!([label("zone", "DoesNotExist", json!([]))]), refused);
    terms(json!([label("cores", "Gt", json!(["4"]))]), "");
    terms(json!([label("cores", "Lt", json!(["8"]))]), refused);
    terms(json!([label("zone", "Gt", json!(["4"]))]), refused);
    terms(json!([label("zone", "In", json!(["b"])), label("cores", "Exists", json!([]))]), "");
    terms(json!([{}]), refused);
    let field = |name: &str| json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [name] }] });
    terms(json!([field("n")]), "");
    terms(json!([field("m")]), refused);
}

#[test]
fn node_affinity_preferences() {
    let cache = cache(&[node("fast", &none(), &json!({ "disk": "ssd" })), node("slow", &none(), &none())], &[]);
    let demand = json!({ "matchExpressions": [{ "key": "disk", "operator": "Exists" }] });
    let preferred = json!([{ "weight": 7, "preference": demand }]);
    let affinity = json!({ "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": preferred } });
    let pod = pod("p", &none(), &json!({ "affinity": affinity }));
    assert_eq!(scores("NodeAffinity", &Value::Null, &cache, &pod), [100, 0]);
}

#[test]
fn node_ports() {
    let port = |port: i32, address: &str, protocol: &str| {
        let port = json!({ "containerPort": 80, "hostPort": port, "hostIP": address, "protocol": protocol });
        pod("p", &none(), &json!({ "containers": [{ "name": "c", "ports": [port] }] }))
    };
    let held = port(8080, "127.0.0.1", "TCP");
    let cache = cache(&[node("a", &none(), &none())], &[("a", &held)]);
    let refused = "node(s) didn't have free ports for the requested pod ports";
    let check = |pod: Candidate, reason: &str| check("NodePorts", &pod, &cache, reason);
    check(port(8080, "127.0.0.1", "TCP"), refused);
    check(port(8080, "", "TCP"), refused);
    check(port(8080, "127.0.0.2", "TCP"), "");
    check(port(8080, "127.0.0.1", "UDP"), "");
    check(port(8081, "127.0.0.1", "TCP"), "");
    check(pod("p", &none(), &json!({ "containers": [{ "name": "c", "ports": [{ "containerPort": 8080 }] }] })), "");
}

#[test]
fn node_resources_fit() {
    let offered = json!({ "cpu": "2", "memory": "4Gi", "pods": "2", "nvidia.com/gpu": "1" });
    let nodes = [sized_node("a", &none(), &none(), &offered)];
    let first = pod("x", &none(), &asks(json!({ "cpu": "1500m" })));
    let second = pod("y", &none(), &none());
    let check = |on: &[(&str, &Candidate)], requests: Value, reason: &str| {
        let pod = pod("p", &none(), &asks(requests));
        super::tests::check("NodeResourcesFit", &pod, &cache(&nodes, on), reason);
    };
    check(&[], json!({ "cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1" }), "");
    check(
        &[],
        json!({ "cpu": "2001m", "memory": "5Gi", "nvidia.com/gpu": "2", "example.com/fpga": "1" }),
        "Insufficient cpu, Insufficient memory, Insufficient example.com/fpga, Insufficient nvidia.com/gpu",
    );
    check(&[("a", &first)], json!({ "cpu": "500m" }), "");
    check(&[("a", &first)], json!({ "cpu": "501m" }), "Insufficient cpu");
    check(&[("a", &first), ("a", &second)], json!({}), "Too many pods");
}

#[test]
fn scores_prefer_room_and_balance() {
    let none = none();
    let half = pod("x", &none, &asks(json!({ "cpu": "1", "memory": "0" })));
    let two = cache(&[node("empty", &none, &none), node("half", &none, &none)], &[("half", &half)]);
    let pod = |memory: &str| pod("p", &none, &asks(json!({ "cpu": "1", "memory": memory })));
    let fit = |kind: Value| {
        let args = json!({ "scoringStrategy": kind });
        scores("NodeResourcesFit", &args, &two, &pod("1Gi"))
    };
    assert_eq!(scores("NodeResourcesFit", &Value::Null, &two, &pod("1Gi")), [62, 35]);
    assert_eq!(fit(json!({ "type": "MostAllocated" })), [37, 64]);
    assert_eq!(fit(json!({ "resources": [{ "name": "cpu", "weight": 1 }] })), [50, 0]);
    let shape = json!([{ "utilization": 0, "score": 0 }, { "utilization": 100, "score": 10 }]);
    let ratio = json!({ "type": "RequestedToCapacityRatio", "requestedToCapacityRatio": { "shape": shape } });
    assert_eq!(fit(ratio), [35, 60]);
    let balance = |pod: &Candidate| scores("NodeResourcesBalancedAllocation", &Value::Null, &two, pod);
    assert_eq!(balance(&pod("2Gi")), [100, 75]);
    assert_eq!(balance(&crate::testing::pod("p", &none, &none)), [0; 0], "no opinion on pods that ask for nothing");
}

#[test]
fn image_locality() {
    let mut with = (*node("with", &none(), &none())).clone();
    let images = json!([{ "names": ["i:latest", "i@sha256:1"], "sizeBytes": 1_023 << 20 }]);
    with.status.get_or_insert_default().images = serde_json::from_value(images).expect("images");
    let two = cache(&[Arc::new(with), node("without", &none(), &none())], &[]);
    // Half of the nodes have it, so half of its size counts.
    assert_eq!(scores("ImageLocality", &Value::Null, &two, &pod("p", &none(), &asks(none()))), [50, 0]);
}

/// Three nodes in two zones.
fn zones(pods: &[(&str, &Candidate)]) -> crate::cache::Cache {
    let in_zone = |name: &str, zone: &str| node(name, &none(), &json!({ "zone": zone }));
    cache(&[in_zone("a1", "a"), in_zone("a2", "a"), in_zone("b1", "b")], pods)
}

#[test]
fn inter_pod_affinity() {
    let term = |app: &str, key: &str| json!({ "labelSelector": { "matchLabels": { "app": app } }, "topologyKey": key });
    let required = |side: &str, term: Value| json!({ "affinity": { side: { "requiredDuringSchedulingIgnoredDuringExecution": [term] } } });
    let web = pod("web", &json!({ "app": "web" }), &none());
    let shy = pod("shy", &json!({ "app": "shy" }), &required("podAntiAffinity", term("web", "zone")));
    let check = |spec: Value, expected: [&str; 3]| {
        let cache = zones(&[("a1", &web)]);
        assert_eq!(reasons("InterPodAffinity", &cache, &pod("p", &json!({ "app": "p" }), &spec)), expected);
    };
    let (near, far) = ("node(s) didn't match pod affinity rules", "node(s) didn't match pod anti-affinity rules");
    check(required("podAffinity", term("web", "zone")), ["", "", near]);
    check(required("podAffinity", term("web", "kubernetes.io/hostname")), ["", near, near]);
    check(required("podAffinity", term("db", "zone")), [near; 3]);
    check(required("podAffinity", term("p", "zone")), [""; 3]);
    check(required("podAffinity", term("p", "rack")), [near; 3]);
    check(required("podAntiAffinity", term("web", "zone")), [far, far, ""]);
    let mut elsewhere = term("web", "zone");
    elsewhere["namespaces"] = json!(["other"]);
    check(required("podAntiAffinity", elsewhere), [""; 3]);
    let mut everywhere = term("web", "zone");
    everywhere["namespaceSelector"] = json!({});
    check(required("podAntiAffinity", everywhere), [far, far, ""]);
    // Those who are there already may object, too.
    let objected = reasons("InterPodAffinity", &zones(&[("b1", &shy)]), &web);
    assert_eq!(objected, ["", "", "node(s) didn't satisfy existing pods anti-affinity rules"]);

    let preferred = |side: &str| {
        let term = json!({ "weight": 5, "podAffinityTerm": term("web", "zone") });
        json!({ "affinity": { side: { "preferredDuringSchedulingIgnoredDuringExecution": [term] } } })
    };
    let score =
        |spec: Value| scores("InterPodAffinity", &Value::Null, &zones(&[("a1", &web)]), &pod("p", &none(), &spec));
    assert_eq!(score(preferred("podAffinity")), [100, 100, 0]);
    assert_eq!(score(preferred("podAntiAffinity")), [0, 0, 100]);
    let liked = pod("fan", &none(), &preferred("podAffinity"));
    assert_eq!(scores("InterPodAffinity", &Value::Null, &zones(&[("b1", &liked)]), &web), [0, 0, 100]);
}

#[test]
fn pod_topology_spread() {
    let constraint = |key: &str, more: Value| {
        let mut constraint = json!({
            "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": { "matchLabels": { "app": "p" } },
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            constraint[name] = value.clone();
        }
        json!({ "topologySpreadConstraints": [constraint] })
    };
    let own = json!({ "app": "p", "version": "2" });
    let there = pod("there", &json!({ "app": "p", "version": "1" }), &none());
    let check = |spec: Value, expected: [&str; 3]| {
        let cache = zones(&[("a1", &there)]);
        assert_eq!(reasons("PodTopologySpread", &cache, &pod("p", &own, &spec)), expected, "{spec}");
    };
    let skewed = "node(s) didn't match pod topology spread constraints";
    let missing = "node(s) didn't match pod topology spread constraints (missing required label)";
    check(none(), [""; 3]);
    check(constraint("zone", none()), [skewed, skewed, ""]);
    check(constraint("zone", json!({ "maxSkew": 2 })), [""; 3]);
    check(constraint("kubernetes.io/hostname", none()), [skewed, "", ""]);
    check(constraint("rack", none()), [missing; 3]);
    check(constraint("zone", json!({ "minDomains": 3 })), [skewed, skewed, ""]);
    check(constraint("zone", json!({ "matchLabelKeys": ["version"] })), [""; 3]);
    // Zone b does not count where the pod may not go there anyway.
    let mut bound = constraint("zone", none());
    bound["nodeSelector"] = json!({ "zone": "a" });
    check(bound.clone(), [""; 3]);
    bound["topologySpreadConstraints"][0]["nodeAffinityPolicy"] = "Ignore".into();
    check(bound, [skewed, skewed, ""]);

    let preferred = json!({ "whenUnsatisfiable": "ScheduleAnyway" });
    let pod = pod("p", &own, &constraint("zone", preferred));
    assert_eq!(scores("PodTopologySpread", &Value::Null, &zones(&[("a1", &there)]), &pod), [0, 0, 100]);
    // Pods of a workload are spread where nothing is said.
    let owner = json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true }]);
    let owned = |name: &str| pod_with(json!({ "name": name, "ownerReferences": owner }), &none());
    let spread = scores("PodTopologySpread", &Value::Null, &zones(&[("a1", &owned("x"))]), &owned("y"));
    assert!(spread[0] < spread[1] && spread[1] == spread[2], "{spread:?}");
}

#[test]
fn volumes() {
    let mounts = json!({ "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }] });
    let pod = pod("p", &none(), &mounts);
    let claim = |spec: Value, bound: bool| {
        let phase = if bound { "Bound" } else { "Pending" };
        let claim =
            json!({ "metadata": { "name": "c", "namespace": "n" }, "spec": spec, "status": { "phase": phase } });
        Some(serde_json::from_value(claim).expect("a claim"))
    };
    let class = |name: &str, provisioner: &str, mode: &str| {
        let class = json!({ "metadata": { "name": name }, "provisioner": provisioner, "volumeBindingMode": mode });
        (name.to_owned(), Arc::new(serde_json::from_value(class).expect("a class")))
    };
    let check = |claim: Option<k8s_openapi::api::core::v1::PersistentVolumeClaim>, expected: [&str; 3]| {
        let mut cache = zones(&[]);
        let storage = &mut cache.storage;
        storage.claims.extend(claim.map(|claim| ("n/c".to_owned(), Arc::new(claim))));
        storage.classes.extend([
            class("later", "coracle.dev/local", "WaitForFirstConsumer"),
            class("by-hand", "kubernetes.io/no-provisioner", "WaitForFirstConsumer"),
            class("now", "coracle.dev/local", "Immediate"),
        ]);
        let term = json!({ "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["b"] }] });
        let volume = json!({ "metadata": { "name": "pv" }, "spec": {
            "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand",
            "nodeAffinity": { "required": { "nodeSelectorTerms": [term] } } } });
        let volume = serde_json::from_value(volume).expect("a volume");
        storage.volumes.insert("pv".to_owned(), Arc::new(volume));
        assert_eq!(reasons("VolumeBinding", &cache, &pod), expected);
    };
    let asks = |class: &str, size: &str| json!({ "storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": size } } });
    check(None, ["persistentvolumeclaim \"c\" not found"; 3]);
    check(claim(asks("now", "1Gi"), false), ["pod has unbound immediate PersistentVolumeClaims"; 3]);
    check(claim(asks("later", "1Gi"), false), [""; 3]);
    let nothing = "node(s) didn't find available persistent volumes to bind";
    check(claim(asks("by-hand", "1Gi"), false), [nothing, nothing, ""]);
    check(claim(asks("by-hand", "2Gi"), false), [nothing; 3]);
    let elsewhere = "node(s) didn't match PersistentVolume's node affinity";
    check(claim(json!({ "volumeName": "pv" }), true), [elsewhere, elsewhere, ""]);
    let gone = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
    check(claim(json!({ "volumeName": "other" }), true), [gone; 3]);

    let exclusive = claim(json!({ "volumeName": "pv", "accessModes": ["ReadWriteOncePod"] }), true).expect("a claim");
    let user = pod_with(json!({ "name": "user" }), &mounts);
    let mut cache = zones(&[("a1", &user)]);
    cache.storage.claims.insert("n/c".to_owned(), Arc::new(exclusive));
    let used = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
    assert_eq!(reasons("VolumeRestrictions", &cache, &pod), [used; 3]);
    cache.remove_pod("user");
    assert_eq!(reasons("VolumeRestrictions", &cache, &pod), [""; 3]);
}
