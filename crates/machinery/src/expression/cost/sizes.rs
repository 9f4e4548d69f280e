//! How long values under a schema may be, and how often they may occur in one request. Upstream:
//! `staging/src/k8s.io/apiserver/pkg/cel/common/schemas.go` and `staging/src/k8s.io/apiserver/pkg/cel/limits.go`.

use super::types;
use crate::schema::format::Format;
use crate::schema::{Schema, Type};

/// The largest request. Upstream: `MaxRequestSizeBytes`.
const REQUEST_MAX: u64 = 3 * 1024 * 1024;

/// The longest text in a request, which has quotes around it; the room within the brackets of a list or map.
pub(super) const TEXT_MAX: u64 = REQUEST_MAX - 2;

/// What a character may take in UTF-8.
const CHARACTER: u64 = 4;

/// The characters or items of a value at most; none where it is neither a text nor a list nor a map.
pub(super) fn max_elements(schema: &Schema) -> u64 {
    if schema.is_int_or_string() {
        return schema.max_length().map_or(TEXT_MAX, |length| length.saturating_mul(CHARACTER));
    }
    match (schema.kind(), schema.items(), schema.values()) {
        (Some(Type::Array), Some(items), _) => schema.max_items().unwrap_or_else(|| TEXT_MAX / (min_bytes(items) + 1)),
        (Some(Type::Object), _, Some(values)) => {
            // Around each value are a key of two bytes with its quotes, a colon and a comma.
            schema.max_properties().unwrap_or_else(|| TEXT_MAX / (min_bytes(values) + 6))
        }
        (Some(Type::String), ..) => text(schema),
        _ => 0,
    }
}

fn text(schema: &Schema) -> u64 {
    match schema.format() {
        Some(Format::Duration | Format::DateTime) => 32,
        Some(Format::Date) => 12,
        Some(Format::Byte) => schema.max_length().unwrap_or(TEXT_MAX),
        _ => match (schema.max_length(), schema.choices()) {
            (Some(length), _) => length.saturating_mul(CHARACTER),
            (None, []) => TEXT_MAX,
            (None, choices) => {
                choices.iter().filter_map(|choice| choice.as_str()).map(str::len).max().unwrap_or(0) as u64
            }
        },
    }
}

/// How often a value can be in one request, when no list and no map around it is bounded.
pub(crate) fn cardinality(schema: &Schema) -> u64 {
    REQUEST_MAX / (min_bytes(schema) + 1)
}

/// The least bytes of JSON that a value takes.
fn min_bytes(schema: &Schema) -> u64 {
    match schema.kind() {
        _ if schema.is_int_or_string() => 1,
        Some(Type::Object) if schema.values().is_none() => {
            // What is filled in where it is left out, and what no rule can be about, is not counted.
            let required = schema.required_properties().filter(|(_, property)| {
                property.default_value().is_none() && types::of_schema(property, false).is_some()
            });
            // Quotes, a colon and a comma are around a name.
            2 + required.map(|(name, property)| name.len() as u64 + min_bytes(property) + 4).sum::<u64>()
        }
        Some(Type::Object | Type::Array) | None => 2,
        Some(Type::Boolean) => 4,
        Some(Type::Integer | Type::Number) => 1,
        Some(Type::String) => match schema.format() {
            Some(Format::Duration) => 3,
            Some(Format::Date) => 12,
            Some(Format::DateTime) => 21,
            _ => 2,
        },
    }
}
