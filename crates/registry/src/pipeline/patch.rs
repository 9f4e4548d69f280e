//! Of step 1: the patches of a PATCH, but for server-side apply.

use machinery::patch;
use machinery::status::ApiError;
use serde_json::Value;

use crate::decode;
use crate::request::PatchType;

/// A patch as it was sent.
pub(crate) struct Patch {
    patch_type: PatchType,
    patch: Value,
}

impl Patch {
    /// Reads a patch.
    ///
    /// # Errors
    /// 400 when it is no JSON.
    pub(crate) fn read(patch_type: PatchType, patch: &[u8]) -> Result<Self, ApiError> {
        let read = serde_json::from_slice(patch).map_err(|error| {
            let why = decode::syntax_error(&error, patch);
            ApiError::bad_request(format!("error decoding patch: {why}"))
        });
        Ok(Self { patch_type, patch: read? })
    }

    /// Whether the patch asks for a version of the object: then a conflict is the answer, and trying again useless.
    pub(crate) fn is_conditional(&self) -> bool {
        let pointer = "/metadata/resourceVersion";
        match self.patch_type {
            PatchType::Merge | PatchType::Strategic => self.patch.pointer(pointer).is_some_and(Value::is_string),
            PatchType::Json => self.has_path(|path| path == pointer),
            PatchType::Apply => false,
        }
    }

    /// Whether the patch looks at or changes `managedFields`.
    pub(crate) fn is_about_managed_fields(&self) -> bool {
        let pointer = "/metadata/managedFields";
        match self.patch_type {
            PatchType::Json => self.has_path(|path| matches!(path, "" | "/metadata") || path.starts_with(pointer)),
            _ => self.patch.pointer(pointer).is_some(),
        }
    }

    fn has_path(&self, is: impl Fn(&str) -> bool) -> bool {
        let paths = |operation: &Value| ["path", "from"].iter().any(|key| operation[*key].as_str().is_some_and(&is));
        self.patch.as_array().is_some_and(|operations| operations.iter().any(paths))
    }

    /// The patched document.
    pub(crate) fn apply(&self, current: &[u8], openapi_name: &str) -> Result<Vec<u8>, ApiError> {
        let current: Value = serde_json::from_slice(current).map_err(ApiError::internal)?;
        let patched = match self.patch_type {
            PatchType::Json => patch::json_patch(&current, &self.patch),
            // An apply does not come here.
            PatchType::Merge | PatchType::Apply => patch::merge_patch(&current, &self.patch),
            PatchType::Strategic => patch::strategic_merge_patch(&current, &self.patch, openapi_name),
        };
        let patched = patched.map_err(ApiError::from)?;
        serde_json::to_vec(&patched).map_err(ApiError::internal)
    }
}
