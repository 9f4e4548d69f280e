//! From objects to sets of fields: what an object says, and what differs between two.
//!
//! Upstream: structured-merge-diff's `ToFieldSet` and `Compare`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::set::{FieldSet, Node, field_element, printed};
use super::topology::{List, Topology};

/// What differs between an old and a new object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Fields that only the old one has.
    pub removed: FieldSet,
    /// Fields that both have, with different values.
    pub modified: FieldSet,
    /// Fields that only the new one has.
    pub added: FieldSet,
}

impl Comparison {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// Whether anything differs at or below an element of the root, as FieldsV1 writes it.
    #[must_use]
    pub fn concerns(&self, element: &str) -> bool {
        [&self.removed, &self.modified, &self.added].iter().any(|set| set.get(element).is_some())
    }

    /// Keeps of each set what `keep` makes of it.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(&FieldSet) -> FieldSet) -> Self {
        Self { removed: keep(&self.removed), modified: keep(&self.modified), added: keep(&self.added) }
    }
}

/// The element of a list that a value is; `None` for what cannot be one.
pub(super) fn element(list: &List<'_>, item: &Value) -> Option<String> {
    match (list, item) {
        (List::Set, Value::Null | Value::Object(_) | Value::Array(_)) | (List::Atomic, _) => None,
        (List::Set, scalar) => Some(format!("v:{scalar}")),
        (List::Map(keys), Value::Object(fields)) => {
            let mut found = Map::new();
            for (key, default) in keys {
                if let Some(value) = fields.get(key.as_ref()).or(default.as_ref()) {
                    found.insert(key.clone().into_owned(), value.clone());
                }
            }
            (!found.is_empty()).then(|| format!("k:{}", Value::Object(found)))
        }
        (List::Map(_), _) => None,
    }
}

/// What an applied configuration says.
///
/// # Errors
/// What is wrong with its lists, each with its path.
pub fn field_set<T: Topology>(config: &Value, place: &T) -> Result<FieldSet, Vec<String>> {
    let mut errors = Vec::new();
    let node = said(config, place, "", &mut errors);
    if errors.is_empty() { Ok(node.children) } else { Err(errors) }
}

fn said<T: Topology>(value: &Value, place: &T, path: &str, errors: &mut Vec<String>) -> Node {
    let mut node = Node::default();
    match value {
        Value::Object(fields) if !place.is_atomic() => {
            for (name, value) in fields {
                let element = field_element(name);
                let mut child = said(value, &place.field(name), &format!("{path}.{name}"), errors);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                child.member |= empty || !place.declares(name);
                node.children.insert(element, child);
            }
        }
        Value::Array(items) => {
            let list = place.list();
            if list == List::Atomic {
                node.member = true;
                return node;
            }
            for (index, item) in items.iter().enumerate() {
                let Some(element) = element(&list, item) else {
                    errors.push(format!("{path}: element {index}: {}", unfit(&list)));
                    continue;
                };
                if node.children.get(&element).is_some() {
                    errors.push(format!("{path}: duplicate entries for key {}", printed(&element)));
                    continue;
                }
                let mut child = said(item, &place.item(), &format!("{path}{}", printed(&element)), errors);
                child.member = true;
                node.children.insert(element, child);
            }
        }
        _ => node.member = true,
    }
    node
}

/// Upstream's words for what cannot be an element.
fn unfit(list: &List<'_>) -> String {
    match list {
        List::Map(keys) => {
            let keys: Vec<String> = keys.iter().map(|(key, _)| format!("{key:?}")).collect();
            format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                keys.join(" ")
            )
        }
        _ => "associative list without keys has an element that's a map type".to_owned(),
    }
}

/// What differs between two objects of a type.
pub fn compare<T: Topology>(old: &Value, new: &Value, place: &T) -> Comparison {
    let marks = walk(Some(old), Some(new), place);
    Comparison { removed: marks.removed.children, modified: marks.modified.children, added: marks.added.children }
}

/// A node of each of the three sets.
#[derive(Default)]
struct Marks {
    removed: Node,
    modified: Node,
    added: Node,
}

impl Marks {
    fn insert(&mut self, element: &str, child: Self) {
        for (own, child) in
            [(&mut self.removed, child.removed), (&mut self.modified, child.modified), (&mut self.added, child.added)]
        {
            if !child.is_empty() {
                own.children.insert(element.to_owned(), child);
            }
        }
    }
}

fn walk<T: Topology>(old: Option<&Value>, new: Option<&Value>, place: &T) -> Marks {
    let mut marks = Marks::default();
    if old == new {
        return marks;
    }
    match (parts(old, place), parts(new, place)) {
        (Some(a), Some(b)) if a.is_empty() && b.is_empty() => {}
        (Some(Parts::Map(a)), Some(Parts::Map(b))) => return fields(Some(a), Some(b), place),
        (Some(Parts::List(a)), Some(Parts::List(b))) => return items(a, b, place),
        (Some(Parts::Map(a)), Some(Parts::Absent)) => return removed(new, fields(Some(a), None, place)),
        (Some(Parts::Absent), Some(Parts::Map(b))) => return added(old, fields(None, Some(b), place)),
        (Some(Parts::List(a)), Some(Parts::Absent)) => return removed(new, items(a, &[], place)),
        (Some(Parts::Absent), Some(Parts::List(b))) => return added(old, items(&[], b, place)),
        _ => {}
    }
    match (old, new) {
        (None, _) => marks.added.member = true,
        (_, None) => marks.removed.member = true,
        _ => marks.modified.member = true,
    }
    marks
}

/// Marks a value as added that was not there at all; one that was `null` is changed by its parts only.
fn added(old: Option<&Value>, mut marks: Marks) -> Marks {
    marks.added.member = old.is_none();
    marks
}

fn removed(new: Option<&Value>, mut marks: Marks) -> Marks {
    marks.removed.member = new.is_none();
    marks
}

/// What a value is made of, where it is merged by its parts.
enum Parts<'v> {
    Absent,
    Map(&'v Map<String, Value>),
    List(&'v [Value]),
}

impl Parts<'_> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Absent => true,
            Self::Map(fields) => fields.is_empty(),
            Self::List(items) => items.is_empty(),
        }
    }
}

fn parts<'v, T: Topology>(value: Option<&'v Value>, place: &T) -> Option<Parts<'v>> {
    match value {
        None | Some(Value::Null) => Some(Parts::Absent),
        Some(Value::Object(fields)) if !place.is_atomic() => Some(Parts::Map(fields)),
        Some(Value::Array(items)) if place.list() != List::Atomic => Some(Parts::List(items)),
        Some(_) => None,
    }
}

/// What Go writes for a field that is always there, in an object that does not say anything about it.
fn nothing(other: Option<&Value>) -> Value {
    if other.is_some_and(Value::is_array) { Value::Null } else { Value::Object(Map::new()) }
}

fn fields<T: Topology>(old: Option<&Map<String, Value>>, new: Option<&Map<String, Value>>, place: &T) -> Marks {
    let mut marks = Marks::default();
    let names = new.into_iter().flatten().map(|(name, _)| name);
    let only_old = old.into_iter().flatten().map(|(name, _)| name);
    let only_old = only_old.filter(|name| new.is_none_or(|new| !new.contains_key(name.as_str())));
    for name in names.chain(only_old) {
        let (a, b) = (old.and_then(|old| old.get(name)), new.and_then(|new| new.get(name)));
        if a == b {
            continue;
        }
        let place = place.field(name);
        let child = match (a, b) {
            (None, Some(_)) if old.is_some() && place.always() => walk(Some(&nothing(b)), b, &place),
            (Some(_), None) if new.is_some() && place.always() => walk(a, Some(&nothing(a)), &place),
            _ => walk(a, b, &place),
        };
        marks.insert(&field_element(name), child);
    }
    marks
}

fn items<T: Topology>(old: &[Value], new: &[Value], place: &T) -> Marks {
    let mut marks = Marks::default();
    let list = place.list();
    let mut all: BTreeMap<String, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for item in old {
        if let Some(element) = element(&list, item) {
            all.entry(element).or_default().0.push(item);
        }
    }
    for item in new {
        if let Some(element) = element(&list, item) {
            all.entry(element).or_default().1.push(item);
        }
    }
    let place = place.item();
    for (element, (old, new)) in &all {
        // What stands more than once (an environment variable may) is compared as a whole.
        let mut child = match (old.as_slice(), new.as_slice()) {
            ([] | [_], [] | [_]) => walk(old.first().copied(), new.first().copied(), &place),
            ([_, _, ..], [_, _, ..]) => {
                let mut marks = Marks::default();
                marks.modified.member = old != new;
                marks
            }
            ([_, _, ..], new) => {
                let mut marks = new.first().map_or_else(Marks::default, |new| walk(None, Some(new), &place));
                marks.removed.member = true;
                marks
            }
            (old, _) => {
                let mut marks = old.first().map_or_else(Marks::default, |old| walk(Some(old), None, &place));
                marks.added.member = true;
                marks
            }
        };
        // An element that comes or goes is marked itself, whatever it is made of.
        child.added.member |= old.is_empty();
        child.removed.member |= new.is_empty();
        marks.insert(element, child);
    }
    marks
}
