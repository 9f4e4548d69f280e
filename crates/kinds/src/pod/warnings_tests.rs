//! Tables: what the writers of pods and of templates are told.

use registry::kind::Kind;
use serde_json::{Value, json};

use super::Pod;
use crate::deployment::Deployment;
use crate::testing::{object, with};

fn pod() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}})
}

#[track_caller]
fn check<K: Kind>(value: Value, expect: &[&str]) {
    assert_eq!(K::warnings(&object::<K>(value), None), expect);
}

#[test]
fn of_pods() {
    let port = |port: Value| with(json!({"containerPort": 80, "protocol": "TCP"}), "/hostPort", port);
    for (pointer, value, expect) in [
        ("/metadata/labels", json!({"app": "web"}), &[][..]),
        (
            "/metadata/name",
            json!("web.example"),
            &[
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label \
               is recommended: [must not contain dots]",
            ],
        ),
        (
            "/metadata/annotations",
            json!({"scheduler.alpha.kubernetes.io/critical-pod": "", "seccomp.security.alpha.kubernetes.io/pod": "x"}),
            &[
                "metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \
                 \"priorityClassName\" field instead",
                "metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the \
                 \"seccompProfile\" field instead",
            ],
        ),
        (
            "/spec/nodeSelector",
            json!({"beta.kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}),
            &["spec.nodeSelector[beta.kubernetes.io/arch]: deprecated since v1.14; use \"kubernetes.io/arch\" instead"],
        ),
        (
            "/spec/affinity",
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "beta.kubernetes.io/os", "operator": "Exists"}]},
            ]}}, "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "x"}]}}),
            &[
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]\
                 .matchExpressions[0].key: beta.kubernetes.io/os is deprecated since v1.14; use \"kubernetes.io/os\" \
                 instead",
                "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null \
                 labelSelector results in matching no pod",
            ],
        ),
        (
            "/spec/volumes",
            json!([{"name": "g", "gitRepo": {"repository": "x"}}]),
            &["spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"],
        ),
        (
            "/spec/imagePullSecrets",
            json!([{"name": "a"}, {"name": "a"}]),
            &["spec.imagePullSecrets[1].name: duplicate name \"a\""],
        ),
        (
            "/spec/terminationGracePeriodSeconds",
            json!(-1),
            &["spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"],
        ),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"memory": "1500m"}, "requests": {"memory": "1Ki"}}),
            &["spec.containers[0].resources.limits[memory]: fractional byte value \"1500m\" is invalid, must be an \
               integer"],
        ),
        (
            "/spec/containers/0/env",
            json!([
                {"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}, {"name": "A", "value": "3"},
                {"name": "A", "value": "$(A)"},
            ]),
            &[
                "spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.containers[0].env[3]: hides previous definition of \"A\", which may be dropped when using apply",
            ],
        ),
        (
            "/spec/containers/0/ports",
            json!([port(json!(80)), port(json!(0)), port(json!(0))]),
            &[
                "spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
                "spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[0]",
                "spec.containers[0].ports[2]: duplicate port definition with spec.containers[0].ports[1]",
            ],
        ),
        (
            "/spec/initContainers",
            json!([{"name": "i", "image": "x", "ports": [{"containerPort": 1, "protocol": "TCP", "hostIP": "1.2.3.4"}]}]),
            &["spec.initContainers[0].ports[0]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:1 \
               Protocol:TCP HostIP:1.2.3.4}"],
        ),
    ] {
        check::<Pod>(with(pod(), pointer, value), expect);
    }
    let pod = object::<Pod>(with(pod(), "/metadata/name", json!("a.b")));
    assert!(Pod::warnings(&pod, Some(&pod)).is_empty(), "updates of pods are many");
}

#[test]
fn of_templates() {
    let deployment = json!({
        "metadata": {"name": "web.x", "generation": 2},
        "spec": {"selector": {}, "template": with(pod(), "/spec/nodeSelector", json!({"beta.kubernetes.io/os": "x"}))},
    });
    let label = "spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \
                 \"kubernetes.io/os\" instead";
    let name = "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS \
                label is recommended: [must not contain dots]";
    check::<Deployment>(deployment.clone(), &[name, label]);
    let new = object::<Deployment>(deployment.clone());
    let old = object::<Deployment>(with(deployment, "/metadata/generation", json!(1)));
    assert_eq!(Deployment::warnings(&new, Some(&old)), [label]);
    assert!(Deployment::warnings(&new, Some(&new)).is_empty(), "nothing of the specification changed");
}
