//! What is wrong with an object under a schema. The texts are those of upstream's validator.

use serde_json::Value;

use super::place::Place;
use super::{Additional, Limits, Schema, Type, lists};
use crate::api_types::ListType;
use crate::field::{ErrorKind, ErrorList, FieldError};

impl Schema {
    /// What is wrong with an object. What has not changed since `old` is not looked at, so that an object which was
    /// accepted under an earlier schema can still be worked on (upstream: ratcheting).
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> ErrorList {
        let mut checker = Checker { errors: ErrorList::new() };
        checker.value(self, object, old, Place::Root);
        let mut errors = checker.errors;
        embedded(self, object, Place::Root, false, &mut errors);
        let twice = repeated(self, object);
        if !twice.is_empty() && old.is_none_or(|old| repeated(self, old).is_empty()) {
            errors.extend(twice);
        }
        errors
    }

    /// As [`Schema::validate`], of a value that is not a whole object: the default of a field.
    pub(super) fn validate_value(&self, value: &Value) -> ErrorList {
        let mut checker = Checker { errors: ErrorList::new() };
        checker.value(self, value, None, Place::Root);
        embedded(self, value, Place::Root, self.embedded, &mut checker.errors);
        checker.errors.extend(repeated(self, value));
        checker.errors
    }
}

/// What the lists in a value hold twice.
fn repeated(schema: &Schema, value: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    lists::check(schema, value, Place::Root, &mut errors);
    errors
}

struct Checker {
    errors: ErrorList,
}

impl Checker {
    fn add(&mut self, kind: ErrorKind, place: Place<'_>, value: Option<Value>, detail: String) {
        self.errors.push(FieldError { kind, field: place.or_nil(), value, detail });
    }

    /// A value that breaks a rule: `PLACE in body RULE`.
    fn invalid(&mut self, place: Place<'_>, value: Value, rule: &str) {
        self.add(ErrorKind::Invalid, place, Some(value), format!("{place} in body {rule}"));
    }

    fn value(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, place: Place<'_>) {
        if old == Some(value) {
            return;
        }
        self.check_type(schema, value, place);
        let Some(limits) = schema.limits.as_deref() else {
            self.children(schema, value, old, place);
            return;
        };
        if !value.is_null() {
            self.combinations(limits, value, place);
            match value {
                Value::String(text) => self.text(limits, text, place),
                Value::Number(number) => {
                    if let Some(number) = number.as_f64() {
                        self.number(limits, number, value, place);
                    }
                }
                Value::Array(items) => self.count_items(limits, items.len(), place),
                _ => {}
            }
        }
        if !limits.choices.is_empty() && !limits.choices.iter().any(|choice| same(choice, value)) {
            let choices: Vec<String> = limits.choices.iter().map(quoted).collect();
            let detail = format!("supported values: {}", choices.join(", "));
            self.add(ErrorKind::NotSupported, place, Some(value.clone()), detail);
        }
        if let Value::Object(fields) = value {
            let enough = self.count_properties(limits, fields.len(), place);
            if enough {
                for name in limits.required.iter().filter(|name| !fields.contains_key(&***name)) {
                    self.add(ErrorKind::Required, Place::Field(&place, name), None, String::new());
                }
            }
        }
        self.children(schema, value, old, place);
    }

    fn check_type(&mut self, schema: &Schema, value: &Value, place: Place<'_>) {
        let Some(found) = type_of(value) else {
            if !schema.nullable && (schema.kind.is_some() || schema.int_or_string) {
                self.wrong_type(schema, "null", place);
            }
            return;
        };
        let fits = match schema.kind {
            None if schema.int_or_string => found == Type::String || is_integer(value),
            None => true,
            Some(Type::Integer) => is_integer(value),
            Some(Type::Number) => matches!(found, Type::Integer | Type::Number),
            Some(wanted) => wanted == found,
        };
        if !fits {
            self.wrong_type(schema, found.name(), place);
        }
    }

    fn wrong_type(&mut self, schema: &Schema, found: &str, place: Place<'_>) {
        let wanted = schema.kind.map_or("integer,string", Type::name);
        let detail = format!("{place} in body must be of type {wanted}: \"{found}\"");
        self.add(ErrorKind::TypeInvalid, place, Some(found.into()), detail);
    }

    fn text(&mut self, limits: &Limits, text: &str, place: Place<'_>) {
        let shown = || Value::from(text);
        if let Some(max) = limits.max_length.filter(|max| length(text) > *max) {
            let unit = if max == 1 { "byte" } else { "bytes" };
            self.add(ErrorKind::TooLong, place, None, format!("may not be more than {max} {unit}"));
            return;
        }
        if let Some(min) = limits.min_length.filter(|min| length(text) < *min) {
            self.invalid(place, shown(), &format!("should be at least {min} chars long"));
            return;
        }
        if let Some(pattern) = limits.pattern.as_deref().filter(|pattern| !pattern.matches(text)) {
            self.invalid(place, shown(), &format!("should match '{}'", pattern.text()));
        }
        if let Some(format) = limits.format.filter(|format| !format.accepts(text)) {
            let detail = format!("{place} in body must be of type {}: {}", format.name(), crate::field::quote(text));
            self.add(ErrorKind::TypeInvalid, place, Some(shown()), detail);
        }
    }

    fn number(&mut self, limits: &Limits, number: f64, value: &Value, place: Place<'_>) {
        if let Some(factor) = limits.multiple_of
            && (number / factor).fract() != 0.0
        {
            self.invalid(place, value.clone(), &format!("should be a multiple of {factor}"));
        }
        if let Some(max) = limits.maximum {
            if limits.exclusive_maximum && number >= max {
                self.invalid(place, value.clone(), &format!("should be less than {max}"));
            } else if number > max {
                self.invalid(place, value.clone(), &format!("should be less than or equal to {max}"));
            }
        }
        if let Some(min) = limits.minimum {
            if limits.exclusive_minimum && number <= min {
                self.invalid(place, value.clone(), &format!("should be greater than {min}"));
            } else if number < min {
                self.invalid(place, value.clone(), &format!("should be greater than or equal to {min}"));
            }
        }
    }

    fn count_items(&mut self, limits: &Limits, count: usize, place: Place<'_>) {
        let count = count as u64;
        if let Some(min) = limits.min_items.filter(|min| count < *min) {
            self.invalid(place, count.into(), &format!("should have at least {min} items"));
        }
        self.too_many(limits.max_items, count, place);
    }

    /// Whether the number of fields is right; if not, upstream says no more about the object's fields.
    fn count_properties(&mut self, limits: &Limits, count: usize, place: Place<'_>) -> bool {
        let count = count as u64;
        if let Some(min) = limits.min_properties.filter(|min| count < *min) {
            self.invalid(place, count.into(), &format!("should have at least {min} properties"));
            return false;
        }
        !self.too_many(limits.max_properties, count, place)
    }

    fn too_many(&mut self, max: Option<u64>, count: u64, place: Place<'_>) -> bool {
        let Some(max) = max.filter(|max| count > *max) else { return false };
        let unit = if max == 1 { "item" } else { "items" };
        self.add(ErrorKind::TooMany, place, Some(count.into()), format!("must have at most {max} {unit}"));
        true
    }

    /// `allOf`, `anyOf`, `oneOf`, `not`. Where an alternative had to hold, what is wrong with the closest one is told.
    fn combinations(&mut self, limits: &Limits, value: &Value, place: Place<'_>) {
        let trial = |schema: &Schema| {
            let mut checker = Self { errors: ErrorList::new() };
            checker.value(schema, value, None, place);
            checker.errors
        };
        let quoted = crate::field::quote(&place.to_string());
        if !limits.any_of.is_empty() {
            let mut closest: Option<ErrorList> = None;
            for schema in &limits.any_of {
                let errors = trial(schema);
                if errors.is_empty() {
                    closest = None;
                    break;
                }
                if closest.as_ref().is_none_or(|closest| errors.len() < closest.len()) {
                    closest = Some(errors);
                }
            }
            if let Some(errors) = closest {
                self.combination(format!("{quoted} must validate at least one schema (anyOf)"));
                self.errors.extend(errors);
            }
        }
        if !limits.one_of.is_empty() {
            let mut closest: Option<ErrorList> = None;
            let mut valid = 0;
            for schema in &limits.one_of {
                let errors = trial(schema);
                if errors.is_empty() {
                    valid += 1;
                } else if closest.as_ref().is_none_or(|closest| errors.len() < closest.len()) {
                    closest = Some(errors);
                }
            }
            if valid != 1 {
                let found = match valid {
                    0 => "Found none valid".to_owned(),
                    several => format!("Found {several} valid alternatives"),
                };
                self.combination(format!("{quoted} must validate one and only one schema (oneOf). {found}"));
            }
            if valid == 0 {
                self.errors.extend(closest.unwrap_or_default());
            }
        }
        if !limits.all_of.is_empty() {
            let results: Vec<ErrorList> = limits.all_of.iter().map(trial).collect();
            let valid = results.iter().filter(|errors| errors.is_empty()).count();
            self.errors.extend(results.into_iter().flatten());
            if valid != limits.all_of.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                self.combination(format!("{quoted} must validate all the schemas (allOf){none}"));
            }
        }
        if limits.not.as_deref().is_some_and(|schema| trial(schema).is_empty()) {
            self.combination(format!("{quoted} must not validate the schema (not)"));
        }
    }

    fn combination(&mut self, detail: String) {
        self.add(ErrorKind::Invalid, Place::Root, Some("".into()), detail);
    }

    fn children(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, place: Place<'_>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let old = old.and_then(|old| old.get(name));
                    let here = Place::Field(&place, name);
                    match (schema.property(name), &schema.additional) {
                        (Some(schema), _) => self.value(schema, value, old, here),
                        (None, Additional::Any(false)) => {
                            let detail = format!("{here} in body is a forbidden property");
                            self.add(ErrorKind::Invalid, here, Some("".into()), detail);
                        }
                        (None, _) => {}
                    }
                }
            }
            Value::Array(items) => {
                let Some(below) = schema.items() else { return };
                for (index, item) in items.iter().enumerate() {
                    let old = old.and_then(|old| counterpart(schema, old, item));
                    self.value(below, item, old, Place::Item(&place, index));
                }
            }
            _ => {}
        }
    }
}

/// The item of the old list that has the same keys; only the items of a list of type map have one.
fn counterpart<'a>(schema: &Schema, old: &'a Value, item: &Value) -> Option<&'a Value> {
    let items = old.as_array().filter(|_| schema.list_type == ListType::Map)?;
    items.iter().find(|old| schema.list_map_keys().all(|key| old.get(key) == item.get(key)))
}

/// Whole objects of the API within the object say what they are.
fn embedded(schema: &Schema, value: &Value, place: Place<'_>, whole: bool, errors: &mut ErrorList) {
    match value {
        Value::Object(fields) => {
            if whole {
                for name in ["apiVersion", "kind"] {
                    if fields.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                        errors.push(FieldError {
                            kind: ErrorKind::Required,
                            field: Place::Field(&place, name).to_string(),
                            value: None,
                            detail: "must not be empty".to_owned(),
                        });
                    }
                }
            }
            for (name, value) in fields {
                if let Some(schema) = schema.property(name) {
                    embedded(schema, value, Place::Field(&place, name), schema.embedded, errors);
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = schema.items() else { return };
            for (index, item) in items.iter().enumerate() {
                embedded(schema, item, Place::Item(&place, index), schema.embedded, errors);
            }
        }
        _ => {}
    }
}

fn type_of(value: &Value) -> Option<Type> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(_) => Type::Boolean,
        Value::Number(number) if number.is_f64() => Type::Number,
        Value::Number(_) => Type::Integer,
        Value::String(_) => Type::String,
        Value::Array(_) => Type::Array,
        Value::Object(_) => Type::Object,
    })
}

/// Also a number without a fraction is an integer.
fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

/// In characters, as upstream counts.
fn length(text: &str) -> u64 {
    text.chars().count() as u64
}

/// `1` and `1.0` are the same choice.
fn same(choice: &Value, value: &Value) -> bool {
    choice == value || choice.as_f64().is_some_and(|choice| value.as_f64() == Some(choice))
}

fn quoted(choice: &Value) -> String {
    match choice {
        Value::String(text) => crate::field::quote(text),
        other => crate::field::quote(&other.to_string()),
    }
}
