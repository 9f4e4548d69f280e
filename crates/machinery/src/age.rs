//! Durations and times as people read them in tables.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// What a table shows when there is no time.
pub const UNKNOWN: &str = "<unknown>";

/// A duration of so many seconds in at most two units, coarser the longer it is: `90s`, `5m30s`, `3h5m`, `8d`.
///
/// A time slightly in the future, by clocks that differ, counts as now; one further ahead is `<invalid>`.
pub fn human_duration(seconds: i64) -> String {
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => two(days, "d", hours % 24, "h"),
        _ if days < 365 * 2 => format!("{days}d"),
        _ if days < 365 * 8 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// How long ago a time was, for a table: `5m30s`, or `<unknown>`.
pub fn since(time: Option<&Time>, now: Timestamp) -> String {
    time.map_or_else(|| UNKNOWN.to_owned(), |time| since_timestamp(time.0, now))
}

/// How long ago a timestamp was.
pub fn since_timestamp(time: Timestamp, now: Timestamp) -> String {
    human_duration(now.duration_since(time).as_secs())
}

/// A time as the API writes it: RFC 3339, UTC, whole seconds.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A time as the API writes a `MicroTime`: RFC 3339, UTC, always six decimal places.
pub fn rfc3339_micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_upstream_writes_them() {
        const DAY: i64 = 86_400;
        for (seconds, expect) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (1, "1s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (8 * 3600, "8h"),
            (48 * 3600 - 1, "47h"),
            (2 * DAY, "2d"),
            (2 * DAY + 3600, "2d1h"),
            (8 * DAY, "8d"),
            (729 * DAY, "729d"),
            (730 * DAY, "2y"),
            (731 * DAY, "2y1d"),
            (8 * 365 * DAY, "8y"),
            (8 * 365 * DAY + DAY, "8y"),
        ] {
            assert_eq!(human_duration(seconds), expect, "{seconds}");
        }
    }

    #[test]
    fn times() {
        let time: Timestamp = "2026-01-02T03:04:05.678901234Z".parse().unwrap();
        assert_eq!(rfc3339(time), "2026-01-02T03:04:05Z");
        assert_eq!(rfc3339_micro(time), "2026-01-02T03:04:05.678901Z");
        assert_eq!(since(None, time), "<unknown>");
        let earlier: Timestamp = "2026-01-02T02:58:35Z".parse().unwrap();
        assert_eq!(since(Some(&Time(earlier)), time), "5m30s");
    }
}
