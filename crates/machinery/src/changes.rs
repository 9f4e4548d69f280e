//! What differs between two versions of an object, field by field. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Where: `spec.containers[name=web].image`.
    pub path: String,
    /// What was there, if anything was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// What is there, if anything is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// So much of a value is shown.
const SHOWN: usize = 48;
/// So many changes are shown in a line.
const SUMMED_UP: usize = 3;
/// By what elements of lists are known, as merge keys of the API are.
const KEYS: [&str; 7] = ["name", "type", "uid", "containerPort", "port", "ip", "manager"];
/// What changes with every write, and says nothing.
const NOISE: [&str; 2] = ["metadata.managedFields", "metadata.resourceVersion"];

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, "{}: {} → {}", self.path, shown(from), shown(to)),
            (None, Some(to)) => write!(f, "{}: + {}", self.path, shown(to)),
            (Some(from), None) => write!(f, "{}: - {}", self.path, shown(from)),
            (None, None) => f.write_str(&self.path),
        }
    }
}

/// Changes in a line: the first few of those that matter most, and how many more there are.
pub fn summary(changes: &[Change]) -> String {
    let mut changes: Vec<&Change> = changes.iter().collect();
    changes.sort_by_key(|change| rank(change));
    let shown: Vec<String> = changes.iter().take(SUMMED_UP).map(ToString::to_string).collect();
    match changes.len() - shown.len() {
        0 => shown.join("; "),
        more => format!("{}; and {more} more", shown.join("; ")),
    }
}

/// What a line has room for comes first: values, then lists and what is in them, then conditions, and last what comes along
/// with these.
fn rank(change: &Change) -> u8 {
    let is_large = |value: &Option<Value>| value.as_ref().is_some_and(|value| value.is_array() || value.is_object());
    let field = change.path.rsplit('.').next().unwrap_or_default();
    let is_time = field.starts_with("last") && field.ends_with("Time");
    let comes_along = is_time
        || ["generation", "observedGeneration"].contains(&field)
        || change.path.starts_with("metadata.annotations");
    let is_condition = change.path.contains("conditions");
    if comes_along || is_condition && ["message", "reason"].contains(&field) {
        3
    } else if is_condition {
        2
    } else {
        u8::from(change.path.contains('[') || is_large(&change.from) || is_large(&change.to))
    }
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let text: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The fields that differ, in the order of their paths.
pub fn between(old: &Value, new: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare("", Some(old), Some(new), &mut changes);
    changes
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
    if old == new || NOISE.contains(&path) {
        return;
    }
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                compare(&below(path, name), old.get(name), new.get(name), changes);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => match (by_key(old), by_key(new)) {
            (Some((key, old)), Some((other, new))) if key == other => {
                let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
                for name in names {
                    let path = format!("{path}[{key}={name}]");
                    compare(&path, old.get(name).copied(), new.get(name).copied(), changes);
                }
            }
            _ if old.len() == new.len() => {
                for (index, (old, new)) in old.iter().zip(new).enumerate() {
                    compare(&format!("{path}[{index}]"), Some(old), Some(new), changes);
                }
            }
            _ => changes.push(Change {
                path: path.to_owned(),
                from: Some(Value::Array(old.clone())),
                to: Some(Value::Array(new.clone())),
            }),
        },
        (old, new) => changes.push(Change { path: path.to_owned(), from: old.cloned(), to: new.cloned() }),
    }
}

/// A path to a member: names with dots are in brackets, as in `metadata.labels[app.kubernetes.io/name]`.
fn below(path: &str, name: &str) -> String {
    match (path, name.contains(['.', '/'])) {
        ("", _) => name.to_owned(),
        (path, true) => format!("{path}[{name}]"),
        (path, false) => format!("{path}.{name}"),
    }
}

/// The elements of a list by what they are known by, if each has that and none is there twice.
fn by_key(list: &[Value]) -> Option<(&'static str, BTreeMap<String, &Value>)> {
    let objects: Vec<&Map<String, Value>> = list.iter().map(Value::as_object).collect::<Option<_>>()?;
    KEYS.into_iter().find_map(|key| {
        let mut found = BTreeMap::new();
        for (object, value) in objects.iter().zip(list) {
            let name = match object.get(key)? {
                Value::String(name) => name.clone(),
                Value::Number(number) => number.to_string(),
                _ => return None,
            };
            found.insert(name, value);
        }
        (found.len() == list.len()).then_some((key, found))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_that_differ() {
        let check = |old: Value, new: Value, expected: &[&str]| {
            let found: Vec<String> = between(&old, &new).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{old} {new}");
        };
        check(json!({ "a": 1 }), json!({ "a": 1 }), &[]);
        check(
            json!({ "metadata": { "resourceVersion": "1", "managedFields": [1] }, "spec": { "replicas": 2 } }),
            json!({ "metadata": { "resourceVersion": "2", "managedFields": [] }, "spec": { "replicas": 3 } }),
            &["spec.replicas: 2 → 3"],
        );
        check(
            json!({ "metadata": { "labels": { "app.kubernetes.io/name": "a" } } }),
            json!({ "metadata": { "labels": { "app": "b" } } }),
            &["metadata.labels.app: + b", "metadata.labels[app.kubernetes.io/name]: - a"],
        );
        check(
            json!({ "c": [{ "name": "web", "image": "a" }, { "name": "log" }] }),
            json!({ "c": [{ "name": "log" }, { "name": "web", "image": "b" }] }),
            &["c[name=web].image: a → b"],
        );
        check(json!({ "c": [{ "name": "web" }] }), json!({ "c": [] }), &[r#"c[name=web]: - {"name":"web"}"#]);
        check(
            json!({ "c": [{ "type": "Ready", "status": "False" }] }),
            json!({ "c": [{ "type": "Ready", "status": "True" }, { "type": "New" }] }),
            &[r#"c[type=New]: + {"type":"New"}"#, "c[type=Ready].status: False → True"],
        );
        check(json!({ "a": [1, 2] }), json!({ "a": [1, 3] }), &["a[1]: 2 → 3"]);
        check(json!({ "a": [1] }), json!({ "a": [1, 3] }), &["a: [1] → [1,3]"]);
        check(json!({ "a": null }), json!({ "a": { "b": 1 } }), &[r#"a: null → {"b":1}"#]);
    }

    #[test]
    fn what_matters_comes_first() {
        let old = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False", "lastTransitionTime": "1" }],
            "list": [], "phase": "Pending" }, "metadata": { "annotations": { "a": "1" } } });
        let new = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2" }],
            "list": [1], "phase": "Running" }, "metadata": { "annotations": { "a": "2" } } });
        assert_eq!(
            summary(&between(&old, &new)),
            "status.phase: Pending → Running; status.list: [] → [1]; status.conditions[type=Ready].status: False → True; \
             and 2 more"
        );
        assert_eq!(summary(&[]), "");
    }

    #[test]
    fn long_values_are_cut() {
        let change = &between(&json!({ "a": "x\ny" }), &json!({ "a": "é".repeat(60) }))[0];
        assert_eq!(change.to_string(), format!("a: x y → {}…", "é".repeat(SHOWN)));
    }
}
