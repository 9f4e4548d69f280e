//! What the controllers of a process do: the latest reconciles of each, and their metrics.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use crate::cause::{CauseRecord, ObjectVersion};
use crate::{Action, WorkQueue};

/// So many of the latest reconciles of one controller are kept.
const KEPT: usize = 64;

/// What the controllers of a process do. Cheap to clone; all clones are the same.
///
/// It is also a [`prometheus_client::collector::Collector`], with upstream's names.
#[derive(Debug, Clone, Default)]
pub struct Reconciles {
    // Never held across an await.
    controllers: Arc<Mutex<BTreeMap<&'static str, Arc<Stats>>>>,
}

impl Reconciles {
    /// An empty queue for the controller called `name`. One that starts again goes on with the numbers it had.
    pub fn queue<K: Clone + Eq + Hash>(&self, name: &'static str) -> WorkQueue<K> {
        let stats = Arc::clone(self.controllers().entry(name).or_insert_with(|| Arc::new(Stats::new(name))));
        // The keys of an earlier queue went with it.
        stats.set_depth(0);
        WorkQueue::new(stats)
    }

    /// The latest reconciles of a controller, oldest first.
    pub fn latest(&self, controller: &str) -> Vec<Arc<Reconcile>> {
        let stats = self.controllers().get(controller).cloned();
        stats.map(|stats| stats.latest().iter().cloned().collect()).unwrap_or_default()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Stats>> {
        self.controllers().values().cloned().collect()
    }

    fn controllers(&self) -> MutexGuard<'_, BTreeMap<&'static str, Arc<Stats>>> {
        self.controllers.lock()
    }
}

/// One reconcile of one key.
#[derive(Debug, Clone)]
pub struct Reconcile {
    /// The key.
    pub key: String,
    /// What woke it: the first few causes.
    pub causes: Vec<CauseRecord>,
    /// How many further causes there were.
    pub more_causes: usize,
    /// When it began.
    pub started_at: Timestamp,
    /// How long the key had waited by then.
    pub waited: Duration,
    /// How long it took.
    pub took: Duration,
    /// What it wrote: the first writes, in the order of their answers.
    pub writes: Vec<Write>,
    /// How many further writes there were.
    pub more_writes: usize,
    /// How it ended.
    pub ending: Ending,
    /// Why it did not do more, where the controller says so.
    pub reason: Option<&'static str>,
}

/// How a reconcile ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It waits for a change.
    AwaitChange,
    /// It is to be repeated after this time.
    RequeueAfter(Duration),
    /// It failed with this message and is tried again.
    Failed(String),
    /// It panicked and is tried again.
    Panicked,
}

impl From<Action> for Ending {
    fn from(action: Action) -> Self {
        match action {
            Action::AwaitChange => Self::AwaitChange,
            Action::RequeueAfter(delay) => Self::RequeueAfter(delay),
        }
    }
}

/// A write of a reconcile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The verb of the API: `create`, `update`, `patch`, `delete`.
    pub verb: &'static str,
    /// What was written, at the revision that the write led to.
    pub object: ObjectVersion,
    /// The subresource; empty for the object itself.
    pub subresource: &'static str,
    /// The status code with which it was refused; zero if nobody answered, so that it may be done; none if it was done.
    pub refused: Option<u16>,
}

impl fmt::Display for Write {
    /// `patch ReplicaSet default/web-5d4f @124`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.object)?;
        if !self.subresource.is_empty() {
            write!(f, " ({})", self.subresource)?;
        }
        match self.refused {
            None => Ok(()),
            Some(0) => f.write_str(": not answered"),
            Some(code) => write!(f, ": refused with {code}"),
        }
    }
}

impl fmt::Display for Reconcile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("woken by ")?;
        list(f, &self.causes, self.more_causes)?;
        f.write_str("; wrote ")?;
        list(f, &self.writes, self.more_writes)?;
        match &self.ending {
            Ending::AwaitChange => f.write_str("; waits for a change")?,
            Ending::RequeueAfter(delay) => write!(f, "; again in {delay:?}")?,
            Ending::Failed(error) => write!(f, "; failed: {error}")?,
            Ending::Panicked => f.write_str("; panicked")?,
        }
        self.reason.map_or(Ok(()), |reason| write!(f, " ({reason})"))
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T], more: usize) -> fmt::Result {
    let Some((first, others)) = items.split_first() else { return f.write_str("nothing") };
    write!(f, "{first}")?;
    others.iter().try_for_each(|item| write!(f, ", {item}"))?;
    if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
}

/// What is counted of one controller, and its latest reconciles.
#[derive(Debug)]
pub(crate) struct Stats {
    name: &'static str,
    pub(crate) adds: Counter,
    pub(crate) retries: Counter,
    pub(crate) panics: Counter,
    depth: AtomicUsize,
    pub(crate) queue_duration: Histogram,
    pub(crate) work_duration: Histogram,
    pub(crate) reconcile_time: Histogram,
    pub(crate) results: Results,
    // Never held across an await.
    running: Mutex<Vec<Instant>>,
    latest: Mutex<VecDeque<Arc<Reconcile>>>,
}

/// How many reconciles ended how: the label `result` of controller-runtime.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) success: Counter,
    pub(crate) requeue_after: Counter,
    pub(crate) error: Counter,
}

impl Stats {
    fn new(name: &'static str) -> Self {
        // upstream: `pkg/util/workqueue/prometheus` of component-base has `ExponentialBuckets(10e-9, 10, 12)`.
        let workqueue = || Histogram::new((-8..4).map(|exponent| 10_f64.powi(exponent)));
        // controller-runtime: `pkg/internal/controller/metrics`, thinned out.
        let reconcile_time = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
        Self {
            name,
            adds: Counter::default(),
            retries: Counter::default(),
            panics: Counter::default(),
            depth: AtomicUsize::new(0),
            queue_duration: workqueue(),
            work_duration: workqueue(),
            reconcile_time: Histogram::new(reconcile_time),
            results: Results::default(),
            running: Mutex::default(),
            latest: Mutex::default(),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn added(&self) {
        self.adds.inc();
    }

    pub(crate) fn retried(&self) {
        self.retries.inc();
    }

    pub(crate) fn set_depth(&self, depth: usize) {
        self.depth.store(depth, Ordering::Relaxed);
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth.load(Ordering::Relaxed)
    }

    /// Counts a reconcile as running until the guard goes, also where it is dropped before its end.
    pub(crate) fn begin(self: &Arc<Self>, started: Instant, waited: Duration) -> Running {
        self.queue_duration.observe(waited.as_secs_f64());
        self.running().push(started);
        Running { stats: Arc::clone(self), started }
    }

    pub(crate) fn ended(&self, reconcile: Reconcile) {
        self.work_duration.observe(reconcile.took.as_secs_f64());
        self.reconcile_time.observe(reconcile.took.as_secs_f64());
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
        let mut latest = self.latest();
        if latest.len() == KEPT {
            latest.pop_front();
        }
        latest.push_back(Arc::new(reconcile));
    }

    /// How long the reconciles that are running have taken so far.
    pub(crate) fn unfinished(&self) -> Vec<Duration> {
        self.running().iter().map(Instant::elapsed).collect()
    }

    fn running(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.running.lock()
    }

    fn latest(&self) -> MutexGuard<'_, VecDeque<Arc<Reconcile>>> {
        self.latest.lock()
    }
}

/// A reconcile that is running.
pub(crate) struct Running {
    stats: Arc<Stats>,
    started: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.stats.running();
        if let Some(place) = running.iter().position(|started| *started == self.started) {
            running.swap_remove(place);
        }
    }
}
