//! Kinds without their types: what the write path and the readers call.
//!
//! [`ResourceOps`] is implemented three times: [`Typed`] for every [`Kind`], [`Viewed`] for every [`View`], and (for
//! custom resources) over plain JSON values. An object in flight is a `Box<dyn Object>`.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::field::ErrorList;
use machinery::managed::{BuiltIn, Place};
use machinery::status::ApiError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::allocate::Allocators;
use crate::decode::{self, DecodeError, Report};
use crate::kind::{Column, Context, Kind, Reservation, ScaleView, Subresource, View};
use crate::table::ResourceInfo;

/// A decoded object of whatever kind.
pub trait Object: Any + Send + Sync {
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
    /// Its metadata, to be changed.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// A copy.
    fn boxed_clone(&self) -> Box<dyn Object>;
}

impl dyn Object {
    /// For the kind itself, which knows the type.
    pub fn as_any(&self) -> &dyn Any {
        self
    }

    /// For the kind itself, which knows the type.
    pub fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    /// For the kind itself, which knows the type.
    pub fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl<T> Object for T
where
    T: Metadata<Ty = ObjectMeta> + Clone + Send + Sync + 'static,
{
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.metadata_mut()
    }

    fn boxed_clone(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }
}

/// The hooks of [`Kind`] without its types, and how its objects come from bytes and go back to them.
///
/// Handing an object of another kind to one of these is a mistake of the caller; it is treated as an object on
/// which the hook has nothing to do.
pub trait ResourceOps: Send + Sync + 'static {
    /// The row in the resource table.
    fn info(&self) -> &ResourceInfo;

    /// Decodes what a client sent. Unknown and duplicate fields are added to `report`.
    ///
    /// # Errors
    /// When the JSON is broken or a value has the wrong type.
    fn decode(&self, body: &[u8], report: &mut Report) -> Result<Box<dyn Object>, DecodeError>;

    /// Decodes what the store holds.
    ///
    /// # Errors
    /// When it is not an object of this kind.
    fn load(&self, stored: &[u8]) -> Result<Box<dyn Object>, DecodeError>;

    /// Encodes an object as the store holds it.
    ///
    /// # Errors
    /// When a value has no JSON form.
    fn encode(&self, object: &dyn Object, out: &mut Vec<u8>) -> Result<(), serde_json::Error>;

    /// The bytes to serve for the bytes in the store; the same ones unless this is a second view of another kind.
    ///
    /// # Errors
    /// When the stored bytes are not an object of this kind.
    fn served(&self, stored: &Bytes) -> Result<Bytes, DecodeError> {
        Ok(stored.clone())
    }

    /// As [`ResourceOps::served`], of many objects at once.
    ///
    /// # Errors
    /// When one of them is not an object of this kind.
    fn served_all(&self, stored: Vec<Bytes>) -> Result<Vec<Bytes>, DecodeError> {
        stored.iter().map(|stored| self.served(stored)).collect()
    }

    /// An object as it is served.
    ///
    /// # Errors
    /// When the object cannot be represented as JSON.
    fn encode_served(&self, object: &dyn Object) -> Result<Bytes, DecodeError> {
        let mut bytes = Vec::with_capacity(1024);
        self.encode(object, &mut bytes)?;
        self.served(&bytes.into())
    }

    /// Whether another row stands for what is in the store.
    fn is_view(&self) -> bool {
        false
    }

    /// How the fields of stored objects are merged and owned.
    fn place(&self) -> Place<'_> {
        Place::BuiltIn(BuiltIn::root(&self.info().definition))
    }

    /// The same, of objects as they are served.
    fn served_place(&self) -> Place<'_> {
        if self.is_view() { Place::BuiltIn(BuiltIn::root(&self.info().definition)) } else { self.place() }
    }

    /// Whether [`ResourceOps::served`] may change anything.
    fn converts(&self) -> bool {
        self.is_view()
    }

    /// As [`Kind::default`].
    fn default(&self, object: &mut dyn Object);
    /// As [`Kind::prepare_create`].
    fn prepare_create(&self, object: &mut dyn Object, context: &Context<'_>);
    /// As [`Kind::prepare_update`].
    fn prepare_update(&self, new: &mut dyn Object, old: &dyn Object);
    /// [`Kind::prepare_status`] for `Status`, [`Kind::prepare_subresource`] for the others.
    fn prepare_subresource(&self, subresource: Subresource, new: &mut dyn Object, old: &dyn Object);
    /// As [`Kind::validate`].
    fn validate(&self, object: &dyn Object) -> ErrorList;
    /// As [`Kind::validate_update`].
    fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> ErrorList;
    /// [`ResourceOps::validate`] and [`ResourceOps::validate_update`] in one: what is wrong with `new` in the place of
    /// `old`.
    fn validate_change(&self, new: &dyn Object, old: &dyn Object) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(self.validate_update(new, old));
        errors
    }
    /// As [`Kind::validate_subresource`].
    fn validate_subresource(&self, _subresource: Subresource, new: &dyn Object, old: &dyn Object) -> ErrorList {
        self.validate_update(new, old)
    }
    /// As [`Kind::validate_status`].
    fn validate_status(&self, new: &dyn Object, old: &dyn Object) -> ErrorList;
    /// As [`Kind::warnings`].
    fn warnings(&self, new: &dyn Object, old: Option<&dyn Object>) -> Vec<String>;
    /// As [`Kind::allocate`].
    ///
    /// # Errors
    /// When nothing suitable is free.
    fn allocate(
        &self,
        new: &mut dyn Object,
        old: Option<&dyn Object>,
        context: &Context<'_>,
    ) -> Result<Reservation, ApiError>;
    /// As [`Kind::occupy`].
    fn occupy(&self, object: &dyn Object, allocators: &Allocators);
    /// As [`Kind::release`].
    fn release(&self, object: &dyn Object, allocators: &Allocators);
    /// As [`Kind::fields`].
    fn fields(&self, object: &dyn Object) -> Vec<(&'static str, String)>;
    /// As [`Kind::columns`].
    fn columns(&self) -> Vec<Column>;
    /// As [`Kind::row`].
    fn row(&self, object: &dyn Object, now: Timestamp) -> Vec<Value>;
    /// As [`Kind::scale`].
    fn scale(&self, object: &dyn Object) -> Option<ScaleView>;
    /// As [`Kind::set_scale`].
    fn set_scale(&self, object: &mut dyn Object, replicas: i32);
    /// As [`Kind::undeletable`].
    fn undeletable(&self, object: &dyn Object) -> Option<&'static str>;
    /// As [`Kind::grace_period`].
    fn grace_period(&self, object: &dyn Object, requested: Option<i64>) -> Option<i64>;
    /// As [`Kind::mark_deleted`].
    fn mark_deleted(&self, object: &mut dyn Object);
    /// As [`Kind::held`].
    fn held(&self, object: &dyn Object) -> bool;
    /// The name the store's attributes use for a field label of this group and version.
    fn stored_label<'a>(&self, served: &'a str) -> &'a str {
        served
    }
    /// The JSON schema of the kind, with everything it refers to added to `generator`.
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> Option<schemars::Schema>;
}

/// The [`ResourceOps`] of a [`Kind`].
pub struct Typed<K: Kind> {
    info: ResourceInfo,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Typed<K> {
    /// The adapter, ready for the resource table.
    #[must_use]
    pub fn shared() -> Arc<dyn ResourceOps> {
        Arc::new(Self::new())
    }

    fn new() -> Self {
        let definition = <K::Object as schemars::JsonSchema>::schema_name();
        Self { info: ResourceInfo::from_descriptor(&K::DESCRIPTOR, &definition), kind: PhantomData }
    }
}

fn typed<T: 'static>(object: &dyn Object) -> Option<&T> {
    object.as_any().downcast_ref()
}

fn typed_mut<T: 'static>(object: &mut dyn Object) -> Option<&mut T> {
    object.as_any_mut().downcast_mut()
}

fn decode_as<T: DeserializeOwned>(body: &[u8], report: &mut Report) -> Result<T, DecodeError> {
    decode::decode(body, report)
}

fn encode_as<T: Serialize>(object: &T, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    serde_json::to_writer(out, object)
}

impl<K: Kind> ResourceOps for Typed<K> {
    fn info(&self) -> &ResourceInfo {
        &self.info
    }

    fn decode(&self, body: &[u8], report: &mut Report) -> Result<Box<dyn Object>, DecodeError> {
        Ok(Box::new(decode_as::<K::Object>(body, report)?))
    }

    fn load(&self, stored: &[u8]) -> Result<Box<dyn Object>, DecodeError> {
        self.decode(stored, &mut Report::ignore())
    }

    fn encode(&self, object: &dyn Object, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        typed::<K::Object>(object).map_or(Ok(()), |object| encode_as(object, out))
    }

    fn default(&self, object: &mut dyn Object) {
        if let Some(object) = typed_mut(object) {
            K::default(object);
        }
    }

    fn prepare_create(&self, object: &mut dyn Object, context: &Context<'_>) {
        if let Some(object) = typed_mut(object) {
            K::prepare_create(object, context);
        }
    }

    fn prepare_update(&self, new: &mut dyn Object, old: &dyn Object) {
        if let (Some(new), Some(old)) = (typed_mut(new), typed(old)) {
            K::prepare_update(new, old);
        }
    }

    fn prepare_subresource(&self, subresource: Subresource, new: &mut dyn Object, old: &dyn Object) {
        if let (Some(new), Some(old)) = (typed_mut(new), typed(old)) {
            match subresource {
                Subresource::Status => K::prepare_status(new, old),
                other => K::prepare_subresource(other, new, old),
            }
        }
    }

    fn validate(&self, object: &dyn Object) -> ErrorList {
        typed(object).map(K::validate).unwrap_or_default()
    }

    fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> ErrorList {
        typed(new).zip(typed(old)).map(|(new, old)| K::validate_update(new, old)).unwrap_or_default()
    }

    fn validate_change(&self, new: &dyn Object, old: &dyn Object) -> ErrorList {
        let Some((new, old)) = typed(new).zip(typed(old)) else { return ErrorList::new() };
        let mut errors = if K::is_settled(new, old) { ErrorList::new() } else { K::validate(new) };
        errors.extend(K::validate_update(new, old));
        errors
    }

    fn validate_subresource(&self, subresource: Subresource, new: &dyn Object, old: &dyn Object) -> ErrorList {
        let both = typed(new).zip(typed(old));
        both.map(|(new, old)| K::validate_subresource(subresource, new, old)).unwrap_or_default()
    }

    fn validate_status(&self, new: &dyn Object, old: &dyn Object) -> ErrorList {
        typed(new).zip(typed(old)).map(|(new, old)| K::validate_status(new, old)).unwrap_or_default()
    }

    fn warnings(&self, new: &dyn Object, old: Option<&dyn Object>) -> Vec<String> {
        typed(new).map(|new| K::warnings(new, old.and_then(typed))).unwrap_or_default()
    }

    fn allocate(
        &self,
        new: &mut dyn Object,
        old: Option<&dyn Object>,
        context: &Context<'_>,
    ) -> Result<Reservation, ApiError> {
        typed_mut(new).map_or_else(|| Ok(Reservation::none()), |new| K::allocate(new, old.and_then(typed), context))
    }

    fn occupy(&self, object: &dyn Object, allocators: &Allocators) {
        if let Some(object) = typed(object) {
            K::occupy(object, allocators);
        }
    }

    fn release(&self, object: &dyn Object, allocators: &Allocators) {
        if let Some(object) = typed(object) {
            K::release(object, allocators);
        }
    }

    fn fields(&self, object: &dyn Object) -> Vec<(&'static str, String)> {
        typed(object).map(K::fields).unwrap_or_default()
    }

    fn columns(&self) -> Vec<Column> {
        K::columns()
    }

    fn row(&self, object: &dyn Object, now: Timestamp) -> Vec<Value> {
        typed(object).map(|object| K::row(object, now)).unwrap_or_default()
    }

    fn scale(&self, object: &dyn Object) -> Option<ScaleView> {
        typed(object).and_then(K::scale)
    }

    fn set_scale(&self, object: &mut dyn Object, replicas: i32) {
        if let Some(object) = typed_mut(object) {
            K::set_scale(object, replicas);
        }
    }

    fn undeletable(&self, object: &dyn Object) -> Option<&'static str> {
        typed(object).and_then(K::undeletable)
    }

    fn grace_period(&self, object: &dyn Object, requested: Option<i64>) -> Option<i64> {
        typed(object).and_then(|object| K::grace_period(object, requested))
    }

    fn mark_deleted(&self, object: &mut dyn Object) {
        if let Some(object) = typed_mut(object) {
            K::mark_deleted(object);
        }
    }

    fn held(&self, object: &dyn Object) -> bool {
        typed(object).is_some_and(K::held)
    }

    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> Option<schemars::Schema> {
        Some(generator.subschema_for::<K::Object>())
    }
}

/// The [`ResourceOps`] of a [`View`]: those of the stored kind, but for the shape on the wire.
pub struct Viewed<V: View> {
    info: ResourceInfo,
    stored: Typed<V::Stored>,
    view: PhantomData<fn() -> V>,
}

impl<V: View> Viewed<V> {
    /// The adapter, ready for the resource table.
    #[must_use]
    pub fn shared() -> Arc<dyn ResourceOps> {
        let stored = Typed::<V::Stored>::new();
        let definition = <V::Object as schemars::JsonSchema>::schema_name();
        let mut info = ResourceInfo::from_descriptor(&V::DESCRIPTOR, &definition);
        info.storage = stored.info.storage.clone();
        Arc::new(Self { info, stored, view: PhantomData })
    }
}

impl<V: View> ResourceOps for Viewed<V> {
    fn info(&self) -> &ResourceInfo {
        &self.info
    }

    fn decode(&self, body: &[u8], report: &mut Report) -> Result<Box<dyn Object>, DecodeError> {
        Ok(Box::new(V::to_stored(decode_as::<V::Object>(body, report)?)))
    }

    fn load(&self, stored: &[u8]) -> Result<Box<dyn Object>, DecodeError> {
        self.stored.load(stored)
    }

    fn encode(&self, object: &dyn Object, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        self.stored.encode(object, out)
    }

    fn served(&self, stored: &Bytes) -> Result<Bytes, DecodeError> {
        let object: <V::Stored as Kind>::Object = decode_as(stored, &mut Report::ignore())?;
        let mut out = Vec::with_capacity(stored.len() + 64);
        encode_as(&V::from_stored(object), &mut out).map_err(DecodeError::from)?;
        Ok(out.into())
    }

    fn is_view(&self) -> bool {
        true
    }

    fn place(&self) -> Place<'_> {
        self.stored.place()
    }

    fn default(&self, object: &mut dyn Object) {
        self.stored.default(object);
    }

    fn prepare_create(&self, object: &mut dyn Object, context: &Context<'_>) {
        self.stored.prepare_create(object, context);
    }

    fn prepare_update(&self, new: &mut dyn Object, old: &dyn Object) {
        self.stored.prepare_update(new, old);
    }

    fn prepare_subresource(&self, subresource: Subresource, new: &mut dyn Object, old: &dyn Object) {
        self.stored.prepare_subresource(subresource, new, old);
    }

    fn validate(&self, object: &dyn Object) -> ErrorList {
        self.stored.validate(object)
    }

    fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> ErrorList {
        self.stored.validate_update(new, old)
    }

    fn validate_status(&self, new: &dyn Object, old: &dyn Object) -> ErrorList {
        self.stored.validate_status(new, old)
    }

    fn warnings(&self, new: &dyn Object, old: Option<&dyn Object>) -> Vec<String> {
        self.stored.warnings(new, old)
    }

    fn allocate(
        &self,
        new: &mut dyn Object,
        old: Option<&dyn Object>,
        context: &Context<'_>,
    ) -> Result<Reservation, ApiError> {
        self.stored.allocate(new, old, context)
    }

    /// The row of the stored kind does this once for both.
    fn occupy(&self, _object: &dyn Object, _allocators: &Allocators) {}

    fn release(&self, object: &dyn Object, allocators: &Allocators) {
        self.stored.release(object, allocators);
    }

    fn fields(&self, object: &dyn Object) -> Vec<(&'static str, String)> {
        self.stored.fields(object)
    }

    fn columns(&self) -> Vec<Column> {
        V::columns()
    }

    fn row(&self, object: &dyn Object, now: Timestamp) -> Vec<Value> {
        typed(object).map(|object| V::row(object, now)).unwrap_or_default()
    }

    fn scale(&self, object: &dyn Object) -> Option<ScaleView> {
        self.stored.scale(object)
    }

    fn set_scale(&self, object: &mut dyn Object, replicas: i32) {
        self.stored.set_scale(object, replicas);
    }

    fn undeletable(&self, object: &dyn Object) -> Option<&'static str> {
        self.stored.undeletable(object)
    }

    fn grace_period(&self, object: &dyn Object, requested: Option<i64>) -> Option<i64> {
        self.stored.grace_period(object, requested)
    }

    fn mark_deleted(&self, object: &mut dyn Object) {
        self.stored.mark_deleted(object);
    }

    fn held(&self, object: &dyn Object) -> bool {
        self.stored.held(object)
    }

    fn stored_label<'a>(&self, served: &'a str) -> &'a str {
        V::FIELD_LABELS.iter().find(|(label, _)| *label == served).map_or(served, |(_, stored)| stored)
    }

    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> Option<schemars::Schema> {
        Some(generator.subschema_for::<V::Object>())
    }
}
