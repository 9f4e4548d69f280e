//! Structural schemas: what a CustomResourceDefinition says about its objects, compiled for use.
//!
//! | step | function |
//! |---|---|
//! | is this a schema upstream would accept? | [`rules::check`] |
//! | compile it | [`Schema::parse`] |
//! | drop what it does not know | [`Schema::prune`] |
//! | fill in what was left out | [`Schema::default`] |
//! | say what is wrong | [`Schema::validate`] |
//! | evaluate its rules | [`Schema::evaluate`] |
//! | how are lists and maps merged? | [`Schema::property`], [`Schema::items`], [`Schema::list_type`], ... |
//!
//! Schemas are large (some are a megabyte of JSON), so that what only people read (descriptions) is left out here.

mod defaults;
mod expressions;
pub(crate) mod format;
mod lists;
mod parse;
pub(crate) mod pattern;
mod place;
mod prune;
pub mod rules;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::api_types::ListType;
use pattern::Pattern;

/// A JSON type, as schemas call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// `array`.
    Array,
    /// `boolean`.
    Boolean,
    /// `integer`.
    Integer,
    /// `number`.
    Number,
    /// `object`.
    Object,
    /// `string`.
    String,
}

impl Type {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 6] = [Self::Array, Self::Boolean, Self::Integer, Self::Number, Self::Object, Self::String];

    /// The word in a schema.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Object => "object",
            Self::String => "string",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What is said about the values of one field, of the items of a list, or of a whole object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Schema {
    kind: Option<Type>,
    nullable: bool,
    int_or_string: bool,
    preserve: bool,
    embedded: bool,
    map_atomic: bool,
    list_type: ListType,
    list_map_keys: Box<[Box<str>]>,
    default: Option<Box<Value>>,
    properties: BTreeMap<Box<str>, Schema>,
    additional: Additional,
    items: Option<Box<Schema>>,
    limits: Option<Box<Limits>>,
    rules: Box<[expressions::Rule]>,
    /// Whether there are rules here or anywhere below.
    ruled: bool,
}

/// What a schema says about fields it does not name.
#[derive(Debug, Clone, Default, PartialEq)]
enum Additional {
    /// Nothing: they are unknown.
    #[default]
    Unknown,
    /// Whether there may be any.
    Any(bool),
    /// What they look like.
    Schema(Box<Schema>),
}

/// The rules about a value beyond its type.
#[derive(Debug, Clone, Default, PartialEq)]
struct Limits {
    format: Option<format::Format>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    exclusive_minimum: bool,
    exclusive_maximum: bool,
    multiple_of: Option<f64>,
    min_length: Option<u64>,
    max_length: Option<u64>,
    pattern: Option<Arc<Pattern>>,
    min_items: Option<u64>,
    max_items: Option<u64>,
    min_properties: Option<u64>,
    max_properties: Option<u64>,
    required: Box<[Box<str>]>,
    choices: Box<[Value]>,
    all_of: Box<[Schema]>,
    any_of: Box<[Schema]>,
    one_of: Box<[Schema]>,
    not: Option<Box<Schema>>,
}

impl Schema {
    /// The type, where the schema names one.
    pub fn kind(&self) -> Option<Type> {
        self.kind
    }

    /// Whether a value may be an integer or a string.
    pub fn is_int_or_string(&self) -> bool {
        self.int_or_string
    }

    /// Whether unknown fields are kept.
    pub fn preserves_unknown_fields(&self) -> bool {
        self.preserve
    }

    /// Whether the value is a whole object of the API, with its own version, kind and metadata.
    pub fn is_embedded_resource(&self) -> bool {
        self.embedded
    }

    /// The schema of a field of an object: its own one, or that of all values of a map.
    pub fn property(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or_else(|| self.additional_schema())
    }

    /// Whether a field is named, and not only one key of a map.
    pub fn declares(&self, name: &str) -> bool {
        self.properties.contains_key(name)
    }

    /// The schema of the items of a list.
    pub fn items(&self) -> Option<&Self> {
        self.items.as_deref()
    }

    /// How server-side apply treats a list; atomic unless the schema says otherwise.
    pub fn list_type(&self) -> ListType {
        self.list_type
    }

    /// The fields that identify an item of a list of type map.
    pub fn list_map_keys(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.list_map_keys.iter().map(AsRef::as_ref)
    }

    /// Whether an object or map is replaced as a whole by server-side apply.
    pub fn is_atomic_map(&self) -> bool {
        self.map_atomic
    }

    /// The value of a field that is not there.
    pub fn default_value(&self) -> Option<&Value> {
        self.default.as_deref()
    }

    /// Whether there are rules in the Common Expression Language.
    pub fn has_rules(&self) -> bool {
        self.ruled
    }

    /// The schema of a field that is named.
    pub(crate) fn declared(&self, name: &str) -> Option<&Self> {
        self.properties.get(name)
    }

    /// The fields that are named, with their schemas.
    pub(crate) fn declared_fields(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.properties.iter().map(|(name, schema)| (&**name, schema))
    }

    /// The schema of the values of a map.
    pub(crate) fn values(&self) -> Option<&Self> {
        self.additional_schema()
    }

    /// The properties that an object must have, as far as they are declared.
    pub(crate) fn required_properties(&self) -> impl Iterator<Item = (&str, &Self)> {
        let required = self.limits.iter().flat_map(|limits| limits.required.iter());
        required.filter_map(move |name| Some((&**name, self.properties.get(name)?)))
    }

    /// The longest text.
    pub(crate) fn max_length(&self) -> Option<u64> {
        self.limits.as_ref()?.max_length
    }

    /// The most items of a list.
    pub(crate) fn max_items(&self) -> Option<u64> {
        self.limits.as_ref()?.max_items
    }

    /// The most entries of a map.
    pub(crate) fn max_properties(&self) -> Option<u64> {
        self.limits.as_ref()?.max_properties
    }

    /// The values that there may be; all, where there are none.
    pub(crate) fn choices(&self) -> &[Value] {
        match &self.limits {
            Some(limits) => &limits.choices,
            None => &[],
        }
    }

    /// The format of a text.
    pub(crate) fn format(&self) -> Option<format::Format> {
        self.limits.as_ref()?.format
    }

    /// An object with nothing but texts.
    pub(crate) fn of_texts(names: &[&str]) -> Self {
        let text = Self { kind: Some(Type::String), ..Default::default() };
        let properties = names.iter().map(|name| ((*name).into(), text.clone())).collect();
        Self { kind: Some(Type::Object), properties, ..Default::default() }
    }

    fn additional_schema(&self) -> Option<&Self> {
        match &self.additional {
            Additional::Schema(schema) => Some(schema),
            Additional::Unknown | Additional::Any(_) => None,
        }
    }
}
