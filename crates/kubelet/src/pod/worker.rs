//! The worker of one pod: it waits for messages, plans, and has the plan carried out.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use informer::{Cause, Causes, DurationMetric, Ending, ObjectKey, Reconciler, Running, StepPermit};
use jiff::Timestamp;
use runtime::ContainerState;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::message::{Message, View};
use super::operations::{self, OperationOutcome};
use super::plan::{self, Inputs, Plan, Stage};
use super::probing::Probing;
use super::status::{self, Facts};
use super::sync::{self, SyncPodType};
use super::termination_message::termination_message;
use super::transition::{Effect, Event, StateMachine};
use crate::mailbox::Mailbox;
use crate::objects::Notify;
use crate::shared::Shared;
use crate::time::between;
use crate::types::desired::DesiredPod;
use crate::types::failure::Failure;
use crate::volumes::PodDirectory;

/// How long an ending worker lets the runtime finish what it is making.
const FINISH: Duration = Duration::from_secs(2);

/// How long a worker sleeps when there is nothing to wait for.
const IDLE: Duration = Duration::from_secs(86_400);

/// The worker of one pod.
pub(crate) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) state: StateMachine,
    pub(super) directory: PodDirectory,
    /// Cancelled when nothing more is to be made.
    pub(super) making: CancellationToken,
    pub(super) operations: FuturesUnordered<BoxFuture<'static, OperationOutcome>>,
    probing: Probing,
    mailbox: Mailbox<Message>,
    notify: Notify,
    view: watch::Sender<View>,
    /// What the next sync is for.
    causes: Option<Causes>,
    /// The kind of the next sync.
    sync_type: SyncPodType,
}

/// What follows a sync.
enum Next {
    /// Nothing: the worker ends.
    End,
    /// Another one at once: the plan is an old one by now.
    Again,
    /// Another one when something happens, or at this time.
    Wait(Option<Timestamp>),
}

impl Reconciler for Worker {
    const NAME: &'static str = crate::COMPONENT;
    // upstream: `PodWorkerDuration` in `pkg/kubelet/metrics/metrics.go`.
    const DURATION: Option<DurationMetric> = Some(DurationMetric {
        name: "kubelet_pod_worker_duration_seconds",
        help: "Time of syncing a single pod, by the kind of sync",
        labels: &["operation_type"],
        counter: None,
    });
    const IS_PAUSABLE: bool = true;
}

impl Worker {
    /// A worker for `desired` because of `cause`, its mailbox, and the view it keeps current. Of a pod that the node has failed
    /// before, nothing is made.
    pub(crate) fn new(
        shared: Arc<Shared>,
        desired: DesiredPod,
        failure: Option<Failure>,
        cause: Cause,
    ) -> (Self, Mailbox<Message>, watch::Receiver<View>) {
        let mailbox = Mailbox::new();
        let sender = mailbox.clone();
        let notify: Notify = Arc::new(move |cause| sender.send(Message::Objects(cause)));
        let directory = PodDirectory::new(&shared.config.state_dir, &desired.identity.uid);
        let state = StateMachine::new(desired, shared.config.sync_period, Timestamp::now());
        let (view, views) = watch::channel(view_of(&state));
        let probing = Probing::new(shared.probe_counts.of(&state.desired.identity));
        let mut worker = Self {
            shared,
            state,
            directory,
            making: CancellationToken::new(),
            operations: FuturesUnordered::new(),
            probing,
            mailbox: mailbox.clone(),
            notify,
            view,
            causes: Some(Causes::new(cause)),
            sync_type: SyncPodType::Create,
        };
        if let Some(failure) = failure {
            worker.apply(Event::Message(Message::Fail(failure)));
        }
        (worker, mailbox, views)
    }

    /// Works until nothing of the pod is left, or `cancel` is triggered; containers go on running then.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let identity = self.state.desired.identity.clone();
        let key = ObjectKey::new(identity.namespace.as_str(), identity.name.as_str());
        let sender = self.mailbox.clone();
        let notify = Box::new(move || sender.send(Message::Runtime));
        self.shared.pleg.subscribe(&identity, notify);
        self.shared.objects.track(&self.state.desired.pod, &self.notify);
        self.apply(Event::Adopted(self.shared.pleg.observed(&identity.uid)));
        let mut health = self.shared.pleg.health();
        loop {
            let step = tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    self.finish().await;
                    return;
                }
                step = self.pass(&key) => step,
            };
            let causes = self.causes.take().unwrap_or_else(|| Causes::new(Cause::REQUEUE_AFTER));
            let mut sync = self.shared.syncs.begin(&key, &causes);
            sync.set_step(step);
            let span = sync.span().clone();
            self.observe().instrument(span.clone()).await;
            let well = health.borrow_and_update().is_usable();
            let next = span.in_scope(|| self.sync(well, &mut sync));
            let sleep = match &next {
                Next::End => None,
                Next::Again => Some(Duration::ZERO),
                Next::Wait(until) => until.map(|until| between(Timestamp::now(), until)),
            };
            let kind = std::mem::replace(&mut self.sync_type, SyncPodType::Sync);
            sync.end(sleep.map_or(Ending::AwaitChange, Ending::RequeueAfter), &[kind.as_str()]);
            match next {
                Next::End => break,
                Next::Again => {
                    Causes::add(&mut self.causes, Cause::new("an action that was done at once"));
                    continue;
                }
                Next::Wait(_) => {}
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    self.finish().await;
                    return;
                }
                message = self.mailbox.recv() => self.handle_message(message),
                Some(outcome) = self.operations.next(), if !self.operations.is_empty() => {
                    self.record_outcome(outcome);
                }
                _ = health.changed() => Causes::add(&mut self.causes, Cause::new("the health of the runtime")),
                () = tokio::time::sleep(sleep.unwrap_or(IDLE)) => {}
            }
            self.catch_up();
        }
        self.shared.objects.release(&identity.uid);
        self.shared.pleg.unsubscribe(&identity.uid);
        let directory = self.directory.clone();
        // What is left behind is found at the next start.
        let _ = tokio::task::spawn_blocking(move || directory.remove()).await;
    }

    /// Waits while the kubelet is paused; the answer is the step that lets the next sync through. Messages and outcomes are
    /// noted as they come: what was begun before goes on, and nothing else is begun.
    async fn pass(&mut self, key: &ObjectKey) -> Option<StepPermit> {
        let shared = Arc::clone(&self.shared);
        let pause = shared.syncs.pause();
        if !pause.is_paused() {
            return None;
        }
        let now = Instant::now();
        let step = loop {
            let since = self.causes.as_ref().map_or(now, Causes::since);
            tokio::select! {
                step = pause.pass(key, since, 1) => break step,
                message = self.mailbox.recv() => self.handle_message(message),
                Some(outcome) = self.operations.next(), if !self.operations.is_empty() => self.record_outcome(outcome),
            }
        };
        self.catch_up();
        step
    }

    /// Notes what has come by now.
    fn catch_up(&mut self) {
        while let Some(message) = self.mailbox.try_recv() {
            self.handle_message(message);
        }
        while let Some(Some(outcome)) = self.operations.next().now_or_never() {
            self.record_outcome(outcome);
        }
    }

    /// Plans, begins what the plan asks for, and has the status written. `well` is whether the runtime can be used.
    fn sync(&mut self, well: bool, sync: &mut Running) -> Next {
        let now = Timestamp::now();
        self.apply(Event::Tick);
        let plan = plan::plan(Inputs::new(&self.state, now));
        if plan.stage >= Stage::Terminated {
            self.shared.allocations.release(&self.state.desired.identity.uid);
        }
        if plan.stage == Stage::Gone {
            sync.because(sync::idle_reason(&plan, &self.state, false));
            return Next::End;
        }
        if plan.stage != Stage::Syncing {
            self.making.cancel();
            self.sync_type = SyncPodType::Kill;
        }
        // Without the runtime nothing can be done, and what is known stays as it is.
        if !well {
            sync.because("the container runtime cannot be used");
            return Next::Wait(None);
        }
        let again = self.execute(plan.actions.clone());
        plan.actions.iter().for_each(|action| sync.act(|| sync::describe(action)));
        let inputs = Inputs::new(&self.state, now);
        self.probing.update(&self.shared, &self.state.desired, inputs, plan.stage, &self.mailbox);
        let under_way = !self.operations.is_empty();
        let write_at = self.report(&plan, now, sync);
        if again {
            return Next::Again;
        }
        sync.because(sync::idle_reason(&plan, &self.state, under_way));
        // A pod that is ending waits for nothing but its own.
        let sync_at = Some(self.state.sync_at).filter(|_| plan.stage == Stage::Syncing);
        let times = [plan.wake_at, write_at, self.state.renew_at, sync_at];
        Next::Wait(times.into_iter().flatten().min())
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

    /// Changes the state, and carries out what follows.
    pub(super) fn apply(&mut self, event: Event) {
        match self.state.apply(event, Timestamp::now()) {
            None => {}
            Some(Effect::Report { container, warning, reason, message }) => {
                let (reporter, desired) = (&self.shared.reporter, &self.state.desired);
                match warning {
                    true => reporter.pod_warning(desired, container.as_deref(), &reason, &message),
                    false => reporter.pod(desired, container.as_deref(), &reason, &message),
                }
            }
            Some(Effect::TrackReferences) => self.shared.objects.track(&self.state.desired.pod, &self.notify),
            Some(Effect::ProbeReadiness(id)) => self.probing.again(&id),
        }
    }

    fn handle_message(&mut self, message: Message) {
        Causes::add(&mut self.causes, message.cause());
        if matches!(message, Message::Updated(..)) && self.sync_type == SyncPodType::Sync {
            self.sync_type = SyncPodType::Update;
        }
        self.apply(Event::Message(message));
    }

    fn record_outcome(&mut self, outcome: OperationOutcome) {
        Causes::add(&mut self.causes, outcome.cause());
        // What an operation changed in the runtime is known there, and its outcome is judged by it.
        self.apply(Event::Observed(self.shared.pleg.observed(&self.state.desired.identity.uid)));
        self.apply(Event::Finished(outcome));
    }

    /// Reads the runtime's present state, and the termination messages of what has ended.
    async fn observe(&mut self) {
        let observed = self.shared.pleg.observed(&self.state.desired.identity.uid);
        self.apply(Event::Observed(Arc::clone(&observed)));
        for container in observed.containers() {
            let ended = matches!(container.state, ContainerState::Exited { .. });
            if !ended || self.state.termination_messages.contains_key(&container.id) {
                continue;
            }
            let spec = self.state.desired.container(&container.name).map(|container| &container.spec);
            let policy = spec.and_then(|spec| spec.termination_message_policy.as_deref());
            let fall_back = policy == Some("FallbackToLogsOnError");
            let message = termination_message(self.shared.runtime.as_ref(), &self.directory, container, fall_back);
            let message = message.await;
            self.apply(Event::TerminationMessage { id: container.id.clone(), message });
        }
    }

    /// Computes the status and has it written when it differs. The answer is when to look again.
    fn report(&mut self, plan: &Plan, now: Timestamp, sync: &mut Running) -> Option<Timestamp> {
        if plan.stage >= Stage::Removing || self.state.desired.spec().is_none() {
            return None;
        }
        let machine = self.shared.machine();
        let facts = Facts {
            stage: plan.stage,
            waiting: &plan.waiting,
            messages: &self.state.termination_messages,
            node_ip: self.shared.config.node_ip,
            runtime: &machine.info.name,
        };
        let status = status::compute(Inputs::new(&self.state, now), facts);
        self.apply(Event::StatusComputed(Arc::new(status)));
        self.view.send_replace(view_of(&self.state));
        let due = self.state.write_at(plan.stage, now)?;
        if due > now {
            return Some(due);
        }
        self.apply(Event::WriteBegun);
        sync.act(|| crate::PATCH_STATUS);
        let write = operations::write_status(
            Arc::clone(&self.shared),
            Arc::clone(&self.state.desired),
            Arc::clone(&self.state.status),
        );
        self.operations.push(write.boxed());
        None
    }
}

fn view_of(state: &StateMachine) -> View {
    View {
        desired: Arc::clone(&state.desired),
        runtime: Arc::clone(&state.runtime),
        status: Arc::clone(&state.status),
        ending: plan::stage(Inputs::new(state, Timestamp::now())) != Stage::Syncing,
        torn_down: state.torn_down.is_done(),
    }
}
