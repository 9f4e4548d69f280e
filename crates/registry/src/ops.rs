//! Kinds without their types: what the pipeline and the readers call.
//!
//! [`ResourceOps`] is the resource as it is on the wire, and is implemented three times: [`Typed`] for every [`Kind`],
//! [`Alternate`] for every [`AlternateVersion`], and (for custom resources) over plain JSON values. Each method finds the
//! type of its object again once ([`cast`]).

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use machinery::field::ErrorList;
use machinery::managed::{BuiltIn, Place};
use machinery::status::ApiError;
use serde_json::Value;

use crate::allocate::Allocators;
use crate::component_health::ComponentHealth;
use crate::decode::{self, DecodeError, Report};
use crate::kind::{AlternateVersion, Column, Context, Kind, Reservation, ScaleView, Subresource};
use crate::object::{Object, cast, cast_mut};
use crate::strategy::{Deletion, Findings, Strategy};
use crate::table::ResourceInfo;

/// A resource as it is on the wire: its row in the table, how its objects come from bytes and go back to them, and how they
/// are shown. What is done to the objects is its [`Strategy`].
pub trait ResourceOps: Send + Sync + 'static {
    /// The row in the resource table.
    fn info(&self) -> &ResourceInfo;

    /// What the pipeline does to its objects.
    fn strategy(&self) -> &dyn Strategy;

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
    /// 500 when the object is of another kind, or a value has no JSON form.
    fn encode(&self, object: &dyn Object, out: &mut Vec<u8>) -> Result<(), ApiError>;

    /// The bytes to serve for the bytes in the store; the same ones unless this is an alternate version of another kind.
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
    /// 500 when the object is of another kind, or cannot be represented as JSON.
    fn encode_served(&self, object: &dyn Object) -> Result<Bytes, ApiError> {
        let mut bytes = Vec::with_capacity(1024);
        self.encode(object, &mut bytes)?;
        self.served(&bytes.into()).map_err(ApiError::internal)
    }

    /// Whether another row stands for what is in the store.
    fn is_alternate(&self) -> bool {
        false
    }

    /// How the fields of stored objects are merged and owned.
    fn place(&self) -> Place<'_> {
        Place::BuiltIn(BuiltIn::root(&self.info().openapi_name))
    }

    /// The same, of objects as they are served.
    fn served_place(&self) -> Place<'_> {
        if self.is_alternate() { Place::BuiltIn(BuiltIn::root(&self.info().openapi_name)) } else { self.place() }
    }

    /// Whether [`ResourceOps::served`] may change anything.
    fn converts(&self) -> bool {
        self.is_alternate()
    }

    /// As [`Kind::columns`].
    fn columns(&self) -> Vec<Column>;

    /// As [`Kind::row`].
    ///
    /// # Errors
    /// 500 when the object is of another kind.
    fn row(&self, object: &dyn Object, now: Timestamp) -> Result<Vec<Value>, ApiError>;

    /// The name the store's attributes use for a field label of this group and version.
    fn stored_label<'a>(&self, served: &'a str) -> &'a str {
        served
    }

    /// The JSON schema of the kind, with everything it refers to added to `generator`.
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> Option<schemars::Schema>;
}

/// The [`ResourceOps`] and the [`Strategy`] of a [`Kind`].
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
        let openapi_name = <K::Object as schemars::JsonSchema>::schema_name();
        Self { info: ResourceInfo::from_descriptor(&K::DESCRIPTOR, &openapi_name), kind: PhantomData }
    }
}

/// The stored object, where there is one, as its type.
fn cast_old<T: 'static>(old: Option<&dyn Object>) -> Result<Option<&T>, ApiError> {
    old.map(cast).transpose()
}

impl<K: Kind> ResourceOps for Typed<K> {
    fn info(&self) -> &ResourceInfo {
        &self.info
    }

    fn strategy(&self) -> &dyn Strategy {
        self
    }

    fn decode(&self, body: &[u8], report: &mut Report) -> Result<Box<dyn Object>, DecodeError> {
        Ok(Box::new(decode::decode::<K::Object>(body, report)?))
    }

    fn load(&self, stored: &[u8]) -> Result<Box<dyn Object>, DecodeError> {
        self.decode(stored, &mut Report::ignore())
    }

    fn encode(&self, object: &dyn Object, out: &mut Vec<u8>) -> Result<(), ApiError> {
        serde_json::to_writer(out, cast::<K::Object>(object)?).map_err(ApiError::internal)
    }

    fn columns(&self) -> Vec<Column> {
        K::columns()
    }

    fn row(&self, object: &dyn Object, now: Timestamp) -> Result<Vec<Value>, ApiError> {
        Ok(K::row(cast(object)?, now))
    }

    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> Option<schemars::Schema> {
        Some(generator.subschema_for::<K::Object>())
    }
}

impl<K: Kind> Strategy for Typed<K> {
    fn default(&self, object: &mut dyn Object) -> Result<(), ApiError> {
        K::default(cast_mut(object)?);
        Ok(())
    }

    fn prepare(
        &self,
        new: &mut dyn Object,
        old: Option<&dyn Object>,
        subresource: Option<Subresource>,
        context: &Context<'_>,
    ) -> Result<(), ApiError> {
        let (new, old) = (cast_mut(new)?, cast_old(old)?);
        match (old, subresource) {
            (None, _) => K::prepare_create(new, context),
            // A new number of replicas is an update of the workload itself.
            (Some(old), None | Some(Subresource::Scale)) => K::prepare_update(new, old),
            (Some(old), Some(subresource)) => {
                match subresource {
                    Subresource::Status => K::prepare_status(new, old),
                    other => K::prepare_subresource(other, new, old),
                }
                K::prepare_conditions(new, old, context.now);
            }
        }
        Ok(())
    }

    fn validate(
        &self,
        new: &dyn Object,
        old: Option<&dyn Object>,
        subresource: Option<Subresource>,
    ) -> Result<Findings, ApiError> {
        let (new, old) = (cast(new)?, cast_old(old)?);
        let mut errors = ErrorList::new();
        match (old, subresource) {
            (None, _) => {
                errors.extend(K::validate(new));
                errors.extend(K::validate_create(new));
            }
            (Some(old), None | Some(Subresource::Scale)) => {
                if !K::is_settled(new, old) {
                    errors.extend(K::validate_kept(new, old));
                }
                errors.extend(K::validate_update(new, old));
            }
            (Some(old), Some(Subresource::Status)) => return Ok(K::validate_status(new, old).into()),
            (Some(old), Some(other)) => return Ok(K::validate_subresource(other, new, old).into()),
        }
        let warnings = if errors.is_empty() { K::warnings(new, old) } else { Vec::new() };
        Ok(Findings { errors, warnings })
    }

    fn allocate(
        &self,
        new: &mut dyn Object,
        old: Option<&dyn Object>,
        subresource: Option<Subresource>,
        context: &Context<'_>,
    ) -> Result<Reservation, ApiError> {
        match (cast_old(old)?, subresource) {
            (old, None) => K::allocate(cast_mut(new)?, old, context),
            (Some(old), Some(Subresource::Status)) => K::allocate_status(cast_mut(new)?, old, context),
            // No other subresource is about what can be had once only.
            (_, Some(_)) => Ok(Reservation::none()),
        }
    }

    fn occupy(&self, object: &dyn Object, allocators: &Allocators) -> Result<(), ApiError> {
        K::occupy(cast(object)?, allocators);
        Ok(())
    }

    fn release(&self, object: &dyn Object, allocators: &Allocators) -> Result<(), ApiError> {
        K::release(cast(object)?, allocators);
        Ok(())
    }

    fn compute(&self, components: &[ComponentHealth]) -> Vec<Box<dyn Object>> {
        K::compute(components).into_iter().map(|object| Box::new(object) as Box<dyn Object>).collect()
    }

    fn fields(&self, object: &dyn Object) -> Result<Vec<(&'static str, String)>, ApiError> {
        cast(object).map(K::fields)
    }

    fn scale(&self, object: &dyn Object) -> Result<Option<ScaleView>, ApiError> {
        cast(object).map(K::scale)
    }

    fn set_scale(&self, object: &mut dyn Object, replicas: i32) -> Result<(), ApiError> {
        K::set_scale(cast_mut(object)?, replicas);
        Ok(())
    }

    fn deletion(&self, object: &dyn Object, requested: Option<i64>) -> Result<Deletion, ApiError> {
        let object = cast(object)?;
        Ok(Deletion { refusal: K::undeletable(object), grace_period: K::grace_period(object, requested) })
    }

    fn mark_deleted(&self, object: &mut dyn Object) -> Result<(), ApiError> {
        K::mark_deleted(cast_mut(object)?);
        Ok(())
    }

    fn has_other_finalizers(&self, object: &dyn Object) -> Result<bool, ApiError> {
        cast(object).map(K::has_other_finalizers)
    }
}

/// The [`ResourceOps`] of an [`AlternateVersion`]: another shape on the wire, and the strategy of the stored kind.
pub struct Alternate<V: AlternateVersion> {
    info: ResourceInfo,
    stored: Typed<V::Stored>,
    version: PhantomData<fn() -> V>,
}

impl<V: AlternateVersion> Alternate<V> {
    /// The adapter, ready for the resource table.
    #[must_use]
    pub fn shared() -> Arc<dyn ResourceOps> {
        let stored = Typed::<V::Stored>::new();
        let openapi_name = <V::Object as schemars::JsonSchema>::schema_name();
        let mut info = ResourceInfo::from_descriptor(&V::DESCRIPTOR, &openapi_name);
        info.storage = stored.info.storage.clone();
        Arc::new(Self { info, stored, version: PhantomData })
    }
}

impl<V: AlternateVersion> ResourceOps for Alternate<V> {
    fn info(&self) -> &ResourceInfo {
        &self.info
    }

    fn strategy(&self) -> &dyn Strategy {
        &self.stored
    }

    fn decode(&self, body: &[u8], report: &mut Report) -> Result<Box<dyn Object>, DecodeError> {
        Ok(Box::new(V::to_stored(decode::decode::<V::Object>(body, report)?)))
    }

    fn load(&self, stored: &[u8]) -> Result<Box<dyn Object>, DecodeError> {
        self.stored.load(stored)
    }

    fn encode(&self, object: &dyn Object, out: &mut Vec<u8>) -> Result<(), ApiError> {
        self.stored.encode(object, out)
    }

    fn served(&self, stored: &Bytes) -> Result<Bytes, DecodeError> {
        let object: <V::Stored as Kind>::Object = decode::decode(stored, &mut Report::ignore())?;
        Ok(serde_json::to_vec(&V::from_stored(object))?.into())
    }

    fn is_alternate(&self) -> bool {
        true
    }

    fn place(&self) -> Place<'_> {
        self.stored.place()
    }

    fn columns(&self) -> Vec<Column> {
        V::columns()
    }

    fn row(&self, object: &dyn Object, now: Timestamp) -> Result<Vec<Value>, ApiError> {
        Ok(V::row(cast(object)?, now))
    }

    fn stored_label<'a>(&self, served: &'a str) -> &'a str {
        V::FIELD_LABELS.iter().find(|(label, _)| *label == served).map_or(served, |(_, stored)| stored)
    }

    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> Option<schemars::Schema> {
        Some(generator.subschema_for::<V::Object>())
    }
}
