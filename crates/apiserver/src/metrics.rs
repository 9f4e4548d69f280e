//! `/metrics`: requests, watches and the store, in the names upstream has where it has one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use machinery::Verb;
use parking_lot::{Mutex, MutexGuard};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, LabelSetEncoder, NoLabelSet};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry as Metered;
use store::Store;

/// What a request is counted under. Cheap to make: nothing is copied.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Labels {
    /// The verb of the API, or the method of a request that is about no resource.
    pub(crate) verb: Verb<'static>,
    /// `GROUP/RESOURCE` as the store has it; none for other paths.
    pub(crate) resource: Option<Arc<str>>,
    /// The subresource, or empty.
    pub(crate) subresource: &'static str,
    /// The status code.
    pub(crate) code: u16,
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        let (group, resource) = self.resource.as_deref().and_then(|name| name.split_once('/')).unwrap_or(("", ""));
        let group = if group == "core" { "" } else { group };
        EncodeLabelSet::encode(
            &[
                ("verb", self.verb.as_str()),
                ("group", group),
                ("resource", resource),
                ("subresource", self.subresource),
                ("code", http::StatusCode::from_u16(self.code).as_ref().map_or("", |code| code.as_str())),
            ],
            encoder,
        )
    }
}

type VerbLabel = [(&'static str, &'static str); 1];

/// Everything that is counted.
pub(crate) struct Metrics {
    // Never held across an await.
    registry: Mutex<Metered>,
    requests: Family<Labels, Counter>,
    durations: Family<VerbLabel, Histogram, fn() -> Histogram>,
    in_flight: Arc<InFlight>,
    watchers: Gauge,
    panics: Counter,
}

/// Requests being answered.
#[derive(Debug, Default)]
struct InFlight(AtomicI64);

impl Metrics {
    /// Counters, all at zero, and what the store counts itself.
    pub(crate) fn new(store: &Store) -> Self {
        let buckets = || Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0]);
        let metrics = Self {
            registry: Mutex::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(buckets),
            in_flight: Arc::default(),
            watchers: Gauge::default(),
            panics: Counter::default(),
        };
        let mut registry = Metered::default();
        registry.register("apiserver_request", "Requests by verb, resource and status code", metrics.requests.clone());
        registry.register(
            "apiserver_request_duration_seconds",
            "Time from the head of a request to the head of its response, watches left out",
            metrics.durations.clone(),
        );
        registry.register("apiserver_longrunning_requests", "Watches being served", metrics.watchers.clone());
        registry.register("apiserver_request_panics", "Requests whose handler panicked", metrics.panics.clone());
        registry
            .register_collector(Box::new(Gauges { in_flight: Arc::clone(&metrics.in_flight), store: store.clone() }));
        Self { registry: Mutex::new(registry), ..metrics }
    }

    /// Adds the metrics of somebody else.
    pub(crate) fn register(&self, collector: Box<dyn Collector>) {
        self.registry().register_collector(collector);
    }

    fn registry(&self) -> MutexGuard<'_, Metered> {
        self.registry.lock()
    }

    /// Counts a request as being answered until the guard goes.
    pub(crate) fn begin(&self) -> impl Drop + Send + use<> {
        struct Guard(Arc<InFlight>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.in_flight.0.fetch_add(1, Ordering::Relaxed);
        Guard(Arc::clone(&self.in_flight))
    }

    /// Counts a watch until the guard goes.
    pub(crate) fn watch(&self) -> impl Drop + Send + use<> {
        struct Guard(Gauge);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.dec();
            }
        }
        self.watchers.inc();
        Guard(self.watchers.clone())
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, labels: &Labels, took: Duration) {
        self.requests.get_or_create(labels).inc();
        if labels.verb != Verb::Watch {
            self.durations.get_or_create(&[("verb", labels.verb.as_str())]).observe(took.as_secs_f64());
        }
    }

    /// Counts a panic.
    pub(crate) fn panicked(&self) {
        self.panics.inc();
    }

    /// The text, in the OpenMetrics form of Prometheus.
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &self.registry()) {
            tracing::error!(%error, "cannot encode the metrics");
        }
        text
    }
}

/// The media type of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is read when asked for.
struct Gauges {
    in_flight: Arc<InFlight>,
    store: Store,
}

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gauges").finish_non_exhaustive()
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let stats = self.store.stats();
        let in_flight = self.in_flight.0.load(Ordering::Relaxed);
        gauge(&mut encoder, "apiserver_current_inflight_requests", "Requests being answered", in_flight)?;
        gauge(&mut encoder, "store_revision", "The newest revision", signed(stats.revision))?;
        gauge(&mut encoder, "store_compacted_revision", "The log is compacted up to here", signed(stats.horizon))?;
        counter(&mut encoder, "store_commits", "Transactions committed", stats.commits)?;
        counter(&mut encoder, "store_conflicts", "Transactions refused by a precondition", stats.conflicts)?;
        counter(&mut encoder, "store_log_bytes", "Bytes written to the log", stats.log_bytes)?;
        counter(&mut encoder, "store_log_reads", "Reads of watchers from the log on disk", stats.log_reads)?;
        counter(&mut encoder, "store_compactions", "Compactions of the log", stats.compactions)?;
        histogram(&mut encoder, "store_fsync_duration_seconds", "Time of a synced write", &stats.fsync)?;
        histogram(&mut encoder, "store_batch_transactions", "Transactions written together", &stats.batch)?;
        let mut objects = encoder.encode_descriptor(
            "apiserver_storage_objects",
            "Stored objects by resource",
            None,
            MetricType::Gauge,
        )?;
        for (resource, count) in &stats.objects {
            let labels = [("resource", resource.as_ref())];
            objects.encode_family(&labels)?.encode_gauge(&i64::try_from(*count).unwrap_or(i64::MAX))?;
        }
        if let Some(bytes) = resident_bytes() {
            gauge(&mut encoder, "process_resident_memory_bytes", "Resident memory", bytes)?;
        }
        Ok(())
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> std::fmt::Result {
    let value = ConstGauge::new(value);
    value.encode(encoder.encode_descriptor(name, help, None, ConstGauge::<i64>::TYPE)?)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> std::fmt::Result {
    let value = ConstCounter::new(value);
    value.encode(encoder.encode_descriptor(name, help, None, ConstCounter::<u64>::TYPE)?)
}

fn histogram(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: &store::Histogram,
) -> std::fmt::Result {
    let mut buckets: Vec<(f64, u64)> = value.bounds.iter().copied().zip(value.counts.iter().copied()).collect();
    let above = value.count - value.counts.iter().sum::<u64>().min(value.count);
    buckets.push((f64::INFINITY, above));
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    metric.encode_histogram::<NoLabelSet>(value.sum, value.count, &buckets, None)
}

/// As the kernel counts it.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}
