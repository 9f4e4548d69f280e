//! The parameters of a binding: objects of the kind that its policy names
//! (`staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/generic/policy_dispatcher.go`, `CollectParams`).

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{ParamKind, ParamRef};
use machinery::expression::Value;
use serde_json::Value as Json;
use store::Entry;

use crate::Registry;
use crate::admission::Attributes;
use crate::admission::scope::selector;
use crate::object::Object;
use crate::request::Target;
use crate::table::{Resource, Resources};

/// An object with parameters, as it is stored; nothing where a binding has none.
pub(in crate::admission) struct Params(Option<(Resource, Arc<Entry>)>);

impl Params {
    /// The value of the variable `params`.
    ///
    /// # Errors
    /// Why the object cannot be read.
    pub(in crate::admission) fn value(&self, registry: &Registry) -> Result<Value, String> {
        let Some((resource, entry)) = &self.0 else { return Ok(Value::plain(&Json::Null)) };
        let body = registry.body(resource, entry).map_err(|error| error.to_string())?;
        let json: Json = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        Ok(Value::plain(&json))
    }

    /// The namespace and the name of the object.
    pub(in crate::admission) fn name(&self) -> (&str, &str) {
        self.0.as_ref().map_or(("", ""), |(_, entry)| (&*entry.key.namespace, &*entry.key.name))
    }
}

/// The objects that a policy is asked with, each by itself; one that is nothing where there are no parameters, and none at all
/// where the binding refers to none and that is to be allowed.
///
/// # Errors
/// Why the binding cannot be used.
pub(super) fn collect(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
    kind: Option<&ParamKind>,
    reference: Option<&ParamRef>,
) -> Result<Vec<Params>, String> {
    let (Some(kind), Some(reference)) = (kind, reference) else { return Ok(vec![Params(None)]) };
    let registry = attributes.registry;
    let resources = registry.resources();
    let resource = resource_of(&resources, kind).ok_or_else(|| unknown(kind))?;
    let asked = reference.namespace.as_deref().unwrap_or_default();
    let namespace = match (resource.info().namespaced(), asked, attributes.request_namespace(object)) {
        (true, "", "") => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned()
            );
        }
        (true, "", namespace) | (true, namespace, _) => namespace,
        (false, "", _) => "",
        (false, ..) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
        }
    };
    let found: Vec<Arc<Entry>> = match (reference.name.as_deref().unwrap_or_default(), &reference.selector) {
        ("", None) => return Err("one of name or selector must be provided".to_owned()),
        ("", Some(labels)) => {
            let labels = selector(Some(labels.clone())).map_err(|error| error.to_string())?;
            let selected = |entry: &&Arc<Entry>| labels.matches_by(|name| entry.attributes.label(name));
            let snapshot = registry.store().snapshot(&resource.info().storage);
            let within = (!namespace.is_empty()).then_some(namespace);
            snapshot.range(within, None).filter(selected).cloned().collect()
        }
        (name, _) => registry.lookup(&Target::object(resource, namespace, name)).into_iter().collect(),
    };
    if found.is_empty() && reference.parameter_not_found_action.as_deref() == Some("Deny") {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found.into_iter().map(|entry| Params(Some((Resource::clone(resource), entry)))).collect())
}

/// The resource whose objects are of that kind.
pub(super) fn resource_of<'r>(resources: &'r Resources, kind: &ParamKind) -> Option<&'r Resource> {
    let (group, version) = group_version(kind);
    resources.by_kind(group, version, kind.kind.as_deref().unwrap_or_default())
}

/// The group and version that parameters are of.
pub(super) fn group_version(kind: &ParamKind) -> (&str, &str) {
    let api_version = kind.api_version.as_deref().unwrap_or_default();
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Why a policy cannot be used: nothing that is served is of the kind of its parameters.
pub(super) fn missing_kind(attributes: &Attributes<'_>, kind: Option<&ParamKind>) -> Option<String> {
    let kind = kind?;
    resource_of(&attributes.registry.resources(), kind).is_none().then(|| unknown(kind))
}

fn unknown(kind: &ParamKind) -> String {
    let (group, version) = group_version(kind);
    let kind = kind.kind.as_deref().unwrap_or_default();
    format!("failed to find resource referenced by paramKind: '{group}/{version}, Kind={kind}'")
}
