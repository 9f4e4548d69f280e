//! Takes out of answers what differs between any two clusters: identities, revisions, times and addresses.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// Patterns in texts, with what stands for what they find.
static PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let patterns = [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UID"),
        // The objects that are sent have times of 2020.
        (r"\b2(0[3-9]|02[1-9])\d*-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
        (r"\b127\.0\.0\.1:\d+", "ADDRESS"),
        (r"\bhash=[0-9A-F]+", "hash=HASH"),
        (r"\bmade-[a-z0-9]{5}\b", "made-RANDOM"),
        // What Go escapes for the sake of HTML.
        (r"\\u003c", "<"),
        (r"\\u003e", ">"),
        (r"\\u0026", "&"),
        (r#"("?resourceVersion"?: ?)"\d+""#, "$1\"REVISION\""),
    ];
    patterns.into_iter().filter_map(|(pattern, name)| Some((Regex::new(pattern).ok()?, name))).collect()
});
static AGE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^(\d+s|\d+m\d*s?|<invalid>)$").ok());

/// A text without them.
pub(crate) fn text(text: &str) -> String {
    PATTERNS.iter().fold(text.to_owned(), |text, (pattern, name)| pattern.replace_all(&text, *name).into_owned())
}

/// A document without them.
pub(crate) fn json(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), &*value) {
                    ("resourceVersion", Value::String(text)) if !text.is_empty() => *value = "REVISION".into(),
                    ("continue", Value::String(text)) if !text.is_empty() => *value = "CONTINUE".into(),
                    ("clusterIP", Value::String(text)) if text.starts_with("10.") => *value = "CLUSTER-IP".into(),
                    ("clusterIPs", Value::Array(all)) if all.iter().any(|one| one != "None") => {
                        *value = "CLUSTER-IPS".into();
                    }
                    ("nodePort" | "healthCheckNodePort", Value::Number(port)) if port.as_u64() > Some(30_000) => {
                        *value = "NODE-PORT".into();
                    }
                    ("cells", Value::Array(_)) => cells(value),
                    _ => json(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(json),
        Value::String(content) => *content = text(content),
        _ => {}
    }
}

/// The cells of a row in a table, ages among them.
fn cells(value: &mut Value) {
    for cell in value.as_array_mut().into_iter().flatten() {
        let is_age = |text: &str| AGE.as_ref().is_some_and(|pattern| pattern.is_match(text));
        if cell.as_str().is_some_and(is_age) {
            *cell = "AGE".into();
        } else {
            json(cell);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_between_any_two_clusters_is_taken_out() {
        let mut object = json!({
            "metadata": { "uid": "0f0f0f0f-0000-1111-2222-333344445555", "resourceVersion": "12", "creationTimestamp": "2026-11-27T05:00:00Z" },
            "cells": ["name", "3s"],
            "spec": { "when": "2020-01-01T00:00:00Z", "clusterIP": "10.96.0.7" },
        });
        json(&mut object);
        let expected = json!({
            "metadata": { "uid": "UID", "resourceVersion": "REVISION", "creationTimestamp": "TIME" },
            "cells": ["name", "AGE"],
            "spec": { "when": "2020-01-01T00:00:00Z", "clusterIP": "CLUSTER-IP" },
        });
        assert_eq!(object, expected);
    }
}
