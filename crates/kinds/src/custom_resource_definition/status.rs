//! Which names a definition gets, and whether its resource is served.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition as Object, CustomResourceDefinitionCondition as Condition,
    CustomResourceDefinitionNames as Names,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use registry::custom::{CRDS, ESTABLISHED, is_true};
use registry::{meta, scan};
use store::Store;

use super::super::common::{list, text};
use super::validation::approval;

/// Names that others in the group have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    pub(super) fn add(&mut self, names: Names) {
        self.resources
            .extend([names.plural].into_iter().chain(names.singular).chain(names.short_names.into_iter().flatten()));
        self.kinds.extend([names.kind].into_iter().chain(names.list_kind));
    }
}

/// The names that the other definitions of a group have been given.
pub(super) fn taken(store: &Store, group: &str, but: &str) -> Taken {
    let mut taken = Taken::default();
    for entry in store.snapshot(CRDS).iter() {
        let same_group = entry.key.name.split_once('.').is_some_and(|(_, of)| of == group);
        if !same_group || &*entry.key.name == but {
            continue;
        }
        // All of a definition may be a megabyte: only this is read.
        let names = scan::find(&entry.value, &["status", "acceptedNames"]);
        if let Some(names) = names.and_then(|range| serde_json::from_slice(&entry.value[range]).ok()) {
            taken.add(names);
        }
    }
    taken
}

/// Writes into the status which names the definition gets and whether it is served. The conditions are upstream's.
pub(super) fn decide(object: &mut Object, taken: &Taken, now: Timestamp) {
    let now = Some(meta::time(now));
    let (names, conflict) = accept(object, taken);
    object.status.get_or_insert_default().accepted_names = Some(names);
    match &conflict {
        None => set(object, "NamesAccepted", true, "NoConflicts", "no conflicts found", now.clone()),
        Some((reason, message)) => set(object, "NamesAccepted", false, reason, message, now.clone()),
    }
    // Once it is served it stays so, whatever becomes of its names.
    if !is_true(object, ESTABLISHED) {
        if conflict.is_none() {
            let why = "the initial names have been accepted";
            set(object, ESTABLISHED, true, "InitialNamesAccepted", why, now.clone());
        } else {
            set(object, ESTABLISHED, false, "NotAccepted", "not all names are accepted", now.clone());
        }
    }
    if let Some((conformant, reason, message)) = approval(object).condition() {
        set(object, "KubernetesAPIApprovalPolicyConformant", conformant, reason, &message, now);
    }
}

/// The names a definition gets, and the last conflict that was found.
fn accept(object: &Object, taken: &Taken) -> (Names, Option<(&'static str, String)>) {
    let wanted = &object.spec.names;
    let empty = Names::default();
    let had = object.status.as_ref().and_then(|status| status.accepted_names.as_ref()).unwrap_or(&empty);
    let mut names = had.clone();
    let mut conflict = None;
    let in_use = |name: &str| format!("{name:?} is already in use");
    let mut free = |wanted: &str, had: &str, taken: &BTreeSet<String>, reason: &'static str| {
        let free = wanted == had || !taken.contains(wanted);
        if !free {
            conflict = Some((reason, in_use(wanted)));
        }
        free
    };
    if free(&wanted.plural, &had.plural, &taken.resources, "PluralConflict") {
        names.plural.clone_from(&wanted.plural);
    }
    if free(text(&wanted.singular), text(&had.singular), &taken.resources, "SingularConflict") {
        names.singular.clone_from(&wanted.singular);
    }
    let mut clashes = list(&wanted.short_names)
        .iter()
        .filter(|name| !list(&had.short_names).contains(name) && taken.resources.contains(*name));
    if let Some(clash) = clashes.next() {
        free(clash, "", &taken.resources, "ShortNamesConflict");
    } else {
        names.short_names.clone_from(&wanted.short_names);
    }
    if free(&wanted.kind, &had.kind, &taken.kinds, "KindConflict") {
        names.kind.clone_from(&wanted.kind);
    }
    if free(text(&wanted.list_kind), text(&had.list_kind), &taken.kinds, "ListKindConflict") {
        names.list_kind.clone_from(&wanted.list_kind);
    }
    names.categories.clone_from(&wanted.categories);
    (names, conflict)
}

/// Sets a condition; its time changes only when its status does.
pub(super) fn set(object: &mut Object, kind: &str, holds: bool, reason: &str, message: &str, at: Option<Time>) {
    let status = if holds { "True" } else { "False" };
    let conditions = object.status.get_or_insert_default().conditions.get_or_insert_default();
    let mut condition = Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: at,
        ..Condition::default()
    };
    match conditions.iter_mut().find(|existing| existing.type_ == kind) {
        Some(existing) => {
            if existing.status == status && existing.last_transition_time.is_some() {
                condition.last_transition_time.clone_from(&existing.last_transition_time);
            }
            *existing = condition;
        }
        None => conditions.push(condition),
    }
}
