//! NamespaceLifecycle: nothing is created in a namespace that is missing or going away
//! (`staging/src/k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle/admission.go`).

use std::sync::Arc;

use async_trait::async_trait;
use machinery::status::{ApiError, Cause};
use store::{Entry, Op, Precondition};

use super::{AdmissionPlugin, Attributes, Operation};
use crate::object::Object;
use crate::request::Target;

/// The admission plugin of that name. That the namespace is still there is a condition of the commit as well.
pub struct NamespaceLifecycle;

#[async_trait]
impl AdmissionPlugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        // Upstream: whether somebody may do something can be asked of any namespace (`isAccessReview`).
        let is_review = attributes.info.group == "authorization.k8s.io";
        let creates = attributes.operation == Operation::Create && attributes.subresource.is_none();
        creates && !attributes.namespace.is_empty() && !is_review
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Box<dyn Object>>,
        _warnings: &mut Vec<String>,
    ) -> Result<bool, ApiError> {
        active(attributes, object.map(|object| &**object)).map(|_| false)
    }

    fn charge(&self, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> Result<Vec<Op>, ApiError> {
        let namespace = active(attributes, object)?;
        Ok(vec![Op::Check { key: namespace.key.clone(), precondition: Precondition::Revision(namespace.revision) }])
    }
}

/// The namespace, if objects can be created in it.
fn active(attributes: &Attributes<'_>, object: Option<&dyn Object>) -> Result<Arc<Entry>, ApiError> {
    let resources = attributes.registry.resources();
    let namespaces = resources.get("", "v1", "namespaces").ok_or_else(ApiError::no_such_resource)?;
    let namespace = attributes.registry.find(&Target::object(namespaces, "", attributes.namespace))?;
    if namespace.attributes.field("status.phase") == Some("Terminating") {
        return Err(terminating(attributes, object));
    }
    Ok(namespace)
}

fn terminating(attributes: &Attributes<'_>, object: Option<&dyn Object>) -> ApiError {
    let namespace = attributes.namespace;
    ApiError::forbidden(
        &attributes.info.group_resource,
        attributes.object_name(object),
        format!("unable to create new content in namespace {namespace} because it is being terminated"),
    )
    .with_cause(Cause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".into(),
    })
}
