//! The metrics of controllers and other components, under the names that client-go's work queues, controller-runtime and
//! upstream's components give them.

use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::reconciles::{Durations, QueueStats, Stats};
use crate::{DurationMetric, Reconciles};

/// A name, what it means, and what is read of each work queue.
type OfQueue<M> = (&'static str, &'static str, fn(&QueueStats) -> &M);

const QUEUE_COUNTERS: [OfQueue<Counter>; 2] = [
    ("workqueue_adds", "Keys added to a work queue", |queue| &queue.adds),
    ("workqueue_retries", "Keys added again because their reconcile failed", |queue| &queue.retries),
];

const QUEUE_HISTOGRAMS: [OfQueue<Histogram>; 2] = [
    ("workqueue_queue_duration_seconds", "Time a key waits in a work queue", |queue| &queue.queue_duration),
    ("workqueue_work_duration_seconds", "Time of working on a key", |queue| &queue.work_duration),
];

/// A name, what it means, and its value.
type Gauge = (&'static str, &'static str, fn(&Stats, &QueueStats) -> f64);

const QUEUE_GAUGES: [Gauge; 3] = [
    ("workqueue_depth", "Keys that wait in a work queue", |_, queue| {
        f64::from(u32::try_from(queue.depth()).unwrap_or(u32::MAX))
    }),
    (
        "workqueue_unfinished_work_seconds",
        "Time that the keys being worked on have taken so far, added up",
        |stats, _| stats.unfinished().iter().sum::<Duration>().as_secs_f64(),
    ),
    (
        "workqueue_longest_running_processor_seconds",
        "Time that the longest running reconcile has taken so far",
        |stats, _| stats.unfinished().iter().max().map_or(0.0, Duration::as_secs_f64),
    ),
];

impl Collector for Reconciles {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let all = self.all();
        let queues = || all.iter().filter_map(|stats| Some((stats, stats.queue()?)));
        for (name, help, read) in QUEUE_COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (stats, queue) in queues() {
                read(queue).encode(family.encode_family(&[("name", stats.name())])?)?;
            }
        }
        for (name, help, read) in QUEUE_HISTOGRAMS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for (stats, queue) in queues() {
                read(queue).encode(family.encode_family(&[("name", stats.name())])?)?;
            }
        }
        for (name, help, read) in QUEUE_GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (stats, queue) in queues() {
                ConstGauge::new(read(stats, queue)).encode(family.encode_family(&[("name", stats.name())])?)?;
            }
        }

        let name = "controller_runtime_reconcile_panics";
        let mut family = encoder.encode_descriptor(name, "Reconciles that panicked", None, MetricType::Counter)?;
        for stats in &all {
            stats.panics.encode(family.encode_family(&[("controller", stats.name())])?)?;
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
        let name = "controller_runtime_reconcile_time_seconds";
        let mut family = encoder.encode_descriptor(name, "Time of a reconcile", None, MetricType::Histogram)?;
        for stats in &all {
            stats.reconcile_time.encode(family.encode_family(&[("controller", stats.name())])?)?;
        }

        for Durations { metric, seconds, count } in all.iter().filter_map(|stats| stats.durations()) {
            let DurationMetric { name, help, .. } = metric;
            seconds.encode(encoder.encode_descriptor(name, help, None, MetricType::Histogram)?)?;
            if let Some((name, help)) = metric.counter {
                count.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
            }
        }
        Ok(())
    }
}
