//! HorizontalPodAutoscalers: sets the number of replicas of whatever has a `scale` subresource by its metrics.
//!
//! Watches HorizontalPodAutoscalers and Pods; owns the status of the former and the scale of what they refer to. One look
//! at one autoscaler goes:
//!
//! ```text
//!   scale of the target ─┐
//!   metrics (readings) ──┼─► plan: proposal of each metric (replicas) ─► the highest
//!   pods, history, now ──┘         └─► stabilised, limited (behavior) ─► rescale, conditions, events
//! ```
//!
//! Every autoscaler is looked at again after the same time; nothing else drives it, as metrics have no watch.

pub(crate) mod behavior;
pub(crate) mod plan;
mod readings;
mod replicas;
mod selection;
mod status;
mod target;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use informer::{Action, EventType, Informer, ObjectKey, Recorder, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, Resource as _};
use machinery::selector::LabelSelector;
use parking_lot::{Mutex, MutexGuard};

use self::behavior::History;
use self::plan::{Plan, Snapshot};
use self::target::{Scale, Targets};
use crate::client::Error;
use crate::controller::{Context, Controller};
use crate::meta;
use crate::owner::Owner;

/// No autoscaler is looked at more often than this.
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);
/// Upstream's times.
const FIRST_READINESS: Duration = Duration::from_secs(30);
const CPU_INITIALIZATION: Duration = Duration::from_secs(300);

/// The controller of HorizontalPodAutoscalers.
pub(crate) struct Autoscalers {
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

impl Controller for Autoscalers {
    const NAME: &'static str = "horizontalpodautoscaler";
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        let pods = context.informer::<Pod>();
        pods.index(meta::BY_NAMESPACE, meta::namespaces);
        Self {
            autoscalers: context.informer(),
            pods,
            recorder: context.recorder("horizontal-pod-autoscaler"),
            targets: Targets::new(context.client.clone()),
            client: context.client.clone(),
            queue,
            period: context.config.autoscaler_period.max(SHORTEST_PERIOD),
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
                controller.queue.add_changed(change);
            }
        });
    }

    async fn synced(&self) {
        self.autoscalers.synced().await;
        self.pods.synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(autoscaler) = self.autoscalers.get(key) else {
            self.memory().remove(key);
            return Ok(Action::AwaitChange.because("the autoscaler is gone"));
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
}

impl Autoscalers {
    async fn carry_out(
        &self,
        key: &ObjectKey,
        autoscaler: &HorizontalPodAutoscaler,
        scale: Option<Scale>,
        mut plan: Plan,
        now: Timestamp,
    ) -> Result<(), Error> {
        if let (Some(rescale), Some(scale)) = (plan.rescale.clone(), scale) {
            let target = (key.namespace.as_str(), &autoscaler.spec.scale_target_ref);
            let result = self.targets.set(target, &scale, rescale.to).await;
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
        self.memory.lock()
    }
}
