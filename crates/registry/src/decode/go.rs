//! How Go's JSON decoder says things, for messages that people know from upstream.

/// Go's name for the type at a Rust path: `alloc::vec::Vec<...::core::v1::container::Container>` is `[]v1.Container`.
pub(super) fn type_name(rust: &str) -> String {
    let (path, arguments) = match rust.split_once('<') {
        Some((path, rest)) => (path, rest.strip_suffix('>').unwrap_or(rest)),
        None => (rust, ""),
    };
    let segments: Vec<&str> = path.split("::").collect();
    let name = segments.last().copied().unwrap_or_default();
    match name {
        "Option" | "Box" => type_name(arguments),
        "Vec" => format!("[]{}", type_name(arguments)),
        "BTreeMap" => {
            let (key, value) = arguments.split_once(", ").unwrap_or(("", arguments));
            format!("map[{}]{}", type_name(key), type_name(value))
        }
        "String" => "string".into(),
        "i32" | "i64" | "u32" | "u64" => {
            format!("{}{}", if name.starts_with('i') { "int" } else { "uint" }, &name[1..])
        }
        "f64" => "float64".into(),
        "bool" => "bool".into(),
        "ByteString" => "[]uint8".into(),
        "Quantity" => "resource.Quantity".into(),
        "IntOrString" => "intstr.IntOrString".into(),
        "Value" => "interface {}".into(),
        // Generated types live in a file of their own below the module of the version.
        _ => match segments.as_slice() {
            [.., version, _file, name] => format!("{version}.{name}"),
            _ => name.to_owned(),
        },
    }
}

/// Go's words for broken JSON.
pub(crate) fn syntax_error(error: &serde_json::Error, body: &[u8]) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".into();
    }
    let found = character(body, error.line(), error.column());
    let message = error.to_string();
    let place = [
        ("trailing characters", "after top-level value"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("expected `:`", "after object key"),
        ("key must be a string", "looking for beginning of object key string"),
        ("trailing comma", "looking for beginning of object key string"),
        ("control character", "in string literal"),
        ("invalid escape", "in string escape code"),
        ("invalid number", "in numeric literal"),
        ("expected value", "looking for beginning of value"),
        ("expected ident", "in literal"),
    ]
    .into_iter()
    .find(|(serde, _)| message.starts_with(serde));
    match (place, found) {
        (Some((_, place)), Some(found)) => format!("invalid character {found:?} {place}"),
        _ => message,
    }
}

/// The character at a line and column, both counted from 1, columns in bytes.
fn character(body: &[u8], line: usize, column: usize) -> Option<char> {
    let line = body.split(|byte| *byte == b'\n').nth(line.checked_sub(1)?)?;
    let rest = line.get(column.saturating_sub(1)..)?;
    let text = match std::str::from_utf8(rest) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&rest[..error.valid_up_to()]).ok()?,
    };
    text.chars().next()
}

/// Go's words for a text that is not base64.
pub(super) fn base64_error(text: &str) -> String {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    let offset = text.bytes().position(|byte| !legal(&byte)).unwrap_or(text.len());
    format!("illegal base64 data at input byte {offset}")
}

/// Go's words for a text that is not a time.
pub(super) fn time_error(text: &str) -> String {
    format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
    use std::any::type_name as rust;
    use std::collections::BTreeMap;

    #[test]
    fn types() {
        for (rust, expect) in [
            (rust::<Option<i32>>(), "int32"),
            (rust::<i64>(), "int64"),
            (rust::<Vec<Container>>(), "[]v1.Container"),
            (rust::<Option<ResourceRequirements>>(), "v1.ResourceRequirements"),
            (rust::<BTreeMap<String, String>>(), "map[string]string"),
            (rust::<Option<BTreeMap<String, Vec<String>>>>(), "map[string][]string"),
            (rust::<k8s_openapi::ByteString>(), "[]uint8"),
            (rust::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>(), "v1.Time"),
        ] {
            assert_eq!(type_name(rust), expect);
        }
    }
}
