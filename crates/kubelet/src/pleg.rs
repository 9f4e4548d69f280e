//! The pod lifecycle event generator (upstream: `pkg/kubelet/pleg`): what the runtime has, pod by pod, kept current by its
//! events.
//!
//! Events push; a full list now and then catches what was lost. Whoever changes something in the runtime notes it here at
//! once, so that nobody plans with what is known to be old.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::{Mutex, MutexGuard};
use runtime::{Error, Event, EventKind, PodIdentity, Runtime, Sandbox};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::health::{Health, Monitor};
use crate::types::observed::Observed;

/// Called when something changed for one pod; must return at once.
pub(crate) type Notify = Box<dyn Fn() + Send + Sync>;

/// The first and the longest pause before an unreachable runtime is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The present state of the runtime.
pub(crate) struct Pleg {
    runtime: Arc<dyn Runtime>,
    slots: Mutex<HashMap<String, Slot>>,
    health: Monitor,
}

#[derive(Default)]
struct Slot {
    identity: PodIdentity,
    observed: Arc<Observed>,
    /// Counts changes, so that a list that was begun earlier does not undo them.
    version: u64,
    notify: Option<Notify>,
}

impl Pleg {
    /// A generator that knows nothing of `runtime` yet.
    pub(crate) fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self { runtime, slots: Mutex::default(), health: Monitor::default() }
    }

    /// How the runtime is.
    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// What the runtime has of the pod.
    pub(crate) fn observed(&self, uid: &str) -> Arc<Observed> {
        let slots = self.slots();
        let slot = slots.get(uid);
        slot.map(|slot| Arc::clone(&slot.observed)).unwrap_or_default()
    }

    /// The pods of which the runtime has something.
    pub(crate) fn pods(&self) -> Vec<PodIdentity> {
        let slots = self.slots();
        let known = slots.values().filter(|slot| !slot.observed.is_empty());
        known.map(|slot| slot.identity.clone()).collect()
    }

    /// Calls `notify` for every change of the pod.
    pub(crate) fn subscribe(&self, pod: &PodIdentity, notify: Notify) {
        let mut slots = self.slots();
        let slot = slots.entry(pod.uid.clone()).or_default();
        slot.identity = pod.clone();
        slot.notify = Some(notify);
    }

    /// Ends a subscription.
    pub(crate) fn unsubscribe(&self, uid: &str) {
        let mut slots = self.slots();
        if let Some(slot) = slots.get_mut(uid) {
            slot.notify = None;
            if slot.observed.is_empty() {
                slots.remove(uid);
            }
        }
    }

    /// Notes a change of the pod.
    pub(crate) fn update(&self, pod: &PodIdentity, change: impl FnOnce(&Observed) -> Observed) {
        let mut slots = self.slots();
        let slot = slots.entry(pod.uid.clone()).or_default();
        slot.identity = pod.clone();
        let observed = change(&slot.observed);
        slot.put(observed);
    }

    /// Asks for the state of one container again.
    pub(crate) async fn refresh(&self, pod: &PodIdentity, id: &str) -> Result<(), Error> {
        let state = self.runtime.container(id).await?;
        self.update(pod, |observed| {
            // A container never comes back from its end; an answer that says so was overtaken.
            let ended = observed.container(id).is_some_and(|known| known.state.is_exited());
            match &state {
                Some(state) if ended && !state.state.is_exited() => observed.clone(),
                _ => observed.with_container(id, state.clone()),
            }
        });
        Ok(())
    }

    /// Follows the runtime, and checks its health, until `cancel` is triggered. `listed` is called after every full list.
    pub(crate) async fn run(&self, config: &Config, cancel: CancellationToken, listed: impl Fn()) {
        let check = self.health.check(&*self.runtime, config.runtime_status_period, config.runtime_status_timeout);
        tokio::select! {
            () = self.keep_following(config.relist_period, cancel, listed) => {}
            never = check => match never {},
        }
    }

    async fn keep_following(&self, relist: Duration, cancel: CancellationToken, listed: impl Fn()) {
        let mut pause = PAUSES.0;
        loop {
            let result = tokio::select! {
                () = cancel.cancelled() => return,
                result = self.follow(relist, &listed, &mut pause) => result,
            };
            if let Err(error) = result {
                tracing::warn!(%error, "the container runtime is out of reach");
                self.health.lost(&error);
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Subscribes, lists, and follows until the runtime goes away.
    async fn follow(&self, relist: Duration, listed: &impl Fn(), pause: &mut Duration) -> Result<(), Error> {
        let mut events = self.runtime.events();
        let mut timer = tokio::time::interval(relist);
        // After the process was stopped for a while one list is enough, and events must not wait for more.
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Biased towards the list: the first comes before any event is looked at.
                biased;
                _ = timer.tick() => {
                    self.list().await?;
                    *pause = PAUSES.0;
                    self.health.listed();
                    listed();
                }
                event = events.next() => match event {
                    Some(event) => self.apply(event?).await?,
                    None => return Err(Error::Unavailable("the runtime's events ended".to_owned())),
                },
            }
        }
    }

    async fn list(&self) -> Result<(), Error> {
        let before: HashMap<String, u64> = {
            let slots = self.slots();
            let versions = slots.iter().map(|(uid, slot)| (uid.clone(), slot.version));
            versions.collect()
        };
        let mut pods: HashMap<String, (PodIdentity, Vec<Sandbox>)> = HashMap::new();
        for sandbox in self.runtime.pods().await? {
            let pod = sandbox.pod.clone();
            let entry = pods.entry(pod.uid.clone()).or_insert((pod, Vec::new()));
            entry.1.push(sandbox);
        }
        let mut slots = self.slots();
        for (uid, slot) in slots.iter_mut() {
            let listed = pods.remove(uid).map(|(_, sandboxes)| sandboxes);
            // What changed since has a newer state than the list.
            if before.get(uid) == Some(&slot.version) {
                let observed = Observed::new(listed.unwrap_or_default());
                if *slot.observed != observed {
                    slot.put(observed);
                }
            }
        }
        for (uid, (identity, sandboxes)) in pods {
            let mut slot = Slot { identity, ..Slot::default() };
            slot.put(Observed::new(sandboxes));
            slots.insert(uid, slot);
        }
        slots.retain(|_, slot| slot.notify.is_some() || !slot.observed.is_empty());
        Ok(())
    }

    async fn apply(&self, event: Event) -> Result<(), Error> {
        let Event { id, container, pod, kind, .. } = event;
        let known = self.observed(&pod.uid);
        match (container, kind) {
            (Some(_), EventKind::Removed) => {
                if known.container(&id).is_some() {
                    self.update(&pod, |observed| observed.with_container(&id, None));
                }
            }
            (Some(_), _) => {
                let state = known.container(&id).map(|known| &known.state);
                let news = match kind {
                    EventKind::Started => state.is_none_or(|state| !state.is_running()),
                    _ => state.is_none_or(|state| !state.is_exited()),
                };
                if news {
                    self.refresh(&pod, &id).await?;
                }
            }
            (None, EventKind::Removed) => {
                self.update(&pod, |observed| observed.without_sandbox(&id));
            }
            (None, EventKind::Died { .. }) => {
                self.update(&pod, |observed| observed.with_sandbox_stopped(&id));
            }
            // Whoever starts a sandbox notes it; those of others are found by the next list.
            (None, _) => {}
        }
        Ok(())
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.slots.lock()
    }
}

impl Slot {
    fn put(&mut self, observed: Observed) {
        self.version += 1;
        if *self.observed == observed {
            return;
        }
        self.observed = Arc::new(observed);
        if let Some(notify) = &self.notify {
            notify();
        }
    }
}
