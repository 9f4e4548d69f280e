//! Paths into an object, and what is wrong with the value there.
//!
//! An [`ErrorList`] is what validation returns; [`crate::ApiError::invalid`] makes the 422 answer of it. The texts are
//! upstream's, because people search for them and tools match them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

/// The way from the root of an object to one of its fields: `spec.containers[0].name`.
///
/// Cloning is cheap, and nothing is rendered before an error asks for it.
#[derive(Clone, Debug)]
pub struct Path(Arc<Node>);

#[derive(Debug)]
struct Node {
    parent: Option<Path>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Name(Cow<'static, str>),
    Index(usize),
    Key(String),
}

impl Path {
    /// A path of one field name.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Node { parent: None, step: Step::Name(name.into()) }))
    }

    /// A field of the object at this path.
    #[must_use]
    pub fn child(&self, name: impl Into<Cow<'static, str>>) -> Self {
        self.then(Step::Name(name.into()))
    }

    /// An item of the list at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    /// A value of the map at this path.
    #[must_use]
    pub fn key(&self, key: impl Into<String>) -> Self {
        self.then(Step::Key(key.into()))
    }

    fn then(&self, step: Step) -> Self {
        Self(Arc::new(Node { parent: Some(self.clone()), step }))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = &self.0.parent {
            write!(f, "{parent}")?;
            if matches!(self.0.step, Step::Name(_)) {
                f.write_str(".")?;
            }
        }
        match &self.0.step {
            Step::Name(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// What kind of wrong a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorKind {
    /// It names something that does not exist.
    NotFound,
    /// It is missing.
    Required,
    /// It occurs twice where it must be unique.
    Duplicate,
    /// It breaks a rule.
    Invalid,
    /// It is not one of the known values.
    NotSupported,
    /// It may not be set here or now.
    Forbidden,
    /// It is too long.
    TooLong,
    /// It has too many items.
    TooMany,
    /// It could not be judged.
    Internal,
    /// It has the wrong JSON type.
    TypeInvalid,
}

impl ErrorKind {
    /// The `reason` of a cause in a `Status`.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    /// The words that open the message.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    /// Whether the message shows the offending value.
    const fn shows_value(self) -> bool {
        matches!(
            self,
            Self::NotFound | Self::Duplicate | Self::Invalid | Self::NotSupported | Self::TooMany | Self::TypeInvalid
        )
    }
}

/// One thing that is wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What kind of wrong.
    pub kind: ErrorKind,
    /// The field's path, rendered; upstream writes `<nil>` where there is none.
    pub field: String,
    /// The offending value, where the message shows it.
    pub value: Option<Value>,
    /// What would be right; may be empty.
    pub detail: String,
}

impl FieldError {
    fn make(kind: ErrorKind, path: &Path, value: Option<Value>, detail: impl Into<String>) -> Self {
        Self { kind, field: path.to_string(), value, detail: detail.into() }
    }

    /// The field is missing.
    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::make(ErrorKind::Required, path, None, detail)
    }

    /// The value breaks the rule that `detail` states.
    pub fn invalid(path: &Path, value: impl Serialize, detail: impl Into<String>) -> Self {
        Self::make(ErrorKind::Invalid, path, Some(to_value(value)), detail)
    }

    /// The value has the wrong JSON type.
    pub fn type_invalid(path: &Path, value: impl Serialize, detail: impl Into<String>) -> Self {
        Self::make(ErrorKind::TypeInvalid, path, Some(to_value(value)), detail)
    }

    /// The value is none of `valid`, which are shown in the order given (upstream sorts them before).
    pub fn not_supported(path: &Path, value: impl Serialize, valid: &[&str]) -> Self {
        let detail = if valid.is_empty() {
            String::new()
        } else {
            let quoted: Vec<String> = valid.iter().map(|value| quote(value)).collect();
            format!("supported values: {}", quoted.join(", "))
        };
        Self::make(ErrorKind::NotSupported, path, Some(to_value(value)), detail)
    }

    /// The value occurs a second time.
    pub fn duplicate(path: &Path, value: impl Serialize) -> Self {
        Self::make(ErrorKind::Duplicate, path, Some(to_value(value)), "")
    }

    /// The field may not be set, or not be changed.
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::make(ErrorKind::Forbidden, path, None, detail)
    }

    /// The value is longer than `max` bytes. Upstream no longer shows such a value, so it is not kept.
    pub fn too_long(path: &Path, _value: impl Serialize, max: usize) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        Self::make(ErrorKind::TooLong, path, None, format!("may not be more than {max} {unit}"))
    }

    /// The list or map has `actual` items where at most `max` are allowed.
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::make(ErrorKind::TooMany, path, Some(Value::from(actual)), format!("must have at most {max} {unit}"))
    }

    /// The value names something that does not exist.
    pub fn not_found(path: &Path, value: impl Serialize) -> Self {
        Self::make(ErrorKind::NotFound, path, Some(to_value(value)), "")
    }

    /// The value could not be judged.
    pub fn internal(path: &Path, detail: impl Into<String>) -> Self {
        Self::make(ErrorKind::Internal, path, None, detail)
    }

    /// The message without the field, as a `Status` cause has it.
    pub fn body(&self) -> String {
        let mut body = self.kind.text().to_owned();
        if let (true, Some(value)) = (self.kind.shows_value(), &self.value) {
            body.push_str(": ");
            match value {
                Value::String(text) => body.push_str(&quote(text)),
                other => body.push_str(&other.to_string()),
            }
        }
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

impl std::error::Error for FieldError {}

/// Everything that is wrong with an object, in the order in which it was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorList(pub Vec<FieldError>);

impl ErrorList {
    /// An empty list.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many things are wrong.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds one finding.
    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    /// Adds an `Invalid` finding for every message of a rule of [`crate::validate`].
    pub fn push_messages(&mut self, path: &Path, value: &str, messages: impl IntoIterator<Item = String>) {
        self.0.extend(messages.into_iter().map(|message| FieldError::invalid(path, value, message)));
    }

    /// Iterates over the findings.
    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.0.iter()
    }
}

/// One finding as it is, several in brackets; a text that occurs twice is shown once.
impl fmt::Display for ErrorList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut seen = BTreeSet::new();
        let texts: Vec<String> =
            self.0.iter().map(ToString::to_string).filter(|text| seen.insert(text.clone())).collect();
        match texts.as_slice() {
            [one] => f.write_str(one),
            many => write!(f, "[{}]", many.join(", ")),
        }
    }
}

impl Extend<FieldError> for ErrorList {
    fn extend<T: IntoIterator<Item = FieldError>>(&mut self, iter: T) {
        self.0.extend(iter);
    }
}

impl FromIterator<FieldError> for ErrorList {
    fn from_iter<T: IntoIterator<Item = FieldError>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl IntoIterator for ErrorList {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a ErrorList {
    type Item = &'a FieldError;
    type IntoIter = std::slice::Iter<'a, FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl From<Vec<FieldError>> for ErrorList {
    fn from(errors: Vec<FieldError>) -> Self {
        Self(errors)
    }
}

fn to_value(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// A string in double quotes, escaped as Go's `%q` does.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{07}' => quoted.push_str("\\a"),
            '\u{08}' => quoted.push_str("\\b"),
            '\u{0b}' => quoted.push_str("\\v"),
            '\u{0c}' => quoted.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let path = Path::new("spec").child("containers").index(0).child("name");
        assert_eq!(path.to_string(), "spec.containers[0].name");
        assert_eq!(Path::new("metadata").child("labels").key("a/b").to_string(), "metadata.labels[a/b]");
    }

    #[test]
    fn texts_are_upstreams() {
        let path = Path::new("spec").child("replicas");
        let cases = [
            (
                FieldError::invalid(&path, -1, "must be greater than or equal to 0"),
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ),
            (FieldError::invalid(&path, "a\"b", "x"), "spec.replicas: Invalid value: \"a\\\"b\": x"),
            (FieldError::invalid(&path, Value::Null, ""), "spec.replicas: Invalid value: null"),
            (
                FieldError::invalid(&path, serde_json::json!({"b": [1]}), "x"),
                "spec.replicas: Invalid value: {\"b\":[1]}: x",
            ),
            (FieldError::required(&path, ""), "spec.replicas: Required value"),
            (FieldError::required(&path, "name"), "spec.replicas: Required value: name"),
            (
                FieldError::not_supported(&path, "x", &["Always", "Never"]),
                "spec.replicas: Unsupported value: \"x\": supported values: \"Always\", \"Never\"",
            ),
            (FieldError::duplicate(&path, "a"), "spec.replicas: Duplicate value: \"a\""),
            (FieldError::forbidden(&path, "no"), "spec.replicas: Forbidden: no"),
            (FieldError::too_long(&path, "aaaa", 3), "spec.replicas: Too long: may not be more than 3 bytes"),
            (FieldError::too_many(&path, 4, 3), "spec.replicas: Too many: 4: must have at most 3 items"),
            (FieldError::not_found(&path, "v"), "spec.replicas: Not found: \"v\""),
            (FieldError::internal(&path, "boom"), "spec.replicas: Internal error: boom"),
        ];
        for (error, expect) in cases {
            assert_eq!(error.to_string(), expect);
        }
    }

    #[test]
    fn lists() {
        let path = Path::new("a");
        let one = FieldError::required(&path, "");
        let two = FieldError::forbidden(&path, "");
        assert_eq!(ErrorList(vec![one.clone()]).to_string(), "a: Required value");
        assert_eq!(ErrorList(vec![one.clone(), one.clone()]).to_string(), "a: Required value");
        assert_eq!(ErrorList(vec![one.clone(), two, one]).to_string(), "[a: Required value, a: Forbidden]");
    }
}
