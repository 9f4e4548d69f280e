//! Why a container's configuration cannot be made.

use crate::types::waiting::WaitingReason;

/// Why a container cannot be asked for. Each is the message of the container's waiting state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// `CreateContainerConfigError`: what the kubelet finds wrong.
    #[error("{0}")]
    Config(String),
    /// `CreateContainerError`: what upstream's runtimes find wrong, when they are asked for the container.
    #[error("{0}")]
    Create(String),
}

impl ConfigError {
    /// The reason of the container's waiting state.
    pub(crate) fn reason(&self) -> WaitingReason {
        match self {
            Self::Config(_) => WaitingReason::CreateContainerConfigError,
            Self::Create(_) => WaitingReason::CreateContainerError,
        }
    }
}

impl From<String> for ConfigError {
    fn from(message: String) -> Self {
        Self::Config(message)
    }
}

impl From<&str> for ConfigError {
    fn from(message: &str) -> Self {
        Self::Config(message.to_owned())
    }
}
