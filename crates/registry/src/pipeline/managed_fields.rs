//! Of step 2: `metadata.managedFields`, which says who owns the fields of an object and is kept up to date by every write.
//!
//! The typed object in flight never holds them. In the store they stand as text before `resourceVersion`: they are cut
//! off when an object is loaded and put back when it is stored, and looked into only when a write changes something.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use jiff::Timestamp;
use machinery::managed::{self, Entry as Owner, FieldSet, Manager, Operation, Place};
use machinery::status::ApiError;
use serde_json::{Map, Value, json};
use store::Encoded;

use crate::kind::{MetadataReset, Subresource};
use crate::meta;
use crate::object::Object;
use crate::ops::ResourceOps;
use crate::request::WriteOptions;
use crate::scan;

const KEY: &[u8] = br#""managedFields":"#;
/// What stands before the digits of the revision.
pub(super) const VERSION: &[u8] = br#""resourceVersion":""#;

/// A stored object and, apart from it, the text of its `managedFields`; empty when it has none.
pub(crate) fn split(stored: &[u8]) -> (Cow<'_, [u8]>, &str) {
    let Some(value) = scan::find(stored, &["metadata", "managedFields"]) else { return (stored.into(), "") };
    let text = std::str::from_utf8(&stored[value.clone()]).unwrap_or_default();
    // The server writes them before another field, without spaces.
    let start = value.start.saturating_sub(KEY.len());
    if stored.get(start..value.start) != Some(KEY) || stored.get(value.end) != Some(&b',') {
        return (stored.into(), text);
    }
    ([&stored[..start], &stored[value.end + 1..]].concat().into(), text)
}

/// A stored object without its `managedFields`.
pub(crate) fn without(stored: &Bytes) -> Bytes {
    match split(stored).0 {
        Cow::Borrowed(_) => stored.clone(),
        Cow::Owned(bytes) => bytes.into(),
    }
}

/// An encoded object with its `managedFields` put back.
pub(crate) fn join(encoded: Encoded, managed_fields: &str) -> Encoded {
    let at = encoded.revision_at.saturating_sub(VERSION.len());
    let (head, tail) = encoded.bytes.split_at(at);
    if managed_fields.is_empty() || !tail.starts_with(VERSION) {
        return encoded;
    }
    let bytes = [head, KEY, managed_fields.as_bytes(), b",", tail].concat();
    Encoded::new(bytes, encoded.revision_at + KEY.len() + managed_fields.len() + 1)
}

/// The field manager of a write: who writes an object, and through which subresource.
pub(crate) struct Writer<'a> {
    pub(crate) resource: &'a dyn ResourceOps,
    pub(crate) subresource: Option<Subresource>,
    pub(crate) options: &'a WriteOptions,
    pub(crate) now: Timestamp,
}

impl Writer<'_> {
    pub(crate) fn manager(&self, operation: Operation) -> Manager {
        Manager {
            name: self.options.field_manager.clone(),
            operation,
            api_version: self.resource.info().api_version.clone(),
            subresource: self.subresource.map(Subresource::name).unwrap_or_default().to_owned(),
        }
    }

    /// The time of the write as entries have it.
    pub(crate) fn time(&self) -> String {
        meta::time(self.now).0.to_string()
    }

    /// Whether a write can change a field of the root at all. Upstream: the strategies' reset fields.
    fn changes(&self, field: &str) -> bool {
        let metadata = self.reset() != MetadataReset::Everything;
        match self.subresource {
            None => field != "status" || !self.resource.info().has(Subresource::Status),
            Some(Subresource::Status | Subresource::Approval) => field == "status" || (field == "metadata" && metadata),
            Some(_) => field != "status" && (field != "metadata" || metadata),
        }
    }

    /// What of the metadata the write leaves as it is.
    fn reset(&self) -> MetadataReset {
        self.subresource.map_or(MetadataReset::Nothing, |subresource| self.resource.info().metadata_reset(subresource))
    }

    /// Takes out of a set what the write cannot have changed.
    pub(crate) fn filter(&self, set: &FieldSet) -> FieldSet {
        let mut kept = match self.subresource {
            Some(Subresource::Status | Subresource::Approval) => set.only("status").union(&set.only("metadata")),
            _ => set.clone(),
        };
        for field in ["status", "metadata"] {
            if !self.changes(field) {
                kept = kept.without(&FieldSet::of_path(&[field]));
            }
        }
        match self.reset().field() {
            Some(field) => kept.without(&FieldSet::of_path(&["metadata", field])),
            None => kept,
        }
    }

    /// The `managedFields` of an object about to be created, which has its defaults and nothing more.
    pub(crate) fn created(&self, object: &mut dyn Object) -> Result<String, ApiError> {
        // What the client says about managed_fields of an object that is not there is true of no field.
        object.meta_mut().managed_fields = None;
        let text = encoded(self.resource, object)?;
        let place = self.resource.place();
        let manager = self.manager(Operation::Update);
        let skipped: &[&str] = if self.changes("status") { &[] } else { &["status"] };
        if let Ok(fields) = managed::added(&text, &place, skipped) {
            return Ok(managed::render_created(&manager, &self.time(), &fields));
        }
        let object: Value = serde_json::from_str(&text).map_err(ApiError::internal)?;
        let changes = managed::compare(&json!({}), &object, &place);
        let mut managed_fields = Vec::new();
        managed::update(&mut managed_fields, &changes, &manager, |set| self.filter(set), &self.time());
        Ok(managed::render(managed_fields))
    }

    /// The `managedFields` once `new`, which has its defaults and nothing more, takes the place of the stored object;
    /// `None` when they stay what they are.
    pub(crate) fn updated(&self, stored: &[u8], new: &mut dyn Object) -> Result<Option<String>, ApiError> {
        let given = new.meta_mut().managed_fields.take().filter(|_| self.subresource.is_none());
        let (old, present) = split(stored);
        let changes = self.compare(&old, encoded(self.resource, new)?.as_bytes())?;
        let manager = self.manager(Operation::Update);
        if given.is_none() {
            // What is not tracked stays so until the first apply.
            let Some(changes) = changes.as_ref().filter(|_| !present.is_empty()) else { return Ok(None) };
            let changes = changes.filter(|set| self.filter(set));
            if let Some(managed_fields) = managed::update_text(present, &changes, &manager, &self.time()) {
                return Ok(matches!(managed_fields, Cow::Owned(_)).then(|| managed_fields.into_owned()));
            }
        }
        let present = read(present);
        let mut managed_fields = match given {
            None => present.clone(),
            // A client that does not want them to be kept any longer sends nothing, or one empty entry.
            Some(given) if given.is_empty() || given == [Default::default()] => Vec::new(),
            Some(given) => {
                let given = serde_json::to_value(given).map_err(ApiError::internal)?;
                managed::parse(&given).filter(|given| !given.is_empty()).unwrap_or_else(|| present.clone())
            }
        };
        // Upstream: what is not tracked begins to be with the first apply.
        if let Some(changes) = changes.filter(|_| !managed_fields.is_empty()) {
            managed::update(&mut managed_fields, &changes, &manager, |set| self.filter(set), &self.time());
        }
        Ok((managed_fields != present).then(|| managed::render(managed_fields)))
    }

    /// What differs between two states of an object, as far as the write may have changed it; `None` for nothing.
    /// Only those fields of the root are decoded whose bytes differ.
    fn compare(&self, old: &[u8], new: &[u8]) -> Result<Option<managed::Comparison>, ApiError> {
        let (olds, news) = (scan::members(old), scan::members(new));
        let mut differing = (Map::new(), Map::new());
        let names = news.iter().chain(olds.iter().filter(|(name, _)| find(&news, name).is_none()));
        for (name, _) in names {
            let Ok(field) = std::str::from_utf8(name) else { continue };
            let (a, b) = (find(&olds, name).map(|at| &old[at]), find(&news, name).map(|at| &new[at]));
            if a == b || !self.changes(field) || matches!(field, "apiVersion" | "kind") {
                continue;
            }
            for (bytes, side) in [(a, &mut differing.0), (b, &mut differing.1)] {
                if let Some(bytes) = bytes {
                    side.insert(field.to_owned(), serde_json::from_slice(bytes).map_err(ApiError::internal)?);
                }
            }
        }
        if differing.0 == differing.1 {
            return Ok(None);
        }
        let (old, new) = (Value::Object(differing.0), Value::Object(differing.1));
        let changes = managed::compare(&old, &new, &self.resource.place());
        Ok((!changes.is_empty()).then_some(changes))
    }

    /// The place where objects of this resource begin as they are served.
    pub(crate) fn served_place(&self) -> Place<'_> {
        self.resource.served_place()
    }
}

fn find(members: &[(&[u8], Range<usize>)], name: &[u8]) -> Option<Range<usize>> {
    members.iter().find(|(member, _)| *member == name).map(|(_, at)| at.clone())
}

fn encoded(resource: &dyn ResourceOps, object: &dyn Object) -> Result<String, ApiError> {
    let mut bytes = Vec::with_capacity(1024);
    resource.encode(object, &mut bytes)?;
    String::from_utf8(bytes).map_err(ApiError::internal)
}

/// The entries of a text; none when it holds none, or none that can be read.
pub(crate) fn read(managed_fields: &str) -> Vec<Owner> {
    if managed_fields.is_empty() {
        return Vec::new();
    }
    serde_json::from_str(managed_fields).ok().as_ref().and_then(managed::parse).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_cut_off_and_put_back() {
        for (object, managed_fields) in [
            (r#"{"kind":"A","metadata":{"name":"n","resourceVersion":""},"spec":{}}"#, r#"[{"a":"]}\""}]"#),
            (r#"{"metadata":{"name":"n","resourceVersion":"","uid":"u"}}"#, "[]"),
            (r#"{"metadata":{"name":"n","resourceVersion":"","uid":"u"}}"#, ""),
        ] {
            let at = scan::resource_version(object.as_bytes()).unwrap().start;
            let joined = join(Encoded::new(object.as_bytes().to_vec(), at), managed_fields);
            assert_eq!(joined.revision_at, scan::resource_version(&joined.bytes).unwrap().start);
            let (bare, found) = split(&joined.bytes);
            assert_eq!((bare.as_ref(), found), (object.as_bytes(), managed_fields));
        }
        let foreign = br#"{"metadata":{"managedFields" : [1] }}"#;
        assert_eq!(split(foreign), (Cow::Borrowed(&foreign[..]), "[1]"));
    }
}
