//! Section HPA (horizontal pod autoscaler): replicas that follow processor time, and replicas that follow a metric of the
//! application; before that, `kubectl top`.

use coracle_tests::{BUSYBOX, Cluster, example};
use serde_json::Value;

/// An autoscaler is looked at this often here.
const PERIOD: [&str; 3] = ["start", "--hpa-sync-period", "3"];

fn start() -> Cluster {
    let cluster = Cluster::new();
    cluster.coracle(&PERIOD).ok();
    cluster
}

/// The condition of this type of an autoscaler: its reason.
fn reason(cluster: &Cluster, autoscaler: &str, type_: &str) -> String {
    let path = format!("{{.status.conditions[?(@.type==\"{type_}\")].reason}}");
    cluster.field(&format!("hpa/{autoscaler}"), &path)
}

/// Waits for a number of replicas; twice as long as for other things, since a window of measurement goes before.
fn wait_for_replicas(cluster: &Cluster, what: &str, deployment: &str, wanted: impl Fn(u32) -> bool) {
    let replicas = || -> Option<u32> {
        cluster.field(&format!("deployment/{deployment}"), "{.spec.replicas}").parse().ok().filter(|n| wanted(*n))
    };
    if coracle_tests::wait(replicas).is_none() {
        cluster.wait(what, replicas);
    }
}

#[test]
fn processor_time() {
    let cluster = start();
    // Busy while the ConfigMap says so.
    cluster.apply(&format!(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {{name: load}}
data: {{busy: "1"}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: nginx}}
spec:
  selector: {{matchLabels: {{app: nginx}}}}
  template:
    metadata: {{labels: {{app: nginx}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: {BUSYBOX}
        command:
        - sh
        - -c
        - |
          while true; do
            if [ "$(cat /load/busy)" = 1 ]; then i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done; else sleep 1; fi
          done
        resources: {{requests: {{cpu: 50m}}, limits: {{cpu: 100m}}}}
        volumeMounts: [{{name: load, mountPath: /load}}]
      volumes: [{{name: load, configMap: {{name: load}}}}]
"#
    ));
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    kubectl(&["rollout", "status", "deployment/nginx", "--timeout=60s"]);

    // What pods and nodes use.
    cluster.wait("kubectl top shows the pod", || {
        let top = cluster.kubectl(&["top", "pod", "--containers", "--no-headers", "-l", "app=nginx"]).stdout;
        let row: Vec<&str> = top.split_whitespace().collect();
        (row.len() == 4 && row[1] == "main" && row[2].ends_with('m') && row[2] != "0m").then_some(())
    });
    assert!(kubectl(&["top", "node"]).contains(&cluster.profile));
    assert!(kubectl(&["get", "podmetrics"]).contains("WINDOW"));
    let summary = kubectl(&["get", "--raw", &format!("/api/v1/nodes/{}/proxy/stats/summary", cluster.profile)]);
    let summary: Value = serde_json::from_str(&summary).expect("JSON");
    assert!(summary["node"]["cpu"]["usageCoreNanoSeconds"].as_u64() > Some(0), "{summary}");

    // Up.
    kubectl(&["autoscale", "deployment", "nginx", "--cpu-percent=50", "--min=1", "--max=10"]);
    let patience = r#"{"spec":{"behavior":{"scaleDown":{"stabilizationWindowSeconds":0}}}}"#;
    kubectl(&["patch", "hpa", "nginx", "-p", patience]);
    wait_for_replicas(&cluster, "it scales up", "nginx", |replicas| replicas > 1);
    let events = cluster.wait("the event of the rescale", || {
        let events = cluster.kubectl(&["describe", "hpa", "nginx"]).stdout;
        events.contains("SuccessfulRescale").then_some(events)
    });
    assert!(events.contains("reason: cpu resource utilization (percentage of request) above target"), "{events}");
    let shown = kubectl(&["get", "hpa", "nginx", "--no-headers"]);
    assert!(shown.contains("Deployment/nginx") && shown.contains("%/50%"), "{shown}");
    assert_eq!(reason(&cluster, "nginx", "ScalingActive"), "ValidMetricFound");
    // The other version says the same.
    let old = kubectl(&["get", "--raw", "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers/nginx"]);
    let old: Value = serde_json::from_str(&old).expect("JSON");
    assert_eq!(old["spec"]["targetCPUUtilizationPercentage"], 50);
    assert!(old["status"]["currentCPUUtilizationPercentage"].is_number(), "{old}");

    // And down.
    kubectl(&["patch", "configmap", "load", "-p", r#"{"data":{"busy":"0"}}"#]);
    wait_for_replicas(&cluster, "it scales down", "nginx", |replicas| replicas == 1);
}

#[test]
fn without_metrics() {
    let cluster = start();
    cluster.apply(&format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: quiet}}
spec:
  selector: {{matchLabels: {{app: quiet}}}}
  template:
    metadata: {{labels: {{app: quiet}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{{name: main, image: {BUSYBOX}, command: [sleep, "100000"]}}]
"#
    ));
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    kubectl(&["rollout", "status", "deployment/quiet", "--timeout=60s"]);
    kubectl(&["autoscale", "deployment", "quiet", "--cpu-percent=50", "--max=3"]);
    cluster.wait("the missing request is told", || {
        let described = cluster.kubectl(&["describe", "hpa", "quiet"]).stdout;
        described.contains("missing request for cpu in container main of Pod quiet-").then_some(())
    });
    assert_eq!(reason(&cluster, "quiet", "ScalingActive"), "FailedGetResourceMetric");
    assert!(kubectl(&["get", "hpa", "quiet"]).contains("cpu: <unknown>/50%"));

    cluster.apply(
        r#"
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: absent}
spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: absent}}
"#,
    );
    cluster.wait("the missing target is told", || {
        let described = cluster.kubectl(&["describe", "hpa", "absent"]).stdout;
        described.contains("deployments.apps \"absent\" not found").then_some(())
    });
    assert_eq!(reason(&cluster, "absent", "AbleToScale"), "FailedGetScale");
}

#[test]
fn custom_metrics() {
    let file = |name: &str| example(&format!("llm-autoscale/{name}"));
    let cluster = start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    kubectl(&["apply", "-f", &file("llm.yaml")]);
    kubectl(&["rollout", "status", "deployment/llm", "--timeout=60s"]);
    let pod = cluster.pods("app=llm").remove(0);

    // The pod as it is reached through the API, and what it says of itself.
    let metrics = kubectl(&["get", "--raw", &format!("/api/v1/namespaces/default/pods/{pod}:8080/proxy/metrics")]);
    assert!(metrics.contains("kv_cache_usage"), "{metrics}");
    let page = kubectl(&["get", "--raw", "/api/v1/namespaces/default/services/llm:http/proxy/healthz"]);
    assert_eq!(page, "ok\n");
    for name in ["pods/queue_length", "pods/qps", "pods/pending_tokens", "pods/kv_cache_usage", "pods/requests"] {
        cluster.wait(name, || {
            let list = kubectl(&["get", "--raw", "/apis/custom.metrics.k8s.io/v1beta2"]);
            list.contains(&format!("\"{name}\"")).then_some(())
        });
    }
    let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/queue_length?labelSelector=app%3Dllm";
    let values: Value = serde_json::from_str(&kubectl(&["get", "--raw", path])).expect("JSON");
    assert_eq!(values["items"][0]["describedObject"]["name"], pod.as_str());
    assert_eq!(values["items"][0]["value"], "0");
    let path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue_length";
    assert!(kubectl(&["get", "--raw", path]).contains("ExternalMetricValueList"));

    // The same queue, asked for in the two other ways: as one of an object, and as one of nothing in particular.
    cluster.apply(
        r#"
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: other-ways}
spec:
  minReplicas: 1
  maxReplicas: 4
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: llm}
  metrics:
  - type: Object
    object:
      describedObject: {apiVersion: v1, kind: Namespace, name: default}
      metric: {name: queue_length}
      target: {type: Value, value: "1000"}
  - type: External
    external:
      metric: {name: queue_length, selector: {matchLabels: {app: llm}}}
      target: {type: AverageValue, averageValue: "10"}
"#,
    );
    // Two autoscalers of one thing are one too many, and say so.
    cluster.wait("it says that there are two", || {
        (reason(&cluster, "llm", "ScalingActive") == "AmbiguousSelector").then_some(())
    });
    kubectl(&["delete", "hpa", "llm"]);
    cluster.wait("both are known", || {
        let shown = cluster.kubectl(&["get", "hpa", "other-ways", "--no-headers"]).stdout;
        shown.contains("0/1k, 0/10 (avg)").then_some(())
    });
    kubectl(&["apply", "-f", &file("load.yaml")]);
    wait_for_replicas(&cluster, "it scales up by the other ways", "llm", |replicas| replicas > 1);
    let described = kubectl(&["describe", "hpa", "other-ways"]);
    assert!(described.contains("external metric queue_length"), "{described}");
    kubectl(&["delete", "hpa", "other-ways"]);
    kubectl(&["delete", "-f", &file("load.yaml")]);
    kubectl(&["scale", "deployment/llm", "--replicas=1"]);
    kubectl(&["apply", "-f", &file("llm.yaml")]);

    kubectl(&["apply", "-f", &file("load.yaml")]);
    wait_for_replicas(&cluster, "it scales up", "llm", |replicas| replicas > 1);
    let described = kubectl(&["describe", "hpa", "llm"]);
    assert!(described.contains("pods metric queue_length"), "{described}");
    kubectl(&["delete", "-f", &file("load.yaml")]);
    wait_for_replicas(&cluster, "it scales down", "llm", |replicas| replicas == 1);
}
