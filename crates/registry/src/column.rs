//! Columns of the Table representation, and the two cells every table has.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

/// A column of the Table representation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Title; kubectl prints it in upper case.
    pub name: String,
    /// OpenAPI type: `string`, `integer`, `number`, `boolean`, `date`.
    #[serde(rename = "type")]
    pub kind: String,
    /// OpenAPI format; `name` marks the column that holds the name.
    pub format: String,
    /// What it shows.
    pub description: String,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
}

impl Column {
    /// A column of text.
    #[must_use]
    pub fn string(name: &str, description: &str) -> Self {
        Self {
            name: name.into(),
            kind: "string".into(),
            format: String::new(),
            description: description.into(),
            priority: 0,
        }
    }

    /// A column of whole numbers.
    #[must_use]
    pub fn integer(name: &str, description: &str) -> Self {
        Self { kind: "integer".into(), ..Self::string(name, description) }
    }

    /// A column of text, shown with `-o wide` only.
    #[must_use]
    pub fn wide(name: &str, description: &str) -> Self {
        Self { priority: 1, ..Self::string(name, description) }
    }

    /// The first column of every table.
    #[must_use]
    pub fn name() -> Self {
        Self { format: "name".into(), ..Self::string("Name", "Name must be unique within a namespace.") }
    }

    /// The age, last or nearly last in every table.
    #[must_use]
    pub fn age() -> Self {
        Self::string("Age", "Time since the server created the object.")
    }
}

/// The cell of [`Column::name`].
#[must_use]
pub fn cell_name(meta: &ObjectMeta) -> Value {
    Value::String(meta.name.clone().unwrap_or_default())
}

/// The cell of [`Column::age`]; `<unknown>` for an object without a creationTimestamp.
#[must_use]
pub fn cell_age(meta: &ObjectMeta, now: Timestamp) -> Value {
    Value::String(machinery::age::since(meta.creation_timestamp.as_ref(), now))
}
