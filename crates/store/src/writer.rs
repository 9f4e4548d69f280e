//! The one writer: takes what is queued, writes it with one sync, shows it, and answers.
//!
//! A thread does that for transactions that come together. One that comes alone is written by whoever brings it: handing it
//! to the thread and the answer back takes two wake-ups, which together last about as long as a third of the sync.

use std::cmp::Ordering;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use crate::disk::{DiskError, Result};
use crate::health::Health;
use crate::stage::Staged;
use crate::state::Shared;
use crate::{CommitError, Committed, Event, Key, Op, Revision, Transaction};

/// How much is written together at most: while that is on its way, everyone else waits.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 4 << 20;

/// A disk that syncs within this is waited for on a worker of the runtime: to hand the worker's other tasks to another
/// thread and back takes about as long.
const PROMPT: Duration = Duration::from_micros(500);

/// What comes through the queue.
pub(crate) enum Request {
    /// Commit this, and say what became of it.
    Commit(Transaction, Reply),
    /// Finish what is queued and end.
    Close,
}

type Reply = oneshot::Sender<Result<Committed, CommitError>>;
/// Where the answer comes.
pub(crate) type Pending = oneshot::Receiver<Result<Committed, CommitError>>;
type Answer = (Reply, Result<Committed, CommitError>);

pub(crate) struct Writer {
    shared: Arc<Shared>,
    staged: Staged,
    /// The newest revision staged; the newest one visible, between batches.
    revision: Revision,
    /// The bytes of all log records so far.
    log_end: u64,
    /// Wakes who compacts, syncs the witness, and opens the database again after a failed write.
    maintenance: SyncSender<()>,
    compaction: CompactionTrigger,
    /// What is to be answered to those whose write failed, if the database turns out to have it, and why it failed.
    undecided: Vec<Answer>,
    failure: Arc<str>,
    /// Whether the last batch was a single transaction.
    sequential: bool,
    /// How long the disk took for the last batch.
    pace: Duration,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        staged: Staged,
        revision: Revision,
        log_end: u64,
        maintenance: SyncSender<()>,
    ) -> Self {
        let compaction =
            CompactionTrigger::new(shared.options.retain_revisions, shared.options.retain_bytes, revision, log_end);
        Self {
            shared,
            staged,
            revision,
            log_end,
            maintenance,
            compaction,
            undecided: Vec::new(),
            failure: Arc::default(),
            sequential: true,
            pace: Duration::MAX,
        }
    }

    /// Commits a single transaction at once, for whoever found nobody else writing or waiting. The answer is there, unless the
    /// write failed: then it comes once it is known what the disk has.
    pub(crate) fn commit_alone(&mut self, transaction: Transaction) -> Pending {
        let (reply, answer) = oneshot::channel();
        self.commit(&mut vec![(transaction, reply)]);
        answer
    }

    /// Moves some of the objects of a resource, those after a key, to other memory, and shows them there. Answers with the last;
    /// none when all were moved. Whoever writes waits meanwhile.
    pub(crate) fn repack(&mut self, resource: &str, after: Option<&Key>, most: usize) -> Option<Key> {
        // After a failed write, what is staged is not what may be seen.
        if self.shared.health.get().is_read_only() {
            return None;
        }
        let index = self.staged.index_mut(resource)?;
        let last = index.repack(after, most)?;
        drop(self.shared.show_repacked(resource, index.clone()));
        Some(last)
    }

    /// Whether transactions come one after the other, by the last batch.
    pub(crate) fn is_sequential(&self) -> bool {
        self.sequential
    }

    /// Whether the disk answers so soon, by the last batch, that a task may wait for it where it is.
    pub(crate) fn is_prompt(&self) -> bool {
        self.pace < PROMPT
    }

    fn commit(&mut self, gathered: &mut Vec<(Transaction, Reply)>) {
        if self.shared.health.is_impaired() {
            self.refuse(gathered);
            if gathered.is_empty() {
                return;
            }
        }
        self.sequential = gathered.len() < 2;
        let mut events = Vec::with_capacity(gathered.len());
        // Refusals wait as well: what they show as current may be part of this batch, and not be durable yet.
        let mut answers: Vec<Answer> = Vec::with_capacity(gathered.len());
        for (transaction, reply) in gathered.drain(..) {
            let ready = self.check_ready(&transaction);
            let outcome = ready.and_then(|()| self.staged.stage(transaction, self.revision, &mut events));
            if let Ok(committed) = &outcome {
                self.revision = committed.revision;
            }
            answers.push((reply, outcome));
        }
        if !events.is_empty()
            && let Err(error) = self.write(&events, answers.len())
        {
            // The disk may hold more than anyone was told, or less, and `staged` is ahead of both: see `maintain`.
            let why: Arc<str> = Arc::from(error.to_string());
            self.shared.fail(Arc::clone(&why));
            self.failure = why;
            self.undecided = answers;
            self.wake_maintenance();
            return;
        }
        let sync_due = !events.is_empty() && self.shared.witness.record(self.revision);
        let wakers = (!events.is_empty()).then(|| self.shared.publish(&self.staged, self.revision, events));
        let counters = &self.shared.counters;
        for (reply, answer) in answers {
            match answer {
                Ok(_) => counters.commits.fetch_add(1, Relaxed),
                Err(_) => counters.conflicts.fetch_add(1, Relaxed),
            };
            // Whoever no longer waits does not want to know.
            let _ = reply.send(answer);
        }
        if let Some(wakers) = wakers {
            wakers.wake();
        }
        let compaction_due = self.compaction.due(self.revision, self.log_end);
        if compaction_due {
            self.shared.compaction_due.store(true, Relaxed);
        }
        if compaction_due || sync_due {
            self.wake_maintenance();
        }
    }

    /// Answers those that may not write now, and leaves the others.
    fn refuse(&self, gathered: &mut Vec<(Transaction, Reply)>) {
        let health = self.shared.health.get();
        for (transaction, reply) in std::mem::take(gathered) {
            let refusal = match &health {
                Health::ReadOnly(why) => CommitError::ReadOnly(Arc::clone(why)),
                Health::DiskFull(why) if !transaction.uses_reserve => CommitError::DiskFull(Arc::clone(why)),
                Health::DiskFull(_) | Health::Healthy => {
                    gathered.push((transaction, reply));
                    continue;
                }
            };
            let _ = reply.send(Err(refusal));
        }
    }

    /// Refuses a transaction whose values cannot be written now: once it is staged, there is no way back.
    fn check_ready(&self, transaction: &Transaction) -> Result<(), CommitError> {
        let Some(transformer) = &self.shared.options.transformer else { return Ok(()) };
        let written = transaction.ops.iter().filter(|op| !matches!(op, Op::Check { .. }));
        let mut ready = written.map(|op| transformer.ready(&op.key().resource));
        ready.try_for_each(|ready| ready).map_err(|why| CommitError::NotReady(why.into()))
    }

    /// Wakes who opens the database again after a failed write.
    pub(crate) fn wake_maintenance(&self) {
        // A full channel means that it is about to look.
        let _ = self.maintenance.try_send(());
    }

    /// The bytes of all log records so far.
    pub(crate) fn log_end(&self) -> u64 {
        self.log_end
    }

    /// Goes on from what was found on disk, and answers those whose write failed. What is written together is found as a whole
    /// or not at all. If it is not there, the refusals among the answers say nothing either: they may have been found by it.
    pub(crate) fn resume(&mut self, staged: Staged, revision: Revision, log_end: u64) {
        let found = revision.cmp(&self.revision);
        (self.staged, self.revision, self.log_end) = (staged, revision, log_end);
        self.compaction.last = (revision, log_end);
        for (reply, answer) in std::mem::take(&mut self.undecided) {
            let why = Arc::clone(&self.failure);
            let _ = reply.send(match found {
                Ordering::Equal => answer,
                Ordering::Less => Err(CommitError::ReadOnly(why)),
                // The history was given up, with what was in it.
                Ordering::Greater => Err(CommitError::Uncertain(why)),
            });
        }
    }

    /// Leaves those whose write failed with that: it cannot be found out soon what became of it.
    pub(crate) fn leave_undecided(&mut self) {
        for (reply, _) in std::mem::take(&mut self.undecided) {
            let _ = reply.send(Err(CommitError::Uncertain(Arc::clone(&self.failure))));
        }
    }

    /// Writes events. When this returns, they are durable.
    fn write(&mut self, events: &[Arc<Event>], transactions: usize) -> Result<()> {
        let guard = self.shared.disk();
        let closed = || DiskError::Io("the store is closed".to_owned());
        let disk = guard.as_ref().ok_or_else(closed)?;
        let time = now();
        let mut batch = disk.batch()?;
        let mut end = self.log_end;
        let mut last = (0, 0);
        for event in events {
            let number = if event.revision == last.0 { last.1 + 1 } else { 0 };
            last = (event.revision, number);
            end = batch.add(event, number, time, end)?;
        }
        let start = Instant::now();
        disk.write(batch)?;
        self.pace = start.elapsed();
        let counters = &self.shared.counters;
        counters.written(transactions, self.pace);
        counters.log_bytes.fetch_add(end - self.log_end, Relaxed);
        self.log_end = end;
        Ok(())
    }
}

/// What the writer's thread does: it takes what is queued, until the queue is closed.
pub(crate) fn run(writer: &Mutex<Option<Writer>>, mut queue: mpsc::Receiver<Request>) {
    let mut gathered = Vec::new();
    while let Some(first) = queue.blocking_recv() {
        // While somebody else is writing, the batch gathers. Poisoned, a write has not ended: nothing is known of the disk.
        let Ok(mut writer) = writer.lock() else { break };
        let Some(writer) = writer.as_mut() else { break };
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Commit(transaction, reply) => {
                    bytes += size(&transaction);
                    gathered.push((transaction, reply));
                }
                Request::Close => queue.close(),
            }
            if gathered.len() >= BATCH || bytes >= BATCH_BYTES {
                break;
            }
            next = queue.try_recv().ok();
        }
        writer.commit(&mut gathered);
    }
    drop(writer.lock().unwrap_or_else(PoisonError::into_inner).take());
}

impl Drop for Writer {
    /// However the writer ends: nothing will change any more, and watchers must not wait for it.
    fn drop(&mut self) {
        self.leave_undecided();
        self.shared.close();
    }
}

/// When so much has been written that the size bounds should be looked at: an eighth of either.
struct CompactionTrigger {
    revisions: u64,
    bytes: u64,
    last: (Revision, u64),
}

impl CompactionTrigger {
    fn new(retain_revisions: u64, retain_bytes: u64, revision: Revision, end: u64) -> Self {
        Self {
            revisions: retain_revisions.div_ceil(8).max(1),
            bytes: retain_bytes.div_ceil(8).max(1),
            last: (revision, end),
        }
    }

    fn due(&mut self, revision: Revision, end: u64) -> bool {
        let due = revision - self.last.0 >= self.revisions || end - self.last.1 >= self.bytes;
        if due {
            self.last = (revision, end);
        }
        due
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn size(transaction: &Transaction) -> usize {
    let size = |op: &Op| match op {
        Op::Put { value, .. } | Op::Delete { last: value, .. } => value.bytes.len(),
        Op::Check { .. } => 0,
    };
    transaction.ops.iter().map(size).sum()
}
