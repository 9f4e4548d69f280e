//! Why the node has failed a pod for good.

use std::borrow::Cow;

use jiff::Timestamp;

/// Why the node has failed a pod for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// `status.reason`, and the event's.
    pub(crate) reason: Cow<'static, str>,
    /// A sentence for people.
    pub(crate) message: String,
    /// What was done to it.
    pub(crate) kind: FailureKind,
    /// The API is not told earlier than this, so that whoever replaces the pod does not do so without end.
    pub(crate) not_before: Option<Timestamp>,
}

/// What the node did to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// It was not admitted, and nothing of it was made.
    Rejected,
    /// It was ended to get back what it used.
    Evicted,
}

/// The reason of evictions (upstream: `pkg/kubelet/eviction/helpers.go`).
pub(crate) const EVICTED: &str = "Evicted";

impl Failure {
    /// A pod that is evicted.
    pub(crate) fn evicted(message: String) -> Self {
        Self { reason: EVICTED.into(), message, kind: FailureKind::Evicted, not_before: None }
    }

    /// A pod that is not admitted.
    pub(crate) fn rejected(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), kind: FailureKind::Rejected, not_before: None }
    }

    /// Whether the API is to be told only later than `now`.
    pub(crate) fn is_held_back(&self, now: Timestamp) -> bool {
        self.not_before.is_some_and(|not_before| not_before > now)
    }

    /// `status.message`.
    pub(crate) fn status_message(&self) -> String {
        match self.kind {
            // Upstream: `rejectPod` in `pkg/kubelet/kubelet.go`.
            FailureKind::Rejected => format!("Pod was rejected: {}", self.message),
            FailureKind::Evicted => self.message.clone(),
        }
    }
}
