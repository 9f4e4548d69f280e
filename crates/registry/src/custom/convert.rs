//! Between what is stored and what a version shows.
//!
//! Upstream prunes and defaults every object it reads. Nothing has to be done here for an object that was written in the
//! version it is asked for, under the schema as it is now: those are the bytes in the store.

use std::sync::Arc;

use bytes::Bytes;
use store::Revision;

use super::object::CustomObject;
use super::{Definition, Version};
use crate::decode::DecodeError;
use crate::scan;
use crate::table::ResourceInfo;

impl Definition {
    /// An object from the store, in a version.
    pub(super) fn load(&self, stored: &[u8], version: &Version) -> Result<CustomObject, DecodeError> {
        let mut object: CustomObject = serde_json::from_slice(stored)?;
        self.check_webhook(&object.api_version, &version.info)?;
        if object.api_version != version.info.api_version || self.is_stale(stored) {
            // Upstream: what is missing in the store gets the defaults of the version it is stored in.
            let written = self.versions.iter().find(|version| version.info.api_version == object.api_version);
            self.storage_or(written).schema.default(&mut object.body);
            self.adopt(&mut object, version);
        }
        Ok(object)
    }

    /// Refuses what only a webhook could do: an object in the wrong form is worse than none.
    pub(super) fn check_webhook(&self, from: &str, to: &ResourceInfo) -> Result<(), DecodeError> {
        if !self.by_webhook || from == to.api_version {
            return Ok(());
        }
        let (wanted, kind) = (&to.api_version, &to.kind);
        Err(DecodeError::Value(format!(
            "conversion webhook for {from}, Kind={kind} failed: conversion webhooks are not called here, so that {kind} cannot be had as {wanted}"
        )))
    }

    /// Gives an object the form of a version: strategy `None` changes the version's name, and pruning the rest.
    pub(super) fn adopt(&self, object: &mut CustomObject, version: &Version) {
        object.api_version.clone_from(&version.info.api_version);
        object.kind.clone_from(&version.info.kind);
        version.schema.prune(&mut object.body, &mut |_| {});
    }

    /// The bytes to serve.
    pub(super) fn served(&self, stored: &Bytes, version: &Version) -> Result<Bytes, DecodeError> {
        if !version.converts {
            return Ok(stored.clone());
        }
        let place = scan::find(stored, &["apiVersion"]);
        let found = place.clone().map_or(&b""[..], |place| &stored[place]);
        let found = std::str::from_utf8(found).unwrap_or_default().trim_matches('"');
        let stale = self.is_stale(stored);
        if found == version.info.api_version && !stale {
            return Ok(stored.clone());
        }
        let written = self.versions.iter().find(|version| version.info.api_version == found);
        let same_schema = written.is_some_and(|written| Arc::ptr_eq(&written.schema, &version.schema));
        if let (true, false, false, Some(place)) = (same_schema, stale, self.by_webhook, place) {
            let (head, tail) = (&stored[..place.start + 1], &stored[place.end - 1..]);
            return Ok([head, version.info.api_version.as_bytes(), tail].concat().into());
        }
        let object = self.load(stored, version)?;
        Ok(serde_json::to_vec(&object)?.into())
    }

    /// Whether an object was written before the schema became what it is.
    fn is_stale(&self, stored: &[u8]) -> bool {
        self.since > 0 && revision(stored).is_none_or(|revision| revision < self.since)
    }

    fn storage_or<'a>(&'a self, version: Option<&'a Version>) -> &'a Version {
        version.unwrap_or_else(|| self.storage())
    }
}

fn revision(stored: &[u8]) -> Option<Revision> {
    let digits = &stored[scan::resource_version(stored)?];
    std::str::from_utf8(digits).ok()?.parse().ok()
}
