//! Admission: what looks at a request between its defaults and its commit, changes it or refuses it. The chain is
//! upstream's, in upstream's order:
//!
//! | step | changes | refuses | where |
//! |---|---|---|---|
//! | NamespaceLifecycle | | new objects where the namespace is missing or going | `write.rs`, with the commit |
//! | LimitRanger | what containers ask for | what is outside the bounds | [`limits`] |
//! | ServiceAccount, Priority, DefaultTolerationSeconds | pods | | `kinds/pod/admission.rs` |
//! | DefaultStorageClass | claims | | `kinds/storage` |
//! | MutatingAdmissionWebhook | anything | anything | [`webhook`] |
//! | (validation) | | | whoever calls [`Registry::admit`] |
//! | LimitRanger, ValidatingAdmissionWebhook | | anything | [`limits`], [`webhook`] |
//! | ResourceQuota | | what there is no room for | [`quota`], charged with the commit |
//!
//! # What passes it
//!
//! Every request that changes something or opens a connection goes through [`Registry::admit`], a DELETE through
//! [`Registry::admit_delete`]. Webhooks see what upstream's see:
//!
//! | request | operation | object |
//! |---|---|---|
//! | create, or an apply or PUT that creates | CREATE | the object |
//! | update, patch, apply; `status`, `finalize`, `resize`, `ephemeralcontainers` | UPDATE | the object |
//! | `scale` | UPDATE | a Scale, before and after; the workload itself is updated without further admission |
//! | `binding`, `eviction`, `token` | CREATE | a Binding, Eviction, TokenRequest ([`transient`]) |
//! | a review of `authentication.k8s.io` or `authorization.k8s.io` | CREATE | the review ([`transient`]) |
//! | `exec`, `attach`, `portforward`, `proxy` | CONNECT | the options of the request ([`connect`]) |
//! | delete, deletecollection | DELETE | the object as it is |
//!
//! Nothing sees reads (`log` and the GET of `scale` and `status` among them), what is about the configurations of admission
//! itself ([`scope::is_exempt`]), and what the server writes on its own account: the pod that a Binding or an Eviction is
//! about, the budget and quotas that are charged.
//!
//! Which requests a webhook is about is decided by its rules and selectors ([`scope`]), then by its [`conditions`].

pub(crate) mod conditions;
pub(crate) mod connect;
pub(crate) mod limits;
pub(crate) mod quota;
pub(crate) mod scope;
pub(crate) mod transient;
pub(crate) mod webhook;

use machinery::gvk::GroupVersionKind;
use machinery::status::ApiError;
use serde_json::Value;

use crate::Registry;
use crate::decode::Report;
use crate::kind::Subresource;
use crate::ops::Object;
use crate::request::Target;
use crate::table::{Resource, ResourceInfo};
use crate::user::User;

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// How the objects of an admission become JSON for a webhook, and come back from it.
pub(crate) trait Codec: Sync {
    /// The object as it is served.
    ///
    /// # Errors
    /// When it has no JSON form.
    fn encode(&self, object: &dyn Object) -> Result<Value, ApiError>;

    /// The object that a webhook has made of it, with its defaults.
    ///
    /// # Errors
    /// When it is none of its kind.
    fn decode(&self, patched: &[u8]) -> Result<Box<dyn Object>, ApiError>;
}

/// The objects of a resource themselves.
impl Codec for Resource {
    fn encode(&self, object: &dyn Object) -> Result<Value, ApiError> {
        let served = self.encode_served(object)?;
        serde_json::from_slice(&served).map_err(ApiError::internal)
    }

    fn decode(&self, patched: &[u8]) -> Result<Box<dyn Object>, ApiError> {
        let mut object = self.as_ref().decode(patched, &mut Report::ignore()).map_err(ApiError::internal)?;
        self.strategy().default(object.as_mut())?;
        object.meta_mut().managed_fields = None;
        Ok(object)
    }
}

/// A request that asks to be admitted: upstream's `admission.Attributes` but for its objects.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a> {
    /// The resource of the path.
    pub(crate) info: &'a ResourceInfo,
    /// Its namespace; empty for cluster scope.
    pub(crate) namespace: &'a str,
    /// The name of the path; empty for a create.
    pub(crate) name: &'a str,
    /// The subresource of the path.
    pub(crate) subresource: Option<Subresource>,
    pub(crate) operation: Operation,
    pub(crate) user: &'a User,
    pub(crate) dry_run: bool,
    /// What its objects are.
    pub(crate) codec: &'a dyn Codec,
}

impl<'a> Attributes<'a> {
    /// A request about an object of `target`'s resource, or all of it that a subresource shows.
    pub(crate) fn new(
        target: &'a Target,
        subresource: Option<Subresource>,
        operation: Operation,
        user: &'a User,
        dry_run: bool,
    ) -> Self {
        let Target { resource, namespace, name } = target;
        Self { info: resource.info(), namespace, name, subresource, operation, user, dry_run, codec: resource }
    }

    /// The kind of its objects: that of the resource, unless the subresource takes another.
    pub(crate) fn kind(&self) -> GroupVersionKind {
        match self.subresource.and_then(|subresource| subresource.kind(&self.info.kind)) {
            Some((group, version, kind)) => GroupVersionKind::new(group, version, kind),
            None => self.info.group_version_kind(),
        }
    }

    /// The name of the object: that of the path, or the one it is to have.
    pub(crate) fn object_name<'o>(&'o self, object: Option<&'o dyn Object>) -> &'o str {
        if !self.name.is_empty() {
            return self.name;
        }
        object.and_then(|object| object.meta().name.as_deref()).unwrap_or_default()
    }

    /// 403, about the object that is written.
    pub(crate) fn forbidden(&self, object: &dyn Object, why: impl std::fmt::Display) -> ApiError {
        let meta = object.meta();
        let name = meta.name.as_deref().or(meta.generate_name.as_deref()).unwrap_or(self.name);
        ApiError::forbidden(&self.info.group_resource, name, why)
    }
}

impl Registry {
    /// The first step that may change an object: before its kind prepares it, since that looks at what it asks for.
    pub(crate) fn limit(&self, attributes: &Attributes<'_>, object: &mut dyn Object, old: Option<&dyn Object>) {
        limits::mutate(self, attributes, object, old);
    }

    /// Admits a request that brings an object: the mutating webhooks change it, `validate` checks what has become of it
    /// (and is told whether they did), and then comes whoever may only refuse. Answers with what `validate` makes.
    ///
    /// # Errors
    /// Whatever refuses the request, and that of `validate`.
    pub(crate) async fn admit<R: Send>(
        &self,
        attributes: &Attributes<'_>,
        object: &mut Box<dyn Object>,
        old: Option<&dyn Object>,
        warnings: &mut Vec<String>,
        validate: impl FnOnce(&mut dyn Object, bool, &mut Vec<String>) -> Result<R, ApiError> + Send,
    ) -> Result<R, ApiError> {
        let changed = webhook::mutate(self, attributes, Some(object), old, warnings).await?;
        let validated = validate(object.as_mut(), changed, warnings)?;
        limits::validate(self, attributes, object.as_ref(), old)?;
        webhook::validate(self, attributes, Some(object.as_ref()), old, warnings).await?;
        Ok(validated)
    }

    /// Admits a DELETE of `old`.
    ///
    /// # Errors
    /// Whatever refuses it.
    pub(crate) async fn admit_delete(
        &self,
        attributes: &Attributes<'_>,
        old: &dyn Object,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        webhook::mutate(self, attributes, None, Some(old), warnings).await?;
        webhook::validate(self, attributes, None, Some(old), warnings).await
    }
}
