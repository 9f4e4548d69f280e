//! What a Deployment needs next: a ReplicaSet for its template, other sizes for those it has, and its status.
//!
//! One call makes one step, as upstream's sync does: the ReplicaSets' answers to a step lead to the next.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::rollout::Rollout;
pub(crate) use super::rollout::{Plan, RolloutStep, Snapshot, Update};
use super::status::{self, reason};
use super::{recreate, replicas, rolling, scaling};
use crate::meta;
use crate::meta::ConditionStatus;

/// Decides what `deployment` needs. Whoever carries the plan out makes no choices.
pub(crate) fn plan(snapshot: &Snapshot, deployment: &Deployment, now: Timestamp) -> Plan {
    let Some(spec) = &deployment.spec else {
        return Plan::default();
    };
    if selects_everything(&spec.selector) {
        return refuse_to_select_all(deployment);
    }
    let mut rollout = Rollout::new(snapshot, deployment, now);
    if meta::is_deleting(deployment) {
        rollout.sync_status();
        return rollout.into_plan();
    }
    status::note_pause(&mut rollout.deployment, now);
    let paused = spec.paused == Some(true);
    if paused || scaling::is_due(&rollout) {
        scaling::step(&mut rollout);
        if paused {
            rollout.clean_up();
        }
        rollout.sync_status();
    } else {
        if replicas::is_rolling(spec) {
            rolling::step(&mut rollout);
        } else {
            recreate::step(&mut rollout, snapshot);
        }
        rollout.sync_rollout_status();
    }
    rollout.into_plan()
}

fn selects_everything(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(std::collections::BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

fn refuse_to_select_all(deployment: &Deployment) -> Plan {
    let mut plan = Plan::default();
    let message = "This deployment is selecting all pods. A non-empty selector is required.";
    plan.actions.push(RolloutStep::Warn { reason: "SelectingAll", message: message.to_owned() });
    let mut status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation < deployment.metadata.generation {
        status.observed_generation = deployment.metadata.generation;
        plan.actions.push(RolloutStep::UpdateStatus(Box::new(status)));
    }
    plan
}

/// The status that says that the ReplicaSet called `name` could not be created.
pub(crate) fn creation_failed(
    deployment: &Deployment,
    name: &str,
    error: &str,
    now: Timestamp,
) -> (DeploymentStatus, String) {
    let mut deployment = deployment.clone();
    let message = format!("Failed to create new replica set {name:?}: {error}");
    status::note(&mut deployment, ConditionStatus::False, reason::CREATE_FAILED, message.clone(), now);
    (deployment.status.unwrap_or_default(), message)
}

/// The status after the name for the present template turned out to be taken by somebody else's ReplicaSet.
pub(crate) fn collided(deployment: &Deployment) -> DeploymentStatus {
    let mut status = deployment.status.clone().unwrap_or_default();
    status.collision_count = Some(status.collision_count.unwrap_or_default().saturating_add(1));
    status
}
