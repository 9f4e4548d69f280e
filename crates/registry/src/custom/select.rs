//! Fields of custom resources that selectors ask for, read from the bytes of an object.

use serde_json::Value;

use crate::scan;

/// The value at a path of fields (`spec.color`) as text; empty where there is none, or none that can be selected by.
pub(crate) fn text_at(stored: &[u8], path: &str) -> String {
    let steps: Vec<&str> = path.split('.').collect();
    let Some(range) = scan::find(stored, &steps) else { return String::new() };
    match serde_json::from_slice(&stored[range]) {
        Ok(Value::String(text)) => text,
        Ok(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_selectors_compare_them() {
        let stored = br#"{"spec":{"color":"bl\u0075e","size":3,"big":true,"list":[1]}}"#;
        for (path, expect) in [
            ("spec.color", "blue"),
            ("spec.size", "3"),
            ("spec.big", "true"),
            ("spec.list", ""),
            ("spec.missing", ""),
            ("spec.color.deeper", ""),
        ] {
            assert_eq!(text_at(stored, path), expect, "{path}");
        }
    }
}
