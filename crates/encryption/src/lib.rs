//! Encryption of objects at rest, as upstream's API server does it before it hands them to etcd.
//!
//! [`EncryptionConfiguration`] is upstream's file of that name. [`Encryption`] is what the store asks for each value: which
//! provider encrypts it, and which of the known keys decrypts it. Without a configuration, Secrets are encrypted with a key of
//! the cluster's own, which lies in a file beside the store: a copy of the store alone gives nothing away.
//!
//! A value is bound to the object's whole key in the store (upstream: the authenticated data of
//! `staging/src/k8s.io/apiserver/pkg/storage/value/encrypt/aes`), so that nobody who can write to the disk gives one Secret
//! the content of another.

mod aes_gcm;
mod configuration;
mod local;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use arc_swap::ArcSwap;
use store::{HistoryError, Store};
use tokio::sync::Mutex;

pub use configuration::EncryptionConfiguration;

use aes_gcm::AesGcmKey;
use configuration::Provider;
use local::LocalKeys;

/// What every encrypted value begins with; nothing that the API serves does.
const ENCRYPTED: &[u8] = b"k8s:enc:";

/// Why keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of the local keys cannot be read or written.
    #[error("cannot use {}: {source}; make it readable and writable for you", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file of the local keys holds none. A new key would make every Secret unreadable, so that is left to a person.
    #[error("{} does not hold the keys of the cluster's Secrets; restore it from a copy", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Values cannot be written again.
    #[error("cannot encrypt everything with the new key: {0}; nothing is lost, try again")]
    Rewrite(#[from] HistoryError),
    /// Values are being written again just now.
    #[error("everything is being encrypted again already; that goes on by itself")]
    UnderWay,
    /// The system has no random numbers.
    #[error("cannot make a key: the system has no random numbers")]
    Random,
}

/// Encrypts and decrypts the values of a store. Its keys can be exchanged while it is in use.
pub struct Encryption {
    keys: ArcSwap<Keys>,
    /// The cluster's own keys, where they are what encrypts. Held while they are exchanged.
    local: Option<Mutex<LocalKeys>>,
    /// A new local key, as long as it is not in its file. Nothing is encrypted with it before.
    unsaved: StdMutex<Option<LocalKeys>>,
    /// Held while values are written again.
    rotating: Mutex<()>,
}

struct Keys {
    configuration: EncryptionConfiguration,
    /// What may have encrypted something before, and decrypts it: earlier configurations, and the local keys where the
    /// configuration is somebody else's.
    older: Arc<[EncryptionConfiguration]>,
}

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// The name of the new local key; `None` where keys come from a configuration that somebody gave.
    pub key: Option<String>,
    /// How many objects have been written again.
    pub objects: u64,
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption").finish_non_exhaustive()
    }
}

impl Encryption {
    /// Encryption as `given`, or else with the local keys in the file at `local`; where there is none, with a new key, whose
    /// file is written by [`Encryption::save_key`]. What was encrypted by a configuration that is `previous` is still
    /// decrypted.
    ///
    /// # Errors
    /// When the file of the local keys cannot be read.
    pub fn open(
        given: Option<EncryptionConfiguration>,
        previous: Vec<EncryptionConfiguration>,
        local: &Path,
    ) -> Result<Self, Error> {
        let (mut older, mut unsaved) = (previous, None);
        let known = LocalKeys::read(local)?;
        let (configuration, local) = match (given, known) {
            (Some(configuration), known) => {
                if let Some(known) = known {
                    older.push(known.configuration()?);
                }
                (configuration, None)
            }
            (None, Some(known)) => (known.configuration()?, Some(Mutex::new(known))),
            (None, None) => {
                let made = LocalKeys::make(local)?;
                unsaved = Some(made.clone());
                (made.configuration()?, Some(Mutex::new(made)))
            }
        };
        let keys = ArcSwap::from_pointee(Keys { configuration, older: older.into() });
        Ok(Self { keys, local, unsaved: StdMutex::new(unsaved), rotating: Mutex::default() })
    }

    /// Writes a new local key to its file. To be called once the store is open: a store whose key is missing does not open,
    /// and a key of no use must not take the place of the right one. Whatever is encrypted before that, calls it too.
    ///
    /// # Errors
    /// When the file cannot be written. Nothing can be encrypted until it can.
    pub fn save_key(&self) -> Result<(), Error> {
        let mut unsaved = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = &*unsaved {
            keys.write()?;
        }
        *unsaved = None;
        Ok(())
    }

    /// Makes a new local key, encrypts everything with it, and forgets the old one; with keys that somebody gave, encrypts
    /// everything as they say now. `store` is the one that this encrypts.
    ///
    /// The new key is in the file before anything is encrypted with it, and the old one until nothing is any more: when
    /// the process ends in between, both are known to the next one, whose rotation completes this one.
    ///
    /// # Errors
    /// When a file or the store cannot be written, or another call has not ended yet. Everything can still be read then.
    pub async fn rotate(&self, store: &Store) -> Result<Rotation, Error> {
        let _one = self.rotating.try_lock().map_err(|_| Error::UnderWay)?;
        let Some(local) = &self.local else {
            return Ok(Rotation { key: None, objects: store.rewrite().await? });
        };
        self.save_key()?;
        let mut local = local.lock().await;
        *local = local.with_new()?;
        self.encrypt_with(&local)?;
        let objects = store.rewrite().await?;
        *local = local.without_old()?;
        self.encrypt_with(&local)?;
        Ok(Rotation { key: Some(local.name()), objects })
    }

    fn encrypt_with(&self, local: &LocalKeys) -> Result<(), Error> {
        let older = Arc::clone(&self.keys.load().older);
        self.keys.store(Keys { configuration: local.configuration()?, older }.into());
        Ok(())
    }
}

impl Keys {
    /// The keys of this prefix, wherever they are from.
    fn keys<'a>(&'a self, stored: &'a [u8]) -> impl Iterator<Item = &'a AesGcmKey> {
        let configurations = std::iter::once(&self.configuration).chain(self.older.iter());
        configurations.flat_map(EncryptionConfiguration::keys).filter(|key| stored.starts_with(key.prefix()))
    }
}

impl store::Transformer for Encryption {
    fn ready(&self, resource: &str) -> Result<(), String> {
        match self.keys.load().configuration.first_provider(resource) {
            None | Some(Provider::Identity) => Ok(()),
            Some(Provider::AesGcm(_)) => self.save_key().map_err(|error| error.to_string()),
        }
    }

    fn transform_to_storage<'a>(&self, resource: &str, path: &[u8], value: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        match self.keys.load().configuration.first_provider(resource) {
            None | Some(Provider::Identity) => Ok(Cow::Borrowed(value)),
            Some(Provider::AesGcm(keys)) => {
                self.save_key().map_err(|error| error.to_string())?;
                keys.first().encrypt(path, value).map(Cow::Owned)
            }
        }
    }

    fn transform_from_storage<'a>(
        &self,
        _resource: &str,
        path: &[u8],
        stored: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, String> {
        // What was written before there was encryption can always be read.
        if !stored.starts_with(ENCRYPTED) {
            return Ok(Cow::Borrowed(stored));
        }
        let keys = self.keys.load();
        let mut tried = false;
        for key in keys.keys(stored) {
            if let Some(value) = key.decrypt(path, stored) {
                return Ok(Cow::Owned(value));
            }
            tried = true;
        }
        let label = String::from_utf8_lossy(label(stored)).into_owned();
        Err(match tried {
            true => format!("its value was not encrypted for it by the key {label} that is known"),
            false => format!("its value is encrypted by the unknown key {label}"),
        })
    }

    fn is_stale(&self, resource: &str, path: &[u8], stored: &[u8]) -> bool {
        match self.keys.load().configuration.first_provider(resource) {
            None | Some(Provider::Identity) => stored.starts_with(ENCRYPTED),
            // Decrypted, since another key may have the same name.
            Some(Provider::AesGcm(keys)) => keys.first().decrypt(path, stored).is_none(),
        }
    }
}

/// What names provider and key in front of an encrypted value: `aesgcm:v1:NAME`.
fn label(stored: &[u8]) -> &[u8] {
    let label = &stored[ENCRYPTED.len().min(stored.len())..];
    let end = label.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at).nth(2);
    &label[..end.unwrap_or(0)]
}
