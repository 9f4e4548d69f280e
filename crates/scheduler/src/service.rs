//! The running scheduler: one task that owns all state, fed by messages.

mod attempt;
mod inbox;
mod preview;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use informer::{
    Cause, Change, DurationMetric, Informer, Informers, ObjectKey, ReconcileReporter, Reconciler, Recorder, StepPermit,
};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Client;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::cache::Cache;
use crate::config::Config;
use crate::gang::{self, GangEvent, Groups};
use crate::preempt::Budget;
use crate::queue::SchedulingQueue;

pub use preview::{PreviewError, Previews};

/// So many bindings may be under way at once. More would only wait for the store instead of here.
const BINDINGS: usize = 64;
/// How long decisions follow each other before other tasks have their turn: about ten of them.
const TURN: Duration = Duration::from_millis(2);

/// What the scheduler works with.
#[derive(Clone)]
pub struct Deps {
    /// Writes bindings, conditions and events.
    pub client: Client,
    /// Pods, nodes, and what decisions depend on besides.
    pub informers: Informers,
}

/// The running scheduler.
pub struct Handle {
    cancel: CancellationToken,
    task: JoinHandle<()>,
    gangs: JoinHandle<()>,
}

impl Handle {
    /// The tasks, which end with the scheduler.
    #[must_use]
    pub fn tasks(&self) -> Vec<AbortHandle> {
        [&self.task, &self.gangs].map(JoinHandle::abort_handle).into()
    }

    /// Stops scheduling, after the bindings under way.
    pub async fn shutdown(self) {
        self.cancel.cancel();
        for task in [self.task, self.gangs] {
            if let Err(error) = task.await {
                warn!(%error, "the scheduler ended badly");
            }
        }
    }
}

/// What the scheduler watches.
struct Watched {
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    namespaces: Informer<Namespace>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    budgets: Informer<PodDisruptionBudget>,
}

impl Watched {
    fn new(informers: &Informers) -> Self {
        Self {
            pods: informers.informer(),
            nodes: informers.informer(),
            namespaces: informers.informer(),
            claims: informers.informer(),
            volumes: informers.informer(),
            classes: informers.informer(),
            budgets: informers.informer(),
        }
    }

    /// Waits until all is known: before, full nodes look empty, and claims as if they were not there. Disruption budgets
    /// are not waited for: they only choose between victims.
    async fn synced(&self) {
        tokio::join!(
            self.pods.synced(),
            self.nodes.synced(),
            self.namespaces.synced(),
            self.claims.synced(),
            self.volumes.synced(),
            self.classes.synced(),
        );
    }

    /// Has every change sent to the scheduler; nodes and what pods refer to come before the pods.
    fn forward_changes(&self, messages: &mpsc::UnboundedSender<Message>) {
        fn forward<K: informer::Object>(
            informer: &Informer<K>,
            messages: &mpsc::UnboundedSender<Message>,
            wrap: fn(Change<K>) -> Message,
        ) where
            K::DynamicType: Clone,
        {
            let messages = messages.clone();
            informer.on_change(move |change| drop(messages.send(wrap(change.clone()))));
        }
        forward(&self.namespaces, messages, Message::Namespace);
        forward(&self.classes, messages, Message::Class);
        forward(&self.volumes, messages, Message::Volume);
        forward(&self.claims, messages, Message::Claim);
        forward(&self.budgets, messages, Message::Budget);
        forward(&self.nodes, messages, Message::Node);
        forward(&self.pods, messages, Message::Pod);
    }
}

/// Starts to schedule.
///
/// Must be called within a tokio runtime.
pub fn start(config: Config, deps: &Deps) -> Handle {
    let cancel = CancellationToken::new();
    // Informers call back and cannot wait, so the channel has no bound of its own. What is in it has: everything is taken
    // before each decision, and a decision takes about a millisecond; at the start it is what the informers hold anyway.
    let (messages, inbox) = mpsc::unbounded_channel();
    config.previews.set(messages.clone());
    let watched = Watched::new(&deps.informers);
    let recorders = config.profiles.iter().map(|profile| {
        let name = profile.scheduler_name.clone();
        (name.clone(), Recorder::new(deps.client.clone(), name, None))
    });
    let scheduler = Scheduler {
        client: deps.client.clone(),
        recorders: recorders.collect(),
        reporter: deps.informers.reconciles().reporter::<Scheduler>(),
        messages: messages.clone(),
        tasks: TaskTracker::new(),
        permits: Arc::new(Semaphore::new(BINDINGS)),
        cache: Cache::default(),
        queue: SchedulingQueue::new(config.back_off),
        groups: Groups::default(),
        budgets: HashMap::new(),
        first: 0,
        pods: watched.pods.clone(),
        claims: watched.claims.clone(),
        storage_changed: watch::Sender::new(()),
        step: None,
        config,
    };
    let (known, knowing) = watch::channel(0);
    let gangs = tokio::spawn({
        let (client, informers, messages, cancel) =
            (deps.client.clone(), deps.informers.clone(), messages.clone(), cancel.clone());
        gang::watch(client, informers, move |event| drop(messages.send(Message::Gang(event))), known, cancel)
    });
    let task = tokio::spawn({
        let cancel = cancel.clone();
        async move {
            tokio::select! {
                () = cancel.cancelled() => return,
                ((), ()) = async { tokio::join!(watched.synced(), gang::known(knowing)) } => {}
            }
            watched.forward_changes(&messages);
            scheduler.run(inbox, cancel).await;
        }
    });
    Handle { cancel, task, gangs }
}

enum Message {
    Node(Change<Node>),
    Pod(Change<Pod>),
    Namespace(Change<Namespace>),
    Claim(Change<PersistentVolumeClaim>),
    Volume(Change<PersistentVolume>),
    Class(Change<StorageClass>),
    Budget(Change<PodDisruptionBudget>),
    Gang(GangEvent),
    /// The binding of this pod failed.
    NotBound(String),
    /// Somebody asks what would be decided about a pod.
    Preview(preview::Question),
}

impl Message {
    /// The message as the cause of an attempt.
    fn cause(&self) -> Cause {
        match self {
            Self::Node(change) => change.cause(),
            Self::Pod(change) => change.cause(),
            Self::Namespace(change) => change.cause(),
            Self::Claim(change) => change.cause(),
            Self::Volume(change) => change.cause(),
            Self::Class(change) => change.cause(),
            Self::Budget(change) => change.cause(),
            Self::Gang(_) => Cause::new("a change of a group or queue"),
            Self::NotBound(_) => Cause::new("a binding that failed"),
            Self::Preview(_) => Cause::new("a preview"),
        }
    }
}

struct Scheduler {
    config: Config,
    client: Client,
    /// By the names of the profiles.
    recorders: HashMap<String, Recorder>,
    /// What each attempt came to, and why it was made.
    reporter: ReconcileReporter,
    messages: mpsc::UnboundedSender<Message>,
    tasks: TaskTracker,
    permits: Arc<Semaphore>,
    cache: Cache,
    queue: SchedulingQueue,
    groups: Groups,
    budgets: HashMap<ObjectKey, Budget>,
    /// The number of the node that the next decision begins with.
    first: usize,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    /// Told when a claim changes: bindings wait for theirs.
    storage_changed: watch::Sender<()>,
    /// What lets the attempts through that are made now, while the scheduler is paused.
    step: Option<StepPermit>,
}

impl Reconciler for Scheduler {
    const NAME: &'static str = "kube-scheduler";
    // upstream: `pkg/scheduler/metrics/metrics.go`.
    const DURATION: Option<DurationMetric> = Some(DurationMetric {
        name: "scheduler_scheduling_attempt_duration_seconds",
        help: "Time of an attempt to schedule a pod, its binding included",
        labels: &["result", "profile"],
        counter: Some(("scheduler_schedule_attempts", "Attempts to schedule a pod, by their result")),
    });
    const IS_PAUSABLE: bool = true;
}

impl Scheduler {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>, cancel: CancellationToken) {
        let mut turn = Instant::now();
        let reporter = self.reporter.clone();
        while !cancel.is_cancelled() {
            // Everything that is known comes before the next decision.
            while let Ok(message) = inbox.try_recv() {
                self.handle_message(message);
            }
            let now = Instant::now();
            let is_paused = reporter.pause().is_paused();
            if is_paused && let Some((pod, since)) = self.queue.peek(now) {
                let (name, waiting) = (pod.full_name(), self.queue.active());
                let due = self.queue.next_due();
                tokio::select! {
                    () = cancel.cancelled() => continue,
                    step = reporter.pause().pass(&name, since, waiting) => self.step = step,
                    message = inbox.recv() => match message {
                        Some(message) => {
                            self.handle_message(message);
                            continue;
                        }
                        None => break,
                    },
                    // There is one more that could be tried.
                    () = sleep_until(due) => continue,
                }
            }
            self.report_overdue_gangs(now);
            if let Some(pod) = self.queue.pop(now) {
                self.attempt(pod);
                // What is tried goes on with clones of it.
                self.step = None;
                // A long queue must not keep this thread from the bindings that it leads to, nor wait after each decision for
                // all the rest of the process.
                if turn.elapsed() >= TURN {
                    tokio::task::yield_now().await;
                    turn = Instant::now();
                }
                continue;
            }
            let due = self.queue.next_due().into_iter().chain(self.groups.next_timeout()).min();
            tokio::select! {
                () = cancel.cancelled() => {}
                message = inbox.recv() => match message {
                    Some(message) => self.handle_message(message),
                    None => break,
                },
                () = sleep_until(due) => {}
            }
        }
        // Bindings that wait for volumes give up.
        drop(self.storage_changed);
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
