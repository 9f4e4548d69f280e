//! Finding things in encoded objects without decoding them.

use std::ops::Range;

/// The bytes of the value at a path of keys in a JSON object, which must be well formed; `None` when it is not there.
pub fn find(json: &[u8], path: &[&str]) -> Option<Range<usize>> {
    let mut at = 0;
    let mut end = json.len();
    for key in path {
        let value = member(json, skip_space(json, at), key)?;
        (at, end) = (value.start, value.end);
    }
    Some(at..end)
}

/// The keys of a JSON object, as they are written, and where their values are.
pub(crate) fn members(json: &[u8]) -> Vec<(&[u8], Range<usize>)> {
    let mut found = Vec::with_capacity(8);
    visit(json, 0, |key, value| {
        found.push((key, value));
        false
    });
    found
}

/// Where the decimal digits of `metadata.resourceVersion` are, or would be: between its quotes.
pub(crate) fn resource_version(json: &[u8]) -> Option<Range<usize>> {
    let value = find(json, &["metadata", "resourceVersion"])?;
    (json.get(value.start) == Some(&b'"')).then(|| value.start + 1..value.end - 1)
}

/// The value of `key` in the object that starts at `at`.
fn member(json: &[u8], at: usize, key: &str) -> Option<Range<usize>> {
    let mut found = None;
    visit(json, at, |name, value| {
        let this = name == key.as_bytes();
        if this {
            found = Some(value);
        }
        this
    });
    found
}

/// Shows the members of the object that starts at `at`, until `done` says so.
fn visit<'j>(json: &'j [u8], at: usize, mut done: impl FnMut(&'j [u8], Range<usize>) -> bool) -> Option<()> {
    if json.get(at) != Some(&b'{') {
        return None;
    }
    let mut at = skip_space(json, at + 1);
    while json.get(at) == Some(&b'"') {
        let key_end = skip_string(json, at)?;
        let name = &json[at + 1..key_end - 1];
        let colon = skip_space(json, key_end);
        let start = skip_space(json, colon + 1);
        let end = skip_value(json, start)?;
        if done(name, start..end) {
            return Some(());
        }
        at = skip_space(json, end);
        if json.get(at) == Some(&b',') {
            at = skip_space(json, at + 1);
        }
    }
    Some(())
}

fn skip_space(json: &[u8], mut at: usize) -> usize {
    while json.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// The end of the string that starts at `at`.
fn skip_string(json: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        let step = json.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        at += step;
        if json[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The end of the value that starts at `at`.
fn skip_value(json: &[u8], at: usize) -> Option<usize> {
    match json.get(at)? {
        b'"' => skip_string(json, at),
        b'{' | b'[' => {
            let mut depth = 0_usize;
            let mut at = at;
            loop {
                match json.get(at)? {
                    b'"' => {
                        at = skip_string(json, at)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        _ => {
            let rest = &json[at..];
            let length = rest.iter().position(|byte| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace());
            Some(at + length.unwrap_or(rest.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_by_path() {
        let json = br#"{"kind":"Pod", "metadata" : {"annotations":{"resourceVersion":"","a\"b":"}{"},"n":[1,{"x":2}],"resourceVersion":"17","t":true},"z":-1.5}"#;
        for (path, expect) in [
            (&["kind"][..], Some(r#""Pod""#)),
            (&["metadata", "resourceVersion"], Some(r#""17""#)),
            (&["metadata", "annotations", "resourceVersion"], Some(r#""""#)),
            (&["metadata", "n"], Some(r#"[1,{"x":2}]"#)),
            (&["metadata", "t"], Some("true")),
            (&["z"], Some("-1.5")),
            (&["metadata", "x"], None),
            (&["kind", "x"], None),
            (&["missing"], None),
        ] {
            let found = find(json, path).map(|range| std::str::from_utf8(&json[range]).unwrap());
            assert_eq!(found, expect, "{path:?}");
        }
        assert_eq!(resource_version(json).map(|range| &json[range]), Some(&b"17"[..]));
    }

    #[test]
    fn broken_json_is_not_found_and_does_no_harm() {
        for json in
            ["", "{", r#"{"metadata"#, r#"{"metadata":{"resourceVersion":"1"#, r#"{"a\"#, "[1]", "null", r#"{"a":}"#]
        {
            assert_eq!(resource_version(json.as_bytes()), None, "{json}");
        }
    }
}
