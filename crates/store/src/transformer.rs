//! What values are on disk: encrypted, for example. In memory they are always as they are served.
//!
//! Upstream: `k8s.io/apiserver/pkg/storage/value`, whose `Transformer` stands between the API server and etcd.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{DiskError, Result};
use crate::state::AttributesOf;
use crate::{Entry, Key, Revision};

/// Changes values on their way to the disk and back. `resource` is `GROUP/RESOURCE`; `path` is the object's whole key on disk,
/// to which an encrypted value is bound.
pub trait Transformer: fmt::Debug + Send + Sync + 'static {
    /// Whether values of a resource can be written now. It is asked before anything of a transaction is done.
    ///
    /// # Errors
    /// In words, when they cannot: because the key could not be saved, for example. The transaction is refused then, and all
    /// others go on.
    fn ready(&self, resource: &str) -> Result<(), String>;

    /// A value as it is to be written.
    ///
    /// # Errors
    /// In words. What is written together with it fails as well, as if the disk had refused it; what can be told before is the
    /// affair of [`Transformer::ready`].
    fn transform_to_storage<'a>(&self, resource: &str, path: &[u8], value: &'a [u8]) -> Result<Cow<'a, [u8]>, String>;

    /// The value of what lies on disk.
    ///
    /// # Errors
    /// In words, when it cannot be read: because the key is missing, for example.
    fn transform_from_storage<'a>(
        &self,
        resource: &str,
        path: &[u8],
        stored: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, String>;

    /// Whether what lies on disk would be written in another way now.
    fn is_stale(&self, resource: &str, path: &[u8], stored: &[u8]) -> bool;
}

/// Makes entries of what lies on disk.
pub(crate) struct Decoder {
    pub(crate) attributes_of: Box<AttributesOf>,
    pub(crate) transformer: Option<Arc<dyn Transformer>>,
}

/// What lies on disk of one state of an object.
pub(crate) struct Stored<'a> {
    pub(crate) revision: Revision,
    pub(crate) create_revision: Revision,
    pub(crate) path: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl Decoder {
    /// An object as it was stored.
    pub(crate) fn entry(&self, key: Key, stored: &Stored<'_>) -> Result<Entry> {
        let value = Bytes::copy_from_slice(&self.value(&key, stored.path, stored.value)?);
        Ok(Entry {
            attributes: (self.attributes_of)(&key, &value),
            key,
            value,
            revision: stored.revision,
            create_revision: stored.create_revision,
        })
    }

    /// A value as it is served, of what lies on disk below a path.
    pub(crate) fn value<'a>(&self, key: &Key, path: &[u8], stored: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        let Some(transformer) = &self.transformer else { return Ok(Cow::Borrowed(stored)) };
        let read = transformer.transform_from_storage(&key.resource, path, stored);
        read.map_err(|why| DiskError::Unreadable(format!("{key}: {why}")))
    }
}
