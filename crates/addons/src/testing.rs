//! What the tests of each addon ask of its definitions: that they are what was published, and take what their projects'
//! manifests look like.
//!
//! The facts of a definition are lines: what clients and stored objects rest on. Two definitions with the same facts take and
//! show the same objects; descriptions are no facts.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSONSchemaProps};
use machinery::field::Path;
use machinery::schema::{Schema, rules};
use serde_json::{Value, json};

use crate::Addon;

/// How the facts of an addon differ from `published`: lines that are gone, and lines that are new. A line that goes, or says
/// something else, breaks what people have stored.
#[must_use]
pub fn difference(addon: &Addon, published: &str) -> String {
    let facts = of(&addon.definitions());
    let missing = |lines: &str, from: &str, mark: char| -> Vec<String> {
        let is_missing = |line: &&str| !from.lines().any(|other| other == *line);
        lines.lines().filter(is_missing).map(|line| format!("{mark} {line}")).collect()
    };
    [missing(published, &facts, '-'), missing(&facts, published, '+')].concat().join("\n")
}

/// The schema of a version of a kind.
///
/// # Panics
/// When the addon has no such version, or an API server would refuse its schema.
#[must_use]
pub fn schema(addon: &Addon, kind: &str, version: &str) -> Schema {
    let find = |definition: CustomResourceDefinition| -> Option<JSONSchemaProps> {
        let spec = definition.spec;
        let mut versions = spec.versions.into_iter().filter(|known| spec.names.kind == kind && known.name == version);
        versions.next()?.schema?.open_api_v3_schema
    };
    let Some(props) = addon.definitions().into_iter().find_map(find) else { panic!("no {kind} of {version}") };
    let errors = rules::check(&props, &Path::new("schema"), rules::Costs::Limited(&mut rules::Work::default()));
    assert!(errors.is_empty(), "{kind} {version}: {errors}");
    Schema::parse(&props)
}

/// Checks that a manifest with this spec is taken as it is, and has these values, by JSON pointers, once it is stored.
///
/// # Panics
/// When it is not.
pub fn check_manifest(addon: &Addon, kind: &str, version: &str, spec: &Value, defaulted: &[(&str, Value)]) {
    let schema = schema(addon, kind, version);
    let mut object = json!({ "spec": spec });
    let mut unknown = Vec::new();
    schema.prune(&mut object, &mut |path| unknown.push(path));
    assert_eq!(unknown, [""; 0], "{kind} {version}");
    schema.default(&mut object);
    assert_eq!(schema.validate(&object, None).to_string(), "[]", "{kind} {version}");
    for (pointer, value) in defaulted {
        assert_eq!(object.pointer(pointer), Some(value), "{kind} {version} {pointer}");
    }
}

/// The facts of CustomResourceDefinitions.
fn of(definitions: &[CustomResourceDefinition]) -> String {
    let mut lines = Vec::new();
    for definition in definitions.iter().map(|definition| json!(definition)) {
        let spec = &definition["spec"];
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        lines.push(format!("{name}: {} {}", spec["scope"], spec["names"]));
        let versions = spec["versions"].as_array().into_iter().flatten();
        for version in versions {
            let place = format!("{name} {}", version["name"].as_str().unwrap_or_default());
            lines.push(format!("{place}: served {} storage {}", version["served"], version["storage"]));
            lines.push(format!("{place}: subresources {}", version["subresources"]));
            for column in version["additionalPrinterColumns"].as_array().into_iter().flatten() {
                lines.push(format!("{place}: column {column}"));
            }
            describe(&version["schema"]["openAPIV3Schema"], &place, &mut lines);
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// A bound of a number, which the API keeps as a fraction, as people write it.
fn whole(value: &Value) -> Value {
    match value.as_f64() {
        Some(number) if number.fract() == 0.0 => json!(number as i64),
        _ => value.clone(),
    }
}

/// A line for a schema, and the lines of those below it.
fn describe(schema: &Value, place: &str, lines: &mut Vec<String>) {
    let Some(members) = schema.as_object() else { return };
    let mut facts = String::new();
    for (name, value) in members {
        match name.as_str() {
            "description" | "properties" | "items" | "additionalProperties" => {}
            "required" | "enum" => {
                let mut values: Vec<String> = value.as_array().into_iter().flatten().map(Value::to_string).collect();
                values.sort();
                facts.push_str(&format!(" {name}=[{}]", values.join(",")));
            }
            _ => facts.push_str(&format!(" {name}={}", whole(value))),
        }
    }
    lines.push(format!("{place}:{facts}"));
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        describe(below, &format!("{place} .{name}"), lines);
    }
    describe(&schema["items"], &format!("{place} []"), lines);
    describe(&schema["additionalProperties"], &format!("{place} {{}}"), lines);
}
