//! Writes of large objects, where they hold up nobody: to read, check and write a megabyte of JSON takes a processor for a
//! tenth of a second, and a dozen of them at once would take all.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::Semaphore;
use tokio_util::sync::PollSemaphore;

/// From how many bytes on a body, or the object that it is to change, is large.
pub(super) const LARGE: usize = 128 * 1024;

/// The turns of the writes of large objects, of which one works at a time. Nobody keeps the turn while it waits for something:
/// each stretch of work has its own.
pub(crate) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Turns {
    /// Does the work of a write of a large object.
    pub(super) fn work<F: Future>(&self, work: F) -> Apart<F> {
        Apart { turns: PollSemaphore::new(Arc::clone(&self.0)), work: Box::pin(work) }
    }
}

/// Work each stretch of which waits for its turn, and is done on a worker of the runtime that lets go of its other work.
pub(super) struct Apart<F> {
    turns: PollSemaphore,
    work: Pin<Box<F>>,
}

impl<F: Future> Future for Apart<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Nobody closes the semaphore, which would be the only reason for no turn to come.
        let _turn = ready!(self.turns.poll_acquire(context));
        registry::compute(|| self.work.as_mut().poll(context))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_works_at_a_time_and_nobody_waits_for_who_waits() {
        let (turns, working) = (Arc::new(Turns::default()), Arc::new(AtomicUsize::new(0)));
        let waiting = tokio::spawn(turns.work(std::future::pending::<()>()));
        let tasks = (0..8).map(|_| {
            let working = Arc::clone(&working);
            let work = async move {
                for _ in 0..5 {
                    assert_eq!(working.fetch_add(1, SeqCst), 0, "alone");
                    std::thread::sleep(Duration::from_millis(1));
                    working.fetch_sub(1, SeqCst);
                    tokio::task::yield_now().await;
                }
            };
            tokio::spawn(turns.work(work))
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("no panic");
        }
        waiting.abort();
    }
}
