//! Numbers, lists and times as people read them.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::age::human_duration;

/// More of one thing is not listed.
const LISTED: usize = 8;

/// `1 pod`, `3 pods`.
pub(crate) fn count(number: impl Into<i64>, what: &str) -> String {
    let number = number.into();
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// `3 pods, 2 ready, 1 available`.
pub(crate) fn pods(all: i32, ready: Option<i32>, available: Option<i32>) -> String {
    format!("{}, {} ready, {} available", count(all, "pod"), ready.unwrap_or(0), available.unwrap_or(0))
}

/// A port or number, or its name or percentage, as it is written.
pub(crate) fn written(value: &IntOrString) -> String {
    match value {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(text) => text.clone(),
    }
}

/// As a number that people read: lists are never that long.
pub(crate) fn number(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// `a, b and 3 more`.
pub(crate) fn list<T: AsRef<str>>(items: &[T]) -> String {
    let shown: Vec<&str> = items.iter().take(LISTED).map(AsRef::as_ref).collect();
    match items.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Seconds in at most two units.
pub(crate) fn span(seconds: i64) -> String {
    match seconds {
        // `human_duration` has minutes from two on.
        60..120 if seconds % 60 == 0 => "1m".to_owned(),
        60..120 => format!("1m{}s", seconds % 60),
        _ => human_duration(seconds.max(0)),
    }
}

/// How long it has been.
pub(crate) fn since(time: Timestamp, now: Timestamp) -> String {
    span(now.duration_since(time).as_secs())
}

/// How long ago.
pub(crate) fn ago(time: &Time, now: Timestamp) -> String {
    format!("{} ago", since(time.0, now))
}

/// So many seconds later.
pub(crate) fn after(time: Timestamp, seconds: i64) -> Option<Timestamp> {
    time.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// A text, where there is any.
pub(crate) fn given(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

/// `reason: message`, or what there is of it.
pub(crate) fn reason_and_message(reason: Option<&String>, message: Option<&String>) -> String {
    match (given(reason), given(message)) {
        (Some(reason), Some(message)) => format!("{reason}: {message}"),
        (Some(text), None) | (None, Some(text)) => text.to_owned(),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_lists() {
        assert_eq!((count(1, "pod"), count(0, "pod")), ("1 pod".to_owned(), "0 pods".to_owned()));
        let many: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        assert_eq!(list(&many), "0, 1, 2, 3, 4, 5, 6, 7 and 2 more");
        assert_eq!(list(&["a", "b"]), "a, b");
        let spans = [(-3, "0s"), (59, "59s"), (60, "1m"), (61, "1m1s"), (119, "1m59s"), (120, "2m"), (3600, "60m")];
        for (seconds, text) in spans {
            assert_eq!(span(seconds), text, "{seconds}");
        }
    }
}
