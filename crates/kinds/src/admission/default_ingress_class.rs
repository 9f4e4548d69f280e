//! DefaultIngressClass: an Ingress that names no class has the newest of those marked as the default
//! (`plugin/pkg/admission/network/defaultingressclass/admission.go`).

use std::cmp::Reverse;

use async_trait::async_trait;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::status::ApiError;
use registry::admission::{AdmissionPlugin, Attributes, object_of_mut};
use registry::object::Object;

use crate::common::entry;
use crate::networking::CLASS_ANNOTATION;

const MARK: &str = "ingressclass.kubernetes.io/is-default-class";

/// The plugin.
pub(super) struct DefaultIngressClass;

#[async_trait]
impl AdmissionPlugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.creates("networking.k8s.io/ingresses")
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Box<dyn Object>>,
        _warnings: &mut Vec<String>,
    ) -> Result<bool, ApiError> {
        let ingress: &mut Ingress = object_of_mut(object)?;
        let spec = ingress.spec.get_or_insert_default();
        if spec.ingress_class_name.is_some() || entry(&ingress.metadata.annotations, CLASS_ANNOTATION).is_some() {
            return Ok(false);
        }
        spec.ingress_class_name = default_class(attributes)?;
        Ok(spec.ingress_class_name.is_some())
    }
}

/// The name of the default class. Classes are few.
fn default_class(attributes: &Attributes<'_>) -> Result<Option<String>, ApiError> {
    let classes = attributes.all_stored::<IngressClass>("networking.k8s.io/ingressclasses")?.into_iter();
    let marked = |meta: &ObjectMeta| entry(&meta.annotations, MARK).is_some_and(|value| value == "true");
    let newest = classes.map(|class| class.metadata).filter(marked).min_by_key(|meta| {
        let created = meta.creation_timestamp.as_ref().map(|time| time.0);
        (Reverse(created), meta.name.clone())
    });
    Ok(newest.and_then(|meta| meta.name))
}
