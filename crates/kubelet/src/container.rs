//! From a container of the specification to what the runtime is asked for.

pub(crate) mod env;
mod error;
mod expand;
pub(crate) mod fields;
pub(crate) mod files;
pub(crate) mod make;
pub(crate) mod resources;
pub(crate) mod sandbox;
mod security;
pub(crate) mod services;

pub(crate) use env::References;
pub(crate) use expand::expand;
