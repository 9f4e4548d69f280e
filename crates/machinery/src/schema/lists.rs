//! Lists that are sets or maps hold nothing twice.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::Schema;
use super::place::Place;
use crate::api_types::ListType;
use crate::field::{ErrorKind, ErrorList, FieldError};

/// Adds what is wrong with the lists in a value.
pub(super) fn check(schema: &Schema, value: &Value, place: Place<'_>, errors: &mut ErrorList) {
    match value {
        Value::Object(fields) => {
            if schema.properties.is_empty() && schema.additional_schema().is_none() {
                return;
            }
            for (name, value) in fields {
                match schema.properties.get(name.as_str()) {
                    Some(schema) => check(schema, value, Place::Field(&place, name), errors),
                    None => {
                        if let Some(schema) = schema.additional_schema() {
                            check(schema, value, Place::Key(&place, name), errors);
                        }
                    }
                }
            }
        }
        Value::Array(items) => {
            match schema.list_type {
                ListType::Atomic => {}
                ListType::Set => duplicates(items.iter().map(|item| (item.to_string(), item.clone())), place, errors),
                ListType::Map => map(schema, items, place, errors),
            }
            if let Some(schema) = schema.items() {
                for (index, item) in items.iter().enumerate() {
                    check(schema, item, Place::Item(&place, index), errors);
                }
            }
        }
        _ => {}
    }
}

fn map(schema: &Schema, items: &[Value], place: Place<'_>, errors: &mut ErrorList) {
    let odd = items.iter().enumerate().find(|(_, item)| !item.is_null() && !item.is_object());
    if let Some((index, item)) = odd {
        errors.push(FieldError {
            kind: ErrorKind::Invalid,
            field: Place::Item(&place, index).to_string(),
            value: Some(item.clone()),
            detail: "must be an object for an array of list-type map".to_owned(),
        });
        return;
    }
    let keys = items.iter().map(|item| {
        let key: Map<String, Value> =
            schema.list_map_keys().filter_map(|key| Some((key.to_owned(), item.get(key)?.clone()))).collect();
        let key = Value::Object(key);
        (key.to_string(), key)
    });
    duplicates(keys, place, errors);
}

/// Reports each value that occurs more than once, at its second place.
fn duplicates(values: impl ExactSizeIterator<Item = (String, Value)>, place: Place<'_>, errors: &mut ErrorList) {
    if values.len() < 2 {
        return;
    }
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(values.len());
    for (index, (text, value)) in values.enumerate() {
        let times = seen.entry(text).or_default();
        *times += 1;
        if *times == 2 {
            errors.push(FieldError {
                kind: ErrorKind::Duplicate,
                field: Place::Item(&place, index).to_string(),
                value: Some(value),
                detail: String::new(),
            });
        }
    }
}
