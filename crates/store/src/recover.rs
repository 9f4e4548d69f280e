//! What a store knows when it opens: everything, from the disk alone.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::disk::{BUMP, Disk, Result, damaged};
use crate::history;
use crate::index::Index;
use crate::record::ObjectRecord;
use crate::stage::Staged;
use crate::state::{Published, ResourceState, Shared};
use crate::transformer::{Decoder, Stored};
use crate::{Entry, Event, EventKind, Key, Options, Revision, witness};

/// What was found on disk.
pub(crate) struct Recovered {
    pub(crate) published: Published,
    pub(crate) staged: Staged,
    /// The bytes of all log records so far.
    pub(crate) log_end: u64,
}

/// Rebuilds the index from `objects`, and the rings from the tail of the log.
pub(crate) fn recover(disk: &Disk, options: &Options, decoder: &Decoder) -> Result<Recovered> {
    let horizon = disk.horizon()?;
    let (newest, log_end) = disk.log_last()?.unwrap_or_default();
    // Compaction may have emptied the log; the revisions before the horizon have been used nevertheless.
    let revision = newest.max(horizon);
    let indexes = read_objects(disk, decoder, revision)?;
    check_start(disk, horizon, newest)?;

    let ring = u64::try_from(options.ring).unwrap_or(u64::MAX);
    let floor = horizon.max(revision.saturating_sub(ring));
    let mut resources: HashMap<Arc<str>, ResourceState> = indexes
        .iter()
        .map(|(resource, index)| {
            let state = ResourceState::new(index.clone(), floor, options);
            (Arc::clone(resource), state)
        })
        .collect();
    refill(disk, options, decoder, floor, revision, &mut resources)?;
    Ok(Recovered {
        published: Published::new(revision, horizon, floor, resources),
        staged: Staged::new(indexes),
        log_end,
    })
}

/// As [`recover`], where the history is damaged: it is given up, if the objects are whole without it.
pub(crate) fn without_history(disk: &Disk, options: &Options, decoder: &Decoder) -> Result<Recovered> {
    read_objects(disk, decoder, disk.newest()?.saturating_add(BUMP))?;
    disk.bump(witness::read(&options.path).ok().flatten())?;
    recover(disk, options, decoder)
}

/// What the database holds after it was opened again under a store that has been in use.
pub(crate) struct CaughtUp {
    /// All objects.
    pub(crate) staged: Staged,
    /// The newest revision.
    pub(crate) revision: Revision,
    /// The bytes of all log records so far.
    pub(crate) log_end: u64,
    /// What happened after what was visible.
    pub(crate) events: Vec<Arc<Event>>,
}

/// Reads what the log holds beyond what is visible, and checks that it goes on from there. `log_end` are the bytes of all
/// log records up to what is visible.
pub(crate) fn catch_up(disk: &Disk, shared: &Shared, log_end: u64) -> Result<CaughtUp> {
    let (mut staged, published, horizon) = {
        let published = shared.published();
        let indexes = published.resources().map(|(resource, state)| (Arc::clone(resource), state.index.clone()));
        (Staged::new(indexes.collect()), published.revision, published.horizon)
    };
    let (_, end) = disk.log_last()?.unwrap_or_default();
    let newest = disk.newest()?;
    if newest < published {
        return Err(damaged(&format!("revision {published} was acknowledged, but the log ends at {newest}")));
    }
    let mut reader = disk.log_after(published)?;
    let mut reached = published;
    let mut events = Vec::new();
    while let Some((at, record)) = reader.current()? {
        history::follows(reached, at)?;
        if reached == published && at > published && record.end.checked_sub(record.size()) != Some(log_end) {
            return Err(damaged(&format!("the log before revision {at} is not what was written")));
        }
        reached = at;
        let key = history::key(&record)?;
        let before = staged.get(&key).cloned();
        let was = |entry: &Arc<Entry>| entry.revision;
        if record.previous.map(|(revision, _)| revision) != before.as_ref().map(was) {
            return Err(damaged(&format!("the log and the object {key} disagree")));
        }
        let event = Arc::new(history::event(&shared.decoder, at, &record, key, None, before)?);
        staged.replay(&event);
        events.push(event);
        reader.advance();
    }
    if reached != newest {
        return Err(damaged("the log ends too early"));
    }
    // What could not be removed from the log before may go now.
    if disk.horizon()? < horizon {
        disk.compact(horizon)?;
    }
    Ok(CaughtUp { staged, revision: newest, log_end: end, events })
}

fn read_objects(disk: &Disk, decoder: &Decoder, newest: Revision) -> Result<HashMap<Arc<str>, Index>> {
    let mut indexes: HashMap<Arc<str>, Index> = HashMap::new();
    disk.objects(&[], |path, record| {
        let shown = || String::from_utf8_lossy(path);
        let mut key = Key::decode(path).ok_or_else(|| damaged(&format!("there is no such object as {}", shown())))?;
        if record.revision > newest || record.create_revision > record.revision {
            return Err(damaged(&format!("{} is of revision {}, the log ends at {newest}", shown(), record.revision)));
        }
        if let Some((resource, _)) = indexes.get_key_value(&key.resource) {
            key.resource = Arc::clone(resource);
        }
        let index = indexes.entry(Arc::clone(&key.resource)).or_default();
        key.namespace = index.shared_namespace(&key.namespace);
        let ObjectRecord { revision, create_revision, value } = record;
        index.insert(Arc::new(decoder.entry(key, &Stored { revision, create_revision, path, value })?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(indexes)
}

/// The log has no gap between the horizon and its first record.
fn check_start(disk: &Disk, horizon: Revision, newest: Revision) -> Result<()> {
    let reader = disk.log_after(horizon)?;
    let first = reader.current()?.map(|(revision, _)| revision);
    match first {
        None if newest <= horizon => Ok(()),
        Some(first) if first == horizon + 1 => Ok(()),
        _ => Err(damaged(&format!("the log does not go on after revision {horizon}"))),
    }
}

/// Fills the rings with the events after `floor`, and checks that they agree with the objects.
fn refill(
    disk: &Disk,
    options: &Options,
    decoder: &Decoder,
    floor: Revision,
    revision: Revision,
    resources: &mut HashMap<Arc<str>, ResourceState>,
) -> Result<()> {
    let mut reader = disk.log_after(floor)?;
    let mut reached = floor;
    // The latest state of each key on the way: the one before the next event on it.
    let mut latest: HashMap<Key, (Arc<Entry>, EventKind)> = HashMap::new();
    let mut evicted = Vec::new();
    while let Some((at, record)) = reader.current()? {
        history::follows(reached, at)?;
        reached = at;
        let key = history::key(&record)?;
        let state = resources
            .entry(Arc::clone(&key.resource))
            .or_insert_with(|| ResourceState::new(Index::default(), floor, options));
        let present = state.index.get(&key.namespace, &key.name);
        let before = latest.get(&key).map(|(entry, _)| Arc::clone(entry));
        let event = history::event(decoder, at, &record, key, present, before)?;
        latest.insert(event.entry.key.clone(), (Arc::clone(&event.entry), event.kind));
        state.ring.push(Arc::new(event), &mut evicted);
        evicted.clear();
        reader.advance();
    }
    if reached != revision {
        return Err(damaged("the log ends too early"));
    }
    for (key, (entry, kind)) in &latest {
        let present = resources.get(&key.resource).and_then(|state| state.index.get(&key.namespace, &key.name));
        let expected = (*kind != EventKind::Deleted).then_some(entry);
        if present != expected {
            return Err(damaged(&format!("the log and the object {key} disagree")));
        }
    }
    Ok(())
}
