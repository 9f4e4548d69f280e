//! The part of an aggregated API server's OpenAPI v2 document that is about the version it answers, and how it becomes part of
//! the one document for all.
//!
//! Upstream: kube-openapi `pkg/aggregator/aggregator.go`: paths are taken by their prefix, definitions by who refers to them, and a
//! definition that has the name of another and differs from it gets another name.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::Target;

/// What references to definitions begin with.
const DEFINITIONS: &str = "#/definitions/";
/// Types that all servers share: this server's are as good as theirs, however they describe them.
const SHARED: &str = "io.k8s.apimachinery.";

/// Paths and definitions, as JSON: nobody looks at them but who merges them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part(Bytes);

/// Takes the paths of a version out of a document, with all definitions that they refer to. `None` where there are no such paths,
/// or the document cannot be read.
pub(super) fn part_of(document: &[u8], target: &Target) -> Option<Part> {
    part(document, &format!("/{}/", target.root()), [&target.group, &target.version])
}

fn part(document: &[u8], prefix: &str, group_version: [&str; 2]) -> Option<Part> {
    let mut document: Value = serde_json::from_slice(document).ok()?;
    let paths: Map<String, Value> = match document["paths"].take() {
        Value::Object(paths) => paths.into_iter().filter(|(path, _)| path.starts_with(prefix)).collect(),
        _ => return None,
    };
    if paths.is_empty() {
        return None;
    }
    let Value::Object(mut all) = document["definitions"].take() else { return None };
    let mut wanted = BTreeSet::new();
    for operations in paths.values() {
        references(operations, &mut |name| wanted.extend([name.to_owned()]));
    }
    let mut definitions = Map::new();
    while let Some(name) = wanted.pop_first() {
        let Some(definition) = all.remove(&name) else { continue };
        references(&definition, &mut |name| wanted.extend([name.to_owned()]));
        definitions.insert(name, definition);
    }
    // A kind that nobody refers to is explained as well.
    let described = all.into_iter().filter(|(_, definition)| {
        let kinds = definition["x-kubernetes-group-version-kind"].as_array();
        let is_own = |kind: &Value| [&kind["group"], &kind["version"]] == group_version;
        kinds.is_some_and(|kinds| kinds.iter().all(is_own))
    });
    definitions.extend(described);
    let part = json!({ "paths": paths, "definitions": definitions });
    serde_json::to_vec(&part).ok().map(|json| Part(json.into()))
}

impl Part {
    /// Adds it to a document.
    pub(crate) fn add_to(&self, document: &mut Value) {
        // It was JSON when it was made.
        add(document, serde_json::from_slice(&self.0).unwrap_or_default());
    }
}

fn add(document: &mut Value, mut part: Value) {
    let known = document["definitions"].as_object().cloned().unwrap_or_default();
    let mut names = BTreeMap::new();
    for (name, definition) in part["definitions"].as_object().into_iter().flatten() {
        let conflicts = |name: &str| known.get(name).is_some_and(|other| other != definition);
        if !conflicts(name) || name.starts_with(SHARED) {
            continue;
        }
        let other = (2..).map(|number| format!("{name}_v{number}")).find(|name| !conflicts(name));
        names.insert(name.clone(), other.unwrap_or_default());
    }
    if !names.is_empty() {
        rename(&mut part, &names);
    }
    let definitions = part["definitions"].take();
    if let (Some(all), Value::Object(more)) = (document["definitions"].as_object_mut(), definitions) {
        for (name, definition) in more {
            let name = names.get(&name).cloned().unwrap_or(name);
            all.entry(name).or_insert(definition);
        }
    }
    if let (Some(all), Value::Object(more)) = (document["paths"].as_object_mut(), part["paths"].take()) {
        for (path, operations) in more {
            all.insert(path, operations);
        }
    }
}

/// Tells of each definition that something refers to.
fn references(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Object(map) => {
            if let Some(name) =
                map.get("$ref").and_then(Value::as_str).and_then(|place| place.strip_prefix(DEFINITIONS))
            {
                found(name);
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// Lets references to definitions lead to those of other names.
fn rename(value: &mut Value, names: &BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(place)) = map.get_mut("$ref")
                && let Some(other) = place.strip_prefix(DEFINITIONS).and_then(|name| names.get(name))
            {
                *place = format!("{DEFINITIONS}{other}");
            }
            map.values_mut().for_each(|value| rename(value, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(definition: &str) -> Value {
        json!({ "get": { "responses": { "200": { "schema": { "$ref": format!("{DEFINITIONS}{definition}") } } } } })
    }

    fn document() -> Value {
        json!({
            "paths": {
                "/apis/a.example.com/v1/as": operation("AList"),
                "/apis/a.example.com/v2/as": operation("Later"),
                "/apis/b.example.com/v1/bs": operation("B"),
            },
            "definitions": {
                "AList": { "properties": { "items": { "items": { "$ref": "#/definitions/A" } } } },
                "A": { "properties": { "metadata": { "$ref": "#/definitions/io.k8s.apimachinery.Meta" } } },
                "AStatus": { "x-kubernetes-group-version-kind": [{ "group": "a.example.com", "version": "v1", "kind": "AStatus" }] },
                "Later": {}, "B": {}, "io.k8s.apimachinery.Meta": { "description": "theirs" },
            },
        })
    }

    fn of_group(group: &str) -> Option<Part> {
        part(document().to_string().as_bytes(), &format!("/apis/{group}/v1/"), [group, "v1"])
    }

    #[test]
    fn a_part_has_what_its_paths_refer_to_and_no_more() {
        let part = of_group("a.example.com").unwrap();
        let part: Value = serde_json::from_slice(&part.0).unwrap();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&part["paths"]), ["/apis/a.example.com/v1/as"]);
        let mut definitions = keys(&part["definitions"]);
        definitions.sort();
        assert_eq!(definitions, ["A", "AList", "AStatus", "io.k8s.apimachinery.Meta"]);
        assert_eq!(of_group("c.example.com"), None);
        assert_eq!(super::part(b"no JSON", "/apis/a.example.com/v1/", ["a.example.com", "v1"]), None);
    }

    #[test]
    fn a_definition_of_a_name_that_is_taken_gets_another() {
        let part = of_group("a.example.com").unwrap();
        let mut whole = json!({
            "paths": { "/version": {} },
            "definitions": { "A": { "description": "ours" }, "io.k8s.apimachinery.Meta": { "description": "ours" } },
        });
        part.add_to(&mut whole);
        let definitions = &whole["definitions"];
        assert_eq!(definitions["A"]["description"], "ours");
        assert_eq!(definitions["AList"]["properties"]["items"]["items"]["$ref"], "#/definitions/A_v2");
        assert!(definitions["A_v2"]["properties"]["metadata"].is_object());
        assert_eq!(definitions["io.k8s.apimachinery.Meta"]["description"], "ours");
        assert_eq!(whole["paths"].as_object().unwrap().len(), 2);
        let once = whole.clone();
        part.add_to(&mut whole);
        assert_eq!(whole["definitions"]["A_v2"], once["definitions"]["A_v2"]);
    }
}
