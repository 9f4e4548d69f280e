//! The worker of one pod: it waits for messages, plans, and has the plan carried out.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use runtime::ContainerState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::desired::DesiredPod;
use super::message::{Message, View};
use super::operations::{self, OperationOutcome};
use super::plan::{self, Inputs, Plan, Stage};
use super::probing::Probing;
use super::status::{self, Facts};
use super::termination_message::termination_message;
use super::transition::{Effect, Event, StateMachine};
use crate::mailbox::Mailbox;
use crate::objects::Notify;
use crate::shared::Shared;
use crate::time::between;
use crate::volumes::PodDirectory;

/// How long an ending worker lets the runtime finish what it is making.
const FINISH: Duration = Duration::from_secs(2);

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
}

impl Worker {
    /// A worker for `desired`, its mailbox, and the view it keeps current.
    pub(crate) fn new(shared: Arc<Shared>, desired: DesiredPod) -> (Self, Mailbox<Message>, watch::Receiver<View>) {
        let mailbox = Mailbox::new();
        let sender = mailbox.clone();
        let notify: Notify = Arc::new(move || sender.send(Message::Objects));
        let directory = PodDirectory::new(&shared.config.state_dir, &desired.identity.uid);
        let state = StateMachine::new(desired, shared.config.sync_period, Timestamp::now());
        let (view, views) = watch::channel(view_of(&state));
        let worker = Self {
            shared,
            state,
            directory,
            making: CancellationToken::new(),
            operations: FuturesUnordered::new(),
            probing: Probing::default(),
            mailbox: mailbox.clone(),
            notify,
            view,
        };
        (worker, mailbox, views)
    }

    /// Works until nothing of the pod is left, or `cancel` is triggered; containers go on running then.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let identity = self.state.desired.identity.clone();
        let sender = self.mailbox.clone();
        let notify = Box::new(move || sender.send(Message::Runtime));
        self.shared.pleg.subscribe(&identity, notify);
        self.shared.objects.track(&self.state.desired.pod, &self.notify);
        self.apply(Event::Adopted(self.shared.pleg.observed(&identity.uid)));
        let mut health = self.shared.pleg.health();
        loop {
            self.observe().await;
            let now = Timestamp::now();
            self.apply(Event::Tick);
            let well = health.borrow_and_update().is_usable();
            let plan = plan::plan(Inputs::new(&self.state, now));
            if plan.stage == Stage::Gone {
                break;
            }
            if plan.stage != Stage::Syncing {
                self.making.cancel();
            }
            // Without the runtime nothing can be done, and what is known stays as it is.
            let again = well && self.execute(plan.actions.clone());
            let wake_at = match well {
                true => {
                    let desired = &self.state.desired;
                    self.probing.update(
                        &self.shared,
                        desired,
                        Inputs::new(&self.state, now),
                        plan.stage,
                        &self.mailbox,
                    );
                    let write_at = self.report(&plan, now);
                    // A pod that is ending waits for nothing but its own.
                    let sync_at = Some(self.state.sync_at).filter(|_| plan.stage == Stage::Syncing);
                    let times = [plan.wake_at, write_at, self.state.renew_at, sync_at];
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
                message = self.mailbox.recv() => self.handle_message(message),
                Some(outcome) = self.operations.next(), if !self.operations.is_empty() => {
                    self.record_outcome(outcome);
                }
                _ = health.changed() => {}
                () = tokio::time::sleep(sleep) => {}
            }
            while let Some(message) = self.mailbox.try_recv() {
                self.handle_message(message);
            }
            while let Some(Some(outcome)) = self.operations.next().now_or_never() {
                self.record_outcome(outcome);
            }
        }
        self.shared.objects.release(&identity.uid);
        self.shared.pleg.unsubscribe(&identity.uid);
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

    /// Changes the state, and carries out what follows.
    pub(super) fn apply(&mut self, event: Event) {
        match self.state.apply(event, Timestamp::now()) {
            None => {}
            Some(Effect::Report { container, warning, reason, message }) => {
                let (reporter, desired) = (&self.shared.reporter, &self.state.desired);
                match warning {
                    true => reporter.pod_warning(desired, container.as_deref(), reason, &message),
                    false => reporter.pod(desired, container.as_deref(), reason, &message),
                }
            }
            Some(Effect::TrackReferences) => self.shared.objects.track(&self.state.desired.pod, &self.notify),
            Some(Effect::ProbeReadiness(id)) => self.probing.again(&id),
        }
    }

    fn handle_message(&mut self, message: Message) {
        self.apply(Event::Message(message));
    }

    fn record_outcome(&mut self, outcome: OperationOutcome) {
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
    fn report(&mut self, plan: &Plan, now: Timestamp) -> Option<Timestamp> {
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
    View { desired: Arc::clone(&state.desired), runtime: Arc::clone(&state.runtime), status: Arc::clone(&state.status) }
}
