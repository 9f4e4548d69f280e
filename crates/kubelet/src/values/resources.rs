//! Requests and limits: quality of service, kernel units, and `resourceFieldRef`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceFieldSelector, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use machinery::quantity::Quantity;
use runtime::Resources;

type Amounts = BTreeMap<String, ApiQuantity>;

/// What a node can give, where a container sets no limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allocatable {
    /// Thousandths of processors.
    pub(crate) milli_cpu: i64,
    /// Bytes of memory.
    pub(crate) memory: i64,
    /// Bytes of disk.
    pub(crate) storage: i64,
}

/// The amount of `name`, if it can be read and is more than nothing.
fn amount(amounts: Option<&Amounts>, name: &str) -> Option<Quantity> {
    let quantity: Quantity = amounts?.get(name)?.0.parse().ok()?;
    Some(quantity).filter(|quantity| !quantity.is_zero())
}

fn request(resources: Option<&ResourceRequirements>, name: &str) -> Option<Quantity> {
    let resources = resources?;
    amount(resources.requests.as_ref(), name).or_else(|| limit(Some(resources), name))
}

fn limit(resources: Option<&ResourceRequirements>, name: &str) -> Option<Quantity> {
    amount(resources?.limits.as_ref(), name)
}

/// Limits and shares in the kernel's units. What a container does not limit itself, the limit of its pod does (upstream:
/// `getCPULimit` and `getMemoryLimit` in `pkg/kubelet/kuberuntime/kuberuntime_container_linux.go`).
pub(crate) fn kernel(spec: &PodSpec, container: &Container) -> Resources {
    let (resources, of_pod) = (container.resources.as_ref(), spec.resources.as_ref());
    let limit = |name| limit(resources, name).or_else(|| limit(of_pod, name));
    Resources::from_milli_cpu(
        request(resources, "cpu").map(|cpu| cpu.milli_value()),
        limit("cpu").map(|cpu| cpu.milli_value()),
        limit("memory").map(|memory| memory.value()),
    )
}

/// What a container asks for.
pub(crate) fn container_request(container: &Container, resource: &str) -> Option<Quantity> {
    let resources = container.resources.as_ref()?;
    resources.requests.as_ref()?.get(resource)?.0.parse().ok()
}

/// The most memory that a pod can use, in bytes; none where one of its containers has no limit.
pub(crate) fn memory_limit(spec: &PodSpec) -> Option<i64> {
    let of_pod = limit(spec.resources.as_ref(), "memory");
    let own = |container: &Container| limit(container.resources.as_ref(), "memory");
    if let Some(of_pod) = of_pod {
        return Some(of_pod.value());
    }
    let init = spec.init_containers.iter().flatten();
    let sidecars = init.filter(|init| init.restart_policy.as_deref() == Some("Always"));
    let limits: Option<Vec<Quantity>> = spec.containers.iter().chain(sidecars).map(own).collect();
    limits.filter(|limits| !limits.is_empty()).map(|limits| limits.into_iter().sum::<Quantity>().value())
}

/// The pod's quality of service: `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn qos_class(spec: &PodSpec) -> &'static str {
    let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
    let of_pod = spec.resources.as_ref();
    let sets: Vec<Option<&ResourceRequirements>> = match of_pod {
        Some(_) => vec![of_pod],
        None => containers().map(|container| container.resources.as_ref()).collect(),
    };
    let names = ["cpu", "memory"];
    let any = sets.iter().any(|set| names.iter().any(|name| request(*set, name).is_some()));
    if !any {
        return "BestEffort";
    }
    let guaranteed = sets.iter().all(|set| {
        names.iter().all(|name| {
            let limit = limit(*set, name);
            limit.is_some() && request(*set, name) == limit
        })
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

/// The kernel's preference to kill a container when memory is short (upstream: `GetContainerOOMScoreAdjust`).
pub(crate) fn oom_score_adj(spec: &PodSpec, container: &Container, memory_capacity: i64) -> i32 {
    if spec.priority_class_name.as_deref() == Some("system-node-critical") {
        return -997;
    }
    match qos_class(spec) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let requested = request(container.resources.as_ref(), "memory");
            let requested = requested.map_or(0, |memory| memory.value());
            let share = requested.saturating_mul(1000) / memory_capacity.max(1);
            // Kept apart from both other classes.
            i32::try_from((1000 - share).clamp(3, 999)).unwrap_or(999)
        }
    }
}

/// The value of a `resourceFieldRef`, in units of its divisor, rounded up.
pub(crate) fn field(
    spec: &PodSpec,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    allocatable: Allocatable,
) -> Result<String, String> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match named {
        Some(name) => spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
            .find(|container| container.name == name)
            .ok_or_else(|| format!("container {name} not found"))?,
        None => own.ok_or("no container name in resourceFieldRef")?,
    };
    let resources = container.resources.as_ref();
    let unsupported = || format!("unsupported container resource : {}", selector.resource);
    let (which, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let whole = match name {
        "cpu" => Quantity::from_milli(allocatable.milli_cpu),
        "memory" => Quantity::from_bytes(allocatable.memory),
        "ephemeral-storage" => Quantity::from_bytes(allocatable.storage),
        _ if name.starts_with("hugepages-") => Quantity::ZERO,
        _ => return Err(unsupported()),
    };
    let value = match which {
        "limits" => limit(resources, name).unwrap_or(whole),
        "requests" => request(resources, name).unwrap_or(Quantity::ZERO),
        _ => return Err(unsupported()),
    };
    let divisor: Option<Quantity> = selector
        .divisor
        .as_ref()
        .and_then(|divisor| divisor.0.parse().ok())
        .filter(|divisor: &Quantity| !divisor.is_zero() && !divisor.is_negative());
    let (value, divisor) = match (name, divisor) {
        ("cpu", Some(divisor)) => (value.milli_value(), divisor.milli_value()),
        ("cpu", None) => (value.milli_value(), 1000),
        (_, divisor) => (value.value(), divisor.map_or(1, |divisor| divisor.value())),
    };
    let divisor = divisor.max(1);
    Ok((value / divisor + i64::from(value % divisor > 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(containers: &serde_json::Value) -> PodSpec {
        serde_json::from_value(json!({ "containers": containers })).unwrap()
    }

    #[test]
    fn quality_of_service() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        for (resources, expect) in [
            (json!([{"name": "a"}]), "BestEffort"),
            (json!([{"name": "a", "resources": {"requests": {"cpu": "0"}}}]), "BestEffort"),
            (json!([{"name": "a", "resources": {"requests": {"cpu": "1"}}}]), "Burstable"),
            (json!([{"name": "a", "resources": full}]), "Guaranteed"),
            (json!([{"name": "a", "resources": full}, {"name": "b"}]), "Burstable"),
            (
                json!([{"name": "a", "resources": {
                    "requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}}]),
                "Guaranteed",
            ),
        ] {
            assert_eq!(qos_class(&spec(&resources)), expect, "{resources}");
        }
    }

    #[test]
    fn limits_of_the_pod_bind_containers_without_their_own() {
        let spec: PodSpec = serde_json::from_value(json!({
            "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
            "containers": [{"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "200m", "memory": "16Mi"}}}],
        }))
        .unwrap();
        let limits = |index: usize| {
            let limits = kernel(&spec, &spec.containers[index]);
            (limits.cpu_quota_us, limits.memory_limit_bytes)
        };
        assert_eq!(limits(0), (Some(50_000), Some(64 << 20)));
        assert_eq!(limits(1), (Some(20_000), Some(16 << 20)));
        let spec = PodSpec { resources: None, ..spec.clone() };
        assert_eq!(kernel(&spec, &spec.containers[0]).memory_limit_bytes, None);
    }

    #[test]
    fn resource_fields() {
        let spec = spec(&json!([{"name": "a", "resources": {
            "requests": {"cpu": "250m", "memory": "100Mi"}, "limits": {"cpu": "1500m"}}}]));
        let allocatable = Allocatable { milli_cpu: 4000, memory: 8 << 30, storage: 1 << 30 };
        for (resource, divisor, expect) in [
            ("requests.cpu", None, Ok("1")),
            ("requests.cpu", Some("1m"), Ok("250")),
            ("limits.cpu", None, Ok("2")),
            ("limits.memory", Some("1Gi"), Ok("8")),
            ("requests.memory", Some("1Mi"), Ok("100")),
            ("requests.memory", None, Ok("104857600")),
            ("requests.ephemeral-storage", None, Ok("0")),
            ("limits.gpu", None, Err("unsupported container resource : limits.gpu".to_owned())),
        ] {
            let selector = ResourceFieldSelector {
                resource: resource.to_owned(),
                divisor: divisor.map(|divisor| ApiQuantity(divisor.to_owned())),
                ..ResourceFieldSelector::default()
            };
            let value = field(&spec, spec.containers.first(), &selector, allocatable);
            assert_eq!(value, expect.map(str::to_owned), "{resource} {divisor:?}");
        }
    }

    #[test]
    fn oom_scores() {
        for (resources, expect) in [
            (json!({}), 1000),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), -997),
            (json!({"requests": {"memory": "1Gi"}}), 875),
            (json!({"requests": {"cpu": "1"}}), 999),
        ] {
            let spec = spec(&json!([{"name": "a", "resources": resources}]));
            assert_eq!(oom_score_adj(&spec, &spec.containers[0], 8 << 30), expect);
        }
    }
}
