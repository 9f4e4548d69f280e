//! Pods whose Job is gone or finished: the finalizer by which Jobs count must never keep a Pod for ever.
//!
//! Watches Jobs and Pods; takes the finalizer `batch.kubernetes.io/job-tracking` off Pods that no Job counts any more.

use std::sync::Arc;

use informer::{Action, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Patch, PatchParams};

use super::{KIND, plan, pod, untracking};
use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::meta;

/// The controller that takes the tracking finalizer off Pods without a Job.
pub(crate) struct OrphanPods {
    client: Client,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    queue: WorkQueue<ObjectKey>,
}

impl Controller for OrphanPods {
    const NAME: &'static str = "job_orphan_pod";
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        let pods = context.informer::<Pod>();
        pods.index(meta::BY_CONTROLLER, meta::controller_uids);
        Self { client: context.client.clone(), jobs: context.informer(), pods, queue }
    }

    fn watch(self: &Arc<Self>) {
        let controller = Arc::clone(self);
        self.jobs.on_change(move |change| {
            let (Some(gone), None) = (&change.old, &change.new) else { return };
            let left = controller.pods.by_index(meta::BY_CONTROLLER, meta::uid(&**gone));
            let tracked = left.iter().filter(|pod| pod::is_tracked(pod));
            tracked.for_each(|pod| controller.queue.add(ObjectKey::of(&**pod), change.cause()));
        });
        let queue = self.queue.clone();
        self.pods.on_change(move |change| {
            if change.new.as_ref().is_some_and(|pod| pod::is_tracked(pod)) {
                queue.add_changed(change);
            }
        });
    }

    async fn synced(&self) {
        self.jobs.synced().await;
        self.pods.synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(pod) = self.pods.get(key).filter(|pod| pod::is_tracked(pod)) else {
            return Ok(Action::AwaitChange.because("the pod is gone or let go"));
        };
        if let Some(owner) = meta::controller_of(&pod.metadata) {
            let job = self.jobs.get(&ObjectKey::new(&key.namespace, &owner.name));
            if owner.kind != KIND || job.is_some_and(|job| meta::uid(&*job) == owner.uid && !plan::is_finished(&job)) {
                return Ok(Action::AwaitChange.because("its job counts it"));
            }
            // The informer of Jobs may be behind that of Pods.
            let api: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
            let live = ok_if_not_found(api.get(&owner.name).await)?;
            if live.is_some_and(|live| meta::uid(&live) == owner.uid && !plan::is_finished(&live)) {
                return Ok(Action::AwaitChange.because("its job counts it"));
            }
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let patch = Patch::Strategic(untracking(&pod));
        ok_if_not_found(api.patch(&key.name, &PatchParams::default(), &patch).await)?;
        Ok(Action::AwaitChange)
    }
}
