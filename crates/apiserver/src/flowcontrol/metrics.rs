//! The metrics of priority and fairness, under upstream's names (apiserver `pkg/util/flowcontrol/metrics/metrics.go`).

use std::ops::Add;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::flow_schema::Table;
use super::priority_level::{PriorityLevel, Rejection};

/// The client of a request that waited has gone.
const CANCELLED: &str = "cancelled";
/// Why requests get no seats.
const REASONS: [&str; 4] =
    [Rejection::ConcurrencyLimit.reason(), Rejection::QueueFull.reason(), Rejection::TimeOut.reason(), CANCELLED];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SchemaLabels {
    flow_schema: String,
    priority_level: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectedLabels {
    flow_schema: String,
    priority_level: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WaitLabels {
    flow_schema: String,
    priority_level: String,
    execute: &'static str,
}

/// What is counted of all schemas.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    dispatched: Family<SchemaLabels, Counter>,
    rejected: Family<RejectedLabels, Counter>,
    executing: Family<SchemaLabels, Gauge>,
    in_queue: Family<SchemaLabels, Gauge>,
    wait: Family<WaitLabels, Histogram, fn() -> Histogram>,
}

/// What is counted of one schema. The counters of every request are at hand; the others are looked up.
#[derive(Debug)]
pub(super) struct SchemaMetrics {
    labels: SchemaLabels,
    all: Metrics,
    dispatched: Counter,
    executing: Gauge,
    in_queue: Gauge,
}

/// What has been counted of requests, as far as it is shown beside the metrics.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// How many have seats.
    pub(super) executing: u64,
    /// How many got their seats.
    pub(super) dispatched: u64,
    /// How many were not let wait.
    pub(super) rejected: u64,
    /// How many waited too long.
    pub(super) timed_out: u64,
    /// How many were given up by their clients while they waited.
    pub(super) cancelled: u64,
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            executing: self.executing + other.executing,
            dispatched: self.dispatched + other.dispatched,
            rejected: self.rejected + other.rejected,
            timed_out: self.timed_out + other.timed_out,
            cancelled: self.cancelled + other.cancelled,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let buckets = || Histogram::new([0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0]);
        Self {
            dispatched: Family::default(),
            rejected: Family::default(),
            executing: Family::default(),
            in_queue: Family::default(),
            wait: Family::new_with_constructor(buckets),
        }
    }
}

impl Metrics {
    pub(super) fn of(&self, flow_schema: &str, priority_level: &str) -> SchemaMetrics {
        let labels = SchemaLabels { flow_schema: flow_schema.to_owned(), priority_level: priority_level.to_owned() };
        SchemaMetrics {
            dispatched: self.dispatched.get_or_create(&labels).clone(),
            executing: self.executing.get_or_create(&labels).clone(),
            in_queue: self.in_queue.get_or_create(&labels).clone(),
            all: self.clone(),
            labels,
        }
    }

    /// Counts no longer what there is no longer, so that what comes and goes leaves nothing behind.
    pub(super) fn forget(&self, gone: &SchemaMetrics) {
        let labels = &gone.labels;
        self.dispatched.remove(labels);
        self.executing.remove(labels);
        self.in_queue.remove(labels);
        let SchemaLabels { flow_schema, priority_level } = labels;
        let own = |flow_schema: &str, priority_level: &str| (flow_schema.to_owned(), priority_level.to_owned());
        for reason in REASONS {
            let (flow_schema, priority_level) = own(flow_schema, priority_level);
            self.rejected.remove(&RejectedLabels { flow_schema, priority_level, reason });
        }
        for execute in ["true", "false"] {
            let (flow_schema, priority_level) = own(flow_schema, priority_level);
            self.wait.remove(&WaitLabels { flow_schema, priority_level, execute });
        }
    }

    /// All of it, with the seats of the levels of `table`.
    pub(super) fn collector(&self, table: Arc<ArcSwap<Table>>) -> Box<dyn Collector> {
        Box::new(All { metrics: self.clone(), table })
    }
}

impl SchemaMetrics {
    /// Whether both count under the same names.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.labels == other.labels
    }

    /// A request has its seats.
    pub(super) fn dispatched(&self) {
        self.dispatched.inc();
        self.executing.inc();
    }

    /// A request has given its seats back.
    pub(super) fn executed(&self) {
        self.executing.dec();
    }

    pub(super) fn enqueued(&self) {
        self.in_queue.inc();
    }

    pub(super) fn dequeued(&self) {
        self.in_queue.dec();
    }

    /// A request has its seats after it waited in a queue.
    pub(super) fn waited(&self, waited: Duration) {
        self.observe_wait("true", waited);
    }

    pub(super) fn rejected(&self, reason: &'static str, waited: Duration) {
        self.count_rejected(reason);
        self.observe_wait("false", waited);
    }

    /// The client of a request that waited has gone.
    pub(super) fn cancelled(&self) {
        self.count_rejected(CANCELLED);
    }

    pub(super) fn counts(&self) -> Counts {
        let rejected = |reason: &'static str| {
            let SchemaLabels { flow_schema, priority_level } = self.labels.clone();
            let labels = RejectedLabels { flow_schema, priority_level, reason };
            self.all.rejected.get(&labels).map_or(0, |counter| counter.get())
        };
        Counts {
            executing: u64::try_from(self.executing.get()).unwrap_or(0),
            dispatched: self.dispatched.get(),
            rejected: rejected(Rejection::ConcurrencyLimit.reason()) + rejected(Rejection::QueueFull.reason()),
            timed_out: rejected(Rejection::TimeOut.reason()),
            cancelled: rejected(CANCELLED),
        }
    }

    fn count_rejected(&self, reason: &'static str) {
        let SchemaLabels { flow_schema, priority_level } = self.labels.clone();
        self.all.rejected.get_or_create(&RejectedLabels { flow_schema, priority_level, reason }).inc();
    }

    fn observe_wait(&self, execute: &'static str, waited: Duration) {
        let SchemaLabels { flow_schema, priority_level } = self.labels.clone();
        let labels = WaitLabels { flow_schema, priority_level, execute };
        self.all.wait.get_or_create(&labels).observe(waited.as_secs_f64());
    }
}

/// The metrics with what is read when asked for.
struct All {
    metrics: Metrics,
    table: Arc<ArcSwap<Table>>,
}

impl std::fmt::Debug for All {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("All").finish_non_exhaustive()
    }
}

impl Collector for All {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Metrics { dispatched, rejected, executing, in_queue, wait } = &self.metrics;
        let mut encode = |name: &str, help: &str, metric: &dyn Encode| {
            metric.encode_to(&mut encoder, &format!("apiserver_flowcontrol_{name}"), help)
        };
        encode("dispatched_requests", "Requests that got their seats", dispatched)?;
        encode("rejected_requests", "Requests that got none, by the reason", rejected)?;
        encode("current_executing_requests", "Requests that have seats", executing)?;
        encode("current_inqueue_requests", "Requests that wait for seats", in_queue)?;
        encode("request_wait_duration_seconds", "How long requests waited that did not get seats at once", wait)?;
        let seats = |name: &str, help: &str, value: fn(&PriorityLevel) -> u32, encoder: &mut DescriptorEncoder<'_>| {
            let name = format!("apiserver_flowcontrol_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for level in self.table.load().levels().iter() {
                let value = ConstGauge::new(i64::from(value(level)));
                value.encode(family.encode_family(&[("priority_level", level.name.as_str())])?)?;
            }
            std::fmt::Result::Ok(())
        };
        let nominal = "Seats that are a level's part of the server's";
        seats("nominal_limit_seats", nominal, PriorityLevel::nominal, &mut encoder)?;
        seats("current_executing_seats", "Seats that are taken", PriorityLevel::executing, &mut encoder)
    }
}

/// A metric that can be written under a name of its own.
trait Encode {
    fn encode_to(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str) -> std::fmt::Result;
}

impl<M: EncodeMetric + TypedMetric> Encode for M {
    fn encode_to(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str) -> std::fmt::Result {
        self.encode(encoder.encode_descriptor(name, help, None, M::TYPE)?)
    }
}
