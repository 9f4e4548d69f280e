//! OwnerReferencesPermissionEnforcement: nobody has objects deleted, or the deletion of owners held up, by owner references who
//! could not do so themselves (`plugin/pkg/admission/gc/gc_admission.go`).

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use machinery::Verb;
use machinery::status::ApiError;
use registry::Access;
use registry::admission::{AdmissionPlugin, Attributes, Operation, PODS, no_object};
use registry::kind::Subresource;
use registry::object::Object;

use crate::common::list;

/// The plugin.
pub(super) struct OwnerReferencesPermissionEnforcement;

#[async_trait]
impl AdmissionPlugin for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        // The strategy of pods does not let a write of the status touch their owners.
        let is_status_of_pod = attributes.subresource == Some(Subresource::Status) && &*attributes.info.storage == PODS;
        matches!(attributes.operation, Operation::Create | Operation::Update) && !is_status_of_pod
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let object = object.ok_or_else(no_object)?;
        let new = list(&object.meta().owner_references);
        let old = attributes.old.map_or(&[][..], |old| list(&old.meta().owner_references));
        if new == old {
            return Ok(());
        }
        // Who creates an object may say whose it is.
        if attributes.operation != Operation::Create
            && let Err(reason) = attributes.may(&deletion_of(attributes))
        {
            let why = format!("cannot set an ownerRef on a resource you can't delete: {reason}, <nil>");
            return Err(attributes.forbidden(object, why));
        }
        for owner in
            new.iter().filter(|owner| blocks(owner) && !old.iter().any(|old| old.uid == owner.uid && blocks(old)))
        {
            may_block(attributes, owner).map_err(|why| attributes.forbidden(object, why))?;
        }
        Ok(())
    }
}

/// Whether the owner cannot go, when its dependents are to go first, before the object that names it.
fn blocks(owner: &OwnerReference) -> bool {
    owner.block_owner_deletion == Some(true)
}

/// The right to delete the object of a request.
fn deletion_of<'a>(attributes: &'a Attributes<'_>) -> Access<'a> {
    Access {
        verb: Verb::Delete,
        group: &attributes.info.group,
        version: &attributes.info.version,
        resource: &attributes.info.plural,
        subresource: attributes.subresource.map_or("", Subresource::name),
        namespace: attributes.namespace,
        name: attributes.name,
    }
}

/// Whether the user may hold up the deletion of an owner, which is to set finalizers on it; why not.
fn may_block(attributes: &Attributes<'_>, owner: &OwnerReference) -> Result<(), String> {
    let (group, version) = owner.api_version.rsplit_once('/').unwrap_or(("", &owner.api_version));
    let resources = attributes.registry.resources();
    let Some(resource) = resources.by_kind(group, version, &owner.kind) else {
        let (version, kind) = (&owner.api_version, &owner.kind);
        return Err(format!(
            "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {version} Kind {kind}: \
             no matches for kind {kind:?} in version {version:?}"
        ));
    };
    let info = resource.info();
    let access = Access {
        verb: Verb::Update,
        group: &info.group,
        version: &info.version,
        resource: &info.plural,
        subresource: "finalizers",
        // An owner is in the namespace of the object, or in none.
        namespace: if info.namespaced() { attributes.namespace } else { "" },
        name: &owner.name,
    };
    attributes.may(&access).map_err(|reason| {
        format!(
            "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {reason}, <nil>"
        )
    })
}
