//! What can go wrong in a runtime, told apart as far as a kubelet acts differently.

/// An error of a [`Runtime`](crate::Runtime). The texts are shown to users in events and container states.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The sandbox or container does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The runtime cannot be reached; the text says what to do.
    #[error("{0}")]
    Unavailable(String),
    /// The image is not present on this machine.
    #[error("No such image: {image}")]
    ImageNotFound {
        /// The reference that was asked for.
        image: String,
    },
    /// The image could not be pulled. Upstream's waiting reason is `ErrImagePull`.
    #[error("{message}")]
    PullFailed {
        /// The reference that was asked for.
        image: String,
        /// The runtime's or the registry's words.
        message: String,
    },
    /// The registry that keeps the image cannot be reached at all (no route, no name, no answer).
    /// Upstream's waiting reason is `ErrImagePull` too; told apart because a local image may then serve instead.
    #[error("{message}")]
    RegistryUnavailable {
        /// The reference that was asked for.
        image: String,
        /// The runtime's words.
        message: String,
    },
    /// The image reference cannot be parsed. Upstream's waiting reason is `InvalidImageName`.
    #[error("couldn't parse image name \"{image}\": {message}")]
    InvalidImageName {
        /// The reference that was asked for.
        image: String,
        /// What is wrong with it.
        message: String,
    },
    /// The container could not be started: its program is missing, a mount is refused, a host port is taken.
    /// Its reason is `ContainerCannotRun`, as that of dockershim was.
    #[error("{message}")]
    StartFailed {
        /// 127 when the program does not exist, 126 when it may not be executed, else 128.
        exit_code: i32,
        /// The runtime's words.
        message: String,
    },
    /// A name is taken, or the state does not allow the request.
    #[error("{0}")]
    Conflict(String),
    /// The request is malformed: a value the runtime refuses whatever the state.
    #[error("{0}")]
    Invalid(String),
    /// It took longer than allowed.
    #[error("{0}")]
    Timeout(String),
    /// Anything else, in the runtime's words.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// Whether the object is known not to exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }

    /// Whether the runtime itself is out of reach, so that nothing is known about the object.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
