//! Between what is stored and what a version shows.
//!
//! Upstream prunes and defaults every object it reads. Nothing has to be done here for an object that was written in the
//! version it is asked for, under the schema as it is now: those are the bytes in the store.

use std::sync::Arc;

use bytes::Bytes;
use store::Revision;

use super::object::CustomObject;
use super::{Crd, Version};
use crate::decode::DecodeError;
use crate::scan;

impl Crd {
    /// An object from the store, in a version.
    pub(super) fn load(&self, stored: &[u8], version: &Version) -> Result<CustomObject, DecodeError> {
        let object: CustomObject = serde_json::from_slice(stored)?;
        if object.api_version == version.info.api_version && !self.is_stale(stored) {
            return Ok(object);
        }
        if self.is_foreign(&object.api_version, version) {
            let served = self.served(&Bytes::copy_from_slice(stored), version)?;
            return Ok(serde_json::from_slice(&served)?);
        }
        let mut object = self.completed(object);
        self.adopt(&mut object, version);
        Ok(object)
    }

    /// Upstream: what is missing in the store gets the defaults of the version it is stored in.
    fn completed(&self, mut object: CustomObject) -> CustomObject {
        let written = self.versions.iter().find(|version| version.info.api_version == object.api_version);
        self.storage_or(written).schema.default(&mut object.body);
        object
    }

    /// Whether only a webhook can bring an object into a version.
    fn is_foreign(&self, api_version: &str, version: &Version) -> bool {
        self.converter.is_some() && api_version != version.info.api_version
    }

    /// Objects in another version; `whole` says what they are together.
    pub(super) fn convert(
        &self,
        objects: Vec<CustomObject>,
        version: &Version,
        whole: &'static str,
    ) -> Result<Vec<CustomObject>, DecodeError> {
        let Some(converter) = &self.converter else {
            let adopted = objects.into_iter().map(|mut object| {
                self.adopt(&mut object, version);
                object
            });
            return Ok(adopted.collect());
        };
        let from = objects.first().map(|object| object.api_version.clone()).unwrap_or_default();
        let converted = converter.convert(objects, &version.info).map_err(|why| {
            let kind = &version.info.kind;
            DecodeError::Value(format!("conversion webhook for {from}, Kind={kind}{whole} {why}"))
        })?;
        Ok(converted
            .into_iter()
            .map(|mut object| {
                version.schema.prune(&mut object.body, &mut |_| {});
                object
            })
            .collect())
    }

    /// Gives an object the form of a version: strategy `None` changes the version's name, and pruning the rest.
    pub(super) fn adopt(&self, object: &mut CustomObject, version: &Version) {
        object.api_version.clone_from(&version.info.api_version);
        object.kind.clone_from(&version.info.kind);
        version.schema.prune(&mut object.body, &mut |_| {});
    }

    /// The bytes to serve.
    pub(super) fn served(&self, stored: &Bytes, version: &Version) -> Result<Bytes, DecodeError> {
        let mut served = self.served_as(vec![stored.clone()], version, "")?;
        served.pop().ok_or_else(|| DecodeError::Value("nothing was converted".to_owned()))
    }

    /// The bytes to serve of a list. What takes a webhook is asked for at once.
    pub(super) fn served_all(&self, stored: Vec<Bytes>, version: &Version) -> Result<Vec<Bytes>, DecodeError> {
        self.served_as(stored, version, "List")
    }

    fn served_as(
        &self,
        mut stored: Vec<Bytes>,
        version: &Version,
        whole: &'static str,
    ) -> Result<Vec<Bytes>, DecodeError> {
        if !version.converts {
            return Ok(stored);
        }
        let mut foreign: Vec<(usize, CustomObject)> = Vec::new();
        for (index, stored) in stored.iter_mut().enumerate() {
            let place = scan::find(stored, &["apiVersion"]);
            let found = place.clone().map_or(&b""[..], |place| &stored[place]);
            let found = std::str::from_utf8(found).unwrap_or_default().trim_matches('"');
            let stale = self.is_stale(stored);
            if found == version.info.api_version && !stale {
                continue;
            }
            if self.is_foreign(found, version) {
                match self.converter.as_ref().and_then(|converter| converter.kept(stored, &version.info)) {
                    Some(kept) => *stored = kept,
                    None => foreign.push((index, self.completed(serde_json::from_slice(stored)?))),
                }
                continue;
            }
            let written = self.versions.iter().find(|version| version.info.api_version == found);
            let same_schema = written.is_some_and(|written| Arc::ptr_eq(&written.schema, &version.schema));
            *stored = if let (true, false, Some(place)) = (same_schema, stale, place) {
                let (head, tail) = (&stored[..place.start + 1], &stored[place.end - 1..]);
                [head, version.info.api_version.as_bytes(), tail].concat().into()
            } else {
                serde_json::to_vec(&self.load(stored, version)?)?.into()
            };
        }
        if foreign.is_empty() {
            return Ok(stored);
        }
        let (places, objects): (Vec<usize>, Vec<CustomObject>) = foreign.into_iter().unzip();
        for (index, object) in places.into_iter().zip(self.convert(objects, version, whole)?) {
            let served: Bytes = serde_json::to_vec(&object)?.into();
            if let Some(converter) = &self.converter {
                converter.keep(&stored[index], &version.info, served.clone());
            }
            stored[index] = served;
        }
        Ok(stored)
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
