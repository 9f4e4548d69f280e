//! What is known about how the values of a type are merged.

use std::borrow::Cow;

use serde_json::Value;

use crate::merge_keys::{self, Field, ListType, OBJECT_META};
use crate::schema::Schema;

/// How a list is merged.
#[derive(Clone, Debug, PartialEq)]
pub enum List<'a> {
    /// As a whole.
    Atomic,
    /// As a set of scalars.
    Set,
    /// By element, which these fields identify; with the value of each where an element leaves it out.
    Map(Vec<(Cow<'a, str>, Option<Value>)>),
}

/// A place in objects of some type: what holds for any value that stands there.
pub trait Topology: Clone {
    /// How a list here is merged.
    fn list(&self) -> List<'_>;

    /// Whether an object here is replaced as a whole.
    fn is_atomic(&self) -> bool;

    /// The place of a field of an object here, or of a value of a map here.
    #[must_use]
    fn field(&self, name: &str) -> Self;

    /// The place of the elements of a list here.
    #[must_use]
    fn item(&self) -> Self;

    /// Whether an object here has a field of that name by its type; else the name is a key of a map.
    fn declares(&self, name: &str) -> bool;

    /// Whether every object has something here, even an empty one.
    fn always(&self) -> bool {
        false
    }
}

/// The places of the built-in types, by the facts of [`merge_keys`].
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    definition: Option<&'static str>,
    facts: Option<&'static Field>,
}

impl BuiltIn {
    /// The root of objects of the type with this OpenAPI definition name.
    #[must_use]
    pub fn root(definition: &str) -> Self {
        Self { definition: merge_keys::known(definition), facts: None }
    }
}

impl Topology for BuiltIn {
    fn list(&self) -> List<'_> {
        match self.facts {
            Some(Field { list_type: ListType::Set, .. }) => List::Set,
            Some(facts) if facts.list_type == ListType::Map => {
                let default = |key: &str| {
                    let known = facts.list_map_defaults.iter().find(|(name, _)| *name == key);
                    // A key that is left out is the empty string in Go.
                    Some(known.map_or("", |(_, default)| *default).into())
                };
                List::Map(facts.list_map_keys.iter().map(|key| (Cow::Borrowed(*key), default(key))).collect())
            }
            _ => List::Atomic,
        }
    }

    fn is_atomic(&self) -> bool {
        let by_field = self.facts.and_then(|facts| facts.map_atomic);
        by_field.unwrap_or_else(|| self.definition.is_some_and(merge_keys::is_atomic))
    }

    fn field(&self, name: &str) -> Self {
        let facts = self.definition.and_then(|definition| merge_keys::field(definition, name));
        Self { definition: facts.and_then(|facts| facts.definition), facts }
    }

    fn item(&self) -> Self {
        Self { definition: self.definition, facts: None }
    }

    fn declares(&self, _name: &str) -> bool {
        // Maps of the built-in types hold scalars, for which it makes no difference.
        true
    }

    fn always(&self) -> bool {
        self.definition == Some(OBJECT_META) || self.facts.is_some_and(|facts| facts.always)
    }
}

/// A place in objects of any kind.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// In a built-in type.
    BuiltIn(BuiltIn),
    /// The root of a custom resource.
    Custom(Option<&'a Schema>),
    /// In a custom resource. Where no schema says anything, objects are merged by their fields, lists are replaced.
    Schema(Option<&'a Schema>),
}

impl<'a> Place<'a> {
    fn schema(&self) -> Option<&'a Schema> {
        match self {
            Self::BuiltIn(_) => None,
            Self::Custom(schema) | Self::Schema(schema) => *schema,
        }
    }
}

impl Topology for Place<'_> {
    fn list(&self) -> List<'_> {
        if let Self::BuiltIn(place) = self {
            return place.list();
        }
        match self.schema() {
            Some(schema) if schema.list_type() == ListType::Set => List::Set,
            Some(schema) if schema.list_type() == ListType::Map => {
                let items = schema.items();
                let default = |key: &str| items?.property(key)?.default_value().cloned();
                List::Map(schema.list_map_keys().map(|key| (Cow::Borrowed(key), default(key))).collect())
            }
            _ => List::Atomic,
        }
    }

    fn is_atomic(&self) -> bool {
        match self {
            Self::BuiltIn(place) => place.is_atomic(),
            _ => self.schema().is_some_and(Schema::is_atomic_map),
        }
    }

    fn field(&self, name: &str) -> Self {
        match self {
            Self::BuiltIn(place) => Self::BuiltIn(place.field(name)),
            Self::Custom(_) if name == "metadata" => Self::BuiltIn(BuiltIn::root(OBJECT_META)),
            _ => Self::Schema(self.schema().and_then(|schema| schema.property(name))),
        }
    }

    fn item(&self) -> Self {
        match self {
            Self::BuiltIn(place) => Self::BuiltIn(place.item()),
            _ => Self::Schema(self.schema().and_then(Schema::items)),
        }
    }

    fn declares(&self, name: &str) -> bool {
        match self {
            Self::BuiltIn(place) => place.declares(name),
            Self::Custom(_) if matches!(name, "apiVersion" | "kind" | "metadata") => true,
            _ => self.schema().is_some_and(|schema| schema.declares(name)),
        }
    }

    fn always(&self) -> bool {
        matches!(self, Self::BuiltIn(place) if place.always())
    }
}
