//! Watchers: cursors into the events of a resource, each at its own pace.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task;

use crate::history::{self, Compacted, HistoryError};
use crate::state::Shared;
use crate::{Event, Revision};

/// How many events a watcher takes at once.
const CHUNK: usize = 256;

/// Follows the events of one resource from a revision on: every one, once, in order.
///
/// It reads from memory while it keeps up, from the log on disk when it does not. However slow it is, it costs the writer
/// and other watchers nothing. It asks for no selector: which events are of interest is the reader's affair.
pub struct Watcher {
    shared: Arc<Shared>,
    resource: Arc<str>,
    /// Events up to and with this revision have been taken.
    cursor: Revision,
    /// Events that have been taken and not handed out.
    taken: VecDeque<Arc<Event>>,
    signal: watch::Receiver<()>,
}

/// Why a watch ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WatchError {
    /// The reader was so slow that what it has to see next may have been compacted.
    #[error(transparent)]
    Compacted(#[from] Compacted),
    /// The store has been closed; everything before that was handed out.
    #[error("the store is closed")]
    Closed,
    /// The disk failed.
    #[error("the log cannot be read: {0}")]
    Io(Arc<str>),
}

enum Taken {
    Some,
    None,
    /// What comes next is on disk only: read up to this revision.
    Behind(Revision),
    Closed,
}

impl Watcher {
    pub(crate) fn new(shared: Arc<Shared>, resource: &str, after: Revision) -> Result<Self, Compacted> {
        let resource: Arc<str> = Arc::from(resource);
        let signal = shared.signal(&resource);
        {
            let published = shared.published();
            let horizon = published.horizon;
            if after < horizon && !published.ring_reaches(&resource, after) {
                let requested = after;
                return Err(Compacted { requested, horizon });
            }
        }
        Ok(Self { shared, resource, cursor: after, taken: VecDeque::new(), signal })
    }

    /// The next event; waits until there is one. Nothing is lost when the future is dropped before it is done.
    ///
    /// # Errors
    /// When it fell behind what was compacted, the disk cannot be read just now, or the store is closed.
    pub async fn next(&mut self) -> Result<Arc<Event>, WatchError> {
        loop {
            if let Some(event) = self.taken.pop_front() {
                return Ok(event);
            }
            // Before looking, so that what comes while looking wakes us again.
            self.signal.mark_unchanged();
            match self.take() {
                Taken::Some => {}
                Taken::None => self.signal.changed().await.map_err(|_| WatchError::Closed)?,
                Taken::Behind(upto) => self.read_log(upto).await?,
                Taken::Closed => return Err(WatchError::Closed),
            }
        }
    }

    /// The next event, if it is at hand: for readers who pass on many at once. That there is none says nothing; only
    /// [`next`](Self::next) knows why.
    pub fn try_next(&mut self) -> Option<Arc<Event>> {
        if self.taken.is_empty() {
            self.take();
        }
        self.taken.pop_front()
    }

    /// The revision up to which every event of the resource has been handed out: what a bookmark may say. It moves on with the
    /// store even while nothing happens to the resource.
    pub fn progress(&self) -> Revision {
        if let Some(next) = self.taken.front() {
            return next.revision - 1;
        }
        let published = self.shared.published();
        let drained = match published.resource(&self.resource) {
            Some(state) => state.ring.reaches(self.cursor) && state.ring.after(self.cursor).next().is_none(),
            None => true,
        };
        if drained { self.cursor.max(published.revision) } else { self.cursor }
    }

    /// Takes some of the events that are in memory.
    fn take(&mut self) -> Taken {
        let published = self.shared.published();
        let Some(state) = published.resource(&self.resource) else {
            return Taken::Closed;
        };
        if !state.ring.reaches(self.cursor) {
            return Taken::Behind(published.revision);
        }
        for event in state.ring.after(self.cursor) {
            // The events of one transaction stay together: the cursor cannot stand between them.
            let full = self.taken.len() >= CHUNK;
            if full && self.taken.back().is_some_and(|e| e.revision != event.revision) {
                break;
            }
            self.taken.push_back(Arc::clone(event));
        }
        match self.taken.back() {
            Some(last) => {
                self.cursor = last.revision;
                Taken::Some
            }
            None if published.closed => Taken::Closed,
            None => {
                self.cursor = self.cursor.max(published.revision);
                Taken::None
            }
        }
    }

    /// Takes some of the events that are on disk only.
    async fn read_log(&mut self, upto: Revision) -> Result<(), WatchError> {
        let shared = Arc::clone(&self.shared);
        let resource = Arc::clone(&self.resource);
        let after = self.cursor;
        let read = task::spawn_blocking(move || history::read(&shared, &resource, after, upto)).await;
        let chunk = match read {
            Ok(Ok(chunk)) => chunk,
            Ok(Err(HistoryError::Compacted(compacted))) => return Err(compacted.into()),
            Ok(Err(HistoryError::Closed)) => return Err(WatchError::Closed),
            Ok(Err(error)) => return Err(WatchError::Io(Arc::from(error.to_string()))),
            Err(error) => return Err(WatchError::Io(Arc::from(error.to_string()))),
        };
        self.cursor = chunk.reached;
        self.taken.extend(chunk.events);
        Ok(())
    }
}
