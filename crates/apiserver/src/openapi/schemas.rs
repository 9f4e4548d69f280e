//! The definitions of a document: one schema for each type, as upstream publishes them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, Status};
use machinery::api_types::{ApiType, Cardinality, ListType};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Dialect;
use crate::catalog::Served;

/// Definitions of these kinds, their lists, and everything they refer to.
pub(super) fn definitions(served: &[Served<'_>], dialect: Dialect) -> Map<String, Value> {
    let settings = SchemaSettings::draft07().with(|settings| {
        // The generator puts what it calls `/` before the names.
        settings.definitions_path = dialect.definitions().trim_start_matches('#').trim_end_matches('/').into();
        settings.meta_schema = None;
        settings.transforms.clear();
    });
    let mut generator = settings.into_generator();
    for entry in served {
        let schema = entry.schema(&mut generator);
        // A kind without a type of its own brings its schema along.
        if let Some(schema) = schema.map(Value::from).filter(|schema| schema.get("$ref").is_none()) {
            generator.definitions_mut().insert(entry.definition.to_owned(), schema);
        }
    }
    generator.subschema_for::<ListMeta>();
    generator.subschema_for::<DeleteOptions>();
    generator.subschema_for::<Status>();
    let mut definitions = generator.take_definitions(false);
    for (name, schema) in &mut definitions {
        if let Some(whole) = special(name, schema, dialect) {
            *schema = whole;
            continue;
        }
        annotate(name, schema);
        rewrite(schema, dialect);
    }
    for entry in served.iter().filter(|entry| entry.custom && dialect == Dialect::V2) {
        definitions.get_mut(entry.definition).into_iter().for_each(simplify);
    }
    for entry in served {
        let gvk = json!([{ "group": entry.group, "kind": entry.kind, "version": entry.version }]);
        if let Some(schema) = definitions.get_mut(entry.definition).and_then(Value::as_object_mut) {
            schema.insert("x-kubernetes-group-version-kind".to_owned(), gvk);
        }
        if !entry.list_kind.is_empty() {
            definitions.insert(list_definition(entry), list(entry, dialect));
        }
    }
    definitions
}

/// The name of the definition of a kind's list.
pub(super) fn list_definition(entry: &Served<'_>) -> String {
    let package = entry.definition.rsplit_once('.').map_or("", |(package, _)| package);
    format!("{package}.{}", entry.list_kind)
}

fn list(entry: &Served<'_>, dialect: Dialect) -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let mut list = json!({
        "description": format!("{} is a list of {}", entry.list_kind, entry.plural),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": text("APIVersion defines the versioned schema of this representation of an object."),
            "kind": text("Kind is a string value representing the REST resource this object represents."),
            "metadata": {
                "description": "Standard list metadata.",
                "$ref": format!("{}{LIST_META}", dialect.definitions()),
            },
            "items": {
                "description": format!("List of {}.", entry.plural),
                "type": "array",
                "items": dialect.reference(entry.definition),
            },
        },
        "x-kubernetes-group-version-kind": [
            { "group": entry.group, "kind": entry.list_kind, "version": entry.version },
        ],
    });
    rewrite(&mut list, dialect);
    list
}

const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
/// The definition of what DELETE takes.
pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
/// The definition of what a failed request answers.
pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const MAP_TYPE: &str = "x-kubernetes-map-type";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";

/// The types that are written as one JSON type or another.
fn special(name: &str, schema: &Value, dialect: Dialect) -> Option<Value> {
    let description = schema.get("description").cloned().unwrap_or_default();
    Some(match (name, dialect) {
        (QUANTITY, Dialect::V2) => json!({ "description": description, "type": "string" }),
        (QUANTITY, Dialect::V3) => {
            json!({ "description": description, "oneOf": [{ "type": "string" }, { "type": "number" }] })
        }
        (INT_OR_STRING, Dialect::V2) => {
            json!({ "description": description, "type": "string", "format": "int-or-string" })
        }
        (INT_OR_STRING, Dialect::V3) => json!({
            "description": description,
            "format": "int-or-string",
            "oneOf": [{ "type": "integer" }, { "type": "string" }],
        }),
        _ => return None,
    })
}

/// Takes out of the schema of a custom resource what Swagger 2.0 has no words for. Upstream rather says less than what a
/// client would misunderstand: where `null` or unknown fields are legal, it says nothing of the value.
fn simplify(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    for key in ["allOf", "anyOf", "oneOf", "not"] {
        object.remove(key);
    }
    let nullable = object.remove("nullable") == Some(true.into());
    if nullable || object.get("x-kubernetes-preserve-unknown-fields") == Some(&true.into()) {
        for key in ["type", "format", "items", "properties", "additionalProperties", "required", "enum"] {
            object.remove(key);
        }
    }
    let properties = object.get_mut("properties").and_then(Value::as_object_mut);
    properties.into_iter().flat_map(Map::values_mut).for_each(simplify);
    for key in ["items", "additionalProperties"] {
        object.get_mut(key).into_iter().for_each(simplify);
    }
}

/// Adds what `machinery` knows about how a type and its fields are merged.
fn annotate(definition: &str, schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    let Some(api_type) = ApiType::by_openapi_name(definition) else { return };
    if api_type.is_atomic {
        schema.insert(MAP_TYPE.to_owned(), "atomic".into());
    }
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (field, property) in properties {
        let Some(property) = property.as_object_mut() else { continue };
        let Some(rule) = api_type.member(field) else { continue };
        if let Some(strategy) = rule.patch_strategy() {
            property.insert("x-kubernetes-patch-strategy".to_owned(), strategy.into());
        }
        if let Some(key) = rule.patch_merge_key {
            property.insert("x-kubernetes-patch-merge-key".to_owned(), key.into());
        }
        if rule.cardinality == Cardinality::List {
            let kind = match rule.list_type {
                ListType::Atomic => "atomic",
                ListType::Set => "set",
                ListType::Map => "map",
            };
            property.insert("x-kubernetes-list-type".to_owned(), kind.into());
        }
        let keys: Vec<&str> = rule.list_map_keys().map(|(key, _)| key).collect();
        if !keys.is_empty() {
            property.insert("x-kubernetes-list-map-keys".to_owned(), keys.into());
        }
        if let Some(atomic) = rule.map_atomic {
            property.insert(MAP_TYPE.to_owned(), if atomic { "atomic" } else { "granular" }.into());
        }
    }
}

/// Brings a schema into the form of the dialect: in OpenAPI 3.0 nothing may stand beside `$ref`, so that what does is
/// moved outside of an `allOf`.
fn rewrite(schema: &mut Value, dialect: Dialect) {
    let Some(object) = schema.as_object_mut() else { return };
    if dialect == Dialect::V3
        && object.len() > 1
        && let Some(reference) = object.remove("$ref")
    {
        object.insert("allOf".to_owned(), json!([{ "$ref": reference }]));
    }
    for (key, value) in object {
        match key.as_str() {
            "properties" => {
                if let Some(properties) = value.as_object_mut() {
                    properties.values_mut().for_each(|property| rewrite(property, dialect));
                }
            }
            "items" | "additionalProperties" | "not" => rewrite(value, dialect),
            "allOf" | "anyOf" | "oneOf" => {
                if let Some(schemas) = value.as_array_mut() {
                    schemas.iter_mut().for_each(|schema| rewrite(schema, dialect));
                }
            }
            _ => {}
        }
    }
}
