//! networking.k8s.io/v1 IngressClass.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IngressClass as Object, IngressClassParametersReference, IngressClassSpec};
use machinery::field::{ErrorList, FieldError, Path};
use machinery::validate;
use registry::kind::{Column, Descriptor, Kind, cell_age, cell_name, generation_of};
use serde_json::Value;

use crate::check::{Report, dns_label, dns_subdomain, immutable, one_of};
use crate::common::{blank, default_text, text};

/// The longest name of a controller, in bytes.
const CONTROLLER_MAX: usize = 250;

/// IngressClasses.
pub(crate) struct IngressClass;

impl Kind for IngressClass {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor::cluster("networking.k8s.io", "v1", "IngressClass", "ingressclasses");

    fn default(object: &mut Object) {
        if let Some(parameters) = &mut object.spec.get_or_insert_default().parameters {
            default_text(&mut parameters.scope, "Cluster");
        }
    }

    generation_of!(spec);

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let empty = IngressClassSpec::default();
        let (path, spec) = (Path::new("spec"), object.spec.as_ref().unwrap_or(&empty));
        controller(&mut errors, &path.child("controller"), text(&spec.controller));
        if let Some(reference) = &spec.parameters {
            parameters(&mut errors, &path.child("parameters"), reference);
        }
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let controller = |object: &Object| object.spec.as_ref().and_then(|spec| spec.controller.clone());
        immutable(&mut errors, &Path::new("spec").child("controller"), &controller(new), &controller(old));
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("Controller", "Who serves Ingresses of the class."),
            Column::string("Parameters", "Where the controller finds more about the class."),
            Column::age(),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = object.spec.as_ref();
        let parameters = spec.and_then(|spec| spec.parameters.as_ref()).map(|parameters| {
            let group = parameters.api_group.as_ref().map(|group| format!(".{group}")).unwrap_or_default();
            format!("{}{group}/{}", parameters.kind, parameters.name)
        });
        vec![
            cell_name(&object.metadata),
            spec.map_or("", |spec| text(&spec.controller)).into(),
            parameters.unwrap_or_else(|| "<none>".to_owned()).into(),
            cell_age(&object.metadata, now),
        ]
    }
}

fn controller(errors: &mut ErrorList, path: &Path, value: &str) {
    if value.len() > CONTROLLER_MAX {
        errors.push(FieldError::too_long(path, value, CONTROLLER_MAX));
    }
    if value.is_empty() {
        errors.required(path, "");
        return;
    }
    match value.split_once('/') {
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            errors.messages(path, domain, validate::dns_subdomain(domain));
        }
        _ => errors.invalid(path, value, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
}

/// Validates what a reference to any object says of it.
pub(super) fn referenced(errors: &mut ErrorList, path: &Path, group: &Option<String>, kind: &str, name: &str) {
    if let Some(group) = group {
        dns_subdomain(errors, &path.child("apiGroup"), group);
    }
    for (field, value) in [("kind", kind), ("name", name)] {
        if value.is_empty() {
            errors.required(&path.child(field), "");
        }
        errors.messages(&path.child(field), value, validate::path_segment(value));
    }
}

fn parameters(errors: &mut ErrorList, path: &Path, reference: &IngressClassParametersReference) {
    referenced(errors, path, &reference.api_group, &reference.kind, &reference.name);
    let scope = text(&reference.scope);
    one_of(errors, &path.child("scope"), scope, &["Cluster", "Namespace"]);
    let field = path.child("namespace");
    match scope {
        "Namespace" if blank(&reference.namespace) => {
            errors.required(&field, "`parameters.scope` is set to 'Namespace'");
        }
        "Namespace" => dns_label(errors, &field, text(&reference.namespace)),
        "Cluster" if reference.namespace.is_some() => {
            errors.forbidden(&field, "`parameters.scope` is set to 'Cluster'");
        }
        _ => {}
    }
}
