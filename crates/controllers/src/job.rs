//! Jobs: runs Pods to their end, so many at a time, until enough have succeeded.
//!
//! Watches Jobs and Pods; owns Pods. The decision is [`plan::plan`]; this file carries it out. Pods whose Job is gone or
//! finished are let go: the finalizer by which Jobs count must never keep a Pod for ever.

mod indexes;
pub(crate) mod orphans;
pub(crate) mod plan;
pub(crate) mod pod;
mod policy;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use informer::{Action, Cause, Change, Informer, ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{DeleteParams, Preconditions};
use machinery::selector::LabelSelector;
use serde_json::{Value, json};

use self::plan::Plan;
use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::expectations::{EXPECTATIONS_TIMEOUT, Expectations};
use crate::meta;
use crate::owner::Owner;
use crate::pod_control::{self, PodControl, Words};

const KIND: &str = "Job";
/// Who manages a Job that says nothing about it: this controller.
const MANAGED_BY: &str = "kubernetes.io/job-controller";

/// The controller of Jobs.
pub(crate) struct Jobs {
    client: Client,
    jobs: Informer<Job>,
    pods: PodControl,
    queue: WorkQueue<ObjectKey>,
    /// What was written to the Jobs themselves.
    expectations: Expectations,
}

impl Controller for Jobs {
    const NAME: &'static str = "job";
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        let jobs = context.informer::<Job>();
        jobs.index(meta::BY_NAMESPACE, meta::namespaces);
        jobs.index(meta::BY_CONTROLLER, meta::controller_uids);
        Self {
            expectations: context.expectations(&jobs),
            jobs,
            pods: PodControl::new(context, "job-controller", Words::Plain),
            client: context.client.clone(),
            queue,
        }
    }

    fn watch(self: &Arc<Self>) {
        let controller = Arc::clone(self);
        self.jobs.on_change(move |change| {
            controller.expectations.observe(change);
            controller.queue.add_changed(change);
        });
        let controller = Arc::clone(self);
        self.pods.informer().on_change(move |change| {
            controller.pods.expectations.observe(change);
            if concerns_job(change) {
                let jobs = |namespace: &str| controller.jobs.by_index(meta::BY_NAMESPACE, namespace);
                pod_control::enqueue_owners(&controller.queue, change, KIND, jobs, |job| selector(job).ok());
            }
        });
    }

    async fn synced(&self) {
        self.jobs.synced().await;
        self.pods.informer().synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(job) = self.jobs.get(key) else {
            self.expectations.forget(key);
            self.pods.expectations.forget(key);
            return Ok(Action::AwaitChange.because("the job is gone"));
        };
        let managed_by = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
        if managed_by.is_some_and(|manager| manager != MANAGED_BY) {
            return Ok(Action::AwaitChange.because("another controller manages it"));
        }
        if !Expectations::all_satisfied(&[&self.expectations, &self.pods.expectations], key).await {
            // The event that shows the write brings the key back.
            return Ok(Action::RequeueAfter(EXPECTATIONS_TIMEOUT).because("its own last write is not shown yet"));
        }
        let now = Timestamp::now();
        if let Some(due) = plan::expires(&job).filter(|_| !meta::is_deleting(&*job)) {
            let wait = meta::until(due, now);
            if wait.is_zero() {
                self.expire(key, &job).await?;
                return Ok(Action::AwaitChange);
            }
            self.queue.add_after(key.clone(), wait, Cause::new("the end of its time to live"));
        }
        let owner = Owner::of(&*job);
        let selector = selector(&job)?;
        let pods = self.pods.claim(&owner, &*job, &selector, |_| true).await?;
        let plan = plan::plan(&job, &pods, &owner, now);
        self.apply(&owner, &job, &plan).await?;
        Ok(plan.requeue_after.into())
    }
}

impl Jobs {
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
