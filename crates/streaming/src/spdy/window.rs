//! Flow control of what we send.
//!
//! The SPDY library inside of kubectl neither honours nor grants windows: taken literally, every output would stop after
//! 64 KiB. So a window counts from the start, but it holds only once the peer has shown that it grants windows, by an update
//! or by a setting. Towards a peer that does not, TCP does the holding back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::sync::Notify;

/// What SPDY/3.1 grants at the start.
pub(crate) const INITIAL: i64 = 64 * 1024;
/// No peer can grant more than this.
const MOST: i64 = i32::MAX as i64;

/// The window of a stream, or of the connection as a whole. One task takes, another one grants.
#[derive(Debug)]
pub(crate) struct Window {
    holds: Arc<AtomicBool>,
    credit: AtomicI64,
    granted: Notify,
}

impl Window {
    pub(crate) fn new(holds: Arc<AtomicBool>, initial: i64) -> Self {
        Self { holds, credit: AtomicI64::new(initial), granted: Notify::new() }
    }

    /// Lets more be sent, or less after a setting.
    pub(crate) fn grant(&self, delta: i64) {
        self.credit.fetch_add(delta, Ordering::AcqRel);
        self.credit.fetch_min(MOST, Ordering::AcqRel);
        self.granted.notify_one();
    }

    /// Waits until something may be sent, and takes up to `wanted` of it.
    pub(crate) async fn take(&self, wanted: usize) -> usize {
        loop {
            // Armed before the look, so that a grant in between is not missed.
            let granted = self.granted.notified();
            let allowed = if self.holds.load(Ordering::Acquire) {
                usize::try_from(self.credit.load(Ordering::Acquire)).unwrap_or(0).min(wanted)
            } else {
                wanted
            };
            if allowed > 0 {
                self.credit.fetch_sub(allowed as i64, Ordering::AcqRel);
                return allowed;
            }
            granted.await;
        }
    }

    /// Gives back what was taken and not used.
    pub(crate) fn put_back(&self, unused: usize) {
        if unused > 0 {
            self.grant(unused as i64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn holds_only_when_the_peer_grants() {
        let holds = Arc::new(AtomicBool::new(false));
        let window = Arc::new(Window::new(holds.clone(), 10));
        assert_eq!(window.take(25).await, 25);
        holds.store(true, Ordering::Release);
        let waiting = tokio::spawn({
            let window = window.clone();
            async move { window.take(100).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        window.grant(5);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "the debt comes first");
        window.grant(30);
        assert_eq!(waiting.await.unwrap(), 20);
        window.put_back(3);
        assert_eq!(window.take(9).await, 3);
        window.grant(i64::from(u32::MAX));
        assert_eq!(window.take(usize::MAX).await as i64, MOST);
    }
}
