//! `/metrics/cadvisor`: what the machine, the pods and their containers use, by the names and labels that cAdvisor has for it
//! (`metrics/prometheus.go` there, `containerPrometheusLabelsFunc` in `pkg/kubelet/server/server.go`).
//!
//! As there, a sample of a container has its name, its id as `name` and its image, one of a whole pod has none of these, and
//! the machine is the one with the `id` `/`. What is not read here is left out: file systems, the parts of processor time,
//! packets; and so are the paths of control groups, which are the `id` of all others there.

use jiff::Timestamp;
use runtime::{PodIdentity, Stats};
use streaming::exposition::{Family, Sample, family, labels};

use super::{INTERFACE, Pod, Running, read_pods};
use crate::node::machine;
use crate::shared::Shared;

const CPU: Family = ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.");
const LAST_SEEN: Family = ("container_last_seen", "gauge", "Last time a container was seen by the exporter");
const MEMORY_RSS: Family = ("container_memory_rss", "gauge", "Size of RSS in bytes.");
const MEMORY_USAGE: Family = (
    "container_memory_usage_bytes",
    "gauge",
    "Current memory usage in bytes, including all memory regardless of when it was accessed",
);
const MEMORY_WORKING_SET: Family =
    ("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes.");
const NETWORK_RECEIVED: Family =
    ("container_network_receive_bytes_total", "counter", "Cumulative count of bytes received");
const NETWORK_SENT: Family =
    ("container_network_transmit_bytes_total", "counter", "Cumulative count of bytes transmitted");
const SCRAPE_ERROR: Family =
    ("container_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise");
const MEMORY_LIMIT: Family = ("container_spec_memory_limit_bytes", "gauge", "Memory limit for the container.");
const START_TIME: Family =
    ("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds.");
const THREADS: Family = ("container_threads", "gauge", "Number of threads running inside the container");
const MACHINE_CPUS: Family = ("machine_cpu_cores", "gauge", "Number of logical CPU cores.");
const MACHINE_MEMORY: Family = ("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.");

/// Reads all.
pub(crate) async fn metrics(shared: &Shared) -> String {
    let pods = read_pods(shared).await;
    let now = Timestamp::now();
    let (cpu, memory) = machine::usage(now);
    let machine = Stats {
        time: now,
        cpu_usage_ns: cpu,
        memory_usage_bytes: memory.usage_bytes,
        memory_working_set_bytes: memory.working_set_bytes,
        memory_rss_bytes: memory.rss_bytes,
        ..Stats::default()
    };
    let known = shared.machine();
    // What the runtime has not told yet is not zero.
    let installed = (known.info.cpus > 0).then_some((known.info.cpus, known.info.memory_bytes));
    text(&pods, &machine, installed)
}

fn text(pods: &[Pod], machine: &Stats, installed: Option<(u64, u64)>) -> String {
    let mut out = String::with_capacity(4096 + pods.len() * 4096);
    let containers = || pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (&pod.pod, container)));
    // What machine, pods and containers have alike; `more` are labels of the family.
    let everywhere = |more: &[(&str, &str)], of: fn(&Stats) -> u64, scale: f64| {
        let sample = |value: u64, time: Timestamp| (number(value) / scale, Some(time));
        let mut samples = vec![(labels(&[&[("id", "/")][..], more].concat()), sample(of(machine), machine.time))];
        for pod in pods {
            // A pod of which nothing could be read is just ending.
            let Some(time) = pod.all().map(|stats| stats.time).max() else { continue };
            samples.push((of_pod(&pod.pod, "", "", "", more), sample(pod.sum(of), time)));
            for container in &pod.containers {
                let value = sample(of(&container.stats), container.stats.time);
                samples.push((of_container(&pod.pod, container, more), value));
            }
        }
        samples
    };
    let of_containers = |value: fn(&Running) -> f64| -> Vec<(String, Sample)> {
        let sample = |(pod, container): (&PodIdentity, &Running)| {
            (of_container(pod, container, &[]), (value(container), Some(container.stats.time)))
        };
        containers().map(sample).collect()
    };
    let of_networks = |value: fn(&Stats) -> u64| -> Vec<(String, Sample)> {
        let sample = |pod: &Pod| {
            let stats = pod.network()?;
            let labels = of_pod(&pod.pod, "", &pod.sandbox.id, "", &[("interface", INTERFACE)]);
            Some((labels, (number(value(stats)), Some(stats.time))))
        };
        pods.iter().filter_map(sample).collect()
    };
    family(&mut out, CPU, everywhere(&[("cpu", "total")], |stats| stats.cpu_usage_ns, 1e9));
    family(&mut out, LAST_SEEN, of_containers(|container| seconds(container.stats.time).floor()));
    family(&mut out, MEMORY_RSS, everywhere(&[], |stats| stats.memory_rss_bytes, 1.0));
    family(&mut out, MEMORY_USAGE, everywhere(&[], |stats| stats.memory_usage_bytes, 1.0));
    family(&mut out, MEMORY_WORKING_SET, everywhere(&[], |stats| stats.memory_working_set_bytes, 1.0));
    family(&mut out, NETWORK_RECEIVED, of_networks(|stats| stats.network_rx_bytes));
    family(&mut out, NETWORK_SENT, of_networks(|stats| stats.network_tx_bytes));
    family(&mut out, SCRAPE_ERROR, [(String::new(), (0.0, None))]);
    // As there, 0 is no limit.
    let limit = |container: &Running| number(container.stats.memory_limit_bytes.unwrap_or(0));
    family(&mut out, MEMORY_LIMIT, of_containers(limit));
    family(&mut out, START_TIME, of_containers(|container| seconds(container.started).floor()));
    family(&mut out, THREADS, of_containers(|container| number(container.stats.pids)));
    if let Some((cpus, memory)) = installed {
        family(&mut out, MACHINE_CPUS, [(String::new(), (number(cpus), None))]);
        family(&mut out, MACHINE_MEMORY, [(String::new(), (number(memory), None))]);
    }
    out
}

fn of_container(pod: &PodIdentity, container: &Running, more: &[(&str, &str)]) -> String {
    of_pod(pod, &container.name, &container.id, &container.image, more)
}

fn of_pod(pod: &PodIdentity, container: &str, id: &str, image: &str, more: &[(&str, &str)]) -> String {
    let PodIdentity { namespace, name, .. } = pod;
    let own = [("container", container), ("image", image), ("name", id), ("namespace", namespace), ("pod", name)];
    labels(&[&own[..], more].concat())
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a century, and up to 9 PB exactly")]
fn number(number: u64) -> f64 {
    number as f64
}

fn seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use runtime::Sandbox;

    use super::*;

    #[test]
    fn who_uses_what() {
        let time = Timestamp::from_second(1_700_000_000).unwrap();
        let stats = |seconds: u64| Stats {
            time,
            cpu_usage_ns: seconds * 1_000_000_000,
            memory_working_set_bytes: seconds * 10,
            network_rx_bytes: 7,
            pids: 3,
            ..Stats::default()
        };
        let pod = |name: &str, host_network| {
            let container = Running {
                name: "main".to_owned(),
                id: "c0".to_owned(),
                image: "nginx:1".to_owned(),
                started: Timestamp::from_second(1_600_000_000).unwrap(),
                stats: Stats { memory_limit_bytes: Some(64), ..stats(2) },
            };
            Pod {
                pod: PodIdentity { namespace: "ns".to_owned(), name: name.to_owned(), uid: "u".to_owned() },
                sandbox: Sandbox { id: "s0".to_owned(), host_network, ..Sandbox::default() },
                own: Some(stats(1)),
                containers: vec![container],
            }
        };
        let text = text(&[pod("web", false), pod("host", true)], &stats(100), Some((4, 1024)));
        let main = r#"{container="main",image="nginx:1",name="c0",namespace="ns",pod="web""#;
        let whole = r#"{container="",image="",name="",namespace="ns",pod="web""#;
        for line in [
            r#"container_cpu_usage_seconds_total{id="/",cpu="total"} 100 1700000000000"#.to_owned(),
            format!(r#"container_cpu_usage_seconds_total{whole},cpu="total"}} 3 1700000000000"#),
            format!(r#"container_cpu_usage_seconds_total{main},cpu="total"}} 2 1700000000000"#),
            format!("container_memory_working_set_bytes{main}}} 20 1700000000000"),
            format!("container_spec_memory_limit_bytes{main}}} 64 1700000000000"),
            format!("container_start_time_seconds{main}}} 1600000000 1700000000000"),
            format!("container_threads{main}}} 3 1700000000000"),
            r#"container_network_receive_bytes_total{container="",image="",name="s0",namespace="ns",pod="web",interface="eth0"} 7 1700000000000"#.to_owned(),
            "machine_cpu_cores 4".to_owned(),
            "machine_memory_bytes 1024".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nnot in\n{text}");
        }
        // The machine's network is not that of a pod.
        assert!(!text.lines().any(|line| line.contains("network") && line.contains("host")), "{text}");
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let text = text(&[], &Stats::default(), None);
        assert!(!text.contains("machine_"), "{text}");
    }
}
