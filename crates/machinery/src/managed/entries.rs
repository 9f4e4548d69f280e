//! The list of managers of an object, as `metadata.managedFields` has it.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::set::FieldSet;

/// How a manager wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

impl Operation {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Apply, Self::Update].into_iter().find(|operation| operation.as_str() == text)
    }
}

/// Who writes, and how: what tells one entry from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// The name the client goes by.
    pub name: String,
    /// How it writes.
    pub operation: Operation,
    /// The version in which it writes: `apps/v1`.
    pub api_version: String,
    /// The subresource through which it writes; empty for the object itself.
    pub subresource: String,
}

impl Manager {
    /// Whether both are one manager. One that applies is the same in every version.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        (self.name.as_str(), self.operation, &self.subresource) == (&other.name, other.operation, &other.subresource)
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// As conflicts name it.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// What a manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub manager: Manager,
    /// Since when, in RFC 3339; empty when that is not known.
    pub time: String,
    /// What.
    pub fields: FieldSet,
}

impl Entry {
    /// Reads an entry. `None` when it is not as the server writes it.
    pub(super) fn parse(entry: &Value) -> Option<Self> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let operation = Operation::parse(&text("operation"))?;
        let (api_version, fields_type) = (text("apiVersion"), text("fieldsType"));
        if api_version.is_empty() || fields_type != "FieldsV1" {
            return None;
        }
        let fields = match entry.get("fieldsV1") {
            None | Some(Value::Null) => FieldSet::default(),
            Some(fields) => FieldSet::from_fields(fields)?,
        };
        let manager = Manager { name: text("manager"), operation, api_version, subresource: text("subresource") };
        Some(Self { manager, time: text("time"), fields })
    }

    /// The entry as text.
    pub(super) fn render(&self) -> String {
        text_of(&self.manager, &self.time, &self.fields.render())
    }

    /// By what entries are sorted.
    fn order(&self) -> (Operation, &str, &str, &str, &str) {
        let Self { manager, time, .. } = self;
        (manager.operation, time, &manager.name, &manager.api_version, &manager.subresource)
    }
}

/// An entry as text, with its fields as FieldsV1.
fn text_of(manager: &Manager, time: &str, fields: &str) -> String {
    let mut text = String::with_capacity(fields.len() + 192);
    let mut put = |name: &str, value: &str| {
        text.push(if text.is_empty() { '{' } else { ',' });
        text.extend(["\"", name, "\":", value]);
    };
    put("apiVersion", &json!(manager.api_version).to_string());
    put("fieldsType", "\"FieldsV1\"");
    put("fieldsV1", fields);
    put("manager", &json!(manager.name).to_string());
    put("operation", &json!(manager.operation.as_str()).to_string());
    for (name, value) in [("subresource", manager.subresource.as_str()), ("time", time)] {
        if !value.is_empty() {
            put(name, &json!(value).to_string());
        }
    }
    text.push('}');
    text
}

/// Reads `managedFields`. `None` when it is not a list of entries as the server writes them.
#[must_use]
pub fn parse(managed_fields: &Value) -> Option<Vec<Entry>> {
    managed_fields.as_array()?.iter().map(Entry::parse).collect()
}

/// Writes `managedFields`; empty when there are no entries.
#[must_use]
pub fn render(entries: Vec<Entry>) -> String {
    let entries = entries.into_iter().map(|entry| {
        let text = Cow::from(entry.render());
        (entry, text)
    });
    joined(entries.collect())
}

/// Writes `managedFields` of entries whose texts are at hand; empty when there are none.
pub(super) fn joined(mut entries: Vec<(Entry, Cow<'_, str>)>) -> String {
    if entries.is_empty() {
        return String::new();
    }
    entries.sort_by(|(a, _), (b, _)| a.order().cmp(&b.order()));
    let texts: Vec<Cow<'_, str>> = entries.into_iter().map(|(_, text)| text).collect();
    format!("[{}]", texts.join(","))
}

/// Writes `managedFields` of a new object that one manager has made, whose fields are at hand as FieldsV1.
#[must_use]
pub fn render_created(manager: &Manager, time: &str, fields: &str) -> String {
    match fields {
        "{}" => String::new(),
        fields => format!("[{}]", text_of(manager, time, fields)),
    }
}

/// Whether both say the same, but for when.
#[must_use]
pub fn same_but_times(a: &[Entry], b: &[Entry]) -> bool {
    let in_both = |entry: &Entry, other: &[Entry]| {
        other.iter().any(|other| other.manager == entry.manager && other.fields == entry.fields)
    };
    a.len() == b.len() && a.iter().all(|entry| in_both(entry, b)) && b.iter().all(|entry| in_both(entry, a))
}
