//! What each node of a schema must fulfil by itself.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, JSONSchemaPropsOrStringArray, ValidationRule,
};

use super::work::Work;
use super::{additional, is_empty, is_meta, is_true, items, type_of};
use crate::field::{ErrorList, FieldError, Path};
use crate::schema::Type;

/// What the way to a node means for it.
#[derive(Clone)]
pub(super) struct Context {
    root: bool,
    in_meta: bool,
    /// Why there may be no default.
    no_default: Option<String>,
}

impl Context {
    /// At the root of an object.
    pub(super) fn root() -> Self {
        Self { root: true, in_meta: false, no_default: None }
    }

    fn below(&self) -> Self {
        Self { root: false, ..self.clone() }
    }
}

/// Adds what is wrong with a node and those below it.
pub(super) fn check(props: &JSONSchemaProps, path: &Path, context: Context, work: &mut Work, errors: &mut ErrorList) {
    let forbid = |errors: &mut ErrorList, field: &'static str, detail: &str| {
        errors.push(FieldError::forbidden(&path.child(field), detail));
    };
    unsupported(props, path, &context, work, errors);
    if is_true(props.unique_items) {
        forbid(
            errors,
            "uniqueItems",
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        );
    }
    if let Some(values) = &props.additional_properties {
        let has_properties = props.properties.as_ref().is_some_and(|properties| !properties.is_empty());
        if has_properties && !matches!(values, JSONSchemaPropsOrBool::Bool(true)) {
            forbid(errors, "additionalProperties", "additionalProperties and properties are mutual exclusive");
        }
    }
    if let Some(values) = additional(props) {
        let mut context = context.below();
        if context.in_meta {
            context.no_default = Some("inside additionalProperties applying to object metadata".to_owned());
        }
        check(values, &path.child("additionalProperties"), context, work, errors);
    }
    for (name, property) in props.properties.iter().flatten() {
        let mut below = context.below();
        if is_meta(name) && (context.root || is_true(props.x_kubernetes_embedded_resource)) {
            below.in_meta = true;
            if context.root {
                below.no_default = Some(format!("in top-level {name}"));
            }
        }
        check(property, &path.child("properties").key(name), below, work, errors);
    }
    if let Some(rule) = &props.not {
        check(rule, &path.child("not"), context.below(), work, errors);
    }
    for (field, rules) in [("allOf", &props.all_of), ("oneOf", &props.one_of), ("anyOf", &props.any_of)] {
        for (index, rule) in rules.iter().flatten().enumerate() {
            check(rule, &path.child(field).index(index), context.below(), work, errors);
        }
    }
    if let Some(schema) = items(props) {
        check(schema, &path.child("items"), context.below(), work, errors);
    }
    if props.x_kubernetes_preserve_unknown_fields == Some(false) {
        let path = path.child("x-kubernetes-preserve-unknown-fields");
        errors.push(FieldError::invalid(&path, false, "must be true or undefined"));
    }
    if let Some(text) = props.pattern.as_deref().filter(|text| !text.is_empty()) {
        work.pattern(text, path, errors);
    }
    map_type(props, path, errors);
    list_type(props, path, errors);
    for (index, rule) in props.x_kubernetes_validations.iter().flatten().enumerate() {
        validation_rule(rule, &path.child("x-kubernetes-validations").index(index), errors);
    }
}

/// What JSON schema has and a definition may not use.
fn unsupported(props: &JSONSchemaProps, path: &Path, context: &Context, work: &mut Work, errors: &mut ErrorList) {
    let kind = type_of(props);
    if !kind.is_empty() && Type::from_name(kind).is_none() {
        let known = Type::ALL.map(Type::name);
        errors.push(FieldError::not_supported(&path.child("type"), kind, &known));
    }
    if let (true, Some(why)) = (props.default.is_some(), &context.no_default) {
        errors.push(FieldError::forbidden(&path.child("default"), format!("must not be set {why}")));
    }
    let set = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let has_list = matches!(&props.items, Some(JSONSchemaPropsOrArray::Schemas(list)) if !list.is_empty());
    for (present, field, detail) in [
        (set(&props.id), "id", "id is not supported"),
        (props.additional_items.is_some(), "additionalItems", "additionalItems is not supported"),
        (
            props.pattern_properties.as_ref().is_some_and(|all| !all.is_empty()),
            "patternProperties",
            "patternProperties is not supported",
        ),
        (props.definitions.as_ref().is_some_and(|all| !all.is_empty()), "definitions", "definitions is not supported"),
        (props.dependencies.is_some(), "dependencies", "dependencies is not supported"),
        (props.ref_path.is_some(), "$ref", "$ref is not supported"),
        (kind == "null", "type", "type cannot be set to null, use nullable as an alternative"),
        (has_list, "items", "items must be a schema object and not an array"),
        (
            context.in_meta && is_true(props.x_kubernetes_embedded_resource),
            "x-kubernetes-embedded-resource",
            "must not be used inside of resource meta",
        ),
    ] {
        if present {
            errors.push(FieldError::forbidden(&path.child(field), detail));
        }
    }
    for (name, dependency) in props.dependencies.iter().flatten() {
        if let JSONSchemaPropsOrStringArray::Schema(schema) = dependency {
            check(schema, &path.child("dependencies").key(name), context.below(), work, errors);
        }
    }
}

/// The type a node must have, since it says how values of that type are merged.
fn must_be(props: &JSONSchemaProps, kind: &str, field: &str, path: &Path, errors: &mut ErrorList) {
    let path = path.child("type");
    let detail = format!("must be {kind} if {field} is specified");
    match type_of(props) {
        found if found == kind => {}
        "" => errors.push(FieldError::required(&path, detail)),
        found => errors.push(FieldError::invalid(&path, found, detail)),
    }
}

fn map_type(props: &JSONSchemaProps, path: &Path, errors: &mut ErrorList) {
    const FIELD: &str = "x-kubernetes-map-type";
    let Some(map_type) = props.x_kubernetes_map_type.as_deref() else { return };
    must_be(props, "object", FIELD, path, errors);
    if !matches!(map_type, "atomic" | "granular") {
        errors.push(FieldError::not_supported(&path.child(FIELD), map_type, &["atomic", "granular"]));
    }
}

const LIST_TYPE: &str = "x-kubernetes-list-type";
const MAP_KEYS: &str = "x-kubernetes-list-map-keys";

fn list_type(props: &JSONSchemaProps, path: &Path, errors: &mut ErrorList) {
    let list_type = props.x_kubernetes_list_type.as_deref();
    if list_type.is_some() {
        must_be(props, "array", LIST_TYPE, path, errors);
    }
    if let Some(unknown) = list_type.filter(|name| !matches!(*name, "atomic" | "set" | "map")) {
        errors.push(FieldError::not_supported(&path.child(LIST_TYPE), unknown, &["atomic", "set", "map"]));
    }
    if !is_empty(&props.x_kubernetes_list_map_keys) {
        let path = path.child(LIST_TYPE);
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list_type {
            None => errors.push(FieldError::required(&path, detail)),
            Some("map") => {}
            Some(other) => errors.push(FieldError::invalid(&path, other, detail)),
        }
    }
    match list_type {
        Some("set") if type_of(props) == "array" => set_items(props, path, errors),
        Some("map") => map_items(props, path, errors),
        _ => {}
    }
    if let (Some(kind @ ("set" | "map")), Some(item)) = (list_type, items(props))
        && is_true(item.nullable)
    {
        let path = path.child("items").child("nullable");
        errors.push(FieldError::forbidden(&path, format!("cannot be nullable when x-kubernetes-list-type is {kind}")));
    }
}

/// What is compared as a whole must be merged as a whole.
fn set_items(props: &JSONSchemaProps, path: &Path, errors: &mut ErrorList) {
    let Some(item) = items(props) else { return };
    let atomic = |field: &Option<String>| field.as_deref() == Some("atomic");
    let field = match type_of(item) {
        "array" if item.x_kubernetes_list_type.is_some() && !atomic(&item.x_kubernetes_list_type) => LIST_TYPE,
        "object" if !atomic(&item.x_kubernetes_map_type) => "x-kubernetes-map-type",
        _ => return,
    };
    let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
    errors.push(FieldError::invalid(&path.child("items").child(field), &item.x_kubernetes_list_type, detail));
}

fn map_items(props: &JSONSchemaProps, path: &Path, errors: &mut ErrorList) {
    let keys = props.x_kubernetes_list_map_keys.as_deref().unwrap_or_default();
    let (keys_path, items_path) = (path.child(MAP_KEYS), path.child("items"));
    if keys.is_empty() {
        errors.push(FieldError::required(&keys_path, "must not be empty if x-kubernetes-list-type is map"));
    }
    let Some(item) = items(props) else {
        let detail = "must have a schema if x-kubernetes-list-type is map";
        errors.push(FieldError::required(&items_path, detail));
        return;
    };
    if type_of(item) != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(&items_path.child("type"), type_of(item), detail));
        return;
    }
    for (index, key) in keys.iter().enumerate() {
        let property = item.properties.as_ref().and_then(|properties| properties.get(key));
        let property_path = items_path.child("properties").key(key);
        if keys[..index].contains(key) {
            errors.push(FieldError::invalid(&keys_path, keys, "must not contain duplicate entries"));
        }
        let Some(property) = property else {
            errors.push(FieldError::invalid(&keys_path, keys, "entries must all be names of item properties"));
            continue;
        };
        if matches!(type_of(property), "array" | "object") {
            let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.push(FieldError::invalid(&property_path.child("type"), type_of(item), detail));
        }
        if !item.required.iter().flatten().any(|required| required == key) && property.default.is_none() {
            errors.push(FieldError::required(
                &property_path.child("default"),
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ));
        }
        if is_true(property.nullable) {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(FieldError::forbidden(&property_path.child("nullable"), detail));
        }
    }
}

fn validation_rule(rule: &ValidationRule, path: &Path, errors: &mut ErrorList) {
    const REASONS: [&str; 4] =
        ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    let text = rule.rule.trim();
    let message = rule.message.as_deref().unwrap_or_default();
    let breaks = |text: &str| text.contains(['\n', '\r']);
    if text.is_empty() {
        errors.push(FieldError::required(&path.child("rule"), "rule is not specified"));
    } else if !message.is_empty() && message.trim().is_empty() {
        errors.push(FieldError::invalid(&path.child("message"), message, "message must be non-empty if specified"));
    } else if breaks(message.trim()) {
        errors.push(FieldError::invalid(&path.child("message"), message, "message must not contain line breaks"));
    } else if breaks(text) && message.is_empty() {
        let detail = "message must be specified if rule contains line breaks";
        errors.push(FieldError::required(&path.child("message"), detail));
    }
    if rule.message_expression.as_deref().is_some_and(|text| !text.is_empty() && text.trim().is_empty()) {
        let detail = "messageExpression must be non-empty if specified";
        errors.push(FieldError::required(&path.child("messageExpression"), detail));
    }
    if let Some(reason) = rule.reason.as_deref().filter(|reason| !REASONS.contains(reason)) {
        errors.push(FieldError::not_supported(&path.child("reason"), reason, &REASONS));
    }
}
