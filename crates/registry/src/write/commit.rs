//! Steps 7 and 8 of a write: encode, commit, and begin again when somebody was faster.

use std::sync::Arc;

use bytes::Bytes;
use machinery::managed;
use machinery::status::{ApiError, MODIFIED};
use store::{CommitError, Encoded, Entry, Expect, Op, Transaction};

use super::{Inserted, owners};
use crate::Registry;
use crate::admission::{Attributes, quota};
use crate::custom;
use crate::kind::Reservation;
use crate::ops::{Object, ResourceOps};
use crate::read::{attributes, key_of};
use crate::request::{Target, WriteOptions, Written};
use crate::scan;
use crate::table::Resource;

/// When a client is to try again that comes while the store cannot write, in seconds. client-go does that ten times.
const RETRY_AFTER: u32 = 1;

/// What becomes of a stored object.
pub(crate) enum Change {
    /// It stays as it is.
    Keep,
    /// Another state takes its place.
    Put {
        /// The new state.
        new: Box<dyn Object>,
        /// What was taken for it.
        reservation: Reservation,
        /// Its `managedFields`, where they change.
        owners: Option<String>,
    },
    /// It goes.
    Remove {
        /// Its last state, as watchers see it.
        last: Box<dyn Object>,
    },
}

/// What became of a stored object.
pub(crate) struct Outcome {
    /// Its state, the last one when it is gone.
    pub(crate) stored: Bytes,
    /// Whether it is gone.
    pub(crate) gone: bool,
}

impl Outcome {
    /// The answer to an update.
    pub(crate) fn written(self, resource: &Resource, warnings: Vec<String>) -> Result<Written, ApiError> {
        let body = resource.served(&self.stored).map_err(ApiError::internal)?;
        Ok(Written { body, stored: self.stored, created: false, warnings })
    }
}

/// How an attempt to commit ended.
pub(crate) enum Attempt {
    /// It is done.
    Done(Outcome),
    /// Somebody was faster.
    Conflict,
}

impl Registry {
    /// The entry at `target` and the object in it, without its `managedFields`.
    pub(crate) fn load(&self, target: &Target) -> Result<(Arc<Entry>, Box<dyn Object>), ApiError> {
        let entry = self.find(target)?;
        let old = target.resource.load(&owners::split(&entry.value).0).map_err(ApiError::internal)?;
        Ok((entry, old))
    }

    /// Reads the object at `target`, lets `change` decide what becomes of it, and commits that; again, up to
    /// `attempts` times, when somebody else wrote to the object meanwhile. Quotas notice it if it has `attributes`.
    pub(crate) async fn rewrite(
        &self,
        target: &Target,
        attempts: usize,
        dry_run: bool,
        attributes: Option<&Attributes<'_>>,
        mut change: impl FnMut(&Entry, &dyn Object) -> Result<Change, ApiError>,
    ) -> Result<Outcome, ApiError> {
        for _ in 0..attempts {
            let (entry, old) = self.load(target)?;
            let change = change(&entry, old.as_ref())?;
            let use_of = attributes.map(|attributes| (attributes, old.as_ref()));
            match self.apply(target.resource.as_ref(), &entry, change, use_of, dry_run).await? {
                Attempt::Done(outcome) => return Ok(outcome),
                Attempt::Conflict => {}
            }
        }
        Err(ApiError::conflict(&target.resource.info().group_resource, &target.name, MODIFIED))
    }

    /// Commits what is to become of an entry, and with it what that means for the quotas of its namespace.
    pub(super) async fn apply(
        &self,
        resource: &dyn ResourceOps,
        entry: &Arc<Entry>,
        change: Change,
        use_of: Option<(&Attributes<'_>, &dyn Object)>,
        dry_run: bool,
    ) -> Result<Attempt, ApiError> {
        let expect = Expect::Revision(entry.revision);
        let key = entry.key.clone();
        let _alone = match use_of {
            Some((attributes, _)) if quota::concerns(self, attributes) => Some(self.0.charging.lock().await),
            _ => None,
        };
        let charges = |new: Option<&dyn Object>| match use_of {
            Some((attributes, old)) => quota::charge(self, attributes, new, Some(old)),
            None => Ok(Vec::new()),
        };
        let unchanged = || Attempt::Done(Outcome { stored: entry.value.clone(), gone: false });
        match change {
            Change::Keep => Ok(unchanged()),
            Change::Put { mut new, reservation, owners } => {
                let value = encode(resource, new.as_mut())?;
                let (bare, present) = owners::split(&entry.value);
                // An apply or update that changes no more than when its fields were set is none.
                let same_owners = |owners: &String| {
                    owners == present || managed::same_but_times(&owners::read(owners), &owners::read(present))
                };
                if is_spliced(&bare, &value, entry) && owners.as_ref().is_none_or(same_owners) {
                    return Ok(unchanged());
                }
                let value = owners::join(value, owners.as_deref().unwrap_or(present));
                check_size(&value, new.as_ref(), entry.value.len())?;
                let charges = charges(Some(new.as_ref()))?;
                if dry_run {
                    let stored = splice(&value, &entry.revision.to_string());
                    return Ok(Attempt::Done(Outcome { stored, gone: false }));
                }
                let attributes = attributes(resource, new.as_ref())?;
                let mut ops = vec![Op::Put { key, value, attributes, expect }];
                ops.extend(charges);
                let uses_reserve = on_the_way_out(new.as_ref()) || is_heartbeat(resource, entry);
                let done = self.commit(Transaction { ops, uses_reserve }).await?;
                self.after_commit(resource);
                Ok(done.map_or(Attempt::Conflict, |stored| {
                    reservation.committed();
                    Attempt::Done(Outcome { stored, gone: false })
                }))
            }
            Change::Remove { mut last } => {
                let encoded = owners::join(encode(resource, last.as_mut())?, owners::split(&entry.value).1);
                if dry_run {
                    let stored = splice(&encoded, &entry.revision.to_string());
                    return Ok(Attempt::Done(Outcome { stored, gone: true }));
                }
                let mut ops = vec![Op::Delete { key, last: encoded, expect }];
                ops.extend(charges(None)?);
                let done = self.commit(Transaction { ops, uses_reserve: true }).await?;
                self.after_commit(resource);
                let Some(stored) = done else { return Ok(Attempt::Conflict) };
                resource.strategy().release(last.as_ref(), &self.0.allocators)?;
                Ok(Attempt::Done(Outcome { stored, gone: true }))
            }
        }
    }

    /// Commits a new object, under the condition on its namespace, with what it uses of quotas.
    pub(super) async fn insert(
        &self,
        target: &Target,
        object: &mut dyn Object,
        owners: &str,
        conditions: Vec<Op>,
        reservation: Reservation,
        options: &WriteOptions,
    ) -> Result<Inserted, ApiError> {
        let resource = target.resource.as_ref();
        let key = key_of(resource, &target.namespace, object.meta().name.as_deref().unwrap_or_default());
        let value = owners::join(encode(resource, object)?, owners);
        check_size(&value, object, 0)?;
        if options.dry_run {
            if let Some(current) = self.store().get(&key) {
                return Ok(Inserted::NameTaken { going: is_going(&current) });
            }
            // Nothing is stored, so there is no version.
            let stored = value.bytes;
            let version = scan::resource_version(&stored).map_or(0, |at| at.start);
            let start = version.saturating_sub(owners::VERSION.len());
            return Ok(Inserted::Done([&stored[..start], &stored[version + 2..]].concat().into()));
        }
        let mut ops = vec![Op::Put { key, value, attributes: attributes(resource, object)?, expect: Expect::Absent }];
        ops.extend(conditions);
        match self.store().commit(ops).await {
            Ok(committed) => {
                self.after_commit(resource);
                reservation.committed();
                let stored = committed.entries.first().map(|entry| entry.value.clone());
                stored.map(Inserted::Done).ok_or_else(|| ApiError::internal("the store kept nothing"))
            }
            Err(CommitError::Conflict { op: 0, current }) => {
                Ok(Inserted::NameTaken { going: current.is_some_and(|current| is_going(&current)) })
            }
            Err(CommitError::Conflict { .. }) => Ok(Inserted::Overtaken),
            Err(error) => Err(commit_error(error)),
        }
    }

    /// What follows from a write before anybody hears of it: definitions make resources.
    fn after_commit(&self, resource: &dyn ResourceOps) {
        if &*resource.info().storage == custom::DEFINITIONS {
            self.reload_definitions();
        }
    }

    /// Commits; answers with the new state, or with `None` when somebody was faster.
    async fn commit(&self, transaction: Transaction) -> Result<Option<Bytes>, ApiError> {
        match self.store().commit(transaction).await {
            Ok(committed) => Ok(committed.entries.first().map(|entry| entry.value.clone())),
            Err(CommitError::Conflict { .. }) => Ok(None),
            Err(error) => Err(commit_error(error)),
        }
    }
}

/// Whether the object is being deleted.
fn is_going(entry: &Entry) -> bool {
    scan::find(&entry.value, &["metadata", "deletionTimestamp"]).is_some()
}

/// Whether the object is being deleted: what is written to it then leads to its end, as finalizers and the status of a pod
/// that stops do, and must be possible on a full disk.
fn on_the_way_out(object: &dyn Object) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// Whether this is an update of a node or of its lease: what says that a node is alive, or that its disk is full. Upstream
/// sets the same apart: the FlowSchema `system-node-high`.
fn is_heartbeat(resource: &dyn ResourceOps, entry: &Entry) -> bool {
    match &*resource.info().storage {
        "core/nodes" => true,
        "coordination.k8s.io/leases" => &*entry.key.namespace == "kube-node-lease",
        _ => false,
    }
}

fn commit_error(error: CommitError) -> ApiError {
    match error {
        CommitError::Closed => ApiError::service_unavailable("the server is shutting down"),
        error @ CommitError::DiskFull(_) => ApiError::insufficient_storage(error.to_string()),
        // Nothing was written, so a client may ask again by itself.
        error @ CommitError::ReadOnly(_) => ApiError::unavailable_for(error.to_string(), RETRY_AFTER),
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

/// The most bytes an object may have in the store; etcd's figure for a request (`server/embed/config.go`,
/// `DefaultMaxRequestBytes`).
const MAX_SIZE: usize = 1536 * 1024;

/// What an object that is being deleted may have beyond that, so that its deletion can be noted and its finalizers can go.
const DELETION_MARGIN: usize = 64 * 1024;

/// Refuses an object that is too large and not less so than it `was`. Upstream passes etcd's error on with code 500, which
/// its clients take for worth another try; it is none.
fn check_size(value: &Encoded, object: &dyn Object, was: usize) -> Result<(), ApiError> {
    let margin = if object.meta().deletion_timestamp.is_some() { DELETION_MARGIN } else { 0 };
    let size = value.bytes.len();
    if size <= (MAX_SIZE + margin).max(was) {
        return Ok(());
    }
    let what = format!("the object has {size} bytes, the limit is {MAX_SIZE}");
    Err(ApiError::too_large(format!("etcdserver: request is too large: {what}")))
}

/// Whether `stored` is the encoded object with the revision of the entry in it: then nothing has changed.
fn is_spliced(stored: &[u8], encoded: &Encoded, entry: &Entry) -> bool {
    let (head, tail) = encoded.bytes.split_at(encoded.revision_at);
    let Some(rest) = stored.strip_prefix(head) else { return false };
    let Some(rest) = rest.strip_prefix(entry.revision.to_string().as_bytes()) else { return false };
    rest == tail
}

fn splice(encoded: &Encoded, digits: &str) -> Bytes {
    let (head, tail) = encoded.bytes.split_at(encoded.revision_at);
    [head, digits.as_bytes(), tail].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_is_told_of_a_store_that_cannot_write() {
        let why = || Arc::<str>::from("3 MiB are free");
        for (error, code, reason, retry_after, words) in [
            (CommitError::DiskFull(why()), 507, "InsufficientStorage", 0, "is full (3 MiB are free)"),
            (CommitError::ReadOnly(why()), 503, "ServiceUnavailable", 1, "cannot write (3 MiB are free)"),
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
