//! The store as its users see it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex as StdMutex, mpsc as std_mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task;
use tokio::time::{Instant, timeout_at};

use crate::ballast::{Ballast, says_full};
use crate::disk::{Disk, DiskError, refuse};
use crate::health::Health;
use crate::history::{self, Compacted, HistoryError};
use crate::recover::{Recovered, recover, without_history};
use crate::state::{AttributesOf, Shared};
use crate::transformer::Decoder;
use crate::writer::{self, Pending, Request, Writer};
use crate::{
    Attributes, CommitError, Committed, Entry, Key, LogWatcher, LoggedChange, OpenError, Options, Past, Revision,
    Snapshot, Stats, Transaction, Watcher, compact, log, maintain, past, rewrite,
};

/// How many transactions may wait before those who bring more have to wait too.
const QUEUE: usize = 4096;

/// How long a transaction that may use the reserve waits for a store that takes no writes.
const REOPENING: Duration = Duration::from_secs(5);

/// An open store. Copies are the same store.
///
/// It closes when the last copy is dropped, or with [`close`](Store::close), which says when it is done.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    /// Taken out when the last copy of the store is dropped, so that the writer ends.
    queue: Option<mpsc::Sender<Request>>,
    /// Gone when the thread has ended that writes what is queued.
    writer: Arc<StdMutex<Option<Writer>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Store {
    /// Opens the store in a directory, or begins a new one there. Blocks on the disk while it reads all objects.
    ///
    /// `attributes_of` takes out of an object what selectors ask for; it is called for every object now, and later for what is read
    /// back from the log. It must say what those who commit objects say.
    ///
    /// # Errors
    /// When another process has it, the disk cannot be read, or what it holds is damaged; each says in a line what to do.
    pub fn open(
        options: Options,
        attributes_of: impl Fn(&Key, &[u8]) -> Attributes + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let accept_loss = options.accept_loss;
        let opened = Self::open_with(options, Box::new(attributes_of));
        opened.map_err(|error| if accept_loss { error.after_acceptance() } else { error })
    }

    fn open_with(options: Options, attributes_of: Box<AttributesOf>) -> Result<Self, OpenError> {
        let decoder = Decoder { attributes_of, transformer: options.transformer.clone() };
        let path = options.path.clone();
        let (disk, ballast, unwritable) = open_disk(&options)?;
        if !options.fsync {
            tracing::warn!("the store does not sync: a crash of the machine loses commits");
        }
        let recovered = match recover(&disk, &options, &decoder) {
            Err(DiskError::Corrupt(_)) if options.accept_loss => without_history(&disk, &options, &decoder),
            recovered => recovered,
        };
        let Recovered { published, staged, log_end } = recovered.map_err(|error| refuse(&path, error))?;
        let revision = published.revision;
        tracing::debug!(revision, horizon = published.horizon, "opened the store");

        let health = match unwritable {
            Some(why) => Health::ReadOnly(why.into()),
            None => maintain::with_ballast(&ballast),
        };
        health.log();
        let shared = Arc::new(Shared::new(published, disk, ballast, health, options, decoder));
        let (queue, queued) = mpsc::channel(QUEUE);
        let (tell, told) = std_mpsc::sync_channel(1);
        let writer = Writer::new(Arc::clone(&shared), staged, revision, log_end, tell);
        let writer = Arc::new(StdMutex::new(Some(writer)));
        let maintained = Arc::clone(&shared);
        let (queue_writer, maintained_writer) = (Arc::clone(&writer), Arc::clone(&writer));
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
            thread.map_err(|error| refuse(&path, DiskError::Io(error.to_string())))
        };
        let threads = vec![
            spawn("store-writer", Box::new(move || writer::run(&queue_writer, queued)))?,
            // It ends when the writer does, who alone can tell it something.
            spawn("store-maintain", Box::new(move || maintain::run(&maintained, &maintained_writer, &told)))?,
        ];
        Ok(Self(Arc::new(Inner { shared, queue: Some(queue), writer, threads: Mutex::new(threads) })))
    }

    /// Commits a transaction. When this returns, it is durable and visible to all readers.
    ///
    /// One that may use the reserve waits some seconds for a store that takes no writes: mostly it is about to be opened again,
    /// with little space, and then there is somebody who makes some.
    ///
    /// Dropping the future does not take back what was queued: it may be committed nevertheless. On a runtime of several
    /// threads the calling thread may be blocked while the disk syncs; tokio's `LocalSet` does not allow that, and panics.
    ///
    /// # Errors
    /// When a precondition fails, the store takes no such writes now, or it is not known whether the disk has it.
    pub async fn commit(&self, transaction: impl Into<Transaction>) -> Result<Committed, CommitError> {
        let mut transaction = transaction.into();
        if !transaction.uses_reserve {
            return self.commit_once(transaction).await;
        }
        let until = Instant::now() + REOPENING;
        loop {
            let again = transaction.clone();
            match self.commit_once(transaction).await {
                // Nothing was changed.
                Err(CommitError::ReadOnly(_)) if self.takes_writes(until).await => transaction = again,
                answer => return answer,
            }
        }
    }

    /// Waits until the store takes writes, or until it is too late.
    async fn takes_writes(&self, until: Instant) -> bool {
        let mut health = self.0.shared.health.subscribe();
        let reopened = timeout_at(until, health.wait_for(|health| !health.is_read_only())).await;
        Instant::now() < until && matches!(reopened, Ok(Ok(_)))
    }

    async fn commit_once(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let queue = self.0.queue.as_ref().ok_or(CommitError::Closed)?;
        let answer = match self.0.commit_alone(queue, transaction) {
            Ok(answer) => answer,
            Err(transaction) => {
                let (reply, answer) = oneshot::channel();
                queue.send(Request::Commit(transaction, reply)).await.map_err(|_| CommitError::Closed)?;
                answer
            }
        };
        answer.await.unwrap_or(Err(CommitError::Closed))
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.0.shared.published().revision
    }

    /// The object of this name as it is now.
    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        let published = self.0.shared.published();
        let state = published.resource(&key.resource)?;
        state.index.get(&key.namespace, &key.name).cloned()
    }

    /// All objects of a resource (`GROUP/RESOURCE`) as they are now.
    pub fn snapshot(&self, resource: &str) -> Snapshot {
        let published = self.0.shared.published();
        let state = published.resource(resource);
        let index = state.map(|state| state.index.clone()).unwrap_or_default();
        Snapshot::new(published.revision, index)
    }

    /// All objects of a resource as they were at a revision: for the later pages of a list.
    ///
    /// Events in memory are taken back where they suffice; otherwise those on disk.
    ///
    /// # Errors
    /// When the revision has been compacted, has not happened yet, or the disk cannot be read.
    pub async fn snapshot_at(&self, resource: &str, revision: Revision) -> Result<Snapshot, HistoryError> {
        let shared = &self.0.shared;
        let requested = revision;
        let (mut index, current, undone) = {
            let published = shared.published();
            let (current, horizon) = (published.revision, published.horizon);
            if revision > current {
                return Err(HistoryError::Future { requested, current });
            }
            let in_memory = published.ring_reaches(resource, revision);
            if revision < horizon && !in_memory {
                return Err(Compacted { requested, horizon }.into());
            }
            let state = published.resource(resource);
            let events = || state.iter().flat_map(|s| s.ring.after(revision));
            let undone = in_memory.then(|| events().cloned().collect::<Vec<_>>());
            let index = state.map(|state| state.index.clone()).unwrap_or_default();
            (index, current, undone)
        };
        if undone.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Snapshot::new(revision, index));
        }
        if let Some(page) = shared.page(resource, revision) {
            return Ok(page);
        }
        let index = match undone {
            Some(events) => {
                history::undo(&mut index, &events);
                index
            }
            None => {
                let shared = Arc::clone(shared);
                let resource = resource.to_owned();
                task::spawn_blocking(move || history::rewind(&shared, &resource, index, current, revision))
                    .await
                    .map_err(|error| HistoryError::Io(Arc::from(error.to_string())))??
            }
        };
        let snapshot = Snapshot::new(revision, index);
        shared.cache_snapshot(resource, snapshot.clone());
        Ok(snapshot)
    }

    /// The objects of all resources as they are now, at one revision.
    pub fn everything(&self) -> (Revision, Vec<(Arc<str>, Snapshot)>) {
        let published = self.0.shared.published();
        let revision = published.revision;
        let resources = published.resources();
        let all = resources
            .map(|(resource, state)| (Arc::clone(resource), Snapshot::new(revision, state.index.clone())))
            .collect();
        (revision, all)
    }

    /// The objects of all resources as they were at a revision.
    ///
    /// # Errors
    /// As [`Store::snapshot_at`].
    pub async fn everything_at(&self, revision: Revision) -> Result<Vec<(Arc<str>, Snapshot)>, HistoryError> {
        let store = self.clone();
        // A resource may have lost all of its objects, and that before the store was opened.
        let resources = task::spawn_blocking(move || {
            let mut resources: BTreeSet<Arc<str>> = store.resources().into_iter().collect();
            store.walk_log(revision, Revision::MAX, |change| {
                if !resources.contains(&change.key.resource) {
                    resources.insert(Arc::clone(&change.key.resource));
                }
            })?;
            Ok::<_, HistoryError>(resources)
        });
        let resources = resources.await.map_err(|error| HistoryError::Io(Arc::from(error.to_string())))??;
        let mut all = Vec::with_capacity(resources.len());
        for resource in resources {
            let snapshot = self.snapshot_at(&resource, revision).await?;
            all.push((resource, snapshot));
        }
        Ok(all)
    }

    /// How far back objects can be read, and which revision was the newest at a time, in milliseconds since 1970.
    ///
    /// # Errors
    /// When the disk cannot be read, or the store is closed.
    pub async fn past(&self, time: u64) -> Result<Past, HistoryError> {
        let shared = Arc::clone(&self.0.shared);
        let found = task::spawn_blocking(move || past::at(&shared, time)).await;
        Ok(found.map_err(|error| HistoryError::Io(Arc::from(error.to_string())))??)
    }

    /// Follows the events of a resource after a revision. A revision that has not happened yet is waited for.
    ///
    /// # Errors
    /// When what happened after the revision has been compacted.
    pub fn watch(&self, resource: &str, after: Revision) -> Result<Watcher, Compacted> {
        Watcher::new(Arc::clone(&self.0.shared), resource, after)
    }

    /// Follows the changes of all resources after a revision, those of wanted keys. A revision that has not happened yet is
    /// waited for.
    ///
    /// # Errors
    /// When what happened after the revision has been compacted.
    pub fn watch_log(
        &self,
        after: Revision,
        wanted: impl Fn(&Key) -> bool + Send + Sync + 'static,
    ) -> Result<LogWatcher, Compacted> {
        LogWatcher::new(Arc::clone(&self.0.shared), after, Arc::new(wanted))
    }

    /// The oldest revision whose state can be shown, and after which changes can be.
    pub fn horizon(&self) -> Revision {
        self.0.shared.published().horizon
    }

    /// Shows the changes of all resources after a revision, up to and with another or the newest, oldest first. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// When what happened after the revision has been compacted, before or while it is looked at; when the disk cannot be read,
    /// or the store is closed.
    pub fn walk_log(
        &self,
        after: Revision,
        upto: Revision,
        look: impl FnMut(&LoggedChange<'_>),
    ) -> Result<(), HistoryError> {
        log::walk(&self.0.shared, after, upto, look)
    }

    /// The resources (`GROUP/RESOURCE`) that have objects, or had some since the store was opened, sorted.
    pub fn resources(&self) -> Vec<Arc<str>> {
        let published = self.0.shared.published();
        let mut resources: Vec<_> = published.resources().map(|(resource, _)| Arc::clone(resource)).collect();
        resources.sort_unstable();
        resources
    }

    /// Brings the log within the bounds of the settings now. Returns the horizon: the oldest revision that is left.
    ///
    /// # Errors
    /// When the disk cannot be written, or the store is closed.
    pub async fn compact_now(&self) -> Result<Revision, HistoryError> {
        self.compacting(compact::by_bounds).await
    }

    /// Forgets the log up to and with a revision, so that the state of that revision is the oldest that is left.
    /// Returns the horizon, which may be later already.
    ///
    /// # Errors
    /// As [`Store::compact_now`]; also for a revision that has not happened yet.
    pub async fn compact(&self, to: Revision) -> Result<Revision, HistoryError> {
        let current = self.revision();
        if to > current {
            let requested = to;
            return Err(HistoryError::Future { requested, current });
        }
        self.compacting(move |shared| compact::compact(shared, to)).await
    }

    /// Writes every value again that the transformer would write in another way now, objects and history, and rids the disk of
    /// the old ones. Revisions stay as they are, and nobody notices. Returns how many objects it were. It may be called again after it
    /// failed, or the process ended in the midst of it.
    ///
    /// # Errors
    /// When the disk cannot be read or written, or the store is closed.
    pub async fn rewrite(&self) -> Result<u64, HistoryError> {
        let (shared, writer) = (Arc::clone(&self.0.shared), Arc::clone(&self.0.writer));
        let done = task::spawn_blocking(move || rewrite::rewrite(&shared, &writer)).await;
        Ok(done.map_err(|error| HistoryError::Io(Arc::from(error.to_string())))??)
    }

    /// What the store measures of itself.
    pub fn stats(&self) -> Stats {
        use std::sync::atomic::Ordering::Relaxed;
        let shared = &self.0.shared;
        let (revision, horizon, mut objects) = {
            let published = shared.published();
            let objects: Vec<(Arc<str>, usize)> =
                published.resources().map(|(resource, state)| (Arc::clone(resource), state.index.len())).collect();
            (published.revision, published.horizon, objects)
        };
        objects.sort_unstable();
        let counters = &shared.counters;
        Stats {
            revision,
            horizon,
            objects,
            commits: counters.commits.load(Relaxed),
            conflicts: counters.conflicts.load(Relaxed),
            log_bytes: counters.log_bytes.load(Relaxed),
            log_reads: counters.log_reads.load(Relaxed),
            compactions: counters.compactions.load(Relaxed),
            fsync: counters.fsync(),
            batch: counters.batch(),
        }
    }

    /// Whether the store takes writes.
    pub fn health(&self) -> Health {
        self.0.shared.health.get()
    }

    /// Whether the store takes writes, for who waits for a change.
    pub fn watch_health(&self) -> watch::Receiver<Health> {
        self.0.shared.health.subscribe()
    }

    /// Commits what is queued, ends all watches, and closes the database: when this returns, the directory may be opened again.
    /// Other copies of the store can still read what was in memory.
    pub async fn close(&self) {
        if let Some(queue) = &self.0.queue {
            // It may be closed already.
            let _ = queue.send(Request::Close).await;
        }
        let mut threads = self.0.threads.lock().await;
        let ended = std::mem::take(&mut *threads);
        let shared = Arc::clone(&self.0.shared);
        // Fails only if the runtime is shutting down; then dropping the store does it.
        let _ = task::spawn_blocking(move || end(ended, &shared)).await;
    }

    async fn compacting(
        &self,
        work: impl FnOnce(&Shared) -> Result<Revision, DiskError> + Send + 'static,
    ) -> Result<Revision, HistoryError> {
        let (shared, writer) = (Arc::clone(&self.0.shared), Arc::clone(&self.0.writer));
        let done = task::spawn_blocking(move || {
            let done = work(&shared);
            maintain::wake_if_failed(&shared, &writer);
            done
        })
        .await;
        Ok(done.map_err(|error| HistoryError::Io(Arc::from(error.to_string())))??)
    }

    /// Whether somebody writes just now.
    #[cfg(test)]
    pub(crate) fn is_writing(&self) -> bool {
        self.0.writer.try_lock().is_err()
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }
}

impl Inner {
    /// Commits at once what comes alone, in the task that brings it; gives it back where others write or wait, or where a
    /// task may not block.
    fn commit_alone(&self, queue: &mpsc::Sender<Request>, transaction: Transaction) -> Result<Pending, Transaction> {
        let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
        let may_block = matches!(flavor, Ok(RuntimeFlavor::MultiThread));
        if !may_block || queue.capacity() != queue.max_capacity() {
            return Err(transaction);
        }
        let Ok(mut writer) = self.writer.try_lock() else {
            return Err(transaction);
        };
        match writer.as_mut().filter(|writer| writer.is_sequential()) {
            Some(writer) if writer.is_prompt() => Ok(writer.commit_alone(transaction)),
            Some(writer) => Ok(task::block_in_place(|| writer.commit_alone(transaction))),
            None => Err(transaction),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue = None;
        let threads = std::mem::take(self.threads.get_mut());
        end(threads, &self.shared);
    }
}

/// Opens the database; with the space of the ballast if the disk is full, and for reading alone if that is not enough. Says
/// why when it is that.
fn open_disk(options: &Options) -> Result<(Disk, Ballast, Option<String>), OpenError> {
    // How large it is depends on the file system of the directory, which opening makes.
    let ballast = || Ballast::new(&options.path, options.ballast);
    let opened = Disk::open(options)
        .or_else(|error| if is_full(&error) && ballast().release() { Disk::open(options) } else { Err(error) });
    match opened {
        Ok(disk) => {
            let ballast = ballast();
            ballast.release_if_low();
            Ok((disk, ballast, None))
        }
        Err(error) if is_full(&error) => {
            // There may be nothing to read yet: then the disk is the reason.
            let why = error.to_string();
            let disk = Disk::open_read_only(options).map_err(|_| error)?;
            Ok((disk, ballast(), Some(why)))
        }
        Err(error) => Err(error),
    }
}

/// Whether a database cannot be opened because there is no space for what opening writes.
fn is_full(error: &OpenError) -> bool {
    match error {
        OpenError::Io { detail, .. } => says_full(detail),
        OpenError::Unwritable { error, .. } => says_full(&error.to_string()),
        _ => false,
    }
}

/// Waits for the threads, then closes the database.
fn end(threads: Vec<JoinHandle<()>>, shared: &Shared) {
    for thread in threads {
        let _ = thread.join();
    }
    shared.close_disk();
}
