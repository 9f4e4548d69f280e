//! What is to become of an object whose owners go or are gone.

use super::graph::{Dependent, Fate, Text};

/// How an owner stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is there.
    Solid,
    /// It is there, and waits for its dependents to go before it does.
    Waiting,
    /// It is not there: verified, not merely unknown.
    Absent,
    /// The reference makes no sense: an object of cluster scope cannot belong to one in a namespace.
    Impossible,
}

/// How an object that nobody wants any more is to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// At once; its dependents follow.
    Background,
    /// After its dependents.
    Foreground,
    /// Without its dependents.
    Orphan,
}

/// One thing to do about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CollectStep {
    /// Delete it.
    Delete(Policy),
    /// Take these owners off it: others hold it.
    RemoveOwners(Vec<Text>),
    /// Let its owners go without it: it waits itself for something that waits for it.
    Unblock,
    /// Take it off these dependents as their owner.
    Orphan(Vec<Dependent>),
    /// Give up a finalizer of garbage collection.
    RemoveFinalizer(&'static str),
    /// Look at these, which it waits for.
    LookAt(Vec<Text>),
}

/// What an object that stays says about its own deletion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Propagation {
    /// It has the finalizer by which its dependents go first.
    pub(crate) foreground: bool,
    /// It has the finalizer by which its dependents stay.
    pub(crate) orphan: bool,
    /// One of its owners waits for it.
    pub(crate) blocks: bool,
}

/// Decides about an object with this `fate`, these `owners` and these `dependents`.
pub(crate) fn plan(
    fate: Fate,
    propagation: Propagation,
    owners: &[(Text, Standing)],
    dependents: &[Dependent],
) -> Vec<CollectStep> {
    match fate {
        Fate::Goes => Vec::new(),
        Fate::Orphans => {
            let orphan = (!dependents.is_empty()).then(|| CollectStep::Orphan(dependents.to_vec()));
            orphan.into_iter().chain([CollectStep::RemoveFinalizer(super::graph::ORPHAN)]).collect()
        }
        Fate::Foreground if dependents.iter().any(|dependent| dependent.blocks) => {
            let waiting = dependents.iter().filter(|dependent| dependent.node.fate != Fate::Foreground);
            vec![CollectStep::LookAt(waiting.map(|dependent| dependent.uid.clone()).collect())]
        }
        Fate::Foreground => vec![CollectStep::RemoveFinalizer(super::graph::FOREGROUND)],
        Fate::Stays => of_owners(propagation, owners, dependents),
    }
}

fn of_owners(propagation: Propagation, owners: &[(Text, Standing)], dependents: &[Dependent]) -> Vec<CollectStep> {
    let any = |standing| owners.iter().any(|(_, other)| *other == standing);
    if owners.is_empty() || any(Standing::Impossible) {
        return Vec::new();
    }
    if any(Standing::Solid) {
        let others = owners.iter().filter(|(_, standing)| *standing != Standing::Solid);
        let others: Vec<Text> = others.map(|(uid, _)| uid.clone()).collect();
        return if others.is_empty() { Vec::new() } else { vec![CollectStep::RemoveOwners(others)] };
    }
    if any(Standing::Waiting) && !dependents.is_empty() {
        // Upstream: where ownership goes in a circle, everybody would wait for ever.
        let circle = dependents.iter().any(|dependent| dependent.node.fate == Fate::Foreground);
        let unblock = (circle && propagation.blocks).then_some(CollectStep::Unblock);
        return unblock.into_iter().chain([CollectStep::Delete(Policy::Foreground)]).collect();
    }
    vec![CollectStep::Delete(match propagation {
        Propagation { orphan: true, .. } => Policy::Orphan,
        Propagation { foreground: true, .. } => Policy::Foreground,
        Propagation { .. } => Policy::Background,
    })]
}
