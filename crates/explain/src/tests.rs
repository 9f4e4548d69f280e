//! Objects in, sentences out.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::access::{self, Policy, Question, Verdict};
use crate::{Related, explain};

const NOW: &str = "2026-01-01T00:10:00Z";

fn now() -> Timestamp {
    NOW.parse().expect("a time")
}

/// What is said of an object, as text.
fn text(resource: &str, object: &Value, lists: &[(&str, Value)]) -> String {
    let mut related = Related::default();
    for (resource, objects) in lists {
        related.add(resource, objects.as_array().cloned().unwrap_or_default());
    }
    explain(resource, "it/it -n default", object, &related, now()).text(now())
}

#[track_caller]
fn check(resource: &str, object: &Value, lists: &[(&str, Value)], expect: &[&str]) {
    let text = text(resource, object, lists);
    for expect in expect {
        assert!(text.contains(expect), "{expect:?} is missing in\n{text}");
    }
}

fn pod(name: &str, spec: Value, status: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "uid": name, "labels": { "app": "web" } },
        "spec": spec, "status": status,
    })
}

fn owned(mut object: Value, owner: &str, kind: &str) -> Value {
    object["metadata"]["ownerReferences"] =
        json!([{ "apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": owner, "controller": true }]);
    object
}

fn ready(status: &str) -> Value {
    json!({ "type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z" })
}

fn running(name: &str, is_ready: bool) -> Value {
    let container = json!({
        "name": "c", "ready": is_ready, "restartCount": 0, "image": "i", "imageID": "i", "started": true,
        "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } },
    });
    let conditions = [ready(if is_ready { "True" } else { "False" })];
    pod(
        name,
        json!({ "nodeName": "n", "containers": [{ "name": "c", "image": "i", "readinessProbe": {
            "tcpSocket": { "port": 80 }, "periodSeconds": 7, "successThreshold": 1, "failureThreshold": 3 } }] }),
        json!({ "phase": "Running", "podIP": "10.0.0.1", "startTime": "2026-01-01T00:00:00Z", "conditions": conditions,
            "containerStatuses": [container] }),
    )
}

#[test]
fn a_pod_that_crashes_waits_until_its_back_off_ends() {
    let waiting =
        json!({ "reason": "CrashLoopBackOff", "message": "back-off 2m40s restarting failed container=c pod=p" });
    let ended = json!({ "exitCode": 3, "reason": "Error", "finishedAt": "2026-01-01T00:09:00Z" });
    let status = json!({
        "phase": "Running", "startTime": "2026-01-01T00:00:00Z",
        "containerStatuses": [{ "name": "c", "ready": false, "restartCount": 5, "image": "i", "imageID": "i",
            "state": { "waiting": waiting }, "lastState": { "terminated": ended } }],
    });
    let spec = json!({ "nodeName": "n", "containers": [{ "name": "c", "image": "i" }] });
    check(
        "pods",
        &pod("p", spec, status),
        &[],
        &[
            "restarted 5 times",
            "starts c again; waits for the end of its back-off, which doubles with each crash, until 2026-01-01T00:11:40Z (in 1m40s)",
            "with the exit code 3",
        ],
    );
}

#[test]
fn a_pod_that_is_not_ready_names_its_probe() {
    check(
        "pods",
        &running("p", false),
        &[],
        &["asks the readiness probe of c again every 7s; waits for a connection to port 80"],
    );
    check("pods", &running("p", true), &[], &["Nobody needs to act: it runs and is ready"]);
}

#[test]
fn a_pod_waits_for_its_init_containers_in_their_order() {
    let mut waits = running("p", false);
    waits["spec"]["initContainers"] = json!([{ "name": "first", "image": "i" }, { "name": "second", "image": "i" }]);
    let state = json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } });
    waits["status"]["initContainerStatuses"] = json!([{ "name": "first", "ready": false, "restartCount": 0, "image": "i",
        "imageID": "i", "started": true, "state": state }]);
    let expect = ["starts second; waits for first to end with success", "after first, in this order: second, c"];
    check("pods", &waits, &[], &expect);
}

#[test]
fn a_pod_whose_volume_cannot_be_mounted_says_so() {
    let condition = json!({ "type": "PodReadyToStartContainers", "status": "True" });
    let waiting = json!({ "waiting": { "reason": "ContainerCreating" } });
    let container =
        json!({ "name": "c", "ready": false, "restartCount": 0, "image": "i", "imageID": "", "state": waiting });
    let status = json!({ "phase": "Pending", "startTime": "2026-01-01T00:00:00Z", "conditions": [condition],
        "containerStatuses": [container] });
    let spec = json!({ "nodeName": "n", "containers": [{ "name": "c", "image": "i" }] });
    let event = json!([{ "metadata": {}, "involvedObject": { "kind": "Pod", "name": "p" }, "reason": "FailedMount",
        "message": "secret \"nope\" not found", "lastTimestamp": "2026-01-01T00:09:58Z" }]);
    let expect = ["mounts its volumes again, and starts no container before", "secret \"nope\" not found (2s ago)"];
    check("pods", &pod("p", spec, status), &[("events", event)], &expect);
}

#[test]
fn what_is_being_deleted_names_its_finalizer() {
    let fields =
        json!([{ "manager": "robot", "fieldsV1": { "f:metadata": { "f:finalizers": { "v:\"a.b/c\"": {} } } } }]);
    let metadata = json!({
        "name": "it", "namespace": "default", "deletionTimestamp": "2026-01-01T00:09:00Z",
        "finalizers": ["a.b/c", "foregroundDeletion"], "managedFields": fields,
    });
    check(
        "widgets.a.b",
        &json!({ "kind": "Widget", "metadata": metadata }),
        &[],
        &[
            "been asked to go 1m ago",
            "Whoever owns the finalizer a.b/c, which robot set, removes it",
            "The garbage collector removes the finalizer foregroundDeletion",
        ],
    );
}

/// A Deployment of three pods called `web`, and ReplicaSets of it: name, image, size, pods that are there and available.
fn rollout(strategy: Value, sets: &[(&str, &str, [i32; 3])]) -> (Value, Value) {
    let template = |image: &str, labels: Value| json!({ "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "c", "image": image }] } });
    let selector = json!({ "matchLabels": { "app": "web" } });
    let spec = json!({ "replicas": 3, "selector": selector, "strategy": strategy,
        "template": template("new", json!({ "app": "web" })) });
    let meta = json!({ "name": "web", "namespace": "default", "uid": "web", "generation": 1 });
    let deployment = json!({ "metadata": meta, "spec": spec, "status": { "observedGeneration": 1 } });
    let sets = sets.iter().map(|(name, image, [size, there, available])| {
        let template = template(image, json!({ "app": "web", "pod-template-hash": name }));
        let annotations = json!({ "deployment.kubernetes.io/desired-replicas": "3" });
        let set = json!({ "metadata": { "name": name, "uid": name, "annotations": annotations },
            "spec": { "replicas": size, "selector": selector, "template": template },
            "status": { "replicas": there, "availableReplicas": available } });
        owned(set, "web", "Deployment")
    });
    (deployment, sets.collect())
}

#[test]
fn a_deployment_is_held_by_a_quota() {
    let (deployment, mut sets) = rollout(json!({}), &[("web-1", "new", [3, 2, 2])]);
    let message =
        "pods \"web-1-x\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2";
    let failure = json!({ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message });
    sets[0]["status"]["conditions"] = json!([failure]);
    let pods: Vec<Value> = ["a", "b"].iter().map(|name| owned(running(name, true), "web-1", "ReplicaSet")).collect();
    let quota =
        json!([{ "metadata": { "name": "small" }, "status": { "hard": { "pods": "2" }, "used": { "pods": "2" } } }]);
    check(
        "deployments.apps",
        &deployment,
        &[("replicasets.apps", sets), ("pods", json!(pods)), ("resourcequotas", quota)],
        &[
            "at most 4 pods and at least 3 available",
            "The ReplicaSet controller creates 1 more pod of web-1; waits for room in the ResourceQuota small (pods 2 of 2)",
            message,
        ],
    );
}

#[test]
fn a_rollout_says_what_its_plan_says() {
    let rolling = json!({ "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } });
    let check = |strategy: &Value, sets: &[(&str, &str, [i32; 3])], expect: &str| {
        let (deployment, sets) = rollout(strategy.clone(), sets);
        let mut lists = vec![("replicasets.apps", sets)];
        if strategy["type"] == "Recreate" {
            lists.push(("pods", json!([])));
        }
        check("deployments.apps", &deployment, &lists, &[expect]);
    };
    let (old, new) = (("web-old", "old", [3, 3, 3]), "web-new");
    check(&rolling, &[old], "The Deployment controller creates the ReplicaSet web-");
    check(&rolling, &[old, (new, "new", [0, 0, 0])], "scales the ReplicaSet web-new from 0 to 1");
    let held = "scales down web-old; waits for more available pods of the latest template: 3 in all have to stay available, 3 are";
    check(&rolling, &[old, (new, "new", [1, 1, 0])], held);
    check(&rolling, &[old, (new, "new", [1, 1, 1])], "scales the ReplicaSet web-old from 3 to 2");
    check(&rolling, &[(new, "new", [3, 3, 3])], "Nobody needs to act: it has what it wants");
    // With Recreate the ReplicaSet of the old template is not taken for the latest one.
    let recreate = json!({ "type": "Recreate" });
    check(&recreate, &[old], "scales the ReplicaSet web-old from 3 to 0");
    let waits = "starts pods of the latest template; waits for all pods of old templates to be gone";
    check(&recreate, &[("web-old", "old", [0, 2, 2])], waits);
}

#[test]
fn a_service_says_why_a_pod_is_no_endpoint() {
    let service = json!({
        "metadata": { "name": "web" },
        "spec": { "clusterIP": "10.96.0.5", "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": "http" }] },
    });
    let pods = json!([running("slow", false), running("well", true)]);
    check(
        "services",
        &service,
        &[("pods", pods), ("endpointslices.discovery.k8s.io", json!([]))],
        &[
            "no ready endpoint",
            "makes slow a ready endpoint; waits for this: its container c runs and is not ready",
            "makes well a ready endpoint; waits for this: none of its ports is called http",
        ],
    );
    check("services", &service, &[("pods", json!([]))], &["waits for a pod with the labels app=web"]);
}

#[test]
fn a_stateful_set_goes_by_its_ordinals() {
    let template = json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [] } });
    let selector = json!({ "matchLabels": { "app": "web" } });
    let spec = json!({ "replicas": 3, "selector": selector, "serviceName": "", "template": template });
    let set = json!({ "metadata": { "name": "db", "namespace": "default", "uid": "db" }, "spec": spec });
    let of = |pods: Value| [("pods", pods), ("controllerrevisions.apps", json!([]))];
    let pod = |name: &str, is_ready| owned(running(name, is_ready), "db", "StatefulSet");
    check(
        "statefulsets.apps",
        &set,
        &of(json!([pod("db-0", false)])),
        &[
            "3 pods: db-0 to db-2",
            "The pod db-0 becomes available; waits for this: its container c runs and is not ready",
            "pods after db-0 wait until it is available (OrderedReady)",
            "You delete the pod db-0, if its template is what is wrong: the update waits for it",
        ],
    );
    check("statefulsets.apps", &set, &of(json!([pod("db-0", true)])), &["creates the pod db-1"]);
    let all = json!([pod("db-0", true), pod("db-1", true), pod("db-2", true), pod("db-3", true)]);
    check(
        "statefulsets.apps",
        &set,
        &of(all),
        &[
            "deletes the pod db-3, which is beyond its size",
            "deletes the pod db-2 to create it again from db-",
            "waits for db-3 to be gone",
        ],
    );
}

#[test]
fn a_daemon_set_says_where_it_is_not() {
    let template = json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [] } });
    let spec = json!({ "selector": { "matchLabels": { "app": "web" } }, "template": template });
    let set = json!({ "metadata": { "name": "log", "namespace": "default", "uid": "log" }, "spec": spec });
    let taint = json!({ "key": "gpu", "value": "yes", "effect": "NoSchedule" });
    let nodes = json!([
        { "metadata": { "name": "a" } },
        { "metadata": { "name": "n" } },
        { "metadata": { "name": "b" }, "spec": { "taints": [taint] } },
    ]);
    // It was rolled back: the label of the revision counts, and not the number of the change.
    let revision = json!({
        "metadata": { "name": "log-x", "uid": "log-x", "labels": { "controller.kubernetes.io/hash": "x" } },
        "data": { "spec": { "template": template } }, "revision": 3,
    });
    let mut pod = owned(running("log-1", true), "log", "DaemonSet");
    pod["metadata"]["labels"] = json!({ "controller-revision-hash": "x", "pod-template-generation": "1" });
    let lists = [
        ("pods", json!([pod])),
        ("nodes", nodes),
        ("controllerrevisions.apps", json!([owned(revision, "log", "DaemonSet")])),
    ];
    let expect = ["not on b: it does not tolerate gpu=yes:NoSchedule", "creates 1 pod for a"];
    check("daemonsets.apps", &set, &lists, &expect);
    assert!(!text("daemonsets.apps", &set, &lists).contains("log-1"), "it is of the latest template");
    let mut going = lists.clone();
    going[0].1[0]["metadata"]["deletionTimestamp"] = json!(NOW);
    check("daemonsets.apps", &set, &going, &["goes on at n; waits for the pod log-1 to be gone"]);
}

#[test]
fn a_job_waits_for_its_back_off() {
    let mut failed = owned(running("once-1", false), "once", "Job");
    failed["metadata"]["finalizers"] = json!(["batch.kubernetes.io/job-tracking"]);
    failed["status"]["phase"] = json!("Failed");
    let ended = json!({ "exitCode": 1, "finishedAt": "2026-01-01T00:09:55Z" });
    failed["status"]["containerStatuses"][0]["state"] = json!({ "terminated": ended });
    let job = |failures: i32| {
        json!({
            "metadata": { "name": "once", "namespace": "default", "uid": "once" },
            "spec": { "completions": 1, "parallelism": 1, "backoffLimit": 2, "template": { "spec": { "containers": [] } } },
            "status": { "failed": failures },
        })
    };
    let expect = [
        "creates another pod after those that failed; waits for its back-off, which doubles with each failure in a row, until \
         2026-01-01T00:10:05Z (in 5s)",
        "the pod once-1 failed: it has ended: Failed, its container c ended with the exit code 1; see: kubectl logs once-1",
    ];
    check("jobs.batch", &job(0), &[("pods", json!([failed]))], &expect);
    check("jobs.batch", &job(0), &[("pods", json!([]))], &["The Job controller creates 1 pod"]);
}

#[test]
fn a_pod_is_told_when_the_taints_of_its_node_drive_it_away() {
    let added = "2026-01-01T00:09:00Z";
    let taint = json!({ "key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": added });
    let node = json!([{ "metadata": { "name": "n" }, "spec": { "taints": [taint] } }]);
    let mut pod = running("p", true);
    let tolerate = |seconds: Value| json!([{ "key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": seconds }]);
    pod["spec"]["tolerations"] = tolerate(json!(300));
    check("pods", &pod, &[("nodes", node.clone())], &["unreachable then; waits until 2026-01-01T00:14:00Z (in 4m)"]);
    pod["spec"]["tolerations"] = tolerate(Value::Null);
    assert!(!text("pods", &pod, &[("nodes", node)]).contains("unreachable"), "it is tolerated for ever");
}

#[test]
fn a_cron_job_says_when_it_runs_next() {
    let cron = |more: Value| {
        let mut spec = json!({ "schedule": "*/15 * * * *", "jobTemplate": {} });
        spec.as_object_mut().expect("a map").extend(more.as_object().cloned().expect("a map"));
        let meta =
            json!({ "name": "c", "namespace": "default", "uid": "c", "creationTimestamp": "2026-01-01T00:05:00Z" });
        json!({ "metadata": meta, "spec": spec })
    };
    let check = |cron: &Value, expect: &str| check("cronjobs.batch", cron, &[("jobs.batch", json!([]))], &[expect]);
    check(&cron(json!({})), "until 2026-01-01T00:15:00Z (in 5m)");
    check(&cron(json!({ "suspend": true })), "Nobody starts a Job: it is suspended");
    check(&cron(json!({ "schedule": "*/5 * * * *" })), "creates the Job c-");
    check(&cron(json!({ "schedule": "never" })), "You correct the schedule or the timeZone");
}

#[test]
fn a_claim_waits_for_its_first_consumer() {
    let class =
        json!([{ "metadata": { "name": "local" }, "provisioner": "x/y", "volumeBindingMode": "WaitForFirstConsumer" }]);
    let claim = |class: &str| {
        json!({
            "metadata": { "name": "data" }, "status": { "phase": "Pending" },
            "spec": { "storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
        })
    };
    let lists = [("storageclasses.storage.k8s.io", class), ("pods", json!([]))];
    check(
        "persistentvolumeclaims",
        &claim("local"),
        &lists,
        &["waits for a pod that uses the claim (WaitForFirstConsumer)"],
    );
    check("persistentvolumeclaims", &claim("fast"), &lists, &["waits for the class fast, which is not there"]);
}

#[test]
fn an_autoscaler_shows_its_arithmetic() {
    let target = json!({ "type": "Utilization", "averageUtilization": 50 });
    let spec = json!({
        "maxReplicas": 9, "scaleTargetRef": { "kind": "Deployment", "name": "web" },
        "metrics": [{ "type": "Resource", "resource": { "name": "cpu", "target": target } }],
    });
    let current =
        json!([{ "type": "Resource", "resource": { "name": "cpu", "current": { "averageUtilization": 90 } } }]);
    let status = json!({ "currentReplicas": 2, "desiredReplicas": 4, "currentMetrics": current });
    let autoscaler = json!({ "metadata": { "name": "web" }, "spec": spec, "status": status });
    check(
        "horizontalpodautoscalers.autoscaling",
        &autoscaler,
        &[],
        &["90% ÷ 50% = 1.80, ceil(2 × 1.80) = 4", "scales the Deployment web from 2 to 4", "throughout 300s"],
    );
}

fn read<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("an object")
}

#[test]
fn access_is_given_by_a_binding_or_by_nothing() {
    let role: ClusterRole = read(json!({ "metadata": { "name": "view" }, "rules": [
        { "verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"] }] }));
    let binding: ClusterRoleBinding = read(json!({ "metadata": { "name": "readers" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view" },
        "subjects": [{ "kind": "Group", "name": "team" }] }));
    let mut policy = Policy { cluster_roles: vec![role], cluster_role_bindings: vec![binding], ..Policy::default() };
    let question = Question {
        user: "jane".to_owned(),
        groups: vec!["team".to_owned()],
        verb: "get".to_owned(),
        resource: "pods".to_owned(),
        namespace: "a".to_owned(),
        ..Question::default()
    };
    let yes = access::explain(&question, &policy, Some(&Verdict { allowed: true, reason: String::new() }));
    assert_eq!(yes.allowed, Some(true));
    let why = "the ClusterRoleBinding readers gives the ClusterRole view to the Group team; its rule: get, list of pods \
               (API group core)";
    assert_eq!(yes.why, [why]);
    policy.cluster_role_bindings.clear();
    let no = access::explain(&question, &policy, None);
    assert_eq!(no.allowed, Some(false));
    let text = no.text(now());
    for part in ["no binding names the user", "kubectl create rolebinding NAME -n a --clusterrole=view --user=jane"] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}
