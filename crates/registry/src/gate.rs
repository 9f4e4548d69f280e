//! A last look at a write by who knows who may do what: rights must not grow by writing them down, and a node may
//! only write about itself.
//!
//! The registry asks; the answer is given by whoever was put there with [`Registry::set_gate`].

use std::sync::Arc;

use machinery::status::ApiError;

use crate::Registry;
use crate::kind::Subresource;
use crate::ops::Object;
use crate::request::Target;
use crate::user::User;

/// A write which is about to be committed. It has defaults, and it is valid.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// Who writes.
    pub user: &'a User,
    /// What is written; the name may be empty in a create.
    pub target: &'a Target,
    /// The subresource that is written.
    pub subresource: Option<Subresource>,
    /// The object as it will be; absent in a delete.
    pub new: Option<&'a dyn Object>,
    /// The object as it is; absent in a create.
    pub old: Option<&'a dyn Object>,
}

/// Refuses writes. Must answer from memory.
pub trait Gate: Send + Sync + 'static {
    /// Whether the write may go on.
    ///
    /// # Errors
    /// What the client is to be told when it may not.
    fn pass(&self, attempt: Attempt<'_>) -> Result<(), ApiError>;
}

impl Registry {
    /// Has every write looked at. What is set first stays.
    pub fn set_gate(&self, gate: Arc<dyn Gate>) {
        // The server sets it once, before anybody can ask.
        let _ = self.0.gate.set(gate);
    }

    pub(crate) fn pass_gate(&self, attempt: Attempt<'_>) -> Result<(), ApiError> {
        self.0.gate.get().map_or(Ok(()), |gate| gate.pass(attempt))
    }
}
