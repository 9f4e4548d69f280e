//! What the pipeline does to the stored objects of a resource: upstream's `rest.RESTCreateUpdateStrategy`
//! (`staging/src/k8s.io/apiserver/pkg/registry/rest`), with one method for each step.
//!
//! It is implemented by [`Typed`](crate::ops::Typed) for every [`Kind`], and by the custom resources.

use machinery::field::ErrorList;
use machinery::status::ApiError;

use crate::allocate::Allocators;
use crate::component_health::ComponentHealth;
#[cfg(doc)]
use crate::kind::Kind;
use crate::kind::{Context, Reservation, ScaleView, Subresource};
use crate::object::Object;

/// The hooks of [`Kind`] without its types, put together as the steps of the pipeline call them. `old` is the stored object,
/// which a create has none of; `subresource` is the one that is written.
///
/// Every method answers with an internal error when an object is not of its kind: nothing is "valid", or encoded to
/// nothing, because it could not be looked at.
pub trait Strategy: Send + Sync {
    /// As [`Kind::default`].
    ///
    /// # Errors
    /// 500 when the object is of another kind, as all below.
    fn default(&self, object: &mut dyn Object) -> Result<(), ApiError>;

    /// [`Kind::prepare_create`], [`Kind::prepare_update`], [`Kind::prepare_status`] or [`Kind::prepare_subresource`]; after the last
    /// two [`Kind::prepare_conditions`].
    ///
    /// # Errors
    /// 500 when an object is of another kind.
    fn prepare(
        &self,
        new: &mut dyn Object,
        old: Option<&dyn Object>,
        subresource: Option<Subresource>,
        context: &Context<'_>,
    ) -> Result<(), ApiError>;

    /// The validating hook or hooks of the write, and, if they find nothing, [`Kind::warnings`].
    ///
    /// # Errors
    /// 500 when an object is of another kind; what is wrong with the object is in the answer.
    fn validate(
        &self,
        new: &dyn Object,
        old: Option<&dyn Object>,
        subresource: Option<Subresource>,
    ) -> Result<Findings, ApiError>;

    /// [`Kind::allocate`], or what stands for it in a write of a subresource.
    ///
    /// # Errors
    /// When nothing suitable is free.
    fn allocate(
        &self,
        new: &mut dyn Object,
        old: Option<&dyn Object>,
        subresource: Option<Subresource>,
        context: &Context<'_>,
    ) -> Result<Reservation, ApiError>;

    /// As [`Kind::occupy`].
    ///
    /// # Errors
    /// 500 when the object is of another kind.
    fn occupy(&self, object: &dyn Object, allocators: &Allocators) -> Result<(), ApiError>;

    /// As [`Kind::release`].
    ///
    /// # Errors
    /// 500 when the object is of another kind.
    fn release(&self, object: &dyn Object, allocators: &Allocators) -> Result<(), ApiError>;

    /// As [`Kind::compute`].
    fn compute(&self, _components: &[ComponentHealth]) -> Vec<Box<dyn Object>> {
        Vec::new()
    }

    /// As [`Kind::fields`].
    ///
    /// # Errors
    /// 500 when the object is of another kind.
    fn fields(&self, object: &dyn Object) -> Result<Vec<(&'static str, String)>, ApiError>;

    /// As [`Kind::scale`].
    ///
    /// # Errors
    /// 500 when the object is of another kind.
    fn scale(&self, object: &dyn Object) -> Result<Option<ScaleView>, ApiError>;

    /// As [`Kind::set_scale`].
    ///
    /// # Errors
    /// 500 when the object is of another kind.
    fn set_scale(&self, object: &mut dyn Object, replicas: i32) -> Result<(), ApiError>;

    /// [`Kind::undeletable`] and [`Kind::grace_period`].
    ///
    /// # Errors
    /// 500 when the object is of another kind.
    fn deletion(&self, object: &dyn Object, requested: Option<i64>) -> Result<Deletion, ApiError>;

    /// As [`Kind::mark_deleted`].
    ///
    /// # Errors
    /// 500 when the object is of another kind.
    fn mark_deleted(&self, object: &mut dyn Object) -> Result<(), ApiError>;

    /// As [`Kind::has_other_finalizers`].
    ///
    /// # Errors
    /// 500 when the object is of another kind.
    fn has_other_finalizers(&self, object: &dyn Object) -> Result<bool, ApiError>;
}

/// What validation has to say about an object.
#[derive(Debug, Default)]
pub struct Findings {
    /// What is wrong with it.
    pub errors: ErrorList,
    /// What its client is to be told although nothing is wrong.
    pub warnings: Vec<String>,
}

/// What a kind says about a DELETE of one of its objects.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deletion {
    /// Why it cannot be deleted.
    pub refusal: Option<&'static str>,
    /// How many seconds it has to end in good order; `None` where the kind knows no graceful deletion.
    pub grace_period: Option<i64>,
}

impl From<ErrorList> for Findings {
    fn from(errors: ErrorList) -> Self {
        Self { errors, warnings: Vec::new() }
    }
}
