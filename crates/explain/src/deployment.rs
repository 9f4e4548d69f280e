//! A Deployment: the next step of its rollout and what holds it.

use controllers::preview;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use machinery::phase::ConditionStatus;

use crate::explanation::{Explanation, Step};
use crate::meta::{has_ended, is_controlled_by, is_deleting, name, pods_of};
use crate::related::Related;
use crate::replica_set;
use crate::words::{after, count, list, reason_and_message, written};

const CONTROLLER: &str = "The Deployment controller";

/// A Deployment with its ReplicaSets, and what its controller would do with them.
struct Rollout<'a> {
    spec: &'a DeploymentSpec,
    status: DeploymentStatus,
    plan: preview::Rollout,
    recreate: bool,
    new: Option<ReplicaSet>,
    old: Vec<ReplicaSet>,
}

pub(crate) fn explain(out: &mut Explanation, deployment: &Deployment, related: &Related, now: Timestamp) {
    let Some(spec) = &deployment.spec else { return };
    let mut sets: Vec<ReplicaSet> = related.all("replicasets.apps");
    sets.retain(|set| is_controlled_by(&set.metadata, &deployment.metadata));
    let pods = related.all::<Pod>("pods");
    let plan = preview::deployment(deployment, sets.clone(), &pods, now);
    let is_old = |set: &&ReplicaSet| set.metadata.name != plan.latest;
    let old_pods = sets.iter().filter(is_old).flat_map(|set| pods_of(&pods, &set.metadata));
    let old_pods: Vec<String> =
        old_pods.filter(|pod| !has_ended(pod)).map(|pod| name(&pod.metadata).to_owned()).collect();
    let (new, old): (Vec<_>, Vec<_>) = sets.into_iter().partition(|set| set.metadata.name == plan.latest);
    let rollout = Rollout {
        spec,
        status: deployment.status.clone().unwrap_or_default(),
        plan,
        recreate: spec.strategy.as_ref().is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate")),
        new: new.into_iter().next(),
        old: old.into_iter().filter(|set| size(set) > 0 || there(set) > 0).collect(),
    };
    wants(out, &rollout);
    has(out, &rollout);
    // With Recreate it is the pods themselves that are waited for.
    let is_known = related.knows("replicasets.apps") && (related.knows("pods") || !rollout.recreate);
    if is_deleting(&deployment.metadata) || !is_known {
        return;
    }
    let generation = deployment.metadata.generation.unwrap_or(0);
    let seen = rollout.status.observed_generation.unwrap_or(0);
    if seen < generation {
        out.next(Step::new(CONTROLLER, format!("takes up generation {generation}; the status is about {seen}")));
        if !rollout.plan.preview.is_idle() {
            steps(out, &rollout, related, &pods, now);
        }
        return;
    }
    let paused = spec.paused == Some(true);
    if paused {
        out.next(
            Step::new("Nobody", "goes on with the rollout: it is paused (scaling still works)")
                .waits_for(format!("kubectl rollout resume deployment/{}", name(&deployment.metadata))),
        );
    }
    steps(out, &rollout, related, &pods, now);
    if rollout.plan.preview.is_idle() && !paused && !is_complete(&rollout) {
        held(out, &rollout, &old_pods);
        deadline(out, &rollout);
    }
    for condition in rollout.status.conditions.iter().flatten() {
        out.why(trouble(condition).unwrap_or_default());
    }
    if out.next.is_empty() {
        out.next(match is_complete(&rollout) {
            true => Step::new("Nobody", "needs to act: it has what it wants"),
            false => Step::new("Its pods", "become available"),
        });
    }
}

fn replicas(rollout: &Rollout<'_>) -> i32 {
    rollout.spec.replicas.unwrap_or(1)
}

fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0)
}

fn there(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

fn wants(out: &mut Explanation, rollout: &Rollout<'_>) {
    out.wants(format!("{} of its latest template", count(replicas(rollout), "pod")));
    if rollout.recreate {
        out.wants("all old pods gone before new ones come (strategy Recreate)");
    } else {
        let rolling = rollout.spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let margins: Vec<String> = [
            ("maxSurge", rolling.and_then(|rolling| rolling.max_surge.as_ref())),
            ("maxUnavailable", rolling.and_then(|rolling| rolling.max_unavailable.as_ref())),
        ]
        .into_iter()
        .filter_map(|(field, value)| Some(format!("{field} {}", written(value?))))
        .collect();
        let margins = if margins.is_empty() { String::new() } else { format!(" ({})", list(&margins)) };
        let (most, least) = (count(rollout.plan.most, "pod"), rollout.plan.least);
        out.wants(format!("at most {most} and at least {least} available while it replaces them{margins}"));
    }
    if let Some(seconds) = rollout.spec.min_ready_seconds.filter(|seconds| *seconds > 0) {
        out.wants(format!("each pod ready for {seconds}s before it counts as available (minReadySeconds)"));
    }
}

fn has(out: &mut Explanation, rollout: &Rollout<'_>) {
    let status = &rollout.status;
    out.has(format!(
        "{}: {} of the latest template, {} ready, {} available",
        count(status.replicas.unwrap_or(0), "pod"),
        status.updated_replicas.unwrap_or(0),
        status.ready_replicas.unwrap_or(0),
        status.available_replicas.unwrap_or(0)
    ));
    if let Some(set) = &rollout.new {
        out.has(format!(
            "the ReplicaSet {} of the latest template, which is to have {}",
            name(&set.metadata),
            count(size(set), "pod")
        ));
    }
    for set in &rollout.old {
        out.has(format!("the old ReplicaSet {}, which has {}", name(&set.metadata), count(there(set), "pod")));
    }
}

/// What the controller does now, and what its ReplicaSets were told and have not done yet.
fn steps(out: &mut Explanation, rollout: &Rollout<'_>, related: &Related, pods: &[Pod], now: Timestamp) {
    let plan = &rollout.plan.preview;
    for set in &plan.create {
        out.next(Step::new(CONTROLLER, format!("creates the ReplicaSet {set} of the latest template")));
    }
    for (set, from, to) in &plan.scale {
        out.next(Step::new(CONTROLLER, format!("scales the ReplicaSet {set} from {from} to {to}")));
    }
    if !plan.delete.is_empty() {
        let sets = list(&plan.delete);
        out.next(Step::new(CONTROLLER, format!("deletes {sets}, which is beyond its revisionHistoryLimit")));
    }
    for (reason, message) in &plan.tell {
        out.why(format!("{reason}: {message}"));
    }
    for set in rollout.old.iter().chain(&rollout.new) {
        replica_set::step(out, set, &pods_of(pods, &set.metadata), related, now);
    }
}

fn is_complete(rollout: &Rollout<'_>) -> bool {
    let is_full = |set: &ReplicaSet| [size(set), there(set), available(set)] == [replicas(rollout); 3];
    rollout.old.is_empty() && rollout.new.as_ref().is_some_and(is_full)
}

/// Why the controller does nothing in the middle of a rollout.
fn held(out: &mut Explanation, rollout: &Rollout<'_>, old_pods: &[String]) {
    let grown = rollout.new.as_ref().map_or(0, size);
    let is_grown = grown >= replicas(rollout);
    let old: Vec<&str> = rollout.old.iter().map(|set| name(&set.metadata)).collect();
    if rollout.recreate {
        if !is_grown {
            let step = Step::new(CONTROLLER, "starts pods of the latest template");
            out.next(step.waits_for(match old_pods {
                [] => "all pods of old templates to be gone".to_owned(),
                pods => format!("all pods of old templates to be gone: {}", list(pods)),
            }));
        }
        return;
    }
    let preview::Rollout { most, least, present, .. } = rollout.plan;
    if rollout.old.iter().any(|set| size(set) > 0) {
        let sets = rollout.old.iter().chain(&rollout.new);
        let available: i32 = sets.map(|set| available(set).min(size(set))).sum();
        out.next(Step::new(CONTROLLER, format!("scales down {}", list(&old))).waits_for(format!(
            "more available pods of the latest template: {least} in all have to stay available, {available} are"
        )));
    }
    if !is_grown {
        let step = Step::new(CONTROLLER, format!("gives its latest ReplicaSet more than {}", count(grown, "pod")));
        out.next(if present >= most {
            step.waits_for(format!("old pods to go: {} are there, and no more may be", count(present, "pod")))
        } else {
            step.waits_for(format!("{} to follow its new size", list(&old)))
        });
    }
}

/// Until when the rollout has to make progress.
fn deadline(out: &mut Explanation, rollout: &Rollout<'_>) {
    let Some(seconds) = rollout.spec.progress_deadline_seconds.filter(|seconds| *seconds < i32::MAX) else { return };
    let progress = rollout.status.conditions.iter().flatten().find(|condition| condition.type_ == "Progressing");
    let Some(progress) = progress.filter(|condition| condition.status != ConditionStatus::False) else { return };
    let Some(last) =
        progress.last_update_time.as_ref().filter(|_| progress.reason.as_deref() != Some("NewReplicaSetAvailable"))
    else {
        return;
    };
    let step = Step::new(
        CONTROLLER,
        "notes that the rollout makes no progress (ProgressDeadlineExceeded), if nothing moves; it goes on trying",
    );
    out.next(step.until(after(last.0, i64::from(seconds))));
}

/// What a condition says that is not as one would have it.
fn trouble(condition: &DeploymentCondition) -> Option<String> {
    let is_bad = match condition.type_.as_str() {
        "ReplicaFailure" => condition.status == ConditionStatus::True,
        "Progressing" | "Available" => condition.status == ConditionStatus::False,
        _ => false,
    };
    is_bad.then(|| reason_and_message(condition.reason.as_ref(), condition.message.as_ref()))
}
