//! What a pod's worker remembers between two plans: work under way, failures and back-offs.
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

/// One piece of work that must be done once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Step<T = ()> {
    /// Not begun.
    #[default]
    Idle,
    /// Under way.
    Busy,
    /// Done, with this result.
    Done(T),
    /// Failed; to be tried again at this time.
    Failed(Timestamp),
}

impl<T> Step<T> {
    /// Whether it is under way.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Self::Busy)
    }

    /// Whether it is done.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }

    /// Whether it may be begun at `now`.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        match self {
            Self::Idle => true,
            Self::Busy | Self::Done(_) => false,
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

/// What is remembered of one container of the specification.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ContainerMemory {
    /// Its image is present, with this id. Asked again for every start.
    pub(crate) image: Step<String>,
    /// Creating and starting it, post-start hook included.
    pub(crate) start: Step,
    /// Back-off of its crashes.
    pub(crate) crashes: BackOff,
    /// Back-off of its image's failed pulls.
    pub(crate) pulls: BackOff,
    /// Why the last attempt failed or the next one waits; none after a start that succeeded.
    pub(crate) trouble: Option<Waiting>,
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
    pub(crate) retry: Option<Timestamp>,
}

/// What a worker remembers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Memory {
    /// When the pod was first seen here: `status.startTime`.
    pub(crate) start_time: Option<Timestamp>,
    /// The volumes are in place.
    pub(crate) volumes: Step,
    /// The newest sandbox is being made.
    pub(crate) sandbox: Step,
    /// By name of container.
    pub(crate) containers: BTreeMap<String, ContainerMemory>,
    /// By container id.
    pub(crate) stopping: BTreeMap<String, Stopping>,
    /// Ids of sandboxes and containers that are being stopped or removed.
    pub(crate) busy: BTreeSet<String>,
    /// Failed removals by id: when to try again.
    pub(crate) retry: BTreeMap<String, Timestamp>,
    /// The volumes are taken away.
    pub(crate) torn_down: Step,
    /// The final status is written and the API's object deleted.
    pub(crate) released: Step,
    /// `activeDeadlineSeconds` was exceeded and people were told: the pod has failed for good.
    pub(crate) deadline_exceeded: bool,
}

impl Memory {
    /// What is remembered of container `name`.
    pub(crate) fn container(&self, name: &str) -> Option<&ContainerMemory> {
        self.containers.get(name)
    }

    /// The same, to write to.
    pub(crate) fn container_mut(&mut self, name: &str) -> &mut ContainerMemory {
        self.containers.entry(name.to_owned()).or_default()
    }

    /// Whether a sandbox or container is being made, so that more may run than the runtime shows.
    pub(crate) fn making(&self) -> bool {
        self.sandbox.is_busy() || self.containers.values().any(|container| container.start.is_busy())
    }
}
