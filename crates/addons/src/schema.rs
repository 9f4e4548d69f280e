//! Definitions and schemas in few words.

use serde_json::{Map, Value, json};

/// A field of an object.
pub(crate) type Field = (&'static str, Value);

/// A number without a fraction, of 32 bits.
pub(crate) fn integer() -> Value {
    json!({ "type": "integer", "format": "int32" })
}

/// A text.
pub(crate) fn string() -> Value {
    json!({ "type": "string" })
}

/// Yes or no.
pub(crate) fn boolean() -> Value {
    json!({ "type": "boolean" })
}

/// A moment.
pub(crate) fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

/// A text out of a closed set.
pub(crate) fn one_of(choices: &[&str]) -> Value {
    json!({ "type": "string", "enum": choices })
}

/// A number or a percentage.
pub(crate) fn count_or_percent() -> Value {
    json!({ "x-kubernetes-int-or-string": true, "anyOf": [{ "type": "integer" }, { "type": "string" }] })
}

/// An amount of something.
fn quantity() -> Value {
    json!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{ "type": "integer" }, { "type": "string" }],
        "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
    })
}

/// Amounts by the names of resources.
pub(crate) fn resources() -> Value {
    map(quantity())
}

/// Values by name.
pub(crate) fn map(values: Value) -> Value {
    json!({ "type": "object", "additionalProperties": values })
}

/// A list.
pub(crate) fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

/// A list whose items are told apart by a field of theirs.
pub(crate) fn list_by(key: &str, items: Value) -> Value {
    json!({
        "type": "array", "items": items,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key],
    })
}

/// Anything: who works with it knows what it is.
pub(crate) fn free() -> Value {
    json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// An object with these fields.
pub(crate) fn object(required: &[&str], fields: impl IntoIterator<Item = Field>) -> Value {
    let properties: Map<String, Value> = fields.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    let mut object = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        object["required"] = required.into();
    }
    object
}

/// Adds a member to a schema: `with(integer(), "default", 1)`.
pub(crate) fn with(mut schema: Value, name: &str, value: impl Into<Value>) -> Value {
    schema[name] = value.into();
    schema
}

/// Adds a rule in CEL, and what is said where it is broken.
pub(crate) fn rule(schema: Value, rule: &str, message: &str) -> Value {
    add_rule(schema, json!({ "rule": rule, "message": message }))
}

/// As [`rule`], of a field below.
pub(crate) fn rule_at(schema: Value, rule: &str, message: &str, field: &str) -> Value {
    add_rule(schema, json!({ "rule": rule, "message": message, "fieldPath": field }))
}

fn add_rule(mut schema: Value, rule: Value) -> Value {
    match schema["x-kubernetes-validations"].as_array_mut() {
        Some(rules) => rules.push(rule),
        None => schema["x-kubernetes-validations"] = json!([rule]),
    }
    schema
}

/// Says what a value is for.
pub(crate) fn about(description: &str, schema: Value) -> Value {
    with(schema, "description", description)
}

/// The conditions of a status.
pub(crate) fn conditions() -> Value {
    list_by(
        "type",
        object(
            &["lastTransitionTime", "message", "reason", "status", "type"],
            [
                ("type", string()),
                ("status", one_of(&["True", "False", "Unknown"])),
                ("reason", string()),
                ("message", string()),
                ("lastTransitionTime", time()),
                ("observedGeneration", json!({ "type": "integer", "format": "int64", "minimum": 0 })),
            ],
        ),
    )
}

/// A column of a table: title, type, path.
pub(crate) fn column(name: &str, kind: &str, path: &str) -> Value {
    json!({ "name": name, "type": kind, "jsonPath": path })
}

/// The age, last in every table.
pub(crate) fn age(name: &str) -> Value {
    column(name, "date", ".metadata.creationTimestamp")
}

/// A version of a definition.
pub(crate) struct Version {
    pub(crate) name: &'static str,
    pub(crate) storage: bool,
    pub(crate) description: &'static str,
    pub(crate) spec: Value,
    pub(crate) status: Value,
    pub(crate) subresources: Value,
    pub(crate) columns: Vec<Value>,
}

/// The subresource `status`.
pub(crate) fn status() -> Value {
    json!({ "status": {} })
}

/// The subresources `status` and `scale`; the latter with a selector, if it has one.
pub(crate) fn status_and_scale(selector: Option<&str>) -> Value {
    let mut scale = json!({ "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas" });
    if let Some(selector) = selector {
        scale["labelSelectorPath"] = selector.into();
    }
    json!({ "status": {}, "scale": scale })
}

/// The names of a definition.
pub(crate) struct Names {
    pub(crate) group: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) short: &'static [&'static str],
    pub(crate) scope: &'static str,
}

/// A CustomResourceDefinition.
pub(crate) fn definition(names: &Names, versions: Vec<Version>) -> Value {
    let versions: Vec<Value> = versions
        .into_iter()
        .map(|version| {
            json!({
                "name": version.name, "served": true, "storage": version.storage,
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "description": version.description,
                    "properties": { "spec": version.spec, "status": version.status },
                } },
                "subresources": version.subresources,
                "additionalPrinterColumns": version.columns,
            })
        })
        .collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{}.{}", names.plural, names.group) },
        "spec": {
            "group": names.group,
            "scope": names.scope,
            "names": {
                "kind": names.kind, "plural": names.plural, "singular": names.kind.to_lowercase(),
                "listKind": format!("{}List", names.kind), "shortNames": names.short,
            },
            "versions": versions,
        },
    })
}
