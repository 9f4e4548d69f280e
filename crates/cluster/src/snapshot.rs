//! Snapshots: a whole cluster as it was at one revision, kept apart from it.
//!
//! ```text
//! HOME/.snapshots/          0700
//!   NAME/                   0700, complete from the moment it is there
//!     snapshot.json                what it is of, and the sums of the other two
//!     objects                      everything that was stored, encrypted as in the store
//!     files.tar                    the keys of that encryption, the cluster's settings, and what pods keep in volumes
//! ```
//!
//! They outlive the cluster. [`mod@save`] works on a cluster that runs as on one that does not; [`restore()`] makes a cluster of one,
//! the same or another, which must not run. A snapshot that is not whole is refused before anything is changed.

pub(crate) mod api;
mod etcd;
mod export;
mod freeze;
mod moved;
mod objects;
mod portable;
mod restore;
mod save;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use store::{HistoryError, Revision};

pub use export::{export, export_etcd};
pub(crate) use freeze::thaw_left;
pub use restore::restore;
pub use save::save_stopped;

use crate::profile::{Home, Profile, write_private};
use crate::settings::Settings;

/// The folder of all snapshots in a home. No profile can be called so.
const FOLDER: &str = ".snapshots";
const MANIFEST: &str = "snapshot.json";
const OBJECTS: &str = "objects";
const FILES: &str = "files.tar";
/// The format that is written. One that older versions cannot read counts it up.
const FORMAT: u32 = 1;
/// A manifest is some hundred bytes.
const LONGEST_MANIFEST: u64 = 1 << 20;

/// Why a snapshot cannot be made, or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its name is none.
    #[error(
        "{0:?} cannot be a snapshot's name: use up to 63 letters, digits, dashes, underscores and dots, and begin with a letter or digit"
    )]
    Name(String),
    /// There is one of this name.
    #[error("there is a snapshot {0} already; choose another name, or delete that one: coracle snapshot delete {0}")]
    Exists(String),
    /// There is none of this name.
    #[error("there is no snapshot {0}; those that are there are listed by: coracle snapshot list")]
    Missing(String),
    /// It is not what was saved.
    #[error("the snapshot {name} is damaged ({reason}); nothing was changed")]
    Damaged {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A later version made it.
    #[error(
        "the snapshot {name} was made by a later version (format {found}, this one knows {FORMAT}); use that version"
    )]
    TooNew {
        /// Its name.
        name: String,
        /// Its format.
        found: u32,
    },
    /// There is too little space for it.
    #[error(
        "the snapshot needs {} MiB, and {} has {} MiB beyond what the cluster needs itself; make space, or leave the volumes out: --no-volumes",
        needed >> 20, path.display(), free >> 20
    )]
    Space {
        /// Where it would be.
        path: PathBuf,
        /// Bytes that it takes, about.
        needed: u64,
        /// Bytes that there are for it.
        free: u64,
    },
    /// What it is of cannot be read any more.
    #[error("cannot read the cluster as it was: {0}")]
    History(#[from] HistoryError),
    /// A value cannot be written as it is in the store, or not be read.
    #[error("cannot read {key}: {reason}")]
    Value {
        /// Its key.
        key: String,
        /// Why.
        reason: String,
    },
    /// A file in a volume that the user may not read.
    #[error("cannot save the snapshot: {0}; leave the volumes out with --no-volumes, or run the cluster as root")]
    Denied(io::Error),
    /// A file of the cluster, or of the snapshot.
    #[error("cannot save the snapshot: {0}")]
    Write(io::Error),
    /// The cluster's Services do not fit.
    #[error(
        "the cluster {name} has {subnet} for its Services, and those of the snapshot need {needed}; restore it into another cluster: -p NAME"
    )]
    Services {
        /// The cluster.
        name: String,
        /// Its subnet.
        subnet: String,
        /// That of the snapshot.
        needed: String,
    },
}

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    format: u32,
    /// The version of coracle that made it.
    version: String,
    /// The cluster.
    pub profile: String,
    /// Where that was kept: its volumes have paths.
    folder: PathBuf,
    /// The revision whose state it has.
    pub revision: Revision,
    /// When it was made.
    pub time: Timestamp,
    /// How many objects it has.
    pub objects: u64,
    /// Whether what pods kept in volumes is in it.
    pub volumes: bool,
    /// Pipes, sockets and devices in volumes, which are not in it.
    #[serde(default)]
    pub left_out: u64,
    settings: Settings,
    /// Tells whether tokens that lie in Secrets are still valid in another cluster.
    token_key: Option<String>,
    files: BTreeMap<String, Sum>,
}

impl Manifest {
    /// How many bytes it takes on the disk.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sum {
    bytes: u64,
    sha256: String,
}

/// A snapshot's name with what is said of it, or why that cannot be used.
pub type Listed = (String, Result<Manifest, Error>);

/// The snapshots of a home.
#[derive(Debug, Clone)]
pub struct Snapshots(PathBuf);

impl Snapshots {
    /// Those of this home.
    pub fn of(home: &Home) -> Self {
        Self(home.folder().join(FOLDER))
    }

    /// Those of the home that a cluster is in.
    ///
    /// # Errors
    /// [`crate::Error::NoHome`] where it is in none.
    pub fn beside(profile: &Profile) -> Result<Self, crate::Error> {
        Ok(Self::of(&Home::resolve(profile.folder().parent())?))
    }

    /// Their folder.
    fn folder(&self) -> &Path {
        &self.0
    }

    /// All that are whole, as far as their manifest tells, with their names; oldest first. Of others, why they are not.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, crate::Error> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(crate::Error::file(&self.0, source)),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let found = names.filter(|name| check_name(name).is_ok());
        let mut all: Vec<_> = found.map(|name| (name.clone(), self.manifest(&name))).collect();
        all.sort_by_key(|(name, manifest)| {
            let time = manifest.as_ref().map_or(Timestamp::MAX, |manifest| manifest.time);
            (time, name.clone())
        });
        Ok(all)
    }

    /// What is said of one.
    ///
    /// # Errors
    /// When there is none, or its manifest cannot be used.
    pub fn manifest(&self, name: &str) -> Result<Manifest, Error> {
        let path = self.path(name)?.join(MANIFEST);
        let damaged = |reason: String| Error::Damaged { name: name.to_owned(), reason };
        let text = match hostfs::read(&path, LONGEST_MANIFEST) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(match path.parent().is_some_and(Path::is_dir) {
                    true => damaged(format!("{MANIFEST} is missing")),
                    false => Error::Missing(name.to_owned()),
                });
            }
            Err(error) => return Err(damaged(format!("{MANIFEST}: {error}"))),
        };
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let unreadable = |error: serde_json::Error| damaged(format!("{MANIFEST}: {error}"));
        // What else a later format says may be anything.
        let Format { format } = serde_json::from_slice(&text).map_err(unreadable)?;
        if format > FORMAT {
            return Err(Error::TooNew { name: name.to_owned(), found: format });
        }
        serde_json::from_slice(&text).map_err(unreadable)
    }

    /// Removes one, whole or not.
    ///
    /// # Errors
    /// When there is none, or it cannot be removed.
    pub fn delete(&self, name: &str) -> Result<(), crate::Error> {
        let path = self.path(name)?;
        if fs::symlink_metadata(&path).is_err() {
            return Err(Error::Missing(name.to_owned()).into());
        }
        hostfs::remove_tree(&path).map_err(|source| crate::Error::file(&path, source))
    }

    /// Removes all, and what was left of others that were never complete.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn delete_all(&self) -> Result<(), crate::Error> {
        hostfs::remove_tree(&self.0).map_err(|source| crate::Error::file(&self.0, source))
    }

    /// Where one is, or would be.
    fn path(&self, name: &str) -> Result<PathBuf, Error> {
        check_name(name)?;
        Ok(self.0.join(name))
    }

    /// Checks that all of one is there, byte for byte.
    fn verify(&self, name: &str, manifest: &Manifest) -> Result<(), Error> {
        let damaged = |reason: String| Error::Damaged { name: name.to_owned(), reason };
        for file in [OBJECTS, FILES] {
            let expected = manifest.files.get(file).ok_or_else(|| damaged(format!("nothing is said of {file}")))?;
            let found = sum(&self.path(name)?.join(file)).map_err(|error| damaged(format!("{file}: {error}")))?;
            if found != *expected {
                return Err(damaged(format!("{file} is not what was saved")));
            }
        }
        Ok(())
    }

    /// A folder that becomes the snapshot `name` of a cluster once it is complete. What an earlier try left of it is removed.
    fn begin(&self, name: &str, profile: &str) -> Result<PathBuf, crate::Error> {
        if fs::symlink_metadata(self.path(name)?).is_ok() {
            return Err(Error::Exists(name.to_owned()).into());
        }
        let folder = self.0.join(format!(".{name}.{profile}.saving"));
        hostfs::remove_tree(&folder).map_err(|source| crate::Error::file(&folder, source))?;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|source| crate::Error::file(&folder, source))?;
        Ok(folder)
    }

    /// Makes a snapshot of a folder that is complete.
    fn complete(&self, name: &str, folder: &Path, manifest: &Manifest) -> Result<(), crate::Error> {
        use rustix::fs::{CWD, RenameFlags};
        let text = serde_json::to_string_pretty(manifest).unwrap_or_default();
        write_private(&folder.join(MANIFEST), &text)?;
        let path = self.path(name)?;
        match rustix::fs::renameat_with(CWD, folder, CWD, &path, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Err(Error::Exists(name.to_owned()).into()),
            Err(error) => return Err(crate::Error::file(&path, error.into())),
        }
        File::open(&self.0).and_then(|all| all.sync_all()).map_err(|source| crate::Error::file(&self.0, source))
    }
}

/// Whether this can be a snapshot's name: a file is called so, and it stands in command lines.
///
/// # Errors
/// [`Error::Name`].
pub fn check_name(name: &str) -> Result<(), Error> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let begins = name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    match begins && name.len() <= 63 && name.bytes().all(legal) {
        true => Ok(()),
        false => Err(Error::Name(name.to_owned())),
    }
}

fn sum(path: &Path) -> io::Result<Sum> {
    let mut file = File::open(path)?;
    let (mut hasher, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Sum { bytes, sha256: hex(&hasher.finalize()) }),
            read => {
                hasher.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}

/// Does what blocks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::Error> + Send + 'static,
) -> Result<T, crate::Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Write(io::Error::other(error)))?
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
