//! Step 7: takes what can be had once only (cluster IPs, node ports, names of definitions) and charges the quotas of the
//! namespace, so that both are true of the same commit.
//!
//! The object is encoded here, once: an update that changes nothing takes nothing and ends here.

use machinery::managed;
use machinery::status::ApiError;
use store::{Encoded, Op, Precondition};
use tokio::sync::MutexGuard;

use super::{Action, Change, Proposed, Step, Stored, Write, commit, decode, managed_fields};
use crate::admission::{Attributes, resource_quota};
use crate::custom::CRDS;
use crate::kind::Reservation;
use crate::object::Object;
use crate::read::{attributes as selectable, key_of};

/// A change that is ready to be committed. What it has taken is given back when it is dropped.
pub(super) struct Charged<'a> {
    /// What is to be committed; `None` when nothing changes.
    pub(super) ops: Option<Vec<Op>>,
    /// The object that is stored or removed.
    pub(super) change: Change,
    pub(super) reservation: Reservation,
    /// Held by a write that quotas have to do with, and by one that gives names to a definition, until it is committed.
    pub(super) locks: [Option<MutexGuard<'a, ()>>; 2],
}

/// Allocates, encodes and charges.
pub(super) async fn run<'a>(
    write: &Write<'a>,
    attributes: &Attributes<'_>,
    change: Change,
    proposed: &Proposed,
    old: Option<&Stored>,
) -> Result<Charged<'a>, ApiError> {
    let (registry, resource) = (write.attributes.registry, write.resource()?.as_ref());
    // Also a write of the status gives names.
    let names_definition = write.takes(Step::Allocate) && *resource.info().storage == *CRDS;
    let naming = if names_definition { Some(registry.0.naming.lock().await) } else { None };
    let charges = write.takes(Step::Charge) && resource_quota::concerns(attributes);
    let charging = if charges { Some(registry.0.charging.lock().await) } else { None };
    let mut charged = Charged { ops: None, change, reservation: Reservation::none(), locks: [naming, charging] };
    let precondition = old.map_or(Precondition::Absent, |old| Precondition::Revision(old.entry.revision));
    let present = old.map_or("", |old| managed_fields::split(&old.entry.value).1);
    let key = |object: &dyn Object| match old {
        Some(old) => old.entry.key.clone(),
        None => key_of(resource, write.attributes.namespace, object.meta().name.as_deref().unwrap_or_default()),
    };
    let (op, object) = match &mut charged.change {
        Change::Keep => return Ok(charged),
        Change::Put(new) => {
            if write.action == Action::Create && !attributes.dry_run {
                decode::check_no_version(new.meta())?;
            }
            if write.takes(Step::Allocate) {
                let stored = old.map(|old| old.object.as_ref());
                let (subresource, context) = (write.subresource(), write.context());
                charged.reservation = resource.strategy().allocate(new.as_mut(), stored, subresource, &context)?;
            }
            let value = commit::encode(resource, new.as_mut())?;
            let fields = proposed.managed_fields.as_deref();
            if old.is_some_and(|old| is_same(&value, fields, old)) {
                return Ok(charged);
            }
            let value = managed_fields::join(value, fields.unwrap_or(present));
            check_size(&value, new.as_ref(), old.map_or(0, |old| old.entry.value.len()))?;
            let attributes = selectable(resource, new.as_ref())?;
            (Op::Put { key: key(new.as_ref()), value, attributes, precondition }, Some(&**new))
        }
        Change::Remove(last) => {
            let value = managed_fields::join(commit::encode(resource, last.as_mut())?, present);
            (Op::Delete { key: key(last.as_ref()), last: value, precondition }, None)
        }
    };
    let mut ops = vec![op];
    if write.takes(Step::Charge) {
        for plugin in attributes.registry.0.plugins.iter().filter(|plugin| plugin.handles(attributes)) {
            ops.extend(plugin.charge(attributes, object)?);
        }
    }
    charged.ops = Some(ops);
    Ok(charged)
}

/// Whether an encoded object and its `managedFields` are what is stored. An apply or update that changes no more than when
/// its fields were set is none.
fn is_same(value: &Encoded, fields: Option<&str>, old: &Stored) -> bool {
    let (bare, present) = managed_fields::split(&old.entry.value);
    let same_fields = |fields: &str| {
        let read = managed_fields::read;
        fields == present || managed::same_but_times(&read(fields), &read(present))
    };
    is_spliced(&bare, value, &old.entry.revision.to_string()) && fields.is_none_or(same_fields)
}

/// Whether `stored` is the encoded object with the digits of its revision in it.
fn is_spliced(stored: &[u8], encoded: &Encoded, revision: &str) -> bool {
    let (head, tail) = encoded.bytes.split_at(encoded.revision_at);
    let rest = stored.strip_prefix(head).and_then(|rest| rest.strip_prefix(revision.as_bytes()));
    rest == Some(tail)
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
