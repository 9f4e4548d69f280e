//! Work that takes seconds, where it holds up nobody: schemas and expressions are compiled when they are written.

use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The turns of the writes that compile, of which one goes on at a time: whoever sends many definitions at once has one
/// processor with them, and not all, and one thread.
pub(crate) struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

impl Turns {
    /// Waits until nobody else compiles. The turn lasts as long as what is returned.
    pub(crate) async fn wait(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes the semaphore, which would be the only error.
        self.0.acquire().await.ok()
    }
}

/// Computes for long on a worker of the runtime, which lets go of its other work ([`tokio::task::block_in_place`]), so that
/// the requests of others go on. On a runtime of one thread, as in tests, it just computes.
pub fn compute<T>(compute: impl FnOnce() -> T) -> T {
    let workers = Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if workers { tokio::task::block_in_place(compute) } else { compute() }
}

/// For how long work that comes in small parts may keep a worker of the runtime from its other work.
const HELD_MAX: Duration = Duration::from_millis(1);

/// Since when a request has kept a worker of the runtime.
pub(crate) struct Pace(Instant);

impl Default for Pace {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Pace {
    /// Lets others go on, between two parts of the work, once that has taken long.
    pub(crate) async fn give_way(&mut self) {
        if self.0.elapsed() >= HELD_MAX {
            tokio::task::yield_now().await;
            self.0 = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn others_go_on_meanwhile() {
        let computed = tokio::spawn(async {
            compute(|| {
                let (sender, other) = mpsc::channel();
                // The only worker is here: without another one this would never run.
                tokio::spawn(async move { sender.send("went on") });
                other.recv()
            })
        });
        assert_eq!(computed.await.expect("no panic"), Ok("went on"));
    }

    #[tokio::test]
    async fn a_runtime_of_one_thread_computes() {
        assert_eq!(compute(|| 1), 1);
    }

    #[tokio::test]
    async fn small_parts_of_work_let_others_go_on() {
        let (sender, mut other) = tokio::sync::oneshot::channel();
        let mut pace = Pace(Instant::now().checked_sub(HELD_MAX).expect("a machine that runs for longer"));
        tokio::spawn(async move { sender.send(()) });
        assert!(other.try_recv().is_err(), "not while it is kept");
        pace.give_way().await;
        assert!(other.try_recv().is_ok());
        assert!(pace.0.elapsed() < HELD_MAX, "from now on anew");
    }

    #[tokio::test]
    async fn one_compiles_at_a_time() {
        let turns = Turns::default();
        let first = turns.wait().await;
        assert!(first.is_some() && turns.0.try_acquire().is_err());
        drop(first);
        assert!(turns.0.try_acquire().is_ok());
    }
}
