//! JSONPath as printer columns of custom resources use it: `.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`,
//! `.spec.containers[*].image`, `.metadata.annotations.example\.com/key`, `.items[-1]`, `..name`.
//!
//! A path is a program of whoever defines a column: looking for its first value visits as many as it is given.

use std::ops::ControlFlow;

use serde_json::Value;

/// A path, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(Box<str>),
    Index(i64),
    Slice(Option<i64>, Option<i64>, usize),
    Every,
    Descend,
    Filter(Filter),
}

/// `@.path OPERATOR literal`; without an operator, that the path leads somewhere.
#[derive(Debug, Clone, PartialEq)]
struct Filter {
    path: JsonPath,
    test: Option<(Operator, Value)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// How deep filters may stand in filters.
const MAX_FILTERS: usize = 4;

impl JsonPath {
    /// Reads a path; `None` when it is none. As upstream (client-go `util/jsonpath/parser.go`), one recursive descent
    /// right after another is none.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_within(text, MAX_FILTERS)
    }

    /// Reads a path that may have so many `filters` within each other.
    fn parse_within(text: &str, filters: usize) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            rest = match rest.as_bytes() {
                [b'.', b'.', ..] if steps.last() == Some(&Step::Descend) => return None,
                [b'.', b'.', ..] => {
                    steps.push(Step::Descend);
                    &rest[1..]
                }
                [b'.'] => "",
                [b'.', b'[', ..] => &rest[1..],
                [b'.', ..] => field(&rest[1..], &mut steps)?,
                [b'[', ..] => bracket(&rest[1..], &mut steps, filters)?,
                _ if steps.is_empty() => field(rest, &mut steps)?,
                _ => return None,
            };
        }
        Some(Self(steps))
    }

    /// The first value that the path leads to, of as many as are `left` to visit; what was visited is taken from them.
    pub fn first<'a>(&self, value: &'a Value, left: &mut usize) -> Option<&'a Value> {
        let mut first = None;
        let _ = walk(&self.0, value, left, &mut |found| {
            first = Some(found);
            ControlFlow::Break(())
        });
        first
    }
}

/// Shows all values that steps lead to, in order, until `found` breaks or nothing is `left` to visit. Recursion ends with
/// the value's depth: of two steps at least one leads deeper.
fn walk<'a>(
    steps: &[Step],
    value: &'a Value,
    left: &mut usize,
    found: &mut dyn FnMut(&'a Value) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let Some((step, rest)) = steps.split_first() else { return found(value) };
    *left = match left.checked_sub(1) {
        Some(left) => left,
        None => return ControlFlow::Break(()),
    };
    match (step, value) {
        (Step::Field(name), Value::Object(fields)) => match fields.get(&**name) {
            Some(value) => walk(rest, value, left, found),
            None => ControlFlow::Continue(()),
        },
        (Step::Index(index), Value::Array(items)) => {
            match position(*index, items.len()).and_then(|index| items.get(index)) {
                Some(item) => walk(rest, item, left, found),
                None => ControlFlow::Continue(()),
            }
        }
        (Step::Slice(from, to, step), Value::Array(items)) => {
            let bound = |index: Option<i64>, or: usize| match index {
                Some(index) => position(index, items.len()).unwrap_or(0).min(items.len()),
                None => or,
            };
            let (from, to) = (bound(*from, 0), bound(*to, items.len()));
            let mut items = items.iter().take(to).skip(from).step_by((*step).max(1));
            items.try_for_each(|item| walk(rest, item, left, found))
        }
        (Step::Every, Value::Object(fields)) => fields.values().try_for_each(|value| walk(rest, value, left, found)),
        (Step::Every, Value::Array(items)) => items.iter().try_for_each(|item| walk(rest, item, left, found)),
        (Step::Descend, value) => {
            walk(rest, value, left, found)?;
            match value {
                Value::Object(fields) => fields.values().try_for_each(|value| walk(steps, value, left, found)),
                Value::Array(items) => items.iter().try_for_each(|value| walk(steps, value, left, found)),
                _ => ControlFlow::Continue(()),
            }
        }
        (Step::Filter(filter), Value::Array(items)) => items.iter().try_for_each(|item| {
            if filter.holds(item, left) { walk(rest, item, left, found) } else { ControlFlow::Continue(()) }
        }),
        _ => ControlFlow::Continue(()),
    }
}

/// A negative index counts from the end.
fn position(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    usize::try_from(if index < 0 { index + length } else { index }).ok()
}

impl Filter {
    fn holds(&self, item: &Value, left: &mut usize) -> bool {
        let Some(found) = self.path.first(item, left) else { return false };
        let Some((operator, wanted)) = &self.test else { return true };
        let order = match (found, wanted) {
            (Value::Number(found), Value::Number(wanted)) => found.as_f64().partial_cmp(&wanted.as_f64()),
            (Value::String(found), Value::String(wanted)) => Some(found.cmp(wanted)),
            (Value::Bool(found), Value::Bool(wanted)) => Some(found.cmp(wanted)),
            _ => None,
        };
        match operator {
            Operator::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
            Operator::Unequal => !order.is_some_and(std::cmp::Ordering::is_eq),
            Operator::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Operator::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
            Operator::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
            Operator::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
        }
    }
}

/// Reads a name up to the next dot or bracket; a backslash takes away the meaning of what follows.
fn field<'a>(text: &'a str, steps: &mut Vec<Step>) -> Option<&'a str> {
    let mut name = String::new();
    let mut characters = text.char_indices();
    let mut end = text.len();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => name.push(characters.next()?.1),
            '.' | '[' => {
                end = at;
                break;
            }
            other => name.push(other),
        }
    }
    match name.as_str() {
        "" => return None,
        "*" => steps.push(Step::Every),
        name => steps.push(Step::Field(name.into())),
    }
    Some(&text[end..])
}

/// Reads what is between brackets, of which the first is already gone.
fn bracket<'a>(text: &'a str, steps: &mut Vec<Step>, filters: usize) -> Option<&'a str> {
    let end = closing(text)?;
    let (inner, rest) = (text[..end].trim(), &text[end + 1..]);
    if let Some(condition) = inner.strip_prefix("?(").and_then(|inner| inner.strip_suffix(')')) {
        steps.push(Step::Filter(filter(condition, filters.checked_sub(1)?)?));
    } else if inner == "*" {
        steps.push(Step::Every);
    } else if let Some(name) = unquoted(inner) {
        steps.push(Step::Field(name.into()));
    } else if inner.contains(':') {
        let bound = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
        let parts: Vec<&str> = inner.split(':').map(str::trim).collect();
        let step = parts.get(2).map_or(Some(1), |step| step.parse().ok())?;
        steps.push(Step::Slice(bound(parts[0])?, bound(parts[1])?, step));
    } else {
        steps.push(Step::Index(inner.parse().ok()?));
    }
    Some(rest)
}

/// Where the bracket closes, outside of quotes and of inner brackets.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0_usize, None);
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), character) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(character),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

fn unquoted(text: &str) -> Option<&str> {
    ['\'', '"'].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}

fn filter(condition: &str, filters: usize) -> Option<Filter> {
    const OPERATORS: [(&str, Operator); 6] = [
        ("==", Operator::Equal),
        ("!=", Operator::Unequal),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    let path = |text: &str| JsonPath::parse_within(text.trim().strip_prefix('@')?, filters);
    let split = OPERATORS.iter().find_map(|(word, operator)| {
        let (left, right) = condition.split_once(word)?;
        Some((left, *operator, right.trim()))
    });
    let Some((left, operator, right)) = split else {
        return Some(Filter { path: path(condition)?, test: None });
    };
    let literal = match unquoted(right) {
        Some(text) => text.into(),
        None => serde_json::from_str(right).ok()?,
    };
    Some(Filter { path: path(left)?, test: Some((operator, literal)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn all<'a>(path: &JsonPath, object: &'a Value) -> Vec<&'a Value> {
        let mut values = Vec::new();
        let _ = walk(&path.0, object, &mut { 100 }, &mut |value| {
            values.push(value);
            ControlFlow::Continue(())
        });
        values
    }

    #[test]
    fn paths_have_bounds() {
        for path in ["....................x".to_owned(), "...x".to_owned(), "..".to_owned() + &"[?(@".repeat(100_000)] {
            assert_eq!(JsonPath::parse(&path), None, "{path:.40}");
        }
        let nested = |count: usize| "[?(@".repeat(count) + ".a" + &")]".repeat(count);
        assert!(JsonPath::parse(&nested(MAX_FILTERS)).is_some() && JsonPath::parse(&nested(MAX_FILTERS + 1)).is_none());
        let wide: Value = (0..40).fold(json!(1), |value, _| json!([value, value.is_array(), {}, [], {}]));
        // Thirty descents with a choice after each: what they lead to cannot be counted, what is looked at can.
        for path in ["..*".repeat(30) + "..x", "..[?(@..[?(@..*..*..*..x)]..y)]".to_owned()] {
            let parsed = JsonPath::parse(&path).unwrap_or_else(|| panic!("{path}"));
            let mut left = 100_000;
            assert_eq!((parsed.first(&wide, &mut left), left), (None, 0), "{path}");
        }
    }

    #[test]
    fn paths_lead_to_values() {
        let object = json!({
            "metadata": { "annotations": { "a.b/c": "dotted" } },
            "spec": { "replicas": 3, "containers": [{ "image": "x" }, { "image": "y" }] },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Other", "n": 5 }] },
        });
        for (path, expect) in [
            (".spec.replicas", json!([3])),
            ("{.spec.replicas}", json!([3])),
            ("$.spec.replicas", json!([3])),
            (".missing.deeper", json!([])),
            (r".metadata.annotations.a\.b/c", json!(["dotted"])),
            (".metadata.annotations['a.b/c']", json!(["dotted"])),
            (".spec.containers[*].image", json!(["x", "y"])),
            (".spec.containers[0].image", json!(["x"])),
            (".spec.containers[-1].image", json!(["y"])),
            (".spec.containers[0:1].image", json!(["x"])),
            (".spec.containers[9].image", json!([])),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"])),
            (".status.conditions[?(@.type=='Ready')].status", json!(["True"])),
            (r#".status.conditions[?(@.type != "Ready")].type"#, json!(["Other"])),
            (".status.conditions[?(@.n)].type", json!(["Other"])),
            (".status.conditions[?(@.n >= 5)].type", json!(["Other"])),
            ("..image", json!(["x", "y"])),
        ] {
            let parsed = JsonPath::parse(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(json!(all(&parsed, &object)), expect, "{path}");
            assert_eq!(parsed.first(&object, &mut { 100 }), expect.get(0), "{path}");
        }
        for path in [".a[", ".a[x]", ".a[?(x)]", "..", ".a..", ".a[1]b"] {
            assert_eq!(JsonPath::parse(path).filter(|path| path.0.last() != Some(&Step::Descend)), None, "{path}");
        }
    }
}
