//! Whether a process is quiet. Pure.

use std::time::Duration;

/// Up to what part of one processor a process is quiet: one in so many.
const PART: u32 = 10;

/// Follows how busy a process is.
#[derive(Debug)]
pub struct Quiet {
    /// What it had used of the processors at the last look.
    used: Duration,
}

impl Quiet {
    /// How often to look. What little a quiet process does touches some of its code again, so once is not enough.
    pub const PERIOD: Duration = Duration::from_secs(15);

    /// For a process that has used so much time of the processors.
    pub fn new(used: Duration) -> Self {
        Self { used }
    }

    /// Looks, a period after the last time; `used` is all the time of the processors so far. Answers whether the process was quiet
    /// since.
    pub fn look(&mut self, used: Duration) -> bool {
        let since = used.saturating_sub(std::mem::replace(&mut self.used, used));
        since <= Self::PERIOD / PART
    }

    /// What this process has used of the processors so far.
    pub fn used() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        time.try_into().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_a_processor_is_quiet() {
        let mut used = Duration::from_secs(5);
        let mut quiet = Quiet::new(used);
        let mut look = |more: u64| {
            used += Duration::from_millis(more);
            quiet.look(used)
        };
        assert_eq!([1501, 1500, 0, 60_000, 10].map(&mut look), [false, true, true, false, true]);
    }

    #[test]
    fn time_passes() {
        let before = Quiet::used();
        let mut number = 1_u64;
        while Quiet::used() == before {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
        assert!(Quiet::used() > before);
    }
}
