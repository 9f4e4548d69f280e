//! Dropping fields that a schema does not know.

use std::collections::BTreeMap;

use serde_json::Value;

use super::place::Place;
use super::{Additional, Schema};

/// Fields every whole object has, whatever its schema says.
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Schema {
    /// Drops from an object what the schema does not know and reports the path of each such field: `spec.items[0].x`.
    /// The object is a whole one: its version, kind and metadata are not touched.
    pub fn prune(&self, object: &mut Value, unknown: &mut dyn FnMut(String)) {
        let mut pruner = Pruner { unknown };
        pruner.value(object, Some(self), true, false, Place::Root);
    }

    /// As [`Schema::prune`], of a value that is not a whole object, and without a report. Whether anything was dropped.
    pub(super) fn prune_value(&self, value: &mut Value) -> bool {
        let mut changed = false;
        let mut note = |_| changed = true;
        let mut pruner = Pruner { unknown: &mut note };
        pruner.value(value, Some(self), self.embedded, false, Place::Root);
        changed
    }
}

struct Pruner<'u> {
    unknown: &'u mut dyn FnMut(String),
}

impl Pruner<'_> {
    /// `kept`: upstream lets a list that preserves unknown fields speak for its items.
    fn value(&mut self, value: &mut Value, schema: Option<&Schema>, whole: bool, kept: bool, place: Place<'_>) {
        let preserve = kept || schema.is_some_and(|schema| schema.preserve);
        match value {
            Value::Object(fields) => {
                let known = schema.map(|schema| (&schema.properties, &schema.additional));
                fields.retain(|name, value| {
                    if whole && META.contains(&name.as_str()) {
                        return true;
                    }
                    let place = Place::Field(&place, name);
                    match known.map(|(properties, additional)| child(properties, additional, name)) {
                        Some(Child::Known(schema)) => {
                            self.value(value, schema, is_whole(schema), false, place);
                            true
                        }
                        Some(Child::Unknown) | None => {
                            if !preserve {
                                (self.unknown)(place.to_string());
                            }
                            preserve
                        }
                    }
                });
            }
            Value::Array(items) => {
                let schema = schema.and_then(Schema::items);
                if preserve && schema.is_none() {
                    return;
                }
                for (index, item) in items.iter_mut().enumerate() {
                    self.value(item, schema, is_whole(schema), preserve, Place::Item(&place, index));
                }
            }
            _ => {}
        }
    }
}

fn is_whole(schema: Option<&Schema>) -> bool {
    schema.is_some_and(|schema| schema.embedded)
}

enum Child<'a> {
    /// The field is known; nothing may be known of what is in it.
    Known(Option<&'a Schema>),
    Unknown,
}

fn child<'a>(properties: &'a BTreeMap<Box<str>, Schema>, additional: &'a Additional, name: &str) -> Child<'a> {
    match (properties.get(name), additional) {
        (Some(schema), _) => Child::Known(Some(schema)),
        (None, Additional::Schema(schema)) => Child::Known(Some(schema)),
        (None, Additional::Any(_)) => Child::Known(None),
        (None, Additional::Unknown) => Child::Unknown,
    }
}
