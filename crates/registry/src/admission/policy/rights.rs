//! Who writes a policy or binding must have read what its expressions will: an expression must not tell them of objects that they
//! may not see (`pkg/registry/admissionregistration/validatingadmissionpolicy/authz.go`, `.../validatingadmissionpolicybinding/authz.go`).

use k8s_openapi::api::admissionregistration::v1::{
    ParamKind, ParamRef, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use machinery::Verb;
use machinery::field::{ErrorList, FieldError, Path};
use machinery::status::ApiError;

use super::params::{group_version, resource_of};
use super::{BINDINGS, POLICIES};
use crate::Access;
use crate::admission::{Attributes, object_of};
use crate::object::{Object, cast};

/// Whether a policy or binding is written by which somebody could read parameters.
pub(in crate::admission) fn gives_rights(attributes: &Attributes<'_>) -> bool {
    [POLICIES, BINDINGS].into_iter().any(|storage| attributes.creates(storage) || attributes.updates(storage))
}

/// Refuses a policy or binding whose writer may not read the parameters.
///
/// # Errors
/// 422 when they may not.
pub(in crate::admission) fn check_rights(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let (place, why) = if attributes.is_whole(POLICIES) {
        let of = |policy: &ValidatingAdmissionPolicy| policy.spec.as_ref().and_then(|spec| spec.param_kind.clone());
        let kind = of(object_of(object)?);
        let old = attributes.old.map(cast).transpose()?.map(of);
        let Some(kind) = kind.filter(|kind| old.flatten().as_ref() != Some(kind)) else { return Ok(()) };
        ("paramKind", may_read_all(attributes, &kind))
    } else {
        let of = |binding: &ValidatingAdmissionPolicyBinding| binding.spec.clone();
        let new = of(object_of(object)?);
        let old = attributes.old.map(cast).transpose()?.map(of).unwrap_or_default();
        let same = old.policy_name == new.policy_name && old.param_ref == new.param_ref;
        let Some(reference) = new.param_ref.filter(|_| !same) else { return Ok(()) };
        let policy: Option<ValidatingAdmissionPolicy> = attributes.stored(POLICIES, "", &new.policy_name)?;
        let kind = policy.and_then(|policy| policy.spec?.param_kind);
        ("paramRef", may_read(attributes, kind.as_ref(), &reference))
    };
    why.map_err(|why| {
        let errors = ErrorList(vec![FieldError::forbidden(&Path::new("spec").child(place), why)]);
        ApiError::invalid(&attributes.info.group_kind, attributes.object_name(object), &errors)
    })
}

fn may_read_all(attributes: &Attributes<'_>, kind: &ParamKind) -> Result<(), String> {
    ask(attributes, Some(kind), "*", "*").map_err(|_| {
        format!(
            "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
            attributes.user.name,
            kind.kind.as_deref().unwrap_or_default(),
            kind.api_version.as_deref().unwrap_or_default()
        )
    })
}

fn may_read(attributes: &Attributes<'_>, kind: Option<&ParamKind>, reference: &ParamRef) -> Result<(), String> {
    let (namespace, name) = (reference.namespace.as_deref(), reference.name.as_deref());
    ask(attributes, kind, namespace.unwrap_or_default(), name.unwrap_or_default()).map_err(|_| {
        format!("user {} does not have \"get\" permission on the object referenced by paramRef", attributes.user.name)
    })
}

/// Whether the writer may read objects of a kind; of all kinds where it is not known.
fn ask(attributes: &Attributes<'_>, kind: Option<&ParamKind>, namespace: &str, name: &str) -> Result<(), String> {
    let resources = attributes.registry.resources();
    let (group, version) = kind.map_or(("*", "*"), group_version);
    let resource = kind.and_then(|kind| resource_of(&resources, kind)).map_or("*", |row| row.info().plural.as_str());
    attributes.may(&Access { verb: Verb::Get, group, version, resource, subresource: "", namespace, name })
}
