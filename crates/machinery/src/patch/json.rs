//! JSON patches (RFC 6902), with bounds: what a patch makes of an object is not bounded by the patch's own size.

use json_patch::{PatchErrorKind, PatchOperation};
use serde_json::Value;

use super::PatchError;
use crate::depth::{self, MAX_DEPTH, TooDeep};

/// The most operations that one JSON patch may have; upstream's figure (apiserver `endpoints/handlers/patch.go`,
/// `maxJSONPatchOperations`).
pub const MAX_OPERATIONS: usize = 10_000;

/// How many bytes all `copy` operations of one patch may add together; upstream's figure (apiserver `server/config.go`,
/// `JSONPatchMaxCopyBytes`).
pub const MAX_COPIED: usize = 3 * 1024 * 1024;

/// Applies a JSON patch (RFC 6902): all of its operations or none.
///
/// # Errors
/// When the patch is no list of operations, one of them fails, or they are too many or copy too much.
pub fn json_patch(document: &Value, operations: &Value) -> Result<Value, PatchError> {
    let operations = operations
        .as_array()
        .ok_or_else(|| malformed("json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"))?;
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    operations.iter().try_for_each(check_types)?;
    let mut result = document.clone();
    let mut bounds = Bounds { depth: depth::of(&result), counted: 0, copied: 0 };
    for (index, operation) in operations.iter().enumerate() {
        let operation = &decode(operation)?;
        bounds.check(&result, operation)?;
        json_patch::patch_unsafe(&mut result, std::slice::from_ref(operation)).map_err(|mut error| {
            error.operation = index;
            let why = error.to_string();
            match error.kind {
                PatchErrorKind::TestFailed => PatchError::TestFailed(why),
                _ => PatchError::Unprocessable(why),
            }
        })?;
    }
    Ok(result)
}

/// Refuses what is no operation at all: no object, or with words that are no strings.
fn check_types(operation: &Value) -> Result<(), PatchError> {
    let fields = operation.as_object().ok_or_else(|| malformed("an operation is an object"))?;
    for name in ["op", "path", "from"] {
        if fields.get(name).is_some_and(|value| !value.is_string() && !value.is_null()) {
            return Err(malformed(&format!("{name} is a string")));
        }
    }
    Ok(())
}

/// Reads an operation. As upstream, one that cannot be carried out does not fit the object, whatever the object is, and a
/// value that is missing is null (`evanphx/json-patch` v4, `patch.go`).
fn decode(operation: &Value) -> Result<PatchOperation, PatchError> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let op = text("op").unwrap_or("unknown");
    let needed: &[&str] = match op {
        "add" | "remove" | "replace" | "test" => &["path"],
        "move" | "copy" => &["from", "path"],
        _ => return Err(PatchError::Unprocessable(format!("Unexpected kind: {op}"))),
    };
    if let Some(missing) = needed.iter().find(|name| text(name).is_none()) {
        let why = format!("{op} operation failed to decode {missing}: missing value");
        return Err(PatchError::Unprocessable(why));
    }
    let mut operation = operation.clone();
    if let Some(fields) = operation.as_object_mut() {
        fields.entry("value").or_insert(Value::Null);
    }
    serde_json::from_value(operation)
        .map_err(|error| PatchError::Unprocessable(format!("{op} operation does not apply: {error}")))
}

fn malformed(why: &str) -> PatchError {
    PatchError::Malformed(format!("error decoding patch: {why}"))
}

/// For how many moves of one patch the depth of what is moved is counted: each costs as much as it is large.
const MAX_COUNTED: usize = 100;

/// What the operations of a patch have made of a document so far.
struct Bounds {
    /// The document is not nested more deeply than this.
    depth: usize,
    counted: usize,
    copied: usize,
}

impl Bounds {
    /// Refuses an operation that would nest the document too deeply, or bring all that is copied above the limit.
    fn check(&mut self, document: &Value, operation: &PatchOperation) -> Result<(), PatchError> {
        let above = operation.path().count();
        match operation {
            PatchOperation::Add(add) => self.nest(above + depth::of(&add.value)),
            PatchOperation::Replace(replace) => self.nest(above + depth::of(&replace.value)),
            PatchOperation::Move(moved) => {
                let mut moved_depth = self.depth.saturating_sub(moved.from.count());
                if above + moved_depth > MAX_DEPTH && self.counted < MAX_COUNTED {
                    self.counted += 1;
                    moved_depth = document.pointer(moved.from.as_str()).map_or(0, depth::of);
                }
                self.nest(above + moved_depth)
            }
            PatchOperation::Copy(copy) => {
                // What leads nowhere is refused by whoever carries it out.
                let Some(value) = document.pointer(copy.from.as_str()) else { return Ok(()) };
                self.copied += size(value);
                let copied = self.copied;
                if copied > MAX_COPIED {
                    return Err(PatchError::Unprocessable(format!(
                        "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED}"
                    )));
                }
                self.nest(above + depth::of(value))
            }
            PatchOperation::Remove(_) | PatchOperation::Test(_) => Ok(()),
        }
    }

    fn nest(&mut self, depth: usize) -> Result<(), PatchError> {
        if depth > MAX_DEPTH {
            return Err(PatchError::Unprocessable(format!("Unable to apply the patch: {TooDeep}")));
        }
        self.depth = self.depth.max(depth);
        Ok(())
    }
}

/// About how many bytes a value has as JSON. A little too much for most; counting exactly would be encoding it.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 4,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| size(item) + 1).sum::<usize>() + 2,
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + size(value) + 4).sum::<usize>() + 2,
    }
}
