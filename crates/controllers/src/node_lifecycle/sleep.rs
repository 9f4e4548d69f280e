//! Notices that the machine slept, or that this process was stopped.
//!
//! After a laptop wakes, every lease looks expired and every heartbeat late, although nothing is wrong. Where the clock
//! on the wall has gone on without the monotonic one, or this process has not run at all for a while, everybody gets a
//! full grace period anew.

use std::time::Duration;

use jiff::Timestamp;

/// How often the clocks are compared.
pub(crate) const PERIOD: Duration = Duration::from_secs(5);
/// By so much the clocks may differ: clocks are set, too.
const TOLERANCE: Duration = Duration::from_secs(5);

/// The clocks, as they were last looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Detector {
    wall: Timestamp,
    monotonic: Duration,
}

impl Detector {
    /// Begins with these readings; the monotonic clock counts from anywhere.
    pub(crate) fn new(wall: Timestamp, monotonic: Duration) -> Self {
        Self { wall, monotonic }
    }

    /// Takes in new readings. True if there was a sleep in between.
    pub(crate) fn observe(&mut self, wall: Timestamp, monotonic: Duration) -> bool {
        let by_wall = Duration::try_from(wall.duration_since(self.wall)).unwrap_or_default();
        let by_monotonic = monotonic.saturating_sub(self.monotonic);
        *self = Self { wall, monotonic };
        by_wall > by_monotonic + TOLERANCE || by_monotonic > PERIOD + TOLERANCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_a_jump_of_one_clock_or_a_gap_in_both() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("time");
        for (wall, monotonic, expect) in
            [(5, 5, false), (6, 5, false), (3_600, 5, true), (3_600, 3_600, true), (0, 5, false), (-3_600, 5, false)]
        {
            let mut detector = Detector::new(start, Duration::from_secs(100));
            let wall_now = crate::meta::plus_seconds(start, wall);
            let slept = detector.observe(wall_now, Duration::from_secs(100 + monotonic));
            assert_eq!(slept, expect, "{wall} {monotonic}");
            let (wall_now, monotonic) = (crate::meta::plus_seconds(wall_now, 5), 105 + monotonic);
            assert!(!detector.observe(wall_now, Duration::from_secs(monotonic)), "it is over");
        }
    }
}
