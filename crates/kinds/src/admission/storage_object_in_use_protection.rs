//! StorageObjectInUseProtection: a new claim, volume or VolumeAttributesClass has a finalizer that keeps it as long as somebody uses it
//! (`plugin/pkg/admission/storage/storageobjectinuseprotection/admission.go`).

use async_trait::async_trait;
use machinery::status::ApiError;
use registry::admission::{AdmissionPlugin, Attributes, CLAIMS, no_object};
use registry::object::Object;

use crate::storage::ATTRIBUTES_CLASSES;

/// The finalizer that the objects of a resource get.
const FINALIZERS: [(&str, &str); 3] = [
    (CLAIMS, "kubernetes.io/pvc-protection"),
    ("core/persistentvolumes", "kubernetes.io/pv-protection"),
    (ATTRIBUTES_CLASSES, "kubernetes.io/vac-protection"),
];

/// The plugin.
pub(super) struct StorageObjectInUseProtection;

#[async_trait]
impl AdmissionPlugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        finalizer(attributes).is_some()
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Box<dyn Object>>,
        _warnings: &mut Vec<String>,
    ) -> Result<bool, ApiError> {
        let Some(finalizer) = finalizer(attributes) else { return Ok(false) };
        let finalizers = object.ok_or_else(no_object)?.meta_mut().finalizers.get_or_insert_default();
        let missing = !finalizers.iter().any(|present| present == finalizer);
        if missing {
            finalizers.push(finalizer.to_owned());
        }
        Ok(missing)
    }
}

/// The finalizer of what is created, if it gets one.
fn finalizer(attributes: &Attributes<'_>) -> Option<&'static str> {
    FINALIZERS.iter().find(|(storage, _)| attributes.creates(storage)).map(|(_, finalizer)| *finalizer)
}
