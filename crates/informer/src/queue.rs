//! A queue of keys to reconcile, as upstream's `workqueue`: each key is in it at most once, is worked on by at most one
//! worker at a time, and comes back later if it failed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Display;
use std::hash::Hash;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::OptionFuture;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::cause::{Cause, Causes};
use crate::pause::StepPermit;
use crate::reconciles::{Next, Stats};
use crate::sparse::give_back;
use crate::{Action, Change, ObjectKey};

/// The first retry of a failed key comes after this time, each further one after twice as long.
const FIRST_RETRY: Duration = Duration::from_millis(5);
/// No retry waits longer than this.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// A queue of keys. Cheap to clone; all clones are the same queue.
pub struct WorkQueue<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// A queue that goes when those who work on it go: for handlers of informers that live longer.
pub struct WeakWorkQueue<K> {
    shared: Weak<Shared<K>>,
}

impl<K> Clone for WeakWorkQueue<K> {
    fn clone(&self) -> Self {
        Self { shared: Weak::clone(&self.shared) }
    }
}

impl<K> WeakWorkQueue<K> {
    /// The queue, if it is still there.
    pub fn upgrade(&self) -> Option<WorkQueue<K>> {
        self.shared.upgrade().map(|shared| WorkQueue { shared })
    }
}

struct Shared<K> {
    // Never held across an await.
    state: Mutex<State<K>>,
    notify: Notify,
    stats: Arc<Stats>,
}

struct State<K> {
    /// Keys to hand out, oldest first.
    ready: VecDeque<K>,
    /// Keys that need work: those in `ready`, and those being worked on that were added again meanwhile.
    dirty: HashMap<K, Causes>,
    /// Keys handed out and not yet done.
    processing: HashSet<K>,
    /// Keys to add at a later time; the earliest for each.
    delayed: Delayed<K>,
    failures: HashMap<K, u32>,
}

/// A key that [`WorkQueue::next`] hands out.
#[derive(Debug)]
pub struct Work<K> {
    /// The key.
    pub key: K,
    /// Why it was added.
    pub causes: Causes,
    /// What let it through, where the queue is paused.
    pub(crate) step: Option<StepPermit>,
}

/// Keys with the time at which they are due. Two views of one set: by time, to find what is due, and by key.
struct Delayed<K> {
    by_time: BTreeMap<Due, (K, Cause)>,
    by_key: HashMap<K, Due>,
    sequence: u64,
}

/// A time, and a number that tells keys apart which are due at the same one.
type Due = (Instant, u64);

impl<K: Clone + Eq + Hash> Delayed<K> {
    fn insert(&mut self, key: K, at: Instant, cause: Cause) {
        match self.by_key.get(&key) {
            Some((earlier, _)) if *earlier <= at => return,
            Some(_) => self.remove(&key),
            None => {}
        }
        self.sequence += 1;
        let due = (at, self.sequence);
        self.by_time.insert(due, (key.clone(), cause));
        self.by_key.insert(key, due);
    }

    fn remove(&mut self, key: &K) {
        if let Some(due) = self.by_key.remove(key) {
            self.by_time.remove(&due);
            give_back(&mut self.by_key);
        }
    }

    fn next_time(&self) -> Option<Instant> {
        self.by_time.keys().next().map(|(at, _)| *at)
    }

    fn pop_due(&mut self, now: Instant) -> Option<(K, Cause)> {
        let entry = self.by_time.first_entry()?;
        if entry.key().0 > now {
            return None;
        }
        let (key, cause) = entry.remove();
        self.by_key.remove(&key);
        give_back(&mut self.by_key);
        Some((key, cause))
    }
}

impl<K> WorkQueue<K> {
    /// An empty queue, whose numbers are counted in `stats`.
    pub(crate) fn new(stats: Arc<Stats>) -> Self {
        // The keys of an earlier queue went with it.
        stats.set_depth(0);
        let delayed = Delayed { by_time: BTreeMap::new(), by_key: HashMap::new(), sequence: 0 };
        let state = State {
            ready: VecDeque::new(),
            dirty: HashMap::new(),
            processing: HashSet::new(),
            delayed,
            failures: HashMap::new(),
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), notify: Notify::new(), stats }) }
    }

    /// The same queue, for those who are not to keep it.
    pub fn downgrade(&self) -> WeakWorkQueue<K> {
        WeakWorkQueue { shared: Arc::downgrade(&self.shared) }
    }

    pub(crate) fn stats(&self) -> &Arc<Stats> {
        &self.shared.stats
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.shared.state.lock()
    }
}

impl<K: Eq + Hash + Display> WeakWorkQueue<K> {
    /// The key that is handed out next, and since when it is in the queue.
    pub(crate) fn next(&self) -> Option<Next> {
        let queue = self.upgrade()?;
        let state = queue.state();
        let key = state.ready.front()?;
        Some(Next { key: key.to_string(), since: state.dirty.get(key)?.since() })
    }
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    /// Asks for work on `key`, now, because of `cause`.
    pub fn add(&self, key: K, cause: Cause) {
        let mut state = self.state();
        state.delayed.remove(&key);
        if state.mark(key, cause, &self.shared.stats) {
            drop(state);
            self.shared.notify.notify_one();
        }
    }

    /// Asks for work on `key` after `delay`. Of several such requests the earliest counts.
    pub fn add_after(&self, key: K, delay: Duration, cause: Cause) {
        if delay.is_zero() {
            return self.add(key, cause);
        }
        let at = Instant::now() + delay;
        self.state().delayed.insert(key, at, cause);
        // A worker may sleep towards a later time.
        self.shared.notify.notify_one();
    }

    /// The next key to work on. Each key handed out must be given back with [`WorkQueue::done`] or [`WorkQueue::failed`].
    ///
    /// While the queue is paused, keys wait in it, and each step that is asked for hands out one.
    pub async fn next(&self) -> Work<K> {
        let pause = self.shared.stats.pause();
        loop {
            // Registered before the state is read, so that no wake-up falls in between.
            let notified = self.shared.notify.notified();
            let changed = pause.is_paused().then(|| pause.changed());
            let (work, next_due, more, paused) = {
                let mut state = self.state();
                let next_due = state.take_due(Instant::now(), &self.shared.stats);
                // Asked under the lock: nothing that was added after the pause began is handed out.
                let paused = pause.is_paused();
                let work = match paused {
                    false => state.hand_out(None, &self.shared.stats),
                    true if state.ready.is_empty() => None,
                    true => pause.take_step().and_then(|step| state.hand_out(Some(step), &self.shared.stats)),
                };
                (work, next_due, !state.ready.is_empty(), paused)
            };
            if let Some(work) = work {
                if more {
                    self.shared.notify.notify_one();
                }
                return work;
            }
            if paused && changed.is_none() {
                // The pause began in between, and its end would be missed.
                continue;
            }
            tokio::select! {
                () = notified => {}
                Some(()) = OptionFuture::from(changed) => {}
                Some(()) = OptionFuture::from(next_due.map(tokio::time::sleep_until)) => {}
            }
        }
    }

    /// Gives back a key that [`WorkQueue::next`] handed out, after it was reconciled.
    pub fn done(&self, key: K, action: Action) {
        self.finish(&key);
        self.forgive(&key);
        if let Action::RequeueAfter(delay) = action {
            self.add_after(key, delay, Cause::REQUEUE_AFTER);
        }
    }

    /// Gives back a key whose reconcile failed. It returns after a back-off, which is the answer.
    pub fn failed(&self, key: K) -> Duration {
        self.finish(&key);
        let failures = {
            let mut state = self.state();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures += 1;
            *failures
        };
        self.shared.stats.retried();
        let delay = FIRST_RETRY.saturating_mul(1 << (failures - 1).min(20)).min(LONGEST_RETRY);
        self.add_after(key, delay, Cause::RETRY);
        delay
    }

    /// How many keys wait to be worked on now.
    pub fn len(&self) -> usize {
        self.state().ready.len()
    }

    /// Whether no key waits to be worked on now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn forgive(&self, key: &K) {
        let mut state = self.state();
        state.failures.remove(key);
        give_back(&mut state.failures);
    }

    fn finish(&self, key: &K) {
        let mut state = self.state();
        state.processing.remove(key);
        if state.dirty.contains_key(key) {
            state.ready.push_back(key.clone());
            self.shared.stats.set_depth(state.ready.len());
            drop(state);
            self.shared.notify.notify_one();
        }
    }
}

impl WorkQueue<ObjectKey> {
    /// Asks for work on the object that changed.
    pub fn add_changed<O: kube::Resource + Send + Sync + 'static>(&self, change: &Change<O>) {
        self.add(change.key(), change.cause());
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// Notes that `key` needs work; true if it can be handed out at once.
    fn mark(&mut self, key: K, cause: Cause, stats: &Stats) -> bool {
        if let Some(causes) = self.dirty.get_mut(&key) {
            causes.push(cause);
            return false;
        }
        stats.added();
        self.dirty.insert(key.clone(), Causes::new(cause));
        if self.processing.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        stats.set_depth(self.ready.len());
        true
    }

    /// Moves the delayed keys whose time has come; the time of the next one.
    fn take_due(&mut self, now: Instant, stats: &Stats) -> Option<Instant> {
        while let Some((key, cause)) = self.delayed.pop_due(now) {
            self.mark(key, cause, stats);
        }
        self.delayed.next_time()
    }

    fn hand_out(&mut self, step: Option<StepPermit>, stats: &Stats) -> Option<Work<K>> {
        let key = self.ready.pop_front()?;
        stats.set_depth(self.ready.len());
        let causes = self.dirty.remove(&key)?;
        give_back(&mut self.dirty);
        self.processing.insert(key.clone());
        Some(Work { key, causes, step })
    }
}

#[cfg(test)]
mod tests;
