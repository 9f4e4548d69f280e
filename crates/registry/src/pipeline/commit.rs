//! Step 8: commits the object on condition that it is what it was, together with what was charged for it.

use bytes::Bytes;
use machinery::status::ApiError;
use machinery::well_known::NODE_LEASES;
use store::{CommitError, Encoded, Entry, Op, Transaction};

use super::charge::Charged;
use super::{Change, Outcome, Stored, Write, managed_fields};
use crate::Registry;
use crate::admission::policy;
use crate::apart;
use crate::author::Author;
use crate::custom;
use crate::object::Object;
use crate::ops::ResourceOps;
use crate::scan;
use crate::table::ResourceInfo;

/// When a client is to try again that comes while the store cannot write, in seconds. client-go does that ten times.
const RETRY_AFTER: u32 = 1;

/// How an attempt to commit ended.
pub(super) enum Committed {
    /// It is done.
    Done(Outcome),
    /// There is an object of the name that this one was to be created under, and whether it is being deleted.
    NameTaken(Box<dyn Object>, bool),
    /// Somebody wrote to the object, its namespace or a quota meanwhile. With the object, where one was to be stored.
    Retry(Option<Box<dyn Object>>),
}

/// Commits a change, unless this is a dry run.
pub(super) async fn run(write: &Write<'_>, charged: Charged<'_>, old: Option<&Stored>) -> Result<Committed, ApiError> {
    let (registry, resource) = (write.attributes.registry, write.resource()?.as_ref());
    let entry = old.map(|old| old.entry.as_ref());
    // They are held until the end.
    let Charged { ops, change, reservation, locks: _locks } = charged;
    let Some(ops) = ops else {
        let bytes = entry.map(|entry| entry.value.clone()).unwrap_or_default();
        return Ok(Committed::Done(Outcome::Stored { bytes, created: false }));
    };
    if write.attributes.dry_run {
        return Ok(preview(registry, ops, change, entry));
    }
    let uses_reserve = match &change {
        Change::Put(new) => entry.is_some_and(|entry| is_terminating(new.as_ref()) || is_heartbeat(resource, entry)),
        Change::Remove(_) => true,
        Change::Keep => false,
    };
    // What follows from a write before anybody hears of it: definitions make resources. Who waits for that waits before the
    // commit, after which nothing may come between.
    let makes_resources = &*resource.info().storage == custom::CRDS;
    let _turn = if makes_resources { registry.0.turns.wait().await } else { None };
    let author = Author::of(write).text();
    let committed = match registry.store().commit(Transaction { ops, uses_reserve, author }).await {
        Ok(committed) => committed,
        Err(CommitError::Conflict { op, current }) => {
            return Ok(match change {
                Change::Put(new) if op == 0 && entry.is_none() => {
                    Committed::NameTaken(new, current.is_some_and(|current| is_terminating_entry(&current)))
                }
                Change::Put(new) => Committed::Retry(Some(new)),
                Change::Remove(_) | Change::Keep => Committed::Retry(None),
            });
        }
        Err(error) => return Err(commit_error(error)),
    };
    // What follows from a write before anybody hears of it: definitions make resources, policies are asked.
    if makes_resources {
        apart::compute(|| registry.reload_crds());
    }
    if let Err(error) = policy::configured::refresh(registry, &resource.info().storage).await {
        // It is written; whoever is to be judged by it is told why that cannot be.
        tracing::warn!(%error, "the admission policies cannot be read");
    }
    let bytes = committed.entries.first().map(|entry| entry.value.clone());
    let bytes = bytes.ok_or_else(|| ApiError::internal("the store kept nothing"))?;
    Ok(Committed::Done(match change {
        Change::Remove(last) => {
            resource.strategy().release(last.as_ref(), registry.allocators())?;
            Outcome::Removed(bytes)
        }
        Change::Put(_) | Change::Keep => {
            reservation.committed();
            Outcome::Stored { bytes, created: entry.is_none() }
        }
    }))
}

/// How a dry run ends, with the object as it would be stored.
fn preview(registry: &Registry, mut ops: Vec<Op>, change: Change, entry: Option<&Entry>) -> Committed {
    let (key, value) = match ops.swap_remove(0) {
        Op::Put { key, value, .. } | Op::Delete { key, last: value, .. } => (key, value),
        Op::Check { .. } => return Committed::Retry(None),
    };
    match (change, entry) {
        (Change::Put(new), None) => match registry.store().get(&key) {
            Some(current) => Committed::NameTaken(new, is_terminating_entry(&current)),
            None => Committed::Done(Outcome::Stored { bytes: without_version(&value.bytes), created: true }),
        },
        (Change::Remove(_), Some(entry)) => Committed::Done(Outcome::Removed(splice(&value, entry))),
        (_, Some(entry)) => Committed::Done(Outcome::Stored { bytes: splice(&value, entry), created: false }),
        (_, None) => Committed::Retry(None),
    }
}

/// Nothing is stored, so there is no version.
fn without_version(stored: &[u8]) -> Bytes {
    let version = scan::resource_version(stored).map_or(0, |at| at.start);
    let start = version.saturating_sub(managed_fields::VERSION.len());
    [&stored[..start], &stored[version + 2..]].concat().into()
}

fn splice(encoded: &Encoded, entry: &Entry) -> Bytes {
    let (head, tail) = encoded.bytes.split_at(encoded.revision_at);
    [head, entry.revision.to_string().as_bytes(), tail].concat().into()
}

/// 409: there is an object of that name.
pub(super) fn name_taken(info: &ResourceInfo, object: &dyn Object, generated: bool, terminating: bool) -> ApiError {
    let name = object.meta().name.as_deref().unwrap_or_default();
    if generated {
        return ApiError::generate_name_conflict(&info.group_resource, name, 1);
    }
    let mut error = ApiError::already_exists(&info.group_resource, name);
    if terminating {
        error.message = format!("object is being deleted: {}", error.message);
    }
    error
}

/// Whether the object is being deleted.
fn is_terminating_entry(entry: &Entry) -> bool {
    scan::find(&entry.value, &["metadata", "deletionTimestamp"]).is_some()
}

/// Whether the object is being deleted: what is written to it then leads to its end, as finalizers and the status of a pod
/// that stops do, and must be possible on a full disk.
fn is_terminating(object: &dyn Object) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// Whether this is an update of a node or of its lease: what says that a node is alive, or that its disk is full. Upstream
/// sets the same apart: the FlowSchema `system-node-high`.
fn is_heartbeat(resource: &dyn ResourceOps, entry: &Entry) -> bool {
    match &*resource.info().storage {
        "core/nodes" => true,
        "coordination.k8s.io/leases" => &*entry.key.namespace == NODE_LEASES,
        _ => false,
    }
}

fn commit_error(error: CommitError) -> ApiError {
    match error {
        CommitError::Closed => ApiError::service_unavailable("the server is shutting down"),
        error @ CommitError::DiskFull(_) => ApiError::insufficient_storage(error.to_string()),
        // Nothing was written, so a client may ask again by itself.
        error @ (CommitError::ReadOnly(_) | CommitError::NotReady(_)) => {
            ApiError::unavailable_for(error.to_string(), RETRY_AFTER)
        }
        other => ApiError::internal(other),
    }
}

/// Encodes an object, with room for its revision, without its `managedFields`.
pub(crate) fn encode(resource: &dyn ResourceOps, object: &mut dyn Object) -> Result<Encoded, ApiError> {
    object.meta_mut().resource_version = Some(String::new());
    object.meta_mut().managed_fields = None;
    let mut bytes = Vec::with_capacity(1024);
    resource.encode(object, &mut bytes)?;
    let at = scan::resource_version(&bytes).ok_or_else(|| ApiError::internal("the object has no metadata"))?;
    Ok(Encoded::new(bytes, at.start))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_a_client_is_told_of_a_store_that_cannot_write() {
        let why = || Arc::<str>::from("3 MiB are free");
        for (error, code, reason, retry_after, words) in [
            (CommitError::DiskFull(why()), 507, "InsufficientStorage", 0, "is full (3 MiB are free)"),
            (CommitError::ReadOnly(why()), 503, "ServiceUnavailable", 1, "cannot write (3 MiB are free)"),
            (CommitError::NotReady(why()), 503, "ServiceUnavailable", 1, "cannot encrypt the object (3 MiB are free)"),
            // A client that asked again by itself might do it twice.
            (CommitError::Uncertain(why()), 500, "InternalError", 0, "look before trying again"),
            (CommitError::Closed, 503, "ServiceUnavailable", 0, "shutting down"),
        ] {
            let told = commit_error(error);
            assert_eq!((told.code, told.reason.as_str()), (code, reason));
            assert_eq!(told.details.as_ref().map_or(0, |details| details.retry_after_seconds), retry_after, "{told:?}");
            assert!(told.message.contains(words), "{told:?}");
        }
    }
}
