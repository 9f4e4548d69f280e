//! Back-off of containers that crash and of images that cannot be pulled, as upstream's `flowcontrol.Backoff`.

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
