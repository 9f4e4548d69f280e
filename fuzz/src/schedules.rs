//! Schedules of CronJobs: a line with the schedule, one with a time in seconds, and a number for the zone.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use machinery::cron::Schedule;

/// With whole hours, half ones, none, a day that was left out, and clocks that are set around a month.
const ZONES: [&str; 6] =
    ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia", "Africa/Casablanca"];
/// 1973 to 2099: before, zones have offsets that are no whole minutes.
const TIMES: std::ops::Range<i64> = 100_000_000..4_090_000_000;

/// Asks when a schedule is due.
///
/// # Panics
/// When a law is broken.
pub fn run(data: &[u8]) {
    let Some([schedule, time, zone]) = crate::lines(data) else { return };
    let Ok(parsed) = Schedule::parse(schedule) else { return };
    let zone = ZONES.iter().cycle().nth(zone.parse::<u8>().unwrap_or(0).into()).unwrap_or(&"UTC");
    let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
    let seconds = time.parse::<i64>().unwrap_or(1_767_225_600);
    let Ok(after) = Timestamp::from_second(seconds) else { return };
    let Some(next) = parsed.next(after, &zone) else { return };
    assert!(next > after, "{schedule}: {next} is not after {after}");
    if schedule.starts_with("@every") || !TIMES.contains(&seconds) {
        return;
    }
    assert_eq!(next.as_second() % 60, 0, "{schedule}: {next} is no whole minute");
    // Whenever one asks in between, it is the same.
    let between = next.duration_since(after);
    for part in [between / 3, between / 2, between - SignedDuration::from_nanos(1)] {
        let Ok(asked) = after.checked_add(part) else { continue };
        assert_eq!(parsed.next(asked, &zone), Some(next), "{schedule} after {asked}, as after {after}");
    }
}
