//! The probes of one pod: which run, and who hears their verdicts.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Probe;
use runtime::ContainerState;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::message::Message;
use super::plan::{Inputs, Stage};
use crate::mailbox::Mailbox;
use crate::probes::{self, Assignment, PodProbeCounts, ProbeKind, Target};
use crate::shared::Shared;
use crate::types::desired::{ContainerKind, DesiredPod};

/// The running probes, by container id.
pub(super) struct Probing {
    tasks: HashMap<(String, ProbeKind), Task>,
    counts: Arc<PodProbeCounts>,
}

struct Task {
    handle: JoinHandle<()>,
    again: Arc<Notify>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Probing {
    /// Nothing is probed yet; how probes end will be told to `counts`.
    pub(super) fn new(counts: Arc<PodProbeCounts>) -> Self {
        Self { tasks: HashMap::new(), counts }
    }

    /// Starts and stops probes so that those run which should.
    pub(super) fn update(
        &mut self,
        shared: &Arc<Shared>,
        desired: &Arc<DesiredPod>,
        inputs: Inputs<'_>,
        stage: Stage,
        mailbox: &Mailbox<Message>,
    ) {
        let Inputs { runtime, state, probes: results, .. } = inputs;
        let mut wanted = Vec::new();
        for container in desired.containers.iter().filter(|container| container.kind != ContainerKind::Init) {
            let Some(running) = runtime.latest(container.name()) else {
                continue;
            };
            let ContainerState::Running { started } = running.state else {
                continue;
            };
            let started_up =
                container.spec.startup_probe.is_none() || results.get(&running.id, ProbeKind::Startup) == Some(true);
            let spec = &container.spec;
            // A container that is being ended need not be alive; whether it takes traffic still matters.
            let ending = stage != Stage::Syncing || state.stopping.contains_key(&running.id);
            for (kind, probe, due) in [
                (ProbeKind::Startup, &spec.startup_probe, !started_up && !ending),
                (ProbeKind::Liveness, &spec.liveness_probe, started_up && !ending),
                (ProbeKind::Readiness, &spec.readiness_probe, started_up),
            ] {
                if let (Some(probe), true) = (probe, due) {
                    wanted.push((running.id.clone(), kind, probe, started, container));
                }
            }
        }
        self.tasks.retain(|(id, kind), _| {
            wanted.iter().any(|(wanted_id, wanted_kind, ..)| wanted_id == id && wanted_kind == kind)
        });
        for (id, kind, probe, started, container) in wanted {
            let key = (id.clone(), kind);
            if self.tasks.contains_key(&key) {
                continue;
            }
            let ip = runtime.ready_sandbox().and_then(runtime::Sandbox::ip);
            let target = Target {
                id,
                container: Arc::new(container.spec.clone()),
                ip: ip.unwrap_or(shared.config.node_ip),
                user_agent: shared.probe_agent(),
            };
            let assignment =
                Assignment { kind, probe: Probe::clone(probe), started, last: results.get(&target.id, kind) };
            let task = spawn(shared, desired, target, assignment, &self.counts, mailbox);
            self.tasks.insert(key, task);
        }
    }

    /// Asks for an attempt of the container's readiness probe now.
    pub(super) fn again(&self, id: &str) {
        if let Some(task) = self.tasks.get(&(id.to_owned(), ProbeKind::Readiness)) {
            task.again.notify_one();
        }
    }
}

fn spawn(
    shared: &Arc<Shared>,
    desired: &Arc<DesiredPod>,
    target: Target,
    assignment: Assignment,
    counts: &Arc<PodProbeCounts>,
    mailbox: &Mailbox<Message>,
) -> Task {
    let again = Arc::new(Notify::new());
    let (shared, desired, mailbox) = (Arc::clone(shared), Arc::clone(desired), mailbox.clone());
    let counts = Arc::clone(counts);
    let notified = Arc::clone(&again);
    let kind = assignment.kind;
    let handle = tokio::spawn(async move {
        let (probe, timeout) = (assignment.probe.clone(), assignment.timeout());
        let attempt = || {
            probes::unfrozen(shared.config.frozen.clone(), || {
                probes::attempt(&shared.runtime, &target, &probe, timeout)
            })
        };
        let name = target.container.name.as_str();
        let tell = |reason: &'static str, message: String| {
            shared.reporter.pod_warning(&desired, Some(name), reason, &message);
        };
        let verdict = |success| {
            mailbox.send(Message::Verdict { id: target.id.clone(), kind, success });
        };
        let count = |result: &probes::AttemptResult| counts.count(name, kind, result);
        probes::run(assignment, &notified, attempt, count, tell, verdict).await;
        // The duty is done; the task stays in the table, so that it is not begun again.
        std::future::pending::<()>().await;
    });
    Task { handle, again }
}
