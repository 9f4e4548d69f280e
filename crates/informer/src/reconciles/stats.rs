//! What is counted of one controller or component, and its latest reconciles.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use super::{DurationMetric, Ending, Reconcile};
use crate::journal::Journal;
use crate::pause::PauseSwitch;

/// So many of the latest reconciles of one controller are kept.
const KEPT: usize = 64;

/// What is counted of one controller or component, and its latest reconciles.
#[derive(Debug)]
pub(crate) struct Stats {
    name: &'static str,
    pause: PauseSwitch,
    /// Whether it heeds a pause.
    is_pausable: bool,
    queue: Option<QueueStats>,
    durations: Option<Durations>,
    pub(crate) panics: Counter,
    pub(crate) reconcile_time: Histogram,
    pub(crate) results: Results,
    // Never held across an await.
    running: Mutex<Vec<Instant>>,
    latest: Mutex<VecDeque<Arc<Reconcile>>>,
    /// Of all components.
    journal: Journal,
}

/// How many reconciles ended how: the label `result` of controller-runtime.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) success: Counter,
    pub(crate) requeue_after: Counter,
    pub(crate) error: Counter,
}

/// What is counted of a work queue.
#[derive(Debug)]
pub(crate) struct QueueStats {
    pub(crate) adds: Counter,
    pub(crate) retries: Counter,
    depth: AtomicUsize,
    next: Mutex<NextOf>,
    pub(crate) queue_duration: Histogram,
    pub(crate) work_duration: Histogram,
}

impl Default for QueueStats {
    fn default() -> Self {
        // upstream: `pkg/util/workqueue/prometheus` of component-base has `ExponentialBuckets(10e-9, 10, 12)`.
        let workqueue = || Histogram::new((-8..4).map(|exponent| 10_f64.powi(exponent)));
        Self {
            adds: Counter::default(),
            retries: Counter::default(),
            depth: AtomicUsize::new(0),
            next: Mutex::new(NextOf(Box::new(|| None))),
            queue_duration: workqueue(),
            work_duration: workqueue(),
        }
    }
}

/// Work that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Next {
    /// Its key.
    pub(crate) key: String,
    /// Since when it waits.
    pub(crate) since: Instant,
}

/// Tells what a queue hands out next. It is the queue that knows the type of its keys.
struct NextOf(Box<dyn Fn() -> Option<Next> + Send + Sync>);

impl std::fmt::Debug for NextOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NextOf")
    }
}

impl QueueStats {
    pub(crate) fn depth(&self) -> usize {
        self.depth.load(Ordering::Relaxed)
    }
}

/// Names of labels with their values.
type Labels = Vec<(&'static str, String)>;

/// What upstream counts of a component.
#[derive(Debug)]
pub(crate) struct Durations {
    pub(crate) metric: DurationMetric,
    pub(crate) seconds: Family<Labels, Histogram, fn() -> Histogram>,
    pub(crate) count: Family<Labels, Counter>,
}

impl Durations {
    fn new(metric: DurationMetric) -> Self {
        // upstream: `ExponentialBuckets(0.001, 2, 15)` in `pkg/scheduler/metrics` and `pkg/proxy/metrics`.
        let buckets = || Histogram::new((0..15).map(|exponent| 0.001 * 2_f64.powi(exponent)));
        Self { metric, seconds: Family::new_with_constructor(buckets), count: Family::default() }
    }

    /// Counts a reconcile, unless it panicked before it had values for the labels.
    fn observe(&self, values: &[&str], took: Duration) {
        if values.len() != self.metric.labels.len() {
            return;
        }
        let labels: Labels =
            self.metric.labels.iter().zip(values).map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
        if self.metric.counter.is_some() {
            self.count.get_or_create(&labels).inc();
        }
    }
}

impl Stats {
    pub(super) fn new(
        name: &'static str,
        is_pausable: bool,
        queue: Option<QueueStats>,
        durations: Option<DurationMetric>,
        journal: Journal,
    ) -> Self {
        // controller-runtime: `pkg/internal/controller/metrics`, thinned out.
        let reconcile_time = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
        Self {
            name,
            pause: PauseSwitch::default(),
            is_pausable,
            queue,
            durations: durations.map(Durations::new),
            panics: Counter::default(),
            reconcile_time: Histogram::new(reconcile_time),
            results: Results::default(),
            running: Mutex::default(),
            latest: Mutex::default(),
            journal,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn pause(&self) -> &PauseSwitch {
        &self.pause
    }

    pub(super) fn is_pausable(&self) -> bool {
        self.is_pausable
    }

    /// Has `next` asked for what its work queue hands out next.
    pub(super) fn set_next(&self, next: impl Fn() -> Option<Next> + Send + Sync + 'static) {
        if let Some(queue) = &self.queue {
            *queue.next.lock() = NextOf(Box::new(next));
        }
    }

    /// How much work waits: in its queue, or for the end of a pause.
    pub(super) fn waiting(&self) -> usize {
        self.queue.as_ref().map_or_else(|| self.pause.waiting(), QueueStats::depth)
    }

    /// The work that is done next.
    pub(super) fn next(&self) -> Option<Next> {
        match &self.queue {
            Some(queue) => (queue.next.lock().0)(),
            None => self.pause.next().map(|(key, since)| Next { key, since }),
        }
    }

    /// What is counted of its work queue, if it has one.
    pub(crate) fn queue(&self) -> Option<&QueueStats> {
        self.queue.as_ref()
    }

    /// What upstream counts of it.
    pub(crate) fn durations(&self) -> Option<&Durations> {
        self.durations.as_ref()
    }

    pub(crate) fn added(&self) {
        if let Some(queue) = &self.queue {
            queue.adds.inc();
        }
    }

    pub(crate) fn retried(&self) {
        if let Some(queue) = &self.queue {
            queue.retries.inc();
        }
    }

    pub(crate) fn set_depth(&self, depth: usize) {
        if let Some(queue) = &self.queue {
            queue.depth.store(depth, Ordering::Relaxed);
        }
    }

    pub(super) fn begun(&self, started: Instant, waited: Duration) {
        // What runs is told of work queues alone.
        let Some(queue) = &self.queue else { return };
        queue.queue_duration.observe(waited.as_secs_f64());
        self.running.lock().push(started);
    }

    /// One that has begun at this time runs no longer, for whatever reason.
    pub(super) fn stopped(&self, started: Instant) {
        if self.queue.is_none() {
            return;
        }
        let mut running = self.running.lock();
        if let Some(place) = running.iter().position(|began| *began == started) {
            running.swap_remove(place);
        }
    }

    /// Counts a reconcile that ended, and keeps it. `labels` are the values of those that the component's metric has.
    pub(super) fn ended(&self, reconcile: Reconcile, labels: &[&str]) -> Arc<Reconcile> {
        self.reconcile_time.observe(reconcile.took.as_secs_f64());
        if let Some(queue) = &self.queue {
            queue.work_duration.observe(reconcile.took.as_secs_f64());
        }
        if let Some(durations) = &self.durations {
            durations.observe(labels, reconcile.took);
        }
        match &reconcile.ending {
            Ending::AwaitChange => &self.results.success,
            Ending::RequeueAfter(_) => &self.results.requeue_after,
            Ending::Failed(_) => &self.results.error,
            Ending::Panicked => {
                self.panics.inc();
                &self.results.error
            }
        }
        .inc();
        self.journal.note(self.name, &reconcile);
        let mut latest = self.latest();
        if latest.len() == KEPT {
            latest.pop_front();
        }
        let reconcile = Arc::new(reconcile);
        latest.push_back(Arc::clone(&reconcile));
        reconcile
    }

    /// How long the reconciles that are running have taken so far.
    pub(crate) fn unfinished(&self) -> Vec<Duration> {
        self.running.lock().iter().map(Instant::elapsed).collect()
    }

    pub(super) fn latest(&self) -> MutexGuard<'_, VecDeque<Arc<Reconcile>>> {
        self.latest.lock()
    }
}
