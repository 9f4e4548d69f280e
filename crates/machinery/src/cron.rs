//! Schedules as a CronJob has them: the five fields of a crontab, `@daily` and its like, and `@every 1h30m`.
//!
//! What may be written is what upstream's parser takes, and what is wrong is said in its words.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A field of a schedule: its bounds, and the names of its values with the number of the first.
struct Field {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { low: 0, high: 59, names: &[] },
    Field { low: 0, high: 23, names: &[] },
    Field { low: 1, high: 31, names: &[] },
    Field { low: 1, high: 12, names: &MONTHS },
    Field { low: 0, high: 6, names: &DAYS },
];

/// The values that a field allows, one bit for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Allowed {
    bits: u64,
    /// It says `*` or `?`.
    any: bool,
}

impl Allowed {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits >> value & 1 == 1)
    }

    /// How far it is from one value to the next greater one that is allowed.
    fn distance_after(self, value: i8) -> Option<u32> {
        let greater = u32::try_from(value).ok().and_then(|value| self.bits.checked_shr(value + 1))?;
        (greater != 0).then(|| greater.trailing_zeros() + 1)
    }
}

/// When something is due, again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// At these minutes, hours, days of the month, months and days of the week.
    Calendar([Allowed; 5]),
    /// After so long each time.
    Every(SignedDuration),
}

impl Schedule {
    /// Reads a schedule; or says what is wrong with it.
    ///
    /// # Errors
    /// In words, what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields = match text.strip_prefix('@') {
            None => text,
            Some("yearly" | "annually") => "0 0 1 1 *",
            Some("monthly") => "0 0 1 * *",
            Some("weekly") => "0 0 * * 0",
            Some("daily" | "midnight") => "0 0 * * *",
            Some("hourly") => "0 * * * *",
            Some(name) => {
                let Some(every) = name.strip_prefix("every ") else {
                    return Err(format!("unrecognized descriptor: {text}"));
                };
                let period = duration(every).ok_or_else(|| format!("failed to parse duration {text}"))?;
                // Upstream: whole seconds, and at least one.
                let period = SignedDuration::from_secs(period.as_secs().max(1));
                return Ok(Self(Kind::Every(period)));
            }
        };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        }
        let mut allowed = [Allowed::default(); 5];
        for ((text, field), allowed) in fields.iter().zip(&FIELDS).zip(&mut allowed) {
            for item in text.split(',').filter(|item| !item.is_empty()) {
                let more = field.read(item)?;
                allowed.bits |= more.bits;
                allowed.any |= more.any;
            }
        }
        Ok(Self(Kind::Calendar(allowed)))
    }

    /// The first time after `after` that is due, by the clocks of `zone`. Nothing if there is none within five years, and
    /// where a field is nothing but commas, which upstream's parser takes and which allows no value.
    ///
    /// A time that the clocks leave out is not due that day, and one that they show twice is due twice: as upstream.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let fields = match &self.0 {
            Kind::Every(period) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                return whole.checked_add(*period).ok();
            }
            Kind::Calendar(fields) => fields,
        };
        let [minute, hour, ..] = fields;
        if minute.bits == 0 || hour.bits == 0 {
            return None;
        }
        let whole = Timestamp::from_second(after.as_second() - after.as_second().rem_euclid(60)).ok()?;
        let mut at = whole.checked_add(SignedDuration::from_mins(1)).ok()?.to_zoned(zone.clone());
        let last_year = at.year().saturating_add(5);
        while at.year() <= last_year {
            at = match skip(fields, &at) {
                Skip::None => return Some(at.timestamp()),
                Skip::Month => at.first_of_month().ok()?.checked_add(1_i32.months()).ok()?.start_of_day().ok()?,
                Skip::Day => at.checked_add(1_i32.days()).ok()?.start_of_day().ok()?,
                Skip::Minutes(minutes) => at.checked_add(SignedDuration::from_mins(minutes)).ok()?,
            };
        }
        None
    }
}

/// What lies between a time and the next that may be due.
enum Skip {
    None,
    Month,
    Day,
    Minutes(i64),
}

fn skip([minute, hour, day, month, weekday]: &[Allowed; 5], at: &Zoned) -> Skip {
    if !month.has(at.month()) {
        return Skip::Month;
    }
    let (by_date, by_weekday) = (day.has(at.day()), weekday.has(at.weekday().to_sunday_zero_offset()));
    // A day that both fields restrict is one that either allows.
    let due = if day.any || weekday.any { by_date && by_weekday } else { by_date || by_weekday };
    if !due {
        return Skip::Day;
    }
    if !hour.has(at.hour()) {
        return Skip::Minutes(i64::from(60 - at.minute()));
    }
    if minute.has(at.minute()) {
        return Skip::None;
    }
    let to_next_hour = i64::from(60 - at.minute());
    Skip::Minutes(minute.distance_after(at.minute()).map_or(to_next_hour, i64::from))
}

impl Field {
    /// Reads `*`, `?`, `5`, `1-5`, each with an optional step.
    fn read(&self, item: &str) -> Result<Allowed, String> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(number(step)?)),
            None => (item, None),
        };
        if step == Some(0) {
            return Err(format!("step of range should be a positive number: {item}"));
        }
        let is_any = ["*", "?"].contains(&range);
        let (first, last) = if is_any {
            (self.low, self.high)
        } else {
            match range.split_once('-') {
                Some((first, last)) => (self.value(first)?, self.value(last)?),
                // `5/15` is `5-59/15`.
                None if step.is_some() => (self.value(range)?, self.high),
                None => (self.value(range)?, self.value(range)?),
            }
        };
        if first < self.low {
            return Err(format!("beginning of range ({first}) below minimum ({}): {item}", self.low));
        }
        if last > self.high {
            return Err(format!("end of range ({last}) above maximum ({}): {item}", self.high));
        }
        if first > last {
            return Err(format!("beginning of range ({first}) beyond end of range ({last}): {item}"));
        }
        let step = step.unwrap_or(1);
        let values = (first..=last).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        Ok(Allowed { bits: values.fold(0, |bits, value| bits | 1 << value), any: is_any && step == 1 })
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let name = text.to_lowercase();
        let named = self.names.iter().zip(self.low..).find(|(known, _)| **known == name);
        named.map_or_else(|| number(text), |(_, number)| Ok(number))
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("failed to parse int from {text}"))
}

/// A duration such as `1h30m`.
fn duration(text: &str) -> Option<SignedDuration> {
    let mut total = SignedDuration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let unit = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let amount: i64 = rest[..unit].parse().ok()?;
        let end = rest[unit..].find(|c: char| !c.is_ascii_alphabetic()).map_or(rest.len(), |end| unit + end);
        let part = match &rest[unit..end] {
            "h" => SignedDuration::from_hours(1),
            "m" => SignedDuration::from_mins(1),
            "s" => SignedDuration::from_secs(1),
            "ms" => SignedDuration::from_millis(1),
            _ => return None,
        };
        total = total.checked_add(part.checked_mul(i32::try_from(amount).ok()?)?)?;
        rest = &rest[end..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_time() {
        for (schedule, zone, after, expect) in [
            ("* * * * *", "UTC", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"),
            ("* * * * *", "UTC", "2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"),
            ("*/15 * * * *", "UTC", "2026-01-01T00:46:00Z", "2026-01-01T01:00:00Z"),
            ("5/20 * * * *", "UTC", "2026-01-01T00:26:00Z", "2026-01-01T00:45:00Z"),
            ("5,59 * * * *", "UTC", "2026-01-01T00:06:00Z", "2026-01-01T00:59:00Z"),
            ("5,50 * * * *", "UTC", "2026-01-01T00:51:00Z", "2026-01-01T01:05:00Z"),
            ("0 9-17 * * mon-fri", "UTC", "2026-01-02T17:00:00Z", "2026-01-05T09:00:00Z"),
            ("0 0 31 * *", "UTC", "2026-02-01T00:00:00Z", "2026-03-31T00:00:00Z"),
            ("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            // Both days are restricted: either will do.
            ("0 0 13 * fri", "UTC", "2026-01-01T12:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 13 * ?", "UTC", "2026-01-01T12:00:00Z", "2026-01-13T00:00:00Z"),
            ("@daily", "Asia/Shanghai", "2026-01-01T00:00:00Z", "2026-01-01T16:00:00Z"),
            ("@hourly", "UTC", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
            ("@every 1h30m", "UTC", "2026-01-01T00:00:10.5Z", "2026-01-01T01:30:10Z"),
            // Half past two does not exist on that morning.
            ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"),
            // And in autumn it comes twice.
            ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
            ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),
        ] {
            let zone = TimeZone::get(zone).expect("a zone");
            let next = Schedule::parse(schedule).expect(schedule).next(after.parse().expect("a time"), &zone);
            assert_eq!(next.map(|next| next.to_string()).as_deref(), Some(expect), "{schedule} after {after}");
        }
        for never in ["0 0 31 2 *", ", * * * *", "* , * * *", "* * , * *", "* * * , *"] {
            let schedule = Schedule::parse(never).expect("a schedule");
            let next = schedule.next("2026-01-01T00:00:00Z".parse().expect("a time"), &TimeZone::UTC);
            assert_eq!(next, None, "{never}");
        }
    }

    #[test]
    fn what_is_wrong() {
        for (schedule, expect) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every soon", "failed to parse duration @every soon"),
        ] {
            assert_eq!(Schedule::parse(schedule), Err(expect.to_owned()));
        }
    }
}
