//! A Deployment's plan in the making: its ReplicaSets and its status as they will be, and the steps that lead there.
//!
//! [`super::plan`] says which of [`super::rolling`], [`super::recreate`] and [`super::scaling`] makes the next step, and
//! these change a [`Rollout`]. It knows none of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};

use super::history;
use super::replicas::{self, Bounds, wanted};
use super::status::{self, reason};
use crate::meta;
use crate::meta::ConditionStatus;

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
    /// The version that the plan was made from. Whatever happened since, a write of a plan that is older than what it changes
    /// would break the bounds: one that a controller sent before it crashed, and that arrives now.
    pub(crate) version: Option<String>,
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
    pub(super) fn new(snapshot: &'a Snapshot, deployment: &'a Deployment, now: Timestamp) -> Self {
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
            status::note(&mut self.deployment, ConditionStatus::True, reason::FOUND_REPLICA_SET, message, self.now);
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
        status::note(&mut self.deployment, ConditionStatus::True, reason::NEW_REPLICA_SET, message, self.now);
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
    pub(super) fn sync_status(&mut self) {
        let status = status::calculate(&self.deployment, self.sets(), self.new.as_deref(), self.now);
        self.status = Some(status);
    }

    /// Brings the whole status up to date.
    pub(super) fn sync_rollout_status(&mut self) {
        let mut status = status::calculate(&self.deployment, self.sets(), self.new.as_deref(), self.now);
        let before = self.deployment.status.clone().unwrap_or_default();
        let (sets, new) = (self.sets(), self.new.as_deref());
        status::sync_progress(&self.deployment, &before, &mut status, sets, new, self.now);
        self.status = Some(status);
    }

    pub(super) fn into_plan(self) -> Plan {
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
            version: before.metadata.resource_version.clone(),
            scale: (wanted(before) != wanted(after)).then(|| (wanted(before), wanted(after))),
            min_ready_seconds: min_ready(after).filter(|_| min_ready(before) != min_ready(after)),
            annotations: annotations
                .filter(|(key, value)| meta::annotation(before, key) != Some(value))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        }
    }
}
