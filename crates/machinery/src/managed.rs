//! Who owns which fields of an object: server-side apply and `metadata.managedFields`.
//!
//! Upstream keeps an entry for each manager (with the operation, version and subresource by which it wrote) and in it
//! the set of the fields that it set last. An update takes the fields it changes away from everybody else; an apply
//! that would do so is a conflict unless it is forced, and removes what its manager applied before and now leaves out.
//!
//! | file | subject |
//! |---|---|
//! | [`set`] | sets of fields, as FieldsV1 |
//! | [`topology`] | how the values of a type are merged: the facts, and what is known without any |
//! | [`mod@compare`] | from objects to sets |
//! | [`mod@added`] | the fields of a new object, from its bytes |
//! | [`mod@merge`] | from a live object and a configuration to the object applied |
//! | [`entries`] | the list of managers, as objects have it |
//! | [`mod@update`], [`mod@apply`] | the two operations |
//! | [`written`] | updates of text, of which little is decoded |
//!
//! Upstream: `sigs.k8s.io/structured-merge-diff` and `k8s.io/apimachinery/pkg/util/managedfields`. All versions of a
//! kind are taken to have the same fields.

mod added;
mod apply;
mod compare;
mod entries;
mod merge;
mod set;
mod topology;
mod update;
mod written;

#[cfg(test)]
mod tests;

pub use added::{Unclear, added};
pub use apply::{Application, Applied, ApplyError, Conflict, Force, apply};
pub use compare::{Comparison, compare, field_set};
pub use entries::{Entry, Manager, Operation, parse, render, render_created, same_but_times};
pub use merge::merge;
pub use set::FieldSet;
pub use topology::{BuiltIn, List, Place, Topology};
pub use update::{before_first_apply, update};
pub use written::update_text;

/// The fields of `metadata` which belong to nobody.
const UNOWNED: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// A set without what belongs to nobody.
fn owned(set: &FieldSet) -> FieldSet {
    let mut system = FieldSet::of_path(&["apiVersion"]).union(&FieldSet::of_path(&["kind"]));
    system = system.union(&FieldSet::of_path(&["metadata"]));
    for field in UNOWNED {
        system = system.union(&FieldSet::of_path(&["metadata", field]));
    }
    set.difference(&system)
}
