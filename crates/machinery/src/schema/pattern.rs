//! Regular expressions as Go reads them.
//!
//! One pattern often stands a hundred times in a schema (that of a quantity in the template of a pod), so that patterns
//! are shared, and compiled when a value first meets one.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use regex::{Regex, RegexBuilder};

/// A pattern, compiled at first use.
#[derive(Debug)]
pub(super) struct Pattern {
    text: Box<str>,
    regex: OnceLock<Option<Regex>>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Pattern {
    /// The pattern as it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether a text contains a match. A pattern that cannot be read, which [`super::rules`] refuses, matches all.
    pub(super) fn matches(&self, text: &str) -> bool {
        self.regex.get_or_init(|| compile(&self.text).ok()).as_ref().is_none_or(|regex| regex.is_match(text))
    }
}

/// The patterns of one schema, each once.
#[derive(Default)]
pub(super) struct Patterns(HashMap<Box<str>, Arc<Pattern>>);

impl Patterns {
    pub(super) fn intern(&mut self, text: &str) -> Arc<Pattern> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let pattern = Arc::new(Pattern { text: text.into(), regex: OnceLock::new() });
        self.0.insert(text.into(), Arc::clone(&pattern));
        pattern
    }
}

/// Compiles a pattern.
pub(crate) fn compile(text: &str) -> Result<Regex, regex::Error> {
    Regex::new(&as_go_means(text))
}

/// As [`compile`], of what is not larger than so many bytes then, with as much for each search.
pub(crate) fn compile_within(text: &str, limit: usize) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&as_go_means(text)).size_limit(limit).dfa_size_limit(limit).build()
}

/// In Go `\d`, `\w`, `\s` and `\b` are about ASCII; here they would be about all of Unicode.
fn as_go_means(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut in_class = false;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                let Some(escaped) = characters.next() else {
                    out.push('\\');
                    break;
                };
                let (class, alone) = match escaped {
                    'd' => ("0-9", "[0-9]"),
                    'w' => ("0-9A-Za-z_", "[0-9A-Za-z_]"),
                    's' => ("\\t\\n\\f\\r ", "[\\t\\n\\f\\r ]"),
                    'D' => ("[^0-9]", "[^0-9]"),
                    'W' => ("[^0-9A-Za-z_]", "[^0-9A-Za-z_]"),
                    'S' => ("[^\\t\\n\\f\\r ]", "[^\\t\\n\\f\\r ]"),
                    'b' if !in_class => ("", "(?-u:\\b)"),
                    'Z' => ("", "\\z"),
                    _ => ("", ""),
                };
                match (in_class, alone) {
                    (_, "") => out.extend(['\\', escaped]),
                    (true, _) => out.push_str(class),
                    (false, alone) => out.push_str(alone),
                }
            }
            '[' if in_class => out.push_str("\\["),
            '[' => {
                in_class = true;
                out.push('[');
                // A bracket that closes right after the opening stands for itself.
                let mut rest = characters.clone();
                let mut next = rest.next();
                if next == Some('^') {
                    out.push('^');
                    characters.next();
                    next = rest.next();
                }
                if next == Some(']') {
                    out.push_str("\\]");
                    characters.next();
                }
            }
            ']' => {
                in_class = false;
                out.push(']');
            }
            // Operators of this crate within classes, which Go does not have.
            '&' | '~' if in_class => out.extend(['\\', character]),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_go_means() {
        for (pattern, text, expect) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١٢", false),
            (r"^[\d.]+$", "1.2", true),
            (r"^[]a]+$", "]a", true),
            (r"^[^]]+$", "ab", true),
            (r"^[a[]+$", "a[", true),
            (r"^[a&&b]+$", "a&b", true),
            (r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$", "* * * * */5", true),
            (r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?[0-9]+))?$", "1.5Gi", true),
            (r"\bword\b", "a word", true),
        ] {
            assert_eq!(compile(pattern).unwrap().is_match(text), expect, "{pattern} {text}");
        }
        assert!(compile("(").is_err());
        let mut patterns = Patterns::default();
        assert!(Arc::ptr_eq(&patterns.intern("a"), &patterns.intern("a")));
    }
}
