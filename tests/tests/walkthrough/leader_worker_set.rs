//! Section RoleBasedGroup, role "lws": LeaderWorkerSets, groups of pods of which one leads.

use coracle_tests::{Background, Cluster};
use serde_json::{Value, json};

use crate::role_based_group::{end_container, row, template, uids, wait_for_condition};

const OF_LWS: &str = "leaderworkerset.sigs.k8s.io/name=x";

#[test]
fn leader_worker_set() {
    let cluster = Cluster::start_with(&["lws"]);
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let spec = json!({ "replicas": 2, "leaderWorkerTemplate": { "size": 3, "workerTemplate": template(json!({})) } });
    let set = |name: &str, spec: &Value| {
        let kind = json!({ "apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet" });
        let mut set = kind;
        set["metadata"] = json!({ "name": name });
        set["spec"] = spec.clone();
        set.to_string()
    };
    cluster.apply(&set("x", &spec));
    wait_for_condition(&cluster, "lws/x", "Available");
    row(&cluster, &["get", "lws"], &["NAME", "READY", "DESIRED", "UP-TO-DATE", "AGE"], &["x", "2", "2", "2"]);
    let names = ["x-0", "x-0-1", "x-0-2", "x-1", "x-1-1", "x-1-2"];
    assert_eq!(cluster.pods(OF_LWS), names);

    // Pods know their group, and find their leader.
    let words =
        kubectl(&["exec", "x-1-2", "--", "sh", "-c", "echo $LWS_LEADER_ADDRESS $LWS_GROUP_SIZE $LWS_WORKER_INDEX"]);
    assert_eq!(words.trim(), "x-1.x.default 3 2");
    let found = kubectl(&["exec", "x-1-2", "--", "nslookup", "x-1.x.default.svc.cluster.local"]);
    assert!(found.contains(&cluster.field("pod/x-1", "{.status.podIP}")), "{found}");
    let pod = |name: &str| cluster.get(&["pod", name])["metadata"].clone();
    let (leader, worker) = (pod("x-1"), pod("x-1-2"));
    let key = "leaderworkerset.sigs.k8s.io/group-key";
    assert_eq!(leader["labels"][key], worker["labels"][key]);
    assert_eq!(worker["labels"]["leaderworkerset.sigs.k8s.io/group-index"], "1");
    assert_eq!(worker["labels"]["leaderworkerset.sigs.k8s.io/worker-index"], "2");
    assert_eq!(worker["annotations"]["leaderworkerset.sigs.k8s.io/leader-name"], "x-1");
    assert_eq!(worker["annotations"]["leaderworkerset.sigs.k8s.io/size"], "3");

    // One that fails takes its group with it, and no other.
    let before = uids(&cluster, "pods", OF_LWS);
    end_container(&cluster, "x-1-1");
    cluster.wait("the group has started anew", || {
        let after = uids(&cluster, "pods", OF_LWS);
        let is_new = |name: &&str| after.get(*name).is_some_and(|uid| before[*name] != *uid);
        (names[3..].iter().all(is_new) && after.len() == 6).then_some(())
    });
    wait_for_condition(&cluster, "lws/x", "Available");
    let after = uids(&cluster, "pods", OF_LWS);
    assert!(names[..3].iter().all(|name| before[*name] == after[*name]), "{before:?} {after:?}");
    assert!(kubectl(&["describe", "lws", "x"]).contains("RecreateGroup"));

    // An update goes from the last group to the first.
    let leaders = format!("{OF_LWS},leaderworkerset.sigs.k8s.io/worker-index=0");
    let columns = "custom-columns=NAME:.metadata.name,UID:.metadata.uid";
    let watch = ["get", "pods", "-l", &leaders, "--watch", "--no-headers", "-o", columns];
    let watch = Background::start(cluster.kubectl_command(&watch));
    let mut changed = spec.clone();
    changed["leaderWorkerTemplate"]["workerTemplate"]["metadata"] = json!({ "annotations": { "round": "two" } });
    cluster.apply(&set("x", &changed));
    let mut seen: Vec<String> = after.into_values().collect();
    for expected in ["x-1", "x-0"] {
        let line = watch.line(|line| !seen.iter().any(|uid| line.contains(uid)));
        let mut words = line.split_whitespace().map(str::to_owned);
        assert_eq!(words.next().as_deref(), Some(expected));
        seen.extend(words);
    }
    cluster.wait_for("lws/x", "{.status.updatedReplicas}{.status.readyReplicas}", "22");
    let rounds = kubectl(&["get", "pods", "-l", OF_LWS, "-o", "jsonpath={.items[*].metadata.annotations.round}"]);
    assert_eq!(rounds, ["two"; 6].join(" "));

    // Its scale is the number of groups.
    kubectl(&["scale", "lws/x", "--replicas=3"]);
    cluster.wait_for("lws/x", "{.status.readyReplicas}", "3");
    let scale = cluster.get(&["lws", "x", "--subresource=scale"]);
    assert_eq!(scale["status"]["selector"], leaders.as_str());
    kubectl(&["scale", "lws/x", "--replicas=1"]);
    cluster.wait("two groups are gone", || (cluster.pods(OF_LWS) == names[..3]).then_some(()));

    // What is wrong is said: by the API where it can be, else in an event.
    let mut wrong = spec.clone();
    wrong["leaderWorkerTemplate"]["size"] = 0.into();
    let refused = cluster.kubectl_with_input(&["apply", "-f", "-"], &set("wrong", &wrong)).fails();
    assert!(refused.contains("spec.leaderWorkerTemplate.size: Invalid value: 0"), "{refused}");
    let mut wrong = spec;
    wrong["leaderWorkerTemplate"]["workerTemplate"]["spec"]["restartPolicy"] = "Never".into();
    cluster.apply(&set("wrong", &wrong));
    cluster.wait("what is wrong is an event", || {
        let described = kubectl(&["describe", "lws", "wrong"]);
        described.contains("spec.template.spec.restartPolicy: Unsupported value: \"Never\"").then_some(())
    });

    kubectl(&["delete", "lws", "--all"]);
    let left = ["get", "pods,statefulsets,controllerrevisions", "-o", "name"];
    cluster.wait("all is gone", || kubectl(&left).is_empty().then_some(()));
}
