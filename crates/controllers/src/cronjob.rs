//! CronJobs: a Job whenever the schedule says so.
//!
//! Watches CronJobs and Jobs; owns Jobs. The decision is [`plan::plan`]; this file carries it out. Nobody looks at the
//! clock in between: a key sleeps in the queue until its next Job is due.

pub(crate) mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use informer::{Action, EventType, Informer, ObjectKey, Recorder, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use kube::Client;
use kube::api::{DeleteParams, PostParams, Preconditions};

use self::plan::Start;
use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::expectations::{EXPECTATIONS_TIMEOUT, Expectations};
use crate::meta;
use crate::owner::Owner;

const KIND: &str = "CronJob";

/// The controller of CronJobs.
pub(crate) struct CronJobs {
    client: Client,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
    recorder: Recorder,
    queue: WorkQueue<ObjectKey>,
    /// What was written to Jobs.
    job_expectations: Expectations,
    /// What was written to the CronJobs themselves.
    own_expectations: Expectations,
}

impl Controller for CronJobs {
    const NAME: &'static str = "cronjob";
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        let jobs = context.informer::<Job>();
        jobs.index(meta::BY_CONTROLLER, meta::controller_uids);
        let crons = context.informer::<CronJob>();
        Self {
            own_expectations: context.expectations(&crons),
            job_expectations: context.expectations(&jobs),
            crons,
            jobs,
            recorder: context.recorder("cronjob-controller"),
            client: context.client.clone(),
            queue,
        }
    }

    fn watch(self: &Arc<Self>) {
        let controller = Arc::clone(self);
        self.crons.on_change(move |change| {
            controller.own_expectations.observe(change);
            controller.queue.add_changed(change);
        });
        let controller = Arc::clone(self);
        self.jobs.on_change(move |change| {
            controller.job_expectations.observe(change);
            for job in [&change.old, &change.new].into_iter().flatten() {
                if let Some(owner) = meta::controller_of(&job.metadata).filter(|owner| owner.kind == KIND) {
                    controller.queue.add(ObjectKey::new(meta::namespace(&**job), &owner.name), change.cause());
                }
            }
        });
    }

    async fn synced(&self) {
        self.crons.synced().await;
        self.jobs.synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(cron) = self.crons.get(key) else {
            self.own_expectations.forget(key);
            self.job_expectations.forget(key);
            return Ok(Action::AwaitChange.because("the cron job is gone"));
        };
        if !Expectations::all_satisfied(&[&self.own_expectations, &self.job_expectations], key).await {
            // The event that shows the write brings the key back.
            return Ok(Action::RequeueAfter(EXPECTATIONS_TIMEOUT).because("its own last write is not shown yet"));
        }
        let owner = Owner::of(&*cron);
        let jobs = self.jobs.by_index(meta::BY_CONTROLLER, owner.uid());
        let plan = plan::plan(&cron, &jobs, &owner, Timestamp::now());
        for (type_, reason, message) in &plan.events {
            self.recorder.event(&owner.reference, *type_, *reason, message.clone());
        }
        for job in &plan.forget {
            self.delete(&owner, job).await?;
        }
        for name in &plan.replace {
            if let Some(job) = self.jobs.get(&ObjectKey::new(&key.namespace, name)) {
                self.delete(&owner, &job).await?;
            }
        }
        let mut status = plan.status;
        let mut failure = None;
        if let Some(start) = &plan.start {
            match self.start(&owner, start).await {
                Ok(job) => status = plan::started(&status, &job, start.due),
                Err(error) => failure = Some(error),
            }
        }
        self.write_status(&owner, &cron, &status).await?;
        failure.map_or(Ok(()), Err)?;
        Ok(plan.requeue_after.into())
    }
}

impl CronJobs {
    async fn start(&self, owner: &Owner, start: &Start) -> Result<Job, Error> {
        let key = ObjectKey::of(&start.job);
        self.job_expectations.expect_creation(&owner.key, key.clone());
        let error = match self.api(owner).create(&PostParams::default(), &start.job).await.map_err(Error::from) {
            Ok(job) => {
                let message = format!("Created job {}", key.name);
                self.recorder.event(&owner.reference, EventType::Normal, "SuccessfulCreate", message);
                return Ok(job);
            }
            Err(error) => error,
        };
        self.job_expectations.observed(&key);
        if error.is_already_exists()
            && let Some(live) = ok_if_not_found(self.api(owner).get(&key.name).await)?
            && meta::controller_of(&live.metadata).is_some_and(|controller| controller.uid == owner.uid())
        {
            // Created before, and the status did not come to say so.
            return Ok(live);
        }
        if !error.is_namespace_terminating() {
            let message = format!("Error creating job: {error}");
            self.recorder.event(&owner.reference, EventType::Warning, "FailedCreate", message);
        }
        Err(error)
    }

    async fn delete(&self, owner: &Owner, job: &Job) -> Result<(), Error> {
        self.job_expectations.expect_deletion(&owner.key, job);
        let params = DeleteParams::background()
            .preconditions(Preconditions { uid: job.metadata.uid.clone(), resource_version: None });
        let name = meta::name(job);
        match ok_if_not_found(self.api(owner).delete(name, &params).await) {
            Ok(_) => {
                let message = format!("Deleted job {name}");
                self.recorder.event(&owner.reference, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) => {
                self.job_expectations.observed(&ObjectKey::of(job));
                let message = format!("Deleted job: {error}");
                self.recorder.event(&owner.reference, EventType::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }

    async fn write_status(&self, owner: &Owner, cron: &CronJob, status: &CronJobStatus) -> Result<(), Error> {
        let old = cron.status.clone().unwrap_or_default();
        let shown = || self.crons.get(&owner.key).and_then(|cron| meta::version(&cron.metadata));
        owner.patch_status(&self.client, (&old, status), Some((&self.own_expectations, &shown))).await
    }

    fn api(&self, owner: &Owner) -> Api<Job> {
        Api::namespaced(self.client.clone(), &owner.key.namespace)
    }
}
