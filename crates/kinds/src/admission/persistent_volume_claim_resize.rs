//! PersistentVolumeClaimResize: a claim grows only if its class says that it may
//! (`plugin/pkg/admission/storage/persistentvolume/resize/admission.go`).

use async_trait::async_trait;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use machinery::status::ApiError;
use registry::admission::{AdmissionPlugin, Attributes, CLAIMS, object_of};
use registry::object::Object;

use crate::common::text;
use crate::storage::{class_of, requested};

/// The plugin.
pub(super) struct PersistentVolumeClaimResize;

#[async_trait]
impl AdmissionPlugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.updates(CLAIMS)
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let (new, old): (&PersistentVolumeClaim, &PersistentVolumeClaim) =
            (object_of(object)?, object_of(attributes.old)?);
        if requested(new) <= requested(old) {
            return Ok(());
        }
        if old.status.as_ref().is_none_or(|status| text(&status.phase) != "Bound") {
            return Err(attributes.forbidden(new, "Only bound persistent volume claims can be expanded"));
        }
        let class = |claim: &PersistentVolumeClaim| {
            let named = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone());
            class_of(&claim.metadata, &named).to_owned()
        };
        let name = class(new);
        let stored = attributes.stored::<StorageClass>("storage.k8s.io/storageclasses", "", &name)?;
        if name == class(old) && stored.is_some_and(|stored| stored.allow_volume_expansion == Some(true)) {
            return Ok(());
        }
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                   support resize";
        Err(attributes.forbidden(new, why))
    }
}
