//! The state of a pod's worker: what should be, what is, work under way, failures and back-offs.
//!
//! It is written by one function, [`StateMachine::apply`](super::transition::StateMachine::apply). None of it is needed to
//! be right after a restart: it is rebuilt from the API and the runtime, or counted from anew.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PodStatus, ResourceRequirements};
use runtime::Image;

use super::resize::Unfinished;
use super::step::{Step, StepEvent};
use crate::backoff::BackOff;
use crate::probes::ProbeResults;
use crate::time::after;
use crate::types::References;
use crate::types::desired::DesiredPod;
use crate::types::failure::{Failure, FailureKind};
use crate::types::observed::Observed;
use crate::types::waiting::{Waiting, WaitingReason};
use crate::volumes::Mounted;

/// How long the containers of an evicted pod have to end (upstream: `immediateEvictionGracePeriodSeconds` in
/// `pkg/kubelet/eviction/eviction_manager.go`).
const EVICTION_GRACE: Duration = Duration::from_secs(1);

/// What was tried for one container of the specification, and when it is tried again.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct RetryState {
    /// Its image is present. Asked again for every start.
    pub(crate) image: Step<Image>,
    /// Creating and starting it, post-start hook included.
    pub(crate) start: Step,
    /// Back-off of its crashes.
    pub(crate) crashes: BackOff,
    /// Back-off of its image's failed pulls.
    pub(crate) pulls: BackOff,
    /// Why the last attempt failed or the next one waits; none after a start that succeeded.
    pub(crate) waiting: Option<Waiting>,
    /// The ended container for which a back-off was reported last.
    pub(crate) reported: Option<String>,
    /// Whether the back-off of the last failed pull was reported.
    pub(crate) pull_reported: bool,
    /// The resources that its last start was begun with.
    pub(crate) given: Option<ResourceRequirements>,
    /// Giving it what is allocated to it while it runs.
    pub(crate) resize: Step,
    /// Why that was not done.
    pub(crate) unfinished: Option<Unfinished>,
}

/// A running container that is being ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stopping {
    /// Since when.
    pub(crate) since: Timestamp,
    /// How long it may take altogether.
    pub(crate) grace: Duration,
    /// Whether its pre-stop hook is running.
    pub(crate) hook: bool,
    /// Whether the runtime is stopping it, and the whole grace that was counted with.
    pub(crate) stop: Option<Duration>,
    /// When to try again after the runtime failed to stop it.
    pub(crate) retry_at: Option<Timestamp>,
}

/// Whether the API has the status that was computed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatusWrite {
    /// It has, or nobody is left to tell.
    Idle {
        /// After a write that failed: when the next may be tried.
        retry_at: Option<Timestamp>,
    },
    /// It has another one.
    Pending {
        /// Since when.
        since: Timestamp,
        /// After a write that failed: when the next may be tried.
        retry_at: Option<Timestamp>,
    },
    /// It is being told.
    Busy,
}

/// The state of a pod's worker.
#[derive(Debug)]
pub(crate) struct PodState {
    /// What should be.
    pub(crate) desired: Arc<DesiredPod>,
    /// What the runtime has.
    pub(crate) runtime: Arc<Observed>,
    /// What the probes of its containers have found.
    pub(crate) probes: ProbeResults,
    /// When the pod was first seen here: `status.startTime`.
    pub(crate) start_time: Timestamp,
    /// The volumes are in place, as the API's objects are now.
    pub(crate) volumes: Step,
    /// The volumes that have been in place once. One that cannot be brought up to date keeps what it has, and containers are
    /// restarted with that.
    pub(crate) mounted: Option<Mounted>,
    /// How often in a row the volumes could not be put in place.
    pub(super) volume_failures: u32,
    /// What the pod refers to, as it was when the volumes were put in place.
    pub(super) references: References,
    /// When a token must be renewed.
    pub(super) renew_at: Option<Timestamp>,
    /// When everything is looked at again although nobody said that anything changed.
    pub(super) sync_at: Timestamp,
    pub(super) sync_period: Duration,
    /// The newest sandbox is being made.
    pub(crate) sandbox: Step,
    /// How often in a row a sandbox could not be made.
    pub(super) sandbox_failures: u32,
    /// By name of container.
    pub(crate) containers: BTreeMap<String, RetryState>,
    /// By id of an ended container: its termination message.
    pub(super) termination_messages: BTreeMap<String, String>,
    /// By container id.
    pub(crate) stopping: BTreeMap<String, Stopping>,
    /// Ids of containers that end only to be started with other resources.
    pub(crate) restarting: BTreeSet<String>,
    /// Ids of sandboxes and containers that are being stopped or removed.
    pub(crate) busy: BTreeSet<String>,
    /// Failed removals by id: when to try again.
    pub(crate) retry_at: BTreeMap<String, Timestamp>,
    /// By id: how often in a row stopping or removing has failed.
    pub(crate) failed: BTreeMap<String, u32>,
    /// The volumes are taken away.
    pub(crate) torn_down: Step,
    /// The final status is written and the API's object deleted.
    pub(crate) released: Step,
    /// By container id: the resources it was given. Of those that an earlier process made, the API's status tells.
    pub(crate) applied: BTreeMap<String, Option<ResourceRequirements>>,
    /// Allocating other resources to its containers, which is done or refused at once.
    pub(crate) allocation: Step,
    /// Why they are not allocated.
    pub(crate) pending_resize: Option<Unfinished>,
    /// Why the node has failed the pod for good.
    pub(crate) failure: Option<Failure>,
    /// Noting on disk that the pod was evicted, so that the next kubelet knows whatever the API does.
    pub(crate) eviction_noted: Step,
    /// Ids of ended containers that are to go because the disk is full.
    pub(crate) reclaimed: BTreeSet<String>,
    /// `activeDeadlineSeconds` was exceeded and people were told: the pod has failed for good.
    pub(crate) deadline_exceeded: bool,
    /// The status that was computed last.
    pub(super) status: Arc<PodStatus>,
    /// Whether the API has it.
    pub(super) write: StatusWrite,
}

impl PodState {
    /// The state of a worker that begins. All is looked at anew once in `sync_period`, up to half of it later (upstream:
    /// `workerResyncIntervalJitterFactor` in `pkg/kubelet/pod_workers.go`), for each pod another, so that pods which began
    /// together do not stay together.
    pub(crate) fn new(desired: DesiredPod, sync_period: Duration, now: Timestamp) -> Self {
        let mut hasher = DefaultHasher::new();
        desired.identity.uid.hash(&mut hasher);
        let shares = u32::try_from(hasher.finish() % 1000).unwrap_or_default();
        let sync_period = sync_period + sync_period / 2 * shares / 1000;
        let status = desired.status().cloned().unwrap_or_default();
        Self {
            start_time: status.start_time.as_ref().map_or(now, |start| start.0),
            desired: Arc::new(desired),
            runtime: Arc::default(),
            probes: ProbeResults::default(),
            volumes: Step::Idle,
            mounted: None,
            volume_failures: 0,
            references: References::default(),
            renew_at: None,
            sync_at: after(now, sync_period),
            sync_period,
            sandbox: Step::Idle,
            sandbox_failures: 0,
            containers: BTreeMap::new(),
            termination_messages: BTreeMap::new(),
            stopping: BTreeMap::new(),
            restarting: BTreeSet::new(),
            busy: BTreeSet::new(),
            retry_at: BTreeMap::new(),
            failed: BTreeMap::new(),
            torn_down: Step::Idle,
            released: Step::Idle,
            applied: BTreeMap::new(),
            allocation: Step::Idle,
            pending_resize: None,
            failure: None,
            eviction_noted: Step::Idle,
            reclaimed: BTreeSet::new(),
            deadline_exceeded: false,
            status: Arc::new(status),
            write: StatusWrite::Idle { retry_at: None },
        }
    }

    /// Whether the running container `id` is to run a hook before it is stopped.
    pub(super) fn has_pre_stop(&self, id: &str, name: &str) -> bool {
        let spec = self.desired.container(name).map(|container| &container.spec);
        let lifecycle = spec.and_then(|spec| spec.lifecycle.as_ref());
        lifecycle.is_some_and(|lifecycle| lifecycle.pre_stop.is_some())
            && self.runtime.container(id).is_some_and(|container| container.state.is_running())
    }

    /// Whether this kubelet has evicted the pod, or one before it.
    pub(crate) fn is_evicted(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Evicted)
    }

    /// How long containers have to end.
    pub(crate) fn grace(&self) -> Duration {
        let grace = self.desired.grace();
        if self.is_evicted() { grace.min(EVICTION_GRACE) } else { grace }
    }

    /// What was tried for container `name`.
    pub(crate) fn retry(&self, name: &str) -> Option<&RetryState> {
        self.containers.get(name)
    }

    /// The same, to write to.
    pub(crate) fn retry_mut(&mut self, name: &str) -> &mut RetryState {
        self.containers.entry(name.to_owned()).or_default()
    }

    /// Notes that what volumes and environments are made from has changed, or may have: volumes are brought up to date,
    /// and a container is tried again that failed, or is about to fail, for want of an object.
    pub(crate) fn inputs_changed(&mut self) {
        self.volumes.apply(StepEvent::InputsChanged);
        for container in self.containers.values_mut() {
            let reason = container.waiting.as_ref().map(|waiting| waiting.reason);
            if container.start.is_busy() || reason == Some(WaitingReason::CreateContainerConfigError) {
                container.start.apply(StepEvent::InputsChanged);
            }
        }
    }

    /// Whether containers can be made with the volumes. They wait for new contents where that is a matter of moments; but
    /// not where volumes cannot be brought up to date (upstream: what is mounted stays mounted when it cannot be mounted
    /// anew), nor where they change all the time.
    pub(crate) fn volumes_serve(&self) -> bool {
        match self.volumes {
            Step::Done(()) => true,
            Step::Failed(_) | Step::Outdated => self.mounted.is_some(),
            Step::Idle | Step::Busy => false,
        }
    }

    /// How often in a row stopping or removing `id` has failed.
    pub(crate) fn failures(&self, id: &str) -> u32 {
        self.failed.get(id).copied().unwrap_or_default()
    }

    /// Counts a failure to stop or remove `id`; a success ends the row.
    pub(crate) fn note_failure(&mut self, id: &str, failed: bool) {
        match failed {
            true => *self.failed.entry(id.to_owned()).or_default() += 1,
            false => drop(self.failed.remove(id)),
        }
    }

    /// Whether a sandbox or container is being made, so that more may run than the runtime shows.
    pub(crate) fn making(&self) -> bool {
        self.sandbox.is_busy() || self.containers.values().any(|container| container.start.is_busy())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{at, pod, state_of};

    #[test]
    fn a_change_of_what_a_pod_refers_to() {
        let container = |start: Step, reason: WaitingReason| RetryState {
            start,
            waiting: Some(Waiting::new(reason, "")),
            ..RetryState::default()
        };
        for (start, reason, expect) in [
            (Step::Failed(at(9)), WaitingReason::CreateContainerConfigError, Step::Idle),
            // It may be failing just now for want of what has come meanwhile.
            (Step::Busy, WaitingReason::ErrImagePull, Step::Outdated),
            // Nothing that the API could mend.
            (Step::Failed(at(9)), WaitingReason::RunContainerError, Step::Failed(at(9))),
        ] {
            let mut state = state_of(pod(json!({"containers": []})));
            state.volumes = Step::Busy;
            state.containers.insert("a".to_owned(), container(start, reason));
            state.inputs_changed();
            assert_eq!((&state.volumes, &state.containers["a"].start), (&Step::Outdated, &expect), "{reason}");
        }
    }
}
