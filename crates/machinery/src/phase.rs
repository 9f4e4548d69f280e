//! The phase of a pod and the status of a condition: the few values that fields of the type string have.

use std::fmt;

use k8s_openapi::api::core::v1::Pod;

/// The phase of a pod (upstream: `PodPhase` in `staging/src/k8s.io/api/core/v1/types.go`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PodPhase {
    /// Accepted, but not all of its containers have been started.
    Pending,
    /// Bound to a node, with at least one container that runs or is about to.
    Running,
    /// All containers have ended with success, and none is started again.
    Succeeded,
    /// All containers have ended, one of them with a failure.
    Failed,
    /// The node that runs it is out of reach.
    Unknown,
}

impl PodPhase {
    const ALL: [Self; 5] = [Self::Pending, Self::Running, Self::Succeeded, Self::Failed, Self::Unknown];

    /// The value of the field `status.phase`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Unknown => "Unknown",
        }
    }

    /// The phase with this name; none for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == text)
    }

    /// The phase that the status of `pod` tells.
    pub fn of(pod: &Pod) -> Option<Self> {
        Self::parse(pod.status.as_ref()?.phase.as_deref()?)
    }

    /// Whether the pod has ended: it never leaves this phase.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

impl fmt::Display for PodPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The status of a condition (upstream: `ConditionStatus` in `staging/src/k8s.io/api/core/v1/types.go`). Compares with the
/// text of the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    /// The condition holds.
    True,
    /// It does not.
    False,
    /// Nobody can tell.
    Unknown,
}

impl ConditionStatus {
    /// The value of the field `status` of a condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl PartialEq<ConditionStatus> for String {
    fn eq(&self, other: &ConditionStatus) -> bool {
        self == other.as_str()
    }
}

impl fmt::Display for ConditionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_their_names() {
        for phase in PodPhase::ALL {
            assert_eq!(PodPhase::parse(phase.as_str()), Some(phase));
        }
        assert_eq!(PodPhase::parse("running"), None);
        assert!("False".to_owned() == ConditionStatus::from(false));
    }
}
