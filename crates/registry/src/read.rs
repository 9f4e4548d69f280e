//! Get and list: bytes out, nothing decoded.
//!
//! Everything is read from the store's memory, so "the most recent state" and "any state" are the same thing here; a
//! `resourceVersion` only ever means to wait for it, or to look back to it exactly.

mod page;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::field::{FieldError, Path, quote};
use machinery::selector::FieldSelector;
use machinery::status::{ApiError, Cause};
use serde::Deserialize;
use serde_json::Value;
use store::{Attributes, Entry, HistoryError, Key, Revision, Snapshot};

use crate::Registry;
use crate::custom;
use crate::kind::Subresource;
use crate::object::Object;
use crate::ops::ResourceOps;
use crate::pipeline::managed_fields;
use crate::request::{ListPage, ListRequest, Selection, Target, VersionMatch, invalid_options};
use crate::scan;
use crate::table::{Resource, Resources};
use page::Continue;

/// How long a read waits for a revision that is not there yet; upstream's figure.
const FUTURE_WAIT: Duration = Duration::from_secs(3);

/// How often it looks.
const FUTURE_POLL: Duration = Duration::from_millis(5);

/// Upstream's words for a token whose revision is compacted.
const CONTINUE_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. \
    You can start a new list without the continue parameter, or use the continue token in this response to retrieve \
    the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that \
    were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Upstream's words for an exact revision that is compacted.
const LIST_EXPIRED: &str = "The resourceVersion for the provided list is too old.";

impl Registry {
    /// The object at `target`, not older than `resource_version` (empty or `0`: as it is).
    ///
    /// # Errors
    /// 404 when it does not exist, 400 for a resource version that is no number, 504 for one that does not come.
    pub async fn get(&self, target: &Target, resource_version: &str) -> Result<Arc<Entry>, ApiError> {
        if let Some(revision) = parse_revision(resource_version)? {
            self.wait_for(revision).await?;
        }
        self.find(target)
    }

    /// The object at `target` as it was at a revision.
    ///
    /// # Errors
    /// 404 when it did not exist then, 410 when that is forgotten, 504 for a revision that does not come.
    pub async fn get_at(&self, target: &Target, revision: Revision) -> Result<Arc<Entry>, ApiError> {
        self.wait_for(revision).await?;
        let snapshot = self.snapshot_at(&target.resource, revision).await;
        let snapshot = snapshot.map_err(|error| history_error(error, || ApiError::expired(LIST_EXPIRED)))?;
        let found = snapshot.get(&target.namespace, &target.name).cloned();
        found.ok_or_else(|| ApiError::not_found(&target.resource.info().group_resource, &target.name))
    }

    /// The bytes to serve for an entry under the group and version of a resource.
    ///
    /// # Errors
    /// 500 when the stored bytes cannot be converted.
    pub fn body(&self, resource: &Resource, entry: &Entry) -> Result<Bytes, ApiError> {
        resource.served(&entry.value).map_err(ApiError::internal)
    }

    /// A page of the objects of a collection.
    ///
    /// # Errors
    /// 400 and 422 for options that make no sense, 410 when the state asked for is compacted, 504 when it does not
    /// come.
    pub async fn list(&self, target: &Target, request: &ListRequest) -> Result<ListPage, ApiError> {
        let resource = &target.resource;
        if resource.info().computed {
            return self.list_computed(target, request);
        }
        let filter = Filter::new(target, &request.selection)?;
        let token = Continue::parse(&request.continue_token)?;
        check_versions(request, token.is_some())?;
        let (snapshot, start) = match token {
            Some(Continue { revision: Some(revision), start }) => {
                let snapshot = self.snapshot_at(resource, revision).await;
                (snapshot.map_err(|error| history_error(error, || ApiError::expired(CONTINUE_EXPIRED)))?, Some(start))
            }
            Some(Continue { revision: None, start }) => (self.snapshot(resource), Some(start)),
            None => (self.snapshot_for(resource, request).await?, None),
        };
        Ok(page::cut(&snapshot, &filter, start.as_ref(), request.limit))
    }

    /// The objects of a page as they are served.
    ///
    /// # Errors
    /// 500 when the stored bytes cannot be converted.
    pub fn bodies(&self, resource: &Resource, page: &ListPage) -> Result<Vec<Bytes>, ApiError> {
        page::bodies(resource, page)
    }

    /// A page as the API's list of that kind, in pieces that are not copied. Items of a built-in kind do not say what they are.
    ///
    /// # Errors
    /// 500 when the stored bytes cannot be converted.
    pub fn list_pieces(&self, resource: &Resource, page: &ListPage) -> Result<VecDeque<Bytes>, ApiError> {
        page::pieces(resource, page)
    }

    /// The same in one piece.
    ///
    /// # Errors
    /// 500 when the stored bytes cannot be converted.
    pub fn list_body(&self, resource: &Resource, page: &ListPage) -> Result<Bytes, ApiError> {
        let pieces = page::pieces(resource, page)?;
        let mut body = Vec::with_capacity(pieces.iter().map(Bytes::len).sum());
        pieces.iter().for_each(|piece| body.extend_from_slice(piece));
        Ok(body.into())
    }

    /// The cells of the Table representation of a stored object; as many as the resource has columns.
    ///
    /// # Errors
    /// 500 when the bytes are not an object of that kind.
    pub fn row(&self, resource: &Resource, stored: &[u8], now: Timestamp) -> Result<Vec<Value>, ApiError> {
        let object = resource.load(&managed_fields::split(stored).0).map_err(ApiError::internal)?;
        resource.row(object.as_ref(), now)
    }

    /// The `PartialObjectMetadata` of an object. The metadata is the same in the store and on the wire.
    #[must_use]
    pub fn partial_metadata(&self, stored: &[u8]) -> Bytes {
        let metadata = scan::find(stored, &["metadata"]).map_or(&b"{}"[..], |range| &stored[range]);
        let mut body = Vec::with_capacity(metadata.len() + 96);
        body.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#);
        body.extend_from_slice(metadata);
        body.push(b'}');
        body.into()
    }

    /// The entry at `target` as it is now.
    pub(crate) fn find(&self, target: &Target) -> Result<Arc<Entry>, ApiError> {
        let found = if target.resource.info().computed { self.find_computed(target)? } else { self.lookup(target) };
        found.ok_or_else(|| ApiError::not_found(&target.resource.info().group_resource, &target.name))
    }

    /// The entry at `target` as it is now, if there is one.
    pub(crate) fn lookup(&self, target: &Target) -> Option<Arc<Entry>> {
        self.store().get(&key_of(target.resource.as_ref(), &target.namespace, &target.name))
    }

    fn snapshot(&self, resource: &Resource) -> Snapshot {
        self.store().snapshot(&resource.info().storage)
    }

    async fn snapshot_at(&self, resource: &Resource, revision: Revision) -> Result<Snapshot, HistoryError> {
        self.store().snapshot_at(&resource.info().storage, revision).await
    }

    async fn snapshot_for(&self, resource: &Resource, request: &ListRequest) -> Result<Snapshot, ApiError> {
        let Some(revision) = parse_revision(&request.resource_version)? else {
            return Ok(self.snapshot(resource));
        };
        self.wait_for(revision).await?;
        // A limit with a resource version and no match means that version exactly: upstream's rule from before the
        // parameter `resourceVersionMatch`.
        let exact = match request.version_match {
            Some(asked) => asked == VersionMatch::Exact,
            None => request.limit > 0,
        };
        if !exact {
            return Ok(self.snapshot(resource));
        }
        let snapshot = self.snapshot_at(resource, revision).await;
        snapshot.map_err(|error| history_error(error, || ApiError::expired(LIST_EXPIRED)))
    }

    /// Returns once the store has reached a revision.
    pub(crate) async fn wait_for(&self, revision: Revision) -> Result<(), ApiError> {
        let deadline = tokio::time::Instant::now() + FUTURE_WAIT;
        while self.store().revision() < revision {
            if tokio::time::Instant::now() >= deadline {
                return Err(too_large_version(revision, self.store().revision()));
            }
            tokio::time::sleep(FUTURE_POLL).await;
        }
        Ok(())
    }
}

/// Where an object is kept.
pub(crate) fn key_of(resource: &dyn ResourceOps, namespace: &str, name: &str) -> Key {
    Key { resource: Arc::clone(&resource.info().storage), namespace: namespace.into(), name: name.into() }
}

/// What selectors see of an object.
pub(crate) fn attributes(resource: &dyn ResourceOps, object: &dyn Object) -> Result<Attributes, ApiError> {
    Ok(Attributes::new(object.meta().labels.iter().flatten(), resource.strategy().fields(object)?))
}

/// What selectors see of an object read back from disk: the store asks for every object when it opens.
pub(crate) fn describe(resources: &Resources, key: &Key, stored: &[u8]) -> Attributes {
    if let Some(resource) = resources.by_storage(&key.resource) {
        let object = resource.load(stored).map_err(ApiError::internal);
        match object.and_then(|object| attributes(resource.as_ref(), object.as_ref())) {
            Ok(attributes) => return attributes,
            Err(error) => tracing::warn!(%key, %error, "a stored object cannot be read"),
        }
    }
    describe_any(stored)
}

/// The labels of an object whose kind is not known (yet).
fn describe_any(stored: &[u8]) -> Attributes {
    #[derive(Deserialize)]
    struct Any {
        metadata: ObjectMeta,
    }
    let labels = serde_json::from_slice(stored).ok().and_then(|any: Any| any.metadata.labels).unwrap_or_default();
    Attributes::new(labels, [("", ""); 0])
}

/// Which entries of a resource a list or watch shows.
pub(crate) struct Filter {
    namespace: Option<String>,
    selection: Selection,
    everything: bool,
    /// Fields of a custom resource are read from the stored bytes.
    custom: bool,
}

impl Filter {
    /// The filter of a request; refuses fields that cannot be selected by.
    pub(crate) fn new(target: &Target, selection: &Selection) -> Result<Self, ApiError> {
        let resource = &target.resource;
        let info = resource.info();
        let known = |field: &str| {
            field == "metadata.name"
                || (field == "metadata.namespace" && info.namespaced())
                || info.selectable.iter().any(|selectable| selectable == field)
        };
        let mut fields = selection.fields.clone();
        for term in &mut fields.requirements {
            if !known(&term.field) {
                // Upstream's words where a kind has no selectors of its own (`DefaultMetaV1FieldSelectorConversion`), and
                // where it has.
                let why = if info.selectable.is_empty() && !info.custom {
                    let known = r#"only "metadata.name", "metadata.namespace""#;
                    format!("{} is not a known field selector: {known}", quote(&term.field))
                } else {
                    format!("field label not supported: {}", term.field)
                };
                return Err(ApiError::bad_request(why));
            }
            let stored = resource.stored_label(&term.field);
            if stored != term.field {
                term.field = stored.to_owned();
            }
        }
        let mut namespace = (!target.namespace.is_empty()).then(|| target.namespace.clone());
        namespace = namespace.or_else(|| fields.exact("metadata.namespace").map(str::to_owned));
        if !target.name.is_empty() {
            fields.requirements.extend(FieldSelector::equals("metadata.name", &target.name).requirements);
        }
        let everything = fields.is_everything() && selection.labels.is_everything();
        let selection = Selection { labels: selection.labels.clone(), fields };
        Ok(Self { namespace, selection, everything, custom: info.custom })
    }

    /// The namespace to look in, `None` for all of them.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Whether all entries of the namespace are shown.
    pub(crate) fn is_everything(&self) -> bool {
        self.everything
    }

    /// Whether this entry is shown.
    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        if self.namespace().is_some_and(|namespace| namespace != &*entry.key.namespace) {
            return false;
        }
        if self.everything {
            return true;
        }
        let fields = &self.selection.fields;
        if self.custom && !self.custom_fields_match(entry) {
            return false;
        }
        let field = |name: &str| match name {
            "metadata.name" => Some(&*entry.key.name),
            "metadata.namespace" => Some(&*entry.key.namespace),
            other => entry.attributes.field(other),
        };
        // What the selector asks for lives as long as the entry.
        (self.custom || fields.matches(field)) && self.selection.labels.matches_by(|key| entry.attributes.label(key))
    }

    fn custom_fields_match(&self, entry: &Entry) -> bool {
        self.selection.fields.requirements.iter().all(|term| {
            let equal = match term.field.as_str() {
                "metadata.name" => *entry.key.name == *term.value,
                "metadata.namespace" => *entry.key.namespace == *term.value,
                field => custom::text_at(&entry.value, field) == term.value,
            };
            equal == term.equal
        })
    }
}

/// Reads a `resourceVersion` parameter; empty and `0` ask for nothing in particular.
///
/// # Errors
/// 400 for what is no number, as upstream answers a list (apiserver `storage/util.go`, `ValidateListOptions`). Its get and
/// watch hand on what the storage says, 500: here no input is a fault of the server.
pub(crate) fn parse_revision(text: &str) -> Result<Option<Revision>, ApiError> {
    let bad = |why| format!("invalid resource version: resourceVersion: Invalid value: {text:?}: {why}");
    match text {
        "" | "0" => Ok(None),
        text => parse_uint(text).map(Some).map_err(|why| ApiError::bad_request(bad(why))),
    }
}

/// Reads a number as Go's `strconv.ParseUint` does: digits alone. The error has its words.
pub(crate) fn parse_uint(text: &str) -> Result<u64, String> {
    let why = match text.parse() {
        // Rust takes a sign.
        _ if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) => "invalid syntax",
        Ok(number) => return Ok(number),
        Err(_) => "value out of range",
    };
    Err(format!("strconv.ParseUint: parsing {text:?}: {why}"))
}

/// 504: a revision that has not happened. Clients which know the cause list again at any version.
fn too_large_version(requested: Revision, current: Revision) -> ApiError {
    let message = format!("Too large resource version: {requested}, current: {current}");
    ApiError::timeout(&message, 1).with_cause(Cause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        field: String::new(),
    })
}

fn check_versions(request: &ListRequest, continues: bool) -> Result<(), ApiError> {
    let version = request.resource_version.as_str();
    let refuse = |why: &str| {
        let path = Path::new("resourceVersionMatch");
        Err(invalid_options("ListOptions", FieldError::forbidden(&path, why)))
    };
    match request.version_match {
        Some(_) if continues => return refuse("resourceVersionMatch is forbidden when continue is provided"),
        Some(_) if version.is_empty() => {
            return refuse("resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        Some(VersionMatch::Exact) if version == "0" => {
            return refuse("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
        _ => {}
    }
    if continues && !version.is_empty() && version != "0" {
        return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
    }
    Ok(())
}

fn history_error(error: HistoryError, expired: impl FnOnce() -> ApiError) -> ApiError {
    match error {
        HistoryError::Compacted(_) => expired(),
        HistoryError::Future { requested, current } => too_large_version(requested, current),
        HistoryError::Closed => ApiError::service_unavailable("the server is shutting down"),
        other => ApiError::internal(other),
    }
}

impl ListRequest {
    /// The token with which a list whose own token has expired (410) can go on, at the latest state and therefore
    /// inconsistently: `metadata.continue` of that `Status`.
    #[must_use]
    pub fn inconsistent_continue(&self) -> Option<String> {
        let token = Continue::parse(&self.continue_token).ok()??;
        Some(Continue { revision: None, ..token }.to_token())
    }
}

impl Registry {
    /// The subresources that are read like the object itself.
    ///
    /// # Errors
    /// As [`Registry::get`].
    pub async fn get_subresource(
        &self,
        target: &Target,
        subresource: Subresource,
        resource_version: &str,
    ) -> Result<Bytes, ApiError> {
        let entry = self.get(target, resource_version).await?;
        match subresource {
            Subresource::Scale => self.scale_of(target, &entry),
            _ => self.body(&target.resource, &entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_versions_that_are_no_numbers() {
        for (text, why) in [
            ("x", "invalid syntax"),
            ("+1", "invalid syntax"),
            ("-1", "invalid syntax"),
            ("18446744073709551616", "value out of range"),
        ] {
            let bad = parse_revision(text).unwrap_err();
            let parsing = format!("strconv.ParseUint: parsing \"{text}\": {why}");
            let message = format!("invalid resource version: resourceVersion: Invalid value: \"{text}\": {parsing}");
            assert_eq!((bad.code, bad.message), (400, message));
        }
        assert_eq!(["", "0", "007"].map(|text| parse_revision(text).unwrap()), [None, None, Some(7)]);
    }
}
