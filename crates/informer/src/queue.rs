//! A queue of keys to reconcile, as upstream's `workqueue`: each key is in it at most once, is worked on by at most one
//! worker at a time, and comes back later if it failed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

/// The first retry of a failed key comes after this time, each further one after twice as long.
const FIRST_RETRY: Duration = Duration::from_millis(5);
/// No retry waits longer than this.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// What a reconcile of a key asks of its queue: the `Action` of `kube::runtime::controller`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Reconcile again when something changes.
    AwaitChange,
    /// Reconcile again after this time, even if nothing changes.
    RequeueAfter(Duration),
}

/// A queue of keys. Cheap to clone; all clones are the same queue.
pub struct WorkQueue<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

struct Shared<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

struct State<K> {
    /// Keys to hand out, oldest first.
    ready: VecDeque<K>,
    /// Keys that need work: those in `ready`, and those being worked on that were added again meanwhile.
    dirty: HashSet<K>,
    /// Keys handed out and not yet done.
    processing: HashSet<K>,
    /// Keys to add at a later time; the earliest wish for each.
    delayed: Delayed<K>,
    failures: HashMap<K, u32>,
}

/// Keys with the time at which they are due. Two views of one set: by time, to find what is due, and by key.
struct Delayed<K> {
    by_time: BTreeMap<Due, K>,
    by_key: HashMap<K, Due>,
    sequence: u64,
}

/// A time, and a number that tells keys apart which are due at the same one.
type Due = (Instant, u64);

impl<K: Clone + Eq + Hash> Delayed<K> {
    fn insert(&mut self, key: K, at: Instant) {
        match self.by_key.get(&key) {
            Some((earlier, _)) if *earlier <= at => return,
            Some(_) => self.remove(&key),
            None => {}
        }
        self.sequence += 1;
        let due = (at, self.sequence);
        self.by_time.insert(due, key.clone());
        self.by_key.insert(key, due);
    }

    fn remove(&mut self, key: &K) {
        if let Some(due) = self.by_key.remove(key) {
            self.by_time.remove(&due);
        }
    }

    fn next_time(&self) -> Option<Instant> {
        self.by_time.keys().next().map(|(at, _)| *at)
    }

    fn pop_due(&mut self, now: Instant) -> Option<K> {
        let entry = self.by_time.first_entry()?;
        if entry.key().0 > now {
            return None;
        }
        let key = entry.remove();
        self.by_key.remove(&key);
        Some(key)
    }
}

impl<K> Default for WorkQueue<K> {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    ready: VecDeque::new(),
                    dirty: HashSet::new(),
                    processing: HashSet::new(),
                    delayed: Delayed { by_time: BTreeMap::new(), by_key: HashMap::new(), sequence: 0 },
                    failures: HashMap::new(),
                }),
                wake: Notify::new(),
            }),
        }
    }
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for work on `key`, now.
    pub fn add(&self, key: K) {
        let mut state = self.state();
        state.delayed.remove(&key);
        if state.mark(key) {
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// Asks for work on `key` after `delay`. Of several such wishes the earliest counts.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        self.state().delayed.insert(key, at);
        // A worker may sleep towards a later time.
        self.shared.wake.notify_one();
    }

    /// The next key to work on. Each key handed out must be given back with [`WorkQueue::done`].
    pub async fn next(&self) -> K {
        loop {
            // Registered before the state is read, so that no wake-up falls in between.
            let woken = self.shared.wake.notified();
            let (key, next_due, more) = {
                let mut state = self.state();
                let next_due = state.take_due(Instant::now());
                (state.hand_out(), next_due, !state.ready.is_empty())
            };
            if let Some(key) = key {
                if more {
                    self.shared.wake.notify_one();
                }
                return key;
            }
            match next_due {
                Some(due) => tokio::select! {
                    () = woken => {}
                    () = tokio::time::sleep_until(due) => {}
                },
                None => woken.await,
            }
        }
    }

    /// Gives back a key that [`WorkQueue::next`] handed out, after it was reconciled.
    pub fn done(&self, key: K, action: Action) {
        self.finish(&key);
        self.state().failures.remove(&key);
        if let Action::RequeueAfter(delay) = action {
            self.add_after(key, delay);
        }
    }

    /// Gives back a key whose reconciliation failed. It returns after a back-off, which is the answer.
    pub fn failed(&self, key: K) -> Duration {
        self.finish(&key);
        let failures = {
            let mut state = self.state();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures += 1;
            *failures
        };
        let delay = FIRST_RETRY.saturating_mul(1 << (failures - 1).min(20)).min(LONGEST_RETRY);
        self.add_after(key, delay);
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

    fn finish(&self, key: &K) {
        let mut state = self.state();
        state.processing.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// Notes that `key` needs work; true if it can be handed out at once.
    fn mark(&mut self, key: K) -> bool {
        if !self.dirty.insert(key.clone()) || self.processing.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    /// Moves the delayed keys whose time has come; the time of the next one.
    fn take_due(&mut self, now: Instant) -> Option<Instant> {
        while let Some(key) = self.delayed.pop_due(now) {
            self.mark(key);
        }
        self.delayed.next_time()
    }

    fn hand_out(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.processing.insert(key.clone());
        Some(key)
    }
}

/// Works off `queue` with as many `workers`, until `cancel` is triggered; then lets the reconciliations under way end.
///
/// A reconciliation that fails or panics is logged and tried again after a back-off; it harms no other key.
pub async fn run<K, E, F, R>(
    name: &'static str,
    queue: WorkQueue<K>,
    workers: usize,
    cancel: CancellationToken,
    reconcile: R,
) where
    K: Clone + Eq + Hash + Debug + Send + Sync + 'static,
    E: Display,
    F: Future<Output = Result<Action, E>> + Send,
    R: Fn(K) -> F + Send + Sync,
{
    let worker = || async {
        loop {
            let key = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                key = queue.next() => key,
            };
            match AssertUnwindSafe(reconcile(key.clone())).catch_unwind().await {
                Ok(Ok(action)) => queue.done(key, action),
                Ok(Err(error)) => {
                    let again_in = queue.failed(key.clone());
                    warn!(queue = name, ?key, %error, ?again_in, "reconciliation failed");
                }
                Err(_) => {
                    let again_in = queue.failed(key.clone());
                    error!(queue = name, ?key, ?again_in, "reconciliation panicked");
                }
            }
        }
    };
    futures::future::join_all((0..workers.max(1)).map(|_| worker())).await;
}

#[cfg(test)]
mod tests;
