//! What `resize` may change: the CPU and memory of containers that run as long as their pod.
//!
//! Upstream: `ValidatePodResize` in `pkg/apis/core/validation/validation.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use machinery::field::{ErrorList, Path};

use super::resources::qos_class;
use crate::check::Report;
use crate::common::{entries, list, text};

const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Validates a write of `resize`.
pub(super) fn validate(new: &Pod, old: &Pod) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let empty = PodSpec::default();
    let (new_spec, old_spec) = (new.spec.as_ref().unwrap_or(&empty), old.spec.as_ref().unwrap_or(&empty));
    let class = old.status.as_ref().map(|status| text(&status.qos_class)).filter(|class| !class.is_empty());
    let class = class.unwrap_or_else(|| qos_class(old_spec));
    if class != qos_class(new_spec) {
        errors.invalid(&path, class, "Pod QOS Class may not change as a result of resizing");
    }
    for (name, new, old) in [
        ("containers", new_spec.containers.as_slice(), old_spec.containers.as_slice()),
        ("initContainers", list(&new_spec.init_containers), list(&old_spec.init_containers)),
    ] {
        for (index, (new, old)) in new.iter().zip(old).enumerate() {
            let is_sidecar = text(&old.restart_policy) == "Always";
            let path = path.child(name).index(index).child("resources");
            if name == "initContainers" && !is_sidecar && new.resources != old.resources {
                errors.forbidden(&path, "only sidecars among the init containers can be resized");
            } else {
                container(&mut errors, &path, new, old);
            }
        }
    }
    errors
}

fn container(errors: &mut ErrorList, path: &Path, new: &Container, old: &Container) {
    if new.resize_policy != old.resize_policy || rest(new) != rest(old) {
        errors.forbidden(&Path::new("spec"), "only cpu and memory resources are mutable");
    }
    let none = ResourceRequirements::default();
    let (new, old) = (new.resources.as_ref().unwrap_or(&none), old.resources.as_ref().unwrap_or(&none));
    for (name, new, old) in [("limits", &new.limits, &old.limits), ("requests", &new.requests, &old.requests)] {
        let is_gone = |key: &str| !new.as_ref().is_some_and(|new| new.contains_key(key));
        if entries(old).any(|(key, _)| RESIZABLE.contains(&key.as_str()) && is_gone(key)) {
            errors.forbidden(&path.child(name), format!("resource {name} cannot be removed"));
        }
    }
}

/// The resources of a container without those that can be resized.
fn rest(container: &Container) -> ResourceRequirements {
    let mut rest = container.resources.clone().unwrap_or_default();
    let without = |amounts: Option<BTreeMap<String, Quantity>>| {
        let mut amounts = amounts.unwrap_or_default();
        amounts.retain(|name, _| !RESIZABLE.contains(&name.as_str()));
        Some(amounts)
    };
    (rest.limits, rest.requests) = (without(rest.limits), without(rest.requests));
    rest
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(resources: &Value, init: &Value) -> Pod {
        serde_json::from_value(json!({"spec": {
            "containers": [{"name": "c", "resources": resources}],
            "initContainers": [{"name": "i", "resources": init}],
        }}))
        .expect("a pod")
    }

    #[test]
    fn cpu_and_memory_within_a_class() {
        let old = json!({"requests": {"cpu": "100m", "ephemeral-storage": "1Gi"}, "limits": {"memory": "64Mi"}});
        let check = |new: Value, init: Value, expect: &[&str]| {
            let errors = validate(&pod(&new, &init), &pod(&old, &json!({})));
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(errors, expect, "{new} {init}");
        };
        let resources = |requests: Value, limits: Value| json!({"requests": requests, "limits": limits});
        let storage = "1Gi";
        check(old.clone(), json!({}), &[]);
        check(
            resources(
                json!({"cpu": "2", "memory": "1Mi", "ephemeral-storage": storage}),
                json!({"memory": "1Mi", "cpu": "3"}),
            ),
            json!({}),
            &[],
        );
        check(
            resources(json!({"ephemeral-storage": storage}), json!({"memory": "64Mi"})),
            json!({}),
            &["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"],
        );
        check(
            resources(json!({"cpu": "100m", "ephemeral-storage": storage}), json!({"cpu": "1"})),
            json!({}),
            &["spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"],
        );
        check(
            resources(json!({"cpu": "100m", "ephemeral-storage": "2Gi"}), json!({"memory": "64Mi"})),
            json!({}),
            &["spec: Forbidden: only cpu and memory resources are mutable"],
        );
        check(
            old.clone(),
            json!({"requests": {"cpu": "1"}}),
            &["spec.initContainers[0].resources: Forbidden: only sidecars among the init containers can be resized"],
        );
    }

    #[test]
    fn the_class_stays() {
        let old = pod(&json!({"requests": {"cpu": "1"}}), &json!({}));
        let mut new = pod(
            &json!({"requests": {"cpu": "1", "memory": "1Mi"}, "limits": {"cpu": "1", "memory": "1Mi"}}),
            &json!({}),
        );
        new.spec.as_mut().expect("a spec").init_containers = None;
        let mut old = old;
        old.spec.as_mut().expect("a spec").init_containers = None;
        let errors = validate(&new, &old);
        let error = errors.iter().next().expect("an error").to_string();
        assert!(error.contains("Pod QOS Class may not change as a result of resizing"), "{error}");
    }
}
