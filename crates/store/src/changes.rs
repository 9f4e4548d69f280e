//! The log as it is, for people who look into the store: the changes of all resources in the order of their revisions.
//!
//! Components follow one resource and get its objects ([`Watcher`](crate::Watcher)). Here all are followed and no object is
//! made: each change is read from the disk once it is durable, a bounded stretch at a time, so whoever follows costs the
//! writer nothing but a wake-up for each batch, and none where nobody does.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task;

use crate::history::{self, Compacted, HistoryError};
use crate::state::Shared;
use crate::{EventKind, Key, Revision, WatchError};

/// A change of one object, without the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The revision of the change. Changes of one transaction share it.
    pub revision: Revision,
    /// What happened.
    pub kind: EventKind,
    /// The object's name.
    pub key: Key,
    /// The revision that created the object.
    pub create_revision: Revision,
    /// How many bytes the object has after the change as it is served; of one that was deleted, how many it had.
    pub size: usize,
}

/// Which changes are of interest.
type Wanted = dyn Fn(&Key) -> bool + Send + Sync;

/// Follows the changes of all resources from a revision on.
pub struct LogWatcher {
    shared: Arc<Shared>,
    wanted: Arc<Wanted>,
    /// Changes up to and with this revision have been handed out.
    reached: Revision,
    signal: watch::Receiver<()>,
}

impl LogWatcher {
    pub(crate) fn new(shared: Arc<Shared>, after: Revision, wanted: Arc<Wanted>) -> Result<Self, Compacted> {
        let signal = shared.any_signal();
        let horizon = shared.published().horizon;
        if after < horizon {
            return Err(Compacted { requested: after, horizon });
        }
        Ok(Self { shared, wanted, reached: after, signal })
    }

    /// The next changes that are of interest, some of those there are; waits until there is one. Nothing is lost when the
    /// future is dropped before it is done.
    ///
    /// # Errors
    /// When it fell behind what was compacted, the disk cannot be read just now, or the store is closed.
    pub async fn next(&mut self) -> Result<Vec<Change>, WatchError> {
        loop {
            // Before looking, so that what comes while looking wakes us again.
            self.signal.mark_unchanged();
            let (upto, closed) = {
                let published = self.shared.published();
                (published.revision, published.closed)
            };
            if self.reached < upto {
                let changes = self.read(upto).await?;
                if !changes.is_empty() {
                    return Ok(changes);
                }
            } else if closed {
                return Err(WatchError::Closed);
            } else {
                self.signal.changed().await.map_err(|_| WatchError::Closed)?;
            }
        }
    }

    /// The revision up to which every change has been handed out.
    pub fn reached(&self) -> Revision {
        self.reached
    }

    async fn read(&mut self, upto: Revision) -> Result<Vec<Change>, WatchError> {
        let (shared, wanted, after) = (Arc::clone(&self.shared), Arc::clone(&self.wanted), self.reached);
        let read = task::spawn_blocking(move || read(&shared, &*wanted, after, upto)).await;
        let (changes, reached) = match read {
            Ok(Ok(read)) => read,
            Ok(Err(HistoryError::Compacted(compacted))) => return Err(compacted.into()),
            Ok(Err(HistoryError::Closed)) => return Err(WatchError::Closed),
            Ok(Err(error)) => return Err(WatchError::Io(Arc::from(error.to_string()))),
            Err(error) => return Err(WatchError::Io(Arc::from(error.to_string()))),
        };
        self.reached = reached;
        Ok(changes)
    }
}

/// Reads some of the changes after a revision, and says up to which there are no others. Blocks on the disk.
fn read(
    shared: &Shared,
    wanted: &Wanted,
    after: Revision,
    upto: Revision,
) -> Result<(Vec<Change>, Revision), HistoryError> {
    let mut changes = Vec::new();
    let reached = history::scan(shared, after, upto, |revision, record| {
        let key = history::key(record)?;
        if !wanted(&key) {
            return Ok(None);
        }
        // What is encrypted on disk is larger there than the object is.
        let size = shared.decoder.value(&key, record.key, record.value)?.len();
        changes.push(Change { revision, kind: record.kind, key, create_revision: record.create_revision, size });
        Ok(Some(size))
    })?;
    Ok((changes, reached))
}
