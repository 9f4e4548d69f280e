//! What is done in the background: compacting the log, syncing the witness, and getting over writes that failed.
//!
//! After a failed write nobody knows what the disk holds: a record may be there in part, or whole and not synced, and a
//! later sync that succeeds says nothing of an earlier one that failed. So nothing is built on it. The database is closed and
//! opened again, which reads its write-ahead log and writes what it found into new, synced files; what it found is the truth.
//! It holds all that was acknowledged, and perhaps transactions whose write failed: those are shown now, like any other, and
//! whoever waits for an answer gets it. Only if the database does not open at once, they are told that it is uncertain.
//! Revisions go on after the last one found.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::Revision;
use crate::ballast::{Ballast, says_full};
use crate::compact;
use crate::disk::{Disk, Lock};
use crate::health::Health;
use crate::recover::{CaughtUp, catch_up};
use crate::state::Shared;
use crate::witness;
use crate::writer::Writer;

/// The first and the longest pause before it is tried again to open the database.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often a full disk is looked at.
const FULL: Duration = Duration::from_secs(1);

/// How much is written between two looks at most where little is written, and how much memory is worth a flush then.
const QUIET: u64 = 1 << 20;
const WORTHWHILE: u64 = 2 << 20;
/// After how many bytes of writes objects lie so strewn that it is worth to move them.
const STREWN: u64 = 16 << 20;
/// How many bytes of objects are moved while those who write wait, and how long they have their turn then.
const MOVED: usize = 1 << 20;
const TURN: Duration = Duration::from_millis(1);

/// Works now and then, and when it is woken, until nobody is left to wake it.
pub(crate) fn run(shared: &Shared, writer: &Mutex<Option<Writer>>, woken: &Receiver<()>) {
    let mut pause = PAUSES.0;
    let mut kept = None;
    let mut seen = Seen::now(shared);
    let mut burst = Burst::default();
    let often = shared.options.compact_every.min(shared.options.ring_age);
    let mut worked = Instant::now();
    let mut unsynced: Option<Instant> = None;
    loop {
        let every = match shared.health.get() {
            Health::Healthy => often,
            Health::DiskFull(_) => FULL.min(often),
            Health::ReadOnly(_) => pause,
        };
        let mut wait = every.saturating_sub(worked.elapsed());
        if let Some(since) = unsynced {
            wait = wait.min(witness::LAG.saturating_sub(since.elapsed()));
        }
        let told = match woken.recv_timeout(wait) {
            Ok(()) => shared.compaction_due.swap(false, Relaxed) || shared.health.get().is_read_only(),
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return shared.witness.sync(),
        };
        if unsynced.is_some_and(|since| since.elapsed() >= witness::LAG) {
            shared.witness.sync();
            unsynced = None;
        }
        if shared.witness.is_unsynced() {
            unsynced.get_or_insert_with(Instant::now);
        }
        if !told && worked.elapsed() < every {
            continue;
        }
        match shared.health.get() {
            Health::Healthy | Health::DiskFull(_) => {
                seen.forget_old_events(shared);
                upkeep(shared);
                if burst.is_over(shared) {
                    flush(shared);
                    if burst.has_strewn() {
                        repack(shared, writer);
                    }
                }
            }
            Health::ReadOnly(why) => {
                let released = says_full(&why) && shared.ballast.release();
                match reopen(shared, writer, &mut kept) {
                    Ok(()) => pause = PAUSES.0,
                    Err(why) => {
                        if let Some(writer) = lock(writer).as_mut().and_then(|writer| writer.as_mut()) {
                            writer.leave_undecided();
                        }
                        shared.health.set(Health::ReadOnly(why.into()));
                        pause = if released { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
                    }
                }
            }
        }
        worked = Instant::now();
    }
}

/// Wakes this work where a write failed that was not the writer's.
pub(crate) fn wake_if_failed(shared: &Shared, writer: &Mutex<Option<Writer>>) {
    if shared.health.get().is_read_only()
        && let Ok(Some(writer)) = writer.lock().as_deref()
    {
        writer.wake_maintenance();
    }
}

/// The newest revision at a moment: what is in memory of events up to it grows old from then on.
struct Seen {
    revision: Revision,
    at: Instant,
}

impl Seen {
    fn now(shared: &Shared) -> Self {
        Self { revision: shared.published().revision, at: Instant::now() }
    }

    /// Once it is old enough, lets go of the events that were there at that moment, and looks again.
    fn forget_old_events(&mut self, shared: &Shared) {
        if self.at.elapsed() >= shared.options.ring_age {
            shared.trim_rings(self.revision);
            *self = Self::now(shared);
        }
    }
}

/// Keeps the log within its bounds, and the ballast in its place.
fn upkeep(shared: &Shared) {
    shared.expire_pages();
    if let Err(error) = compact::by_bounds(shared) {
        tracing::warn!(%error, "the log of the store could not be compacted");
    }
    if !matches!(shared.health.get(), Health::ReadOnly(_)) {
        shared.health.set(with_ballast(&shared.ballast));
    }
}

/// How much is written.
#[derive(Debug, Default)]
struct Burst {
    /// What had been at the last look.
    written: u64,
    /// What had been when objects were moved last.
    moved: u64,
}

impl Burst {
    /// Whether little was written since the last look, and there is time for what makes those who write wait.
    fn is_over(&mut self, shared: &Shared) -> bool {
        let now = shared.counters.log_bytes.load(Relaxed);
        let fresh = now - std::mem::replace(&mut self.written, now);
        // A full disk has no space for tables.
        fresh <= QUIET && !shared.health.is_impaired()
    }

    /// Whether so much was written since the last time that objects should be moved.
    fn has_strewn(&mut self) -> bool {
        let has_strewn = self.written - self.moved > STREWN;
        if has_strewn {
            self.moved = self.written;
        }
        has_strewn
    }
}

/// Moves all objects together. Those that stay lie strewn between what a burst of writes has left, and each keeps the memory
/// around it from being given back: 2,200 Events that 2,000 pods left behind kept 15 MB.
fn repack(shared: &Shared, writer: &Mutex<Option<Writer>>) {
    let resources: Vec<Arc<str>> = shared.published().resources().map(|(resource, _)| Arc::clone(resource)).collect();
    for resource in resources {
        let mut last = None;
        loop {
            let mut guard = lock(writer);
            let writer = guard.as_deref_mut().and_then(Option::as_mut);
            last = writer.and_then(|writer| writer.repack(&resource, last.as_ref(), MOVED));
            drop(guard);
            if last.is_none() {
                break;
            }
            std::thread::sleep(TURN);
        }
    }
}

/// Gives back the memory of what was written.
fn flush(shared: &Shared) {
    let flush = |disk: &Disk| if disk.in_memory()? > WORTHWHILE { disk.flush() } else { Ok(()) };
    if let Some(Err(error)) = shared.disk().as_ref().map(|disk| shared.fail_with(flush(disk))) {
        tracing::warn!(%error, "what the store holds in memory could not be written");
    }
}

/// The state of a store that can be written: whether it has its reserve.
pub(crate) fn with_ballast(ballast: &Ballast) -> Health {
    match ballast.ensure() {
        Ok(()) => Health::Healthy,
        Err(why) => Health::DiskFull(why.into()),
    }
}

/// Opens the database again, shows what it holds beyond what was visible, and lets the writer go on from there.
/// `kept` is the lock of the directory while no database is open.
fn reopen(shared: &Shared, writer: &Mutex<Option<Writer>>, kept: &mut Option<Lock>) -> Result<(), String> {
    // The old database can still be read, so it stays as long as there is no hope of a better one.
    shared.ballast.probe().map_err(|error| error.to_string())?;
    let closed = || Ok(());
    // What was being written has ended now, and nothing is begun until the state is another one.
    let Some(log_end) = lock(writer).as_ref().and_then(|writer| writer.as_ref()).map(Writer::log_end) else {
        return closed();
    };
    let CaughtUp { staged, revision, log_end, events } = {
        let mut place = shared.disk_mut();
        if let Some(disk) = place.take() {
            *kept = Some(disk.close());
        }
        let Some(lock) = kept.clone() else {
            return closed();
        };
        let disk = Disk::open_locked(&shared.options, lock).map_err(|error| error.to_string())?;
        let caught_up = catch_up(&disk, shared, log_end).map_err(|error| error.to_string())?;
        *place = Some(disk);
        *kept = None;
        caught_up
    };
    tracing::info!(revision, found = events.len(), "opened the store again after a failed write");
    if !events.is_empty() {
        // It is shown, so it must not be lost.
        shared.witness.record(revision);
        shared.publish(&staged, revision, events).wake();
    }
    let health = with_ballast(&shared.ballast);
    let Some(mut guard) = lock(writer) else {
        return closed();
    };
    if let Some(writer) = guard.as_mut() {
        writer.resume(staged, revision, log_end);
        shared.health.set(health);
    }
    Ok(())
}

/// The writer; none when it has panicked.
fn lock(writer: &Mutex<Option<Writer>>) -> Option<MutexGuard<'_, Option<Writer>>> {
    writer.lock().ok()
}
