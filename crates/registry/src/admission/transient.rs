//! What is admitted and never stored: what a subresource takes in place of the object, and reviews.

use std::marker::PhantomData;

use machinery::status::ApiError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Attributes, Codec, Operation, webhook};
use crate::Registry;
use crate::custom::CustomObject;
use crate::decode::{self, Report};
use crate::kind::Subresource;
use crate::ops::{Object, cast, cast_into, cast_mut};
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

    fn decode(&self, patched: &[u8]) -> Result<Box<dyn Object>, ApiError> {
        let object: T = decode::decode(patched, &mut Report::ignore()).map_err(ApiError::internal)?;
        Ok(Box::new(object))
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
        validate: impl FnOnce(&mut T) -> Result<(), ApiError> + Send,
    ) -> Result<T, ApiError> {
        let codec = Plain::<T>::new();
        let (subresource, operation) = (Some(subresource), Operation::Create);
        let attributes = Attributes::new(target, subresource, operation, &options.user, options.dry_run);
        let attributes = Attributes { codec: &codec, ..attributes };
        let mut object: Box<dyn Object> = Box::new(object);
        let validate = |object: &mut dyn Object, _, _: &mut Vec<String>| validate(cast_mut(object)?);
        self.admit(&attributes, &mut object, None, warnings, validate).await?;
        cast_into(object)
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
        // Who asks what they may do asks often, and mostly there is nobody to look at it.
        if !webhook::any(self) {
            return Ok(review);
        }
        let codec = Plain::<CustomObject>::new();
        let attributes = Attributes {
            info,
            namespace,
            name: "",
            subresource: None,
            operation: Operation::Create,
            user: &options.user,
            dry_run: options.dry_run,
            codec: &codec,
        };
        let review: CustomObject = serde_json::from_value(review)
            .map_err(|error| ApiError::bad_request(format!("cannot read the review: {error}")))?;
        let mut review: Box<dyn Object> = Box::new(review);
        self.admit(&attributes, &mut review, None, warnings, |_, _, _| Ok(())).await?;
        codec.encode(review.as_ref())
    }
}
