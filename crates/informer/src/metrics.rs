//! The metrics of controllers, under the names that client-go's work queues and controller-runtime give them.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::Reconciles;
use crate::reconciles::Stats;

type Read<M> = fn(&Stats) -> &M;

/// A name, what it means, and its value.
type Gauge = (&'static str, &'static str, fn(&Stats) -> f64);

const COUNTERS: [(&str, &str, &str, Read<Counter>); 3] = [
    ("workqueue_adds", "name", "Keys added to a work queue", |stats| &stats.adds),
    ("workqueue_retries", "name", "Keys added again because their reconcile failed", |stats| &stats.retries),
    ("controller_runtime_reconcile_panics", "controller", "Reconciles that panicked", |stats| &stats.panics),
];

const HISTOGRAMS: [(&str, &str, &str, Read<Histogram>); 3] = [
    ("workqueue_queue_duration_seconds", "name", "Time a key waits in a work queue", |stats| &stats.queue_duration),
    ("workqueue_work_duration_seconds", "name", "Time of working on a key", |stats| &stats.work_duration),
    ("controller_runtime_reconcile_time_seconds", "controller", "Time of a reconcile", |stats| &stats.reconcile_time),
];

const GAUGES: [Gauge; 3] = [
    ("workqueue_depth", "Keys that wait in a work queue", |stats| {
        f64::from(u32::try_from(stats.depth()).unwrap_or(u32::MAX))
    }),
    ("workqueue_unfinished_work_seconds", "Time that the keys being worked on have taken so far, added up", |stats| {
        stats.unfinished().iter().sum::<std::time::Duration>().as_secs_f64()
    }),
    (
        "workqueue_longest_running_processor_seconds",
        "Time that the longest running reconcile has taken so far",
        |stats| stats.unfinished().iter().max().map_or(0.0, std::time::Duration::as_secs_f64),
    ),
];

impl Collector for Reconciles {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let all = self.all();
        for (name, label, help, read) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for stats in &all {
                read(stats).encode(family.encode_family(&[(label, stats.name())])?)?;
            }
        }
        let name = "controller_runtime_reconcile";
        let mut family = encoder.encode_descriptor(name, "Reconciles by how they ended", None, MetricType::Counter)?;
        for stats in &all {
            let results = &stats.results;
            let results =
                [("success", &results.success), ("requeue_after", &results.requeue_after), ("error", &results.error)];
            for (result, counter) in results {
                counter.encode(family.encode_family(&[("controller", stats.name()), ("result", result)])?)?;
            }
        }
        for (name, label, help, read) in HISTOGRAMS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for stats in &all {
                read(stats).encode(family.encode_family(&[(label, stats.name())])?)?;
            }
        }
        for (name, help, read) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for stats in &all {
                ConstGauge::new(read(stats)).encode(family.encode_family(&[("name", stats.name())])?)?;
            }
        }
        Ok(())
    }
}
