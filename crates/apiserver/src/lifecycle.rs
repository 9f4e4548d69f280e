//! The end of the server, and of requests: what runs beyond a request is told when to end, and waited for; what does not last
//! ends in time.

use std::cell::Cell;
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
    /// The lifecycle of a part, which ends with this one at the latest and can be waited for on its own.
    pub(crate) fn child(&self) -> Self {
        Self { stopping: self.stopping.child_token(), killed: self.killed.child_token(), tasks: TaskTracker::new() }
    }

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

tokio::task_local! {
    /// Whether what is answered on this connection or stream lasts as long as its client likes.
    static LASTS: Cell<bool>;
}

/// Runs a connection or a stream, whose requests may say that they last.
pub(crate) async fn exchange<T>(answered: impl Future<Output = T>) -> T {
    LASTS.scope(Cell::new(false), answered).await
}

/// Says whether the request that is being answered lasts. Where nobody waits for its end, nobody has to know.
pub(crate) fn set_lasts(lasts: bool) {
    let _ = LASTS.try_with(|of_this| of_this.set(lasts));
}

/// Whether this is a connection or stream of HTTP, and not what one has been upgraded to.
pub(crate) fn in_exchange() -> bool {
    LASTS.try_with(|_| ()).is_ok()
}

/// Whether the request that is being answered lasts; what runs apart from any does.
pub(crate) fn lasts() -> bool {
    LASTS.try_with(Cell::get).unwrap_or(true)
}
