//! What controllers would do now with the objects that somebody has read: their own plans, which nobody carries out.
//!
//! It is for whoever explains or shows them. A plan is made from what was read, so it is as true as that: what a controller
//! remembers beyond the objects (the back-off of a DaemonSet's failed Pods) is not in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::placement::taints;

pub use crate::autoscaler::behavior::DOWN_WINDOW;
pub use crate::autoscaler::plan::TOLERANCE;
pub use crate::daemonset::placement::{Place, add_tolerations, place, target};
use crate::deployment::plan::RolloutStep;
use crate::deployment::replicas::{Bounds, present};
use crate::deployment::{self, history as revisions};
use crate::history::{self, Choice};
use crate::node_lifecycle::evict::{self, Verdict};
use crate::owner::Owner;
use crate::statefulset::plan::Revision;
use crate::{cronjob, daemonset, job, meta, pods, statefulset};

/// What a controller would do now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    /// What it would create: names, or what the names of new Pods begin with; of a DaemonSet's Pods, their nodes.
    pub create: Vec<String>,
    /// What it would delete, by name.
    pub delete: Vec<String>,
    /// What it would give another size: the name, the size it has, and the one it gets.
    pub scale: Vec<(String, i32, i32)>,
    /// What it would say of it, as reason and message.
    pub tell: Vec<(String, String)>,
    /// When time alone changes something.
    pub due: Option<Timestamp>,
}

impl Preview {
    /// Whether the controller would touch none of the objects.
    pub fn is_idle(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty() && self.scale.is_empty()
    }
}

/// The bounds of a rollout, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// What the controller would do now.
    pub preview: Preview,
    /// The ReplicaSet of the present template, by name.
    pub latest: Option<String>,
    /// The most Pods there may be.
    pub most: i32,
    /// The fewest Pods that have to be available.
    pub least: i32,
    /// How many Pods count as being there.
    pub present: i32,
}

/// What the Deployment controller would do. `sets` are those that `deployment` controls; `all_pods` those of its namespace.
pub fn deployment(deployment: &Deployment, sets: Vec<ReplicaSet>, all_pods: &[Pod], now: Timestamp) -> Rollout {
    let sets = arcs(sets);
    let running = |set: &ReplicaSet| {
        let own = all_pods.iter().filter(|pod| meta::is_controlled_by(&pod.metadata, meta::uid(set)));
        (meta::uid(set).to_owned(), own.filter(|pod| !pods::is_finished(pod)).count())
    };
    let running: BTreeMap<String, usize> = sets.iter().map(|set| running(set)).collect();
    let latest = revisions::current(deployment, &sets).map(|set| meta::name(&**set).to_owned());
    let bounds = Bounds::of(deployment);
    let present = sets.iter().map(|set| present(set)).sum();
    let snapshot = deployment::plan::Snapshot { sets, running };
    let mut preview = Preview::default();
    for step in deployment::plan::plan(&snapshot, deployment, now).actions {
        match step {
            RolloutStep::Create(set) => preview.create.push(meta::name(&*set).to_owned()),
            RolloutStep::Delete(set) => preview.delete.push(meta::name(&*set).to_owned()),
            RolloutStep::Update(update) => {
                preview.scale.extend(update.scale.map(|(from, to)| (update.name, from, to)));
            }
            RolloutStep::Warn { reason, message } => preview.tell.push((reason.to_owned(), message)),
            RolloutStep::SetRevision(_) | RolloutStep::UpdateStatus(_) => {}
        }
    }
    Rollout { preview, latest, most: bounds.max_total(), least: bounds.min_available(), present }
}

/// The latest of an owner's revisions: the one that its template has or would get.
fn latest(
    owner: &Owner,
    template: &PodTemplateSpec,
    collisions: Option<i32>,
    all: Vec<ControllerRevision>,
) -> ControllerRevision {
    let mut own = arcs(all);
    own.retain(|revision| meta::is_controlled_by(&revision.metadata, owner.uid()));
    history::sort(&mut own);
    match history::choose(owner, None, template, collisions.unwrap_or_default(), &own) {
        Choice::Latest(revision) | Choice::Renumber(revision, _) => ControllerRevision::clone(&revision),
        Choice::Create(revision) => *revision,
    }
}

/// What the StatefulSet controller would do, and the name of the revision that the set goes to. `own` are the set's Pods;
/// claims and revisions are those of its namespace.
pub fn stateful_set(
    set: &StatefulSet,
    own: Vec<Pod>,
    claims: Vec<PersistentVolumeClaim>,
    revisions: Vec<ControllerRevision>,
    now: Timestamp,
) -> (Preview, String) {
    let owner = Owner::of(set);
    let status = set.status.clone().unwrap_or_default();
    let template = set.spec.clone().unwrap_or_default().template;
    let update = latest(&owner, &template, status.collision_count, revisions);
    // Only names are shown, so that the template of the revision that the set comes from makes no difference.
    let revision = |name: &str| Revision { name: name.to_owned(), template: template.clone() };
    let update = revision(meta::name(&update));
    let snapshot = statefulset::plan::Snapshot {
        pods: arcs(own),
        claims: claims.into_iter().map(|claim| (meta::name(&claim).to_owned(), Arc::new(claim))).collect(),
        current: status.current_revision.as_deref().map_or_else(|| update.clone(), revision),
        update: update.clone(),
        collisions: status.collision_count.unwrap_or_default(),
    };
    let plan = statefulset::plan::plan(&snapshot, set, &owner, now);
    let preview = Preview {
        create: names(&plan.create),
        delete: names_of(&plan.delete),
        due: due(plan.requeue_after, now),
        ..Preview::default()
    };
    (preview, update.name)
}

/// What the DaemonSet controller would do, and the value that the label of Pods of the latest template has. `own` are the
/// set's Pods; the revisions are those of its namespace.
pub fn daemon_set(
    set: &DaemonSet,
    own: Vec<Pod>,
    nodes: Vec<Node>,
    revisions: Vec<ControllerRevision>,
    now: Timestamp,
) -> (Preview, String) {
    let owner = Owner::of(set);
    let template = set.spec.clone().unwrap_or_default().template;
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let hash = history::hash(&latest(&owner, &template, collisions, revisions)).to_owned();
    let snapshot = daemonset::plan::Snapshot {
        nodes: arcs(nodes),
        pods: arcs(own),
        hash: hash.clone(),
        failure_backoff: BTreeMap::new(),
    };
    let plan = daemonset::plan::plan(&snapshot, set, &owner, now);
    let create = plan.create.iter().filter_map(target).map(str::to_owned).collect();
    let preview =
        Preview { create, delete: names_of(&plan.delete), due: due(plan.requeue_after, now), ..Preview::default() };
    (preview, hash)
}

/// The label of a Pod that says of which revision of a StatefulSet or DaemonSet it is.
pub const POD_REVISION: &str = history::POD_REVISION;

/// What the Job controller would do; `due` is when the back-off after failures ends. `own` are the Job's Pods.
pub fn job(job: &Job, own: Vec<Pod>, now: Timestamp) -> Preview {
    let owner = Owner::of(job);
    let own = arcs(own);
    let plan = job::plan::plan(job, &own, &owner, now);
    // Of all the times that it waits for, that of its deadline shows in the Job itself.
    let mut endless = job.clone();
    if let Some(spec) = &mut endless.spec {
        spec.active_deadline_seconds = None;
    }
    let waits = job::plan::plan(&endless, &own, &owner, now).requeue_after;
    let mut delete = names_of(&plan.delete);
    delete.extend(names_of(&plan.delete_uncounted));
    Preview {
        create: plan.create.iter().map(|_| format!("{}-", owner.name())).collect(),
        delete,
        tell: plan.events.into_iter().map(|(_, reason, message)| (reason, message)).collect(),
        due: due(waits, now),
        ..Preview::default()
    }
}

/// When a finished Job is deleted, if it asks for that.
pub fn job_expires(job: &Job) -> Option<Timestamp> {
    job::plan::expires(job)
}

/// What the CronJob controller would do; `due` is when the next Job is due. `all` are the Jobs of its namespace.
pub fn cron_job(cron: &CronJob, all: Vec<Job>, now: Timestamp) -> Preview {
    let mut own = arcs(all);
    own.retain(|job| meta::is_controlled_by(&job.metadata, meta::uid(cron)));
    let plan = cronjob::plan::plan(cron, &own, &Owner::of(cron), now);
    let mut delete = plan.replace;
    delete.extend(names_of(&plan.forget));
    Preview {
        create: plan.start.iter().map(|start| meta::name(&start.job).to_owned()).collect(),
        delete,
        tell: plan.events.into_iter().map(|(_, reason, message)| (reason.to_owned(), message)).collect(),
        due: due(plan.requeue_after, now),
        ..Preview::default()
    }
}

/// For how long the Pod bears the `NoExecute` taints of its node, from when it met them; nothing if it stays.
pub fn eviction(pod: &Pod, node: &Node) -> Option<Duration> {
    match evict::plan(pod, &evict::driving(taints(node)), Duration::ZERO) {
        Verdict::Stays => None,
        Verdict::Leaves(after) => Some(after),
    }
}

fn arcs<T>(objects: Vec<T>) -> Vec<Arc<T>> {
    objects.into_iter().map(Arc::new).collect()
}

fn names<'a, K: Metadata<Ty = ObjectMeta> + 'a>(objects: impl IntoIterator<Item = &'a K>) -> Vec<String> {
    objects.into_iter().map(|object| meta::name(object).to_owned()).collect()
}

fn names_of<K: Metadata<Ty = ObjectMeta>>(objects: &[Arc<K>]) -> Vec<String> {
    names(objects.iter().map(|object| &**object))
}

fn due(after: Option<Duration>, now: Timestamp) -> Option<Timestamp> {
    after.and_then(|after| now.checked_add(after).ok())
}
