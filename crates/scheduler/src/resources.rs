//! Amounts of resources, as nodes offer them and pods ask for them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use machinery::quantity::Quantity;

/// What a container without a request for CPU is taken to use when nodes are scored: upstream's number, in milli-CPU.
const DEFAULT_MILLI_CPU: i64 = 100;
/// The same for memory, in bytes.
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

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
    pub(crate) fn shortage(&self, has: impl Fn(&str) -> i64, word: &str) -> Option<String> {
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

/// What `pod` asks for: the sum over its containers, or more where an init container needs more while it runs.
///
/// Upstream's rule: init containers run one after the other, sidecars (init containers that restart always) from their
/// turn on for as long as the pod lives; requests of the pod as a whole, where given, count instead; overhead is added.
pub fn requests(pod: &Pod) -> Resources {
    pod.spec.as_ref().map(|spec| pod_total(spec, container_requests)).unwrap_or_default()
}

/// As [`requests`], with upstream's defaults for containers that name no CPU or memory, so that scoring spreads them.
pub fn nonzero_requests(pod: &Pod) -> Resources {
    let with_defaults = |container: &Container| {
        let mut requests = container_requests(container);
        if requests.milli_cpu == 0 {
            requests.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if requests.memory == 0 {
            requests.memory = DEFAULT_MEMORY;
        }
        requests
    };
    pod.spec.as_ref().map(|spec| pod_total(spec, with_defaults)).unwrap_or_default()
}

fn pod_total(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
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
}
