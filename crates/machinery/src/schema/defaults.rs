//! Filling in what was left out.

use serde_json::Value;

use super::Schema;

impl Schema {
    /// Sets defaults in an object, recursively. A `null` where the schema does not allow one counts as not there: it
    /// gets the default, and where there is none it goes.
    pub fn default(&self, value: &mut Value) {
        self.drop_nulls(value);
        self.fill(value);
    }

    /// Whether a `null` here is as good as nothing.
    fn ignores_null(&self, value: &Value) -> bool {
        value.is_null() && !self.nullable
    }

    fn drop_nulls(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => fields.retain(|name, value| {
                let Some(schema) = self.property(name) else { return true };
                if schema.ignores_null(value) && schema.default.is_none() {
                    return false;
                }
                schema.drop_nulls(value);
                true
            }),
            Value::Array(items) => {
                if let Some(schema) = self.items() {
                    items.iter_mut().for_each(|item| schema.drop_nulls(item));
                }
            }
            _ => {}
        }
    }

    fn fill(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, schema) in &self.properties {
                    let Some(default) = &schema.default else { continue };
                    if fields.get(&**name).is_none_or(|value| schema.ignores_null(value)) {
                        fields.insert(name.to_string(), Value::clone(default));
                    }
                }
                for (name, value) in fields {
                    let Some(schema) = self.property(name) else { continue };
                    schema.replace_null(value);
                    schema.fill(value);
                }
            }
            Value::Array(items) => {
                let Some(schema) = self.items() else { return };
                for item in items {
                    schema.replace_null(item);
                    schema.fill(item);
                }
            }
            _ => {}
        }
    }

    fn replace_null(&self, value: &mut Value) {
        if let (true, Some(default)) = (self.ignores_null(value), &self.default) {
            *value = Value::clone(default);
        }
    }
}
