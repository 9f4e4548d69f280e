//! The worker of one pod: it waits for news, plans, and has the plan carried out.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use runtime::{ContainerState, Image};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::desired::DesiredPod;
use super::observed::Observed;
use super::operations::{self, Outcome};
use super::plan::{self, Inputs, Plan, Stage};
use super::probing::Probing;
use super::state::{PodState, Step, StepEvent};
use super::status::{self, Facts};
use super::termination_message::termination_message;
use crate::container::References;
use crate::objects::{Notify, version};
use crate::probes::{ProbeKind, ProbeResults};
use crate::shared::Shared;
use crate::time::{after, between};
use crate::volumes::{Mounted, PodDirectory};

/// A change nobody waits for is written together with what follows within this time.
const COALESCE: Duration = Duration::from_millis(500);
/// A write that failed is tried again after this time.
const RETRY_WRITE: Duration = Duration::from_secs(1);
/// How long an ending worker lets the runtime finish what it is making.
const FINISH: Duration = Duration::from_secs(2);

/// News for a worker.
#[derive(Debug)]
pub(crate) enum Message {
    /// The API's pod changed.
    Updated(Arc<Pod>),
    /// The API's pod is gone.
    Gone,
    /// The runtime's state changed.
    Runtime,
    /// An object that the pod refers to changed.
    Objects,
    /// A probe has come to a verdict.
    Verdict {
        /// The container.
        id: String,
        /// Which probe.
        kind: ProbeKind,
        /// The verdict.
        success: bool,
    },
}

/// What others may know of a pod.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// The pod.
    pub(crate) desired: Arc<DesiredPod>,
    /// What the runtime has of it.
    pub(crate) runtime: Arc<Observed>,
    /// Its status, as computed last.
    pub(crate) status: Arc<PodStatus>,
}

/// The worker of one pod.
pub(crate) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) desired: Arc<DesiredPod>,
    pub(super) runtime: Arc<Observed>,
    pub(super) state: PodState,
    pub(super) results: ProbeResults,
    pub(super) directory: PodDirectory,
    pub(super) mounted: Mounted,
    pub(super) references: References,
    pub(super) images: HashMap<String, Image>,
    pub(super) volume_failures: u32,
    pub(super) sandbox_failures: u32,
    /// Cancelled when nothing more is to be made.
    pub(super) making: CancellationToken,
    pub(super) operations: FuturesUnordered<BoxFuture<'static, Outcome>>,
    pub(super) status: PodStatus,
    /// When a token must be renewed.
    pub(super) renew: Option<Timestamp>,
    /// When everything is looked at again although nobody said that anything changed.
    sync_at: Timestamp,
    inbox: mpsc::UnboundedReceiver<Message>,
    sender: mpsc::UnboundedSender<Message>,
    notify: Notify,
    probing: Probing,
    words: BTreeMap<String, String>,
    writing: bool,
    /// Since when a difference waits to be written.
    unwritten: Option<Timestamp>,
    retry_write: Option<Timestamp>,
    view: watch::Sender<View>,
}

impl Worker {
    /// A worker for `desired`, the sender for its messages, and the view it keeps current.
    pub(crate) fn new(
        shared: Arc<Shared>,
        desired: DesiredPod,
    ) -> (Self, mpsc::UnboundedSender<Message>, watch::Receiver<View>) {
        let (sender, inbox) = mpsc::unbounded_channel();
        let desired = Arc::new(desired);
        let status = desired.status().cloned().unwrap_or_default();
        let (view, views) = watch::channel(View {
            desired: Arc::clone(&desired),
            runtime: Arc::default(),
            status: Arc::new(status.clone()),
        });
        let news = sender.clone();
        let notify: Notify = Arc::new(move || {
            // A worker that has ended needs no news.
            let _ = news.send(Message::Objects);
        });
        let directory = PodDirectory::new(&shared.config.state_dir, &desired.identity.uid);
        let worker = Self {
            shared,
            desired,
            runtime: Arc::default(),
            state: PodState::default(),
            results: ProbeResults::default(),
            directory,
            mounted: Mounted::new(),
            references: References::default(),
            images: HashMap::new(),
            volume_failures: 0,
            sandbox_failures: 0,
            making: CancellationToken::new(),
            operations: FuturesUnordered::new(),
            status,
            renew: None,
            sync_at: Timestamp::now(),
            inbox,
            sender: sender.clone(),
            notify,
            probing: Probing::default(),
            words: BTreeMap::new(),
            writing: false,
            unwritten: None,
            retry_write: None,
            view,
        };
        (worker, sender, views)
    }

    /// Works until nothing of the pod is left, or `cancel` is triggered; containers go on running then.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let news = self.sender.clone();
        let notify = Box::new(move || {
            let _ = news.send(Message::Runtime);
        });
        self.shared.pleg.subscribe(&self.desired.identity, notify);
        self.shared.objects.track(&self.desired.pod, &self.notify);
        self.state.start_time = Some(match self.status.start_time.clone() {
            Some(start) => start.0,
            None => Timestamp::now(),
        });
        self.runtime = self.shared.pleg.observed(&self.desired.identity.uid);
        self.restore_probe_results();
        self.sync_at = after(Timestamp::now(), self.sync_period());
        let mut health = self.shared.pleg.health();
        loop {
            self.observe().await;
            let now = Timestamp::now();
            self.sync_when_due(now);
            let well = health.borrow_and_update().is_usable();
            let plan = plan::plan(self.inputs(now));
            if plan.stage == Stage::Gone {
                break;
            }
            if plan.stage != Stage::Syncing {
                self.making.cancel();
            }
            // Without the runtime nothing can be done, and what is known stays as it is.
            let again = well && self.execute(&plan.actions, now);
            let wake_at = match well {
                true => {
                    self.probe(plan.stage, now);
                    let write_at = self.report(&plan, now);
                    // A pod that is ending waits for nothing but its own.
                    let sync_at = Some(self.sync_at).filter(|_| plan.stage == Stage::Syncing);
                    let times = [plan.wake_at, write_at, self.renew, sync_at];
                    times.into_iter().flatten().min()
                }
                false => None,
            };
            if again {
                continue;
            }
            let sleep = wake_at.map_or(Duration::from_secs(86_400), |at| between(now, at));
            tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    self.finish().await;
                    return;
                }
                Some(message) = self.inbox.recv() => self.handle_message(message),
                Some(outcome) = self.operations.next(), if !self.operations.is_empty() => {
                    self.record_outcome(outcome);
                }
                _ = health.changed() => {}
                () = tokio::time::sleep(sleep) => {}
            }
            while let Ok(message) = self.inbox.try_recv() {
                self.handle_message(message);
            }
            while let Some(Some(outcome)) = self.operations.next().now_or_never() {
                self.record_outcome(outcome);
            }
        }
        self.shared.objects.release(&self.desired.identity.uid);
        self.shared.pleg.unsubscribe(&self.desired.identity.uid);
        let directory = self.directory.clone();
        // What is left behind is found at the next start.
        let _ = tokio::task::spawn_blocking(move || directory.remove()).await;
    }

    /// Lets the runtime finish what it is making; what is under way else goes on without this process.
    async fn finish(&mut self) {
        self.making.cancel();
        let finish = async {
            while self.state.making() {
                match self.operations.next().await {
                    Some(outcome) => self.record_outcome(outcome),
                    None => break,
                }
            }
        };
        // Whatever is half made then is discarded at the next start.
        let _ = tokio::time::timeout(FINISH, finish).await;
    }

    /// Takes over what runs from an earlier life of this process: it was ready then, and need not prove it first.
    fn restore_probe_results(&mut self) {
        let desired = Arc::clone(&self.desired);
        for container in &desired.containers {
            let Some(running) = self.runtime.latest(container.name()) else {
                continue;
            };
            let Some(known) = desired.container_status(container.name()) else {
                continue;
            };
            let id = known.container_id.as_deref().and_then(|id| id.split_once("://"));
            if id.is_none_or(|(_, id)| id != running.id) {
                continue;
            }
            if known.started == Some(true) {
                self.results.set(&running.id, ProbeKind::Startup, true);
            }
            if known.ready {
                self.results.set(&running.id, ProbeKind::Readiness, true);
            }
        }
    }

    /// Reads the runtime's present state, and the last words of what has ended.
    async fn observe(&mut self) {
        self.runtime = self.shared.pleg.observed(&self.desired.identity.uid);
        let runtime = Arc::clone(&self.runtime);
        self.words.retain(|id, _| runtime.container(id).is_some());
        self.results.retain(|id| runtime.container(id).is_some());
        self.state.stopping.retain(|id, _| runtime.container(id).is_some_and(|container| !container.state.is_exited()));
        for container in runtime.containers() {
            let ended = matches!(container.state, ContainerState::Exited { .. });
            if !ended || self.words.contains_key(&container.id) {
                continue;
            }
            let policy = self
                .desired
                .container(&container.name)
                .and_then(|desired| desired.spec.termination_message_policy.as_deref());
            let fall_back = policy == Some("FallbackToLogsOnError");
            let words = termination_message(self.shared.runtime.as_ref(), &self.directory, container, fall_back);
            let words = words.await;
            self.words.insert(container.id.clone(), words);
        }
    }

    pub(super) fn inputs(&self, now: Timestamp) -> Inputs<'_> {
        Inputs { desired: &self.desired, runtime: &self.runtime, probes: &self.results, state: &self.state, now }
    }

    fn probe(&mut self, stage: Stage, now: Timestamp) {
        let inputs =
            Inputs { desired: &self.desired, runtime: &self.runtime, probes: &self.results, state: &self.state, now };
        let (shared, desired) = (&self.shared, &self.desired);
        self.probing.update(shared, desired, inputs, stage, &self.sender);
    }

    fn handle_message(&mut self, message: Message) {
        match message {
            Message::Updated(pod) => self.set_desired(pod),
            Message::Gone => {
                let mut desired = DesiredPod::clone(&self.desired);
                desired.gone = true;
                self.desired = Arc::new(desired);
            }
            // The state is read before every plan.
            Message::Runtime => {}
            Message::Objects => self.state.inputs_changed(),
            Message::Verdict { id, kind, success } => {
                self.results.set(&id, kind, success);
                if kind == ProbeKind::Startup && success {
                    self.probing.again(&id);
                }
            }
        }
    }

    /// Takes a newer state of the API's pod. An older one, overtaken by the answer to an own write, is left aside.
    fn set_desired(&mut self, pod: Arc<Pod>) {
        if let (Some(old), Some(new)) = (version(&self.desired.pod.metadata), version(&pod.metadata))
            && new < old
        {
            return;
        }
        let (old, new) = (&self.desired.pod.metadata, &pod.metadata);
        let described = old.labels != new.labels || old.annotations != new.annotations;
        let specified = pod.spec != self.desired.pod.spec;
        let gone = self.desired.gone;
        let mut desired = DesiredPod::new(pod);
        desired.gone = gone;
        if specified {
            self.shared.objects.track(&desired.pod, &self.notify);
            // A corrected image is tried at once.
            for (name, retry) in &mut self.state.containers {
                let image = |desired: &DesiredPod| Some(desired.container(name)?.spec.image.clone());
                if image(&desired) != image(&self.desired) {
                    retry.image.apply(StepEvent::InputsChanged);
                    retry.pulls.reset();
                }
            }
        }
        self.desired = Arc::new(desired);
        if described || specified {
            self.state.inputs_changed();
        }
    }

    /// Has the volumes looked at when a token must be renewed, and now and then in any case: nothing is believed for
    /// longer than that because somebody should have said otherwise. What failed has a time of its own.
    fn sync_when_due(&mut self, now: Timestamp) {
        if self.renew.is_some_and(|renew| renew <= now) {
            self.renew = None;
            self.state.inputs_changed();
        }
        if self.sync_at <= now {
            self.sync_at = after(now, self.sync_period());
            if self.state.volumes.is_done() {
                self.state.volumes.apply(StepEvent::InputsChanged);
            }
        }
    }

    /// The period of this pod: up to half longer than what is configured (upstream: `workerResyncIntervalJitterFactor` in
    /// `pkg/kubelet/pod_workers.go`), for each pod another, so that pods which began together do not stay together.
    fn sync_period(&self) -> Duration {
        let mut hasher = DefaultHasher::new();
        self.desired.identity.uid.hash(&mut hasher);
        let shares = u32::try_from(hasher.finish() % 1000).unwrap_or_default();
        let period = self.shared.config.sync_period;
        period + period / 2 * shares / 1000
    }

    /// Computes the status and has it written when it differs. The answer is when to look again.
    fn report(&mut self, plan: &Plan, now: Timestamp) -> Option<Timestamp> {
        if plan.stage >= Stage::Removing || self.desired.spec().is_none() {
            return None;
        }
        self.status = self.compute(plan, now);
        let known = self.desired.status().cloned().unwrap_or_default();
        self.view.send_replace(View {
            desired: Arc::clone(&self.desired),
            runtime: Arc::clone(&self.runtime),
            status: Arc::new(self.status.clone()),
        });
        if self.desired.gone || self.writing || !status::differs(&known, &self.status) {
            self.unwritten = None;
            return None;
        }
        // The release writes the last status itself.
        if self.state.released != Step::Idle {
            return None;
        }
        let since = *self.unwritten.get_or_insert(now);
        // Once only the sandbox is left, the last status is a moment away.
        let last_to_come = plan.stage == Stage::Terminating && self.runtime.running().next().is_none();
        let due = match status::urgent(&known, &self.status) && !last_to_come {
            true => now,
            false => after(since, COALESCE),
        };
        let due = self.retry_write.map_or(due, |retry| due.max(retry));
        if due > now {
            return Some(due);
        }
        self.unwritten = None;
        self.retry_write = None;
        self.writing = true;
        let write =
            operations::write_status(Arc::clone(&self.shared), Arc::clone(&self.desired), known, self.status.clone());
        self.operations.push(write.boxed());
        None
    }

    fn compute(&self, plan: &Plan, now: Timestamp) -> PodStatus {
        let machine = self.shared.machine();
        let facts = Facts {
            stage: plan.stage,
            waiting: &plan.waiting,
            messages: &self.words,
            node_ip: self.shared.config.node_ip,
            runtime: &machine.info.name,
        };
        status::compute(self.inputs(now), facts)
    }

    /// Notes the answer to a write.
    pub(super) fn written(&mut self, result: Result<Option<Arc<Pod>>, kube::Error>) {
        self.writing = false;
        match result {
            Ok(Some(pod)) => self.set_desired(pod),
            // The pod is gone; the watch will say so.
            Ok(None) => self.retry_write = Some(after(Timestamp::now(), RETRY_WRITE)),
            Err(error) => {
                tracing::debug!(%error, pod = self.desired.describe(), "status not written");
                self.retry_write = Some(after(Timestamp::now(), RETRY_WRITE));
            }
        }
    }
}
