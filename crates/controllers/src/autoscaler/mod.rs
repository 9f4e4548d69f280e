//! HorizontalPodAutoscalers: sets the number of replicas of whatever has a `scale` subresource by its metrics.
//!
//! Watches HorizontalPodAutoscalers and Pods; owns the status of the former and the scale of what they refer to. One look
//! at one autoscaler goes:
//!
//! ```text
//!   scale of the target ─┐
//!   metrics (readings) ──┼─► plan: wish of each metric (replicas) ─► the highest
//!   pods, history, now ──┘         └─► stabilised, limited (behavior) ─► rescale, conditions, events
//! ```
//!
//! Every autoscaler is looked at again after the same time; nothing else drives it, as metrics have no watch.

mod behavior;
mod plan;
mod readings;
mod replicas;
mod selection;
mod status;
mod target;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use informer::{Action, EventType, Informer, Informers, ObjectKey, Recorder, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, Resource as _};
use machinery::selector::LabelSelector;
use tokio_util::sync::CancellationToken;

use self::behavior::History;
use self::plan::{Plan, Snapshot};
use self::target::{Scale, Targets};
use crate::client::{Error, requeue_on_conflict};
use crate::meta;
use crate::owner::Owner;

/// No autoscaler is looked at more often than this.
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);
/// Upstream's times.
const FIRST_READINESS: Duration = Duration::from_secs(30);
const CPU_INITIALIZATION: Duration = Duration::from_secs(300);

/// Runs the controller until `cancel` is triggered. Each autoscaler is looked at once in a `period`.
pub(crate) async fn run(
    client: Client,
    informers: Informers,
    workers: usize,
    period: Duration,
    cancel: CancellationToken,
) {
    let controller = Arc::new(Controller::new(client, &informers, period.max(SHORTEST_PERIOD)));
    controller.watch();
    tokio::select! {
        () = cancel.cancelled() => return,
        () = controller.autoscalers.synced() => {}
    }
    tokio::select! {
        () = cancel.cancelled() => return,
        () = controller.pods.synced() => {}
    }
    let queue = controller.queue.clone();
    informer::run("autoscaler", queue, workers, cancel, |key| {
        let controller = Arc::clone(&controller);
        async move { requeue_on_conflict(controller.reconcile(&key).await) }
    })
    .await;
}

struct Controller {
    client: Client,
    autoscalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    recorder: Recorder,
    queue: WorkQueue<ObjectKey>,
    period: Duration,
    targets: Targets,
    memory: Mutex<HashMap<ObjectKey, Memory>>,
}

/// What is remembered of an autoscaler from look to look.
#[derive(Default)]
struct Memory {
    history: History,
    /// Which pods it scales by, as far as is known.
    selector: Option<LabelSelector>,
}

impl Controller {
    fn new(client: Client, informers: &Informers, period: Duration) -> Self {
        let pods = informers.informer::<Pod>();
        pods.index(meta::BY_NAMESPACE, meta::namespaces);
        Self {
            autoscalers: informers.informer(),
            pods,
            recorder: Recorder::new(client.clone(), "horizontal-pod-autoscaler", None),
            targets: Targets::new(client.clone()),
            client,
            queue: WorkQueue::new(),
            period,
            memory: Mutex::default(),
        }
    }

    fn watch(self: &Arc<Self>) {
        let controller = Arc::clone(self);
        self.autoscalers.on_change(move |change| {
            let spec =
                |object: &Option<Arc<HorizontalPodAutoscaler>>| object.as_ref().map(|object| object.spec.clone());
            // Its own writes of the status are no news, and what others write there lasts for one period.
            if spec(&change.old) != spec(&change.new) {
                controller.queue.add(change.key());
            }
        });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(autoscaler) = self.autoscalers.get(key) else {
            self.memory().remove(key);
            return Ok(Action::AwaitChange);
        };
        let scale = self.targets.scale(&key.namespace, &autoscaler.spec.scale_target_ref).await;
        let readings = match &scale {
            Ok(scale) if plan::wants_metrics(&autoscaler, scale) => {
                readings::read(&self.client, &self.targets, &key.namespace, &autoscaler, &scale.selector).await
            }
            _ => Vec::new(),
        };
        let now = Timestamp::now();
        let plan = {
            let selector = scale.as_ref().ok().and_then(|scale| LabelSelector::parse(&scale.selector).ok());
            let selected = selector.as_ref().filter(|selector| !selector.is_everything());
            let pods = selected.map(|selector| selection::pods(&self.pods, &key.namespace, selector));
            let pods = pods.unwrap_or_default();
            let mut memory = self.memory();
            let own = memory.entry(key.clone()).or_default();
            own.selector = selector;
            let rivals = selection::rivals(key, memory.iter().map(|(key, own)| (key, own.selector.as_ref())), &pods);
            let own = memory.entry(key.clone()).or_default();
            let snapshot =
                Snapshot { autoscaler: &autoscaler, scale: scale.as_ref(), readings: &readings, pods: &pods, rivals };
            plan::plan(&snapshot, &mut own.history, now)
        };
        self.carry_out(key, &autoscaler, scale.ok(), plan, now).await?;
        Ok(Action::RequeueAfter(self.period))
    }

    async fn carry_out(
        &self,
        key: &ObjectKey,
        autoscaler: &HorizontalPodAutoscaler,
        scale: Option<Scale>,
        mut plan: Plan,
        now: Timestamp,
    ) -> Result<(), Error> {
        if let (Some(rescale), Some(scale)) = (plan.rescale.clone(), scale) {
            let result = self.targets.set(&scale, rescale.to).await;
            let behaves = autoscaler.spec.behavior.is_some();
            let mut memory = self.memory();
            let history = &mut memory.entry(key.clone()).or_default().history;
            plan::rescaled(
                &mut plan,
                &rescale,
                result.as_ref().map(|()| history).map_err(String::as_str),
                behaves,
                now,
            );
        }
        let about = autoscaler.object_ref(&());
        for event in plan.events {
            let type_ = if event.warning { EventType::Warning } else { EventType::Normal };
            self.recorder.event(&about, type_, event.reason, event.message);
        }
        let old = autoscaler.status.clone().unwrap_or_default();
        Owner::of(autoscaler).patch_status(&self.client, (&old, &plan.status), None).await
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<ObjectKey, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
