//! From a container of the specification to what the runtime is asked for.

pub(crate) mod env;
mod error;
pub(crate) mod files;
pub(crate) mod make;
pub(crate) mod sandbox;
mod security;
pub(crate) mod services;
