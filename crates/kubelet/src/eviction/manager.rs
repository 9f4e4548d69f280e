//! The two loops: the machine every few seconds, the limits of pods once a minute.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::limits::Scope;
use super::rank::{Futile, HoldOff, choose, is_critical, total};
use super::signals::{self, History, Met, Signal};
use super::usage::Walks;
use super::{limits, usage};
use crate::image_gc::ImageGc;
use crate::measures::Measurement;
use crate::pod::{Message, View};
use crate::pods::Pods;
use crate::shared::Shared;
use crate::types::failure::Failure;

/// How long the end of an evicted pod is waited for before the machine is looked at again (upstream: `podCleanupTimeout` in
/// `pkg/kubelet/eviction/eviction_manager.go`).
const CLEANUP: Duration = Duration::from_secs(30);
/// How often it is looked whether it has ended (upstream: `podCleanupPollFreq`).
const CLEANUP_LOOK: Duration = Duration::from_millis(500);
/// So many pods with limits are looked at at the same time.
const CONCURRENT: usize = 4;

/// Evicts pods until `cancel` is triggered.
pub(crate) async fn run(shared: Arc<Shared>, pods: Arc<Pods>, cancel: CancellationToken) {
    let mut manager = Manager {
        images: ImageGc::new(Arc::clone(&shared)),
        shared: Arc::clone(&shared),
        pods: Arc::clone(&pods),
        history: History::default(),
        hold_off: HoldOff::default(),
        futile: Futile::default(),
        reported: BTreeMap::new(),
        walks: Walks::default(),
    };
    // Of their own: a pod whose limits are looked at just now may be the one that fills the disk.
    let walks = Walks::default();
    tokio::select! {
        () = cancel.cancelled() => {}
        never = manager.watch_machine() => match never {},
        never = watch_limits(&shared, &pods, &walks, false) => match never {},
        never = watch_limits(&shared, &pods, &walks, true) => match never {},
    }
}

/// Evicts pods that take more of the disk than they may: those with limits of containers, which the runtime is asked about, or
/// those that have only limits of volumes, which wait for no runtime.
async fn watch_limits(shared: &Shared, pods: &Pods, walks: &Walks, of_containers: bool) -> Infallible {
    // The pods of which people were told that they cannot be counted.
    let mut told: HashSet<String> = HashSet::new();
    loop {
        tokio::time::sleep(shared.config.volume_stats_period).await;
        told.retain(|uid| pods.view(uid).is_some());
        let with_scope = |pod: View| {
            let scope = limited(&pod).filter(|scope| scope.containers == of_containers)?;
            Some((pod, scope))
        };
        let limited: Vec<(View, Scope)> = pods.views().into_iter().filter_map(with_scope).collect();
        let looks = stream::iter(limited)
            .map(|(pod, scope)| async move { (usage::storage(shared, &pod, scope, walks).await, pod) });
        let mut looks = looks.buffer_unordered(CONCURRENT);
        while let Some((usage, pod)) = looks.next().await {
            let (Some(usage), Some(spec)) = (usage, pod.desired.spec()) else { continue };
            let uid = &pod.desired.identity.uid;
            if let Some(message) = limits::violation(spec, &usage) {
                pods.send(uid, Message::Fail(Failure::evicted(message)));
            } else if !usage.uncounted.is_empty() && told.insert(uid.clone()) {
                let names = usage.uncounted.join(", ");
                let message = format!(
                    "Only a part of the files in {names} can be counted, so limits may be exceeded: coracle may not read all \
                     directories there, or there are too many files"
                );
                shared.reporter.pod_warning(&pod.desired, None, "VolumeNotCounted", &message);
            }
        }
    }
}

/// What must be counted of a pod to know whether it keeps its limits; none for one that has none, or that is never evicted
/// (upstream: `evictPod` in `pkg/kubelet/eviction/eviction_manager.go`).
fn limited(pod: &View) -> Option<Scope> {
    let spec = pod.desired.spec().filter(|_| is_active(pod))?;
    limits::scope(spec).filter(|_| !is_critical(spec.priority.unwrap_or_default()))
}

struct Manager {
    shared: Arc<Shared>,
    pods: Arc<Pods>,
    images: ImageGc,
    walks: Walks,
    history: History,
    hold_off: HoldOff,
    futile: Futile,
    /// By resource that people were told of: whether also that no pod can help.
    reported: BTreeMap<&'static str, bool>,
}

impl Manager {
    async fn watch_machine(&mut self) -> Infallible {
        loop {
            let found = self.measure().await;
            let config = &self.shared.config;
            let pause = signals::pause(config.eviction_monitoring_period, &config.eviction_hard, &found);
            let met = self.observe(&found);
            // What cannot be helped does not stand before what can.
            for met in &met {
                if self.reclaim(*met, &found).await {
                    break;
                }
            }
            self.reported.retain(|resource, _| met.iter().any(|met| met.signal.resource() == *resource));
            if met.is_empty() {
                self.images.collect_when_due(&found).await;
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn measure(&self) -> Measurement {
        let (measures, state_dir) = (Arc::clone(&self.shared.measures), self.shared.config.state_dir.clone());
        let root_dir = self.shared.machine().info.root_dir.clone();
        let measure = move || {
            let root_dir = Some(root_dir.as_ref()).filter(|_| !root_dir.is_empty());
            measures.measure(&state_dir, root_dir)
        };
        tokio::task::spawn_blocking(measure).await.unwrap_or_default()
    }

    /// Tells the node's status what the machine is short of.
    fn observe(&mut self, found: &Measurement) -> Vec<Met> {
        let config = &self.shared.config;
        let met = signals::met(&config.eviction_hard, found);
        let pressure = self.history.observe(&met, Instant::now(), config.eviction_pressure_transition_period);
        self.shared.pressure.send_if_modified(|known| std::mem::replace(known, pressure) != pressure);
        met
    }

    /// Gets some of what runs out back: of a disk first what nobody needs, then by evicting one pod. Returns whether that
    /// could be done.
    async fn reclaim(&mut self, met: Met, found: &Measurement) -> bool {
        let (mut met, mut found) = (met, *found);
        let resource = met.signal.resource();
        if !self.reported.contains_key(resource) {
            self.reported.insert(resource, false);
            self.shared.reporter.node_warning("EvictionThresholdMet", &format!("Attempting to reclaim {resource}"));
        }
        if met.signal.is_disk() && self.reclaim_disk(met).await {
            found = self.measure().await;
            match self.observe(&found).into_iter().find(|now| now.signal == met.signal) {
                Some(now) => met = now,
                None => return true,
            }
        }
        let pause = self.shared.config.eviction_pressure_transition_period;
        if self.futile.is(met, Instant::now()) {
            self.hold_off.lasts(met, Instant::now(), pause);
            return self.report_futile(resource);
        }
        let pods = self.pods.views().into_iter().filter(is_active).collect();
        let usages = usage::of_pods(&self.shared, pods, met.signal, signals::has_image_fs(&found), &self.walks).await;
        let (now, used) = (Instant::now(), total(&usages));
        let allowed = self.hold_off.allows(met, used, now, pause);
        let Some((pod, message)) = choose(usages, met).filter(|_| allowed) else {
            self.futile.note(met, now);
            return self.report_futile(resource);
        };
        self.pods.send(&pod.uid, Message::Fail(Failure::evicted(message)));
        self.futile.forget(met);
        self.hold_off.evicted(met, pod.used, used.saturating_sub(pod.used), now);
        self.await_end(&pod.uid, met.signal).await;
        true
    }

    /// Removes dead containers and unused images. Returns whether there was anything to remove.
    async fn reclaim_disk(&mut self, met: Met) -> bool {
        let mut has_dead = false;
        for pod in self.pods.views() {
            if pod.runtime.dead(pod.desired.ended()).next().is_some() {
                has_dead = true;
                self.pods.send(&pod.desired.identity.uid, Message::Reclaim);
            }
        }
        let removed = !self.futile.is(met, Instant::now()) && self.images.collect_all(met.missing()).await;
        if has_dead {
            // Their layers are gone in a moment.
            tokio::time::sleep(CLEANUP_LOOK).await;
        }
        has_dead || removed
    }

    /// Says once that no pod is evicted although the machine is short of something. Returns false: nothing was done.
    fn report_futile(&mut self, resource: &'static str) -> bool {
        if self.reported.insert(resource, true) != Some(true) {
            tracing::warn!(
                resource,
                "the machine is short of a resource that pods cannot give back: none is evicted, and new ones are refused"
            );
        }
        false
    }

    async fn await_end(&self, uid: &str, signal: Signal) {
        let deadline = Instant::now() + CLEANUP;
        while Instant::now() < deadline && self.pods.view(uid).is_some_and(|pod| is_alive(&pod, signal)) {
            tokio::time::sleep(CLEANUP_LOOK.min(self.shared.config.eviction_monitoring_period)).await;
        }
    }
}

/// Whether a pod is not being ended. That is not asked of the API, which may be unable to take a status while the disk is full.
fn is_active(pod: &View) -> bool {
    !pod.ending && pod.desired.spec().is_some()
}

/// Whether something of an evicted pod runs, or takes up what it used.
fn is_alive(pod: &View, signal: Signal) -> bool {
    match signal.is_disk() {
        true => !pod.ending || !pod.torn_down || pod.runtime.containers().next().is_some(),
        false => !pod.ending || pod.runtime.running().next().is_some(),
    }
}
