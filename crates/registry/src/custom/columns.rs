//! The columns of a custom resource, whose cells are found by JSONPath.

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition;
use machinery::age;
use machinery::json_path::JsonPath;
use serde_json::{Value, json};

use super::object::CustomObject;
use crate::column::{Column, cell_age, cell_name};

/// How many values may be visited for the cells of a row. Definitions come from users, and a table is made on the spot.
const ROW_VISITS: usize = 20_000;

/// How many bytes the texts of a row may have. A column can show the whole object, and there may be many of those.
const ROW_BYTES: usize = 32 * 1024;

/// The columns after the name.
pub(super) struct Columns(Vec<(Column, Cell)>);

/// How a cell is found.
enum Cell {
    /// The age of the object, which nearly every table has.
    Age,
    /// Below the fields of the body.
    Body(JsonPath),
    /// Anywhere in the object.
    Whole(JsonPath),
    /// Nowhere: the path makes no sense.
    Nothing,
}

impl Columns {
    /// The columns that a definition names; without any, the age.
    pub(super) fn new(columns: &[CustomResourceColumnDefinition]) -> Self {
        if columns.is_empty() {
            let created = Column { kind: "date".into(), ..Column::age() };
            return Self(vec![(created, Cell::Age)]);
        }
        let columns = columns.iter().map(|column| {
            let path = &column.json_path;
            let described = column.description.clone().filter(|text| !text.is_empty());
            let description =
                described.unwrap_or_else(|| format!("Custom resource definition column (in JSONPath format): {path}"));
            let shown = Column {
                name: column.name.clone(),
                kind: column.type_.clone(),
                format: column.format.clone().unwrap_or_default(),
                description,
                priority: column.priority.unwrap_or_default(),
            };
            (shown, Cell::new(path, &column.type_))
        });
        Self(columns.collect())
    }

    pub(super) fn all(&self) -> Vec<Column> {
        let columns = self.0.iter().map(|(column, _)| column.clone());
        [Column::name()].into_iter().chain(columns).collect()
    }

    pub(super) fn row(&self, object: &CustomObject, now: Timestamp) -> Vec<Value> {
        let mut whole: Option<Value> = None;
        let (mut visits, mut room) = (ROW_VISITS, ROW_BYTES);
        let mut row = vec![cell_name(&object.meta)];
        for (column, cell) in &self.0 {
            let found = match cell {
                Cell::Age => {
                    row.push(cell_age(&object.meta, now));
                    continue;
                }
                Cell::Body(path) => path.first(&object.body, &mut visits),
                Cell::Whole(path) => path.first(whole.get_or_insert_with(|| json!(object)), &mut visits),
                Cell::Nothing => None,
            };
            let shown = found.filter(|_| room > 0).map_or(Value::Null, |value| show(&column.kind, value, now));
            row.push(fit(shown, &mut room));
        }
        row
    }
}

impl Cell {
    fn new(path: &str, kind: &str) -> Self {
        let first = path.trim_start_matches('.').split(['.', '[']).next().unwrap_or_default();
        match (JsonPath::parse(path), first) {
            _ if path == ".metadata.creationTimestamp" && kind == "date" => Self::Age,
            (Some(path), "" | "*" | "metadata" | "kind" | "apiVersion") => Self::Whole(path),
            (Some(path), _) => Self::Body(path),
            (None, _) => Self::Nothing,
        }
    }
}

/// A cell whose text is cut off where there is no more room.
fn fit(cell: Value, room: &mut usize) -> Value {
    let Value::String(mut text) = cell else { return cell };
    if text.len() > *room {
        text.truncate(text.floor_char_boundary(*room));
        text.push_str("...");
    }
    *room = room.saturating_sub(text.len());
    text.into()
}

/// A value as a cell of its column's type; nothing where it is of another type.
fn show(kind: &str, value: &Value, now: Timestamp) -> Value {
    match (kind, value) {
        (_, Value::Null) => Value::Null,
        ("integer", Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => number.into(),
            #[expect(clippy::cast_possible_truncation, reason = "as upstream does it")]
            (None, Some(number)) => (number as i64).into(),
            (None, None) => Value::Null,
        },
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) | ("string", Value::String(_)) => value.clone(),
        ("string", other) => other.to_string().into(),
        ("date", Value::String(time)) => match time.parse::<Timestamp>() {
            Ok(time) => age::since_timestamp(time, now).into(),
            Err(_) => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}
