//! How rules write the names of properties that are no identifiers: `__dot__` and its like, as upstream has it.

use std::borrow::Cow;

/// Words of the language: never a field's name.
const WORDS: [&str; 4] = ["true", "false", "null", "in"];

/// Words that the language keeps for later; fields of that name can be written plainly as well as escaped.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Whether an expression can use a name as it is.
#[must_use]
pub fn is_identifier(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(fits) && !name.starts_with(|first: char| first.is_ascii_digit()) && !is_word(name)
}

fn is_word(name: &str) -> bool {
    WORDS.contains(&name) || RESERVED.contains(&name)
}

/// The name as a rule writes it; none where it cannot.
pub(super) fn escape(name: &str) -> Option<Cow<'_, str>> {
    if is_word(name) {
        return Some(Cow::Owned(format!("__{name}__")));
    }
    let fits = |character: char| character.is_ascii_alphanumeric() || "_.-/".contains(character);
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) || !name.chars().all(fits) {
        return None;
    }
    if !name.contains("__") && !name.contains(['.', '-', '/']) {
        return Some(Cow::Borrowed(name));
    }
    let underscores = name.replace("__", "__underscores__");
    Some(Cow::Owned(underscores.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")))
}

/// Whether a name that is escaped can be written as it is, too.
pub(super) fn accessible(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// The name of the property that a rule writes so.
pub(super) fn unescape(written: &str) -> Cow<'_, str> {
    if !written.contains("__") {
        return Cow::Borrowed(written);
    }
    if let Some(word) = written.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"))
        && (WORDS.contains(&word) || RESERVED.contains(&word))
    {
        return Cow::Owned(word.to_owned());
    }
    let name = written.replace("__dot__", ".").replace("__dash__", "-").replace("__slash__", "/");
    Cow::Owned(name.replace("__underscores__", "__"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, written) in [
            ("replicas", Some("replicas")),
            ("a_b", Some("a_b")),
            ("namespace", Some("__namespace__")),
            ("in", Some("__in__")),
            ("x-prop", Some("x__dash__prop")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("redact__d", Some("redact__underscores__d")),
            ("1st", None),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(escape(name).as_deref(), written, "{name}");
            if let Some(written) = written {
                assert_eq!(unescape(written), name);
            }
        }
    }
}
