//! What a node and its pods use: upstream's Summary API, and the same as Prometheus text.
//!
//! The types are those of `stats.k8s.io/v1alpha1`, as `/stats/summary` of a kubelet answers them; [`Summary::metrics`] is
//! what `/metrics/resource` answers, from which `metrics.k8s.io` is made.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::exposition::{Family, Sample, family, labels};

/// A node and its pods at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The node.
    pub node: NodeStats,
    /// The pods that run.
    pub pods: Vec<PodStats>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStats {
    /// Its name.
    pub node_name: String,
    /// When the machine was started.
    #[serde(serialize_with = "seconds")]
    pub start_time: Timestamp,
    /// Processor time of the whole machine.
    pub cpu: CpuStats,
    /// Memory of the whole machine.
    pub memory: MemoryStats,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStats {
    /// Which.
    pub pod_ref: PodReference,
    /// When its sandbox was made.
    #[serde(serialize_with = "seconds")]
    pub start_time: Timestamp,
    /// Its running containers.
    pub containers: Vec<ContainerStats>,
    /// The sum over its containers and its sandbox.
    pub cpu: CpuStats,
    /// The sum over its containers and its sandbox.
    pub memory: MemoryStats,
    /// What went through its interface; nothing for a pod on the host's network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStats>,
    /// Its processes.
    #[serde(rename = "process_stats", skip_serializing_if = "Option::is_none")]
    pub processes: Option<ProcessStats>,
}

/// A pod, by name and UID.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PodReference {
    /// The name.
    pub name: String,
    /// The namespace.
    pub namespace: String,
    /// The UID.
    pub uid: String,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStats {
    /// Its name in the pod.
    pub name: String,
    /// When it was started.
    #[serde(serialize_with = "seconds")]
    pub start_time: Timestamp,
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
}

/// Processor time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuStats {
    /// When it was read.
    #[serde(serialize_with = "seconds")]
    pub time: Timestamp,
    /// Billionths of a core, on average since the reading before; nothing for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_nano_cores: Option<u64>,
    /// Nanoseconds of one core since the start.
    pub usage_core_nano_seconds: u64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryStats {
    /// When it was read.
    #[serde(serialize_with = "seconds")]
    pub time: Timestamp,
    /// What is left below the limit; nothing without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
    /// In use, cache included.
    pub usage_bytes: u64,
    /// In use, without what can be dropped at once.
    pub working_set_bytes: u64,
    /// Anonymous memory.
    pub rss_bytes: u64,
}

/// What went over a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkStats {
    /// When it was read.
    #[serde(serialize_with = "seconds")]
    pub time: Timestamp,
    /// The interface.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

/// Processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProcessStats {
    /// How many, threads included.
    #[serde(rename = "process_count")]
    pub count: u64,
}

/// As `metav1.Time` is written: whole seconds.
fn seconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&time.strftime("%Y-%m-%dT%H:%M:%SZ"))
}

const CONTAINER_CPU: Family = (
    "container_cpu_usage_seconds_total",
    "counter",
    "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
);
const CONTAINER_MEMORY: Family =
    ("container_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the container in bytes");
const CONTAINER_START: Family =
    ("container_start_time_seconds", "gauge", "[STABLE] Start time of the container since unix epoch in seconds");
const NODE_CPU: Family =
    ("node_cpu_usage_seconds_total", "counter", "[STABLE] Cumulative cpu time consumed by the node in core-seconds");
const NODE_MEMORY: Family =
    ("node_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the node in bytes");
const POD_CPU: Family =
    ("pod_cpu_usage_seconds_total", "counter", "[STABLE] Cumulative cpu time consumed by the pod in core-seconds");
const POD_MEMORY: Family =
    ("pod_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the pod in bytes");
const SCRAPE_ERROR: Family =
    ("resource_scrape_error", "gauge", "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise");

impl Summary {
    /// The same without what is neither processor time nor memory, as `?only_cpu_and_memory=true` asks (upstream:
    /// `GetCPUAndMemoryStats` in `pkg/kubelet/server/stats/summary.go`).
    #[must_use]
    pub fn only_cpu_and_memory(mut self) -> Self {
        for pod in &mut self.pods {
            (pod.network, pod.processes) = (None, None);
        }
        self
    }

    /// The text of `/metrics/resource`, with the names, labels and order of upstream's kubelet.
    pub fn metrics(&self) -> String {
        let mut out = String::with_capacity(1024 + self.pods.len() * 1024);
        let pods = || self.pods.iter();
        let containers = || {
            pods().flat_map(|pod| {
                pod.containers.iter().map(move |container| {
                    let PodReference { name, namespace, .. } = &pod.pod_ref;
                    (labels(&[("container", &container.name), ("namespace", namespace), ("pod", name)]), container)
                })
            })
        };
        let of_pod = |pod: &PodStats| {
            let PodReference { name, namespace, .. } = &pod.pod_ref;
            labels(&[("namespace", namespace), ("pod", name)])
        };
        family(&mut out, CONTAINER_CPU, containers().map(|(labels, container)| (labels, cpu(&container.cpu))));
        family(&mut out, CONTAINER_MEMORY, containers().map(|(labels, container)| (labels, memory(&container.memory))));
        let started = |(labels, container): (String, &ContainerStats)| {
            (labels, (container.start_time.as_duration().as_secs_f64(), None))
        };
        family(&mut out, CONTAINER_START, containers().map(started));
        family(&mut out, NODE_CPU, [(String::new(), cpu(&self.node.cpu))]);
        family(&mut out, NODE_MEMORY, [(String::new(), memory(&self.node.memory))]);
        family(&mut out, POD_CPU, pods().map(|pod| (of_pod(pod), cpu(&pod.cpu))));
        family(&mut out, POD_MEMORY, pods().map(|pod| (of_pod(pod), memory(&pod.memory))));
        family(&mut out, SCRAPE_ERROR, [(String::new(), (0.0, None))]);
        out
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a century fit")]
fn cpu(cpu: &CpuStats) -> Sample {
    (cpu.usage_core_nano_seconds as f64 / 1e9, Some(cpu.time))
}

#[expect(clippy::cast_precision_loss, reason = "up to 9 PB exactly")]
fn memory(memory: &MemoryStats) -> Sample {
    (memory.working_set_bytes as f64, Some(memory.time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let time: Timestamp = "2026-11-23T09:00:00.25Z".parse().unwrap();
        let cpu = CpuStats { time, usage_nano_cores: None, usage_core_nano_seconds: 1_500_000_000 };
        let memory = MemoryStats { time, working_set_bytes: 4096, ..MemoryStats::default() };
        let container = ContainerStats { name: "c".into(), start_time: time, cpu: cpu.clone(), memory: memory.clone() };
        let summary = Summary {
            node: NodeStats { node_name: "n".into(), start_time: time, cpu: cpu.clone(), memory: memory.clone() },
            pods: vec![PodStats {
                pod_ref: PodReference { name: "p".into(), namespace: "ns".into(), uid: "u".into() },
                start_time: time,
                containers: vec![container],
                cpu,
                memory,
                network: None,
                processes: Some(ProcessStats { count: 2 }),
            }],
        };
        let text = summary.metrics();
        for line in [
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"ns\",pod=\"p\"} 1.5 1795424400250",
            "container_memory_working_set_bytes{container=\"c\",namespace=\"ns\",pod=\"p\"} 4096 1795424400250",
            "container_start_time_seconds{container=\"c\",namespace=\"ns\",pod=\"p\"} 1795424400.25",
            "node_cpu_usage_seconds_total 1.5 1795424400250",
            "pod_memory_working_set_bytes{namespace=\"ns\",pod=\"p\"} 4096 1795424400250",
            "# TYPE pod_cpu_usage_seconds_total counter",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nnot in\n{text}");
        }
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["node"]["nodeName"], "n");
        assert_eq!(json["pods"][0]["podRef"]["uid"], "u");
        assert_eq!(json["pods"][0]["containers"][0]["cpu"]["time"], "2026-11-23T09:00:00Z");
        assert_eq!(json["pods"][0]["process_stats"]["process_count"], 2);
        let json = serde_json::to_value(summary.only_cpu_and_memory()).unwrap();
        assert_eq!(json["pods"][0].get("process_stats"), None);
    }
}
