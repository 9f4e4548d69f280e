//! Whether a schema is structural.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;

use super::{additional, is_empty, is_true, items, type_of};
use crate::field::{ErrorList, FieldError, Path};

/// Where in the schema a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What keeps a schema from being structural, in the order of the messages.
pub(super) fn check(props: &JSONSchemaProps, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    invariants(props, Level::Root, path, &mut errors);
    completeness(props, props, path, path, &mut errors);
    errors.0.sort_by_cached_key(ToString::to_string);
    errors
}

fn invariants(props: &JSONSchemaProps, level: Level, path: &Path, errors: &mut ErrorList) {
    let kind = type_of(props);
    let embedded = is_true(props.x_kubernetes_embedded_resource);
    let preserve = is_true(props.x_kubernetes_preserve_unknown_fields);
    let int_or_string = is_true(props.x_kubernetes_int_or_string);
    match items(props) {
        Some(items) => invariants(items, Level::Item, &path.child("items"), errors),
        None if kind == "array" => errors.push(FieldError::required(&path.child("items"), "must be specified")),
        None => {}
    }
    for (name, property) in props.properties.iter().flatten() {
        invariants(property, Level::Field, &path.child("properties").key(name), errors);
    }
    let additional_path = path.child("additionalProperties");
    if props.additional_properties.is_some() && level == Level::Root {
        errors.push(FieldError::forbidden(&additional_path, "must not be used at the root"));
    }
    if let Some(values) = additional(props) {
        invariants(values, Level::Field, &additional_path, errors);
    }
    for (field, set) in [("preserve-unknown-fields", preserve), ("embedded-resource", embedded)] {
        if int_or_string && set {
            let path = path.child(format!("x-kubernetes-{field}"));
            errors.push(FieldError::invalid(&path, true, "must be false if x-kubernetes-int-or-string is true"));
        }
    }
    let exempt = Exempt { any_of: is_int_or_string(props), all_of: all_of_int_or_string(props) };
    limits(props, exempt, path, errors);

    let type_path = path.child("type");
    if embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if kind.is_empty() {
            FieldError::required(&type_path, detail)
        } else {
            FieldError::invalid(&type_path, kind, detail)
        });
    } else if kind.is_empty() && !int_or_string && !preserve {
        errors.push(FieldError::required(
            &type_path,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        ));
    }
    if embedded && props.additional_properties.is_some() {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(FieldError::forbidden(&additional_path, detail));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(FieldError::invalid(&type_path, kind, "must be object at the root"));
    }
    meta(props, level, embedded, path, errors);
    if embedded && !preserve && props.properties.as_ref().is_none_or(std::collections::BTreeMap::is_empty) {
        errors.push(FieldError::required(
            &path.child("properties"),
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ));
    }
}

/// What may be said about version, kind and metadata of a whole object.
fn meta(props: &JSONSchemaProps, level: Level, embedded: bool, path: &Path, errors: &mut ErrorList) {
    if level != Level::Root && !embedded {
        return;
    }
    let property = |name: &str| props.properties.as_ref().and_then(|properties| properties.get(name));
    let at = |name: &str| path.child("properties").key(name);
    for (name, wanted) in [("kind", "string"), ("apiVersion", "string"), ("metadata", "object")] {
        if let Some(found) = property(name).map(type_of).filter(|found| *found != wanted) {
            errors.push(FieldError::invalid(&at(name).child("type"), found, format!("must be {wanted}")));
        }
    }
    if let Some(metadata) = property("metadata").filter(|_| level == Level::Root)
        && restricts_metadata(metadata)
    {
        errors.push(FieldError::forbidden(
            &at("metadata"),
            "must not specify anything other than name and generateName, but metadata is implicitly specified",
        ));
    }
}

/// Whether the schema of the root's metadata says more than how names look.
fn restricts_metadata(metadata: &JSONSchemaProps) -> bool {
    let names = metadata.properties.iter().flatten().all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
    let mut rest = metadata.clone();
    rest.type_ = None;
    rest.default = None;
    rest.description = None;
    rest.properties = None;
    !names || rest != JSONSchemaProps::default()
}

/// Alternatives in which a type is allowed, since they spell out `x-kubernetes-int-or-string`.
#[derive(Clone, Copy, Default)]
struct Exempt {
    any_of: bool,
    all_of: bool,
}

/// `anyOf: [{type: integer}, {type: string}]`.
fn is_int_or_string(props: &JSONSchemaProps) -> bool {
    let only = |kind: &str| JSONSchemaProps { type_: Some(kind.to_owned()), ..JSONSchemaProps::default() };
    matches!(props.any_of.as_deref(), Some([integer, string]) if *integer == only("integer") && *string == only("string"))
}

/// The same within the first of `allOf`.
fn all_of_int_or_string(props: &JSONSchemaProps) -> bool {
    props.all_of.as_deref().and_then(<[_]>::first).is_some_and(is_int_or_string)
}

/// The rules about values, which may not bring new structure.
fn limits(props: &JSONSchemaProps, exempt: Exempt, path: &Path, errors: &mut ErrorList) {
    let none = Exempt::default();
    let any_of = props.any_of.iter().flatten().filter(|_| !exempt.any_of).enumerate();
    for (index, schema) in any_of {
        nested(schema, none, &path.child("anyOf").index(index), errors);
    }
    for (index, schema) in props.all_of.iter().flatten().enumerate() {
        let exempt = Exempt { any_of: exempt.all_of && index == 0, all_of: false };
        nested(schema, exempt, &path.child("allOf").index(index), errors);
    }
    for (index, schema) in props.one_of.iter().flatten().enumerate() {
        nested(schema, none, &path.child("oneOf").index(index), errors);
    }
    if let Some(schema) = &props.not {
        nested(schema, none, &path.child("not"), errors);
    }
}

/// A node within `allOf`, `anyOf`, `oneOf` or `not`.
fn nested(props: &JSONSchemaProps, exempt: Exempt, path: &Path, errors: &mut ErrorList) {
    limits(props, exempt, path, errors);
    if let Some(schema) = items(props) {
        nested(schema, Exempt::default(), &path.child("items"), errors);
    }
    for (name, schema) in props.properties.iter().flatten() {
        nested(schema, Exempt::default(), &path.child("properties").key(name), errors);
    }
    let set = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    for (present, field, wanted) in [
        (set(&props.type_), "type", "must be empty"),
        (props.additional_properties.is_some(), "additionalProperties", "must be undefined"),
        (props.default.is_some(), "default", "must be undefined"),
        (set(&props.title), "title", "must be empty"),
        (set(&props.description), "description", "must be empty"),
        (is_true(props.nullable), "nullable", "must be false"),
        (is_true(props.x_kubernetes_preserve_unknown_fields), "x-kubernetes-preserve-unknown-fields", "must be false"),
        (is_true(props.x_kubernetes_embedded_resource), "x-kubernetes-embedded-resource", "must be false"),
        (is_true(props.x_kubernetes_int_or_string), "x-kubernetes-int-or-string", "must be false"),
        (!is_empty(&props.x_kubernetes_list_map_keys), "x-kubernetes-list-map-keys", "must be empty"),
        (props.x_kubernetes_list_type.is_some(), "x-kubernetes-list-type", "must be undefined"),
        (props.x_kubernetes_map_type.is_some(), "x-kubernetes-map-type", "must be undefined"),
        (!is_empty(&props.x_kubernetes_validations), "x-kubernetes-validations", "must be empty"),
    ] {
        if present {
            errors.push(FieldError::forbidden(&path.child(field), format!("{wanted} to be structural")));
        }
    }
    if props.properties.as_ref().is_some_and(|properties| properties.contains_key("metadata")) {
        let path = path.child("properties").key("metadata");
        errors.push(FieldError::forbidden(&path, "must not be specified in a nested context"));
    }
}

/// Every field or item that a rule about values speaks of must also be there in the structure. `rule_path` is where the
/// rule is, `path` where the structure is. Upstream asks this only of the rules at the root.
fn completeness(
    rule: &JSONSchemaProps,
    structure: &JSONSchemaProps,
    path: &Path,
    rule_path: &Path,
    errors: &mut ErrorList,
) {
    let mut within = |rule: &JSONSchemaProps, at: Path| complete(rule, Some(structure), path, &at, errors);
    if let Some(rule) = &rule.not {
        within(rule, rule_path.child("not"));
    }
    for (field, rules) in [("allOf", &rule.all_of), ("anyOf", &rule.any_of), ("oneOf", &rule.one_of)] {
        for (index, rule) in rules.iter().flatten().enumerate() {
            within(rule, rule_path.child(field).index(index));
        }
    }
}

fn complete(
    rule: &JSONSchemaProps,
    structure: Option<&JSONSchemaProps>,
    path: &Path,
    rule_path: &Path,
    errors: &mut ErrorList,
) {
    let Some(structure) = structure else {
        errors.push(FieldError::required(path, format!("because it is defined in {rule_path}")));
        return;
    };
    completeness(rule, structure, path, rule_path, errors);
    if let Some(rule) = items(rule) {
        complete(rule, items(structure), &path.child("items"), &rule_path.child("items"), errors);
    }
    for (name, rule) in rule.properties.iter().flatten() {
        let below = structure.properties.as_ref().and_then(|properties| properties.get(name));
        let step = |path: &Path| path.child("properties").key(name);
        complete(rule, below, &step(path), &step(rule_path), errors);
    }
}
