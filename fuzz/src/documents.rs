//! YAML documents, as bodies of requests and configurations have them.

use machinery::depth;
use machinery::yaml;
use serde_json::Value;

/// What the scalars of a document may have together here.
const LIMIT: usize = 64 * 1024;
/// What a scalar of one byte may take as JSON: escaped, with its name, quotes and commas.
const EXPANSION: usize = 32;

/// Reads a document and writes it.
///
/// # Panics
/// When a law is broken.
pub fn run(data: &[u8]) {
    let Ok(json) = yaml::to_json(data, LIMIT) else { return };
    assert!(json.len() <= data.len().max(LIMIT) * EXPANSION, "{} bytes of {}", json.len(), data.len());
    // JSON that is one byte for byte is passed on, and refused later where it is no object.
    let Ok(value) = serde_json::from_slice::<Value>(&json) else { return };
    if depth::check(&value).is_err() {
        return;
    }
    assert_eq!(yaml::to_json(&json, LIMIT).as_ref(), Ok(&json), "JSON is YAML");
    let written = serde_saphyr::to_string(&value).unwrap_or_else(|error| panic!("{error}: {value}"));
    let again = yaml::to_json(written.as_bytes(), 8 * LIMIT).unwrap_or_else(|error| panic!("{error}: {written}"));
    let again: Value = serde_json::from_slice(&again).unwrap_or_else(|error| panic!("{error}: {written}"));
    assert_eq!(again, value, "{written}");
}
