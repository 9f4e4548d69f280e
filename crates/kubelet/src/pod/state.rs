//! The state of a pod's worker between two plans: work under way, failures and back-offs.
//!
//! None of it is needed to be right after a restart: it is rebuilt from the runtime, or counted from anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::backoff::BackOff;

/// Why a container does not run, as its status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// CamelCase reason: `ErrImagePull`, `CreateContainerConfigError`.
    pub(crate) reason: String,
    /// Sentence for people; may be empty.
    pub(crate) message: String,
}

/// A piece of work that is done once for its inputs, and again when they have changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Step<T = ()> {
    /// Not begun.
    #[default]
    Idle,
    /// Under way.
    Busy,
    /// Under way, with inputs that have changed since: whatever comes of it, it is begun again.
    Outdated,
    /// Done, with this result.
    Done(T),
    /// Failed; to be tried again at this time.
    Failed(Timestamp),
}

/// What happens to a [`Step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StepEvent<T = ()> {
    /// The work has begun.
    Begun,
    /// What the work is done from has changed, or may have.
    InputsChanged,
    /// The work has succeeded, with this result.
    Succeeded(T),
    /// The work has failed; it need not be tried again before this time.
    Failed(Timestamp),
    /// The work was called off, or its result is not to be kept.
    Abandoned,
}

impl<T> Step<T> {
    /// The one transition function. Work under way is never begun a second time beside itself, and a change that comes
    /// meanwhile is never lost: the work reads its inputs early and ends late.
    pub(crate) fn apply(&mut self, event: StepEvent<T>) {
        *self = match (&*self, event) {
            (_, StepEvent::Begun) => Self::Busy,
            (Self::Busy | Self::Outdated, StepEvent::InputsChanged) => Self::Outdated,
            (_, StepEvent::InputsChanged | StepEvent::Abandoned) => Self::Idle,
            (Self::Outdated, StepEvent::Succeeded(_) | StepEvent::Failed(_)) => Self::Idle,
            (_, StepEvent::Succeeded(result)) => Self::Done(result),
            (_, StepEvent::Failed(until)) => Self::Failed(until),
        };
    }

    /// Whether it is under way.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Self::Busy | Self::Outdated)
    }

    /// Whether it is done.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }

    /// Whether it may be begun at `now`.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        match self {
            Self::Idle => true,
            Self::Busy | Self::Outdated | Self::Done(_) => false,
            Self::Failed(until) => *until <= now,
        }
    }

    /// When it may be begun, if that is later than `now`.
    pub(crate) fn wake_at(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Failed(until) => Some(*until).filter(|until| *until > now),
            _ => None,
        }
    }
}

/// What was tried for one container of the specification, and when it is tried again.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct RetryState {
    /// Its image is present, with this id. Asked again for every start.
    pub(crate) image: Step<String>,
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

/// The state of a pod's worker.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PodState {
    /// When the pod was first seen here: `status.startTime`.
    pub(crate) start_time: Option<Timestamp>,
    /// The volumes are in place, as the API's objects are now.
    pub(crate) volumes: Step,
    /// The volumes have been in place once. One that cannot be brought up to date keeps what it has, and containers are
    /// restarted with that.
    pub(crate) mounted: bool,
    /// The newest sandbox is being made.
    pub(crate) sandbox: Step,
    /// By name of container.
    pub(crate) containers: BTreeMap<String, RetryState>,
    /// By container id.
    pub(crate) stopping: BTreeMap<String, Stopping>,
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
    /// `activeDeadlineSeconds` was exceeded and people were told: the pod has failed for good.
    pub(crate) deadline_exceeded: bool,
}

impl PodState {
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
            let reason = container.waiting.as_ref().map(|waiting| waiting.reason.as_str());
            if container.start.is_busy() || reason == Some("CreateContainerConfigError") {
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
            Step::Failed(_) | Step::Outdated => self.mounted,
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
    use super::*;
    use crate::testing::at;

    #[test]
    fn steps() {
        use StepEvent::{Abandoned, Begun, Failed, InputsChanged, Succeeded};
        let check = |events: &[StepEvent], expect: Step| {
            let mut step = Step::Idle;
            events.iter().for_each(|event| step.apply(event.clone()));
            assert_eq!(step, expect, "{events:?}");
        };
        check(&[Begun], Step::Busy);
        check(&[Begun, Succeeded(())], Step::Done(()));
        check(&[Begun, Failed(at(9))], Step::Failed(at(9)));
        check(&[Begun, Abandoned], Step::Idle);
        // What has ended is begun again for new inputs, at once.
        check(&[Begun, Succeeded(()), InputsChanged], Step::Idle);
        check(&[Begun, Failed(at(9)), InputsChanged], Step::Idle);
        // What is under way is not begun twice, and ends as if it had not been done.
        check(&[Begun, InputsChanged, InputsChanged], Step::Outdated);
        for end in [Succeeded(()), Failed(at(9)), Abandoned] {
            check(&[Begun, InputsChanged, end.clone()], Step::Idle);
            check(&[Begun, InputsChanged, end, Begun, Succeeded(())], Step::Done(()));
        }
        assert!(Step::<()>::Outdated.is_busy() && !Step::<()>::Outdated.is_due(at(1_000_000)));
    }

    #[test]
    fn a_change_of_what_a_pod_refers_to() {
        let container = |start: Step, reason: &str| RetryState {
            start,
            waiting: Some(Waiting { reason: reason.to_owned(), message: String::new() }),
            ..RetryState::default()
        };
        for (start, reason, expect) in [
            (Step::Failed(at(9)), "CreateContainerConfigError", Step::Idle),
            // It may be failing just now for want of what has come meanwhile.
            (Step::Busy, "", Step::Outdated),
            // Nothing that the API could mend.
            (Step::Failed(at(9)), "RunContainerError", Step::Failed(at(9))),
        ] {
            let mut state = PodState { volumes: Step::Busy, ..PodState::default() };
            state.containers.insert("a".to_owned(), container(start, reason));
            state.inputs_changed();
            assert_eq!((&state.volumes, &state.containers["a"].start), (&Step::Outdated, &expect), "{reason}");
        }
    }
}
