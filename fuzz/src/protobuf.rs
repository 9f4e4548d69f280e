//! Protobuf bodies: a line with version and kind (`apps/v1 Deployment`) and the message, or an object as JSON.

use machinery::api_types;
use machinery::depth;
use machinery::protobuf::{MAGIC, Message, any_to_json, encode, to_json};
use serde_json::Value;

/// Decodes and encodes an object of one kind.
///
/// # Panics
/// When a law is broken.
pub fn run(data: &[u8]) {
    if data.starts_with(b"{") {
        return json(data);
    }
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (line, message) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let (version, kind) = kind(line);
    let mut envelope = Message::default();
    envelope.nested(1, |meta| {
        meta.bytes(1, version.as_bytes());
        meta.bytes(2, kind.as_bytes());
    });
    envelope.bytes(2, message);
    if let Ok(json) = to_json(&[MAGIC, envelope.as_slice()].concat(), kind) {
        is_kept(&json, kind);
    }
}

/// The kind that a line names. One that names none stands for one all the same, so that every kind is reached.
fn kind(line: &[u8]) -> (&'static str, &'static str) {
    let named = |(version, kind): (&str, &str)| line == [version, kind].join(" ").as_bytes();
    let all = || api_types::kinds().map(|(version, kind, _)| (version, kind));
    let sum: usize = line.iter().map(|byte| usize::from(*byte)).sum();
    all().find(|one| named(*one)).or_else(|| all().nth(sum % all().count())).unwrap_or(("v1", "Pod"))
}

/// What is encoded can be decoded.
fn json(text: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(text) else { return };
    if depth::check(&value).is_err() {
        return;
    }
    if let Ok(body) = encode(text) {
        let json = any_to_json(&body).unwrap_or_else(|error| panic!("{error}: {value}"));
        let decoded: Value = serde_json::from_slice(&json).unwrap_or_else(|error| panic!("{error}: {value}"));
        is_kept(&json, decoded["kind"].as_str().unwrap_or_default());
    }
}

/// What is decoded can be encoded, and is decoded to the same.
fn is_kept(json: &[u8], kind: &str) {
    // What is embedded as JSON may make the whole too deep, which is found when it is read.
    let Ok(value) = serde_json::from_slice::<Value>(json) else { return };
    if depth::check(&value).is_err() {
        return;
    }
    let body = encode(json).unwrap_or_else(|error| panic!("{error}: {value}"));
    let again = to_json(&body, kind).unwrap_or_else(|error| panic!("{error}: {value}"));
    let again: Value = serde_json::from_slice(&again).unwrap_or_else(|error| panic!("{error}: {value}"));
    assert_eq!(without_nulls(again), without_nulls(value));
}

/// A field that is null is one that is not there.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            fields.map(|(name, value)| (name, without_nulls(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}
