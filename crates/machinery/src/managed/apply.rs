//! Server-side apply: merge a configuration into the live object, and drop what its manager no longer wants.

use serde_json::Value;

use super::compare::{compare, field_set};
use super::entries::{Entry, Manager};
use super::merge::{merge, remove};
use super::owned;
use super::set::{FieldSet, Node};
use super::topology::{List, Topology};
use crate::status::{ApiError, Cause, Reason};

/// A field that a configuration would take from somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who owns it.
    pub manager: Manager,
    /// Which, as `.spec.replicas`.
    pub path: String,
}

/// Why a configuration cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Lists in it have elements that cannot be told apart.
    #[error("{}", listed(.0))]
    Malformed(Vec<String>),
    /// Others own some of its fields, with other values.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
}

impl ApplyError {
    /// The conflicts as upstream answers with them.
    #[must_use]
    pub fn conflict_error(conflicts: &[Conflict]) -> ApiError {
        let error = ApiError::new(409, Reason::Conflict, conflict_message(conflicts));
        conflicts.iter().fold(error, |error, conflict| {
            error.with_cause(Cause {
                reason: "FieldManagerConflict".to_owned(),
                message: format!("conflict with {}", conflict.manager.describe()),
                field: conflict.path.clone(),
            })
        })
    }
}

/// Upstream: one error stands alone, several in a list.
fn listed(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        several => format!("errors:\n  {}", several.join("\n  ")),
    }
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager.describe(), one.path);
    }
    let mut lines = Vec::new();
    let mut last = None;
    for conflict in conflicts {
        if last != Some(&conflict.manager) {
            lines.push(format!("conflicts with {}:", conflict.manager.describe()));
            last = Some(&conflict.manager);
        }
        lines.push(format!("- {}", conflict.path));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// What became of an object by an apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The object.
    pub object: Value,
    /// Who owns its fields.
    pub entries: Vec<Entry>,
}

/// What of others an apply takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Force {
    /// Nothing: that is a conflict.
    #[default]
    No,
    /// Whatever it sets.
    Yes,
    /// These fields.
    Only(FieldSet),
}

/// An apply.
pub struct Application<'a> {
    /// The object as it is; `{}` where there is none.
    pub live: &'a Value,
    /// What is applied.
    pub config: &'a Value,
    /// Who applies it.
    pub manager: &'a Manager,
    /// What it may take from others.
    pub force: &'a Force,
    /// When, in RFC 3339.
    pub now: &'a str,
}

/// Applies a configuration to an object whose fields `entries` own. `filter` takes away what the write cannot change.
///
/// # Errors
/// When the configuration cannot be applied, or must not be without force.
pub fn apply<T: Topology>(
    application: &Application<'_>,
    mut entries: Vec<Entry>,
    place: &T,
    filter: impl Fn(&FieldSet) -> FieldSet,
) -> Result<Applied, ApplyError> {
    let Application { live, config, manager, force, now } = *application;
    for entry in &mut entries {
        entry.fields = collapsed(&entry.fields, place);
    }
    let wished = filter(&field_set(config, place).map_err(ApplyError::Malformed)?);
    let merged = merge(live, config, place);
    let before = entries.iter().position(|entry| entry.manager.is(manager)).map(|index| entries.remove(index));
    let object = match &before {
        Some(before) => prune(merged, &before.fields, &entries, &wished, place),
        None => merged,
    };
    let changes = compare(live, &object, place).filter(&filter);
    let taken = changes.modified.union(&changes.added);
    let mut conflicts = Vec::new();
    let mut owners: Vec<&Entry> = entries.iter().collect();
    owners.sort_by(|a, b| sorted(&a.manager).cmp(&sorted(&b.manager)));
    for entry in owners {
        let contested = entry.fields.intersection(&taken);
        let contested = match force {
            Force::No => contested,
            Force::Yes => FieldSet::default(),
            Force::Only(allowed) => contested.difference(allowed),
        };
        let paths = contested.paths().into_iter();
        conflicts.extend(paths.map(|path| Conflict { manager: entry.manager.clone(), path }));
    }
    if !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    super::update::release(&mut entries, &taken.union(&changes.removed));
    let fields = owned(&wished);
    if !fields.is_empty() {
        // Upstream: who changes nothing has not written, and keeps the time of the last write, if any.
        let unchanged = object == *live;
        let time = if unchanged { before.map(|entry| entry.time).unwrap_or_default() } else { now.to_owned() };
        entries.push(Entry { manager: manager.clone(), time, fields });
    }
    Ok(Applied { object, entries })
}

/// Managers in the order in which messages list them.
fn sorted(manager: &Manager) -> (&str, &str, &str) {
    (&manager.name, &manager.api_version, &manager.subresource)
}

/// Takes out of a merged object what the manager applied before, does not apply now, and nobody else owns.
fn prune<T: Topology>(merged: Value, before: &FieldSet, others: &[Entry], wished: &FieldSet, place: &T) -> Value {
    let said = |object: &Value| named(&existing(object, place), place);
    let before = named(before, place);
    let pruned = remove(&merged, &before, place);
    // Whatever somebody owns comes back.
    let owners = others.iter().fold(wished.clone(), |all, entry| all.union(&entry.fields));
    let (all, left) = (said(&merged), said(&pruned));
    let pruned = remove(&merged, &all.difference(&left.union(&named(&owners, place))), place);
    // So does what was below something that went, but was never this manager's.
    let gone = all.difference(&said(&pruned)).intersection(&before);
    remove(&merged, &gone, place)
}

/// All fields of an object; what cannot be told apart is left alone.
fn existing<T: Topology>(object: &Value, place: &T) -> FieldSet {
    let changes = compare(&Value::Null, object, place);
    changes.modified.union(&changes.added)
}

/// A set with the fields in it that are not members but lead to some, where the type declares them.
fn named<T: Topology>(set: &FieldSet, place: &T) -> FieldSet {
    let mut result = FieldSet::default();
    for (element, node) in set.iter() {
        let name = element.strip_prefix("f:");
        let below = name.map_or_else(|| place.item(), |name| place.field(name));
        let declared = name.is_some_and(|name| place.declares(name));
        let member = node.member || (declared && !node.children.is_empty());
        result.insert(element.clone(), Node { member, children: named(&node.children, &below) });
    }
    result
}

/// A set that fits the type as it is now: what has become atomic is owned as a whole.
fn collapsed<T: Topology>(set: &FieldSet, place: &T) -> FieldSet {
    let mut result = FieldSet::default();
    for (element, node) in set.iter() {
        let below = element.strip_prefix("f:").map_or_else(|| place.item(), |name| place.field(name));
        let atomic = node.children.iter().next().is_some_and(|(child, _)| match child.as_bytes() {
            [b'f', ..] => below.is_atomic(),
            _ => below.list() == List::Atomic,
        });
        let node = if atomic {
            Node { member: true, children: FieldSet::default() }
        } else {
            Node { member: node.member, children: collapsed(&node.children, &below) }
        };
        result.insert(element.clone(), node);
    }
    result
}
