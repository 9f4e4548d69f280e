//! The three kinds of patch, on JSON values: [`json_patch()`], [`merge_patch`] and [`strategic_merge_patch`].
//!
//! They take and return whole documents and know nothing of types but the facts in [`crate::api_types`]; what comes out is
//! decoded and validated like any other write.

mod json;
mod order;
mod strategic;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::status::{ApiError, Cause, Reason};

pub use json::{MAX_COPIED, MAX_OPERATIONS, json_patch};
pub use strategic::strategic_merge_patch;

/// Why a patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself makes no sense: 400.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit this object: 422.
    #[error("{0}")]
    Unprocessable(String),
    /// The object is not as an operation tests for: 422.
    #[error("{0}")]
    TestFailed(String),
    /// What is wrong in some other way: 400. Upstream does not judge it, so that it is the server's fault there, 500 (apiserver
    /// `endpoints/handlers/patch.go`, `interpretStrategicMergePatchError`); here no input is.
    #[error("{0}")]
    Unjudged(String),
    /// The patch has too many operations: 413.
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
}

impl From<PatchError> for ApiError {
    fn from(error: PatchError) -> Self {
        match error {
            PatchError::Malformed(message) => Self::bad_request(message),
            // Upstream's message hides what is wrong; a cause tells.
            PatchError::Unprocessable(message) | PatchError::TestFailed(message) => {
                Self::new(422, Reason::Invalid, "the server rejected our request due to an error in our request")
                    .with_cause(Cause { message, ..Cause::default() })
            }
            PatchError::Unjudged(message) => Self::bad_request(message),
            PatchError::TooManyOperations(_) => Self::too_large(error),
        }
    }
}

/// Go's words for a patch that is no object.
fn not_an_object(patch: &Value) -> String {
    let kind = match patch {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null | Value::Object(_) => "null",
    };
    format!("error decoding patch: json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")
}

/// Applies a JSON merge patch (RFC 7386) to an object.
///
/// # Errors
/// When the patch is no object, or the result is nested too deep.
pub fn merge_patch(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed(not_an_object(patch)));
    }
    let mut result = document.clone();
    json_patch::merge(&mut result, patch);
    Ok(result)
}
