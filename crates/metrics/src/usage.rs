//! What nodes and pods use: two readings of the nodes' counters, and the rate between them.

use std::collections::HashMap;

use informer::ObjectKey;

use crate::prometheus::{Exposition, Labels, Sample};

/// A container that was started up to so long before the only reading there is of it is measured from its start.
const YOUNG_MS: i64 = 60_000;
/// ... but not before it has run for so long.
const OLD_ENOUGH_MS: i64 = 2_000;

/// The window of what is told instead of counted, where there is only one reading.
const TOLD_MS: i64 = 1_000;

/// Counters of a container or node at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Reading {
    /// Milliseconds since the epoch.
    pub(crate) time: i64,
    /// When it was started, where that is known.
    pub(crate) started: Option<i64>,
    /// Seconds of one core since then.
    pub(crate) cpu: f64,
    /// Bytes of memory in use.
    pub(crate) memory: f64,
    /// Cores in use, where that is told instead of counted.
    pub(crate) cores: Option<f64>,
}

/// One reading of all nodes.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Readings {
    /// By name.
    pub(crate) nodes: HashMap<String, Reading>,
    /// By pod, then by name of the container.
    pub(crate) pods: HashMap<ObjectKey, HashMap<String, Reading>>,
}

/// Use over a window of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    /// End of the window, in milliseconds since the epoch.
    pub(crate) time: i64,
    /// Its length in milliseconds.
    pub(crate) window: i64,
    /// Cores, on average over the window.
    pub(crate) cores: f64,
    /// Bytes at its end.
    pub(crate) bytes: f64,
}

impl Readings {
    /// Adds what the node `name` answered at `/metrics/resource`.
    pub(crate) fn add(&mut self, name: &str, text: &str, now: i64) {
        let exposition = Exposition::parse(text);
        let mut node = Reading::default();
        for sample in &exposition.samples {
            let time = sample.time.unwrap_or(now);
            match sample.name.as_str() {
                "node_cpu_usage_seconds_total" => (node.cpu, node.time) = (sample.value, time),
                "node_memory_working_set_bytes" => node.memory = sample.value,
                "container_cpu_usage_seconds_total" => {
                    if let Some(reading) = self.container(sample) {
                        (reading.cpu, reading.time) = (sample.value, time);
                    }
                }
                "container_memory_working_set_bytes" => {
                    if let Some(reading) = self.container(sample) {
                        reading.memory = sample.value;
                    }
                }
                "container_start_time_seconds" => {
                    if let Some(reading) = self.container(sample) {
                        reading.started = Some(milliseconds(sample.value));
                    }
                }
                _ => {}
            }
        }
        if node.time > 0 {
            self.nodes.insert(name.to_owned(), node);
        }
    }

    fn container(&mut self, sample: &Sample) -> Option<&mut Reading> {
        let label = |labels: &Labels, name: &str| labels.get(name).filter(|value| !value.is_empty()).cloned();
        let labels = &sample.labels;
        let key = ObjectKey::new(label(labels, "namespace")?, label(labels, "pod")?);
        Some(self.pods.entry(key).or_default().entry(label(labels, "container")?).or_default())
    }
}

/// The use between two readings; nothing where there is only one, or where what ran then is not what runs now.
pub(crate) fn between(before: Option<&Reading>, after: &Reading) -> Option<Usage> {
    if let Some(cores) = after.cores {
        let window = before.map(|before| after.time - before.time).filter(|window| *window > 0);
        return Some(Usage { time: after.time, window: window.unwrap_or(TOLD_MS), cores, bytes: after.memory });
    }
    let same = before.filter(|before| before.started == after.started && before.cpu <= after.cpu);
    let (time, cpu) = match (same, after.started) {
        (Some(before), _) => (before.time, before.cpu),
        (None, Some(started)) if (OLD_ENOUGH_MS..=YOUNG_MS).contains(&(after.time - started)) => (started, 0.0),
        _ => return None,
    };
    let window = after.time - time;
    if window <= 0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a window")]
    let cores = (after.cpu - cpu) * 1000.0 / window as f64;
    Some(Usage { time: after.time, window, cores, bytes: after.memory })
}

#[expect(clippy::cast_possible_truncation, reason = "a cast from float to integer saturates")]
fn milliseconds(seconds: f64) -> i64 {
    (seconds * 1000.0) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(time: i64, started: Option<i64>, cpu: f64) -> Reading {
        Reading { time, started, cpu, memory: 1.0, cores: None }
    }

    #[test]
    fn rates() {
        let check = |before: Option<Reading>, after: Reading, expected: Option<(i64, f64)>| {
            let found = between(before.as_ref(), &after).map(|usage| (usage.window, usage.cores));
            assert_eq!(found, expected, "{before:?} {after:?}");
        };
        let after = reading(1_000_000, Some(0), 15.0);
        check(Some(reading(990_000, Some(0), 10.0)), after, Some((10_000, 0.5)));
        check(None, after, None);
        check(Some(after), after, None);
        check(None, reading(1_000_000, Some(990_000), 5.0), Some((10_000, 0.5)));
        check(None, reading(1_000_000, Some(999_000), 5.0), None);
        // Started again in between.
        check(Some(reading(980_000, Some(0), 10.0)), reading(1_000_000, Some(990_000), 5.0), Some((10_000, 0.5)));
        check(Some(reading(990_000, None, 10.0)), reading(1_000_000, None, 5.0), None);
    }

    #[test]
    fn what_a_node_answers() {
        let text = "container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 1.5 1000\n\
                    container_memory_working_set_bytes{container=\"c\",namespace=\"n\",pod=\"p\"} 4096 1000\n\
                    container_start_time_seconds{container=\"c\",namespace=\"n\",pod=\"p\"} 0.5\n\
                    container_cpu_usage_seconds_total{container=\"\",namespace=\"n\",pod=\"p\"} 9 1000\n\
                    node_cpu_usage_seconds_total 7 1000\nnode_memory_working_set_bytes 8 1000\n";
        let mut readings = Readings::default();
        readings.add("node", text, 2000);
        let expected = Reading { time: 1000, started: Some(500), cpu: 1.5, memory: 4096.0, cores: None };
        assert_eq!(readings.pods[&ObjectKey::new("n", "p")], HashMap::from([("c".to_owned(), expected)]));
        assert_eq!(readings.nodes["node"], Reading { time: 1000, started: None, cpu: 7.0, memory: 8.0, cores: None });
    }
}
