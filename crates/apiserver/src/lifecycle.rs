//! The end of the server: what runs beyond a request is told when to end, and waited for.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Whether the server is stopping, and what has to end before it has. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Lifecycle {
    /// Cancelled when watches and streams are to end.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when what has not ended is dropped.
    pub(crate) killed: CancellationToken,
    /// Connections and streams.
    pub(crate) tasks: TaskTracker,
}

impl Lifecycle {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Runs a task that is dropped when the server stops.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stopping.cancelled() => {}
            }
        });
    }
}
