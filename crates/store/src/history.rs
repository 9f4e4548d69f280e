//! The past, as the log on disk has it: events for a watcher that fell behind, and the state of an earlier revision.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::disk::{DiskError, Result, damaged};
use crate::index::Index;
use crate::record::LogRecord;
use crate::state::Shared;
use crate::transformer::{Decoder, Stored};
use crate::{Entry, Event, EventKind, Key, Revision};

/// How much is read at once: at most so many events, out of so many records, or of so many bytes.
const EVENTS: usize = 256;
const RECORDS: usize = 4096;
const BYTES: usize = 2 << 20;

/// The revision that was asked for lies before the compaction horizon: its history is gone. The API says 410 Gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {requested} has been compacted: the oldest one is {horizon}")]
pub struct Compacted {
    /// The revision that was asked for.
    pub requested: Revision,
    /// The oldest revision that can be read or watched from.
    pub horizon: Revision,
}

/// Why the state of a revision cannot be shown.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HistoryError {
    /// It has been compacted.
    #[error(transparent)]
    Compacted(#[from] Compacted),
    /// It has not happened yet.
    #[error("revision {requested} has not happened yet: the newest one is {current}")]
    Future {
        /// The revision that was asked for.
        requested: Revision,
        /// The newest revision.
        current: Revision,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// The disk failed.
    #[error("the log cannot be read: {0}")]
    Io(Arc<str>),
}

impl From<DiskError> for HistoryError {
    fn from(error: DiskError) -> Self {
        Self::Io(Arc::from(error.to_string()))
    }
}

/// A stretch of the log.
pub(crate) struct Chunk {
    /// The events of the resource, oldest first.
    pub(crate) events: Vec<Arc<Event>>,
    /// There are no other events of it up to and with this revision.
    pub(crate) reached: Revision,
}

/// Reads some of the events of a resource after a revision, up to and with another. Blocks on the disk.
pub(crate) fn read(shared: &Shared, resource: &str, after: Revision, upto: Revision) -> Result<Chunk, HistoryError> {
    shared.counters.log_reads.fetch_add(1, Relaxed);
    let prefix = Key::prefix(resource);
    let mut events = Vec::new();
    let reached = scan(shared, after, upto, |revision, record| {
        if !record.key.starts_with(&prefix) {
            return Ok(None);
        }
        let event = event(&shared.decoder, revision, record, key(record)?, None, None)?;
        events.push(Arc::new(event));
        Ok(Some(record.value.len()))
    })?;
    Ok(Chunk { events, reached })
}

/// Walks through some of the log after a revision, up to and with another, and says up to which it came. `take` says how many
/// bytes it keeps of a record, if any: what is kept of one walk is bounded. Blocks on the disk.
pub(crate) fn scan(
    shared: &Shared,
    after: Revision,
    upto: Revision,
    mut take: impl FnMut(Revision, &LogRecord<'_>) -> Result<Option<usize>>,
) -> Result<Revision, HistoryError> {
    let guard = shared.disk();
    let disk = guard.as_ref().ok_or_else(|| shared.no_disk())?;
    let mut reader = disk.log_after(after)?;
    // The reader sees the log as it was a moment ago. Whatever was removed before lies below the horizon as it is now.
    let horizon = shared.published().horizon;
    if after < horizon {
        let requested = after;
        return Err(Compacted { requested, horizon }.into());
    }
    let mut reached = after;
    let (mut records, mut taken, mut bytes) = (0, 0, 0);
    while let Some((revision, record)) = reader.current()? {
        let full = taken >= EVENTS || records >= RECORDS || bytes >= BYTES;
        // The events of one transaction stay together.
        if revision > upto || (full && revision != reached) {
            return Ok(reached);
        }
        follows(reached, revision)?;
        reached = revision;
        records += 1;
        if let Some(kept) = take(revision, &record)? {
            taken += 1;
            bytes += kept;
        }
        reader.advance();
    }
    if reached < upto {
        return Err(damaged("the log ends too early").into());
    }
    Ok(reached)
}

/// Takes the objects of a resource from one revision back to an earlier one. Blocks on the disk.
pub(crate) fn rewind(
    shared: &Shared,
    resource: &str,
    mut index: Index,
    from: Revision,
    to: Revision,
) -> Result<Index, HistoryError> {
    // What a key was before its first event after the revision is what it was at the revision.
    let mut before: HashMap<Key, Option<Arc<Entry>>> = HashMap::new();
    let mut reached = to;
    while reached < from {
        let chunk = read(shared, resource, reached, from)?;
        reached = chunk.reached;
        for event in chunk.events {
            before.entry(event.entry.key.clone()).or_insert_with(|| event.previous.clone());
        }
    }
    for (key, state) in before {
        index.restore(&key, state);
    }
    Ok(index)
}

/// Takes back events, which are given oldest first.
pub(crate) fn undo(index: &mut Index, events: &[Arc<Event>]) {
    for event in events.iter().rev() {
        index.restore(&event.entry.key, event.previous.clone());
    }
}

/// The records of the log have no gaps: after one revision comes its next event, or the next revision.
pub(crate) fn follows(reached: Revision, next: Revision) -> Result<()> {
    if next == reached || next == reached + 1 {
        return Ok(());
    }
    Err(damaged(&format!("revision {next} follows {reached} in the log")))
}

/// The key of a record.
pub(crate) fn key(record: &LogRecord<'_>) -> Result<Key> {
    Key::decode(record.key)
        .ok_or_else(|| damaged(&format!("the log names {}, which is no object", String::from_utf8_lossy(record.key))))
}

/// Makes an event of a record. What is in memory already is shared: `present` is what is there now, `before` what was
/// there before this event.
pub(crate) fn event(
    decoder: &Decoder,
    revision: Revision,
    record: &LogRecord<'_>,
    key: Key,
    present: Option<&Arc<Entry>>,
    before: Option<Arc<Entry>>,
) -> Result<Event> {
    let present = present.filter(|p| p.revision == revision);
    let key = present.map_or(key, |p| p.key.clone());
    let stored = |revision, value| {
        let stored = Stored { revision, create_revision: record.create_revision, path: record.key, value };
        decoder.entry(key.clone(), &stored)
    };
    let previous = match record.previous {
        None => None,
        Some((was, value)) => Some(match before.filter(|b| b.revision == was) {
            Some(known) => known,
            None => Arc::new(stored(was, value)?),
        }),
    };
    let entry = match present {
        Some(present) => Arc::clone(present),
        None => {
            let mut entry = stored(revision, record.value)?;
            // As when it was committed: a deletion is seen by those who saw the object before.
            if let (Some(previous), EventKind::Deleted) = (&previous, record.kind) {
                entry.attributes = previous.attributes.clone();
            }
            Arc::new(entry)
        }
    };
    Ok(Event::new(record.kind, entry, previous))
}
