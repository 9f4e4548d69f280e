//! How components of the server write objects of their own: through the same path as everybody.

use std::sync::Arc;

use serde_json::Value;

use crate::Registry;
use crate::request::{FieldValidation, Target, WriteOptions, Written};
use crate::user::User;
use machinery::status::ApiError;

/// How often an upsert is tried when the object comes and goes.
const ATTEMPTS: usize = 10;

impl Registry {
    /// Creates the object at `target`, or replaces it whatever its version. `object` needs no more than what
    /// differs from the defaults: kind, version, name and namespace are filled in.
    ///
    /// # Errors
    /// As [`Registry::create`] and [`Registry::update`].
    pub async fn upsert(&self, target: &Target, object: Value) -> Result<Written, ApiError> {
        let body = complete(target, object).to_string();
        let options = internal();
        let collection = Target::collection(&target.resource, target.namespace.clone());
        for _ in 0..ATTEMPTS {
            let result = match self.lookup(target) {
                Some(_) => self.update(target, None, body.as_bytes(), &options).await,
                None => self.create(&collection, body.as_bytes(), &options).await,
            };
            match result {
                Err(error) if error.code == 404 && self.lookup(target).is_none() && error_is_about(&error, target) => {}
                Err(error) if error.code == 409 => {}
                result => return result,
            }
        }
        Err(ApiError::server_timeout(&target.resource.info().group_resource, "update", 1))
    }

    /// Creates the object at `target` unless there is one.
    ///
    /// # Errors
    /// As [`Registry::create`].
    pub async fn ensure(&self, target: &Target, object: Value) -> Result<(), ApiError> {
        if self.lookup(target).is_some() {
            return Ok(());
        }
        let body = complete(target, object).to_string();
        let collection = Target::collection(&target.resource, target.namespace.clone());
        match self.create(&collection, body.as_bytes(), &internal()).await {
            Ok(_) => Ok(()),
            Err(error) if error.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A 404 may also be about the namespace, which will not come by trying again.
fn error_is_about(error: &ApiError, target: &Target) -> bool {
    let details = error.details.as_ref();
    details.is_some_and(|details| details.kind == target.resource.info().plural && details.name == target.name)
}

fn internal() -> WriteOptions {
    WriteOptions {
        field_validation: FieldValidation::Strict,
        field_manager: "coracle".into(),
        user: Arc::new(User::master("system:apiserver")),
        ..WriteOptions::default()
    }
}

fn complete(target: &Target, mut object: Value) -> Value {
    let info = target.resource.info();
    object["apiVersion"] = info.api_version.as_str().into();
    object["kind"] = info.kind.as_str().into();
    object["metadata"]["name"] = target.name.as_str().into();
    if !target.namespace.is_empty() {
        object["metadata"]["namespace"] = target.namespace.as_str().into();
    }
    object
}
