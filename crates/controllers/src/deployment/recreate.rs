//! The strategy Recreate: all old Pods go before the first new one comes.

use super::rollout::{Rollout, Snapshot};
use crate::meta;

/// One step: take the old ReplicaSets down; once the last of their Pods has ended, bring the new one up.
pub(super) fn step(rollout: &mut Rollout<'_>, snapshot: &Snapshot) {
    rollout.sync_revision();
    let active: Vec<String> = rollout.active_old().map(|rs| meta::name(rs).to_owned()).collect();
    for name in &active {
        rollout.scale_replica_set(name, 0);
    }
    if !active.is_empty() || old_pods_run(rollout, snapshot) {
        return;
    }
    rollout.sync_or_create();
    let replicas = rollout.bounds.replicas;
    let new = rollout.new.as_deref().map(|new| (meta::name(new).to_owned(), super::replicas::wanted(new)));
    if let Some((name, size)) = new
        && size != replicas
    {
        rollout.scale_replica_set(&name, replicas);
        return;
    }
    if rollout.is_complete() {
        rollout.clean_up();
    }
}

/// Whether old Pods may still run, going by the ReplicaSets and by the Pods themselves. One that is being deleted
/// still holds its volumes and ports; and a ReplicaSet that has not heard yet that it is to have none may create more.
fn old_pods_run(rollout: &Rollout<'_>, snapshot: &Snapshot) -> bool {
    rollout.old.iter().any(|rs| {
        let status = rs.status.clone().unwrap_or_default();
        status.replicas > 0
            || status.terminating_replicas.is_some_and(|pods| pods > 0)
            || status.observed_generation < rs.metadata.generation
            || snapshot.running.get(meta::uid(&**rs)).is_some_and(|pods| *pods > 0)
    })
}
