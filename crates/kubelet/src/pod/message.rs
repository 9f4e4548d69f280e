//! What a worker is told, and what it shows.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::desired::DesiredPod;
use super::observed::Observed;
use crate::mailbox::Coalesce;
use crate::probes::ProbeKind;

/// A message to the worker of a pod.
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

impl Coalesce for Message {
    fn replaces(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::Verdict { id, kind, .. }, Self::Verdict { id: earlier_id, kind: earlier_kind, .. }) => {
                id == earlier_id && kind == earlier_kind
            }
            _ => std::mem::discriminant(self) == std::mem::discriminant(earlier),
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
}
