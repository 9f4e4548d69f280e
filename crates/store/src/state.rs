//! What readers and watchers see, and what all parts of the store share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

use crate::ballast::Ballast;
use crate::disk::{Disk, DiskError, Result};
use crate::health::{Health, HealthState};
use crate::history::HistoryError;
use crate::index::Index;
use crate::ring::Ring;
use crate::stage::Staged;
use crate::stats::Counters;
use crate::transformer::Decoder;
use crate::witness::Witness;
use crate::{Attributes, Event, Key, Options, Revision, Snapshot};

/// How the attributes of an object are found out from its bytes.
pub(crate) type AttributesOf = dyn Fn(&Key, &[u8]) -> Attributes + Send + Sync;

/// How many rebuilt snapshots are kept for the next page of a list, and for how long.
const PAGES: usize = 8;
const PAGE_AGE: Duration = Duration::from_secs(20);

/// What the writer, the compactor, readers and watchers share.
pub(crate) struct Shared {
    published: RwLock<Published>,
    /// Taken out when the store is closed, or while it has to be opened again. Whoever uses the disk holds the lock for
    /// reading, so closing waits for them.
    disk: RwLock<Option<Disk>>,
    /// Wakes those who follow all resources, once for each batch.
    any: watch::Sender<()>,
    /// Snapshots of earlier revisions that were asked for.
    pages: Mutex<Vec<Page>>,
    pub(crate) ballast: Ballast,
    pub(crate) witness: Witness,
    pub(crate) health: HealthState,
    /// So much has been written that the bounds of the log should be looked at.
    pub(crate) compaction_due: AtomicBool,
    /// Held while the log is compacted.
    pub(crate) compacting: Mutex<()>,
    pub(crate) counters: Counters,
    pub(crate) options: Options,
    pub(crate) decoder: Decoder,
}

/// What is durable, and so may be seen.
pub(crate) struct Published {
    /// The newest revision.
    pub(crate) revision: Revision,
    /// The log has been compacted up to and with this revision.
    pub(crate) horizon: Revision,
    /// Nothing will change any more.
    pub(crate) closed: bool,
    /// Where the ring of a resource begins that has had no events since the store was opened.
    floor: Revision,
    resources: HashMap<Arc<str>, ResourceState>,
}

/// The objects of one resource, their recent events, and whom to wake for them.
pub(crate) struct ResourceState {
    pub(crate) index: Index,
    pub(crate) ring: Ring,
    /// Wakes the watchers, once for each batch.
    pub(crate) signal: watch::Sender<()>,
}

/// What remains to be done when something has been published, and may wait until the writers have their answers.
#[must_use]
pub(crate) struct Wake {
    signals: Vec<watch::Sender<()>>,
    /// What was visible before. Freed with this, where nobody waits for it.
    _indexes: Vec<(Arc<str>, Index)>,
    _evicted: Vec<Arc<Event>>,
}

impl Wake {
    /// Wakes the watchers of what has changed, each once.
    pub(crate) fn wake(self) {
        for signal in &self.signals {
            signal.send_replace(());
        }
    }
}

struct Page {
    resource: Arc<str>,
    snapshot: Snapshot,
    used: Instant,
}

impl Shared {
    pub(crate) fn new(
        published: Published,
        disk: Disk,
        ballast: Ballast,
        health: Health,
        options: Options,
        decoder: Decoder,
    ) -> Self {
        Self {
            // A database that is only read has nothing new to record.
            witness: Witness::new(&options.path, options.fsync, published.revision),
            compaction_due: AtomicBool::new(false),
            published: RwLock::new(published),
            disk: RwLock::new(Some(disk)),
            ballast,
            health: HealthState::new(health),
            any: watch::Sender::new(()),
            pages: Mutex::default(),
            compacting: Mutex::default(),
            counters: Counters::new(),
            options,
            decoder,
        }
    }

    pub(crate) fn published(&self) -> RwLockReadGuard<'_, Published> {
        self.published.read()
    }

    fn published_mut(&self) -> RwLockWriteGuard<'_, Published> {
        self.published.write()
    }

    /// The disk, as long as the store is open and can read it.
    pub(crate) fn disk(&self) -> RwLockReadGuard<'_, Option<Disk>> {
        self.disk.read()
    }

    /// The place of the disk, once nobody uses it.
    pub(crate) fn disk_mut(&self) -> RwLockWriteGuard<'_, Option<Disk>> {
        self.disk.write()
    }

    /// Closes the database, once nobody uses it.
    pub(crate) fn close_disk(&self) {
        let disk = self.disk_mut().take();
        drop(disk);
    }

    /// Why there is no disk.
    pub(crate) fn no_disk(&self) -> HistoryError {
        match self.health.get() {
            Health::ReadOnly(why) if !self.published().closed => HistoryError::Io(why),
            _ => HistoryError::Closed,
        }
    }

    /// Lets nobody write until the database was opened again.
    pub(crate) fn fail(&self, why: Arc<str>) {
        self.health.set(Health::ReadOnly(why));
    }

    /// The same after a write of the database that failed, whosever it was.
    pub(crate) fn fail_with<T>(&self, done: Result<T>) -> Result<T> {
        if let Err(DiskError::Io(why)) = &done {
            self.fail(why.as_str().into());
        }
        done
    }

    /// The wake-up of one resource. A resource that nobody has written to yet comes into being.
    pub(crate) fn signal(&self, resource: &Arc<str>) -> watch::Receiver<()> {
        if let Some(state) = self.published().resources.get(resource) {
            return state.signal.subscribe();
        }
        let mut published = self.published_mut();
        let floor = published.floor;
        let state = published
            .resources
            .entry(Arc::clone(resource))
            .or_insert_with(|| ResourceState::new(Index::default(), floor, &self.options));
        state.signal.subscribe()
    }

    /// The wake-up of all resources.
    pub(crate) fn any_signal(&self) -> watch::Receiver<()> {
        self.any.subscribe()
    }

    /// Shows what has become durable: all of it at once, to readers and to watchers alike. Watchers sleep on until they are
    /// woken by what this returns.
    pub(crate) fn publish(&self, staged: &Staged, revision: Revision, events: Vec<Arc<Event>>) -> Wake {
        let mut touched: Vec<(Arc<str>, Index)> = Vec::new();
        for event in &events {
            let resource = &event.entry.key.resource;
            if !touched.iter().any(|(r, _)| r == resource) {
                let index = staged.index(resource).cloned().unwrap_or_default();
                touched.push((Arc::clone(resource), index));
            }
        }
        let mut signals = Vec::with_capacity(touched.len());
        let mut garbage = Vec::new();
        {
            let mut published = self.published_mut();
            let published = &mut *published;
            for (resource, index) in &mut touched {
                let state = published
                    .resources
                    .entry(Arc::clone(resource))
                    .or_insert_with(|| ResourceState::new(Index::default(), published.floor, &self.options));
                std::mem::swap(&mut state.index, index);
                signals.push(state.signal.clone());
            }
            for event in events {
                if let Some(state) = published.resources.get_mut(&event.entry.key.resource) {
                    state.ring.push(event, &mut garbage);
                }
            }
            published.revision = revision;
        }
        // Whoever comes only now looks at the revision first, and needs no waking for this one.
        if self.any.receiver_count() > 0 {
            signals.push(self.any.clone());
        }
        Wake { signals, _indexes: touched, _evicted: garbage }
    }

    /// Shows an index of the same entries in another place. What is no longer visible is handed back, to be freed outside of the
    /// lock.
    pub(crate) fn show_repacked(&self, resource: &str, mut index: Index) -> Index {
        if let Some(state) = self.published_mut().resources.get_mut(resource) {
            std::mem::swap(&mut state.index, &mut index);
        }
        index
    }

    /// Raises the horizon, so that from now on nobody begins to read the log before it.
    /// Returns false if it is there already.
    pub(crate) fn raise_horizon(&self, to: Revision) -> bool {
        let mut garbage = Vec::new();
        {
            let mut published = self.published_mut();
            if to <= published.horizon || to > published.revision {
                return false;
            }
            published.horizon = to;
            for state in published.resources.values_mut() {
                state.ring.trim(to, &mut garbage);
            }
        }
        self.pages().retain(|p| p.snapshot.revision() >= to);
        true
    }

    /// Lets go of the events in memory up to and with a revision. Whoever is further behind reads them from the log.
    pub(crate) fn trim_rings(&self, through: Revision) {
        let mut garbage = Vec::new();
        for state in self.published_mut().resources.values_mut() {
            state.ring.trim(through, &mut garbage);
        }
    }

    /// Tells everyone that nothing will change any more.
    pub(crate) fn close(&self) {
        let mut published = self.published_mut();
        published.closed = true;
        for state in published.resources.values() {
            state.signal.send_replace(());
        }
        self.any.send_replace(());
    }

    /// A snapshot of an earlier revision, if it was asked for before.
    pub(crate) fn page(&self, resource: &str, revision: Revision) -> Option<Snapshot> {
        let mut pages = self.pages();
        let page = pages.iter_mut().find(|p| *p.resource == *resource && p.snapshot.revision() == revision)?;
        page.used = Instant::now();
        Some(page.snapshot.clone())
    }

    /// Keeps a snapshot of an earlier revision for whoever asks next.
    pub(crate) fn cache_snapshot(&self, resource: &str, snapshot: Snapshot) {
        let mut pages = self.pages();
        if pages.len() >= PAGES
            && let Some(oldest) = (0..pages.len()).min_by_key(|at| pages[*at].used)
        {
            pages.swap_remove(oldest);
        }
        pages.push(Page { resource: Arc::from(resource), snapshot, used: Instant::now() });
    }

    /// Forgets snapshots that nobody asked for lately: they keep deleted objects in memory.
    pub(crate) fn expire_pages(&self) {
        self.pages().retain(|p| p.used.elapsed() < PAGE_AGE);
    }

    fn pages(&self) -> parking_lot::MutexGuard<'_, Vec<Page>> {
        self.pages.lock()
    }
}

impl Published {
    pub(crate) fn new(
        revision: Revision,
        horizon: Revision,
        floor: Revision,
        resources: HashMap<Arc<str>, ResourceState>,
    ) -> Self {
        Self { revision, horizon, closed: false, floor, resources }
    }

    pub(crate) fn resource(&self, resource: &str) -> Option<&ResourceState> {
        self.resources.get(resource)
    }

    pub(crate) fn resources(&self) -> impl Iterator<Item = (&Arc<str>, &ResourceState)> {
        self.resources.iter()
    }

    /// Whether every event of a resource after a revision is in memory.
    pub(crate) fn ring_reaches(&self, resource: &str, after: Revision) -> bool {
        match self.resources.get(resource) {
            Some(state) => state.ring.reaches(after),
            None => after >= self.floor,
        }
    }
}

impl ResourceState {
    pub(crate) fn new(index: Index, floor: Revision, options: &Options) -> Self {
        Self { index, ring: Ring::new(floor, options.ring, options.ring_bytes), signal: watch::Sender::new(()) }
    }
}
