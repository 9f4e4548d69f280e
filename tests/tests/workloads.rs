//! DaemonSets, Jobs, CronJobs and the eviction of pods, as a person meets them.

use std::fs;
use std::time::{Duration, Instant};

use coracle_tests::{BUSYBOX, Cluster, run};

/// A container that does nothing until it is told to stop, and then stops at once.
fn idle() -> String {
    format!(
        r#"{{"name": "c", "image": "{BUSYBOX}", "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"]}}"#
    )
}

#[test]
fn a_daemon_set_runs_on_every_node_and_drain_asks_the_budget() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let containers = idle();
    cluster.apply(&format!(
        r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: agent}}
spec:
  selector: {{matchLabels: {{app: agent}}}}
  template:
    metadata: {{labels: {{app: agent}}}}
    spec: {{containers: [{containers}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{containers}]}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: web}}
spec: {{minAvailable: 1, selector: {{matchLabels: {{app: web}}}}}}
"#
    ));
    kubectl(&["rollout", "status", "daemonset/agent", "--timeout=60s"]);
    kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert_eq!(cluster.field("daemonset/agent", "{.status.numberReady}"), "1");
    cluster.wait_for("pdb/web", "{.status.disruptionsAllowed}", "1");
    let table = kubectl(&["get", "pdb", "web"]);
    assert!(table.contains("ALLOWED DISRUPTIONS") && table.contains("N/A"), "{table}");

    // The daemon's update.
    let old = cluster.pods("app=agent");
    kubectl(&["set", "env", "daemonset/agent", "ROUND=2"]);
    kubectl(&["rollout", "status", "daemonset/agent", "--timeout=60s"]);
    assert_ne!(cluster.pods("app=agent"), old);

    // One pod may go, and its successor finds no node; the other must stay.
    let node = cluster.profile.clone();
    let drained = cluster.kubectl(&["drain", &node, "--ignore-daemonsets", "--force", "--timeout=5s"]);
    let said = drained.fails();
    assert!(said.contains("Cannot evict pod as it would violate the pod's disruption budget."), "{said}");
    assert_eq!(cluster.field("pdb/web", "{.status.disruptionsAllowed}"), "0");
    kubectl(&["delete", "pdb", "web"]);
    kubectl(&["drain", &node, "--ignore-daemonsets", "--force", "--timeout=60s"]);
    assert_eq!(cluster.pods("app=agent").len(), 1, "the daemon stays");
    kubectl(&["uncordon", &node]);
    kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
}

/// Pods that go at once, and a status that somebody spoils, hold up no rollout.
#[test]
fn recreate_rollouts_end() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    cluster.apply(&format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 1
  strategy: {{type: Recreate}}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{terminationGracePeriodSeconds: 0, containers: [{}]}}
"#,
        idle()
    ));
    kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    for round in 1..=5 {
        kubectl(&["set", "env", "deployment/web", &format!("ROUND={round}")]);
        kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
        let old = kubectl(&["get", "rs", "-o", "jsonpath={.items[?(@.spec.replicas==0)].metadata.name}"]);
        for name in old.split_whitespace() {
            cluster.wait_for(&format!("rs/{name}"), "{.status.replicas} {.status.terminatingReplicas}", "0 0");
        }
    }
    let wrong = r#"{"status": {"replicas": 7, "terminatingReplicas": 3}}"#;
    let sets = kubectl(&["get", "rs", "-o", "name"]);
    for set in sets.lines() {
        let wanted = cluster.field(set, "{.spec.replicas}");
        kubectl(&["patch", set, "--subresource=status", "--type=merge", "-p", wrong]);
        cluster.wait_for(set, "{.status.replicas} {.status.terminatingReplicas}", &format!("{wanted} 0"));
    }
}

#[test]
fn jobs_run_to_their_end() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let job = |name: &str, spec: &str, script: &str| {
        format!(
            r#"
apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:
  {spec}
  template:
    spec:
      restartPolicy: Never
      containers: [{{name: c, image: "{BUSYBOX}", command: ["sh", "-c", "{script}"]}}]
---
"#
        )
    };
    let rule = "podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]}";
    let manifest = [
        job("shards", "{completionMode: Indexed, completions: 4, parallelism: 2}", "echo shard $JOB_COMPLETION_INDEX"),
        job("hopeless", "backoffLimit: 0", "exit 1"),
        job("stubborn", rule, "exit 42"),
        job("again", "backoffLimit: 1", "exit 1"),
        job("short", "ttlSecondsAfterFinished: 0", "true"),
        job("patient", "suspend: true", "true"),
    ];
    // A flow mapping cannot be followed by further keys of the block: those of the first Job stand on lines.
    let manifest = manifest.concat().replace(
        "{completionMode: Indexed, completions: 4, parallelism: 2}",
        "completionMode: Indexed\n  completions: 4\n  parallelism: 2",
    );
    cluster.apply(&manifest);
    kubectl(&["wait", "--for=condition=Complete", "job/shards", "--timeout=60s"]);
    let status = "{.status.succeeded} {.status.completedIndexes} {.status.uncountedTerminatedPods}";
    assert_eq!(cluster.field("job/shards", status), "4 0-3 {}");
    let log = kubectl(&["logs", "-l", "batch.kubernetes.io/job-completion-index=3"]);
    assert_eq!(log, "shard 3\n");
    kubectl(&["wait", "--for=condition=Failed", "job/hopeless", "--timeout=60s"]);
    let reason = "{.status.failed} {.status.conditions[?(@.type==\"Failed\")].reason}";
    assert_eq!(cluster.field("job/hopeless", reason), "1 BackoffLimitExceeded");
    // A second try comes after a while, and each pod counts once.
    kubectl(&["wait", "--for=condition=Failed", "job/again", "--timeout=60s"]);
    assert_eq!(cluster.field("job/again", reason), "2 BackoffLimitExceeded");
    assert_eq!(cluster.pods("job-name=again").len(), 2);
    kubectl(&["wait", "--for=condition=Failed", "job/stubborn", "--timeout=60s"]);
    assert_eq!(cluster.field("job/stubborn", reason), "1 PodFailurePolicy");
    cluster.wait("the short one is gone", || cluster.field("job/short", "{.metadata.name}").is_empty().then_some(()));
    assert_eq!(cluster.field("job/patient", "{.status.conditions[0].reason}"), "JobSuspended");
    kubectl(&["patch", "job", "patient", "-p", r#"{"spec": {"suspend": false}}"#]);
    kubectl(&["wait", "--for=condition=Complete", "job/patient", "--timeout=60s"]);
    let table = kubectl(&["get", "jobs"]);
    assert!(table.contains("4/4") && table.contains("Failed"), "{table}");

    // No finalizer keeps a pod once its Job is gone.
    kubectl(&["delete", "jobs", "--all"]);
    cluster.wait("the pods are gone", || cluster.kubectl(&["get", "pods"]).stdout.is_empty().then_some(()));
}

#[test]
fn a_deadline_fails_what_ends_politely() {
    let cluster = Cluster::start();
    let container = idle();
    let kind = |kind: &str, name: &str, spec: &str| {
        let version = if kind == "Job" { "batch/v1" } else { "v1" };
        format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n")
    };
    let pod =
        |seconds: u32| format!("{{restartPolicy: Never, activeDeadlineSeconds: {seconds}, containers: [{container}]}}");
    let template = format!("{{spec: {{restartPolicy: Never, containers: [{container}]}}}}");
    let manifest = [
        kind("Pod", "late", &pod(10)),
        kind("Job", "of-pods", &format!("{{backoffLimit: 0, template: {{spec: {}}}}}", pod(2))),
        kind("Job", "of-jobs", &format!("{{activeDeadlineSeconds: 2, template: {template}}}")),
    ];
    cluster.apply(&manifest.concat());
    for job in ["job/of-pods", "job/of-jobs"] {
        cluster.kubectl(&["wait", "--for=condition=Failed", job, "--timeout=60s"]).ok();
    }
    let reason = "{.status.conditions[?(@.type==\"Failed\")].reason}";
    assert_eq!(cluster.field("job/of-pods", reason), "BackoffLimitExceeded");
    assert_eq!(cluster.field("job/of-jobs", reason), "DeadlineExceeded");
    let end = "{.items[*].status.phase} {.items[*].status.reason}";
    let pods = cluster.kubectl(&["get", "pods", "-l", "job-name=of-pods", "-o", &format!("jsonpath={end}")]).ok();
    assert_eq!(pods, "Failed DeadlineExceeded");
    // The deadline comes, and the container goes, while nobody is there.
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/late", "--timeout=60s"]).ok();
    let started = Instant::now();
    let id = cluster.field("pod/late", "{.status.containerStatuses[0].containerID}");
    cluster.coracle(&["stop", "--keep-pods"]).ok();
    cluster.wait("the deadline", || (started.elapsed() > Duration::from_secs(10)).then_some(()));
    run("docker", &["stop", id.trim_start_matches("docker://")]).ok();
    cluster.coracle(&["start"]).ok();
    cluster.wait_for("pod/late", "{.status.phase} {.status.reason}", "Failed DeadlineExceeded");
    let message = cluster.field("pod/late", "{.status.message}");
    assert_eq!(message, "Pod was active on the node longer than the specified deadline");
}

#[test]
fn a_cron_job_can_be_started_by_hand() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let image = format!("--image={BUSYBOX}");
    kubectl(&["create", "cronjob", "tick", &image, "--schedule=0 0 1 1 *", "--", "echo", "tock"]);
    kubectl(&["create", "job", "now", "--from=cronjob/tick"]);
    kubectl(&["wait", "--for=condition=Complete", "job/now", "--timeout=60s"]);
    assert_eq!(kubectl(&["logs", "job/now"]), "tock\n");
    cluster.wait("the CronJob knows of it", || {
        (!cluster.field("cronjob/tick", "{.status.lastSuccessfulTime}").is_empty()).then_some(())
    });
    // A schedule that means nothing is refused in the words of upstream.
    let refused = cluster.kubectl(&["create", "cronjob", "never", &image, "--schedule=61 * * * *"]).fails();
    assert!(refused.contains("end of range (61) above maximum (59): 61"), "{refused}");
    kubectl(&["delete", "cronjob", "tick"]);
    cluster.wait("its Job goes with it", || cluster.field("job/now", "{.metadata.name}").is_empty().then_some(()));
}

#[test]
fn a_replication_controller_still_does_its_work() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let file = cluster.home().join("rc.yaml");
    let manifest = format!(
        "apiVersion: v1\nkind: ReplicationController\nmetadata: {{name: old}}\nspec:\n  replicas: 1\n  template:\n    \
         metadata: {{labels: {{app: old}}}}\n    spec: {{containers: [{}]}}\n",
        idle()
    );
    fs::write(&file, manifest).expect("a file");
    kubectl(&["create", "-f", &file.to_string_lossy()]);
    kubectl(&["scale", "rc/old", "--replicas=2"]);
    cluster.wait_for("rc/old", "{.status.readyReplicas}", "2");
    kubectl(&["delete", "rc", "old"]);
    cluster.wait("the pods go with it", || cluster.pods("app=old").is_empty().then_some(()));
}

/// What pods may take of the disk, how many processes they may have, and what they may set in the kernel.
#[test]
fn pods_keep_to_their_limits() {
    let cluster = Cluster::start();
    let pod = |name: &str, script: &str, container: &str, more: &str| {
        cluster.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: Never, containers: [{{name: c, \
             image: '{BUSYBOX}', command: [sh, -c, '{script}'], {container}}}], {more}}}}}"
        ));
    };
    let fill = |path: &str| format!("head -c 3000000 /dev/zero >{path}; sleep 3600");
    let mount = "volumeMounts: [{name: v, mountPath: /v}]";
    pod("volume", &fill("/v/x"), mount, "volumes: [{name: v, emptyDir: {sizeLimit: 1Mi}}]");
    pod("layer", &fill("/x"), "resources: {limits: {ephemeral-storage: 1Mi}}", "");
    pod("fine", &fill("/v/x"), mount, "volumes: [{name: v, emptyDir: {sizeLimit: 8Mi}}]");
    let forks = "i=0; while [ $i -lt 10000 ]; do sleep 3600 & i=$((i+1)); done; echo unlimited";
    pod("forks", forks, "resources: {limits: {memory: 2Gi}}", "");
    let sysctls = |name: &str| format!("securityContext: {{sysctls: [{{name: {name}, value: '0'}}]}}");
    pod(
        "safe",
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
        "",
        &sysctls("net.ipv4.ip_unprivileged_port_start"),
    );
    pod("unsafe", "true", "", &sysctls("kernel.msgmax"));
    let state = "{.status.phase} {.status.reason}";
    cluster.wait_for("pod/unsafe", state, "Failed SysctlForbidden");
    cluster.wait_for("pod/safe", "{.status.phase}", "Succeeded");
    cluster.wait_for("pod/forks", "{.status.phase}", "Failed");
    assert!(!cluster.kubectl(&["logs", "forks"]).ok().contains("unlimited"));
    // The disk is counted once a minute.
    let evicted = |name: &str, message: &str| {
        let is = || (cluster.field(&format!("pod/{name}"), state) == "Failed Evicted").then_some(());
        let _ = coracle_tests::wait(is);
        cluster.wait_for(&format!("pod/{name}"), "{.status.message}", message);
    };
    evicted("volume", "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ");
    evicted("layer", "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ");
    assert_eq!(cluster.field("pod/fine", "{.status.phase}"), "Running");
}

#[test]
fn a_pod_is_resized_while_it_runs() {
    let cluster = Cluster::start();
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: c, \
         image: '{BUSYBOX}', command: [sleep, '3600'], resources: {{requests: {{cpu: 100m}}, limits: {{cpu: 200m}}}}}}]}}}}"
    ));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]).ok();
    let resize = |requests: &str, limits: &str| {
        let resources = format!(r#"{{"requests":{{"cpu":"{requests}"}},"limits":{{"cpu":{limits}}}}}"#);
        let patch = format!(r#"{{"spec":{{"containers":[{{"name":"c","resources":{resources}}}]}}}}"#);
        cluster.kubectl(&["patch", "pod", "web", "--subresource", "resize", "-p", &patch])
    };
    resize("150m", "\"300m\"").ok();
    let status = |field: &str| format!("{{.status.containerStatuses[0].{field}}}");
    cluster.wait_for("pod/web", &status("resources.limits.cpu"), "300m");
    // Where it is depends on the version of control groups.
    let quota = "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null";
    let told = cluster.kubectl(&["exec", "web", "--", "sh", "-c", quota]).stdout;
    assert!(told.starts_with("30000"), "{told}");
    assert_eq!(cluster.field("pod/web", &status("restartCount")), "0");
    assert!(resize("150m", "null").fails().contains("resource limits cannot be removed"));
    resize("1000", "\"1000\"").ok();
    cluster.wait_for("pod/web", "{.status.conditions[?(@.type==\"PodResizePending\")].reason}", "Infeasible");
    // What it cannot have is there for others.
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: other}}, spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: c, \
         image: '{BUSYBOX}', command: [sleep, '3600'], resources: {{requests: {{cpu: 100m}}}}}}]}}}}"
    ));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/other", "--timeout=60s"]).ok();
    resize("150m", "\"300m\"").ok();
    cluster.wait_for("pod/web", "{.status.conditions[?(@.type==\"PodResizePending\")].reason}", "");
}

/// Whoever sets `nodeName` asks no scheduler, so the node itself says no; and what takes its place is a new pod.
#[test]
fn a_pod_that_does_not_fit_its_node_fails_and_is_replaced() {
    let cluster = Cluster::start();
    let (node, containers) = (cluster.profile.clone(), idle());
    let ports = r#""ports": [{"containerPort": 80, "hostPort": 30999}]"#;
    let with_port = containers.replacen('{', &format!("{{{ports}, "), 1);
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: first}}, spec: {{nodeName: {node}, containers: [{with_port}]}}}}"
    ));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/first", "--timeout=60s"]).ok();
    cluster.apply(&format!(
        r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: second}}
spec:
  serviceName: second
  selector: {{matchLabels: {{app: second}}}}
  template:
    metadata: {{labels: {{app: second}}}}
    spec: {{nodeName: {node}, containers: [{with_port}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: elsewhere}}
spec: {{nodeName: {node}, nodeSelector: {{zone: none}}, containers: [{containers}]}}
"#
    ));
    let state = "{.status.phase} {.status.reason}";
    cluster.wait_for("pod/elsewhere", state, "Failed NodeAffinity");
    cluster.wait("the set's pod is refused", || {
        cluster.kubectl(&["get", "events", "--field-selector=reason=NodePorts"]).ok().contains("second-0").then_some(())
    });
    cluster.kubectl(&["delete", "pod", "first"]).ok();
    cluster.kubectl(&["rollout", "status", "statefulset/second", "--timeout=120s"]).ok();
}
