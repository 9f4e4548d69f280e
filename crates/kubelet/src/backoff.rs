//! Back-off of containers that crash and of images that cannot be pulled, as upstream's `flowcontrol.Backoff`.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::time::{after, between};

/// A delay that doubles with every failure, from 10 s to 5 minutes, and is forgotten after 10 quiet minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BackOff {
    current: Option<(Duration, Timestamp)>,
}

impl BackOff {
    /// The first delay.
    pub(crate) const FIRST: Duration = Duration::from_secs(10);
    /// The longest delay.
    pub(crate) const LONGEST: Duration = Duration::from_secs(300);
    /// What ran this long before it failed starts with the first delay again.
    pub(crate) const FORGET: Duration = Duration::from_secs(600);

    /// The present delay; zero when nothing failed recently.
    pub(crate) fn delay(&self) -> Duration {
        self.current.map_or(Duration::ZERO, |(delay, _)| delay)
    }

    /// Until when to wait after a failure at `failed`; `None` if there is no reason to wait at `now`.
    pub(crate) fn wait_until(&self, failed: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let (delay, updated) = self.current?;
        if between(updated, failed) > Self::FORGET {
            return None;
        }
        let until = after(failed, delay);
        (now < until).then_some(until)
    }

    /// Notes that what failed at `failed` is tried again at `now`: its next failure waits longer.
    pub(crate) fn next(&mut self, failed: Timestamp, now: Timestamp) {
        let delay = match self.current {
            Some((delay, updated)) if between(updated, failed) <= Self::FORGET => (delay * 2).min(Self::LONGEST),
            _ => Self::FIRST,
        };
        self.current = Some((delay, now));
    }

    /// Forgets all failures.
    pub(crate) fn reset(&mut self) {
        self.current = None;
    }
}

/// The back-off of controllers whose pods a node rejects: most make another pod as soon as one has failed. Upstream leaves
/// them to it, so that a Deployment with an unsafe sysctl makes failed pods as fast as the API server takes them.
#[derive(Debug, Default)]
pub(crate) struct Rejections(HashMap<String, BackOff>);

impl Rejections {
    /// So many controllers are remembered before those are forgotten that were quiet for long.
    const REMEMBERED: usize = 1024;

    /// Notes that a pod of the controller with this uid is rejected at `now`; returns until when that is kept from the API.
    pub(crate) fn hold_back(&mut self, controller: &str, now: Timestamp) -> Option<Timestamp> {
        if self.0.len() >= Self::REMEMBERED {
            self.0.retain(|_, back_off| back_off.wait_until(now, now).is_some());
        }
        // Whoever invents controllers makes pods by hand, which no back-off slows down.
        if self.0.len() >= Self::REMEMBERED {
            self.0.clear();
        }
        let back_off = self.0.entry(controller.to_owned()).or_default();
        let until = back_off.wait_until(now, now);
        back_off.next(now, now);
        until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn crash_loop_doubles_to_five_minutes() {
        let mut back_off = BackOff::default();
        let mut now = 0;
        let mut delays = Vec::new();
        for _ in 0..8 {
            // Dies at once, and is started again as soon as it may.
            let failed = at(now);
            if let Some(until) = back_off.wait_until(failed, at(now)) {
                delays.push((until.as_second() - at(now).as_second()) as u64);
                now = until.as_second() - at(0).as_second();
            }
            assert_eq!(back_off.wait_until(failed, at(now)), None);
            back_off.next(failed, at(now));
        }
        // The first restart is immediate.
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_controller_whose_pods_are_rejected_makes_them_ever_more_seldom() {
        let mut rejections = Rejections::default();
        let mut held = |controller: &str, second: i64| {
            rejections.hold_back(controller, at(second)).map(|until| until.as_second() - at(second).as_second())
        };
        assert_eq!((held("a", 0), held("a", 1), held("a", 11), held("b", 11)), (None, Some(10), Some(20), None));
        assert_eq!(held("a", 10_000), None, "ten quiet minutes forget");
        for number in 0..2 * Rejections::REMEMBERED {
            assert_eq!(held(&number.to_string(), 10_000), None);
        }
        assert!(rejections.0.len() <= Rejections::REMEMBERED);
    }

    #[test]
    fn ten_quiet_minutes_forget() {
        let mut back_off = BackOff::default();
        back_off.next(at(0), at(0));
        back_off.next(at(10), at(10));
        assert_eq!(back_off.delay(), Duration::from_secs(20));
        assert_eq!(back_off.wait_until(at(611), at(611)), None);
        back_off.next(at(611), at(611));
        assert_eq!(back_off.delay(), BackOff::FIRST);
    }
}
