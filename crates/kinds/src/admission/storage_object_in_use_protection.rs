//! StorageObjectInUseProtection: a new claim or volume has a finalizer that keeps it as long as somebody uses it
//! (`plugin/pkg/admission/storage/storageobjectinuseprotection/admission.go`).

use async_trait::async_trait;
use machinery::status::ApiError;
use registry::admission::{AdmissionPlugin, Attributes, CLAIMS, no_object};
use registry::object::Object;

const VOLUMES: &str = "core/persistentvolumes";

/// The plugin.
pub(super) struct StorageObjectInUseProtection;

#[async_trait]
impl AdmissionPlugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.creates(CLAIMS) || attributes.creates(VOLUMES)
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Box<dyn Object>>,
        _warnings: &mut Vec<String>,
    ) -> Result<bool, ApiError> {
        let is_claim = attributes.creates(CLAIMS);
        let finalizer = if is_claim { "kubernetes.io/pvc-protection" } else { "kubernetes.io/pv-protection" };
        let finalizers = object.ok_or_else(no_object)?.meta_mut().finalizers.get_or_insert_default();
        let missing = !finalizers.iter().any(|present| present == finalizer);
        if missing {
            finalizers.push(finalizer.to_owned());
        }
        Ok(missing)
    }
}
