//! Step 6: the last look at a write by who knows who may do what: rights must not grow by being written down
//! (`pkg/registry/rbac/clusterrole/policybased/storage.go`).

use machinery::Verb;
use machinery::status::ApiError;

use super::{Proposed, Write};
use crate::kind::Subresource;
use crate::object::Object;
use crate::request::Target;
use crate::user::User;

/// A write which is about to be committed: it has defaults, and it is valid.
#[derive(Clone, Copy)]
pub struct WriteAttributes<'a> {
    /// Who writes.
    pub user: &'a User,
    /// What is written; the name may be empty in a create.
    pub target: &'a Target,
    /// The subresource that is written.
    pub subresource: Option<Subresource>,
    /// The object as it will be, or what a Binding, Eviction or TokenRequest says; absent in a delete.
    pub new: Option<&'a dyn Object>,
    /// The object as it is; absent in a create.
    pub old: Option<&'a dyn Object>,
}

/// A right to objects of the API: upstream's `authorizer.AttributesRecord`, but for the user.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// What may be done.
    pub verb: Verb<'a>,
    /// API group, empty for the core group.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Plural name.
    pub resource: &'a str,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// Namespace; empty for cluster scope.
    pub namespace: &'a str,
    /// Name of the object.
    pub name: &'a str,
}

/// Refuses writes by which somebody would get more rights than they have. Must answer from memory.
pub trait EscalationCheck: Send + Sync + 'static {
    /// Whether the write may go on.
    ///
    /// # Errors
    /// What the client is to be told when it may not.
    fn check(&self, write: &WriteAttributes<'_>) -> Result<(), ApiError>;

    /// Whether the user has a right, which a write that they may do needs besides.
    ///
    /// # Errors
    /// Why not; may be empty.
    fn may(&self, user: &User, access: &Access<'_>) -> Result<(), String>;

    /// The same of a path that is no object.
    ///
    /// # Errors
    /// Why not; may be empty.
    fn may_reach(&self, user: &User, verb: Verb<'_>, path: &str) -> Result<(), String>;
}

/// Asks the [`EscalationCheck`].
pub(super) fn run(write: &Write<'_>, proposed: &Proposed, old: Option<&dyn Object>) -> Result<(), ApiError> {
    write.attributes.registry.0.escalation.check(&WriteAttributes {
        user: write.attributes.user,
        target: write.target()?,
        subresource: write.subresource(),
        new: proposed.object.as_deref(),
        old,
    })
}
