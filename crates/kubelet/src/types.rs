//! The data that the parts of the kubelet have in common; it knows none of them.

pub(crate) mod desired;
pub(crate) mod failure;
pub(crate) mod observed;
mod references;
pub(crate) mod waiting;

pub(crate) use references::References;
