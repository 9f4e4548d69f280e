//! DefaultStorageClass: a claim that names no class has the newest of those marked as the default
//! (`plugin/pkg/admission/storage/storageclass/setdefault/admission.go`).

use std::cmp::Reverse;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::status::ApiError;
use registry::admission::{AdmissionPlugin, Attributes, CLAIMS, object_of_mut};
use registry::object::Object;

use crate::common::entry;
use crate::storage::CLASS_ANNOTATION;

const MARKS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// The plugin.
pub(super) struct DefaultStorageClass;

#[async_trait]
impl AdmissionPlugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.creates(CLAIMS)
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Box<dyn Object>>,
        _warnings: &mut Vec<String>,
    ) -> Result<bool, ApiError> {
        let claim: &mut PersistentVolumeClaim = object_of_mut(object)?;
        let spec = claim.spec.get_or_insert_default();
        if spec.storage_class_name.is_some() || entry(&claim.metadata.annotations, CLASS_ANNOTATION).is_some() {
            return Ok(false);
        }
        spec.storage_class_name = default_class(attributes)?;
        Ok(spec.storage_class_name.is_some())
    }
}

/// Whether a class is marked as the default.
pub(crate) fn is_default(meta: &ObjectMeta) -> bool {
    MARKS.iter().any(|mark| entry(&meta.annotations, mark).is_some_and(|value| value == "true"))
}

/// The name of the default class. Classes are few.
fn default_class(attributes: &Attributes<'_>) -> Result<Option<String>, ApiError> {
    let classes = attributes.all_stored::<StorageClass>("storage.k8s.io/storageclasses")?.into_iter();
    let newest = classes.map(|class| class.metadata).filter(is_default).min_by_key(|meta| {
        let created = meta.creation_timestamp.as_ref().map(|time| time.0);
        (Reverse(created), meta.name.clone())
    });
    Ok(newest.and_then(|meta| meta.name))
}
