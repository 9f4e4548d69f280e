//! What the answers of all three APIs have in common: JSON, Tables, errors, and the forms of times and amounts.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use machinery::quantity::Quantity;
use machinery::status::ApiError;
use serde_json::{Value, json};

/// JSON with status 200.
pub(crate) fn json(value: &Value) -> Response<Bytes> {
    with_status(StatusCode::OK, value.to_string())
}

/// A failure as a `Status`.
pub(crate) fn error(error: &ApiError) -> Response<Bytes> {
    let status = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // Strings and numbers always encode.
    with_status(status, serde_json::to_string(error).unwrap_or_default())
}

fn with_status(status: StatusCode, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Whether the client prefers a Table: its first acceptable form is one.
pub(crate) fn wants_table(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = accepted.flat_map(|value| value.split(',')).map(str::trim);
    let known = |range: &&str| range.starts_with("application/json") || range.starts_with("*/*");
    let as_table = |range: &str| range.contains("as=Table") && range.contains("v=v1;") | range.ends_with("v=v1");
    ranges.find(|range| known(range) && (!range.contains("as=") || as_table(range))).is_some_and(as_table)
}

/// A Table of `columns` (name and type), a row for each item: its cells and the object it shows.
pub(crate) fn table(columns: &[(&str, &str)], rows: Vec<(Vec<Value>, &Value)>) -> Value {
    let columns: Vec<Value> = columns
        .iter()
        .map(|(name, format)| {
            json!({ "name": name, "type": "string", "format": format, "description": "", "priority": 0 })
        })
        .collect();
    let rows: Vec<Value> = rows
        .into_iter()
        .map(|(cells, object)| {
            let object = json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": object["metadata"],
            });
            json!({ "cells": cells, "object": object })
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// A list of objects.
pub(crate) fn list(api_version: &str, kind: &str, items: Vec<Value>) -> Value {
    json!({ "kind": kind, "apiVersion": api_version, "metadata": {}, "items": items })
}

/// A time in whole seconds, as `metav1.Time` is written.
pub(crate) fn time(milliseconds: i64) -> String {
    let time = Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH);
    machinery::age::rfc3339(time)
}

/// A length of time as Go writes it, to the millisecond: `15.042s`, `1m0s`.
pub(crate) fn duration(milliseconds: i64) -> String {
    let milliseconds = milliseconds.max(0);
    if milliseconds > 0 && milliseconds < 1000 {
        return format!("{milliseconds}ms");
    }
    let (minutes, rest) = (milliseconds / 60_000, milliseconds % 60_000);
    let mut seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    seconds.truncate(seconds.trim_end_matches('0').trim_end_matches('.').len());
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// Cores, in billionths.
pub(crate) fn cores(cores: f64) -> String {
    canonical(format!("{}n", whole(cores * 1e9)))
}

/// Bytes, in kibibytes: what `kubectl top` and upstream's metrics-server print.
pub(crate) fn bytes(bytes: f64) -> String {
    canonical(format!("{}Ki", whole(bytes / 1024.0)))
}

/// A value of a metric: whole where it is whole, else in thousandths.
pub(crate) fn quantity(value: f64) -> String {
    canonical(format!("{}m", whole((value * 1000.0).round())))
}

fn canonical(text: String) -> String {
    text.parse::<Quantity>().map_or(text, |quantity| quantity.to_string())
}

#[expect(clippy::cast_possible_truncation, reason = "a cast from float to integer saturates")]
fn whole(value: f64) -> i64 {
    value as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        for (milliseconds, expected) in [
            (0, "0s"),
            (500, "500ms"),
            (1000, "1s"),
            (15_042, "15.042s"),
            (15_100, "15.1s"),
            (60_000, "1m0s"),
            (3_661_000, "1h1m1s"),
        ] {
            assert_eq!(duration(milliseconds), expected);
        }
    }

    #[test]
    fn amounts() {
        assert_eq!(cores(0.25), "250m");
        assert_eq!(cores(0.000_123_456), "123456n");
        assert_eq!(bytes(10_240.0), "10Ki");
        assert_eq!(quantity(7.0), "7");
        assert_eq!(quantity(0.5), "500m");
        assert_eq!(quantity(f64::NAN), "0");
    }

    #[test]
    fn tables_on_request() {
        for (accept, expected) in [
            ("", false),
            ("application/json", false),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                true,
            ),
            ("application/json, application/json;as=Table;v=v1;g=meta.k8s.io", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(wants_table(&headers), expected, "{accept}");
        }
    }
}
