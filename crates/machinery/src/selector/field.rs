//! Field selectors: `metadata.name=x,spec.nodeName!=y`.

use std::fmt;
use std::str::FromStr;

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field's path, such as `metadata.name`.
    pub field: String,
    /// The value it must, or must not, have.
    pub value: String,
    /// `true` for `=`, `false` for `!=`.
    pub equal: bool,
}

/// Terms that must all hold. No terms select everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// The terms.
    pub requirements: Vec<FieldRequirement>,
}

/// Why a text is no field selector. The messages are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldSelectorError {
    /// A term has no operator.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term {
        /// The whole text.
        selector: String,
        /// The term.
        term: String,
    },
    /// A backslash stands before something that needs none.
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    /// A value contains a bare `=`.
    #[error("invalid field selector: unescaped character in value: {0}")]
    Unescaped(char),
}

impl FieldSelector {
    /// Reads a selector; the empty text selects everything.
    ///
    /// # Errors
    /// When the text is no field selector.
    pub fn parse(text: &str) -> Result<Self, FieldSelectorError> {
        let requirements = split_terms(text)
            .into_iter()
            .filter(|term| !term.is_empty())
            .map(|term| {
                let (field, operator, value) = split_term(term)
                    .ok_or_else(|| FieldSelectorError::Term { selector: text.to_owned(), term: term.to_owned() })?;
                Ok(FieldRequirement { field: field.to_owned(), value: unescape(value)?, equal: operator != "!=" })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { requirements })
    }

    /// Selects by equality of one field.
    pub fn equals(field: impl Into<String>, value: impl Into<String>) -> Self {
        Self { requirements: vec![FieldRequirement { field: field.into(), value: value.into(), equal: true }] }
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object with these fields is selected. A field that the object does not have counts as empty.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|term| (field(&term.field).unwrap_or("") == term.value) == term.equal)
    }

    /// The value that a field is required to equal, which allows to look the object up instead of scanning.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }

    /// The fields that are asked for.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.requirements.iter().map(|term| term.field.as_str())
    }
}

impl FromStr for FieldSelector {
    type Err = FieldSelectorError;

    fn from_str(text: &str) -> Result<Self, FieldSelectorError> {
        Self::parse(text)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.requirements.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let operator = if term.equal { "=" } else { "!=" };
            write!(f, "{comma}{}{operator}", term.field)?;
            for c in term.value.chars() {
                if matches!(c, '\\' | ',' | '=') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

/// Splits at the commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, &'static str, &str)> {
    for (at, _) in term.char_indices() {
        for operator in ["!=", "==", "="] {
            if let Some(value) = term[at..].strip_prefix(operator) {
                return Some((&term[..at], operator, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, FieldSelectorError> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => plain.push(c),
                Some(c) => return Err(FieldSelectorError::Escape(format!("\\{c}"))),
                None => return Err(FieldSelectorError::Escape("\\".to_owned())),
            },
            ',' | '=' => return Err(FieldSelectorError::Unescaped(c)),
            c => plain.push(c),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(field: &str) -> Option<&'static str> {
        match field {
            "metadata.name" => Some("a"),
            "spec.nodeName" => Some("n,1"),
            _ => None,
        }
    }

    #[test]
    fn parse_and_match() {
        for (text, expect, written) in [
            ("", true, ""),
            ("metadata.name=a", true, "metadata.name=a"),
            ("metadata.name==a", true, "metadata.name=a"),
            ("metadata.name!=a", false, "metadata.name!=a"),
            ("metadata.name=a,spec.nodeName!=x", true, "metadata.name=a,spec.nodeName!=x"),
            ("spec.nodeName=n\\,1", true, "spec.nodeName=n\\,1"),
            ("status.phase=", true, "status.phase="),
            ("status.phase!=Running", true, "status.phase!=Running"),
            ("metadata.name=a,", true, "metadata.name=a"),
        ] {
            let selector = FieldSelector::parse(text).unwrap();
            assert_eq!((selector.matches(fields), selector.to_string().as_str()), (expect, written), "{text}");
        }
        for text in ["a", "a=b=c", "a=\\x", "a=\\", "x,y=z"] {
            assert!(FieldSelector::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            FieldSelector::parse("a,b").unwrap_err().to_string(),
            "invalid selector: 'a,b'; can't understand 'a'"
        );
        assert_eq!(FieldSelector::parse("metadata.name=a,b!=c").unwrap().exact("metadata.name"), Some("a"));
        assert_eq!(FieldSelector::parse("metadata.name!=a").unwrap().exact("metadata.name"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a=!,\\\\é ]{0,20}") {
            if let Ok(selector) = FieldSelector::parse(&text) {
                prop_assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
            }
        }
    }
}
