//! What this node and its pods use. Read when somebody asks, and only then.

pub(crate) mod cadvisor;

use std::collections::HashMap;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use parking_lot::Mutex;
use runtime::{ContainerState, PodIdentity, Sandbox, Stats};
use streaming::stats::{
    ContainerStats, CpuStats, MemoryStats, NetworkStats, NodeStats, PodReference, PodStats, ProcessStats, Summary,
};

use crate::node::machine;
use crate::shared::Shared;

/// So many readings are under way at once: where they are files, more gains nothing.
const CONCURRENT: usize = 8;
/// The interface of a pod.
const INTERFACE: &str = "eth0";
/// A rate over less time than this says nothing; the one before is repeated.
const SHORTEST_MS: i64 = 500;

/// The last readings, for rates.
#[derive(Default)]
pub(crate) struct Statistics(Mutex<HashMap<String, Reading>>);

/// A counter of processor time, and its rate up to then.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Reading {
    time: Timestamp,
    total: u64,
    rate: Option<u64>,
}

impl Statistics {
    /// Reads all.
    pub(crate) async fn summary(&self, shared: &Shared) -> Summary {
        let pods = read_pods(shared).await;
        let now = Timestamp::now();
        let (node_cpu, node_memory) = machine::usage(now);

        let mut before = self.0.lock();
        let mut rates = Rates { before: &before, after: HashMap::with_capacity(before.len()) };
        let node = NodeStats {
            node_name: shared.config.node_name.clone(),
            start_time: machine::boot_time().unwrap_or(now),
            cpu: rates.cpu("", now, node_cpu),
            memory: node_memory,
        };
        let summary = Summary { node, pods: pods.into_iter().map(|pod| pod.stats(&mut rates, now)).collect() };
        let after = rates.after;
        *before = after;
        summary
    }
}

/// What was read of a pod.
struct Pod {
    pod: PodIdentity,
    sandbox: Sandbox,
    own: Option<Stats>,
    containers: Vec<Running>,
}

/// What was read of a container that runs.
struct Running {
    name: String,
    id: String,
    image: String,
    started: Timestamp,
    stats: Stats,
}

/// Reads what the pods use that run, by namespace and name.
async fn read_pods(shared: &Shared) -> Vec<Pod> {
    let observed = shared.pleg.pods().into_iter().filter_map(|pod| {
        let sandbox = shared.pleg.observed(&pod.uid).ready_sandbox().cloned()?;
        Some((pod, sandbox))
    });
    let reading = stream::iter(observed).map(|(pod, sandbox)| pod_readings(shared, pod, sandbox));
    let mut pods: Vec<Pod> = reading.buffer_unordered(CONCURRENT).collect().await;
    pods.sort_by(|a, b| (&a.pod.namespace, &a.pod.name).cmp(&(&b.pod.namespace, &b.pod.name)));
    pods
}

async fn pod_readings(shared: &Shared, pod: PodIdentity, sandbox: Sandbox) -> Pod {
    // What cannot be read has just ended: it is left out.
    let own = shared.runtime.stats(&sandbox.id).await.ok();
    let mut containers = Vec::with_capacity(sandbox.containers.len());
    for container in &sandbox.containers {
        if let ContainerState::Running { started } = container.state
            && let Ok(stats) = shared.runtime.stats(&container.id).await
        {
            let (name, id, image) = (container.name.clone(), container.id.clone(), container.image.clone());
            containers.push(Running { name, id, image, started, stats });
        }
    }
    Pod { pod, sandbox, own, containers }
}

impl Pod {
    /// What was read of its sandbox and its containers.
    fn all(&self) -> impl Iterator<Item = &Stats> {
        self.own.iter().chain(self.containers.iter().map(|container| &container.stats))
    }

    fn sum(&self, of: fn(&Stats) -> u64) -> u64 {
        self.all().map(of).sum()
    }

    /// What its sandbox says of the network, where it has one of its own.
    fn network(&self) -> Option<&Stats> {
        self.own.as_ref().filter(|_| !self.sandbox.host_network)
    }

    fn stats(self, rates: &mut Rates<'_>, now: Timestamp) -> PodStats {
        let sum = |of: fn(&Stats) -> u64| self.sum(of);
        let network = self.network().map(|own| NetworkStats {
            time: own.time,
            name: INTERFACE.to_owned(),
            rx_bytes: own.network_rx_bytes,
            tx_bytes: own.network_tx_bytes,
        });
        let time = self.all().map(|stats| stats.time).max().unwrap_or(now);
        let mut cpu = rates.cpu(&self.pod.uid, time, sum(|stats| stats.cpu_usage_ns));
        // A container that ended takes its time along: there is no rate then, not a negative one.
        cpu.usage_nano_cores = cpu.usage_nano_cores.filter(|_| !self.containers.is_empty());
        PodStats {
            start_time: self.sandbox.created.unwrap_or(now),
            cpu,
            memory: MemoryStats {
                time,
                available_bytes: None,
                usage_bytes: sum(|stats| stats.memory_usage_bytes),
                working_set_bytes: sum(|stats| stats.memory_working_set_bytes),
                rss_bytes: sum(|stats| stats.memory_rss_bytes),
            },
            network,
            processes: Some(ProcessStats { count: sum(|stats| stats.pids) }),
            containers: self
                .containers
                .into_iter()
                .map(|Running { name, id, started, stats, .. }| ContainerStats {
                    name,
                    start_time: started,
                    cpu: rates.cpu(&id, stats.time, stats.cpu_usage_ns),
                    memory: memory(&stats),
                })
                .collect(),
            pod_ref: PodReference { name: self.pod.name, namespace: self.pod.namespace, uid: self.pod.uid },
        }
    }
}

fn memory(stats: &Stats) -> MemoryStats {
    MemoryStats {
        time: stats.time,
        available_bytes: stats.memory_limit_bytes.map(|limit| limit.saturating_sub(stats.memory_working_set_bytes)),
        usage_bytes: stats.memory_usage_bytes,
        working_set_bytes: stats.memory_working_set_bytes,
        rss_bytes: stats.memory_rss_bytes,
    }
}

/// The step from the last readings to these.
struct Rates<'a> {
    before: &'a HashMap<String, Reading>,
    after: HashMap<String, Reading>,
}

impl Rates<'_> {
    fn cpu(&mut self, key: &str, time: Timestamp, total: u64) -> CpuStats {
        let reading = next(self.before.get(key), time, total);
        self.after.insert(key.to_owned(), reading);
        CpuStats { time, usage_nano_cores: reading.rate, usage_core_nano_seconds: total }
    }
}

/// The reading to remember. Of readings shortly after one another the first stays, so that rates go on being told.
fn next(before: Option<&Reading>, time: Timestamp, total: u64) -> Reading {
    let Some(before) = before.filter(|before| before.total <= total) else {
        return Reading { time, total, rate: None };
    };
    let elapsed = time.as_millisecond().saturating_sub(before.time.as_millisecond());
    if elapsed < SHORTEST_MS {
        return *before;
    }
    let rate = u128::from(total - before.total) * 1000 / u128::from(elapsed.unsigned_abs());
    Reading { time, total, rate: u64::try_from(rate).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let at = |millisecond: i64| Timestamp::from_millisecond(millisecond).unwrap();
        let first = next(None, at(0), 1_000_000);
        assert_eq!(first.rate, None);
        let second = next(Some(&first), at(2_000), 1_001_000_000);
        assert_eq!(second.rate, Some(500_000_000));
        assert_eq!(next(Some(&second), at(2_100), 2_000_000_000), second, "too soon");
        assert_eq!(next(Some(&second), at(9_000), 5).rate, None, "it started anew");
    }
}
