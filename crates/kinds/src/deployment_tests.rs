//! Deployments: defaults, validation and columns.

use registry::kind::Kind;
use serde_json::{Value, json};

use super::Deployment;
use crate::replica_set::ReplicaSet;
use crate::testing::{CREATED, check_defaults, defaulted, errors, row, update_errors, with};

fn deployment() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default", "creationTimestamp": CREATED},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "nginx:1"}, {"name": "d", "image": "redis:7"}]},
            },
        },
    })
}

#[test]
fn defaults() {
    let container = |name: &str, image: &str| {
        json!({"name": name, "image": image, "imagePullPolicy": "IfNotPresent", "resources": {},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"})
    };
    check_defaults::<Deployment>(
        deployment(),
        &json!({
            "metadata": {"name": "web", "namespace": "default", "creationTimestamp": CREATED},
            "spec": {
                "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {
                        "containers": [container("c", "nginx:1"), container("d", "redis:7")],
                        "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                        "securityContext": {}, "terminationGracePeriodSeconds": 30,
                    },
                },
            },
        }),
    );
    let recreate = defaulted::<Deployment>(with(deployment(), "/spec/strategy", json!({"type": "Recreate"})));
    assert_eq!(serde_json::to_value(recreate.spec.expect("spec").strategy).expect("JSON"), json!({"type": "Recreate"}));
}

#[test]
fn a_template_keeps_limits_apart_from_requests() {
    let value = with(deployment(), "/spec/template/spec/containers/0/resources", json!({"limits": {"cpu": "1"}}));
    let object = serde_json::to_value(defaulted::<Deployment>(value)).expect("JSON");
    assert_eq!(object.pointer("/spec/template/spec/containers/0/resources"), Some(&json!({"limits": {"cpu": "1"}})));
}

#[test]
fn validation() {
    const MISMATCH: &str =
        "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`";
    let cases: Vec<(&str, Value, Vec<&str>)> = vec![
        ("/metadata/labels", json!({"a": "b"}), vec![]),
        ("/spec/replicas", json!(-1), vec!["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
        ("/spec/selector", Value::Null, vec!["spec.selector: Required value", MISMATCH]),
        ("/spec/selector/matchLabels", json!({"app": "other"}), vec![MISMATCH]),
        (
            "/spec/strategy",
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
            vec!["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
        ),
        (
            "/spec/strategy",
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "101%"}}),
            vec!["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"],
        ),
        (
            "/spec/strategy",
            json!({"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}),
            vec!["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
        ),
        (
            "/spec/progressDeadlineSeconds",
            json!(0),
            vec!["spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds"],
        ),
        (
            "/spec/template/spec/restartPolicy",
            json!("Never"),
            vec!["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
        ),
        (
            "/spec/template/spec/containers/1/name",
            json!("c"),
            vec!["spec.template.spec.containers[1].name: Duplicate value: \"c\""],
        ),
    ];
    for (pointer, value, expect) in cases {
        assert_eq!(errors::<Deployment>(with(deployment(), pointer, value.clone())), expect, "{pointer} = {value}");
    }
}

#[test]
fn the_selector_is_fixed() {
    let new = with(deployment(), "/spec/selector/matchLabels", json!({"app": "web", "b": "c"}));
    assert_eq!(
        update_errors::<Deployment>(deployment(), new),
        ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"web\",\"b\":\"c\"}}: field is immutable"]
    );
}

#[test]
fn the_generation_follows_spec_and_annotations() {
    let old = defaulted::<Deployment>(with(deployment(), "/metadata/generation", json!(4)));
    for (pointer, value, expect) in [
        ("/metadata/labels", json!({"a": "b"}), 4),
        ("/metadata/annotations", json!({"a": "b"}), 5),
        ("/spec/replicas", json!(3), 5),
        ("/spec/replicas", json!(1), 4),
    ] {
        let mut new = defaulted::<Deployment>(with(deployment(), pointer, value));
        new.metadata.generation = Some(4);
        Deployment::prepare_update(&mut new, &old);
        assert_eq!(new.metadata.generation, Some(expect), "{pointer}");
    }
}

#[test]
fn cells() {
    let mut value = with(deployment(), "/spec/replicas", json!(3));
    value["status"] = json!({"replicas": 3, "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1});
    assert_eq!(
        row::<Deployment>(value),
        [
            json!("web"),
            json!("2/3"),
            json!(3),
            json!(1),
            json!("10m"),
            json!("c,d"),
            json!("nginx:1,redis:7"),
            json!("app=web"),
        ]
    );
}

#[test]
fn replica_set_cells_and_scale() {
    let mut value = with(deployment(), "/spec/replicas", json!(3));
    value["status"] = json!({"replicas": 2, "readyReplicas": 1});
    assert_eq!(
        row::<ReplicaSet>(value.clone()),
        [
            json!("web"),
            json!(3),
            json!(2),
            json!(1),
            json!("10m"),
            json!("c,d"),
            json!("nginx:1,redis:7"),
            json!("app=web"),
        ]
    );
    let mut object = defaulted::<ReplicaSet>(value);
    let view = ReplicaSet::scale(&object).expect("a scale");
    assert_eq!((view.replicas, view.current, view.selector.as_str()), (3, 2, "app=web"));
    ReplicaSet::set_scale(&mut object, 7);
    assert_eq!(ReplicaSet::scale(&object).expect("a scale").replicas, 7);
    assert_eq!(ReplicaSet::fields(&object), [("status.replicas", "2".to_owned())]);
}
