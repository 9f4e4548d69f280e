//! Keeping the log within its bounds.

use std::sync::atomic::Ordering::Relaxed;

use crate::disk::{Disk, DiskError, Result, damaged};
use crate::health::Health;
use crate::state::Shared;
use crate::writer::now;
use crate::{Options, Revision};

/// Brings the log within its bounds. Returns the horizon. Blocks on the disk.
pub(crate) fn by_bounds(shared: &Shared) -> Result<Revision> {
    let (horizon, revision) = {
        let published = shared.published();
        (published.horizon, published.revision)
    };
    let to = {
        let guard = shared.disk();
        let disk = guard.as_ref().ok_or_else(closed)?;
        let (_, log_end) = disk.log_last()?.unwrap_or_default();
        let mut bounds = Bounds::new(&shared.options, now());
        if let Health::DiskFull(_) = shared.health.get() {
            // Deletes fill the log, and have the ballast's space only.
            bounds.bytes = bounds.bytes.min(shared.ballast.size() / 4);
        }
        bounds.horizon(horizon, revision, log_end, |at| time_and_start(disk, at))?
    };
    compact(shared, to)
}

/// Removes the log up to and with a revision. Returns the horizon. Blocks on the disk.
pub(crate) fn compact(shared: &Shared, to: Revision) -> Result<Revision> {
    let _one_at_a_time = shared.compacting.lock();
    if shared.raise_horizon(to) {
        let guard = shared.disk();
        shared.fail_with(guard.as_ref().ok_or_else(closed)?.compact(to))?;
        shared.counters.compactions.fetch_add(1, Relaxed);
        tracing::debug!(horizon = to, "compacted the log of the store");
    }
    Ok(shared.published().horizon)
}

/// When a revision was written, and where it begins in the log.
pub(crate) fn time_and_start(disk: &Disk, revision: Revision) -> Result<(u64, u64)> {
    let reader = disk.log_after(revision - 1)?;
    match reader.current()? {
        Some((_, record)) => Ok((record.time, record.end.saturating_sub(record.size()))),
        None => Err(damaged(&format!("revision {revision} is missing in the log"))),
    }
}

pub(crate) fn closed() -> DiskError {
    DiskError::Io("the store is closed".to_owned())
}

/// How much of the log is kept.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    revisions: u64,
    bytes: u64,
    /// What was written before this time, in milliseconds since 1970, is too old.
    oldest: u64,
}

impl Bounds {
    fn new(options: &Options, now: u64) -> Self {
        let age = u64::try_from(options.retain_age.as_millis()).unwrap_or(u64::MAX);
        Self { revisions: options.retain_revisions, bytes: options.retain_bytes, oldest: now.saturating_sub(age) }
    }

    /// The revision up to which the log may go. `probe` tells when a revision was written and where it begins in the log.
    ///
    /// Too old or too far back is what lies before something that is, so the place is found by halving. Only a clock that was
    /// set back makes that untrue, and then the place is off by as much as the clock was.
    fn horizon(
        &self,
        horizon: Revision,
        revision: Revision,
        log_end: u64,
        mut probe: impl FnMut(Revision) -> Result<(u64, u64)>,
    ) -> Result<Revision> {
        // Everything up to `goes` goes, everything from `stays` on stays.
        let mut goes = horizon.max(revision.saturating_sub(self.revisions));
        let mut stays = revision + 1;
        while goes + 1 < stays {
            let middle = goes + (stays - goes) / 2;
            let (time, start) = probe(middle)?;
            if time < self.oldest || log_end.saturating_sub(start) > self.bytes {
                goes = middle;
            } else {
                stays = middle;
            }
        }
        Ok(goes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Revision n was written at time 10 n, and each takes 100 bytes.
    fn check(revisions: u64, bytes: u64, oldest: u64, (horizon, revision): (u64, u64)) -> u64 {
        let bounds = Bounds { revisions, bytes, oldest };
        bounds
            .horizon(horizon, revision, revision * 100, |n| {
                assert!(n > horizon && n <= revision, "{n} is not in the log");
                Ok((n * 10, (n - 1) * 100))
            })
            .unwrap()
    }

    #[test]
    fn whichever_bound_is_tightest_counts() {
        const NONE: u64 = u64::MAX;
        for (revisions, bytes, oldest, range, expected) in [
            (NONE, NONE, 0, (0, 100), 0),
            (NONE, NONE, 0, (40, 100), 40),
            (10, NONE, 0, (0, 100), 90),
            (10, NONE, 0, (95, 100), 95),
            (200, NONE, 0, (0, 100), 0),
            (0, NONE, 0, (0, 100), 100),
            (NONE, 1_000, 0, (0, 100), 90),
            (NONE, 1_099, 0, (0, 100), 90),
            (NONE, 1_100, 0, (0, 100), 89),
            (NONE, 0, 0, (0, 100), 100),
            (NONE, NONE, 500, (0, 100), 49),
            (NONE, NONE, 501, (0, 100), 50),
            (NONE, NONE, 9_999, (0, 100), 100),
            (50, 4_000, 900, (0, 100), 89),
            (50, 4_000, 100, (0, 100), 60),
            (50, 9_000, 100, (0, 100), 50),
            (10, 10, 9_999, (100, 100), 100),
            (10, 10, 9_999, (0, 0), 0),
            (10, 1_000, 9_999, (0, 1), 1),
            (10, 1_000, 0, (0, 1), 0),
        ] {
            assert_eq!(check(revisions, bytes, oldest, range), expected, "{revisions} {bytes} {oldest} {range:?}");
        }
    }
}
