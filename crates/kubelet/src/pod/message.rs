//! What a worker is told, and what it shows.

use std::sync::Arc;

use informer::Cause;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use crate::mailbox::Keyed;
use crate::probes::ProbeKind;
use crate::types::desired::DesiredPod;
use crate::types::failure::Failure;
use crate::types::observed::Observed;

/// A message to the worker of a pod.
#[derive(Debug)]
pub(crate) enum Message {
    /// The API's pod changed.
    Updated(Arc<Pod>, Cause),
    /// The API's pod is gone.
    Gone(Cause),
    /// The runtime's state changed.
    Runtime,
    /// An object that the pod refers to changed.
    Objects(Cause),
    /// The node has failed the pod.
    Fail(Failure),
    /// The disk is full: containers that nobody needs are to be removed.
    Reclaim,
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

impl Message {
    /// The message as the cause of a sync.
    pub(crate) fn cause(&self) -> Cause {
        match self {
            Self::Updated(_, cause) | Self::Gone(cause) | Self::Objects(cause) => cause.clone(),
            Self::Runtime => Cause::new("a change in the runtime"),
            Self::Fail(_) => Cause::new("the node that fails the pod"),
            Self::Reclaim => Cause::new("a full disk"),
            Self::Verdict { kind, success, .. } => Cause::new(match (kind, success) {
                (ProbeKind::Startup, true) => "a startup probe that succeeded",
                (ProbeKind::Startup, false) => "a startup probe that failed",
                (ProbeKind::Liveness, true) => "a liveness probe that succeeded",
                (ProbeKind::Liveness, false) => "a liveness probe that failed",
                (ProbeKind::Readiness, true) => "a readiness probe that succeeded",
                (ProbeKind::Readiness, false) => "a readiness probe that failed",
            }),
        }
    }
}

/// What a message is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// The API's pod.
    Pod,
    /// That it is gone.
    Gone,
    /// The runtime's state.
    Runtime,
    /// The objects that the pod refers to.
    Objects,
    /// That the node has failed it.
    Failure,
    /// That the disk is full.
    Disk,
    /// The probe of the container with this id.
    Probe(String, ProbeKind),
}

impl Keyed for Message {
    type Subject = Subject;

    fn subject(&self) -> Subject {
        match self {
            Self::Updated(..) => Subject::Pod,
            Self::Gone(_) => Subject::Gone,
            Self::Runtime => Subject::Runtime,
            Self::Objects(_) => Subject::Objects,
            Self::Fail(_) => Subject::Failure,
            Self::Reclaim => Subject::Disk,
            Self::Verdict { id, kind, .. } => Subject::Probe(id.clone(), *kind),
        }
    }
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
    /// Whether it is being ended, or has ended, whatever the API knows of it.
    pub(crate) ending: bool,
    /// Whether its volumes have been taken away.
    pub(crate) torn_down: bool,
}
