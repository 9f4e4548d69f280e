//! What a Deployment needs next: a ReplicaSet for its template, other sizes for those it has, and its status.
//!
//! One call makes one step, as upstream's sync does: the ReplicaSets' answers to a step lead to the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};

use super::replicas::{self, Bounds, wanted};
use super::status::{self, reason};
use super::{history, recreate, rolling};
use crate::meta;

/// What a plan is made from.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The ReplicaSets that the Deployment controls.
    pub(crate) sets: Vec<Arc<ReplicaSet>>,
    /// How many Pods that have not finished each of them has, by UID; those being deleted included. Asked for with the
    /// strategy Recreate alone.
    pub(crate) running: BTreeMap<String, usize>,
}

/// One thing to do.
#[derive(Debug, PartialEq)]
pub(crate) enum RolloutStep {
    /// Create a ReplicaSet. Its name follows from the template.
    Create(Box<ReplicaSet>),
    /// Change a ReplicaSet.
    Update(Update),
    /// Delete a ReplicaSet of which nobody has any use.
    Delete(Arc<ReplicaSet>),
    /// Note on the Deployment which revision is current.
    SetRevision(String),
    /// Write the Deployment's status.
    UpdateStatus(Box<DeploymentStatus>),
    /// Tell people that something is wrong.
    Warn {
        /// In one word.
        reason: &'static str,
        /// In a sentence.
        message: String,
    },
}

/// A change of a ReplicaSet: only what is named changes.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Update {
    /// Its name.
    pub(crate) name: String,
    /// Its UID: another ReplicaSet of that name is left alone.
    pub(crate) uid: String,
    /// The size it has and the size it is to have.
    pub(crate) scale: Option<(i32, i32)>,
    /// `minReadySeconds`.
    pub(crate) min_ready_seconds: Option<i32>,
    /// Annotations to set.
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What is to be done for a Deployment, in this order.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// The steps.
    pub(crate) actions: Vec<RolloutStep>,
    /// When to look again although nothing changed.
    pub(crate) requeue_after: Option<Duration>,
}

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
    if paused || rollout.is_scaling() {
        rollout.sync_revision();
        rollout.scale();
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

fn selects_everything(selector: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
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

/// A plan in the making: the ReplicaSets and the Deployment as they will be.
pub(super) struct Rollout<'a> {
    original: &'a Deployment,
    /// The Deployment with the conditions noted so far.
    pub(super) deployment: Deployment,
    pub(super) bounds: Bounds,
    /// The ReplicaSet of the present template.
    pub(super) new: Option<Arc<ReplicaSet>>,
    /// All others, oldest first.
    pub(super) old: Vec<Arc<ReplicaSet>>,
    before: &'a [Arc<ReplicaSet>],
    deleted: Vec<Arc<ReplicaSet>>,
    status: Option<DeploymentStatus>,
    now: Timestamp,
}

impl<'a> Rollout<'a> {
    fn new(snapshot: &'a Snapshot, deployment: &'a Deployment, now: Timestamp) -> Self {
        let new = history::current(deployment, &snapshot.sets).cloned();
        let is_new = |rs: &Arc<ReplicaSet>| new.as_ref().is_some_and(|new| Arc::ptr_eq(new, rs));
        let mut old: Vec<_> = snapshot.sets.iter().filter(|rs| !is_new(rs)).cloned().collect();
        old.sort_by(|a, b| history::by_age(a, b));
        Self {
            original: deployment,
            deployment: deployment.clone(),
            bounds: Bounds::of(deployment),
            new,
            old,
            before: &snapshot.sets,
            deleted: Vec::new(),
            status: None,
            now,
        }
    }

    /// All ReplicaSets.
    pub(super) fn sets(&self) -> impl Iterator<Item = &ReplicaSet> + Clone {
        self.old.iter().chain(&self.new).map(|rs| &**rs)
    }

    /// Whether the Deployment was scaled since its ReplicaSets were: then that comes first, in proportion.
    fn is_scaling(&self) -> bool {
        let mut active = self.sets().filter(|rs| wanted(rs) > 0);
        active.any(|rs| history::desired_replicas(rs).is_some_and(|desired| desired != self.bounds.replicas))
    }

    /// Makes the current ReplicaSet the latest revision, if it is there.
    pub(super) fn sync_revision(&mut self) {
        let revision = self.next_revision();
        let Some(new) = &mut self.new else {
            return;
        };
        // Tried on a copy, because most of the time nothing changes.
        let mut changed = ReplicaSet::clone(new);
        let mut differs = history::set_revision(&self.deployment, &mut changed, revision);
        let min_ready = self.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        if let Some(spec) = &mut changed.spec
            && spec.min_ready_seconds.unwrap_or_default() != min_ready.unwrap_or_default()
        {
            spec.min_ready_seconds = Some(min_ready.unwrap_or_default());
            differs = true;
        }
        if differs {
            *new = Arc::new(changed);
        }
        if status::lacks_progress(&self.deployment) {
            let message = format!("Found new replica set {:?}", meta::name(&**new));
            status::note(&mut self.deployment, "True", reason::FOUND_REPLICA_SET, message, self.now);
        }
    }

    /// As [`Rollout::sync_revision`]; creates the ReplicaSet if it is not there.
    pub(super) fn sync_or_create(&mut self) {
        if self.new.is_some() {
            return self.sync_revision();
        }
        let mut new = history::new_replica_set(&self.deployment);
        history::set_revision(&self.deployment, &mut new, self.next_revision());
        history::set_scale(&mut new, self.bounds);
        let size = if self.deployment.spec.as_ref().is_some_and(replicas::is_rolling) {
            self.new_replica_count(0)
        } else {
            self.bounds.replicas
        };
        if let Some(spec) = &mut new.spec {
            spec.replicas = Some(size);
        }
        let message = format!("Created new replica set {:?}", meta::name(&new));
        status::note(&mut self.deployment, "True", reason::NEW_REPLICA_SET, message, self.now);
        self.new = Some(Arc::new(new));
    }

    /// The size to which the new ReplicaSet, which is asked for `current` now, may grow.
    pub(super) fn new_replica_count(&self, current: i32) -> i32 {
        if !self.old.iter().all(|rs| replicas::is_settled(rs)) {
            return current;
        }
        let present = self.sets().map(replicas::present).sum();
        replicas::new_size(self.bounds, current, present)
    }

    fn next_revision(&self) -> i64 {
        let latest = self.old.iter().map(|rs| history::revision(rs)).max();
        latest.unwrap_or_default().saturating_add(1)
    }

    /// Gives `size` replicas to the ReplicaSet called `name`, and notes the Deployment's scale on it. True if the size
    /// changes.
    pub(super) fn scale_replica_set(&mut self, name: &str, size: i32) -> bool {
        let bounds = self.bounds;
        let mut sets = self.old.iter_mut().chain(&mut self.new);
        let Some(rs) = sets.find(|rs| meta::name(&***rs) == name) else {
            return false;
        };
        let scaled = wanted(rs) != size;
        let mut changed = ReplicaSet::clone(rs);
        let noted = history::set_scale(&mut changed, bounds);
        if let Some(spec) = &mut changed.spec {
            spec.replicas = Some(size);
        }
        if scaled || noted {
            *rs = Arc::new(changed);
        }
        scaled
    }

    /// Brings the ReplicaSets to the Deployment's scale without moving the rollout on.
    ///
    /// As with a rollout's own steps, nothing grows while a ReplicaSet still has Pods that it is no longer asked for.
    fn scale(&mut self) {
        let wanted_now = replicas::total_wanted(self.sets());
        let is_quiet = |rs| replicas::is_settled(rs) && replicas::present(rs) == wanted(rs);
        if self.bounds.max_total() > wanted_now && !self.sets().all(is_quiet) {
            return;
        }
        if let Some((name, size)) = self.only_active() {
            if size != self.bounds.replicas {
                self.scale_replica_set(&name, self.bounds.replicas);
            }
            return;
        }
        if self.is_saturated() {
            let old: Vec<String> = self.active_old().map(|rs| meta::name(rs).to_owned()).collect();
            for name in old {
                self.scale_replica_set(&name, 0);
            }
            return;
        }
        if self.deployment.spec.as_ref().is_some_and(replicas::is_rolling) {
            let active: Vec<&ReplicaSet> = self.sets().filter(|rs| wanted(rs) > 0).collect();
            let deployed = self.deployment.status.as_ref().and_then(|status| status.replicas);
            let sizes = replicas::proportional(self.bounds, deployed.unwrap_or_default(), &active);
            for (name, size) in sizes {
                self.scale_replica_set(&name, size);
            }
        }
    }

    /// The one ReplicaSet that has replicas; if none has any, the latest. Nothing if several have, or there is none.
    fn only_active(&self) -> Option<(String, i32)> {
        let mut active = self.sets().filter(|rs| wanted(rs) > 0);
        let rs = match (active.next(), active.next()) {
            (None, _) => self.new.as_deref().or(self.old.last().map(|rs| &**rs))?,
            (Some(rs), None) => rs,
            (Some(_), Some(_)) => return None,
        };
        Some((meta::name(rs).to_owned(), wanted(rs)))
    }

    fn is_saturated(&self) -> bool {
        let all = self.bounds.replicas;
        self.new.as_deref().is_some_and(|new| {
            history::desired_replicas(new) == Some(all) && wanted(new) == all && replicas::available(new) == all
        })
    }

    /// The old ReplicaSets that have replicas, oldest first.
    pub(super) fn active_old(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().map(|rs| &**rs).filter(|rs| wanted(rs) > 0)
    }

    /// Whether the rollout had ended when the status was last written.
    pub(super) fn is_complete(&self) -> bool {
        let status = self.original.status.as_ref();
        status.is_some_and(|status| status::is_complete(self.original, status))
    }

    /// Drops the oldest of the old ReplicaSets beyond `revisionHistoryLimit`, as far as they are out of use.
    pub(super) fn clean_up(&mut self) {
        let limit = self.deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else {
            return;
        };
        let mut candidates: Vec<_> = self.old.iter().filter(|rs| !meta::is_deleting(&***rs)).collect();
        candidates.sort_by(|a, b| history::revision(a).cmp(&history::revision(b)).then(history::by_age(a, b)));
        let surplus = candidates.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        let unused = |rs: &ReplicaSet| {
            let status = rs.status.clone().unwrap_or_default();
            wanted(rs) == 0 && status.replicas == 0 && rs.metadata.generation <= status.observed_generation
        };
        let oldest = candidates.into_iter().take(surplus);
        self.deleted = oldest.filter(|rs| unused(rs)).cloned().collect();
    }

    /// Brings the numbers of the status up to date.
    fn sync_status(&mut self) {
        let status = status::calculate(&self.deployment, self.sets(), self.new.as_deref(), self.now);
        self.status = Some(status);
    }

    /// Brings the whole status up to date.
    fn sync_rollout_status(&mut self) {
        let mut status = status::calculate(&self.deployment, self.sets(), self.new.as_deref(), self.now);
        let before = self.deployment.status.clone().unwrap_or_default();
        let (sets, new) = (self.sets(), self.new.as_deref());
        status::sync_progress(&self.deployment, &before, &mut status, sets, new, self.now);
        self.status = Some(status);
    }

    fn into_plan(self) -> Plan {
        let mut plan = Plan::default();
        for rs in self.new.iter().chain(&self.old) {
            match self.before.iter().find(|before| meta::name(&***before) == meta::name(&**rs)) {
                Some(before) if Arc::ptr_eq(before, rs) => {}
                Some(before) => plan.actions.push(RolloutStep::Update(Update::between(before, rs))),
                None => plan.actions.push(RolloutStep::Create(Box::new(ReplicaSet::clone(rs)))),
            }
        }
        if let Some(new) = self.new.as_deref()
            && let Some(revision) = meta::annotation(new, history::REVISION)
            && meta::annotation(self.original, history::REVISION) != Some(revision)
        {
            plan.actions.push(RolloutStep::SetRevision(revision.to_owned()));
        }
        plan.actions.extend(self.deleted.into_iter().map(RolloutStep::Delete));
        if let Some(status) = self.status {
            plan.requeue_after = status::requeue_after(&self.deployment, &status, self.now);
            if Some(&status) != self.original.status.as_ref() {
                plan.actions.push(RolloutStep::UpdateStatus(Box::new(status)));
            }
        }
        plan
    }
}

impl Update {
    fn between(before: &ReplicaSet, after: &ReplicaSet) -> Self {
        let min_ready = |rs: &ReplicaSet| rs.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        let annotations = after.metadata.annotations.iter().flatten();
        Self {
            name: meta::name(before).to_owned(),
            uid: meta::uid(before).to_owned(),
            scale: (wanted(before) != wanted(after)).then(|| (wanted(before), wanted(after))),
            min_ready_seconds: min_ready(after).filter(|_| min_ready(before) != min_ready(after)),
            annotations: annotations
                .filter(|(key, value)| meta::annotation(before, key) != Some(value))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        }
    }
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
    status::note(&mut deployment, "False", reason::CREATE_FAILED, message.clone(), now);
    (deployment.status.unwrap_or_default(), message)
}

/// The status after the name for the present template turned out to be taken by somebody else's ReplicaSet.
pub(crate) fn collided(deployment: &Deployment) -> DeploymentStatus {
    let mut status = deployment.status.clone().unwrap_or_default();
    status.collision_count = Some(status.collision_count.unwrap_or_default().saturating_add(1));
    status
}
