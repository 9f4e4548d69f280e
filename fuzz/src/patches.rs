//! Patches: a line with the OpenAPI name of a type, one with an object, and the patch.

use machinery::depth::{self, MAX_DEPTH};
use machinery::patch::{MAX_COPIED, json_patch, merge_patch, strategic_merge_patch};
use serde_json::Value;

/// Applies a patch in each way that it can be meant.
///
/// # Panics
/// When a law is broken.
pub fn run(data: &[u8]) {
    let Some([definition, document, patch]) = crate::lines(data) else { return };
    let (Some(document), Some(patch)) = (crate::object(document), crate::object(patch)) else { return };
    if let Ok(result) = json_patch(&document, &patch) {
        assert!(depth::of(&result) <= MAX_DEPTH, "the result is nested too deep");
        let written = |value: &Value| value.to_string().len();
        // Whatever is added stands in the patch, or is copied and counted.
        assert!(written(&result) <= written(&document) + written(&patch) + 2 * MAX_COPIED, "the result is too long");
    }
    if let Ok(result) = merge_patch(&document, &patch) {
        assert_eq!(result, merged(&document, &patch));
        assert_eq!(merge_patch(&result, &patch).as_ref(), Ok(&result), "twice is not once");
        assert!(depth::of(&result) <= MAX_DEPTH, "the result is nested too deep");
    }
    if let Ok(result) = strategic_merge_patch(&document, &patch, definition) {
        assert!(depth::of(&result) <= MAX_DEPTH, "the result is nested too deep");
        if !has_directives(&document) {
            assert!(!has_directives(&result), "a directive is left: {result}");
        }
        if !has_directives(&document) && !has_directives(&patch) {
            applied_twice_is_once(&result, &patch, definition);
        }
    }
}

/// A strategic merge patch without directives that is applied to its own result changes nothing.
fn applied_twice_is_once(once: &Value, patch: &Value, definition: &str) {
    // An item without its key is added to no list, but refused by one that there is: as upstream has it.
    let Ok(twice) = strategic_merge_patch(once, patch, definition) else { return };
    // The same item twice is added to no list as it is, and merged into one that there is.
    if !has_repetitions(patch) {
        assert_eq!(twice, *once, "twice is not once");
    }
    // What was merged the second time may have lists of its own, which refuse the third time what they are given.
    if let Ok(thrice) = strategic_merge_patch(&twice, patch, definition) {
        assert_eq!(thrice, twice, "three times is not twice");
    }
}

/// Whether a list in a value may name an item twice.
fn has_repetitions(value: &Value) -> bool {
    let same = |left: &Value, right: &Value| match (left, right) {
        (Value::Object(left), Value::Object(right)) => left.iter().any(|(name, value)| right.get(name) == Some(value)),
        (left, right) => left == right,
    };
    match value {
        Value::Object(fields) => fields.values().any(has_repetitions),
        Value::Array(items) => {
            items.iter().enumerate().any(|(place, item)| items[..place].iter().any(|other| same(item, other)))
                || items.iter().any(has_repetitions)
        }
        _ => false,
    }
}

/// RFC 7386, section 2, as it is written there.
fn merged(target: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut result = target.as_object().cloned().unwrap_or_default();
    for (name, value) in patch {
        if value.is_null() {
            result.remove(name);
        } else {
            let value = merged(result.get(name).unwrap_or(&Value::Null), value);
            result.insert(name.clone(), value);
        }
    }
    result.into()
}

/// Whether anything in a value is a directive of strategic merge patches.
fn has_directives(value: &Value) -> bool {
    let is_directive = |name: &str| {
        let with_field = ["$setElementOrder/", "$deleteFromPrimitiveList/"];
        matches!(name, "$patch" | "$retainKeys") || with_field.iter().any(|prefix| name.starts_with(prefix))
    };
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| is_directive(name) || has_directives(value)),
        Value::Array(items) => items.iter().any(has_directives),
        _ => false,
    }
}
