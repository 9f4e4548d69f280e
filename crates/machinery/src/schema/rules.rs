//! Which schemas a definition may have: upstream's rules and texts.
//!
//! There are two sets of rules. A schema must be *structural*: each field has its type outside of `allOf`, `anyOf`, `oneOf`
//! and `not`, so that pruning and defaulting have one answer. And each node must make sense by itself.

mod expressions;
mod nodes;
mod structural;
mod work;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use super::Schema;
use crate::field::{ErrorList, FieldError, Path};

pub use work::Work;

/// Whether a schema may cost more than it may: its rules, when they are evaluated, and all of it, when it is compiled.
#[derive(Debug)]
pub enum Costs<'a> {
    /// It may not. What it takes to compile counts with the other schemas of its definition.
    Limited(&'a mut Work),
    /// It may: the same schema was accepted before.
    Accepted,
}

/// What is wrong with a schema at `path` (`spec.versions[0].schema.openAPIV3Schema`).
pub fn check(props: &JSONSchemaProps, path: &Path, costs: Costs<'_>) -> ErrorList {
    let mut errors = structural::check(props, path);
    let mut unlimited = Work::unlimited();
    let (work, limited) = match costs {
        Costs::Limited(work) => (work, true),
        Costs::Accepted => (&mut unlimited, false),
    };
    errors.0.extend(work.expressions(props, path));
    if errors.is_empty() {
        let schema = Schema::parse(props);
        expressions::check(props, &schema, path, limited, &mut errors);
        defaults(props, path, true, false, &mut errors);
    }
    nodes::check(props, path, nodes::Context::root(), work, &mut errors);
    errors
}

/// Defaults must be values their own schema accepts.
fn defaults(props: &JSONSchemaProps, path: &Path, whole: bool, in_meta: bool, errors: &mut ErrorList) {
    if let (Some(JSON(default)), false) = (&props.default, in_meta) {
        let schema = Schema::without_rules(props);
        let path = path.child("default");
        if schema.prune_value(&mut default.clone()) {
            errors.push(FieldError::invalid(&path, default, "must not have unknown fields"));
        }
        errors.extend(schema.validate_value(default).into_iter().map(|mut error| {
            error.field = match error.field.as_str() {
                "<nil>" => path.to_string(),
                below => format!("{path}.{below}"),
            };
            error
        }));
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &props.items {
        defaults(items, &path.child("items"), is_true(items.x_kubernetes_embedded_resource), in_meta, errors);
    }
    for (name, property) in props.properties.iter().flatten() {
        let in_meta = in_meta || (whole && is_meta(name));
        let path = path.child("properties").key(name);
        defaults(property, &path, is_true(property.x_kubernetes_embedded_resource), in_meta, errors);
    }
}

/// Fields every whole object has, whatever its schema says.
fn is_meta(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

use super::parse::is_true;

fn type_of(props: &JSONSchemaProps) -> &str {
    props.type_.as_deref().unwrap_or_default()
}

fn additional(props: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &props.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(schema)) => Some(schema),
        _ => None,
    }
}

fn items(props: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &props.items {
        Some(JSONSchemaPropsOrArray::Schema(schema)) => Some(schema),
        _ => None,
    }
}

fn is_empty<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}
