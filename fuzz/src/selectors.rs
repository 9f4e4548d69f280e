//! Label and field selectors, as they come in queries.

use machinery::selector::Operator;
use machinery::{FieldSelector, LabelSelector};

/// Reads a text as each of the two.
///
/// # Panics
/// When a law is broken.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        label_selector(&selector);
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        field_selector(&selector);
    }
}

fn label_selector(selector: &LabelSelector) {
    let written = selector.to_string();
    let again = LabelSelector::parse(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
    assert_eq!(again.to_string(), written);
    let mut terms = selector.requirements().to_vec();
    terms.sort_by(|left, right| left.key.cmp(&right.key));
    assert_eq!(again.requirements(), terms, "{written}");
    for term in &terms {
        for value in term.values.iter().map(String::as_str).chain(["", "0", "x"]).map(Some).chain([None]) {
            let found = term.matches(value);
            let expect = match (term.operator, value) {
                (Operator::In, value) => value.is_some_and(|value| term.values.contains(value)),
                (Operator::NotIn, value) => !value.is_some_and(|value| term.values.contains(value)),
                (Operator::Exists, value) => value.is_some(),
                (Operator::DoesNotExist, value) => value.is_none(),
                (Operator::GreaterThan | Operator::LessThan, None) => false,
                (Operator::GreaterThan | Operator::LessThan, Some(_)) => found,
            };
            assert_eq!(found, expect, "{term} of {value:?}");
            // One label under every key.
            assert_eq!(selector.matches_by(|_| value), again.matches_by(|_| value), "{written} of {value:?}");
        }
    }
}

fn field_selector(selector: &FieldSelector) {
    let written = selector.to_string();
    assert_eq!(FieldSelector::parse(&written).as_ref(), Ok(selector), "{written}");
    for term in &selector.requirements {
        assert_eq!(
            selector.exact(&term.field).is_some(),
            selector.requirements.iter().any(|other| { other.equal && other.field == term.field })
        );
        if selector.requirements.len() == 1 {
            assert_eq!(selector.matches(|_| Some(&term.value)), term.equal, "{written}");
        }
    }
}
