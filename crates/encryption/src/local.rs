//! The cluster's own keys, in a file that only their owner can read: an [`EncryptionConfiguration`] like any other.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value;

use crate::{EncryptionConfiguration, Error};

/// Where the keys are in the file.
const KEYS: &str = "/resources/0/providers/0/aesgcm/keys";
/// The bytes of a key: AES-256.
const BYTES: usize = 32;

/// The keys in the file: the newest one encrypts, all decrypt. There are older ones only while keys are exchanged.
#[derive(Clone)]
pub(crate) struct LocalKeys {
    path: PathBuf,
    newest: LocalKey,
    older: Vec<LocalKey>,
}

#[derive(Clone)]
struct LocalKey {
    /// The names are `key1`, `key2` and so on; none is used twice.
    number: u64,
    secret: [u8; BYTES],
}

impl LocalKey {
    fn make(number: u64) -> Result<Self, Error> {
        let mut secret = [0; BYTES];
        SystemRandom::new().fill(&mut secret).map_err(|_| Error::Random)?;
        Ok(Self { number, secret })
    }

    fn read(value: &Value) -> Option<Self> {
        let number = value["name"].as_str()?.strip_prefix("key")?.parse().ok()?;
        let secret = BASE64.decode(value["secret"].as_str()?).ok()?.try_into().ok()?;
        Some(Self { number, secret })
    }

    fn name(&self) -> String {
        format!("key{}", self.number)
    }
}

impl LocalKeys {
    /// The keys in the file at `path`; `None` when there is no such file.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::File { path: path.to_owned(), source }),
        };
        let value = serde_saphyr::from_str(&text).unwrap_or(Value::Null);
        let keys = value.pointer(KEYS).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut keys = keys.iter().map(LocalKey::read).collect::<Option<Vec<_>>>().unwrap_or_default().into_iter();
        let newest = keys.next().ok_or_else(|| Error::Damaged { path: path.to_owned() })?;
        Ok(Some(Self { path: path.to_owned(), newest, older: keys.collect() }))
    }

    /// A first key, which is not in the file at `path` yet.
    pub(crate) fn make(path: &Path) -> Result<Self, Error> {
        Ok(Self { path: path.to_owned(), newest: LocalKey::make(1)?, older: Vec::new() })
    }

    /// The keys with a new one before them, which is in the file when this returns.
    pub(crate) fn with_new(&self) -> Result<Self, Error> {
        let last = self.older.iter().map(|key| key.number).fold(self.newest.number, u64::max);
        let mut older = vec![self.newest.clone()];
        older.extend(self.older.iter().cloned());
        let keys = Self { path: self.path.clone(), newest: LocalKey::make(last + 1)?, older };
        keys.write()?;
        Ok(keys)
    }

    /// The newest key alone; the others are gone from the file when this returns. Nothing may be encrypted by them any more.
    pub(crate) fn without_old(&self) -> Result<Self, Error> {
        let keys = Self { older: Vec::new(), ..self.clone() };
        keys.write()?;
        Ok(keys)
    }

    /// The name of the key that encrypts.
    pub(crate) fn name(&self) -> String {
        self.newest.name()
    }

    /// What they are for: they encrypt Secrets.
    pub(crate) fn configuration(&self) -> Result<EncryptionConfiguration, Error> {
        let pair = |key: &LocalKey| (key.name(), key.secret);
        let configuration = EncryptionConfiguration::of_secrets(pair(&self.newest), self.older.iter().map(pair));
        configuration.ok_or_else(|| Error::Damaged { path: self.path.clone() })
    }

    fn text(&self) -> String {
        let mut text = "\
# The keys of this cluster's Secrets. Without this file they cannot be read: keep a copy of it apart from the store.
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aesgcm:
      keys:
"
        .to_owned();
        for key in std::iter::once(&self.newest).chain(&self.older) {
            let (name, secret) = (key.name(), BASE64.encode(key.secret));
            // Nothing fails that writes to a string.
            let _ = write!(text, "      - name: {name}\n        secret: {secret}\n");
        }
        text.push_str("  - identity: {}\n");
        text
    }

    /// Writes them to the file. They are on disk when this returns.
    pub(crate) fn write(&self) -> Result<(), Error> {
        hostfs::write_private(&self.path, &self.text())
            .map_err(|source| Error::File { path: self.path.clone(), source })
    }
}
