//! The running scheduler: one task that owns all state, fed by messages.

use std::sync::Arc;

use informer::{Change, EventType, Informers, Recorder};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Client, Resource};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::bind;
use crate::cache::Cache;
use crate::framework::{ClusterEvent, PodInfo};
use crate::queue::SchedulingQueue;
use crate::schedule::{Unschedulable, schedule};

/// So many bindings may be under way at once. More would only wait for the store instead of here.
const BINDINGS: usize = 64;

/// How the scheduler is to work.
#[derive(Debug, Clone)]
pub struct Config {
    /// Pods whose `spec.schedulerName` is this are scheduled; others belong to another scheduler.
    pub scheduler_name: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { scheduler_name: "default-scheduler".to_owned() }
    }
}

/// What the scheduler works with.
#[derive(Clone)]
pub struct Deps {
    /// Writes bindings, conditions and events.
    pub client: Client,
    /// Pods and nodes.
    pub informers: Informers,
}

/// The running scheduler.
pub struct Handle {
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Handle {
    /// Stops scheduling, after the bindings under way.
    pub async fn shutdown(self) {
        self.cancel.cancel();
        if let Err(error) = self.task.await {
            warn!(%error, "the scheduler ended badly");
        }
    }
}

/// Starts to schedule.
pub fn start(config: Config, deps: &Deps) -> Handle {
    let cancel = CancellationToken::new();
    let (messages, inbox) = mpsc::unbounded_channel();
    let pods = deps.informers.informer::<Pod>();
    let nodes = deps.informers.informer::<Node>();
    let recorder = Recorder::new(deps.client.clone(), "default-scheduler", None);
    let scheduler = Scheduler {
        config,
        client: deps.client.clone(),
        recorder,
        messages: messages.clone(),
        bindings: TaskTracker::new(),
        permits: Arc::new(Semaphore::new(BINDINGS)),
        cache: Cache::default(),
        queue: SchedulingQueue::default(),
    };
    let task = tokio::spawn({
        let cancel = cancel.clone();
        async move {
            // Before the lists are complete, full nodes look empty.
            tokio::select! {
                () = cancel.cancelled() => return,
                () = async { tokio::join!(pods.synced(), nodes.synced()); } => {}
            }
            let to_pods = messages.clone();
            nodes.on_change(move |change| drop(messages.send(Message::Node(change.clone()))));
            pods.on_change(move |change| drop(to_pods.send(Message::Pod(change.clone()))));
            scheduler.run(inbox, cancel).await;
        }
    });
    Handle { cancel, task }
}

enum Message {
    Node(Change<Node>),
    Pod(Change<Pod>),
    /// The binding of this pod failed.
    NotBound(String),
}

struct Scheduler {
    config: Config,
    client: Client,
    recorder: Recorder,
    messages: mpsc::UnboundedSender<Message>,
    bindings: TaskTracker,
    permits: Arc<Semaphore>,
    cache: Cache,
    queue: SchedulingQueue,
}

impl Scheduler {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            // Everything that is known comes before the next decision.
            while let Ok(message) = inbox.try_recv() {
                self.take(message);
            }
            if let Some(pod) = self.queue.pop(Instant::now()) {
                self.schedule(pod);
                // A long queue must not keep this thread from the bindings that it leads to.
                tokio::task::yield_now().await;
                continue;
            }
            let due = self.queue.next_due();
            tokio::select! {
                () = cancel.cancelled() => {}
                message = inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => break,
                },
                () = sleep_until(due) => {}
            }
        }
        self.bindings.close();
        self.bindings.wait().await;
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Node(Change { new: Some(node), .. }) => {
                if let Some(event) = self.cache.set_node(node) {
                    self.queue.wake(event);
                }
            }
            Message::Node(change) => self.cache.remove_node(&change.key().name),
            Message::Pod(Change { new: Some(pod), .. }) => self.take_pod(pod),
            Message::Pod(Change { old: Some(pod), .. }) => self.pod_left(&pod),
            Message::Pod(_) => {}
            Message::NotBound(uid) => {
                self.cache.forget(&uid);
                self.queue.refused(&uid, Default::default(), Instant::now());
            }
        }
    }

    fn take_pod(&mut self, pod: Arc<Pod>) {
        let spec = pod.spec.as_ref();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return self.pod_left(&pod);
        }
        let node = spec.and_then(|spec| spec.node_name.as_deref());
        if let Some(node) = node.filter(|node| !node.is_empty()) {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            self.queue.remove(uid);
            return self.cache.set_pod(node, &pod);
        }
        let wanted = spec.and_then(|spec| spec.scheduler_name.as_deref());
        let gates = spec.and_then(|spec| spec.scheduling_gates.as_ref());
        let ours = wanted.unwrap_or_default() == self.config.scheduler_name;
        let gated = gates.is_some_and(|gates| !gates.is_empty());
        if ours && !gated && pod.metadata.deletion_timestamp.is_none() {
            let info = Arc::new(PodInfo::new(pod));
            // Between a decision and the news of its binding the pod still looks as if it had no node.
            if !self.cache.is_placed(info.uid()) {
                self.queue.add(info);
            }
        } else if ours {
            self.queue.remove(pod.metadata.uid.as_deref().unwrap_or_default());
        }
    }

    fn pod_left(&mut self, pod: &Pod) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.queue.remove(uid);
        if self.cache.remove_pod(uid) {
            self.queue.wake(ClusterEvent::PodRemoved);
        }
    }

    fn schedule(&mut self, info: Arc<PodInfo>) {
        match schedule(self.cache.nodes(), &info) {
            Ok(decision) => {
                self.cache.assume(&decision.node, Arc::clone(&info));
                self.bind(info, decision.node);
            }
            Err(refused) => self.report(&info, refused),
        }
    }

    fn bind(&self, info: Arc<PodInfo>, node: String) {
        let client = self.client.clone();
        let recorder = self.recorder.clone();
        let messages = self.messages.clone();
        let permits = Arc::clone(&self.permits);
        self.bindings.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let pod = &info.pod;
            let (namespace, name) = names(pod);
            match bind::bind(&client, pod, &node).await {
                Ok(()) => recorder.event(
                    &pod.object_ref(&()),
                    EventType::Normal,
                    "Scheduled",
                    format!("Successfully assigned {namespace}/{name} to {node}"),
                ),
                // Deleted, or bound by somebody else, while this was decided: the informer will tell.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                    debug!(pod = name, "not bound: {}", status.message);
                    drop(messages.send(Message::NotBound(info.uid().to_owned())));
                }
                Err(error) => {
                    warn!(pod = name, %error, "binding failed");
                    drop(messages.send(Message::NotBound(info.uid().to_owned())));
                }
            }
        });
    }

    fn report(&mut self, info: &Arc<PodInfo>, refused: Unschedulable) {
        let message = refused.to_string();
        self.queue.refused(info.uid(), refused.plugins, Instant::now());
        let (namespace, name) = names(&info.pod);
        info!(pod = format!("{namespace}/{name}"), "{message}");
        self.recorder.event(&info.pod.object_ref(&()), EventType::Warning, "FailedScheduling", &message);
        let (client, pod) = (self.client.clone(), Arc::clone(&info.pod));
        self.bindings.spawn(async move {
            if let Err(error) = bind::report_unschedulable(&client, &pod, &message).await {
                debug!(%error, "condition not written");
            }
        });
    }
}

fn names(pod: &Pod) -> (&str, &str) {
    let meta = &pod.metadata;
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
