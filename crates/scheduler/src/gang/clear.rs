//! Room for a gang at the cost of pods of lower priority: for enough of its members at the same time, or for none.

use std::sync::Arc;

use crate::cache::{Cache, Charge};
use crate::preempt::{Budget, Preemption, preempt};
use crate::profile::Profile;
use crate::schedule::{NotPreempted, Trace, schedule};
use crate::types::{Candidate, GroupKey};

/// What came of looking for room.
#[derive(Debug)]
pub(crate) enum Clearing {
    /// The members that find a node once all victims are gone, with that node and those who have to go for each.
    Whole(Vec<(Candidate, Preemption)>),
    /// Pods are going already: what their end brings is waited for.
    Waits,
    /// Others would go in vain.
    Impossible,
}

/// Looks for pods to preempt so that `needed` of `members`, in this order, find a node. Nothing is charged afterwards.
///
/// Each member is tried on the books of those before it, with their victims gone. Members that need nobody's place are among
/// the answer, without victims: their room has to be kept too, until the others have theirs.
pub(crate) fn clear(
    cache: &mut Cache,
    profile: &Profile,
    key: &GroupKey,
    members: &[Candidate],
    needed: usize,
    budgets: &[Budget],
) -> Clearing {
    let mut found: Vec<(Candidate, Preemption)> = Vec::new();
    let mut gone: Vec<Charge> = Vec::new();
    let (mut failed, mut waits) = (0, false);
    for member in members {
        if found.len() >= needed || failed + needed > members.len() {
            break;
        }
        let preemption = match schedule(cache, profile, member, &mut 0, &mut Trace::default()) {
            Ok(decision) => Preemption::of_nobody(decision.node),
            Err(refused) => match preempt(cache, profile, member, &refused, budgets) {
                Ok(preemption) if preemption.victims.iter().all(|victim| victim.group.as_ref() != Some(key)) => {
                    preemption
                }
                Ok(_) => {
                    failed += 1;
                    continue;
                }
                Err(why) => {
                    waits |= why == NotPreempted::VictimsTerminating;
                    failed += 1;
                    continue;
                }
            },
        };
        gone.extend(preemption.victims.iter().filter_map(|victim| cache.take_out(&victim.uid)));
        cache.assume(&preemption.node, Arc::clone(&member.info));
        found.push((member.clone(), preemption));
    }
    for (member, _) in &found {
        cache.forget(&member.uid);
    }
    gone.into_iter().for_each(|charge| cache.put_back(charge));
    if waits {
        Clearing::Waits
    } else if found.len() >= needed && found.iter().any(|(_, one)| !one.victims.is_empty()) {
        Clearing::Whole(found)
    } else {
        Clearing::Impossible
    }
}
