//! Structural schemas: what is refused, pruned, defaulted and found wrong, by cases.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::{Value, json};

use super::{Schema, rules};
use crate::api_types::ListType;
use crate::field::Path;

fn props(schema: Value) -> JSONSchemaProps {
    serde_json::from_value(schema).unwrap()
}

fn schema(value: Value) -> Schema {
    Schema::parse(&props(value))
}

/// A schema of an object whose spec has these properties.
fn spec(properties: Value) -> Value {
    json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": properties } } })
}

fn complaints(errors: impl IntoIterator<Item = crate::FieldError>) -> Vec<String> {
    errors.into_iter().map(|error| error.to_string()).collect()
}

#[test]
fn schemas_are_structural() {
    let path = Path::new("s");
    let check = |value: Value, expect: &[&str]| {
        assert_eq!(
            complaints(rules::check(&props(value.clone()), &path, rules::Costs::Limited(&mut rules::Work::default()))),
            expect,
            "{value}"
        );
    };
    check(spec(json!({ "replicas": { "type": "integer", "minimum": 1, "default": 2 } })), &[]);
    check(json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }), &[]);
    check(json!({}), &["s.type: Required value: must not be empty at the root"]);
    check(json!({ "type": "string" }), &["s.type: Invalid value: \"string\": must be object at the root"]);
    check(
        json!({ "type": "object", "properties": { "spec": {}, "list": { "type": "array", "items": {} } } }),
        &[
            "s.properties[list].items.type: Required value: must not be empty for specified array items",
            "s.properties[spec].type: Required value: must not be empty for specified object fields",
        ],
    );
    check(
        spec(json!({ "a": { "type": "array" } })),
        &["s.properties[spec].properties[a].items: Required value: must be specified"],
    );
    check(
        spec(json!({ "a": { "type": "strin" } })),
        &[
            "s.properties[spec].properties[a].type: Unsupported value: \"strin\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
        ],
    );
    check(
        json!({ "type": "object", "anyOf": [{ "properties": { "b": { "type": "string" } } }] }),
        &[
            "s.anyOf[0].properties[b].type: Forbidden: must be empty to be structural",
            "s.properties[b]: Required value: because it is defined in s.anyOf[0].properties[b]",
        ],
    );
    check(
        spec(
            json!({ "port": { "x-kubernetes-int-or-string": true, "anyOf": [{ "type": "integer" }, { "type": "string" }] } }),
        ),
        &[],
    );
    check(
        json!({ "type": "object", "properties": { "metadata": { "type": "object", "properties": { "labels": { "type": "object" } } } } }),
        &[
            "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ],
    );
    check(
        json!({ "type": "object", "properties": { "metadata": { "type": "object", "properties": { "name": { "type": "string", "pattern": "^a" } } } } }),
        &[],
    );
    check(
        spec(json!({ "a": { "type": "string", "pattern": "(" } })),
        &[
            "s.properties[spec].properties[a].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: unclosed group",
        ],
    );
    check(
        spec(
            json!({ "a": { "type": "array", "uniqueItems": true, "items": { "type": "string" } }, "b": { "$ref": "x", "type": "string" } }),
        ),
        &[
            "s.properties[spec].properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            "s.properties[spec].properties[b].$ref: Forbidden: $ref is not supported",
        ],
    );
    check(
        spec(json!({ "a": { "type": "integer", "default": "x" }, "b": { "type": "object", "default": { "c": 1 } } })),
        &[
            "s.properties[spec].properties[a].default: Invalid value: \"string\":  in body must be of type integer: \"string\"",
            "s.properties[spec].properties[b].default: Invalid value: {\"c\":1}: must not have unknown fields",
        ],
    );
    check(
        spec(json!({ "l": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "other"],
            "items": { "type": "object", "properties": { "name": { "type": "string" } } },
        } })),
        &[
            "s.properties[spec].properties[l].items.properties[name].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            "s.properties[spec].properties[l].x-kubernetes-list-map-keys: Invalid value: [\"name\",\"other\"]: entries must all be names of item properties",
        ],
    );
    check(
        spec(
            json!({ "m": { "type": "object", "properties": { "a": { "type": "string" } }, "additionalProperties": { "type": "string" } } }),
        ),
        &[
            "s.properties[spec].properties[m].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ],
    );
}

#[test]
fn unknown_fields_go() {
    let check = |schema: &Schema, mut object: Value, expect: Value, unknown: &[&str]| {
        let mut found = Vec::new();
        schema.prune(&mut object, &mut |path| found.push(path));
        assert_eq!(object, expect);
        assert_eq!(found, unknown);
    };
    let known = schema(spec(json!({
        "a": { "type": "string" },
        "list": { "type": "array", "items": { "type": "object", "properties": { "x": { "type": "string" } } } },
        "map": { "type": "object", "additionalProperties": { "type": "object", "properties": { "x": { "type": "string" } } } },
        "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "tight": { "type": "object", "properties": { "x": { "type": "string" } } } } },
        "whole": { "type": "object", "x-kubernetes-embedded-resource": true, "properties": { "spec": { "type": "object" } } },
        "keeps": { "type": "array", "x-kubernetes-preserve-unknown-fields": true, "items": { "type": "object" } },
    })));
    check(
        &known,
        json!({ "metadata": { "name": "n" }, "extra": 1, "spec": {
            "a": "b", "b": 1, "list": [{ "x": "1", "y": 2 }], "map": { "k": { "x": "1", "y": 2 } },
            "free": { "any": { "thing": 1 }, "tight": { "x": "1", "y": 2 } },
            "whole": { "apiVersion": "v1", "kind": "A", "metadata": { "name": "x" }, "spec": { "z": 1 }, "data": 1 },
            "keeps": [{ "any": 1 }],
        } }),
        json!({ "metadata": { "name": "n" }, "spec": {
            "a": "b", "list": [{ "x": "1" }], "map": { "k": { "x": "1" } },
            "free": { "any": { "thing": 1 }, "tight": { "x": "1" } },
            "whole": { "apiVersion": "v1", "kind": "A", "metadata": { "name": "x" }, "spec": {} },
            "keeps": [{ "any": 1 }],
        } }),
        &[
            "extra",
            "spec.b",
            "spec.free.tight.y",
            "spec.list[0].y",
            "spec.map.k.y",
            "spec.whole.data",
            "spec.whole.spec.z",
        ],
    );
}

#[test]
fn defaults_fill_in() {
    let schema = schema(spec(json!({
        "a": { "type": "integer", "default": 1 },
        "b": { "type": "object", "default": {}, "properties": { "c": { "type": "string", "default": "d" } } },
        "n": { "type": "string", "nullable": true, "default": "x" },
        "m": { "type": "string" },
        "list": { "type": "array", "items": { "type": "object", "properties": { "p": { "type": "string", "default": "TCP" } } } },
    })));
    for (mut object, expect) in [
        (json!({}), json!({})),
        (json!({ "spec": {} }), json!({ "spec": { "a": 1, "b": { "c": "d" }, "n": "x" } })),
        (
            json!({ "spec": { "a": null, "m": null, "n": null, "list": [{}, { "p": "UDP" }] } }),
            json!({ "spec": { "a": 1, "b": { "c": "d" }, "n": null, "list": [{ "p": "TCP" }, { "p": "UDP" }] } }),
        ),
    ] {
        schema.default(&mut object);
        assert_eq!(object, expect);
    }
}

#[test]
fn wrong_values_are_named() {
    let schema = schema(
        json!({ "type": "object", "required": ["spec"], "properties": { "spec": { "type": "object", "required": ["name"], "properties": {
        "name": { "type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$" },
        "replicas": { "type": "integer", "minimum": 1, "maximum": 10 },
        "ratio": { "type": "number", "exclusiveMinimum": true, "minimum": 0, "multipleOf": 0.5 },
        "policy": { "type": "string", "enum": ["a", "b"] },
        "port": { "x-kubernetes-int-or-string": true },
        "at": { "type": "string", "format": "date-time" },
        "set": { "type": "array", "x-kubernetes-list-type": "set", "maxItems": 3, "minItems": 1, "items": { "type": "string" } },
        "map": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": { "type": "object", "required": ["name"], "properties": { "name": { "type": "string" }, "v": { "type": "integer" } } } },
        "labels": { "type": "object", "maxProperties": 1, "additionalProperties": { "type": "string" } },
        "one": { "type": "object", "oneOf": [{ "required": ["a"] }, { "required": ["b"] }],
            "properties": { "a": { "type": "string" }, "b": { "type": "string" } } },
        "not": { "type": "string", "not": { "enum": ["x"] } },
        "all": { "type": "string", "allOf": [{ "minLength": 3 }] },
        "any": { "type": "integer", "anyOf": [{ "minimum": 5 }, { "maximum": 1 }] },
    } } } }),
    );
    let check = |field: &str, value: Value, expect: &[&str]| {
        let mut object = json!({ "spec": { "name": "ok" } });
        object["spec"][field] = value;
        assert_eq!(complaints(schema.validate(&object, None)), expect, "{field}");
        assert!(schema.validate(&object, Some(&object)).is_empty(), "what has not changed is not looked at");
    };
    assert_eq!(complaints(schema.validate(&json!({}), None)), ["spec: Required value"]);
    assert_eq!(complaints(schema.validate(&json!({ "spec": {} }), None)), ["spec.name: Required value"]);
    check("name", json!("ab"), &[]);
    check("name", json!("a"), &["spec.name: Invalid value: \"a\": spec.name in body should be at least 2 chars long"]);
    check("name", json!("abcde"), &["spec.name: Too long: may not be more than 4 bytes"]);
    check("name", json!("A1"), &["spec.name: Invalid value: \"A1\": spec.name in body should match '^[a-z]+$'"]);
    check(
        "name",
        json!(null),
        &["spec.name: Invalid value: \"null\": spec.name in body must be of type string: \"null\""],
    );
    check("replicas", json!(2.0), &[]);
    check(
        "replicas",
        json!(0),
        &["spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1"],
    );
    check(
        "replicas",
        json!(11),
        &["spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10"],
    );
    check(
        "replicas",
        json!("x"),
        &["spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\""],
    );
    check("ratio", json!(1.5), &[]);
    check("ratio", json!(0), &["spec.ratio: Invalid value: 0: spec.ratio in body should be greater than 0"]);
    check("ratio", json!(0.7), &["spec.ratio: Invalid value: 0.7: spec.ratio in body should be a multiple of 0.5"]);
    check("policy", json!("c"), &["spec.policy: Unsupported value: \"c\": supported values: \"a\", \"b\""]);
    check("port", json!(80), &[]);
    check("port", json!("http"), &[]);
    check(
        "port",
        json!(true),
        &["spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\""],
    );
    check("at", json!("2026-01-02T03:04:05Z"), &[]);
    check(
        "at",
        json!("soon"),
        &["spec.at: Invalid value: \"soon\": spec.at in body must be of type date-time: \"soon\""],
    );
    check("set", json!(["a", "b", "a"]), &["spec.set[2]: Duplicate value: \"a\""]);
    check("set", json!([]), &["spec.set: Invalid value: 0: spec.set in body should have at least 1 items"]);
    check("set", json!(["a", "b", "c", "d"]), &["spec.set: Too many: 4: must have at most 3 items"]);
    check(
        "map",
        json!([{ "name": "a" }, { "name": "a", "v": 1 }]),
        &["spec.map[1]: Duplicate value: {\"name\":\"a\"}"],
    );
    check(
        "map",
        json!([{ "name": "a", "v": "x" }, {}]),
        &[
            "spec.map[0].v: Invalid value: \"string\": spec.map[0].v in body must be of type integer: \"string\"",
            "spec.map[1].name: Required value",
        ],
    );
    check(
        "labels",
        json!({ "a": 1 }),
        &["spec.labels.a: Invalid value: \"integer\": spec.labels.a in body must be of type string: \"integer\""],
    );
    check("labels", json!({ "a": "b", "c": "d" }), &["spec.labels: Too many: 2: must have at most 1 item"]);
    check("one", json!({ "a": "1" }), &[]);
    check(
        "one",
        json!({}),
        &[
            "<nil>: Invalid value: \"\": \"spec.one\" must validate one and only one schema (oneOf). Found none valid",
            "spec.one.a: Required value",
        ],
    );
    check(
        "one",
        json!({ "a": "1", "b": "2" }),
        &[
            "<nil>: Invalid value: \"\": \"spec.one\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ],
    );
    check("not", json!("x"), &["<nil>: Invalid value: \"\": \"spec.not\" must not validate the schema (not)"]);
    check(
        "all",
        json!("x"),
        &[
            "spec.all: Invalid value: \"x\": spec.all in body should be at least 3 chars long",
            "<nil>: Invalid value: \"\": \"spec.all\" must validate all the schemas (allOf). None validated",
        ],
    );
    check(
        "any",
        json!(3),
        &[
            "<nil>: Invalid value: \"\": \"spec.any\" must validate at least one schema (anyOf)",
            "spec.any: Invalid value: 3: spec.any in body should be greater than or equal to 5",
        ],
    );
}

#[test]
fn old_faults_do_not_block_new_work() {
    let schema = schema(spec(json!({ "a": { "type": "string", "maxLength": 1 }, "b": { "type": "integer" } })));
    let old = json!({ "spec": { "a": "too long", "b": 1 } });
    assert!(schema.validate(&json!({ "spec": { "a": "too long", "b": 2 } }), Some(&old)).is_empty());
    assert_eq!(schema.validate(&json!({ "spec": { "a": "also long", "b": 2 } }), Some(&old)).len(), 1);
}

#[test]
fn merging_is_told() {
    let schema = schema(spec(json!({
        "map": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"], "items": { "type": "object" } },
        "set": { "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "string" } },
        "plain": { "type": "array", "items": { "type": "string" } },
        "whole": { "type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": { "type": "string" } },
    })));
    let spec = schema.property("spec").unwrap();
    let map = spec.property("map").unwrap();
    assert_eq!((map.list_type(), map.list_map_keys().collect::<Vec<_>>()), (ListType::Map, vec!["a", "b"]));
    assert_eq!(spec.property("set").unwrap().list_type(), ListType::Set);
    assert_eq!(spec.property("plain").unwrap().list_type(), ListType::Atomic);
    assert!(spec.property("whole").unwrap().is_atomic_map());
    assert!(spec.property("whole").unwrap().property("anything").is_some());
    assert!(spec.property("missing").is_none());
}
