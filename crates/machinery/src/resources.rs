//! Amounts of resources, as nodes offer them and pods ask for them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::quantity::Quantity;

/// What a container without a request for CPU is taken to use when nodes are scored: upstream's number, in milli-CPU.
const DEFAULT_MILLI_CPU: i64 = 100;
/// The same for memory, in bytes.
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// The condition of a pod whose resize has not been granted, and its reason where the node could never grant it (upstream:
/// `k8s.io/api/core/v1/types.go`).
pub const RESIZE_PENDING: &str = "PodResizePending";
/// See [`RESIZE_PENDING`].
pub const INFEASIBLE: &str = "Infeasible";

/// Amounts by resource. Pods are counted apart, in `pods`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU in thousandths of a core.
    pub milli_cpu: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Local disk in bytes.
    pub ephemeral_storage: i64,
    /// How many pods.
    pub pods: i64,
    /// Everything else, such as `nvidia.com/gpu`, in whole units.
    pub extended: BTreeMap<String, i64>,
}

impl Resources {
    /// The amounts of a list as the API has it. What cannot be parsed counts as nothing: the API server lets none in.
    pub fn from_list(list: &BTreeMap<String, ApiQuantity>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list {
            let Ok(quantity) = Quantity::try_from(quantity) else {
                continue;
            };
            match name.as_str() {
                "cpu" => resources.milli_cpu = quantity.milli_value(),
                "memory" => resources.memory = quantity.value(),
                "ephemeral-storage" => resources.ephemeral_storage = quantity.value(),
                "pods" => resources.pods = quantity.value(),
                _ => {
                    resources.extended.insert(name.clone(), quantity.value());
                }
            }
        }
        resources
    }

    /// The amount of one resource, in the unit it is kept in.
    pub fn of(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            "pods" => self.pods,
            other => self.extended.get(other).copied().unwrap_or(0),
        }
    }

    /// Each resource of which there is any, by name.
    pub fn each(&self) -> impl Iterator<Item = (&str, i64)> {
        let own = [
            ("cpu", self.milli_cpu),
            ("memory", self.memory),
            ("ephemeral-storage", self.ephemeral_storage),
            ("pods", self.pods),
        ];
        let extended = self.extended.iter().map(|(name, amount)| (name.as_str(), *amount));
        own.into_iter().chain(extended).filter(|(_, amount)| *amount != 0)
    }

    /// An amount as a person reads it.
    pub fn text(name: &str, amount: i64) -> String {
        match name {
            "cpu" => Quantity::from_milli(amount).to_string(),
            "memory" | "ephemeral-storage" => Quantity::from_bytes(amount).to_string(),
            _ => amount.to_string(),
        }
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes `other` away.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    /// Raises each amount to at least that of `other`.
    pub fn maximum(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    /// What of this is missing: `nvidia.com/gpu 4 wanted, 2 left`, where `has` tells how much of a resource there is.
    pub fn shortage(&self, has: impl Fn(&str) -> i64, word: &str) -> Option<String> {
        let short: Vec<String> = self
            .each()
            .filter_map(|(name, amount)| {
                let has = has(name);
                (has < amount)
                    .then(|| format!("{name} {} wanted, {} {word}", Self::text(name, amount), Self::text(name, has)))
            })
            .collect();
        (!short.is_empty()).then(|| short.join(", "))
    }

    fn combine(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = with(self.pods, other.pods);
        for (name, theirs) in &other.extended {
            let mine = self.extended.entry(name.clone()).or_insert(0);
            *mine = with(*mine, *theirs);
        }
    }
}

/// A resource of which a node has too little left for a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insufficient<'a> {
    /// The resource.
    pub resource: &'a str,
    /// How much the pod asks for.
    pub requested: i64,
    /// How much the pods on the node ask for.
    pub used: i64,
    /// How much the node offers.
    pub capacity: i64,
}

/// What a node that offers `offered` lacks for a pod that asks for `wanted`, beside pods that ask for `used` (upstream:
/// `fitsRequest` in `pkg/scheduler/framework/plugins/noderesources/fit.go`, with its order). Of the resources that are
/// somebody else's, such as `nvidia.com/gpu`, those count that `counts` says.
pub fn insufficient<'a>(
    wanted: &'a Resources,
    used: &Resources,
    offered: &Resources,
    counts: impl Fn(&str) -> bool,
) -> Vec<Insufficient<'a>> {
    let own = [
        ("pods", wanted.pods, used.pods, offered.pods),
        ("cpu", wanted.milli_cpu, used.milli_cpu, offered.milli_cpu),
        ("memory", wanted.memory, used.memory, offered.memory),
        ("ephemeral-storage", wanted.ephemeral_storage, used.ephemeral_storage, offered.ephemeral_storage),
    ];
    let extended = wanted.extended.iter().filter(|(name, _)| counts(name));
    let extended = extended.map(|(name, amount)| (name.as_str(), *amount, used.of(name), offered.of(name)));
    own.into_iter()
        .chain(extended)
        // Nothing wanted fits always, also on a node that is overcommitted.
        .filter(|(_, requested, used, capacity)| *requested > 0 && *requested > capacity.saturating_sub(*used))
        .map(|(resource, requested, used, capacity)| Insufficient { resource, requested, used, capacity })
        .collect()
}

/// What `pod` counts for on its node: the sum over its containers, or more where an init container needs more while it runs.
/// A container that is being resized counts for what it has or for what it asks for, whichever is more, and only for what it
/// has where the node could never give it what it asks for (upstream: `PodRequests` with `UseStatusResources` in
/// `k8s.io/component-helpers/resource/helpers.go`).
pub fn requests(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let infeasible = is_infeasible(pod);
    total(spec, |container| charged(pod, container, infeasible))
}

/// As [`requests`], with upstream's defaults for containers that name no CPU or memory, so that scoring spreads them.
pub fn nonzero_requests(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let infeasible = is_infeasible(pod);
    total(spec, |container| {
        let mut requests = charged(pod, container, infeasible);
        if requests.milli_cpu == 0 {
            requests.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if requests.memory == 0 {
            requests.memory = DEFAULT_MEMORY;
        }
        requests
    })
}

/// Whether a container of `pod` has something else than it asks for, as its status tells.
pub fn is_resizing(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    containers.any(|container| resized(pod, container).is_some())
}

/// What the containers of a pod ask for as its specification says, whatever they have.
pub fn spec_requests(spec: &PodSpec) -> Resources {
    total(spec, container_requests)
}

fn is_infeasible(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let pending = conditions.into_iter().flatten().find(|condition| condition.type_ == RESIZE_PENDING);
    pending.is_some_and(|pending| pending.reason.as_deref() == Some(INFEASIBLE))
}

/// The status of a container that has something else than it asks for. Init containers that run to their end are never
/// resized.
fn resized<'a>(pod: &'a Pod, container: &Container) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let may_be_sidecar = container.restart_policy.as_deref() == Some("Always");
    let named = |statuses: &'a Option<Vec<ContainerStatus>>| {
        statuses.iter().flatten().find(|status| status.name == container.name && status.resources.is_some())
    };
    let known = named(&status.container_statuses);
    let known = match may_be_sidecar {
        true => known.or_else(|| named(&status.init_container_statuses)),
        false => known,
    }?;
    let asked = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let given = known.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let allocated = known.allocated_resources.as_ref();
    // Most often they are the same to the letter.
    (given != asked || allocated.is_some_and(|allocated| Some(allocated) != asked)).then_some(known)
}

/// Upstream: `determineContainerReqs` in the same file.
fn charged(pod: &Pod, container: &Container, infeasible: bool) -> Resources {
    let asked = container_requests(container);
    let Some(status) = resized(pod, container) else { return asked };
    let mut charged = if infeasible { Resources::default() } else { asked };
    let given = status.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    for list in [given, status.allocated_resources.as_ref()].into_iter().flatten() {
        charged.maximum(&Resources::from_list(list));
    }
    charged
}

/// What a pod needs whose containers need `of`.
///
/// Upstream's rule: init containers run one after the other, sidecars (init containers that restart always) from their
/// turn on for as long as the pod lives; requests of the pod as a whole, where given, count instead; overhead is added.
fn total(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut running = of(container);
        running.add(&sidecars);
        peak.maximum(&running);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = running;
        }
    }
    total.add(&sidecars);
    total.maximum(&peak);
    if let Some(list) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        let whole = Resources::from_list(list);
        if list.contains_key("cpu") {
            total.milli_cpu = whole.milli_cpu;
        }
        if list.contains_key("memory") {
            total.memory = whole.memory;
        }
    }
    if let Some(overhead) = &spec.overhead {
        total.add(&Resources::from_list(overhead));
    }
    total.pods = 1;
    total
}

fn container_requests(container: &Container) -> Resources {
    container
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref())
        .map(Resources::from_list)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: &Value) -> Pod {
        serde_json::from_value(json!({ "spec": spec })).expect("a pod")
    }

    fn container(cpu: &str) -> Value {
        json!({ "name": "c", "resources": { "requests": { "cpu": cpu } } })
    }

    fn sidecar(cpu: &str) -> Value {
        json!({ "name": "c", "restartPolicy": "Always", "resources": { "requests": { "cpu": cpu } } })
    }

    #[test]
    fn a_pod_needs_the_sum_of_its_containers_or_its_largest_init_phase() {
        let check = |spec: Value, milli_cpu: i64| {
            assert_eq!(requests(&pod(&spec)).milli_cpu, milli_cpu, "{spec}");
        };
        check(json!({ "containers": [container("100m"), container("1")] }), 1100);
        check(json!({ "containers": [container("100m")], "initContainers": [container("2"), container("1")] }), 2000);
        // The sidecar runs on beside what follows it.
        check(json!({ "containers": [container("100m")], "initContainers": [sidecar("50m"), container("1")] }), 1050);
        check(json!({ "containers": [container("100m")], "initContainers": [container("1"), sidecar("50m")] }), 1000);
        check(
            json!({ "containers": [container("100m")], "initContainers": [sidecar("50m")], "overhead": { "cpu": "5m" } }),
            155,
        );
        check(json!({ "containers": [container("100m")], "resources": { "requests": { "cpu": "3" } } }), 3000);
    }

    #[test]
    fn extended_resources_are_counted_and_pods_count_one() {
        let pod = pod(&json!({ "containers": [
            { "name": "a", "resources": { "requests": { "nvidia.com/gpu": "1", "memory": "1Gi" } } },
            { "name": "b", "resources": { "requests": { "nvidia.com/gpu": "2" } } },
        ] }));
        let requests = requests(&pod);
        assert_eq!(requests.extended["nvidia.com/gpu"], 3);
        assert_eq!((requests.memory, requests.pods), (1 << 30, 1));
        assert_eq!(nonzero_requests(&pod).milli_cpu, 200);
    }

    #[test]
    fn a_pod_that_is_resized_counts_for_what_it_has_or_wants() {
        let check = |reason: &str, wants: &str, has: &str, allocated: &str, expect: i64| {
            let pod: Pod = serde_json::from_value(json!({
                "spec": { "containers": [container(wants)], "initContainers": [{ "name": "i" }] },
                "status": {
                    "conditions": [{ "type": "PodResizePending", "status": "True", "reason": reason }],
                    "containerStatuses": [{
                        "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                        "resources": { "requests": { "cpu": has } }, "allocatedResources": { "cpu": allocated },
                    }],
                },
            }))
            .expect("a pod");
            assert_eq!(requests(&pod).milli_cpu, expect, "{reason} {wants} {has} {allocated}");
            assert_eq!(nonzero_requests(&pod).milli_cpu, expect);
            assert_eq!(is_resizing(&pod), wants != has || wants != allocated);
        };
        check("Infeasible", "100", "1", "1", 1000);
        check("Infeasible", "100", "1", "2", 2000);
        check("Deferred", "3", "1", "1", 3000);
        // What is being made smaller is there until it is.
        check("", "1", "3", "1", 3000);
        check("", "1", "1", "1", 1000);
    }

    #[test]
    fn what_a_node_lacks() {
        let amounts = |cpu: i64, gpus: i64, pods: i64| Resources {
            milli_cpu: cpu,
            pods,
            extended: BTreeMap::from([("x.y/gpu".to_owned(), gpus)]),
            ..Resources::default()
        };
        let lacking = |wanted: &Resources, used: &Resources, counts: bool| -> Vec<(String, i64, i64, i64)> {
            let offered = amounts(1000, 1, 2);
            insufficient(wanted, used, &offered, |_| counts)
                .into_iter()
                .map(|lack| (lack.resource.to_owned(), lack.requested, lack.used, lack.capacity))
                .collect()
        };
        let lack = |name: &str, requested, used, capacity| (name.to_owned(), requested, used, capacity);
        assert_eq!(lacking(&amounts(1000, 1, 1), &amounts(0, 0, 1), true), []);
        assert_eq!(lacking(&amounts(600, 0, 1), &amounts(500, 9, 1), true), [lack("cpu", 600, 500, 1000)]);
        assert_eq!(
            lacking(&amounts(0, 1, 1), &amounts(9000, 1, 2), true),
            [lack("pods", 1, 2, 2), lack("x.y/gpu", 1, 1, 1)]
        );
        assert_eq!(lacking(&amounts(0, 5, 1), &amounts(0, 0, 0), false), []);
    }
}
