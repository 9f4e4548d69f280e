//! Whose the kinds of addons are: what somebody else installed under the same names is left to them.

use coracle_tests::Cluster;
use serde_json::{Value, json};

use crate::role_based_group::template;
use crate::scheduler::{labelled, node_of, pod};

const LWS: &str = "leaderworkersets.leaderworkerset.x-k8s.io";
const QUEUES: &str = "queues.scheduling.volcano.sh";

/// A definition as another project might install it.
fn definition(name: &str, version: &str, kind: &str, scope: &str) -> String {
    let (plural, group) = name.split_once('.').expect("PLURAL.GROUP");
    let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": name, "labels": { "app.kubernetes.io/managed-by": "Helm" } },
        "spec": {
            "group": group, "scope": scope, "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase() },
            "versions": [{
                "name": version, "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": anything },
            }],
        },
    })
    .to_string()
}

fn leader_worker_set(name: &str) -> String {
    json!({
        "apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "metadata": { "name": name },
        "spec": { "replicas": 1, "leaderWorkerTemplate": { "size": 2, "workerTemplate": template(json!({})) } },
    })
    .to_string()
}

#[test]
fn what_others_installed_is_left_alone() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    cluster.coracle(&["node", "add", "fake", "--fake"]).ok();
    cluster.apply(&definition(LWS, "v1", "LeaderWorkerSet", "Namespaced"));
    cluster.apply(&definition("podgroups.scheduling.volcano.sh", "v1beta1", "PodGroup", "Namespaced"));
    cluster.apply(&definition(QUEUES, "v1beta1", "Queue", "Cluster"));
    kubectl(&["wait", "--for=condition=Established", "crd", LWS, QUEUES, "--timeout=30s"]);
    cluster.apply(&leader_worker_set("theirs"));
    let queue = json!({
        "apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "Queue", "metadata": { "name": "theirs" },
        "spec": { "weight": 1 },
    });
    cluster.apply(&queue.to_string());
    let told = json!({ "leaderworkerset.sigs.k8s.io/name": "theirs" });
    // What runs for real is preferred by pods whose image is nowhere.
    let on_fake = || json!({ "nodeSelector": { "kubernetes.io/hostname": "fake" } });
    let member = |name: &str| {
        let mut member: Value = serde_json::from_str(&labelled(name, told.clone(), on_fake())).expect("JSON");
        member["metadata"]["annotations"] = json!({ "leaderworkerset.sigs.k8s.io/size": "2" });
        cluster.apply(&member.to_string());
        cluster.get(&[&format!("pod/{name}")])
    };
    // As it was written: nothing is put into it.
    let made = member("member-1");
    assert_eq!((&made["metadata"]["labels"], &made["spec"]["containers"][0]["env"]), (&told, &Value::Null));
    cluster.apply(&pod("volcanos", json!({ "schedulerName": "volcano" })));
    // Once what is ours was done, theirs would have been.
    kubectl(&["create", "deployment", "ours", "--image=nginx:latest"]);
    kubectl(&["rollout", "status", "deployment/ours", "--timeout=60s"]);
    cluster.apply(&pod("ours", on_fake()));
    node_of(&cluster, "ours");
    let untouched = || {
        assert_eq!(kubectl(&["get", "controllerrevisions,statefulsets", "-o", "name"]), "");
        assert_eq!(cluster.field("leaderworkerset/theirs", "{.status}"), "");
        assert_eq!(
            kubectl(&["get", "queues.scheduling.volcano.sh", "-o", "name"]),
            "queue.scheduling.volcano.sh/theirs\n"
        );
        assert_eq!(cluster.field("queue.scheduling.volcano.sh/theirs", "{.status}"), "");
        assert_eq!(cluster.field("pod/volcanos", "{.spec.nodeName}"), "");
    };
    untouched();

    // No addon is put over it, and none of those that are asked for together.
    let refused = cluster.coracle(&["addons", "enable", "rbg", "lws"]).fails();
    assert!(refused.contains(&format!("cannot enable lws: somebody else installed {LWS}")), "{refused}");
    let way_out = format!("kubectl label --overwrite customresourcedefinition {LWS} coracle.dev/addon=lws");
    assert!(refused.contains(&way_out), "{refused}");
    assert!(cluster.coracle(&["addons", "enable", "gang"]).fails().contains(QUEUES));
    assert_ne!(cluster.kubectl(&["get", "rbg"]).code, 0);
    untouched();

    // Handed over, it is the addon's from then on.
    kubectl(&["label", "--overwrite", "customresourcedefinition", LWS, "coracle.dev/addon=lws"]);
    cluster.coracle(&["addons", "enable", "lws"]).ok();
    cluster.wait_for("leaderworkerset/theirs", "{.status.readyReplicas}", "1");
    let env = member("member-2")["spec"]["containers"][0]["env"].clone();
    assert!(env.to_string().contains("LWS_GROUP_SIZE"), "{env}");

    // It is not switched off with objects of its kinds before somebody agrees.
    let refused = cluster.coracle(&["addons", "disable", "lws", "gang"]).fails();
    assert!(refused.contains(&format!("1 {LWS}")) && !refused.contains(QUEUES), "{refused}");
    assert!(refused.contains("coracle addons disable --yes lws gang"), "{refused}");
    kubectl(&["get", "leaderworkerset/theirs"]);

    // Off again, and all that is left is what others installed.
    cluster.coracle(&["addons", "disable", "--yes", "lws", "gang"]).ok();
    let made = member("member-3");
    assert_eq!(made["spec"]["containers"][0]["env"], Value::Null);
    cluster.wait("its kind is gone", || (cluster.kubectl(&["get", "crd", LWS]).code != 0).then_some(()));
    kubectl(&["get", "crd", QUEUES, "podgroups.scheduling.volcano.sh"]);
    assert_eq!(cluster.field("pod/volcanos", "{.spec.nodeName}"), "");
}
