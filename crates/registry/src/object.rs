//! An object in flight, of whatever kind.

use std::any::Any;

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::status::ApiError;

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

/// The object as the type that its resource says it has.
///
/// # Errors
/// 500 when it is of another type: that is a mistake in the server, and nothing may be concluded from such an object.
pub fn cast<T: 'static>(object: &dyn Object) -> Result<&T, ApiError> {
    object.as_any().downcast_ref().ok_or_else(wrong_type::<T>)
}

/// As [`cast`], to be changed.
///
/// # Errors
/// As [`cast`].
pub fn cast_mut<T: 'static>(object: &mut dyn Object) -> Result<&mut T, ApiError> {
    object.as_any_mut().downcast_mut().ok_or_else(wrong_type::<T>)
}

/// As [`cast`], of an object that is no longer needed.
///
/// # Errors
/// As [`cast`].
pub fn cast_into<T: 'static>(object: Box<dyn Object>) -> Result<T, ApiError> {
    object.into_any().downcast().map(|object| *object).map_err(|_| wrong_type::<T>())
}

fn wrong_type<T>() -> ApiError {
    ApiError::internal(format!("an object in flight is no {}", std::any::type_name::<T>()))
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
