//! YAML documents as JSON, within the bounds of an object.

use crate::depth::{self, MAX_DEPTH};

/// How many events of the parser aliases may repeat in a document: more than people write, and done in milliseconds.
const REPEATED_MAX: usize = 10_000;

/// YAML, or JSON, as JSON. All scalars of a document may have `limit` bytes together.
///
/// # Errors
/// Where the text is none, or that it is more than it may be.
pub fn to_json(yaml: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    if serde_json::from_slice::<serde::de::IgnoredAny>(yaml).is_ok() {
        return Ok(yaml.to_vec());
    }
    // Aliases count as often as they are used: what they make of a document has the bounds of one that is written out. What they
    // repeat has one of its own, since it costs a sender nothing.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_total_scalar_bytes: limit },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: REPEATED_MAX },
    };
    let value: Result<serde_json::Value, _> =
        depth::with_room_for_all(|| serde_saphyr::from_slice_with_options(yaml, options));
    let value = value.map_err(|error| error.without_snippet().to_string())?;
    serde_json::to_vec(&value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_repeat_within_bounds() {
        let few = "a: &a [1, 2]\nb: [*a, *a]";
        assert_eq!(to_json(few.as_bytes(), 1000).unwrap(), br#"{"a":[1,2],"b":[[1,2],[1,2]]}"#);
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..10 {
            bomb += &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", "));
        }
        let error = to_json(bomb.as_bytes(), 1 << 20).unwrap_err();
        assert!(error.contains("alias"), "{error}");
    }

    /// A controller that finds another number than the one that it wrote would write for ever.
    #[test]
    fn numbers_are_read_as_they_were_written() {
        for number in [0.1, 0.300_000_000_000_000_04, 7.777_777_777_777_000_5, 7.7e36, -9.999_999_999_999_999e41, -1e58]
        {
            for text in [format!("{{\"a\":{number:?}}}"), format!("a: {number:?}")] {
                let json = to_json(text.as_bytes(), 1000).unwrap();
                let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
                assert_eq!(value["a"].as_f64(), Some(number), "{text}");
                assert_eq!(serde_json::from_str::<serde_json::Value>(&value.to_string()).unwrap(), value);
            }
        }
    }
}
