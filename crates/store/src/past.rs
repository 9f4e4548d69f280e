//! When revisions were written: which one was the newest at a time.

use crate::Revision;
use crate::compact::{closed, time_and_start};
use crate::disk::Result;
use crate::state::Shared;

/// A revision and when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The revision.
    pub revision: Revision,
    /// Milliseconds since 1970.
    pub time: u64,
}

/// How far the log reaches back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// The state of this revision is the oldest that can be read.
    pub horizon: Revision,
    /// When the first revision behind the horizon was written; none where nothing was.
    pub since: Option<u64>,
    /// The newest revision; none where the log has no record of it.
    pub newest: Option<Moment>,
    /// The newest revision that had been written at the time that was asked for; the horizon where all are younger. Without
    /// a time when it is the horizon.
    pub at: (Revision, Option<u64>),
}

/// How far the log reaches back, and what was the newest revision at a time. Blocks on the disk.
///
/// Times grow with revisions, so the place is found by halving. Only a clock that was set back makes that untrue, and then
/// the place is off by as much as the clock was.
pub(crate) fn at(shared: &Shared, time: u64) -> Result<Past> {
    let (horizon, revision) = {
        let published = shared.published();
        (published.horizon, published.revision)
    };
    let guard = shared.disk();
    let disk = guard.as_ref().ok_or_else(closed)?;
    let written = |revision| time_and_start(disk, revision).map(|(time, _)| time);
    let has_any = revision > horizon;
    let since = has_any.then(|| written(horizon + 1)).transpose()?;
    let newest = has_any.then(|| written(revision)).transpose()?.map(|time| Moment { revision, time });
    let found = newest_before(horizon, revision, time, written)?;
    let at = (found, (found > horizon).then(|| written(found)).transpose()?);
    Ok(Past { horizon, since, newest, at })
}

/// The newest of the revisions behind the horizon that is not younger than a time, else the horizon.
fn newest_before(
    horizon: Revision,
    revision: Revision,
    time: u64,
    written: impl Fn(Revision) -> Result<u64>,
) -> Result<Revision> {
    // What is up to `old` is old enough, what is from `young` on is too young.
    let (mut old, mut young) = (horizon, revision + 1);
    while old + 1 < young {
        let middle = old + (young - old) / 2;
        if written(middle)? <= time {
            old = middle;
        } else {
            young = middle;
        }
    }
    Ok(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_that_is_old_enough() {
        // Revision n was written at time 10 n.
        for (horizon, revision, time, expected) in [
            (0, 0, 5, 0),
            (0, 1, 9, 0),
            (0, 1, 10, 1),
            (0, 100, 505, 50),
            (0, 100, 9_999, 100),
            (40, 100, 100, 40),
            (40, 100, 410, 41),
            (100, 100, 5_000, 100),
        ] {
            let found = newest_before(horizon, revision, time, |n| {
                assert!(n > horizon && n <= revision, "{n} is not in the log");
                Ok(n * 10)
            });
            assert_eq!(found.unwrap(), expected, "{horizon} {revision} {time}");
        }
    }
}
