//! RuntimeClass: a pod costs what its runtime class says, and runs where that can
//! (`plugin/pkg/admission/runtimeclass/admission.go`).

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::api::node::v1::RuntimeClass as Class;
use machinery::status::ApiError;
use registry::admission::{AdmissionPlugin, Attributes, PODS, object_of, object_of_mut};
use registry::object::Object;

use crate::common::text;

/// The plugin.
pub(super) struct RuntimeClass;

#[async_trait]
impl AdmissionPlugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.creates(PODS)
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Box<dyn Object>>,
        _warnings: &mut Vec<String>,
    ) -> Result<bool, ApiError> {
        let pod: &mut Pod = object_of_mut(object)?;
        let spec = pod.spec.get_or_insert_default();
        let Some(class) = class_of(spec, attributes)? else { return Ok(false) };
        take(spec, class);
        Ok(true)
    }

    /// Upstream refuses what its first half could not do; here all else that is wrong is said before.
    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let pod: &Pod = object_of(object)?;
        let Some(spec) = pod.spec.as_ref().filter(|spec| !text(&spec.runtime_class_name).is_empty()) else {
            return Ok(());
        };
        let Some(class) = class_of(spec, attributes)? else {
            let name = text(&spec.runtime_class_name);
            return Err(attributes.forbidden(pod, format!("pod rejected: RuntimeClass \"{name}\" not found")));
        };
        if spec.overhead.is_some() && spec.overhead != class.overhead.and_then(|overhead| overhead.pod_fixed) {
            let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
            return Err(attributes.forbidden(pod, why));
        }
        Ok(())
    }
}

fn class_of(spec: &PodSpec, attributes: &Attributes<'_>) -> Result<Option<Class>, ApiError> {
    match text(&spec.runtime_class_name) {
        "" => Ok(None),
        name => attributes.stored("node.k8s.io/runtimeclasses", "", name),
    }
}

/// Gives a pod what its class says about its pods: what they cost, and where they can run.
fn take(spec: &mut PodSpec, class: Class) {
    if let Some(overhead) = class.overhead
        && spec.overhead.is_none()
    {
        spec.overhead = overhead.pod_fixed;
    }
    if let Some(scheduling) = class.scheduling {
        let selector = scheduling.node_selector.unwrap_or_default();
        if !selector.is_empty() {
            spec.node_selector.get_or_insert_default().extend(selector);
        }
        for toleration in scheduling.tolerations.unwrap_or_default() {
            let present = spec.tolerations.get_or_insert_default();
            if !present.contains(&toleration) {
                present.push(toleration);
            }
        }
    }
}
