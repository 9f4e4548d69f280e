//! What is admitted and never stored: what a subresource takes in place of the object, and reviews.

use std::marker::PhantomData;

use machinery::status::ApiError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Codec, webhook};
use crate::Registry;
use crate::custom::CustomObject;
use crate::decode::{self, Report};
use crate::kind::Subresource;
use crate::object::{Object, cast, cast_mut};
use crate::pipeline::{Action, Proposal, Proposed, Stored, Write};
use crate::request::{Target, WriteOptions};
use crate::table::ResourceInfo;

/// The codec of a type that serde knows.
pub(crate) struct Plain<T>(PhantomData<fn() -> T>);

impl<T> Plain<T> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Object + Serialize + DeserializeOwned> Codec for Plain<T> {
    fn encode(&self, object: &dyn Object) -> Result<Value, ApiError> {
        let object: &T = cast(object)?;
        serde_json::to_value(object).map_err(ApiError::internal)
    }

    fn decode(&self, patched: &[u8], _current: &dyn Object) -> Result<Box<dyn Object>, ApiError> {
        let object: T = decode::decode(patched, &mut Report::ignore()).map_err(ApiError::internal)?;
        Ok(Box::new(object))
    }
}

/// What a request without a stored object does in the pipeline.
struct Transient<F> {
    object: Box<dyn Object>,
    validate: F,
}

impl<F: FnMut(&mut dyn Object) -> Result<(), ApiError> + Send> Proposal for Transient<F> {
    fn decode(&mut self, _old: Option<&Stored>, _warnings: &mut Vec<String>) -> Result<Proposed, ApiError> {
        Ok(Proposed::new(self.object.boxed_clone()))
    }

    fn validate(&mut self, proposed: &mut Proposed, _old: Option<&Stored>) -> Result<(), ApiError> {
        proposed.object.as_deref_mut().map_or(Ok(()), &mut self.validate)
    }
}

impl Registry {
    /// Admits what is created below an object without being stored: a Binding, an Eviction, a TokenRequest. Answers with
    /// what the mutating webhooks have made of it, once `validate` has found it right and nobody refuses it.
    ///
    /// # Errors
    /// Those of `validate`, and whatever refuses the request.
    pub async fn admit_subresource<T: Object + Serialize + DeserializeOwned>(
        &self,
        target: &Target,
        subresource: Subresource,
        object: T,
        options: &WriteOptions,
        warnings: &mut Vec<String>,
        mut validate: impl FnMut(&mut T) -> Result<(), ApiError> + Send,
    ) -> Result<T, ApiError> {
        let action = match subresource {
            Subresource::Binding => Action::Bind,
            Subresource::Eviction => Action::Evict,
            Subresource::Token => Action::RequestToken,
            other => return Err(ApiError::internal(format!("nothing is created below {}", other.name()))),
        };
        let codec = Plain::<T>::new();
        // What stands for a subresource is a resource of its own to whoever is asked.
        let below = target.resource.info().stands_for.is_none().then_some(subresource);
        let write = Write::new(self, action, target, below, options).shown_as(&codec);
        let validate = |object: &mut dyn Object| validate(cast_mut(object)?);
        let mut transient = Transient { object: Box::new(object), validate };
        let (object, further) = self.run(&write, &mut transient).await?.admitted()?;
        warnings.extend(further);
        Ok(object)
    }

    /// Admits the options of a connection.
    pub(super) async fn admit_options<T: Object + Serialize + DeserializeOwned>(
        &self,
        target: &Target,
        subresource: Subresource,
        object: T,
        options: &WriteOptions,
        warnings: &mut Vec<String>,
    ) -> Result<T, ApiError> {
        let codec = Plain::<T>::new();
        let write = Write::new(self, Action::Connect, target, Some(subresource), options).shown_as(&codec);
        let mut transient = Transient { object: Box::new(object), validate: |_: &mut dyn Object| Ok(()) };
        let (object, further) = self.run(&write, &mut transient).await?.admitted()?;
        warnings.extend(further);
        Ok(object)
    }

    /// Admits a review, in JSON: a question that is answered and forgotten. `info` says which. Answers with what the mutating
    /// webhooks have made of it.
    ///
    /// # Errors
    /// Whatever refuses the request.
    pub async fn admit_review(
        &self,
        info: &ResourceInfo,
        namespace: &str,
        review: Value,
        options: &WriteOptions,
        warnings: &mut Vec<String>,
    ) -> Result<Value, ApiError> {
        // Reviews are asked often, and mostly no webhook is configured.
        if !webhook::any(self) {
            return Ok(review);
        }
        let codec = Plain::<CustomObject>::new();
        let write = Write::review(self, info, namespace, &codec, options);
        let review: CustomObject = serde_json::from_value(review)
            .map_err(|error| ApiError::bad_request(format!("cannot read the review: {error}")))?;
        let mut transient = Transient { object: Box::new(review), validate: |_: &mut dyn Object| Ok(()) };
        let (review, further) = self.run(&write, &mut transient).await?.admitted::<CustomObject>()?;
        warnings.extend(further);
        codec.encode(&review)
    }
}
