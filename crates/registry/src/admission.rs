//! Admission: the plugins that look at a request between its defaults and its commit, change it or refuse it.
//!
//! The chain is given to the registry ([`Dependencies`](crate::Dependencies)); the plugins here are those that know no kind.
//! Each has three halves, of which most plugins need one: `admit` may change the object (step 4 of the
//! `pipeline`), `validate` may only refuse it (step 6), `charge` says what must be committed together
//! with it (step 7).
//!
//! # What passes it
//!
//! Every request that changes something or opens a connection. Webhooks see what upstream's see:
//!
//! | request | operation | object |
//! |---|---|---|
//! | create, or an apply or PUT that creates | CREATE | the object |
//! | update, patch, apply; `status`, `approval`, `finalize`, `resize`, `ephemeralcontainers` | UPDATE | the object |
//! | `scale` | UPDATE | a Scale, before and after |
//! | `binding`, `eviction`, `token` | CREATE | a Binding, Eviction, TokenRequest (`transient`) |
//! | a review of `authentication.k8s.io` or `authorization.k8s.io` | CREATE | the review (`transient`) |
//! | `exec`, `attach`, `portforward`, `proxy` | CONNECT | the options of the request (`connect`) |
//! | delete, deletecollection | DELETE | the object as it is |
//!
//! Nothing sees reads (`log` and the GET of `scale` and `status` among them), and what the server writes on its own account:
//! the pod that a Binding or an Eviction is about, the budget and quotas that are charged. Webhooks do not see the
//! configurations of admission itself (`scope::is_exempt`); policies see those of webhooks, and neither themselves nor reviews.
//!
//! Which requests a webhook or a `policy` is about is decided by its rules and selectors (`scope`), then by its `conditions`. When
//! one of them changes the object, all plugins see it once more (`reinvocation`).

pub(crate) mod conditions;
pub(crate) mod connect;
mod mutating_admission;
mod mutating_admission_policy;
mod namespace_lifecycle;
pub(crate) mod policy;
pub(crate) mod reinvocation;
pub(crate) mod resource_quota;
pub(crate) mod scope;
pub(crate) mod transient;
mod validating_admission;
mod validating_admission_policy;
pub(crate) mod webhook;

use std::collections::BTreeMap;

use async_trait::async_trait;
use machinery::gvk::GroupVersionKind;
use machinery::status::ApiError;
use serde::de::DeserializeOwned;
use serde_json::Value;
use store::{Entry, Key, Op};

use crate::decode::Report;
use crate::kind::Subresource;
use crate::object::{Object, cast, cast_mut};
use crate::table::{Resource, ResourceInfo};
use crate::user::User;
use crate::{Access, Registry};

pub use conditions::check_conditions;
pub use mutating_admission::MutatingAdmissionWebhook;
pub use mutating_admission_policy::MutatingAdmissionPolicy;
pub use namespace_lifecycle::NamespaceLifecycle;
pub use reinvocation::Reinvocation;
pub use resource_quota::ResourceQuota;
pub use validating_admission::ValidatingAdmissionWebhook;
pub use validating_admission_policy::ValidatingAdmissionPolicy;
pub use webhook::as_mutating;

/// A plugin of admission: upstream's `admission.MutationInterface` and `ValidationInterface`.
#[async_trait]
pub trait AdmissionPlugin: Sync {
    /// Upstream's name of it, as `--enable-admission-plugins` has it.
    fn name(&self) -> &'static str;

    /// Whether the request is any of its business. If not, nothing below is called.
    fn handles(&self, attributes: &Attributes<'_>) -> bool;

    /// Whether it runs what users configure: then the object is prepared again before it, and all plugins run once more when it
    /// has changed the object ([`Reinvocation`]).
    fn reinvokes(&self) -> bool {
        false
    }

    /// Changes the object, which is absent in a DELETE, or refuses the request. Answers whether it changed it. May be called
    /// again for an object it has changed before.
    ///
    /// # Errors
    /// What the client is told when the request is refused.
    async fn admit(
        &self,
        _attributes: &Attributes<'_>,
        _object: Option<&mut Box<dyn Object>>,
        _warnings: &mut Vec<String>,
    ) -> Result<bool, ApiError> {
        Ok(false)
    }

    /// As [`admit`](AdmissionPlugin::admit), with what is known of the plugins that [reinvoke](AdmissionPlugin::reinvokes) others.
    ///
    /// # Errors
    /// As `admit`.
    async fn admit_again(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Box<dyn Object>>,
        warnings: &mut Vec<String>,
        _reinvocation: &mut Reinvocation,
    ) -> Result<bool, ApiError> {
        self.admit(attributes, object, warnings).await
    }

    /// Refuses the request, or lets it pass.
    ///
    /// # Errors
    /// What the client is told when the request is refused.
    async fn validate(
        &self,
        _attributes: &Attributes<'_>,
        _object: Option<&dyn Object>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    /// What must be true, or be written, in the commit of the object, which is absent when it is removed.
    ///
    /// # Errors
    /// What the client is told when there is no room for it.
    fn charge(&self, _attributes: &Attributes<'_>, _object: Option<&dyn Object>) -> Result<Vec<Op>, ApiError> {
        Ok(Vec::new())
    }
}

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// An object, or what a subresource takes, is created.
    Create,
    /// An object is changed.
    Update,
    /// An object is deleted.
    Delete,
    /// A connection is opened.
    Connect,
}

impl Operation {
    /// Its name in a review.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// How the objects of an admission become JSON for a webhook, and come back from it.
pub trait Codec: Sync {
    /// The object as webhooks see it.
    ///
    /// # Errors
    /// When it has no JSON form.
    fn encode(&self, object: &dyn Object) -> Result<Value, ApiError>;

    /// What the `current` object becomes by what a webhook has made of it, with its defaults.
    ///
    /// # Errors
    /// When it is none of its kind.
    fn decode(&self, patched: &[u8], current: &dyn Object) -> Result<Box<dyn Object>, ApiError>;

    /// The labels of the object as webhooks see it.
    fn labels<'o>(&self, object: &'o dyn Object) -> Option<&'o BTreeMap<String, String>> {
        object.meta().labels.as_ref()
    }
}

/// The objects of a resource themselves.
impl Codec for Resource {
    fn encode(&self, object: &dyn Object) -> Result<Value, ApiError> {
        let served = self.encode_served(object)?;
        serde_json::from_slice(&served).map_err(ApiError::internal)
    }

    fn decode(&self, patched: &[u8], _current: &dyn Object) -> Result<Box<dyn Object>, ApiError> {
        let mut object = self.as_ref().decode(patched, &mut Report::ignore()).map_err(ApiError::internal)?;
        self.strategy().default(object.as_mut())?;
        object.meta_mut().managed_fields = None;
        Ok(object)
    }
}

/// A request that asks to be admitted: upstream's `admission.Attributes` but for its object, which changes on the way.
#[derive(Clone, Copy)]
pub struct Attributes<'a> {
    /// Where other objects are found.
    pub registry: &'a Registry,
    /// The resource of the path.
    pub info: &'a ResourceInfo,
    /// Its namespace; empty for cluster scope.
    pub namespace: &'a str,
    /// The name of the path; may be empty for a create.
    pub name: &'a str,
    /// The subresource of the path.
    pub subresource: Option<Subresource>,
    /// What is done.
    pub operation: Operation,
    /// Who asks.
    pub user: &'a User,
    /// Whether nothing is to be written.
    pub dry_run: bool,
    /// What its objects are.
    pub codec: &'a dyn Codec,
    /// The object as it is stored; absent in a create.
    pub old: Option<&'a dyn Object>,
}

impl Attributes<'_> {
    /// The kind of its objects: that of the resource, unless the subresource takes another.
    #[must_use]
    pub fn kind(&self) -> GroupVersionKind {
        match self.subresource.and_then(|subresource| subresource.kind(&self.info.kind)) {
            Some((group, version, kind)) => GroupVersionKind::new(group, version, kind),
            None => self.info.group_version_kind(),
        }
    }

    /// The name of the object: that of the path, or the one it is to have.
    #[must_use]
    pub fn object_name<'o>(&'o self, object: Option<&'o dyn Object>) -> &'o str {
        if !self.name.is_empty() {
            return self.name;
        }
        object.and_then(|object| object.meta().name.as_deref()).unwrap_or_default()
    }

    /// The namespace of the request. Upstream: one about a Namespace is within that (`pkg/endpoints/request/requestinfo.go`).
    #[must_use]
    pub fn request_namespace<'o>(&'o self, object: Option<&'o dyn Object>) -> &'o str {
        if &*self.info.storage == NAMESPACES { self.object_name(object.or(self.old)) } else { self.namespace }
    }

    /// 403, about the object that is written.
    #[must_use]
    pub fn forbidden(&self, object: &dyn Object, why: impl std::fmt::Display) -> ApiError {
        let meta = object.meta();
        let name = meta.name.as_deref().or(meta.generate_name.as_deref()).unwrap_or(self.name);
        ApiError::forbidden(&self.info.group_resource, name, why)
    }

    /// Whether a whole object that is stored there is created.
    #[must_use]
    pub fn creates(&self, storage: &str) -> bool {
        self.operation == Operation::Create && self.is_whole(storage)
    }

    /// Whether a whole object that is stored there is updated.
    #[must_use]
    pub fn updates(&self, storage: &str) -> bool {
        self.operation == Operation::Update && self.is_whole(storage)
    }

    /// Whether a whole object that is stored there is asked for.
    #[must_use]
    pub fn is_whole(&self, storage: &str) -> bool {
        self.subresource.is_none() && &*self.info.storage == storage
    }

    /// Whether the user has a right besides the one to this request.
    ///
    /// # Errors
    /// Why not; may be empty.
    pub fn may(&self, access: &Access<'_>) -> Result<(), String> {
        self.registry.0.escalation.may(self.user, access)
    }

    /// Another object, as it is stored.
    ///
    /// # Errors
    /// As [`decode_stored`].
    pub fn stored<T: DeserializeOwned>(
        &self,
        storage: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<T>, ApiError> {
        let entry = self.registry.store().get(&Key::new(storage, namespace, name));
        entry.map(|entry| decode_stored(&entry, &entry.value)).transpose()
    }

    /// All objects that are stored there, of whatever namespace.
    ///
    /// # Errors
    /// As [`decode_stored`].
    pub fn all_stored<T: DeserializeOwned>(&self, storage: &str) -> Result<Vec<T>, ApiError> {
        let snapshot = self.registry.store().snapshot(storage);
        snapshot.iter().map(|entry| decode_stored(entry, &entry.value)).collect()
    }
}

/// An object that admission asks for, from its entry in the store and its JSON there, or a part of that. What it would have said
/// nobody knows, so that whatever depends on it is refused.
///
/// # Errors
/// 500, which names the object, when it cannot be decoded.
pub fn decode_stored<T: DeserializeOwned>(entry: &Entry, json: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(json)
        .map_err(|error| ApiError::internal(format!("cannot decode the stored object {}: {error}", entry.key)))
}

/// The resource part of the store's keys of namespaces.
const NAMESPACES: &str = "core/namespaces";
/// The resource part of the store's keys of pods.
pub const PODS: &str = "core/pods";
/// The resource part of the store's keys of claims.
pub const CLAIMS: &str = "core/persistentvolumeclaims";

/// The object of the request, which is of that type.
///
/// # Errors
/// An internal error when there is none, or it is of another.
pub fn object_of<T: 'static>(object: Option<&dyn Object>) -> Result<&T, ApiError> {
    cast(object.ok_or_else(no_object)?)
}

/// As [`object_of`], to be changed.
///
/// # Errors
/// As [`object_of`].
pub fn object_of_mut<T: 'static>(object: Option<&mut Box<dyn Object>>) -> Result<&mut T, ApiError> {
    cast_mut(object.ok_or_else(no_object)?.as_mut())
}

/// The internal error of a plugin whose request brings no object.
#[must_use]
pub fn no_object() -> ApiError {
    ApiError::internal("the request brings no object")
}
