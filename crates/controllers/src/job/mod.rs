//! Jobs: runs Pods to their end, so many at a time, until enough have succeeded.
//!
//! Watches Jobs and Pods; owns Pods. The decision is [`plan::plan`]; this file carries it out. Pods whose Job is gone or
//! finished are let go: the finalizer by which Jobs count must never keep a Pod for ever.

mod indexes;
pub(crate) mod plan;
pub(crate) mod pod;
mod policy;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use informer::{Action, Change, Informer, Informers, ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use machinery::selector::LabelSelector;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::plan::Plan;
use crate::client::{Error, ok_if_not_found, requeue_on_conflict};
use crate::expectations::{EXPECTATIONS_TIMEOUT, Expectations};
use crate::meta;
use crate::owner::Owner;
use crate::pod_control::{self, PodControl, Words};

const KIND: &str = "Job";
/// Who manages a Job that says nothing about it: this controller.
const MANAGED_BY: &str = "kubernetes.io/job-controller";

/// Runs the controller until `cancel` is triggered.
pub(crate) async fn run(client: Client, informers: Informers, workers: usize, cancel: CancellationToken) {
    let controller = Arc::new(Controller::new(client, &informers));
    controller.watch();
    let synced = async {
        controller.jobs.synced().await;
        controller.pods.informer().synced().await;
    };
    tokio::select! {
        () = cancel.cancelled() => return,
        () = synced => {}
    }
    let (jobs, orphans) = (Arc::clone(&controller), Arc::clone(&controller));
    let (queue, orphan_queue) = (controller.queue.clone(), controller.orphans.clone());
    let jobs = informer::run("job", queue, workers, cancel.clone(), |key| {
        let controller = Arc::clone(&jobs);
        async move { requeue_on_conflict(controller.reconcile(&key).await) }
    });
    let orphans = informer::run("job-orphan", orphan_queue, workers, cancel, |key| {
        let controller = Arc::clone(&orphans);
        async move { requeue_on_conflict(controller.let_go(&key).await) }
    });
    tokio::join!(jobs, orphans);
}

struct Controller {
    client: Client,
    jobs: Informer<Job>,
    pods: PodControl,
    queue: WorkQueue<ObjectKey>,
    /// Pods that are counted by nobody any more.
    orphans: WorkQueue<ObjectKey>,
    /// What was written to the Jobs themselves.
    expectations: Expectations,
}

impl Controller {
    fn new(client: Client, informers: &Informers) -> Self {
        let jobs = informers.informer::<Job>();
        jobs.index(meta::BY_NAMESPACE, meta::namespaces);
        jobs.index(meta::BY_CONTROLLER, meta::controller_uids);
        Self {
            jobs,
            pods: PodControl::new(client.clone(), informers, "job-controller", Words::Plain),
            client,
            queue: WorkQueue::new(),
            orphans: WorkQueue::new(),
            expectations: Expectations::default(),
        }
    }

    fn watch(self: &Arc<Self>) {
        let controller = Arc::clone(self);
        self.jobs.on_change(move |change| {
            controller.expectations.observe(change);
            controller.queue.add(change.key());
            if let (Some(gone), None) = (&change.old, &change.new) {
                let left = controller.pods.informer().by_index(meta::BY_CONTROLLER, meta::uid(&**gone));
                left.iter()
                    .filter(|pod| pod::is_tracked(pod))
                    .for_each(|pod| controller.orphans.add(ObjectKey::of(&**pod)));
            }
        });
        let controller = Arc::clone(self);
        self.pods.informer().on_change(move |change| {
            controller.pods.expectations.observe(change);
            if concerns_job(change) {
                let jobs = |namespace: &str| controller.jobs.by_index(meta::BY_NAMESPACE, namespace);
                pod_control::wake(&controller.queue, change, KIND, jobs, |job| selector(job).ok());
            }
            if let Some(pod) = change.new.as_deref().filter(|pod| pod::is_tracked(pod)) {
                controller.orphans.add(ObjectKey::of(pod));
            }
        });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(job) = self.jobs.get(key) else {
            self.expectations.forget(key);
            self.pods.expectations.forget(key);
            return Ok(Action::AwaitChange);
        };
        let managed_by = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
        if managed_by.is_some_and(|manager| manager != MANAGED_BY) {
            return Ok(Action::AwaitChange);
        }
        if !self.expectations.satisfied(key) || !self.pods.expectations.satisfied(key) {
            // The event that shows the write brings the key back.
            return Ok(Action::RequeueAfter(EXPECTATIONS_TIMEOUT));
        }
        let now = Timestamp::now();
        if let Some(due) = plan::expires(&job).filter(|_| !meta::is_deleting(&*job)) {
            let wait = meta::until(due, now);
            if wait.is_zero() {
                self.expire(key, &job).await?;
                return Ok(Action::AwaitChange);
            }
            self.queue.add_after(key.clone(), wait);
        }
        let owner = Owner::of(&*job);
        let selector = selector(&job)?;
        let pods = self.pods.claim(&owner, &*job, &selector, |_| true).await?;
        let plan = plan::plan(&job, &pods, &owner, now);
        self.apply(&owner, &job, &plan).await?;
        Ok(plan.requeue_after.map_or(Action::AwaitChange, Action::RequeueAfter))
    }

    async fn apply(&self, owner: &Owner, job: &Job, plan: &Plan) -> Result<(), Error> {
        for pod in plan.delete_uncounted.iter().filter(|pod| pod::is_tracked(pod)) {
            self.pods.patch(owner, pod, untracking(pod)).await?;
        }
        let discarded = self.pods.delete(owner, &plan.delete_uncounted).await;
        let deleted = self.pods.delete(owner, &plan.delete).await;
        let created = self.pods.create(owner, plan.create.clone()).await;
        let mut status = plan.status.clone();
        let missing = i32::try_from(plan.create.len() - created.count).unwrap_or_default();
        status.active = meta::count(status.active.unwrap_or_default() - missing);
        let old = job.status.clone().unwrap_or_default();
        let shown = || self.jobs.get(&owner.key).and_then(|job| meta::version(&job.metadata));
        owner.patch_status(&self.client, (&old, &status), Some((&self.expectations, &shown))).await?;
        for (type_, reason, message) in &plan.events {
            self.pods.event(owner, *type_, reason, message.clone());
        }
        // Only what the status has on record may be let go.
        for pod in &plan.remove_finalizers {
            self.pods.patch(owner, pod, untracking(pod)).await?;
        }
        created.error.map_or(Ok(()), Err)?;
        discarded.and(deleted)
    }

    /// Deletes a Job whose time to live after its end is over, and its Pods before it.
    async fn expire(&self, key: &ObjectKey, job: &Job) -> Result<(), Error> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
        // Somebody may have given it more time: then it is another version.
        let preconditions =
            Preconditions { uid: job.metadata.uid.clone(), resource_version: job.metadata.resource_version.clone() };
        ok_if_not_found(api.delete(&key.name, &DeleteParams::foreground().preconditions(preconditions)).await)?;
        Ok(())
    }

    /// Takes the finalizer from a Pod that no Job counts any more.
    async fn let_go(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(pod) = self.pods.informer().get(key).filter(|pod| pod::is_tracked(pod)) else {
            return Ok(Action::AwaitChange);
        };
        if let Some(owner) = meta::controller_of(&pod.metadata) {
            let job = self.jobs.get(&ObjectKey::new(&key.namespace, &owner.name));
            if owner.kind != KIND || job.is_some_and(|job| meta::uid(&*job) == owner.uid && !plan::is_finished(&job)) {
                return Ok(Action::AwaitChange);
            }
            // The informer of Jobs may be behind that of Pods.
            let api: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
            let live = ok_if_not_found(api.get(&owner.name).await)?;
            if live.is_some_and(|live| meta::uid(&live) == owner.uid && !plan::is_finished(&live)) {
                return Ok(Action::AwaitChange);
            }
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let patch = Patch::Strategic(untracking(&pod));
        ok_if_not_found(api.patch(&key.name, &PatchParams::default(), &patch).await)?;
        Ok(Action::AwaitChange)
    }
}

/// The strategic merge patch that takes the finalizer from a Pod.
fn untracking(pod: &Pod) -> Value {
    json!({ "metadata": { "uid": meta::uid(pod), "$deleteFromPrimitiveList/finalizers": [pod::TRACKING] } })
}

fn selector(job: &Job) -> Result<LabelSelector, Error> {
    Ok(LabelSelector::from_object(job.spec.as_ref().and_then(|spec| spec.selector.as_ref()))?)
}

/// Whether a change of a Pod matters to its Job: also that its finalizer went, and restarts.
fn concerns_job(change: &Change<Pod>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else {
        return true;
    };
    let restarts = |pod: &Pod| -> i32 {
        let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
        containers.unwrap_or_default().iter().map(|container| container.restart_count).sum()
    };
    pod_control::concerns_owner(change)
        || pod::is_tracked(old) != pod::is_tracked(new)
        || restarts(old) != restarts(new)
}
