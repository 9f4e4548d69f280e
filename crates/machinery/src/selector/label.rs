//! Label selectors: `a=b,c in (d,e),!f`, and the `LabelSelector` objects inside of specs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1;

use crate::field::quote;
use crate::validate;

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The label is there, with one of the values. `=` is this with one value.
    In,
    /// The label has none of the values; it may be absent. `!=` is this with one value.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The label is a number above the value.
    GreaterThan,
    /// The label is a number below the value.
    LessThan,
}

/// One term of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what.
    pub values: BTreeSet<String>,
    /// Whether it was, or is to be, written with `=` or `!=` rather than as a set.
    equality: bool,
}

/// Terms that must all hold. No terms select everything; [`LabelSelector::nothing`] selects nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// Why a text or object is no label selector. The messages are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelSelectorError {
    /// The grammar.
    #[error("unable to parse requirement: {0}")]
    Requirement(String),
    /// The grammar, between terms.
    #[error("{0}")]
    Syntax(String),
    /// An operator of a selector object that does not exist.
    #[error("{} is not a valid label selector operator", quote(.0))]
    Operator(String),
}

impl Requirement {
    /// Builds one term and checks it.
    ///
    /// # Errors
    /// When key or values are no label's, or do not go with the operator.
    pub fn new(
        key: impl Into<String>,
        operator: Operator,
        values: impl IntoIterator<Item = String>,
    ) -> Result<Self, LabelSelectorError> {
        let (key, values) = (key.into(), values.into_iter().collect::<BTreeSet<_>>());
        let invalid = |text: String| Err(LabelSelectorError::Requirement(text));
        if let Some(message) = validate::label_key(&key).first() {
            return invalid(format!("key: Invalid value: {}: {message}", quote(&key)));
        }
        let list = || values.iter().map(|value| quote(value)).collect::<Vec<_>>().join(",");
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return invalid(
                    "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".into(),
                );
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return invalid(format!(
                    "values: Invalid value: [{}]: values set must be empty for exists and does not exist",
                    list()
                ));
            }
            Operator::GreaterThan | Operator::LessThan => {
                let mut each = values.iter();
                let (Some(value), None) = (each.next(), each.next()) else {
                    return invalid(format!(
                        "values: Invalid value: [{}]: for 'Gt', 'Lt' operators, exactly one value is required",
                        list()
                    ));
                };
                if value.parse::<i64>().is_err() {
                    return invalid(format!(
                        "values[0]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer",
                        quote(value)
                    ));
                }
            }
            _ => {}
        }
        for value in &values {
            if let Some(message) = validate::label_value(value).first() {
                return invalid(format!("values[0][{key}]: Invalid value: {}: {message}", quote(value)));
            }
        }
        Ok(Self { key, operator, values, equality: false })
    }

    fn equality(mut self) -> Self {
        self.equality = true;
        self
    }

    /// Whether an object whose label of this key is `value` satisfies the term.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let number = |text: &str| text.parse::<i64>().ok();
        let compare = |fits: fn(i64, i64) -> bool| {
            let bound = self.values.first().and_then(|bound| number(bound));
            matches!((value.and_then(number), bound), (Some(value), Some(bound)) if fits(value, bound))
        };
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compare(|value, bound| value > bound),
            Operator::LessThan => compare(|value, bound| value < bound),
        }
    }
}

impl LabelSelector {
    /// Selects everything.
    pub const fn everything() -> Self {
        Self { requirements: Vec::new(), nothing: false }
    }

    /// Selects nothing.
    pub const fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Selects by terms.
    pub fn new(requirements: Vec<Requirement>) -> Self {
        Self { requirements, nothing: false }
    }

    /// Reads a selector; the empty text selects everything.
    ///
    /// # Errors
    /// When the text is no label selector.
    pub fn parse(text: &str) -> Result<Self, LabelSelectorError> {
        Parser { tokens: tokens(text), at: 0 }.selector()
    }

    /// The selector of a map of labels, as a Service has it. As upstream, an empty map selects everything; a Service
    /// without a selector is a case of its own that its controller treats.
    pub fn from_map<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let requirements = labels.into_iter().map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: BTreeSet::from([value.clone()]),
            equality: true,
        });
        Self::new(requirements.collect())
    }

    /// The selector of an object: none selects nothing, an empty one everything.
    ///
    /// # Errors
    /// When an operator or its values are wrong.
    pub fn from_object(selector: Option<&v1::LabelSelector>) -> Result<Self, LabelSelectorError> {
        let Some(selector) = selector else {
            return Ok(Self::nothing());
        };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key.clone(), Operator::In, [value.clone()])?.equality());
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(LabelSelectorError::Operator(other.to_owned())),
            };
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(Requirement::new(expression.key.clone(), operator, values)?);
        }
        Ok(Self::new(requirements))
    }

    /// The terms.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether nothing can be selected.
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_by(|key| labels.get(key).map(String::as_str))
    }

    /// Whether an object is selected, with labels kept in any form. No labels at all: `None`.
    pub fn matches_option(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.matches_by(|key| labels.and_then(|labels| labels.get(key)).map(String::as_str))
    }

    /// Whether an object is selected whose labels are looked up by a function.
    pub fn matches_by<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|term| term.matches(label(&term.key)))
    }
}

impl FromStr for LabelSelector {
    type Err = LabelSelectorError;

    fn from_str(text: &str) -> Result<Self, LabelSelectorError> {
        Self::parse(text)
    }
}

/// Written as upstream does, terms in the order of their keys; a selector that selects nothing has no written form.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Requirement> = self.requirements.iter().collect();
        sorted.sort_by(|left, right| left.key.cmp(&right.key));
        for (index, term) in sorted.into_iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{term}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match (self.operator, self.equality) {
            (Operator::In, true) => write!(f, "{}={values}", self.key),
            (Operator::NotIn, true) => write!(f, "{}!={values}", self.key),
            (Operator::In, false) => write!(f, "{} in ({values})", self.key),
            (Operator::NotIn, false) => write!(f, "{} notin ({values})", self.key),
            (Operator::Exists, _) => f.write_str(&self.key),
            (Operator::DoesNotExist, _) => write!(f, "!{}", self.key),
            (Operator::GreaterThan, _) => write!(f, "{}>{values}", self.key),
            (Operator::LessThan, _) => write!(f, "{}<{values}", self.key),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Sign(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Word(text) | Self::Sign(text) => text,
            Self::End => "",
        }
    }
}

const SIGNS: &[char] = &['=', '!', '(', ')', ',', '>', '<'];

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (token, length) = if let Some(sign) = ["==", "!="].into_iter().find(|sign| rest.starts_with(sign)) {
            (Token::Sign(&rest[..sign.len()]), sign.len())
        } else if rest.starts_with(SIGNS) {
            (Token::Sign(&rest[..1]), 1)
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || SIGNS.contains(&c)).unwrap_or(rest.len());
            (Token::Word(&rest[..end]), end)
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    tokens
}

/// Recursive descent over the tokens, with upstream's grammar and complaints.
struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn selector(mut self) -> Result<LabelSelector, LabelSelectorError> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::End => return Ok(LabelSelector::new(requirements)),
                Token::Word(_) | Token::Sign("!") => requirements.push(self.requirement()?),
                token => return syntax(token, "!, identifier, or 'end of string'"),
            }
            match self.next() {
                Token::End => return Ok(LabelSelector::new(requirements)),
                Token::Sign(",") => {
                    let after = self.peek();
                    if !matches!(after, Token::Word(_) | Token::Sign("!")) {
                        return syntax(after, "identifier after ','");
                    }
                }
                token => return syntax(token, "',' or 'end of string'"),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, LabelSelectorError> {
        let absent = self.peek() == Token::Sign("!");
        if absent {
            self.next();
        }
        let key = match self.next() {
            Token::Word(key) => key,
            token => return term(token, "identifier"),
        };
        if absent {
            return Requirement::new(key, Operator::DoesNotExist, []);
        }
        if matches!(self.peek(), Token::End | Token::Sign(",")) {
            return Requirement::new(key, Operator::Exists, []);
        }
        match self.next() {
            Token::Sign("=" | "==") => Ok(Requirement::new(key, Operator::In, [self.value()?])?.equality()),
            Token::Sign("!=") => Ok(Requirement::new(key, Operator::NotIn, [self.value()?])?.equality()),
            Token::Sign(">") | Token::Word("gt") => Requirement::new(key, Operator::GreaterThan, [self.value()?]),
            Token::Sign("<") | Token::Word("lt") => Requirement::new(key, Operator::LessThan, [self.value()?]),
            Token::Word("in") => Requirement::new(key, Operator::In, self.values()?),
            Token::Word("notin") => Requirement::new(key, Operator::NotIn, self.values()?),
            token => term(token, "in, notin, =, ==, !=, gt, lt"),
        }
    }

    /// One value; nothing at all is the empty value.
    fn value(&mut self) -> Result<String, LabelSelectorError> {
        match self.peek() {
            Token::End | Token::Sign(",") => Ok(String::new()),
            Token::Word(value) => {
                self.next();
                Ok(value.to_owned())
            }
            token @ Token::Sign(_) => term(token, "identifier"),
        }
    }

    /// Values in parentheses; two commas in a row, one at an end, or nothing at all stand around the empty value
    /// (apimachinery `pkg/labels/selector.go`, `parseValues`).
    fn values(&mut self) -> Result<Vec<String>, LabelSelectorError> {
        match self.next() {
            Token::Sign("(") => {}
            token => return term(token, "'('"),
        }
        let mut values = Vec::new();
        let mut wanted = true;
        loop {
            match self.next() {
                Token::Word(value) if wanted => {
                    values.push(value.to_owned());
                    wanted = false;
                }
                Token::Sign(",") => {
                    if wanted {
                        values.push(String::new());
                    }
                    wanted = true;
                }
                Token::Sign(")") => {
                    if wanted {
                        values.push(String::new());
                    }
                    return Ok(values);
                }
                token if wanted => return term(token, "',', ')' or identifier"),
                token => return term(token, "',' or ')'"),
            }
        }
    }
}

fn syntax<T>(found: Token<'_>, expected: &str) -> Result<T, LabelSelectorError> {
    Err(LabelSelectorError::Syntax(format!("found '{}', expected: {expected}", found.text())))
}

fn term<T>(found: Token<'_>, expected: &str) -> Result<T, LabelSelectorError> {
    Err(LabelSelectorError::Requirement(format!("found '{}', expected: {expected}", found.text())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split_terminator(',').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
    }

    #[test]
    fn parse_and_match() {
        for (selector, object, expect) in [
            ("", "a=b", true),
            ("a=b", "a=b", true),
            ("a==b", "a=b,c=d", true),
            ("a = b", "a=c", false),
            ("a!=b", "a=c", true),
            ("a!=b", "", true),
            ("a!=b", "a=b", false),
            ("a", "a=", true),
            ("a", "b=", false),
            ("!a", "b=", true),
            ("! a", "a=", false),
            ("a in (b,c)", "a=c", true),
            ("a in ( b , c )", "a=d", false),
            ("a in (b,)", "a=", true),
            ("a in (,)", "a=", true),
            ("a in ()", "a=", true),
            ("a in ()", "a=b", false),
            ("a notin ()", "a=", false),
            ("a notin (b,c)", "a=d", true),
            ("a notin (b,c)", "", true),
            ("a notin (b,c)", "a=b", false),
            ("a>5", "a=6", true),
            ("a>5", "a=5", false),
            ("a<5", "a=4", true),
            ("a lt 5", "a=4", true),
            ("a<5", "a=x", false),
            ("a=", "a=", true),
            ("a=,b", "a=,b=1", true),
            ("in in (in)", "in=in", true),
            ("a/b=c,!d,e in (f)", "a/b=c,e=f", true),
        ] {
            let parsed = LabelSelector::parse(selector).unwrap_or_else(|error| panic!("{selector}: {error}"));
            assert_eq!(parsed.matches(&labels(object)), expect, "{selector} on {object}");
            let again = LabelSelector::parse(&parsed.to_string()).unwrap();
            assert_eq!(again.to_string(), parsed.to_string());
        }
    }

    #[test]
    fn complaints() {
        for (text, expect) in [
            (",a", "found ',', expected: !, identifier, or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("a x b", "unable to parse requirement: found 'x', expected: in, notin, =, ==, !=, gt, lt"),
            ("a in b", "unable to parse requirement: found 'b', expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a=(", "unable to parse requirement: found '(', expected: identifier"),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap_err().to_string(), expect, "{text}");
        }
        for text in ["-a", "a=-b", "a>b", "a/b/c=d"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn objects() {
        assert!(LabelSelector::from_object(None).unwrap().is_nothing());
        assert!(!LabelSelector::nothing().matches(&labels("")));
        assert!(LabelSelector::from_object(Some(&v1::LabelSelector::default())).unwrap().is_everything());
        let object = v1::LabelSelector {
            match_labels: Some(labels("b=1,a=2")),
            match_expressions: Some(vec![v1::LabelSelectorRequirement {
                key: "c".into(),
                operator: "In".into(),
                values: Some(vec!["y".into(), "x".into()]),
            }]),
        };
        let selector = LabelSelector::from_object(Some(&object)).unwrap();
        assert_eq!(selector.to_string(), "a=2,b=1,c in (x,y)");
        assert!(selector.matches(&labels("a=2,b=1,c=x")));
        let wrong = v1::LabelSelector {
            match_expressions: Some(vec![v1::LabelSelectorRequirement {
                key: "c".into(),
                operator: "Is".into(),
                values: None,
            }]),
            ..Default::default()
        };
        assert_eq!(
            LabelSelector::from_object(Some(&wrong)).unwrap_err().to_string(),
            "\"Is\" is not a valid label selector operator"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ab=!,()<> é]{0,24}|(a|in|notin|\\(|\\)|,| |=){0,12}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap().to_string(), selector.to_string());
            }
        }
    }
}
