//! JSONPath as printer columns of custom resources use it: `.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`,
//! `.spec.containers[*].image`, `.metadata.annotations.example\.com/key`, `.items[-1]`, `..name`.

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

impl JsonPath {
    /// Reads a path; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            rest = match rest.as_bytes() {
                [b'.', b'.', ..] => {
                    steps.push(Step::Descend);
                    &rest[1..]
                }
                [b'.'] => "",
                [b'.', b'[', ..] => &rest[1..],
                [b'.', ..] => field(&rest[1..], &mut steps)?,
                [b'[', ..] => bracket(&rest[1..], &mut steps)?,
                _ if steps.is_empty() => field(rest, &mut steps)?,
                _ => return None,
            };
        }
        Some(Self(steps))
    }

    /// All that the path leads to, in order.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in found {
                step.follow(value, &mut next);
            }
            found = next;
        }
        found
    }

    /// The first that the path leads to.
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.find(value).into_iter().next()
    }
}

impl Step {
    fn follow<'a>(&self, value: &'a Value, found: &mut Vec<&'a Value>) {
        match (self, value) {
            (Self::Field(name), Value::Object(fields)) => found.extend(fields.get(&**name)),
            (Self::Index(index), Value::Array(items)) => {
                found.extend(position(*index, items.len()).and_then(|index| items.get(index)));
            }
            (Self::Slice(from, to, step), Value::Array(items)) => {
                let bound = |index: Option<i64>, or: usize| match index {
                    Some(index) => position(index, items.len()).unwrap_or(0).min(items.len()),
                    None => or,
                };
                let (from, to) = (bound(*from, 0), bound(*to, items.len()));
                found.extend(items.iter().take(to).skip(from).step_by((*step).max(1)));
            }
            (Self::Every, Value::Object(fields)) => found.extend(fields.values()),
            (Self::Every, Value::Array(items)) => found.extend(items),
            (Self::Descend, value) => descend(value, found),
            (Self::Filter(filter), Value::Array(items)) => {
                found.extend(items.iter().filter(|item| filter.holds(item)));
            }
            _ => {}
        }
    }
}

fn descend<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    found.push(value);
    match value {
        Value::Object(fields) => fields.values().for_each(|value| descend(value, found)),
        Value::Array(items) => items.iter().for_each(|value| descend(value, found)),
        _ => {}
    }
}

/// A negative index counts from the end.
fn position(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    usize::try_from(if index < 0 { index + length } else { index }).ok()
}

impl Filter {
    fn holds(&self, item: &Value) -> bool {
        let Some(found) = self.path.first(item) else { return false };
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
fn bracket<'a>(text: &'a str, steps: &mut Vec<Step>) -> Option<&'a str> {
    let end = closing(text)?;
    let (inner, rest) = (text[..end].trim(), &text[end + 1..]);
    if let Some(condition) = inner.strip_prefix("?(").and_then(|inner| inner.strip_suffix(')')) {
        steps.push(Step::Filter(filter(condition)?));
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

fn filter(condition: &str) -> Option<Filter> {
    const OPERATORS: [(&str, Operator); 6] = [
        ("==", Operator::Equal),
        ("!=", Operator::Unequal),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    let path = |text: &str| JsonPath::parse(text.trim().strip_prefix('@')?);
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
            assert_eq!(json!(parsed.find(&object)), expect, "{path}");
        }
        for path in [".a[", ".a[x]", ".a[?(x)]", "..", ".a..", ".a[1]b"] {
            assert_eq!(JsonPath::parse(path).filter(|path| path.0.last() != Some(&Step::Descend)), None, "{path}");
        }
    }
}
