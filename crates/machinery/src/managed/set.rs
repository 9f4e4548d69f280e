//! Sets of fields, in the form in which `managedFields` has them: FieldsV1.
//!
//! A path element is kept as it is written: `f:NAME` is a field, `k:{...}` an element of a list by its keys, `v:VALUE`
//! an element of a set, `i:N` one by its place. `.` says that the node itself belongs to the set, and not only what
//! is below.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// A set of fields of an object. Never holds a node that is neither a member nor has members below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(BTreeMap<String, Node>);

/// What a set says about one path element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// The path that ends here is in the set.
    pub(super) member: bool,
    /// What is in the set below.
    pub(super) children: FieldSet,
}

impl Node {
    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }
}

impl FieldSet {
    /// Reads FieldsV1. `None` when it is none.
    #[must_use]
    pub fn from_fields(fields: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (element, below) in fields.as_object()? {
            if element == "." {
                continue;
            }
            let below = below.as_object()?;
            let children = Self::from_fields(fields.get(element)?)?;
            let member = below.is_empty() || below.contains_key(".");
            set.insert(canonical(element)?, Node { member, children });
        }
        Some(set)
    }

    /// FieldsV1.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(256);
        self.write(false, &mut text);
        text
    }

    fn write(&self, member: bool, text: &mut String) {
        text.push('{');
        if member && !self.is_empty() {
            text.push_str(r#"".":{}"#);
        }
        for (element, node) in &self.0 {
            if !text.ends_with('{') {
                text.push(',');
            }
            let _ = write!(text, "{}:", Value::from(element.as_str()));
            node.children.write(node.member, text);
        }
        text.push('}');
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what is known about an element, if that is anything.
    pub(super) fn insert(&mut self, element: String, node: Node) {
        if !node.is_empty() {
            self.0.insert(element, node);
        }
    }

    pub(super) fn get(&self, element: &str) -> Option<&Node> {
        self.0.get(element)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Node)> {
        self.0.iter()
    }

    /// A set with one path.
    #[must_use]
    pub fn of_path(path: &[&str]) -> Self {
        let mut set = Self::default();
        if let Some((first, rest)) = path.split_first() {
            let node = Node { member: rest.is_empty(), children: Self::of_path(rest) };
            set.insert(format!("f:{first}"), node);
        }
        set
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut set = self.clone();
        for (element, node) in &other.0 {
            let own = set.0.entry(element.clone()).or_default();
            own.member |= node.member;
            own.children = own.children.union(&node.children);
        }
        set
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut set = Self::default();
        for (element, node) in &self.0 {
            if let Some(also) = other.0.get(element) {
                let member = node.member && also.member;
                set.insert(element.clone(), Node { member, children: node.children.intersection(&also.children) });
            }
        }
        set
    }

    /// What is in this one only. A path does not take along what is below it.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut set = Self::default();
        for (element, node) in &self.0 {
            let node = match other.0.get(element) {
                None => node.clone(),
                Some(less) => {
                    Node { member: node.member && !less.member, children: node.children.difference(&less.children) }
                }
            };
            set.insert(element.clone(), node);
        }
        set
    }

    /// What is in this one only, where a path of the other takes along all that is below it.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut set = Self::default();
        for (element, node) in &self.0 {
            let node = match other.0.get(element) {
                None => node.clone(),
                Some(less) if less.member => continue,
                Some(less) => Node { member: node.member, children: node.children.without(&less.children) },
            };
            set.insert(element.clone(), node);
        }
        set
    }

    /// The part of the set that is at or below a field of the root.
    #[must_use]
    pub fn only(&self, field: &str) -> Self {
        let element = format!("f:{field}");
        let mut set = Self::default();
        if let Some(node) = self.0.get(&element) {
            set.insert(element, node.clone());
        }
        set
    }

    /// Whether a path is in the set.
    #[must_use]
    pub fn has(&self, path: &[&str]) -> bool {
        path.split_first()
            .and_then(|(first, rest)| Some((self.0.get(&format!("f:{first}"))?, rest)))
            .is_some_and(|(node, rest)| if rest.is_empty() { node.member } else { node.children.has(rest) })
    }

    /// The paths as upstream prints them, in its order: `.spec.containers[name="a"].image`.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, prefix: &str, paths: &mut Vec<String>) {
        let members = self.0.iter().filter(|(_, node)| node.member);
        paths.extend(members.map(|(element, _)| format!("{prefix}{}", printed(element))));
        for (element, node) in &self.0 {
            if !node.children.is_empty() {
                node.children.collect(&format!("{prefix}{}", printed(element)), paths);
            }
        }
    }
}

/// The element of a field.
pub(super) fn field_element(name: &str) -> String {
    format!("f:{name}")
}

/// A path element with its keys in order, so that equal elements are equal texts.
fn canonical(element: &str) -> Option<String> {
    let (kind, text) = element.split_once(':')?;
    match kind {
        "f" => Some(element.to_owned()),
        "k" => serde_json::from_str::<Map<String, Value>>(text).ok().map(|keys| format!("k:{}", Value::Object(keys))),
        "v" => serde_json::from_str::<Value>(text).ok().map(|value| format!("v:{value}")),
        "i" => text.parse::<u64>().ok().map(|index| format!("i:{index}")),
        _ => None,
    }
}

/// A path element as messages have it: `.name`, `[name="a",port=80]`, `[="a"]`, `[3]`.
pub(super) fn printed(element: &str) -> String {
    let (kind, text) = element.split_once(':').unwrap_or_default();
    match kind {
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
            let mut out = String::from("[");
            for (index, (key, value)) in keys.iter().enumerate() {
                let comma = if index > 0 { "," } else { "" };
                let _ = write!(out, "{comma}{key}={value}");
            }
            out + "]"
        }
        "v" => format!("[={text}]"),
        "i" => format!("[{text}]"),
        _ => format!(".{text}"),
    }
}
