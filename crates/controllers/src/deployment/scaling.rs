//! Scaling: a Deployment whose scale changed, or that is paused, has its ReplicaSets resized without moving the rollout on.
//!
//! upstream: `scale` in `pkg/controller/deployment/sync.go`.

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::history;
use super::replicas::{self, wanted};
use super::rollout::Rollout;
use crate::meta;

/// Whether the Deployment was scaled since its ReplicaSets were: then that comes first, in proportion.
pub(super) fn is_due(rollout: &Rollout<'_>) -> bool {
    let mut active = rollout.sets().filter(|rs| wanted(rs) > 0);
    active.any(|rs| history::desired_replicas(rs).is_some_and(|desired| desired != rollout.bounds.replicas))
}

/// Brings the ReplicaSets to the Deployment's scale.
///
/// As with a rollout's own steps, nothing grows while a ReplicaSet still has Pods that it is no longer asked for.
pub(super) fn step(rollout: &mut Rollout<'_>) {
    rollout.sync_revision();
    let wanted_now = replicas::total_wanted(rollout.sets());
    let is_quiet = |rs| replicas::is_settled(rs) && replicas::present(rs) == wanted(rs);
    if rollout.bounds.max_total() > wanted_now && !rollout.sets().all(is_quiet) {
        return;
    }
    let replicas = rollout.bounds.replicas;
    if let Some((name, size)) = only_active(rollout) {
        if size != replicas {
            rollout.scale_replica_set(&name, replicas);
        }
        return;
    }
    if is_saturated(rollout) {
        let old: Vec<String> = rollout.active_old().map(|rs| meta::name(rs).to_owned()).collect();
        for name in old {
            rollout.scale_replica_set(&name, 0);
        }
        return;
    }
    if rollout.deployment.spec.as_ref().is_some_and(replicas::is_rolling) {
        let active: Vec<&ReplicaSet> = rollout.sets().filter(|rs| wanted(rs) > 0).collect();
        let deployed = rollout.deployment.status.as_ref().and_then(|status| status.replicas);
        let sizes = replicas::proportional(rollout.bounds, deployed.unwrap_or_default(), &active);
        for (name, size) in sizes {
            rollout.scale_replica_set(&name, size);
        }
    }
}

/// The one ReplicaSet that has replicas; if none has any, the latest. Nothing if several have, or there is none.
fn only_active(rollout: &Rollout<'_>) -> Option<(String, i32)> {
    let mut active = rollout.sets().filter(|rs| wanted(rs) > 0);
    let rs = match (active.next(), active.next()) {
        (None, _) => rollout.new.as_deref().or(rollout.old.last().map(|rs| &**rs))?,
        (Some(rs), None) => rs,
        (Some(_), Some(_)) => return None,
    };
    Some((meta::name(rs).to_owned(), wanted(rs)))
}

/// Whether the new ReplicaSet alone has all the replicas, and all are available.
fn is_saturated(rollout: &Rollout<'_>) -> bool {
    let all = rollout.bounds.replicas;
    rollout.new.as_deref().is_some_and(|new| {
        history::desired_replicas(new) == Some(all) && wanted(new) == all && replicas::available(new) == all
    })
}
