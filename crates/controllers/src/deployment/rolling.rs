//! The strategy RollingUpdate: new Pods come and old ones go, within `maxSurge` and `maxUnavailable`.
//!
//! Stricter than upstream, which counts what ReplicaSets are asked to have: here a Pod counts until its ReplicaSet has
//! let it go, and nothing grows while an old ReplicaSet has not heard of its new size. So the bounds hold for the Pods
//! themselves, at any moment, and it costs a rollout no more than the time of one status write per step.

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::replicas::{self, wanted};
use super::rollout::Rollout;
use crate::meta;

/// One step: grow the new ReplicaSet if there is room, else shrink old ones if enough Pods are available, else tidy up.
pub(super) fn step(rollout: &mut Rollout<'_>) {
    rollout.sync_or_create();
    if grow(rollout) || shrink(rollout) {
        return;
    }
    if rollout.is_complete() {
        rollout.clean_up();
    }
}

fn grow(rollout: &mut Rollout<'_>) -> bool {
    let Some(new) = &rollout.new else {
        return false;
    };
    let (name, current) = (meta::name(&**new).to_owned(), wanted(new));
    let size =
        if current > rollout.bounds.replicas { rollout.bounds.replicas } else { rollout.new_replica_count(current) };
    size != current && rollout.scale_replica_set(&name, size)
}

/// Shrinks the old ReplicaSets by what exceeds the fewest available Pods.
///
/// Pods of the new ReplicaSet that are not available yet do not count, even where they exist: else an old ReplicaSet
/// would give way to one that may never work. Unhealthy Pods go first: they add nothing, and might block the rollout.
fn shrink(rollout: &mut Rollout<'_>) -> bool {
    let min_available = rollout.bounds.min_available();
    let new_unavailable = rollout.new.as_deref().map_or(0, |new| (wanted(new) - replicas::available(new)).max(0));
    let spare = replicas::total_wanted(rollout.sets()) - min_available - new_unavailable;
    let old: Vec<(String, i32, i32)> = rollout.active_old().map(size_and_health).collect();
    if old.is_empty() || spare <= 0 {
        return false;
    }
    let mut sizes: Vec<i32> = old.iter().map(|(_, size, _)| *size).collect();

    let mut budget = spare;
    for (size, (_, _, available)) in sizes.iter_mut().zip(&old) {
        let unhealthy = (*size - available).clamp(0, budget);
        *size -= unhealthy;
        budget -= unhealthy;
    }
    // A ReplicaSet whose status is behind may count Pods that it was already told to delete.
    let available = |rs: &ReplicaSet| replicas::available(rs).min(wanted(rs));
    let mut budget = rollout.sets().map(available).sum::<i32>() - min_available;
    for size in &mut sizes {
        let surplus = (*size).min(budget.max(0));
        *size -= surplus;
        budget -= surplus;
    }

    let mut scaled = false;
    for ((name, before, _), size) in old.iter().zip(sizes) {
        scaled |= size != *before && rollout.scale_replica_set(name, size);
    }
    scaled
}

fn size_and_health(rs: &ReplicaSet) -> (String, i32, i32) {
    (meta::name(rs).to_owned(), wanted(rs), replicas::available(rs))
}
