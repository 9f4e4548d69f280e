//! What the controllers and other components of a process do: the latest reconciles of each, and their metrics.

mod components;
mod running;
mod stats;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};

use crate::cause::{CauseRecord, ObjectVersion};
use crate::journal::{Journal, JournalEntry};
use crate::{Action, WorkQueue};

pub use components::Component;
pub(crate) use running::Trace;
pub use running::{ReconcileReporter, Running};
pub(crate) use stats::{Durations, Next, QueueStats, Stats};

/// How many bytes of an error are kept. The log has all of it.
const LONGEST_ERROR: usize = 1024;

/// A component that is no controller with a work queue, and reports its work as one: the kubelet's pod workers, the
/// scheduler, the proxy, DNS. For controllers, [`crate::run`] reports.
pub trait Reconciler {
    /// Its name in spans, metrics and [`Reconciles::latest`].
    const NAME: &'static str;
    /// The metric that upstream has for how long one of its reconciles takes.
    const DURATION: Option<DurationMetric>;
    /// Whether it heeds [`ReconcileReporter::pause`] before each piece of work.
    const IS_PAUSABLE: bool = false;
}

/// A histogram of durations under upstream's name. Its buckets are those of kube-scheduler and kube-proxy: 1 ms, 2 ms, and
/// so on to 16 s.
#[derive(Debug, Clone, Copy)]
pub struct DurationMetric {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// The counter of the same reconciles by the same labels, where upstream has one: its name without `_total`, and what
    /// it means.
    pub counter: Option<(&'static str, &'static str)>,
}

/// What the controllers and other components of a process do. Cheap to clone; all clones are the same.
///
/// It is also a [`prometheus_client::collector::Collector`], with upstream's names.
#[derive(Debug, Clone, Default)]
pub struct Reconciles {
    // Never held across an await.
    controllers: Arc<Mutex<BTreeMap<&'static str, Arc<Stats>>>>,
    journal: Journal,
    /// Whether a work queue that is made is paused from the start.
    pauses_new: Arc<AtomicBool>,
}

impl Reconciles {
    /// An empty queue for the controller called `name`. One that starts again goes on with the numbers it had.
    pub fn queue<K>(&self, name: &'static str) -> WorkQueue<K>
    where
        K: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static,
    {
        let new = || {
            let stats = Stats::new(name, true, Some(QueueStats::default()), None, self.journal.clone());
            if self.pauses_new.load(Ordering::Relaxed) {
                stats.pause().pause();
            }
            Arc::new(stats)
        };
        let stats = Arc::clone(self.controllers().entry(name).or_insert_with(new));
        let queue = WorkQueue::new(Arc::clone(&stats));
        let weak = queue.downgrade();
        stats.set_next(move || weak.next());
        queue
    }

    /// Whether controllers that start from now on for the first time are paused, as those of an addon that is enabled while all
    /// are.
    pub fn set_pauses_new(&self, paused: bool) {
        self.pauses_new.store(paused, Ordering::Relaxed);
    }

    /// What `R` reports with. One that starts again goes on with the numbers it had.
    pub fn reporter<R: Reconciler>(&self) -> ReconcileReporter {
        let new = || Arc::new(Stats::new(R::NAME, R::IS_PAUSABLE, None, R::DURATION, self.journal.clone()));
        ReconcileReporter::new(Arc::clone(self.controllers().entry(R::NAME).or_insert_with(new)))
    }

    /// The latest reconciles of a controller or component, oldest first.
    pub fn latest(&self, controller: &str) -> Vec<Arc<Reconcile>> {
        let stats = self.controllers().get(controller).cloned();
        stats.map(|stats| stats.latest().iter().cloned().collect()).unwrap_or_default()
    }

    /// Shows what the components did lately, as far as anything came of it, in the order in which it ended.
    pub fn journal(&self, look: impl FnMut(JournalEntry<'static>)) {
        self.journal.read(look);
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
    /// What it did to anything but the API, or began to do: the first actions.
    pub actions: Vec<Did>,
    /// How many further actions there were.
    pub more_actions: usize,
    /// How it ended.
    pub ending: Ending,
    /// Why it did not do more, where it says so.
    pub reason: Option<Cow<'static, str>>,
}

/// Something that a reconcile did to anything but the API, or began to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Did {
    /// How long after its beginning.
    pub after: Duration,
    /// What, in words.
    pub what: Cow<'static, str>,
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
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

impl Ending {
    /// The end of a reconcile that failed for this reason.
    pub fn failed(error: &impl fmt::Display) -> Self {
        Self::Failed(shorten(error.to_string()))
    }
}

/// The beginning of a text for people.
fn shorten(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(LONGEST_ERROR));
    text
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
        if self.actions.is_empty() || !self.writes.is_empty() {
            f.write_str("; wrote ")?;
            list(f, &self.writes, self.more_writes)?;
        }
        if !self.actions.is_empty() {
            f.write_str("; did ")?;
            list(f, &self.actions, self.more_actions)?;
        }
        match &self.ending {
            Ending::AwaitChange => f.write_str("; waits for a change")?,
            Ending::RequeueAfter(delay) => write!(f, "; again in {delay:?}")?,
            Ending::Failed(error) => write!(f, "; failed: {error}")?,
            Ending::Panicked => f.write_str("; panicked")?,
        }
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, " ({reason})"))
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T], more: usize) -> fmt::Result {
    let Some((first, others)) = items.split_first() else { return f.write_str("nothing") };
    write!(f, "{first}")?;
    others.iter().try_for_each(|item| write!(f, ", {item}"))?;
    if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
}

#[cfg(test)]
mod tests;
