//! Readers of optional fields of `k8s-openapi` types: what is absent reads as Go's zero value, as upstream reads it.

use std::collections::BTreeMap;

/// An optional list as a slice; absent reads as empty.
#[must_use]
pub fn list<T>(field: &Option<Vec<T>>) -> &[T] {
    field.as_deref().unwrap_or_default()
}

/// An optional string; absent reads as empty.
#[must_use]
pub fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

/// Whether an optional string is absent or empty.
#[must_use]
pub fn blank(field: &Option<String>) -> bool {
    text(field).is_empty()
}

/// Gives an absent or empty string its default.
pub fn default_text(field: &mut Option<String>, value: &str) {
    if blank(field) {
        *field = Some(value.to_owned());
    }
}

/// An optional map's value under `key`.
#[must_use]
pub fn entry<'a, T>(map: &'a Option<BTreeMap<String, T>>, key: &str) -> Option<&'a T> {
    map.as_ref().and_then(|map| map.get(key))
}
