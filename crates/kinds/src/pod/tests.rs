//! Tables: defaults, validation, updates, cells of Pods.

use registry::kind::{Kind, Subresource};
use serde_json::{Value, json};

use super::{Pod, resources};
use crate::testing::{CREATED, check_defaults, defaulted, errors, row, update_errors, with};

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec})
}

fn minimal() -> Value {
    pod(json!({"containers": [{"name": "c", "image": "nginx:1.21.0"}]}))
}

#[test]
fn defaults_of_a_minimal_pod() {
    check_defaults::<Pod>(
        minimal(),
        &pod(json!({
            "containers": [{
                "name": "c", "image": "nginx:1.21.0", "imagePullPolicy": "IfNotPresent", "resources": {},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
            "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
        })),
    );
}

#[test]
fn defaults_deep_inside() {
    let object = defaulted::<Pod>(pod(json!({
        "serviceAccount": "old", "hostNetwork": true,
        "volumes": [
            {"name": "e"}, {"name": "h", "hostPath": {"path": "/x"}}, {"name": "c", "configMap": {"name": "c"}},
            {"name": "s", "secret": {"secretName": "s"}},
            {"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        ],
        "containers": [{
            "name": "c", "image": "nginx", "ports": [{"containerPort": 80}],
            "livenessProbe": {"httpGet": {"port": 80}}, "readinessProbe": {"grpc": {"port": 9}, "periodSeconds": 2},
            "lifecycle": {"preStop": {"httpGet": {"port": "http"}}},
            "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}, "requests": {"cpu": "100m"}},
            "env": [
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            ],
        }],
    })));
    let value = serde_json::to_value(&object).expect("JSON");
    for (pointer, expect) in [
        ("/spec/serviceAccountName", json!("old")),
        ("/spec/serviceAccount", json!("old")),
        ("/spec/volumes/0/emptyDir", json!({})),
        ("/spec/volumes/1/hostPath/type", json!("")),
        ("/spec/volumes/2/configMap/defaultMode", json!(420)),
        ("/spec/volumes/3/secret/defaultMode", json!(420)),
        ("/spec/volumes/4/downwardAPI/defaultMode", json!(420)),
        ("/spec/volumes/4/downwardAPI/items/0/fieldRef/apiVersion", json!("v1")),
        ("/spec/volumes/5/projected/sources/0/serviceAccountToken/expirationSeconds", json!(3600)),
        ("/spec/containers/0/imagePullPolicy", json!("Always")),
        ("/spec/containers/0/ports/0", json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"})),
        (
            "/spec/containers/0/livenessProbe",
            json!({"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "failureThreshold": 3, "periodSeconds": 10,
                "successThreshold": 1, "timeoutSeconds": 1}),
        ),
        ("/spec/containers/0/readinessProbe/grpc/service", json!("")),
        ("/spec/containers/0/readinessProbe/periodSeconds", json!(2)),
        ("/spec/containers/0/lifecycle/preStop/httpGet/path", json!("/")),
        ("/spec/containers/0/resources/limits", json!({"cpu": "500m", "memory": "1Gi"})),
        ("/spec/containers/0/resources/requests", json!({"cpu": "100m", "memory": "1Gi"})),
        ("/spec/containers/0/env/0/valueFrom/fieldRef/apiVersion", json!("v1")),
        ("/spec/containers/0/env/1/valueFrom/resourceFieldRef/divisor", json!("0")),
    ] {
        assert_eq!(value.pointer(pointer), Some(&expect), "{pointer}");
    }
}

#[test]
fn validation_of_single_fields() {
    let cases = [
        ("/spec/containers", json!([]), "spec.containers: Required value"),
        (
            "/spec/containers/0/name",
            json!("Bad_Name"),
            "spec.containers[0].name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ),
        ("/spec/containers/0/image", json!(""), "spec.containers[0].image: Required value"),
        (
            "/spec/containers/0/image",
            json!(" a"),
            "spec.containers[0].image: Invalid value: \" a\": must not have leading or trailing whitespace",
        ),
        (
            "/spec/containers/0/imagePullPolicy",
            json!("Maybe"),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            "/spec/restartPolicy",
            json!("x"),
            "spec.restartPolicy: Unsupported value: \"x\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            "/spec/dnsPolicy",
            json!("x"),
            "spec.dnsPolicy: Unsupported value: \"x\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\"",
        ),
        (
            "/spec/dnsPolicy",
            json!("None"),
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
        (
            "/spec/activeDeadlineSeconds",
            json!(0),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 0}]),
            "spec.containers[0].ports[0].containerPort: Required value",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 65536}]),
            "spec.containers[0].ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]),
            "spec.containers[0].ports[1].name: Duplicate value: \"a\"",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]),
            "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//9\"",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 1, "protocol": "tcp"}]),
            "spec.containers[0].ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        ("/spec/containers/0/env", json!([{"name": ""}]), "spec.containers[0].env[0].name: Required value"),
        (
            "/spec/containers/0/env",
            json!([{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting fieldPath: field label not supported: spec.x",
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}}]),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"metadata.labels\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": ""}}}]),
            "spec.containers[0].env[0].valueFrom.configMapKeyRef.key: Required value",
        ),
        (
            "/spec/containers/0/envFrom",
            json!([{}]),
            "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
        ),
        (
            "/spec/containers/0/volumeMounts",
            json!([{"name": "nope", "mountPath": "/x"}]),
            "spec.containers[0].volumeMounts[0].name: Not found: \"nope\"",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({"periodSeconds": 5}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({"tcpSocket": {"port": 1}, "successThreshold": 2}),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            "/spec/containers/0/readinessProbe",
            json!({"exec": {"command": []}}),
            "spec.containers[0].readinessProbe.exec.command: Required value",
        ),
        (
            "/spec/containers/0/readinessProbe",
            json!({"tcpSocket": {"port": 1}, "timeoutSeconds": -1}),
            "spec.containers[0].readinessProbe.timeoutSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "/spec/containers/0/lifecycle",
            json!({"preStop": {}}),
            "spec.containers[0].lifecycle.preStop: Required value: must specify a handler type",
        ),
        (
            "/spec/containers/0/lifecycle",
            json!({"preStop": {"sleep": {"seconds": 31}}}),
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
        ),
        (
            "/spec/containers/0/resources",
            json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            "/spec/containers/0/resources",
            json!({"requests": {"cpu": "-1"}}),
            "spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
        (
            "/spec/containers/0/resources",
            json!({"requests": {"nvidia.com/gpu": "1"}}),
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"runAsUser": -1}),
            "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            "/spec/volumes",
            json!([{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]),
            "spec.volumes[1].name: Duplicate value: \"a\"",
        ),
        (
            "/spec/volumes",
            json!([{"name": "a", "emptyDir": {}, "hostPath": {"path": "/x"}}]),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            "/spec/volumes",
            json!([{"name": "a", "hostPath": {"path": "/x/../y"}}]),
            "spec.volumes[0].hostPath.path: Invalid value: \"/x/../y\": must not contain '..'",
        ),
        (
            "/spec/volumes",
            json!([{"name": "a", "configMap": {"name": ""}}]),
            "spec.volumes[0].configMap.name: Required value",
        ),
        (
            "/spec/volumes",
            json!([{"name": "a", "secret": {"secretName": "s", "defaultMode": 512}}]),
            "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
        ),
        (
            "/spec/tolerations",
            json!([{"operator": "Equal"}]),
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        ),
        (
            "/spec/tolerations",
            json!([{"key": "a", "operator": "Has"}]),
            "spec.tolerations[0].operator: Unsupported value: \"Has\": supported values: \"Equal\", \"Exists\"",
        ),
        (
            "/spec/nodeSelector",
            json!({"a": "-"}),
            "spec.nodeSelector: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
        ("/spec/hostname", json!("a.b"), "spec.hostname: Invalid value: \"a.b\": must not contain dots"),
        (
            "/spec/initContainers",
            json!([{"name": "c", "image": "x"}]),
            "spec.initContainers[0].name: Duplicate value: \"c\"",
        ),
        (
            "/spec/initContainers",
            json!([{"name": "i", "image": "x", "livenessProbe": {"tcpSocket": {"port": 1}}}]),
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ),
        (
            "/spec/topologySpreadConstraints",
            json!([{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]),
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        ),
        (
            "/spec/affinity",
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
        ),
    ];
    for (pointer, value, expect) in cases {
        assert_eq!(errors::<Pod>(with(minimal(), pointer, value.clone())), [expect], "{pointer} = {value}");
    }
}

#[test]
fn an_unknown_resource_breaks_two_rules() {
    let value = with(minimal(), "/spec/containers/0/resources", json!({"requests": {"gpu": "1"}}));
    assert_eq!(
        errors::<Pod>(value),
        [
            "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
            "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
        ]
    );
}

#[test]
fn valid_pods_pass() {
    for spec in [
        json!({"containers": [{"name": "c", "image": "x"}]}),
        json!({
            "containers": [{"name": "c", "image": "x", "command": ["sh"], "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "a/b"}],
                "resources": {"limits": {"nvidia.com/gpu": "1", "cpu": "1"}}, "envFrom": [{"configMapRef": {"name": "c"}}],
                "env": [{"name": "my-var.x", "value": "1"}, {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}]}],
            "initContainers": [{"name": "side", "image": "x", "restartPolicy": "Always", "readinessProbe": {"httpGet": {"port": "http"}}}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
            "tolerations": [{"operator": "Exists"}], "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a.b"]}],
            "dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.96.0.10"], "searches": ["_tcp.a.svc."]},
        }),
        json!({"hostNetwork": true, "containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 80}]}]}),
    ] {
        assert_eq!(errors::<Pod>(pod(spec.clone())), [""; 0], "{spec}");
    }
}

#[test]
fn quality_of_service() {
    let cases = [
        (json!({}), "BestEffort"),
        (json!({"requests": {"cpu": "0"}}), "BestEffort"),
        (json!({"requests": {"cpu": "1"}}), "Burstable"),
        (json!({"limits": {"cpu": "1"}}), "Burstable"),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable"),
    ];
    for (requirements, expect) in cases {
        let value = with(minimal(), "/spec/containers/0/resources", requirements.clone());
        let object = defaulted::<Pod>(value);
        assert_eq!(resources::qos_class(object.spec.as_ref().expect("spec")), expect, "{requirements}");
    }
}

#[test]
fn what_may_change() {
    const ONLY: &str = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n";
    let gated = with(minimal(), "/spec/schedulingGates", json!([{"name": "a"}]));
    let tolerant = with(minimal(), "/spec/tolerations", json!([{"key": "a", "operator": "Exists"}]));
    let cases: Vec<(Value, Value, Vec<String>)> = vec![
        (minimal(), with(minimal(), "/spec/containers/0/image", json!("nginx:2")), vec![]),
        (minimal(), with(minimal(), "/spec/activeDeadlineSeconds", json!(5)), vec![]),
        (minimal(), with(minimal(), "/metadata/labels", json!({"a": "b"})), vec![]),
        (minimal(), tolerant.clone(), vec![]),
        (
            tolerant.clone(),
            minimal(),
            vec![
                "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
                    .into(),
            ],
        ),
        (gated.clone(), minimal(), vec![]),
        (gated.clone(), with(gated.clone(), "/spec/nodeSelector", json!({"a": "b"})), vec![]),
        (
            minimal(),
            gated,
            vec![
                "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'a'"
                    .into(),
            ],
        ),
        (
            minimal(),
            with(minimal(), "/spec/nodeName", json!("n")),
            vec![format!("{ONLY}- spec.nodeName: null\n+ spec.nodeName: \"n\"\n")],
        ),
        (
            minimal(),
            with(minimal(), "/spec/containers", json!([{"name": "c", "image": "x"}, {"name": "d", "image": "x"}])),
            vec!["spec.containers: Forbidden: pod updates may not add or remove containers".into()],
        ),
    ];
    for (old, new, expect) in cases {
        assert_eq!(update_errors::<Pod>(old, new.clone()), expect, "{new}");
    }
}

#[test]
fn a_terminated_container_stays_terminated() {
    let with_state = |state: Value| {
        let mut value = with(minimal(), "/spec/restartPolicy", json!("Never"));
        value["status"] = json!({"containerStatuses": [{"name": "c", "image": "x", "imageID": "", "ready": false,
            "restartCount": 0, "state": state}]});
        defaulted::<Pod>(value)
    };
    let old = with_state(json!({"terminated": {"exitCode": 0}}));
    let new = with_state(json!({"running": {}}));
    let found: Vec<String> = Pod::validate_status(&new, &old).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        ["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"]
    );
    assert!(Pod::validate_status(&old, &new).is_empty());
}

#[test]
fn grace_periods() {
    let on_node = with(minimal(), "/spec/nodeName", json!("n"));
    let mut done = on_node.clone();
    done["status"] = json!({"phase": "Succeeded"});
    for (value, requested, expect) in [
        (minimal(), None, 0),
        (on_node.clone(), None, 30),
        (on_node.clone(), Some(5), 5),
        (on_node.clone(), Some(0), 0),
        (with(on_node, "/spec/terminationGracePeriodSeconds", json!(-3)), None, 1),
        (done, None, 0),
    ] {
        assert_eq!(Pod::grace_period(&defaulted::<Pod>(value), requested), Some(expect));
    }
}

#[test]
fn subresources_take_only_what_they_are_for() {
    let old = defaulted::<Pod>(minimal());
    let mut desired = minimal();
    desired["spec"]["hostname"] = json!("other");
    desired["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    desired["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "x"}]);
    let apply = |subresource| {
        let mut new = defaulted::<Pod>(desired.clone());
        Pod::prepare_subresource(subresource, &mut new, &old);
        let spec = new.spec.expect("spec");
        (
            spec.hostname,
            spec.ephemeral_containers.is_some(),
            spec.containers[0].resources.as_ref().is_some_and(|resources| resources.requests.is_some()),
        )
    };
    assert_eq!(apply(Subresource::EphemeralContainers), (None, true, false));
    assert_eq!(apply(Subresource::Resize), (None, false, true));
}

#[test]
fn ephemeral_containers_are_added_and_stay() {
    let with_debug = |image: &str| {
        let mut pod = minimal();
        pod["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": image}]);
        defaulted::<Pod>(pod)
    };
    let check = |new: &<Pod as Kind>::Object, old: &<Pod as Kind>::Object, expect: &[&str]| {
        let errors = Pod::validate_subresource(Subresource::EphemeralContainers, new, old);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    };
    let (none, one) = (defaulted::<Pod>(minimal()), with_debug("x"));
    check(&one, &none, &[]);
    check(&one, &one, &[]);
    let path = "spec.ephemeralContainers: Forbidden: existing ephemeral containers";
    check(&none, &one, &[&format!("{path} \"debug\" may not be removed\n")]);
    check(&with_debug("y"), &one, &[&format!("{path} \"debug\" may not be changed\n")]);
    check(&with_debug(""), &none, &["spec.ephemeralContainers[0].image: Required value"]);
}

/// A pod with one container, one init container and this status.
fn running(status: Value) -> Value {
    json!({
        "metadata": {"name": "web", "creationTimestamp": CREATED},
        "spec": {"containers": [{"name": "c", "image": "x"}], "initContainers": [{"name": "i", "image": "x"}]},
        "status": status,
    })
}

fn container(name: &str, ready: bool, restarts: i32, state: Value) -> Value {
    json!({"name": name, "image": "x", "imageID": "x", "ready": ready, "restartCount": restarts, "state": state})
}

#[test]
fn cells() {
    let done = || container("i", true, 0, json!({"terminated": {"exitCode": 0, "reason": "Completed"}}));
    let status = |phase: &str, init: Value, main: Value| json!({"phase": phase, "initContainerStatuses": [init], "containerStatuses": [main]});
    let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
    let mut crashed = container("c", false, 3, waiting("CrashLoopBackOff"));
    crashed["lastState"] = json!({"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:05:00Z"}});
    let cases = [
        (json!({"phase": "Pending"}), ["0/1", "Pending", "0"]),
        (json!({"phase": "Failed", "reason": "Evicted"}), ["0/1", "Evicted", "0"]),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            ["0/1", "SchedulingGated", "0"],
        ),
        (
            status(
                "Pending",
                container("i", false, 0, waiting("PodInitializing")),
                container("c", false, 0, waiting("PodInitializing")),
            ),
            ["0/1", "Init:0/1", "0"],
        ),
        (
            status(
                "Pending",
                container("i", false, 2, waiting("ImagePullBackOff")),
                container("c", false, 0, waiting("PodInitializing")),
            ),
            ["0/1", "Init:ImagePullBackOff", "2"],
        ),
        (
            status(
                "Pending",
                container("i", false, 0, json!({"terminated": {"exitCode": 7}})),
                container("c", false, 0, json!({})),
            ),
            ["0/1", "Init:ExitCode:7", "0"],
        ),
        (
            status("Pending", done(), container("c", false, 0, waiting("ContainerCreating"))),
            ["0/1", "ContainerCreating", "0"],
        ),
        (status("Running", done(), container("c", true, 1, json!({"running": {}}))), ["1/1", "Running", "1"]),
        (status("Running", done(), crashed), ["0/1", "CrashLoopBackOff", "3 (5m ago)"]),
        (
            status(
                "Failed",
                done(),
                container("c", false, 0, json!({"terminated": {"exitCode": 1, "reason": "Error"}})),
            ),
            ["0/1", "Error", "0"],
        ),
        (
            status("Failed", done(), container("c", false, 0, json!({"terminated": {"exitCode": 9, "signal": 9}}))),
            ["0/1", "Signal:9", "0"],
        ),
        (
            status(
                "Succeeded",
                done(),
                container("c", false, 0, json!({"terminated": {"exitCode": 0, "reason": "Completed"}})),
            ),
            ["0/1", "Completed", "0"],
        ),
    ];
    for (status, [ready, reason, restarts]) in cases {
        let cells = row::<Pod>(running(status.clone()));
        assert_eq!(cells, ["web", ready, reason, restarts, "10m", "<none>", "<none>", "<none>", "<none>"], "{status}");
    }
}

#[test]
fn cells_of_a_pod_that_goes_and_of_a_wide_one() {
    let mut value = running(json!({"phase": "Running"}));
    value["metadata"]["deletionTimestamp"] = json!(CREATED);
    assert_eq!(row::<Pod>(value.clone())[2], "Terminating");
    value["status"]["reason"] = json!("NodeLost");
    assert_eq!(row::<Pod>(value)[2], "Unknown");

    let mut value = running(json!({
        "phase": "Running", "podIPs": [{"ip": "10.1.0.5"}], "nominatedNodeName": "m",
        "conditions": [{"type": "a/b", "status": "True"}],
    }));
    value["spec"]["nodeName"] = json!("n");
    value["spec"]["readinessGates"] = json!([{"conditionType": "a/b"}, {"conditionType": "c/d"}]);
    assert_eq!(row::<Pod>(value)[5..], ["10.1.0.5", "n", "m", "1/2"]);
}

#[test]
fn a_sidecar_counts_as_a_container() {
    let mut value = running(json!({
        "phase": "Running",
        "initContainerStatuses": [{"name": "i", "image": "x", "imageID": "x", "ready": true, "started": true,
            "restartCount": 2, "state": {"running": {}}}],
        "containerStatuses": [container("c", true, 1, json!({"running": {}}))],
    }));
    value["spec"]["initContainers"][0]["restartPolicy"] = json!("Always");
    assert_eq!(row::<Pod>(value)[1..4], ["2/2", "Running", "3"]);
}
