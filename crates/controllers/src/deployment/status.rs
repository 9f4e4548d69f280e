//! The status of a Deployment: its numbers, and the conditions Available, Progressing and ReplicaFailure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};

use super::replicas::{self, Bounds};
use crate::meta;
use crate::meta::ConditionStatus;

/// What stands for "for ever" in fields of 32 bits.
const UNLIMITED: i32 = i32::MAX;

/// Why the condition Progressing is as it is.
pub(crate) mod reason {
    pub(crate) const NEW_REPLICA_SET: &str = "NewReplicaSetCreated";
    pub(crate) const FOUND_REPLICA_SET: &str = "FoundNewReplicaSet";
    pub(crate) const CREATE_FAILED: &str = "ReplicaSetCreateError";
    pub(crate) const UPDATED: &str = "ReplicaSetUpdated";
    pub(crate) const COMPLETE: &str = "NewReplicaSetAvailable";
    pub(crate) const TIMED_OUT: &str = "ProgressDeadlineExceeded";
    pub(crate) const PAUSED: &str = "DeploymentPaused";
    pub(crate) const RESUMED: &str = "DeploymentResumed";
}

/// The numbers and the condition Available. Other conditions stay as they are in `deployment`.
pub(crate) fn calculate<'a>(
    deployment: &Deployment,
    sets: impl Iterator<Item = &'a ReplicaSet> + Clone,
    new: Option<&ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let bounds = Bounds::of(deployment);
    let actual = |rs: &ReplicaSet| rs.status.as_ref().map_or(0, |status| status.replicas);
    let ready = |rs: &ReplicaSet| rs.status.as_ref().and_then(|status| status.ready_replicas);
    let terminating = |rs: &ReplicaSet| rs.status.as_ref().and_then(|status| status.terminating_replicas);
    let available: i32 = sets.clone().map(replicas::available).sum();
    let old = deployment.status.clone().unwrap_or_default();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: meta::count(sets.clone().map(actual).sum()),
        updated_replicas: meta::count(new.map(actual).unwrap_or_default()),
        ready_replicas: meta::count(sets.clone().filter_map(ready).sum()),
        available_replicas: meta::count(available),
        unavailable_replicas: meta::count((replicas::total_wanted(sets.clone()) - available).max(0)),
        // Upstream: not known as long as one of the ReplicaSets does not say.
        terminating_replicas: sets.map(terminating).sum(),
        collision_count: old.collision_count,
        conditions: old.conditions,
    };
    let (value, reason, message) = if available >= bounds.min_available() {
        (ConditionStatus::True, "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        (ConditionStatus::False, "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut status, new_condition("Available", value, reason, message.to_owned(), now));
    status
}

/// Adds to `status` what it says of the progress of a rollout; `before` is the status to compare with.
pub(crate) fn sync_progress<'a>(
    deployment: &Deployment,
    before: &DeploymentStatus,
    status: &mut DeploymentStatus,
    mut sets: impl Iterator<Item = &'a ReplicaSet>,
    new: Option<&'a ReplicaSet>,
    now: Timestamp,
) {
    if deadline(deployment).is_none() {
        remove(status, "Progressing");
    } else {
        estimate(deployment, before, status, new, now);
    }
    // The new ReplicaSet's failure says more than that of an old one.
    let failure = new.and_then(failure_of).or_else(|| sets.find_map(failure_of));
    match failure {
        Some(failure) => set(status, failure),
        None => remove(status, "ReplicaFailure"),
    }
}

fn estimate(
    deployment: &Deployment,
    before: &DeploymentStatus,
    status: &mut DeploymentStatus,
    new: Option<&ReplicaSet>,
    now: Timestamp,
) {
    let current = progressing(before).cloned();
    let was_complete = current.as_ref().is_some_and(|current| is(current, reason::COMPLETE));
    // The rollout has ended: what happens to Pods afterwards is no rollout.
    if was_complete && status.replicas == status.updated_replicas {
        return;
    }
    let subject = match new {
        Some(rs) => format!("ReplicaSet {:?}", meta::name(rs)),
        None => format!("Deployment {:?}", meta::name(deployment)),
    };
    let verdict = |value: ConditionStatus, reason: &str, what: &str| {
        new_condition("Progressing", value, reason, format!("{subject} {what}"), now)
    };
    if is_complete(deployment, status) {
        set(status, verdict(ConditionStatus::True, reason::COMPLETE, "has successfully progressed."));
    } else if has_progressed(before, status) {
        let mut condition = verdict(ConditionStatus::True, reason::UPDATED, "is progressing.");
        if let Some(current) = current.filter(|current| current.status == ConditionStatus::True) {
            condition.last_transition_time = current.last_transition_time;
        }
        // Each step counts anew for the deadline, so the time is renewed even where nothing else changes.
        remove(status, "Progressing");
        set(status, condition);
    } else if is_late(deployment, status, now) {
        set(status, verdict(ConditionStatus::False, reason::TIMED_OUT, "has timed out progressing."));
    }
}

/// Whether the rollout of `deployment` has ended, going by `status`.
pub(crate) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Bounds::of(deployment).replicas;
    [status.updated_replicas, status.replicas, status.available_replicas]
        .into_iter()
        .all(|number| number.unwrap_or_default() == wanted)
        && status.observed_generation >= deployment.metadata.generation
}

fn has_progressed(before: &DeploymentStatus, status: &DeploymentStatus) -> bool {
    let old =
        |status: &DeploymentStatus| status.replicas.unwrap_or_default() - status.updated_replicas.unwrap_or_default();
    status.updated_replicas > before.updated_replicas
        || old(status) < old(before)
        || status.ready_replicas > before.ready_replicas
        || status.available_replicas > before.available_replicas
}

fn is_late(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    match progressing(status) {
        Some(condition) if is(condition, reason::TIMED_OUT) => true,
        Some(condition) if is(condition, reason::COMPLETE) => false,
        Some(condition) => due(deployment, condition).is_some_and(|due| due < now),
        None => false,
    }
}

/// When to look again whether the deadline has passed; nothing if no rollout is under way or it has none.
pub(crate) fn requeue_after(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let condition = progressing(status)?;
    if is_complete(deployment, status) || is(condition, reason::COMPLETE) || is(condition, reason::TIMED_OUT) {
        return None;
    }
    let due = due(deployment, condition)?;
    // Times are kept in whole seconds: one more, so as not to be early.
    Some(meta::until(due, now) + Duration::from_secs(1))
}

fn due(deployment: &Deployment, condition: &DeploymentCondition) -> Option<Timestamp> {
    let from = condition.last_update_time.as_ref()?.0;
    Some(meta::plus_seconds(from, i64::from(deadline(deployment)?)))
}

/// After how many seconds without progress a rollout counts as failed.
fn deadline(deployment: &Deployment) -> Option<i32> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != UNLIMITED).then_some(seconds)
}

/// Notes in `deployment` that it was paused or resumed, so that the time of a pause does not count for the deadline.
pub(crate) fn note_pause(deployment: &mut Deployment, now: Timestamp) {
    let paused = deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
    let status = deployment.status.get_or_insert_default();
    let current = progressing(status);
    if current.is_some_and(|current| is(current, reason::TIMED_OUT)) {
        return;
    }
    let noted = current.is_some_and(|current| is(current, reason::PAUSED));
    let (reason, message) = match (paused, noted) {
        (true, false) => (reason::PAUSED, "Deployment is paused"),
        (false, true) => (reason::RESUMED, "Deployment is resumed"),
        _ => return,
    };
    note(deployment, ConditionStatus::Unknown, reason, message.to_owned(), now);
}

/// Sets the condition Progressing of `deployment`, if it has a deadline: without one nobody asks.
pub(crate) fn note(deployment: &mut Deployment, value: ConditionStatus, reason: &str, message: String, now: Timestamp) {
    if deadline(deployment).is_some() {
        let status = deployment.status.get_or_insert_default();
        set(status, new_condition("Progressing", value, reason, message, now));
    }
}

/// Whether `deployment` has a deadline and nothing is said of its progress yet.
pub(crate) fn lacks_progress(deployment: &Deployment) -> bool {
    deadline(deployment).is_some() && deployment.status.as_ref().and_then(progressing).is_none()
}

fn progressing(status: &DeploymentStatus) -> Option<&DeploymentCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == "Progressing")
}

fn is(condition: &DeploymentCondition, reason: &str) -> bool {
    condition.reason.as_deref() == Some(reason)
}

fn failure_of(rs: &ReplicaSet) -> Option<DeploymentCondition> {
    let mut conditions = rs.status.as_ref()?.conditions.iter().flatten();
    let failure = conditions.find(|condition| condition.type_ == "ReplicaFailure")?;
    Some(DeploymentCondition {
        type_: failure.type_.clone(),
        status: failure.status.clone(),
        last_transition_time: failure.last_transition_time.clone(),
        last_update_time: failure.last_transition_time.clone(),
        reason: failure.reason.clone(),
        message: failure.message.clone(),
    })
}

fn new_condition(
    type_: &str,
    value: ConditionStatus,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: value.as_str().to_owned(),
        last_update_time: Some(meta::seconds(now)),
        last_transition_time: Some(meta::seconds(now)),
        reason: Some(reason.to_owned()),
        message: Some(message),
    }
}

/// Sets a condition, unless it stands there with the same value and reason. Of a condition that keeps its value the
/// time of the last transition stays.
fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    let conditions = status.conditions.get_or_insert_default();
    if let Some(at) = conditions.iter().position(|old| old.type_ == condition.type_) {
        let old = &conditions[at];
        if old.status == condition.status {
            if old.reason == condition.reason {
                return;
            }
            condition.last_transition_time = old.last_transition_time.clone();
        }
        conditions.remove(at);
    }
    conditions.push(condition);
}

fn remove(status: &mut DeploymentStatus, type_: &str) {
    let Some(conditions) = &mut status.conditions else {
        return;
    };
    conditions.retain(|condition| condition.type_ != type_);
    if conditions.is_empty() {
        status.conditions = None;
    }
}
