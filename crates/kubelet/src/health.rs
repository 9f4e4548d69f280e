//! Whether the runtime can do its work: what a node is Ready for, and what pods' workers wait for.
//!
//! Two look after it: whoever follows the runtime's events and lists it (upstream: the PLEG), and a check every few seconds
//! (upstream: `updateRuntimeUp` in `pkg/kubelet/kubelet.go`).

use std::convert::Infallible;
use std::time::Duration;

use parking_lot::Mutex;
use runtime::{Error, Runtime, RuntimeStatus};
use tokio::sync::watch;

/// How the runtime is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// Not asked yet.
    Unknown,
    /// It answers, and has been listed.
    Well,
    /// It answers, but what it was asked to start or stop does not come back, for this reason. Workers go on: that is how
    /// it shows that it recovers.
    Stuck(String),
    /// It is out of reach, or does not answer, for this reason.
    Down(String),
}

impl Health {
    /// Whether there is a point in asking the runtime for anything.
    pub(crate) fn is_usable(&self) -> bool {
        matches!(self, Self::Well | Self::Stuck(_))
    }
}

/// Puts together what is known of the runtime's health.
#[derive(Debug)]
pub(crate) struct Monitor {
    known: Mutex<Known>,
    health: watch::Sender<Health>,
}

#[derive(Debug, Default)]
struct Known {
    /// Whether it could be followed; `None` before the first try.
    followed: Option<Result<(), String>>,
    /// What the last check found.
    checked: Option<Result<RuntimeStatus, String>>,
}

impl Known {
    fn health(&self) -> Health {
        match (&self.followed, &self.checked) {
            (Some(Err(why)), _) | (_, Some(Err(why))) => Health::Down(why.clone()),
            (None, _) => Health::Unknown,
            (Some(Ok(())), Some(Ok(RuntimeStatus { not_ready: Some(why) }))) => Health::Stuck(why.clone()),
            (Some(Ok(())), _) => Health::Well,
        }
    }
}

impl Default for Monitor {
    fn default() -> Self {
        Self { known: Mutex::default(), health: watch::Sender::new(Health::Unknown) }
    }
}

impl Monitor {
    pub(crate) fn subscribe(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// It has been listed.
    pub(crate) fn listed(&self) {
        self.note(|known| known.followed = Some(Ok(())));
    }

    /// It could not be listed, or its events ended.
    pub(crate) fn lost(&self, error: &Error) {
        self.note(|known| known.followed = Some(Err(error.to_string())));
    }

    /// Asks the runtime every `period` how it is; one that has not answered after `timeout` is down until it does. For ever.
    pub(crate) async fn check(&self, runtime: &dyn Runtime, period: Duration, timeout: Duration) -> Infallible {
        loop {
            let mut status = runtime.status();
            let answer = match tokio::time::timeout(timeout, &mut status).await {
                Ok(answer) => answer,
                Err(_) => {
                    let why = format!("it has not answered for {} s", timeout.as_secs_f64());
                    tracing::warn!("the container runtime is down: {why}");
                    self.note(|known| known.checked = Some(Err(why)));
                    // Not asked again before it has answered: questions that pile up do not help it.
                    status.await
                }
            };
            self.note(|known| known.checked = Some(answer.map_err(|error| error.to_string())));
            tokio::time::sleep(period).await;
        }
    }

    fn note(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known.lock();
        change(&mut known);
        let now = known.health();
        self.health.send_if_modified(|health| {
            let changed = *health != now;
            *health = now;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_of_what_is_known_counts() {
        let gone = || Some(Err("gone".to_owned()));
        let well = Some(Ok(RuntimeStatus::default()));
        let stuck = Some(Ok(RuntimeStatus { not_ready: Some("starts hang".to_owned()) }));
        let check = |followed: Option<Result<(), String>>, checked: Option<Result<RuntimeStatus, String>>, expected| {
            let known = Known { followed, checked };
            assert_eq!(known.health(), expected, "{known:?}");
        };
        check(None, None, Health::Unknown);
        check(None, well.clone(), Health::Unknown);
        check(None, Some(Err("silent".to_owned())), Health::Down("silent".to_owned()));
        check(Some(Ok(())), None, Health::Well);
        check(Some(Ok(())), well.clone(), Health::Well);
        check(Some(Ok(())), stuck, Health::Stuck("starts hang".to_owned()));
        check(Some(Ok(())), Some(Err("silent".to_owned())), Health::Down("silent".to_owned()));
        check(gone(), well, Health::Down("gone".to_owned()));
        assert!(Health::Well.is_usable() && Health::Stuck(String::new()).is_usable());
        assert!(!Health::Unknown.is_usable() && !Health::Down(String::new()).is_usable());
    }
}
