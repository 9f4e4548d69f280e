//! The one place that every reconcile passes: it runs the workers of a queue, and says of each reconcile what woke it,
//! what it wrote, and how it ended.

use std::cell::RefCell;
use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, warn};

use crate::WorkQueue;
use crate::queue::Work;
use crate::reconciles::{Ending, ReconcileReporter, Trace, Write};

/// What a reconcile of a key asks of its queue: the `Action` of `kube::runtime::controller`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Reconcile again when something changes.
    AwaitChange,
    /// Reconcile again after this time, even if nothing changes.
    RequeueAfter(Duration),
}

impl Action {
    /// The same action, with the reason why the reconcile did not do more: who reads the trace sees it.
    #[must_use]
    pub fn because(self, reason: &'static str) -> Self {
        // Outside of a runner nobody reads it.
        let _ = TRACE.try_with(|trace| trace.borrow_mut().reason = Some(reason.into()));
        self
    }
}

impl From<Option<Duration>> for Action {
    fn from(delay: Option<Duration>) -> Self {
        delay.map_or(Self::AwaitChange, Self::RequeueAfter)
    }
}

tokio::task_local! {
    static TRACE: RefCell<Trace>;
}

/// Notes a write of the reconcile that is running; nothing outside of one. `write` is called only where it is kept.
pub fn record_write(write: impl FnOnce() -> Write) {
    // It fails outside of a reconcile: then nobody asks.
    let _ = TRACE.try_with(|trace| trace.borrow_mut().write(write));
}

/// Works off `queue` with as many `workers`, until `cancel` is triggered; then lets the reconciles under way end.
///
/// A reconcile that fails or panics is logged and tried again after a back-off; it harms no other key.
pub async fn run<K, E, F, R>(queue: WorkQueue<K>, workers: usize, cancel: CancellationToken, reconcile: R)
where
    K: Clone + Eq + Hash + Display + Send + Sync + 'static,
    E: Display,
    F: Future<Output = Result<Action, E>> + Send,
    R: Fn(K) -> F + Send + Sync,
{
    let worker = || async {
        loop {
            let work = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                work = queue.next() => work,
            };
            reconcile_one(&queue, work, &reconcile).await;
        }
    };
    futures::future::join_all((0..workers.max(1)).map(|_| worker())).await;
}

async fn reconcile_one<K, E, F>(queue: &WorkQueue<K>, work: Work<K>, reconcile: impl Fn(K) -> F)
where
    K: Clone + Eq + Hash + Display,
    E: Display,
    F: Future<Output = Result<Action, E>>,
{
    let Work { key, causes, step } = work;
    let mut running = ReconcileReporter::new(Arc::clone(queue.stats())).begin(&key, &causes);
    running.set_step(step);
    let (result, trace) = TRACE
        .scope(RefCell::default(), async {
            let result = AssertUnwindSafe(reconcile(key.clone())).catch_unwind().await;
            (result, TRACE.with(RefCell::take))
        })
        .instrument(running.span().clone())
        .await;
    running.set_trace(trace);
    let ending = running.span().in_scope(|| match result {
        Ok(Ok(action)) => {
            queue.done(key, action);
            Ending::from(action)
        }
        Ok(Err(error)) => {
            let requeue_after = queue.failed(key);
            warn!(%error, ?requeue_after, "reconcile failed");
            Ending::failed(&error)
        }
        Err(_) => {
            let requeue_after = queue.failed(key);
            error!(?requeue_after, "reconcile panicked");
            Ending::Panicked
        }
    });
    running.end(ending, &[]);
}

#[cfg(test)]
mod tests;
