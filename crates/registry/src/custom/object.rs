//! An object of a custom resource: metadata that is understood, and JSON.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

use crate::object::Object;

/// An object of a custom resource.
#[derive(Debug, Clone, Default)]
pub(crate) struct CustomObject {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) meta: ObjectMeta,
    /// All other fields; always an object.
    pub(super) body: Value,
}

impl CustomObject {
    /// A field of the body.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.body.get(name)
    }

    /// Sets or removes a field of the body.
    pub(super) fn put(&mut self, name: &str, value: Option<Value>) {
        let Some(fields) = self.body.as_object_mut() else { return };
        match value {
            Some(value) => fields.insert(name.to_owned(), value),
            None => fields.remove(name),
        };
    }
}

impl Object for CustomObject {
    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }

    fn boxed_clone(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }
}

impl<'de> Deserialize<'de> for CustomObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = CustomObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<CustomObject, A::Error> {
                let mut object = CustomObject::default();
                let mut body = Map::new();
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "apiVersion" => object.api_version = map.next_value()?,
                        "kind" => object.kind = map.next_value()?,
                        "metadata" => object.meta = map.next_value::<Option<ObjectMeta>>()?.unwrap_or_default(),
                        _ => {
                            body.insert(name, map.next_value()?);
                        }
                    }
                }
                object.body = Value::Object(body);
                Ok(object)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

impl Serialize for CustomObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("apiVersion", &self.api_version)?;
        map.serialize_entry("kind", &self.kind)?;
        map.serialize_entry("metadata", &self.meta)?;
        for (name, value) in self.body.as_object().into_iter().flatten() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
