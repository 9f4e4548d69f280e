//! What a caller asks of the registry, and what it answers.
//!
//! The API server makes these from paths, query parameters and bodies; components inside the process make them by
//! hand. Nothing here knows HTTP.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use machinery::field::{ErrorList, FieldError, Path};
use machinery::gvk::{GroupKind, GroupVersion};
use machinery::selector::{FieldSelector, LabelSelector};
use machinery::status::ApiError;
use store::{Entry, Revision};

use crate::decode;
use crate::table::Resource;
use crate::user::User;

/// The object, or with an empty name the collection, a request is about.
#[derive(Clone)]
pub struct Target {
    /// Its resource.
    pub resource: Resource,
    /// Its namespace; empty for cluster scope, and for a list or watch across all namespaces.
    pub namespace: String,
    /// Its name; empty for a collection.
    pub name: String,
}

impl Target {
    /// An object.
    pub fn object(resource: &Resource, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { resource: Arc::clone(resource), namespace: namespace.into(), name: name.into() }
    }

    /// All objects of a namespace, or of all namespaces.
    pub fn collection(resource: &Resource, namespace: impl Into<String>) -> Self {
        Self::object(resource, namespace, "")
    }
}

/// What is done about unknown and duplicate fields: the query parameter `fieldValidation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// They are dropped without a word.
    Ignore,
    /// They are dropped and the client is warned.
    #[default]
    Warn,
    /// The request is refused.
    Strict,
}

impl FieldValidation {
    /// Reads the query parameter of a request with such `options`; the empty string is the default.
    ///
    /// # Errors
    /// 422 for an unknown word, as upstream answers.
    pub fn parse(text: &str, options: &'static str) -> Result<Self, ApiError> {
        match text {
            "" | "Warn" => Ok(Self::Warn),
            "Ignore" => Ok(Self::Ignore),
            "Strict" => Ok(Self::Strict),
            other => Err(invalid_options(
                options,
                FieldError::not_supported(&Path::new("fieldValidation"), other, &["", "Ignore", "Strict", "Warn"]),
            )),
        }
    }
}

/// What is true of every kind of write.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Do everything but store the result.
    pub dry_run: bool,
    /// What to do about unknown and duplicate fields.
    pub field_validation: FieldValidation,
    /// Who claims the fields, for `managedFields`.
    pub field_manager: String,
    /// An apply takes fields from whoever owns them.
    pub force: bool,
    /// Who writes.
    pub user: Arc<User>,
}

/// The kinds of patch the registry applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`, RFC 6902.
    Json,
    /// `application/merge-patch+json`, RFC 7386.
    Merge,
    /// `application/strategic-merge-patch+json`, built-in kinds only.
    Strategic,
    /// `application/apply-patch+yaml`, server-side apply; as JSON by the time the registry sees it.
    Apply,
}

impl PatchType {
    /// The media types of patches, as a 415 lists them.
    pub const MEDIA_TYPES: [&'static str; 4] = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];

    /// 415: a custom resource has no strategic merge patch.
    pub(crate) fn strategic_unsupported() -> ApiError {
        let accepted: Vec<&str> = Self::MEDIA_TYPES.into_iter().filter(|kind| !kind.contains("strategic")).collect();
        ApiError::unsupported_media_type(&accepted)
    }

    /// The kind of patch a content type (without parameters) announces.
    ///
    /// # Errors
    /// 415 for all others.
    pub fn from_media_type(media_type: &str) -> Result<Self, ApiError> {
        match media_type {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            _ => Err(ApiError::unsupported_media_type(&Self::MEDIA_TYPES)),
        }
    }
}

/// The answer to a write.
#[derive(Debug, Clone)]
pub struct Written {
    /// The object as served under the group and version of the request.
    pub body: Bytes,
    /// The object as stored: what [`Registry::row`](crate::Registry::row) takes. The same bytes, but for a view.
    pub stored: Bytes,
    /// Whether the write made it (201) or changed it (200).
    pub created: bool,
    /// What to tell the client in `Warning` headers.
    pub warnings: Vec<String>,
}

/// What becomes of the dependents of a deleted object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They stay, without their owner reference.
    Orphan,
    /// The garbage collector deletes them afterwards.
    Background,
    /// They go first.
    Foreground,
}

/// A DELETE: upstream's `DeleteOptions`.
#[derive(Debug, Clone, Default)]
pub struct DeleteRequest {
    /// Seconds the object may take to end in good order.
    pub grace_period: Option<i64>,
    /// Delete only the object with this uid.
    pub uid: Option<String>,
    /// Delete only this version of the object.
    pub resource_version: Option<String>,
    /// What becomes of the dependents.
    pub propagation: Option<Propagation>,
    /// The older form of [`DeleteRequest::propagation`]; not together with it.
    pub orphan_dependents: Option<bool>,
    /// Do everything but delete.
    pub dry_run: bool,
    /// Who deletes.
    pub user: Arc<User>,
    /// With which program, for the log.
    pub field_manager: String,
}

impl DeleteRequest {
    /// What it has in common with other writes.
    pub(crate) fn write_options(&self) -> WriteOptions {
        WriteOptions {
            dry_run: self.dry_run,
            user: Arc::clone(&self.user),
            field_manager: self.field_manager.clone(),
            ..WriteOptions::default()
        }
    }

    /// Reads the body of a DELETE, which may be empty.
    ///
    /// # Errors
    /// 400 when it is not a `DeleteOptions`, 422 when it contradicts itself.
    pub fn from_body(body: &[u8]) -> Result<Self, ApiError> {
        if matches!(body.trim_ascii(), b"" | b"null") {
            return Ok(Self::default());
        }
        let options: DeleteOptions = serde_json::from_slice(body).map_err(|error| {
            ApiError::bad_request(if error.is_data() {
                format!("cannot read DeleteOptions: {error}")
            } else {
                format!("couldn't get version/kind; json parse error: {}", decode::syntax_error(&error, body))
            })
        })?;
        check_options_kind(&options)?;
        let preconditions = options.preconditions.unwrap_or_default();
        let dry_run = options.dry_run.unwrap_or_default();
        let request = Self {
            grace_period: options.grace_period_seconds,
            uid: preconditions.uid,
            resource_version: preconditions.resource_version,
            propagation: options.propagation_policy.as_deref().map(Self::parse_propagation).transpose()?,
            orphan_dependents: options.orphan_dependents,
            dry_run: parse_dry_run(dry_run.iter().map(String::as_str), "DeleteOptions")?,
            user: Arc::default(),
            field_manager: String::new(),
        };
        request.check()?;
        Ok(request)
    }

    /// Reads the query parameter `propagationPolicy`.
    ///
    /// # Errors
    /// 422 for an unknown word.
    pub fn parse_propagation(text: &str) -> Result<Propagation, ApiError> {
        match text {
            "Orphan" => Ok(Propagation::Orphan),
            "Background" => Ok(Propagation::Background),
            "Foreground" => Ok(Propagation::Foreground),
            other => Err(invalid_options(
                "DeleteOptions",
                FieldError::not_supported(
                    &Path::new("propagationPolicy"),
                    other,
                    &["Foreground", "Background", "Orphan", "nil"],
                ),
            )),
        }
    }

    /// Whether the options fit together; to be asked again when query parameters were added.
    ///
    /// # Errors
    /// 422 when they do not.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.propagation.is_some() && self.orphan_dependents.is_some() {
            return Err(invalid_options(
                "DeleteOptions",
                FieldError::invalid(
                    &Path::new("propagationPolicy"),
                    self.propagation.map(|policy| format!("{policy:?}")),
                    "orphanDependents and deletionPropagation cannot be both set",
                ),
            ));
        }
        Ok(())
    }
}

/// A body that says that it is something else is not taken for options: who sends it means another request. Each group may
/// have a `DeleteOptions` of its own (upstream: `DeleteResource` in `apiserver/pkg/endpoints/handlers/delete.go`).
fn check_options_kind(options: &DeleteOptions) -> Result<(), ApiError> {
    let version = options.api_version.as_deref().unwrap_or_default();
    GroupVersion::parse(version).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let kind = options.kind.as_deref().unwrap_or_default();
    if !matches!(kind, "" | "DeleteOptions") {
        let version = if version.is_empty() { "meta.k8s.io/v1" } else { version };
        let text = format!("cannot read DeleteOptions: no kind {kind:?} is registered for version {version:?}");
        return Err(ApiError::bad_request(text));
    }
    Ok(())
}

/// The answer to a DELETE of one object.
#[derive(Debug, Clone)]
pub struct Deleted {
    /// The object where it stays (finalizers, grace period) and for the few kinds that always answer with it;
    /// otherwise a `Status` of success.
    pub body: Bytes,
    /// Whether the object is gone.
    pub gone: bool,
    /// Answer with 202 instead of 200.
    pub accepted: bool,
    /// What to tell the client in `Warning` headers.
    pub warnings: Vec<String>,
}

/// What the `resourceVersion` of a list or watch means: `resourceVersionMatch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionMatch {
    /// That state exactly.
    Exact,
    /// That state or a later one.
    NotOlderThan,
}

impl VersionMatch {
    /// Reads the query parameter; the empty string is none.
    ///
    /// # Errors
    /// 422 for an unknown word.
    pub fn parse(text: &str) -> Result<Option<Self>, ApiError> {
        match text {
            "" => Ok(None),
            "Exact" => Ok(Some(Self::Exact)),
            "NotOlderThan" => Ok(Some(Self::NotOlderThan)),
            other => Err(invalid_options(
                "ListOptions",
                FieldError::not_supported(&Path::new("resourceVersionMatch"), other, &["Exact", "NotOlderThan", ""]),
            )),
        }
    }
}

/// Which objects of a collection.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// By their labels.
    pub labels: LabelSelector,
    /// By their fields.
    pub fields: FieldSelector,
}

impl Selection {
    /// Reads the query parameters `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// 400 with upstream's words for what does not parse.
    pub fn parse(labels: &str, fields: &str) -> Result<Self, ApiError> {
        let unreadable = |error: &dyn std::fmt::Display| ApiError::bad_request(error.to_string());
        Ok(Self {
            labels: LabelSelector::parse(labels).map_err(|error| unreadable(&error))?,
            fields: FieldSelector::parse(fields).map_err(|error| unreadable(&error))?,
        })
    }
}

/// A LIST.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Which objects.
    pub selection: Selection,
    /// How many at most; 0 is all of them.
    pub limit: u64,
    /// Where an earlier page ended.
    pub continue_token: String,
    /// The state asked for; empty is the most recent one.
    pub resource_version: String,
    /// What [`ListRequest::resource_version`] means.
    pub version_match: Option<VersionMatch>,
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct ListPage {
    /// The objects, in the order of namespace and name.
    pub entries: Vec<Arc<Entry>>,
    /// The state they were read from.
    pub revision: Revision,
    /// Hand this in for the next page; `None` after the last one.
    pub continue_token: Option<String>,
    /// How many are left after this page, where that is cheap to know (no selectors).
    pub remaining: Option<u64>,
}

/// A WATCH.
#[derive(Debug, Clone, Default)]
pub struct WatchRequest {
    /// Which objects.
    pub selection: Selection,
    /// After which state; empty or `0` begins with the objects as they are.
    pub resource_version: String,
    /// Goes with [`WatchRequest::send_initial_events`].
    pub version_match: Option<VersionMatch>,
    /// Whether to begin with the objects as they are, ended by an annotated bookmark.
    pub send_initial_events: Option<bool>,
    /// Whether the client understands bookmarks.
    pub allow_bookmarks: bool,
    /// When to end.
    pub timeout: Option<Duration>,
}

/// Reads the query parameter or field `dryRun`, of which `All` is the only legal value.
///
/// # Errors
/// 422 for anything else; `options` is the kind the message names.
pub fn parse_dry_run<'a>(values: impl IntoIterator<Item = &'a str>, options: &'static str) -> Result<bool, ApiError> {
    let mut dry_run = false;
    for value in values {
        if value != "All" {
            return Err(invalid_options(options, FieldError::not_supported(&Path::new("dryRun"), [value], &["All"])));
        }
        dry_run = true;
    }
    Ok(dry_run)
}

/// 422 about the options of a request.
#[must_use]
pub fn invalid_options(kind: &'static str, error: FieldError) -> ApiError {
    ApiError::invalid(&GroupKind::from_static("meta.k8s.io", kind), "", &ErrorList(vec![error]))
}
