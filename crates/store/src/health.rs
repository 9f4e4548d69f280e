//! Whether the store takes writes, and if not, why.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Whether a store takes writes. It reads and serves watches in every state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It takes all writes.
    Healthy,
    /// The disk is full, for the given reason. Only transactions that may use the reserve are taken, until there is space
    /// again: what etcd does while its `NOSPACE` alarm is on.
    DiskFull(Arc<str>),
    /// A write failed, for the given reason. No writes are taken until the database could be opened again.
    ReadOnly(Arc<str>),
}

impl Health {
    /// Whether no writes are taken at all.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self, Self::ReadOnly(_))
    }

    /// Logs why a store takes fewer writes than all, or none.
    pub(crate) fn log(&self) {
        match self {
            Self::Healthy => {}
            Self::DiskFull(why) => tracing::error!(%why, "the store takes only deletes until there is space"),
            Self::ReadOnly(why) => tracing::error!(%why, "the store takes no writes until it can write again"),
        }
    }
}

/// The state of a store, as the writer asks for it at every commit and as others wait for it.
pub(crate) struct HealthState {
    sender: watch::Sender<Health>,
    /// Whether it is anything but [`Health::Healthy`]: one load at each commit.
    impaired: AtomicBool,
}

impl HealthState {
    pub(crate) fn new(health: Health) -> Self {
        let impaired = AtomicBool::new(health != Health::Healthy);
        Self { sender: watch::Sender::new(health), impaired }
    }

    pub(crate) fn get(&self) -> Health {
        self.sender.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Health> {
        self.sender.subscribe()
    }

    /// Whether some writes are refused.
    pub(crate) fn is_impaired(&self) -> bool {
        self.impaired.load(Ordering::Acquire)
    }

    /// Enters a state, and logs it when it is another one.
    pub(crate) fn set(&self, health: Health) {
        let was = self.get();
        // Before the reason is there, a commit that sees the flag already would find the state healthy, and go on.
        self.sender.send_if_modified(|known| {
            let changed = *known != health;
            known.clone_from(&health);
            changed
        });
        self.impaired.store(health != Health::Healthy, Ordering::Release);
        match (&was, &health) {
            (Health::DiskFull(_), Health::DiskFull(_)) => {}
            (Health::ReadOnly(before), Health::ReadOnly(why)) if before == why => {}
            (Health::Healthy, Health::Healthy) => {}
            (_, Health::Healthy) => tracing::info!("the store takes writes again"),
            _ => health.log(),
        }
    }
}
