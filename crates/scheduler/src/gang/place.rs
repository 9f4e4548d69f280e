//! All members or none.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::spec::NAME;
use crate::cache::Cache;
use crate::profile::Profile;
use crate::resources::Resources;
use crate::schedule::{Decision, Trace, Unschedulable, schedule};
use crate::types::{Candidate, GroupKey};

/// What came of trying a group.
pub(crate) enum Placement {
    /// Enough members have a node, and are charged to it; the rest waits like any other pod.
    Whole {
        /// Those with a node.
        placed: Vec<(Candidate, Decision, Trace)>,
        /// Those that are beyond what the group needs and found none.
        left: Vec<(Candidate, Box<Unschedulable>, Trace)>,
    },
    /// Too few: nothing is charged.
    Refused(Refused),
}

/// Why a group is not placed.
pub(crate) struct Refused {
    /// For people.
    pub(crate) message: String,
    /// The plugins whose queueing hints may help, [`NAME`] among them.
    pub(crate) plugins: BTreeSet<&'static str>,
    /// What was found for the first member that found no node.
    pub(crate) trace: Trace,
}

/// The important first, then in the order of their names: rank 0 before rank 1.
pub(crate) fn in_order(mut members: Vec<Candidate>) -> Vec<Candidate> {
    members.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| natural(&a.name).cmp(&natural(&b.name))));
    members
}

/// Tries to place `members`, in this order, of which `needed` have to find a node.
pub(crate) fn place(
    cache: &mut Cache,
    profile: &Profile,
    key: &GroupKey,
    members: Vec<Candidate>,
    needed: usize,
    first: &mut usize,
) -> Placement {
    let total = members.len();
    let mut placed: Vec<(Candidate, Decision, Trace)> = Vec::new();
    let mut left: Vec<(Candidate, Box<Unschedulable>, Trace)> = Vec::new();
    for member in members {
        let mut trace = Trace::default();
        match schedule(cache, profile, &member, first, &mut trace) {
            Ok(decision) => {
                cache.assume(&decision.node, Arc::clone(&member.info));
                placed.push((member, decision, trace));
            }
            Err(refused) => left.push((member, refused, trace)),
        }
        // It cannot become whole any more.
        if placed.len() + (total - placed.len() - left.len()) < needed {
            break;
        }
    }
    if placed.len() >= needed {
        return Placement::Whole { placed, left };
    }
    let found = placed.len();
    for (member, ..) in &placed {
        cache.forget(&member.uid);
    }
    let mut plugins = BTreeSet::from([NAME]);
    let mut message = format!("pod group {key} is not ready: {found} of {needed} pods that it needs find a node");
    let mut trace = Trace::default();
    if let Some((member, refused, found)) = left.into_iter().next() {
        plugins.extend(&refused.plugins);
        // Refusals are told as they were with the others of the group in place.
        message = format!("{refused} {message} at the same time");
        if let Some(lack) = never_fits(cache, &member, needed) {
            message = format!("{message}; it never can: {lack} in the whole cluster");
        }
        trace = found;
    }
    Placement::Refused(Refused { message, plugins, trace })
}

/// What the whole cluster, empty, has too little of for `needed` such pods.
fn never_fits(cache: &Cache, member: &Candidate, needed: usize) -> Option<String> {
    let mut all = Resources::default();
    (0..needed).for_each(|_| all.add(&member.requests));
    all.shortage(|name| cache.total().of(name), "there")
}

/// Numbers at the end count as numbers: `worker-10` comes after `worker-9`.
fn natural(name: &str) -> (&str, u64) {
    let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (head, tail) = name.split_at(name.len() - digits);
    (head, tail.parse().unwrap_or(0))
}
