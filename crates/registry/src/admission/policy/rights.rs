//! Who writes a policy or binding must have read what its expressions will: an expression must not tell them of objects that they
//! may not see (`pkg/registry/admissionregistration/validatingadmissionpolicy/authz.go`, `.../validatingadmissionpolicybinding/authz.go`,
//! and the same of the mutating ones).

use k8s_openapi::api::admissionregistration::v1::{ParamKind, ParamRef};
use machinery::Verb;
use machinery::field::{ErrorList, FieldError, Path};
use machinery::status::ApiError;

use super::Rules;
use super::params::{group_version, resource_of};
use crate::Access;
use crate::admission::{Attributes, object_of};
use crate::object::{Object, cast};

/// Whether a policy of a kind, or a binding, is written by which somebody could read parameters.
pub(in crate::admission) fn gives_rights<R: Rules>(attributes: &Attributes<'_>) -> bool {
    [R::POLICIES, R::BINDINGS].into_iter().any(|storage| attributes.creates(storage) || attributes.updates(storage))
}

/// Refuses a policy or binding whose writer may not read the parameters.
///
/// # Errors
/// 422 when they may not.
pub(in crate::admission) fn check_rights<R: Rules>(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let (place, why) = if attributes.is_whole(R::POLICIES) {
        let kind = R::param_kind(object_of(object)?);
        let old = attributes.old.map(cast::<R::Policy>).transpose()?.and_then(R::param_kind);
        let Some(kind) = kind.filter(|kind| old != Some(*kind)) else { return Ok(()) };
        ("paramKind", may_read_all(attributes, kind))
    } else {
        let new = R::references(object_of(object)?);
        let old = attributes.old.map(cast::<R::Binding>).transpose()?.map(R::references);
        let (name, Some(reference)) = new else { return Ok(()) };
        if old == Some(new) {
            return Ok(());
        }
        let policy: Option<R::Policy> = attributes.stored(R::POLICIES, "", name)?;
        let kind = policy.as_ref().and_then(R::param_kind);
        ("paramRef", may_read(attributes, kind, reference))
    };
    why.map_err(|why| {
        let errors = ErrorList(vec![FieldError::forbidden(&Path::new("spec").child(place), why)]);
        ApiError::invalid(&attributes.info.group_kind, attributes.object_name(object), &errors)
    })
}

fn may_read_all(attributes: &Attributes<'_>, kind: &ParamKind) -> Result<(), String> {
    ask(attributes, Verb::Get, Some(kind), "*", "*").map_err(|_| {
        format!(
            "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
            attributes.user.name,
            kind.kind.as_deref().unwrap_or_default(),
            kind.api_version.as_deref().unwrap_or_default()
        )
    })
}

fn may_read(attributes: &Attributes<'_>, kind: Option<&ParamKind>, reference: &ParamRef) -> Result<(), String> {
    let (namespace, name) = (reference.namespace.as_deref(), reference.name.as_deref().unwrap_or_default());
    let verb = if name.is_empty() { Verb::List } else { Verb::Get };
    ask(attributes, verb, kind, namespace.unwrap_or_default(), name).map_err(|_| {
        let user = &attributes.user.name;
        format!("user {user} does not have \"{verb}\" permission on the object referenced by paramRef")
    })
}

/// Whether the writer may read objects of a kind; of all kinds where it is not known.
fn ask(
    attributes: &Attributes<'_>,
    verb: Verb<'_>,
    kind: Option<&ParamKind>,
    namespace: &str,
    name: &str,
) -> Result<(), String> {
    let resources = attributes.registry.resources();
    let (group, version) = kind.map_or(("*", "*"), group_version);
    let resource = kind.and_then(|kind| resource_of(&resources, kind)).map_or("*", |row| row.info().plural.as_str());
    attributes.may(&Access { verb, group, version, resource, subresource: "", namespace, name })
}
