//! The limits of disk that a pod sets itself: `emptyDir.sizeLimit`, and `ephemeral-storage` of its containers. Pure.
//!
//! Upstream: `localStorageEviction` in `pkg/kubelet/eviction/eviction_manager.go`, with its messages.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use machinery::quantity::Quantity;
use runtime::DiskUsage;

const STORAGE: &str = "ephemeral-storage";

/// What a pod takes of the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StorageUsage {
    /// By name of volume: bytes of the `emptyDir` volumes that were counted.
    pub(crate) empty_dirs: BTreeMap<String, u64>,
    /// By name of container: what it takes, of those that were counted.
    pub(crate) containers: BTreeMap<String, DiskUsage>,
    /// Names of the volumes of which only a part was counted.
    pub(crate) uncounted: Vec<String>,
}

/// What must be counted to know whether a pod keeps its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Only `emptyDir` volumes with a limit, or all that are on the disk.
    pub(crate) all_empty_dirs: bool,
    /// The containers, too.
    pub(crate) containers: bool,
}

/// What must be counted of this pod; none for one without limits.
pub(crate) fn scope(spec: &PodSpec) -> Option<Scope> {
    let limited = containers(spec).any(|container| limit(container).is_some());
    let sized =
        spec.volumes.iter().flatten().any(|volume| {
            volume.empty_dir.as_ref().is_some_and(|source| positive(source.size_limit.as_ref()).is_some())
        });
    (limited || sized).then_some(Scope { all_empty_dirs: limited, containers: limited })
}

/// Whether the `emptyDir` volume `name` is within `scope`. Those in memory take no disk, but have a limit as well.
pub(crate) fn counts(spec: &PodSpec, name: &str, scope: Scope) -> bool {
    let volume = spec.volumes.iter().flatten().find(|volume| volume.name == name);
    volume.and_then(|volume| volume.empty_dir.as_ref()).is_some_and(|source| {
        positive(source.size_limit.as_ref()).is_some() || scope.all_empty_dirs && is_on_disk(source.medium.as_deref())
    })
}

/// The message of the eviction of a pod that takes more than it may.
pub(crate) fn violation(spec: &PodSpec, usage: &StorageUsage) -> Option<String> {
    empty_dirs(spec, usage).or_else(|| whole(spec, usage)).or_else(|| one(spec, usage))
}

fn empty_dirs(spec: &PodSpec, usage: &StorageUsage) -> Option<String> {
    spec.volumes.iter().flatten().find_map(|volume| {
        let limit = positive(volume.empty_dir.as_ref()?.size_limit.as_ref())?;
        let used = *usage.empty_dirs.get(&volume.name)?;
        let name = &volume.name;
        is_more(used, limit).then(|| format!("Usage of EmptyDir volume {name:?} exceeds the limit \"{limit}\". "))
    })
}

fn whole(spec: &PodSpec, usage: &StorageUsage) -> Option<String> {
    let limit = pod_limit(spec)?;
    let on_disk = spec
        .volumes
        .iter()
        .flatten()
        .filter(|volume| volume.empty_dir.as_ref().is_some_and(|source| is_on_disk(source.medium.as_deref())));
    let volumes: u64 = on_disk.filter_map(|volume| usage.empty_dirs.get(&volume.name)).sum();
    let containers: u64 = usage.containers.values().map(|usage| usage.bytes()).sum();
    is_more(volumes.saturating_add(containers), limit)
        .then(|| format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "))
}

fn one(spec: &PodSpec, usage: &StorageUsage) -> Option<String> {
    containers(spec).find_map(|container| {
        let (limit, used) = (limit(container)?, usage.containers.get(&container.name)?.bytes());
        let name = &container.name;
        is_more(used, limit)
            .then(|| format!("Container {name} exceeded its local ephemeral storage limit \"{limit}\". "))
    })
}

/// What all containers may take together: those that run at the same time, or an init container where that is more
/// (upstream: `PodLimits` of `k8s.io/component-helpers/resource`).
fn pod_limit(spec: &PodSpec) -> Option<Quantity> {
    let mut running: Option<Quantity> = None;
    let mut peak: Option<Quantity> = None;
    let add = |sum: Option<Quantity>, limit: Quantity| Some(sum.map_or(limit, |sum| sum + limit));
    for init in spec.init_containers.iter().flatten() {
        let Some(limit) = limit(init) else { continue };
        let step = add(running, limit);
        if init.restart_policy.as_deref() == Some("Always") {
            running = step;
        }
        peak = peak.max(step);
    }
    for container in &spec.containers {
        if let Some(limit) = limit(container) {
            running = add(running, limit);
        }
    }
    running.max(peak)
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn limit(container: &Container) -> Option<Quantity> {
    positive(container.resources.as_ref()?.limits.as_ref()?.get(STORAGE))
}

fn positive(quantity: Option<&ApiQuantity>) -> Option<Quantity> {
    let quantity: Quantity = quantity?.0.parse().ok()?;
    (quantity > Quantity::ZERO).then_some(quantity)
}

fn is_more(used: u64, limit: Quantity) -> bool {
    i64::try_from(used).unwrap_or(i64::MAX) > limit.value()
}

/// Whether a medium of `emptyDir` is the disk (upstream: `IsLocalEphemeralVolume` in `pkg/volume/util/util.go`).
pub(crate) fn is_on_disk(medium: Option<&str>) -> bool {
    medium.is_none_or(str::is_empty)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const MI: u64 = 1 << 20;

    #[allow(clippy::needless_pass_by_value)] // Cases read best with `json!` in place.
    fn check(spec: Value, volumes: &[(&str, u64)], containers: &[(&str, u64, u64)], expect: Option<&str>) {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let usage = StorageUsage {
            empty_dirs: volumes.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect(),
            containers: containers
                .iter()
                .map(|(name, layer, logs)| {
                    let usage = DiskUsage { writable_layer_bytes: *layer, log_bytes: *logs, ..DiskUsage::default() };
                    ((*name).to_owned(), usage)
                })
                .collect(),
            ..StorageUsage::default()
        };
        assert_eq!(violation(&spec, &usage).as_deref(), expect, "{usage:?}");
    }

    fn container(name: &str, limit: &str) -> Value {
        json!({"name": name, "resources": {"limits": {"ephemeral-storage": limit}}})
    }

    #[test]
    fn volumes() {
        for medium in ["", "Memory"] {
            let volumes = json!([{"name": "v", "emptyDir": {"sizeLimit": "1Mi", "medium": medium}}, {"name": "w", "emptyDir": {}}]);
            let spec = json!({"containers": [{"name": "a"}], "volumes": volumes});
            check(spec.clone(), &[("v", MI), ("w", MI << 20)], &[("a", MI << 20, 0)], None);
            let message = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
            check(spec, &[("v", MI + 1)], &[], Some(message));
        }
        let unlimited = json!({"containers": [], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "0"}}]});
        check(unlimited, &[("v", MI)], &[], None);
    }

    #[test]
    fn containers_and_their_pod() {
        let spec = json!({
            "initContainers": [container("i", "1Mi")],
            "containers": [container("a", "2Mi"), container("b", "2Mi")],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}}],
        });
        check(spec.clone(), &[("v", MI), ("m", 9 * MI)], &[("a", MI, MI), ("b", MI, 0)], None);
        let message = "Container a exceeded its local ephemeral storage limit \"2Mi\". ";
        check(spec.clone(), &[], &[("a", MI, MI + 1)], Some(message));
        let message = "Pod ephemeral local storage usage exceeds the total limit of containers 4Mi. ";
        check(spec.clone(), &[("v", 3 * MI)], &[("a", MI, 1), ("b", 0, 0)], Some(message));
        // An init container may need more than all others.
        let mut spec = spec;
        spec["initContainers"] = json!([container("i", "8Mi")]);
        check(spec, &[("v", 7 * MI)], &[("a", MI, 0)], None);
    }

    #[test]
    fn what_must_be_counted() {
        let scope_of = |spec: Value| {
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            let scope = scope(&spec);
            (scope, scope.map(|scope| ["v", "w", "m", "c"].map(|name| counts(&spec, name, scope))))
        };
        let volumes = |limit: &str| {
            json!([{"name": "v", "emptyDir": {"sizeLimit": limit}}, {"name": "w", "emptyDir": {}},
                {"name": "m", "emptyDir": {"medium": "Memory"}}, {"name": "c", "configMap": {"name": "c"}}])
        };
        let (none, _) = scope_of(json!({"containers": [{"name": "a"}], "volumes": volumes("0")}));
        assert_eq!(none, None);
        let sized = scope_of(json!({"containers": [{"name": "a"}], "volumes": volumes("1Gi")}));
        let scope = Scope { all_empty_dirs: false, containers: false };
        assert_eq!(sized, (Some(scope), Some([true, false, false, false])));
        let limited = scope_of(json!({"containers": [container("a", "1Gi")], "volumes": volumes("1Gi")}));
        let scope = Scope { all_empty_dirs: true, containers: true };
        assert_eq!(limited, (Some(scope), Some([true, true, false, false])));
    }
}
