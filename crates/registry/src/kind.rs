//! What a kind brings along: its row in the resource table and the hooks the write path calls.
//!
//! A built-in kind is a zero-sized type in a file of its own in the crate `kinds` which implements [`Kind`]. The write
//! path never names a kind: it works on the erased [`ResourceOps`](crate::ops::ResourceOps), to which
//! [`Typed`](crate::ops::Typed) adapts every `Kind`.
//!
//! # When which hook runs
//!
//! | write | hooks, in order |
//! |---|---|
//! | create | `default` → `prepare_create` → `validate` and `validate_create` → `allocate(new, None)` → commit |
//! | update, patch | `default` → `prepare_update` → `validate` and `validate_update` → `allocate(new, Some(old))` → commit |
//! | `/status` | `default` → `prepare_status`, `prepare_conditions` → `validate_status` → commit |
//! | `/finalize`, `/approval`, ... | `default` → `prepare_subresource`, `prepare_conditions` → `validate_subresource` → commit |
//! | `/scale` | `scale`, `set_scale`, then as an update; what is admitted is the Scale |
//! | delete | `undeletable`, `grace_period`, `mark_deleted`, `has_other_finalizers`; once the object is gone: `release` |
//!
//! Hooks are synchronous and have no clock: the time of the write is in the [`Context`].

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::field::ErrorList;
use machinery::status::ApiError;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use store::Store;

use crate::allocate::Allocators;
use crate::component_health::ComponentHealth;
use crate::user::User;

pub use crate::column::{Column, cell_age, cell_name};
pub use crate::descriptor::{Descriptor, MetadataReset, NameRule, Scope, Subresource};

/// A built-in kind of the API: a type without data, whose hooks say how the write path treats its objects.
///
/// Every hook but the first few has a default which is right for the simplest kinds (a ConfigMap needs little more
/// than its descriptor, `validate` and its columns).
pub trait Kind: Send + Sync + Sized + 'static {
    /// The type an object of this kind decodes to.
    type Object: k8s_openapi::Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + schemars::JsonSchema
        + Clone
        + Send
        + Sync
        + 'static;

    /// The row in the resource table.
    const DESCRIPTOR: Descriptor;

    /// Sets what the client left out, as upstream's defaulting does. Runs on create and on every update, before
    /// anything else sees the object; must be idempotent.
    fn default(_object: &mut Self::Object) {}

    /// Makes a decoded object one that can be created: status dropped, `metadata.generation` set to 1 where the kind
    /// counts generations. Runs again on an object that admission has changed. The metadata every kind has in common (uid, creationTimestamp, generateName,
    /// namespace) is already in place; `metadata.generation` is `None`.
    fn prepare_create(_object: &mut Self::Object, _context: &Context<'_>) {}

    /// Makes a decoded object one that can replace `old`: status taken from `old`, and `metadata.generation` raised
    /// by one when the spec changed ([`bump_generation`] does that). It arrives with the generation of `old`.
    fn prepare_update(_new: &mut Self::Object, _old: &Self::Object) {}

    /// Makes a decoded object a write to `/status`: all but the status and the metadata is taken from `old`. What of the
    /// metadata is, [`Descriptor::status_reset`] says.
    fn prepare_status(_new: &mut Self::Object, _old: &Self::Object) {}

    /// As [`Kind::prepare_status`], for the other subresources that take the whole object: `finalize` of a Namespace
    /// keeps all but `spec.finalizers`, `resize` and `ephemeralcontainers` of a Pod all but what they are for. The metadata
    /// is taken care of by [`ResourceInfo::metadata_reset`](crate::ResourceInfo::metadata_reset).
    fn prepare_subresource(_subresource: Subresource, _new: &mut Self::Object, _old: &Self::Object) {}

    /// Sets the times that the writer of a status left out of its conditions, where that is the server's affair (upstream:
    /// `populateConditionTimestamps` of CertificateSigningRequests). `now` is the time of the write.
    fn prepare_conditions(_new: &mut Self::Object, _old: &Self::Object, _now: Timestamp) {}

    /// What is wrong with an object about to be stored, beyond its metadata, which is validated for all kinds alike.
    /// Runs on create and, before [`Kind::validate_update`], on update.
    fn validate(object: &Self::Object) -> ErrorList;

    /// What is wrong with a new object in addition, that an update may bring about.
    fn validate_create(_object: &Self::Object) -> ErrorList {
        ErrorList::default()
    }

    /// As [`Kind::validate`], on update: for kinds of which a part that `old` has as well may stay as it is, although it would
    /// not be accepted any more.
    fn validate_kept(new: &Self::Object, _old: &Self::Object) -> ErrorList {
        Self::validate(new)
    }

    /// Whether an update leaves alone all that [`Kind::validate`] is about, so that it need not run again. For kinds where
    /// that takes long, or may find wrong what was stored when it was not known to be.
    fn is_settled(_new: &Self::Object, _old: &Self::Object) -> bool {
        false
    }

    /// What is wrong with the step from `old` to `new`: immutable fields, illegal transitions. Runs in addition to
    /// [`Kind::validate`].
    fn validate_update(_new: &Self::Object, _old: &Self::Object) -> ErrorList {
        ErrorList::default()
    }

    /// What is wrong with a write to one of the subresources of [`Kind::prepare_subresource`]. [`Kind::validate`] does not
    /// run for these.
    fn validate_subresource(_subresource: Subresource, new: &Self::Object, old: &Self::Object) -> ErrorList {
        Self::validate_update(new, old)
    }

    /// What is wrong with a write to `/status`. [`Kind::validate`] does not run for these.
    fn validate_status(_new: &Self::Object, _old: &Self::Object) -> ErrorList {
        ErrorList::default()
    }

    /// Things worth telling the client which do not refuse the write; sent as `Warning` headers.
    fn warnings(_new: &Self::Object, _old: Option<&Self::Object>) -> Vec<String> {
        Vec::new()
    }

    /// Takes what is shared by the whole cluster and must not be handed out twice: cluster IPs, node ports. Runs last
    /// before the commit, on an object which is already valid, and may write what it allocated into it. What the
    /// [`Reservation`] says happens when the fate of the write is known; a dry run always abandons it.
    ///
    /// # Errors
    /// Whatever the client is to be told when nothing suitable is free.
    fn allocate(
        _new: &mut Self::Object,
        _old: Option<&Self::Object>,
        _context: &Context<'_>,
    ) -> Result<Reservation, ApiError> {
        Ok(Reservation::none())
    }

    /// As [`Kind::allocate`], for a write to `/status`: what a controller gives an object may also be had once only.
    ///
    /// # Errors
    /// Whatever the client is to be told when what it gives is not free.
    fn allocate_status(
        _new: &mut Self::Object,
        _old: &Self::Object,
        _context: &Context<'_>,
    ) -> Result<Reservation, ApiError> {
        Ok(Reservation::none())
    }

    /// Marks as taken what a stored object holds. Runs for every object when the registry opens.
    fn occupy(_object: &Self::Object, _allocators: &Allocators) {}

    /// Gives back what an object held; runs once it is gone from the store.
    fn release(_object: &Self::Object, _allocators: &Allocators) {}

    /// The objects of a kind whose objects are never stored ([`Descriptor::computed`]), made of what the components of this
    /// process say of themselves.
    fn compute(_components: &[ComponentHealth]) -> Vec<Self::Object> {
        Vec::new()
    }

    /// The values of [`Descriptor::selectable`], in that order; `""` where the object has none.
    fn fields(_object: &Self::Object) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The columns of the Table representation, upstream's, those of `-o wide` with priority 1.
    fn columns() -> Vec<Column> {
        vec![Column::name(), Column::age()]
    }

    /// The cells of one object, as many as there are [`Kind::columns`]; `now` is what ages are counted from.
    fn row(object: &Self::Object, now: Timestamp) -> Vec<Value> {
        use k8s_openapi::Metadata;
        vec![cell_name(object.metadata()), cell_age(object.metadata(), now)]
    }

    /// The object seen through its `scale` subresource; `None` where the kind has none.
    fn scale(_object: &Self::Object) -> Option<ScaleView> {
        None
    }

    /// Sets the desired number of replicas; called only for kinds whose [`Kind::scale`] answers.
    fn set_scale(_object: &mut Self::Object, _replicas: i32) {}

    /// Why an object may never be deleted (the namespaces `default`, `kube-system` and `kube-public`: upstream's words
    /// are `this namespace may not be deleted`), as the end of a 403.
    fn undeletable(_object: &Self::Object) -> Option<&'static str> {
        None
    }

    /// How long, in seconds, an object stays after a DELETE so that somebody can end it in good order. `None`: the
    /// kind knows no graceful deletion (all but Pods). `Some(0)`: it goes at once. `requested` is what the client
    /// asked for, never negative.
    fn grace_period(_object: &Self::Object, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Notes in the object itself that it is being deleted (a Namespace becomes `Terminating`). Runs when
    /// `metadata.deletionTimestamp` has just been set.
    fn mark_deleted(_object: &mut Self::Object) {}

    /// Whether something besides `metadata.finalizers` keeps a deleted object (a Namespace: `spec.finalizers`).
    fn has_other_finalizers(_object: &Self::Object) -> bool {
        false
    }
}

/// The preparing hooks of a kind whose `spec` is its user's and whose `status` is its controller's: a new object has an
/// empty status and the first generation, an update keeps the status and counts the changes of the spec, a write to
/// `/status` keeps the spec.
#[macro_export]
macro_rules! spec_and_status {
    () => {
        fn prepare_create(object: &mut Self::Object, _context: &$crate::kind::Context<'_>) {
            object.status = Some(Default::default());
            object.metadata.generation = Some(1);
        }

        fn prepare_update(new: &mut Self::Object, old: &Self::Object) {
            new.status.clone_from(&old.status);
            let changed = new.spec != old.spec;
            $crate::kind::bump_generation(&mut new.metadata, changed);
        }

        fn prepare_status(new: &mut Self::Object, old: &Self::Object) {
            new.spec.clone_from(&old.spec);
        }
    };
}
pub use spec_and_status;

/// The preparing hooks of a kind without a status, of which one field is its user's: a new object has the first generation, an
/// update counts the changes of that field.
#[macro_export]
macro_rules! generation_of {
    ($field:ident) => {
        fn prepare_create(object: &mut Self::Object, _context: &$crate::kind::Context<'_>) {
            object.metadata.generation = Some(1);
        }

        fn prepare_update(new: &mut Self::Object, old: &Self::Object) {
            let changed = new.$field != old.$field;
            $crate::kind::bump_generation(&mut new.metadata, changed);
        }
    };
}
pub use generation_of;

/// The preparing hooks for changes of a kind that has no generation: an update keeps the status, a write to `/status` the spec.
#[macro_export]
macro_rules! status_apart {
    () => {
        fn prepare_update(new: &mut Self::Object, old: &Self::Object) {
            new.status.clone_from(&old.status);
        }

        fn prepare_status(new: &mut Self::Object, old: &Self::Object) {
            new.spec.clone_from(&old.spec);
        }
    };
}
pub use status_apart;

/// A second group-version under which the objects of another kind are served, from the same storage.
///
/// Events are the case: stored as `v1`, served as `v1` and as `events.k8s.io/v1`. Defaults, validation, columns and
/// everything else are those of the stored kind; only the shape on the wire differs.
pub trait AlternateVersion: Send + Sync + Sized + 'static {
    /// The kind the objects are stored as.
    type Stored: Kind;

    /// The type an object decodes to under this group and version.
    type Object: k8s_openapi::Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + schemars::JsonSchema
        + Clone
        + Send
        + Sync
        + 'static;

    /// The row in the resource table; its `storage` is that of the stored kind.
    const DESCRIPTOR: Descriptor;

    /// From the wire to the store.
    fn to_stored(object: Self::Object) -> <Self::Stored as Kind>::Object;

    /// From the store to the wire.
    fn from_stored(object: <Self::Stored as Kind>::Object) -> Self::Object;

    /// Columns of the Table representation, which upstream has per group.
    fn columns() -> Vec<Column> {
        Self::Stored::columns()
    }

    /// The cells of one object.
    fn row(object: &<Self::Stored as Kind>::Object, now: Timestamp) -> Vec<Value> {
        Self::Stored::row(object, now)
    }

    /// The names of the fields of [`Kind::fields`] as this group calls them: pairs of (served, stored).
    const FIELD_LABELS: &'static [(&'static str, &'static str)] = &[];
}

/// What a hook may know about the write it takes part in.
pub struct Context<'a> {
    /// The time of the write.
    pub now: Timestamp,
    /// Who writes.
    pub user: &'a User,
    /// Namespace of the request; empty for cluster scope.
    pub namespace: &'a str,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// Cluster IPs and node ports.
    pub allocators: &'a Allocators,
    /// The stored objects, for the rare hook that looks at another kind.
    pub store: &'a Store,
}

/// Something taken for a write that may still fail. Dropped without [`Reservation::committed`] it is given back.
#[derive(Default)]
#[must_use]
pub struct Reservation {
    commit: Option<Box<dyn FnOnce() + Send>>,
    abandon: Option<Box<dyn FnOnce() + Send>>,
}

impl Reservation {
    /// Nothing was taken.
    pub fn none() -> Self {
        Self::default()
    }

    /// `commit` runs when the write is stored (it gives back what the old object held and the new one does not);
    /// `abandon` when it is not (it gives back what was taken for it).
    pub fn new(commit: impl FnOnce() + Send + 'static, abandon: impl FnOnce() + Send + 'static) -> Self {
        Self { commit: Some(Box::new(commit)), abandon: Some(Box::new(abandon)) }
    }

    /// The write is stored.
    pub fn committed(mut self) {
        self.abandon = None;
        if let Some(commit) = self.commit.take() {
            commit();
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(abandon) = self.abandon.take() {
            abandon();
        }
    }
}

/// A workload seen through `scale`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScaleView {
    /// `spec.replicas`.
    pub replicas: i32,
    /// `status.replicas`.
    pub current: i32,
    /// The label selector in its string form, for `status.selector`; empty when there is none.
    pub selector: String,
}

/// Raises the generation by one when `changed`: for [`Kind::prepare_update`], with the comparison of the specs.
pub fn bump_generation(meta: &mut ObjectMeta, changed: bool) {
    if changed {
        meta.generation = Some(meta.generation.unwrap_or_default().saturating_add(1));
    }
}
