//! Why a container does not run, as its status shows it.

use std::fmt;

/// The reason of a waiting state (upstream: `pkg/kubelet/container/sync_result.go`, `pkg/kubelet/images/types.go`,
/// `pkg/kubelet/kuberuntime/kuberuntime_container.go`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitingReason {
    /// Its image, its sandbox or the container itself is being made.
    ContainerCreating,
    /// Init containers go first.
    PodInitializing,
    /// It ended, and is started again after a back-off.
    CrashLoopBackOff,
    /// Its image could not be pulled.
    ErrImagePull,
    /// Its image could not be pulled, and is pulled again after a back-off.
    ImagePullBackOff,
    /// Its image is not there, and must not be pulled.
    ErrImageNeverPull,
    /// The runtime cannot tell whether its image is there.
    ImageInspectError,
    /// The name of its image is none.
    InvalidImageName,
    /// What it is to be made from is wrong or missing.
    CreateContainerConfigError,
    /// The runtime did not create it.
    CreateContainerError,
    /// The runtime did not start it.
    RunContainerError,
    /// Its post-start hook failed.
    PostStartHookError,
}

impl WaitingReason {
    const ALL: [Self; 12] = [
        Self::ContainerCreating,
        Self::PodInitializing,
        Self::CrashLoopBackOff,
        Self::ErrImagePull,
        Self::ImagePullBackOff,
        Self::ErrImageNeverPull,
        Self::ImageInspectError,
        Self::InvalidImageName,
        Self::CreateContainerConfigError,
        Self::CreateContainerError,
        Self::RunContainerError,
        Self::PostStartHookError,
    ];

    /// The reason with this name; none for any other text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// The value of the field `reason`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ContainerCreating => "ContainerCreating",
            Self::PodInitializing => "PodInitializing",
            Self::CrashLoopBackOff => "CrashLoopBackOff",
            Self::ErrImagePull => "ErrImagePull",
            Self::ImagePullBackOff => "ImagePullBackOff",
            Self::ErrImageNeverPull => "ErrImageNeverPull",
            Self::ImageInspectError => "ImageInspectError",
            Self::InvalidImageName => "InvalidImageName",
            Self::CreateContainerConfigError => "CreateContainerConfigError",
            Self::CreateContainerError => "CreateContainerError",
            Self::RunContainerError => "RunContainerError",
            Self::PostStartHookError => "PostStartHookError",
        }
    }
}

impl fmt::Display for WaitingReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a container does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// The reason, for programs.
    pub(crate) reason: WaitingReason,
    /// A sentence for people; may be empty.
    pub(crate) message: String,
}

impl Waiting {
    /// A container that waits for this reason.
    pub(crate) fn new(reason: WaitingReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_their_names() {
        for reason in WaitingReason::ALL {
            assert_eq!(WaitingReason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(WaitingReason::parse("Completed"), None);
    }
}
