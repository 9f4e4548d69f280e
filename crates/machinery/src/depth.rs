//! How deep objects may be nested.
//!
//! Everything that walks an object is recursive: encoding, comparing, merging, validating, dropping. So one depth is the
//! limit wherever an object comes in, and nothing behind it has to count.

use serde_json::Value;

/// The most objects and lists that an object of the API may have within each other, itself included.
///
/// Upstream decodes up to 10,000 (sigs.k8s.io/json, `maxNestingDepth`) on stacks that grow. Here what is stored is read by
/// serde_json, which ends at 128, also when `managedFields` has put four levels around the fields' names, and an
/// AdmissionReview or ConversionReview three around the object. The deepest definitions in use have about 60.
pub const MAX_DEPTH: usize = 100;

/// The object is nested more deeply than [`MAX_DEPTH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("exceeded max depth of {MAX_DEPTH}")]
pub struct TooDeep;

/// The stack that a decoder of typed objects may take for [`LEVELS`] levels; a build without optimization takes most of it.
const RED_ZONE: usize = 1 << 20;

/// The stack that is added where that is not left.
const STACK: usize = 8 << 20;

/// After so many levels a decoder should ask for room again.
pub const LEVELS: usize = 32;

/// Runs something recursive with room for [`LEVELS`] levels at least, on another stack where this one has not enough left.
pub fn with_room<T>(run: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(RED_ZONE, STACK, run)
}

/// Runs something recursive that cannot ask for room on its way, with room for [`MAX_DEPTH`] levels.
pub fn with_room_for_all<T>(run: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(STACK / 2, STACK, run)
}

/// How many objects and lists a value has within each other; 0 for a scalar.
///
/// The value must be one that a decoder with a limit has made: this is recursive, too.
#[must_use]
pub fn of(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(of).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(of).max().unwrap_or(0),
        _ => 0,
    }
}

/// Refuses a value that is nested too deeply.
///
/// # Errors
/// [`TooDeep`].
pub fn check(value: &Value) -> Result<(), TooDeep> {
    if of(value) > MAX_DEPTH { Err(TooDeep) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn depths() {
        for (value, expect) in [
            (json!(1), 0),
            (json!({}), 1),
            (json!({ "a": 1, "b": [], "c": "x" }), 2),
            (json!([[{ "a": { "b": null } }], 5]), 4),
        ] {
            assert_eq!(of(&value), expect, "{value}");
        }
        let nested = (0..MAX_DEPTH).fold(json!(1), |value, _| json!([value]));
        assert_eq!((check(&nested), check(&json!([nested]))), (Ok(()), Err(TooDeep)));
    }
}
