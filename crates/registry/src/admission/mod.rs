//! Admission: what looks at a write between its defaults and its commit, changes it or refuses it. The chain is
//! upstream's, in upstream's order:
//!
//! | step | changes | refuses | where |
//! |---|---|---|---|
//! | NamespaceLifecycle | | new objects where the namespace is missing or going | `write.rs`, with the commit |
//! | LimitRanger | what containers ask for | what is outside the bounds | [`limits`] |
//! | ServiceAccount, Priority, DefaultTolerationSeconds | pods | | `kinds/pod/admission.rs` |
//! | DefaultStorageClass | claims | | `kinds/storage` |
//! | MutatingAdmissionWebhook | anything | anything | [`webhook`] |
//! | (validation) | | | the kind itself |
//! | LimitRanger, ValidatingAdmissionWebhook | | anything | [`limits`], [`webhook`] |
//! | ResourceQuota | | what there is no room for | [`quota`], charged with the commit |
//!
//! Which writes a webhook is about is decided by its rules and selectors ([`scope`]), then by its [`conditions`].

pub(crate) mod conditions;
pub(crate) mod limits;
pub(crate) mod quota;
pub(crate) mod scope;
pub(crate) mod webhook;

use machinery::status::ApiError;

use crate::Registry;
use crate::kind::Subresource;
use crate::ops::Object;
use crate::request::Target;
use crate::user::User;

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// A write that asks to be admitted.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) target: &'a Target,
    pub(crate) subresource: Option<Subresource>,
    pub(crate) operation: Operation,
    pub(crate) user: &'a User,
    pub(crate) dry_run: bool,
}

impl Asked<'_> {
    /// 403, about the object that is written.
    pub(crate) fn forbidden(&self, object: &dyn Object, why: impl std::fmt::Display) -> ApiError {
        let meta = object.meta();
        let name = meta.name.as_deref().or(meta.generate_name.as_deref()).unwrap_or(&self.target.name);
        ApiError::forbidden(&self.target.resource.info().group_resource, name, why)
    }
}

impl Registry {
    /// The first step that may change an object: before its kind prepares it, since that looks at what it asks for.
    pub(crate) fn limit(&self, asked: &Asked<'_>, object: &mut dyn Object, old: Option<&dyn Object>) {
        limits::mutate(self, asked, object, old);
    }

    /// The last ones: somebody else's. Whether they did, so that it is to be prepared once more.
    pub(crate) async fn mutate(
        &self,
        asked: &Asked<'_>,
        object: &mut Box<dyn Object>,
        old: Option<&dyn Object>,
        warnings: &mut Vec<String>,
    ) -> Result<bool, ApiError> {
        webhook::mutate(self, asked, object, old, warnings).await
    }

    /// The steps that may refuse one that is valid.
    pub(crate) async fn examine(
        &self,
        asked: &Asked<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        if let Some(object) = object {
            limits::validate(self, asked, object, old)?;
        }
        webhook::examine(self, asked, object, old, warnings).await
    }
}
