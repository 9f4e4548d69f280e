//! What is known about how the values of a type are merged.

use std::borrow::Cow;

use serde_json::Value;

use crate::api_types::{ApiType, Field, ListType};
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

/// The places of the built-in types.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    api_type: Option<&'static ApiType>,
    field: Option<&'static Field>,
}

impl BuiltIn {
    /// The root of objects of the type with this OpenAPI definition name.
    #[must_use]
    pub fn root(definition: &str) -> Self {
        Self { api_type: ApiType::by_openapi_name(definition), field: None }
    }

    /// The metadata of an object of whatever kind.
    fn object_meta() -> Self {
        Self::root("io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata").field("metadata")
    }
}

impl Topology for BuiltIn {
    fn list(&self) -> List<'_> {
        match self.field {
            Some(Field { list_type: ListType::Set, .. }) => List::Set,
            Some(field) if field.list_type == ListType::Map => {
                // A key that is left out is the empty string in Go.
                let keys = field.list_map_keys();
                List::Map(keys.map(|(key, default)| (key.into(), Some(default.unwrap_or_default().into()))).collect())
            }
            _ => List::Atomic,
        }
    }

    fn is_atomic(&self) -> bool {
        let by_field = self.field.and_then(|field| field.map_atomic);
        by_field.unwrap_or_else(|| self.api_type.is_some_and(|api_type| api_type.is_atomic))
    }

    fn field(&self, name: &str) -> Self {
        let field = self.api_type.and_then(|api_type| api_type.member(name));
        Self { api_type: field.and_then(Field::message), field }
    }

    fn item(&self) -> Self {
        Self { api_type: self.api_type, field: None }
    }

    fn declares(&self, _name: &str) -> bool {
        // Maps of the built-in types hold scalars, for which it makes no difference.
        true
    }

    fn always(&self) -> bool {
        self.field.is_some_and(Field::is_always_there)
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
            Self::Custom(_) if name == "metadata" => Self::BuiltIn(BuiltIn::object_meta()),
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
