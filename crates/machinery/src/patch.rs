//! The three kinds of patch, on JSON values.
use serde_json::Value;

/// Why a patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself makes no sense: 400.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit this object: 422.
    #[error("{0}")]
    Unprocessable(String),
}

/// Applies a JSON patch (RFC 6902).
pub fn json_patch(document: &Value, operations: &Value) -> Result<Value, PatchError> {
    let _ = (document, operations);
    Err(PatchError::Malformed(String::new()))
}

/// Applies a JSON merge patch (RFC 7386).
pub fn merge_patch(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    let _ = (document, patch);
    Err(PatchError::Malformed(String::new()))
}

/// Applies a strategic merge patch to an object of the type with this OpenAPI definition name.
pub fn strategic_merge_patch(
    document: &Value,
    patch: &Value,
    definition: &str,
) -> Result<Value, PatchError> {
    let _ = (document, patch, definition);
    Err(PatchError::Malformed(String::new()))
}
