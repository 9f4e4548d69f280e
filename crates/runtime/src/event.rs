//! What happens to sandboxes and containers.

use jiff::Timestamp;

use crate::PodIdentity;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It started.
    Started,
    /// Its main process ended.
    Died {
        /// Exit code; 128 + N when ended by signal N.
        exit_code: i32,
    },
    /// A process of it was killed because memory was short.
    OutOfMemory,
    /// It was removed.
    Removed,
}

/// Something happened to a sandbox or a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Event {
    /// Id of the sandbox or container.
    pub id: String,
    /// Name of the container in the pod's specification; `None` for a sandbox.
    pub container: Option<String>,
    /// The pod it belongs to.
    pub pod: PodIdentity,
    /// What happened.
    pub kind: EventKind,
    /// When.
    pub time: Timestamp,
}
