//! Arithmetic on timestamps that cannot fail, and durations as Go prints them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// `time` + `duration`, or the end of time.
pub(crate) fn after(time: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| time.checked_add(duration).ok())
        .unwrap_or(Timestamp::MAX)
}

/// From `start` to `end`; zero if `end` is earlier.
pub(crate) fn between(start: Timestamp, end: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(start)).unwrap_or(Duration::ZERO)
}

/// A timestamp as the API keeps it: whole seconds.
pub(crate) fn api_time(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// A duration as Go prints it, cut to milliseconds: `561ms`, `1.2s`, `1m2.5s`, `2h0m0s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (hours, rest) = (millis / 3_600_000, millis % 3_600_000);
    let (minutes, rest) = (rest / 60_000, rest % 60_000);
    let mut seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    seconds.truncate(seconds.trim_end_matches('0').trim_end_matches('.').len());
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        for (millis, expect) in [
            (0, "0s"),
            (7, "7ms"),
            (561, "561ms"),
            (1000, "1s"),
            (1200, "1.2s"),
            (1561, "1.561s"),
            (10_000, "10s"),
            (62_500, "1m2.5s"),
            (300_000, "5m0s"),
            (7_200_000, "2h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), expect);
        }
    }
}
