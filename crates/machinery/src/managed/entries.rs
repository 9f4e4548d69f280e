//! The list of managers of an object, as `metadata.managedFields` has it.

use serde_json::{Map, Value, json};

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

/// Reads `managedFields`. `None` when it is not a list of entries as the server writes them.
#[must_use]
pub fn parse(managed_fields: &Value) -> Option<Vec<Entry>> {
    managed_fields.as_array()?.iter().map(parse_entry).collect()
}

fn parse_entry(entry: &Value) -> Option<Entry> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let operation = match text("operation").as_str() {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    let (api_version, fields_type) = (text("apiVersion"), text("fieldsType"));
    if api_version.is_empty() || fields_type != "FieldsV1" {
        return None;
    }
    let fields = match entry.get("fieldsV1") {
        None | Some(Value::Null) => FieldSet::default(),
        Some(fields) => FieldSet::from_fields(fields)?,
    };
    let manager = Manager { name: text("manager"), operation, api_version, subresource: text("subresource") };
    Some(Entry { manager, time: text("time"), fields })
}

/// Writes `managedFields`; empty when there are no entries.
#[must_use]
pub fn render(mut entries: Vec<Entry>) -> String {
    if entries.is_empty() {
        return String::new();
    }
    entries.sort_by(|a, b| order(a).cmp(&order(b)));
    let list: Vec<Value> = entries
        .iter()
        .map(|Entry { manager, time, fields }| {
            let mut entry = Map::new();
            let mut put = |name: &str, value: &str| {
                if !value.is_empty() {
                    entry.insert(name.to_owned(), value.into());
                }
            };
            put("apiVersion", &manager.api_version);
            put("fieldsType", "FieldsV1");
            put("manager", &manager.name);
            put("operation", manager.operation.as_str());
            put("subresource", &manager.subresource);
            put("time", time);
            entry.insert("fieldsV1".to_owned(), fields.to_fields());
            Value::Object(entry)
        })
        .collect();
    Value::Array(list).to_string()
}

fn order(entry: &Entry) -> (Operation, &str, &str, &str, &str) {
    let Entry { manager, time, .. } = entry;
    (manager.operation, time, &manager.name, &manager.api_version, &manager.subresource)
}

/// Writes `managedFields` of a new object that one manager has made, whose fields are at hand as FieldsV1.
#[must_use]
pub fn render_created(manager: &Manager, time: &str, fields: &str) -> String {
    if fields == "{}" {
        return String::new();
    }
    let (version, name) = (json!(manager.api_version), json!(manager.name));
    let operation = manager.operation.as_str();
    format!(
        r#"[{{"apiVersion":{version},"fieldsType":"FieldsV1","fieldsV1":{fields},"manager":{name},"operation":"{operation}","time":"{time}"}}]"#
    )
}

/// Whether both say the same, but for when.
#[must_use]
pub fn same_but_times(a: &[Entry], b: &[Entry]) -> bool {
    let in_both = |entry: &Entry, other: &[Entry]| {
        other.iter().any(|other| other.manager == entry.manager && other.fields == entry.fields)
    };
    a.len() == b.len() && a.iter().all(|entry| in_both(entry, b)) && b.iter().all(|entry| in_both(entry, a))
}
