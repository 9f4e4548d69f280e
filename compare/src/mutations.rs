//! Objects with one field wrong: for each field of an object, the values that are likely to be refused.

use serde_json::{Value, json};

/// Long enough for whatever has a limit.
const LONG: usize = 300;

/// `object` with one field changed, again and again, and what was changed. Of the metadata, only names, labels, annotations
/// and finalizers are.
pub(crate) fn all(object: &Value) -> Vec<(String, Value)> {
    let mut paths = Vec::new();
    collect(object, &mut Vec::new(), &mut paths);
    let mut mutations = Vec::new();
    for path in paths {
        let pointer =
            path.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect::<String>();
        let Some(value) = object.pointer(&pointer) else { continue };
        for (name, changed) in values(value) {
            let mut mutated = object.clone();
            if let Some(place) = mutated.pointer_mut(&pointer) {
                *place = changed;
            }
            mutations.push((format!("{} {name}", path.join(".")), mutated));
        }
        if let Some(mutated) = without(object, &path) {
            mutations.push((format!("{} removed", path.join(".")), mutated));
        }
    }
    mutations
}

fn collect(value: &Value, path: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    let top = path.first().map(String::as_str);
    if matches!(top, Some("apiVersion" | "kind")) {
        return;
    }
    if !path.is_empty() {
        paths.push(path.clone());
    }
    let steps: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect(),
        _ => Vec::new(),
    };
    for (step, value) in steps {
        path.push(step);
        collect(value, path, paths);
        path.pop();
    }
}

/// What is likely to be wrong in place of `value`.
fn values(value: &Value) -> Vec<(&'static str, Value)> {
    match value {
        Value::Null => Vec::new(),
        Value::Bool(flag) => vec![("negated", json!(!flag)), ("as text", json!("yes"))],
        Value::Number(_) => vec![
            ("= -1", json!(-1)),
            ("= 0", json!(0)),
            ("= 1", json!(1)),
            ("= 70000", json!(70_000)),
            ("= 2^40", json!(1_u64 << 40)),
            ("= 1.5", json!(1.5)),
            ("as text", json!("x")),
        ],
        Value::String(text) => vec![
            ("empty", json!("")),
            ("of another alphabet", json!("Bad Välue!")),
            ("with a path", json!("../a/b")),
            ("long", json!("x".repeat(LONG))),
            ("with more", json!(format!("{text}-x"))),
            ("as number", json!(7)),
        ],
        Value::Array(items) => {
            let mut values = vec![("empty", json!([])), ("as object", json!({})), ("of null", json!([null]))];
            if let Some(first) = items.first() {
                let mut twice = items.clone();
                twice.push(first.clone());
                values.push(("with its first twice", Value::Array(twice)));
            }
            values
        }
        Value::Object(fields) => {
            let mut unknown = fields.clone();
            unknown.insert("unknownField".to_owned(), json!("x"));
            let mut key = fields.clone();
            key.insert("Bad Key!".to_owned(), json!("Bad Välue!"));
            vec![
                ("empty", json!({})),
                ("as text", json!("x")),
                ("with an unknown field", Value::Object(unknown)),
                ("with a bad key", Value::Object(key)),
            ]
        }
    }
}

fn without(object: &Value, path: &[String]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    let mut mutated = object.clone();
    let mut place = &mut mutated;
    for step in parents {
        place = match place {
            Value::Object(fields) => fields.get_mut(step)?,
            Value::Array(items) => items.get_mut(step.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    place.as_object_mut()?.remove(last)?;
    Some(mutated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_changed_and_nothing_else() {
        let object = json!({ "kind": "K", "spec": { "list": [{ "n": 1 }] } });
        let mutations = all(&object);
        let named = |name: &str| mutations.iter().find(|(found, _)| found == name).map(|(_, object)| object.clone());
        assert_eq!(named("spec.list.0.n = -1"), Some(json!({ "kind": "K", "spec": { "list": [{ "n": -1 }] } })));
        assert_eq!(named("spec.list.0.n removed"), Some(json!({ "kind": "K", "spec": { "list": [{}] } })));
        assert_eq!(named("spec.list of null"), Some(json!({ "kind": "K", "spec": { "list": [null] } })));
        assert_eq!(named("spec removed"), Some(json!({ "kind": "K" })));
        assert!(mutations.iter().all(|(_, object)| object["kind"] == "K"));
    }
}
