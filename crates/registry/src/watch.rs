//! Watch: the changes of a collection as they happen, in batches.
//!
//! A watch is a cursor into the store's events with a filter. What the filter does to an event is `show`: an object
//! that begins to match appears as ADDED, one that ceases to match as DELETED. Each event is encoded once, for all
//! watchers ([`WatchEvent::encoded`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use machinery::field::{FieldError, Path};
use machinery::status::ApiError;
use serde_json::json;
pub use store::FrameEncoding;
use store::{Compacted, Entry, Event, EventKind, Revision, WatchError, Watcher};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Registry;
use crate::read::{Filter, parse_revision};
use crate::request::{Target, VersionMatch, WatchRequest, invalid_options};
use crate::scan;
use crate::table::{Resource, ResourceTable};

/// The most events in one batch.
const BATCH: usize = 256;

/// How often a watch that wants bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// Annotation of the bookmark that ends the initial events.
pub const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What an event of a watch says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchKind {
    /// The object is new, or new to this selection.
    Added,
    /// It changed.
    Modified,
    /// It is gone, or gone from this selection.
    Deleted,
    /// Nothing happened up to this revision.
    Bookmark,
    /// The watch ends; the object is a `Status`.
    Error,
}

impl WatchKind {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

/// An event of a watch.
#[derive(Debug, Clone)]
pub struct WatchEvent {
    /// What it says.
    pub kind: WatchKind,
    /// The object as stored, which is also how it is served unless the resource is another version of one; for a bookmark an object
    /// with nothing but a revision, for an error a `Status`.
    pub object: Bytes,
    /// The event of the store behind it, which keeps the frame.
    event: Option<Arc<Event>>,
}

impl WatchEvent {
    /// The event as a line of JSON, as it goes over the wire.
    ///
    /// # Errors
    /// 500 when the stored bytes cannot be converted to the group and version of the resource.
    pub fn frame(&self, resource: &Resource) -> Result<Bytes, ApiError> {
        self.encoded(resource, FrameEncoding::Json, |kind, object| Ok(line(kind, object)))
    }

    /// The event as it goes over the wire, encoded once for all watchers of an encoding, who must all encode alike.
    ///
    /// # Errors
    /// 500 when the stored bytes cannot be converted to the group and version of the resource; what `encode` says.
    pub fn encoded(
        &self,
        resource: &Resource,
        encoding: FrameEncoding,
        encode: impl Fn(WatchKind, &[u8]) -> Result<Bytes, ApiError>,
    ) -> Result<Bytes, ApiError> {
        let stored = matches!(self.kind, WatchKind::Added | WatchKind::Modified | WatchKind::Deleted);
        if stored && resource.converts() {
            let served = resource.served(&self.object).map_err(ApiError::internal)?;
            if served.as_ptr() != self.object.as_ptr() {
                return encode(self.kind, &served);
            }
        }
        let shown_as = match self.kind {
            WatchKind::Added => EventKind::Created,
            WatchKind::Modified => EventKind::Updated,
            WatchKind::Deleted | WatchKind::Bookmark | WatchKind::Error => EventKind::Deleted,
        };
        match &self.event {
            Some(event) => event.frame(shown_as, encoding, || encode(self.kind, &self.object)),
            None => encode(self.kind, &self.object),
        }
    }

    fn of_entry(entry: &Entry) -> Self {
        Self { kind: WatchKind::Added, object: entry.value.clone(), event: None }
    }

    fn bookmark(resource: &Resource, revision: Revision, ends_initial_events: bool) -> Self {
        let info = resource.info();
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if ends_initial_events {
            metadata["annotations"] = json!({ INITIAL_EVENTS_END: "true" });
        }
        let object = json!({ "kind": info.kind, "apiVersion": info.api_version, "metadata": metadata });
        Self { kind: WatchKind::Bookmark, object: object.to_string().into(), event: None }
    }

    fn error(error: &ApiError) -> Self {
        Self { kind: WatchKind::Error, object: error.to_status().to_string().into(), event: None }
    }
}

/// An event as one line of JSON.
#[must_use]
pub fn line(kind: WatchKind, object: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(object.len() + 40);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(kind.as_str().as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line.into()
}

/// What a filter makes of an event: nothing, or an event as this watch shows it.
fn show(filter: &Filter, event: Arc<Event>) -> Option<WatchEvent> {
    let before = event.previous.as_ref().filter(|previous| filter.matches(previous));
    let after = event.kind != EventKind::Deleted && filter.matches(&event.entry);
    let (kind, object) = match (before, after) {
        (None, false) => return None,
        (None, true) => (WatchKind::Added, event.entry.value.clone()),
        (Some(_), true) => (WatchKind::Modified, event.entry.value.clone()),
        (Some(_), false) if event.kind == EventKind::Deleted => (WatchKind::Deleted, event.entry.value.clone()),
        // Upstream: the object as it last matched, with the revision at which it ceased to.
        (Some(previous), false) => (WatchKind::Deleted, with_revision(&previous.value, event.revision)),
    };
    Some(WatchEvent { kind, object, event: Some(event) })
}

/// The object with another revision.
fn with_revision(stored: &Bytes, revision: Revision) -> Bytes {
    let Some(range) = scan::resource_version(stored) else { return stored.clone() };
    let digits = revision.to_string();
    let mut object = Vec::with_capacity(stored.len() + digits.len());
    object.extend_from_slice(&stored[..range.start]);
    object.extend_from_slice(digits.as_bytes());
    object.extend_from_slice(&stored[range.end..]);
    object.into()
}

/// A running watch.
pub struct Watch {
    resource: Resource,
    filter: Filter,
    /// What is sent before anything that happens.
    backlog: VecDeque<WatchEvent>,
    /// Absent when the watch ends after the backlog.
    watcher: Option<Watcher>,
    next_bookmark: Option<Instant>,
    deadline: Option<Instant>,
    /// Only for a custom resource, whose row may be replaced or vanish.
    table: Option<(Arc<ResourceTable>, watch::Receiver<()>)>,
}

impl Registry {
    /// Begins to watch a collection, or with a name in the target one object.
    ///
    /// A revision that is compacted is no error here: upstream's clients expect a watch that begins with an ERROR
    /// event of code 410.
    ///
    /// # Errors
    /// 400 and 422 for options that make no sense, 504 for a revision that does not come.
    pub async fn watch(&self, target: &Target, request: &WatchRequest) -> Result<Watch, ApiError> {
        check_versions(request)?;
        let resource = &target.resource;
        let filter = Filter::new(target, &request.selection)?;
        let revision = parse_revision(&request.resource_version)?;
        let storage = &resource.info().storage;
        let initial = request.send_initial_events.unwrap_or(revision.is_none());
        let mut backlog = VecDeque::new();
        let after = if initial {
            self.wait_for(revision.unwrap_or_default()).await?;
            let snapshot = self.store().snapshot(storage);
            let shown = snapshot.range(filter.namespace(), None).filter(|entry| filter.matches(entry));
            backlog.extend(shown.map(|entry| WatchEvent::of_entry(entry)));
            if request.send_initial_events == Some(true) && request.allow_bookmarks {
                backlog.push_back(WatchEvent::bookmark(resource, snapshot.revision(), true));
            }
            snapshot.revision()
        } else {
            revision.unwrap_or_else(|| self.store().revision())
        };
        let watcher = match self.store().watch(storage, after) {
            Ok(watcher) => Some(watcher),
            Err(compacted) => {
                backlog.push_back(WatchEvent::error(&too_old(compacted)));
                None
            }
        };
        let now = Instant::now();
        Ok(Watch {
            resource: Arc::clone(resource),
            filter,
            backlog,
            watcher,
            next_bookmark: request.allow_bookmarks.then(|| now + BOOKMARK_EVERY),
            // What lies beyond the end of time is no deadline.
            deadline: request.timeout.and_then(|timeout| now.checked_add(timeout)),
            table: resource.info().custom.then(|| (Arc::clone(&self.0.table), self.0.table.changes())),
        })
    }
}

impl Watch {
    /// What is watched.
    #[must_use]
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// The next events, at least one; `None` when the watch has ended. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Vec<WatchEvent>> {
        if !self.backlog.is_empty() {
            let count = self.backlog.len().min(BATCH);
            return Some(self.backlog.drain(..count).collect());
        }
        loop {
            let watcher = self.watcher.as_mut()?;
            tokio::select! {
                event = watcher.next() => {
                    let mut batch = Vec::new();
                    match event {
                        Ok(event) => batch.extend(show(&self.filter, event)),
                        Err(error) => {
                            self.watcher = None;
                            return ending(error).map(|error| vec![WatchEvent::error(&error)]);
                        }
                    }
                    while batch.len() < BATCH && let Some(event) = watcher.try_next() {
                        batch.extend(show(&self.filter, event));
                    }
                    if !batch.is_empty() {
                        return Some(batch);
                    }
                }
                () = changed(&mut self.table) => {
                    let (group, version, plural) = {
                        let info = self.resource.info();
                        (info.group.clone(), info.version.clone(), info.plural.clone())
                    };
                    let resources = self.table.as_ref().map(|(table, _)| table.load());
                    // Upstream ends the watches of a version that is no longer served.
                    match resources.as_ref().and_then(|resources| resources.get(&group, &version, &plural)) {
                        Some(resource) => self.resource = Arc::clone(resource),
                        None => {
                            self.watcher = None;
                            return None;
                        }
                    }
                }
                () = until(self.next_bookmark) => {
                    self.next_bookmark = Some(Instant::now() + BOOKMARK_EVERY);
                    return Some(vec![WatchEvent::bookmark(&self.resource, watcher.progress(), false)]);
                }
                () = until(self.deadline) => {
                    // A last bookmark lets the client go on from here.
                    let bookmark = WatchEvent::bookmark(&self.resource, watcher.progress(), false);
                    self.watcher = None;
                    return self.next_bookmark.map(|_| vec![bookmark]);
                }
            }
        }
    }
}

/// Ends when the resource table has been replaced, or never.
async fn changed(table: &mut Option<(Arc<ResourceTable>, watch::Receiver<()>)>) {
    if let Some((_, changes)) = table
        && changes.changed().await.is_ok()
    {
        return;
    }
    // The sender lives in the table, so that it never goes first.
    std::future::pending::<()>().await;
}

/// Ends at an instant, or never.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// What a client is told when its watch breaks; nothing when the server shuts down.
fn ending(error: WatchError) -> Option<ApiError> {
    match error {
        WatchError::Compacted(compacted) => Some(too_old(compacted)),
        WatchError::Closed => None,
        other => Some(ApiError::internal(other)),
    }
}

fn too_old(compacted: Compacted) -> ApiError {
    ApiError::expired(format!("too old resource version: {} ({})", compacted.requested, compacted.horizon))
}

fn check_versions(request: &WatchRequest) -> Result<(), ApiError> {
    let why = match (request.send_initial_events, request.version_match) {
        (None, Some(_)) => "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        (Some(_), None | Some(VersionMatch::Exact)) => {
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        }
        _ => return Ok(()),
    };
    Err(invalid_options("ListOptions", FieldError::forbidden(&Path::new("resourceVersionMatch"), why)))
}
