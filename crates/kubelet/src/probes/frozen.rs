//! Probes of containers whose processes are held for a moment.

use tokio::sync::watch;

use super::AttemptResult;

/// Makes an attempt that counts: not while the processes are held, and again when they were in between. A container that
/// cannot answer is not unwell.
pub(crate) async fn unfrozen<F: Future<Output = AttemptResult>>(
    frozen: Option<watch::Receiver<bool>>,
    attempt: impl Fn() -> F,
) -> AttemptResult {
    let Some(mut frozen) = frozen else { return attempt().await };
    loop {
        // Nobody is left to tell when the cluster ends, and then nothing is held.
        let _ = frozen.wait_for(|frozen| !frozen).await;
        let outcome = attempt().await;
        // A change that was taken back counts as one.
        if !frozen.has_changed().unwrap_or_default() {
            return outcome;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_found_of_held_processes_does_not_count() {
        let (tell, frozen) = watch::channel(true);
        let made = AtomicUsize::new(0);
        let attempt = async || match made.fetch_add(1, Ordering::Relaxed) {
            // They are held and let go while the first attempt is made, which fails by it.
            0 => {
                tell.send_replace(true);
                tell.send_replace(false);
                AttemptResult::Failure("timeout".to_owned())
            }
            _ => AttemptResult::Success,
        };
        let probing = unfrozen(Some(frozen.clone()), &attempt);
        let thawing = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(made.load(Ordering::Relaxed), 0, "no attempt while they are held");
            tell.send_replace(false);
        };
        assert_eq!(tokio::join!(probing, thawing).0, AttemptResult::Success);
        assert_eq!(made.load(Ordering::Relaxed), 2);
        let unwell = || async { AttemptResult::Failure("unwell".to_owned()) };
        assert_eq!(unfrozen(Some(frozen.clone()), unwell).await, unwell().await);
        drop(tell);
        assert_eq!(unfrozen(Some(frozen), unwell).await, unwell().await);
        assert_eq!(unfrozen(None, unwell).await, unwell().await);
    }
}
