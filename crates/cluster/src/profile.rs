//! Where a cluster keeps its state: one folder for each profile.
//!
//! ```text
//! HOME/                     0700   --home, $CORACLE_HOME or ~/.coracle
//!   PROFILE/                0700
//!     settings.json                what was chosen at the first start: subnets and ports
//!     scheduler.yaml               how the scheduler is to work, if somebody said so at a start
//!     lock                         held by the daemon as long as it lives; its text is the daemon's process id
//!     daemon.log                   what the daemon wrote; one older file beside it
//!     kubeconfig                   the administrator's, for this cluster alone
//!     pki/                         certificates and keys
//!     store/                       RocksDB
//!     pods/                        what pods mount: volumes, /etc/hosts, logs of terminations
//!     volumes/                     the directories behind PersistentVolumes, one each
//!     nodes/NAME/                  what pods of a further node mount
//!     seccomp/                     profiles for `seccompProfile.localhostProfile` of pods; made by whoever puts one there
//! ```

use std::env;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::Error;

/// The folder of all profiles.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

impl Home {
    /// The folder `given` (`--home` or `$CORACLE_HOME`), else `~/.coracle`.
    ///
    /// # Errors
    /// [`Error::NoHome`] when nothing is given and the user has no home.
    pub fn resolve(given: Option<&Path>) -> Result<Self, Error> {
        let path = match given {
            Some(path) => std::path::absolute(path).map_err(|source| Error::file(path, source))?,
            None => env::home_dir().ok_or(Error::NoHome)?.join(".coracle"),
        };
        Ok(Self(path))
    }

    /// The profile called `name`, which must be a DNS label of at most 40 characters: it becomes the node's name.
    ///
    /// # Errors
    /// When the name is none.
    pub fn profile(&self, name: &str) -> Result<Profile, Error> {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let ends_well = !name.starts_with('-') && !name.ends_with('-');
        if name.is_empty() || name.len() > 40 || !name.bytes().all(legal) || !ends_well {
            return Err(Error::ProfileName(name.to_owned()));
        }
        Ok(Profile { name: name.to_owned(), folder: self.0.join(name) })
    }
}

/// One cluster's name and folder.
#[derive(Debug, Clone)]
pub struct Profile {
    name: String,
    folder: PathBuf,
}

impl Profile {
    /// The profile's name, which is also the node's and that of the kubectl context.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The profile's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder by its one name without symbolic links, by which others know whose their things are.
    pub fn canonical_folder(&self) -> PathBuf {
        fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone())
    }

    /// A path within the folder.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What the daemon writes.
    pub fn log(&self) -> PathBuf {
        self.path("daemon.log")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    /// The scheduler's configuration, a `KubeSchedulerConfiguration`; it need not be there.
    pub fn scheduler(&self) -> PathBuf {
        self.path("scheduler.yaml")
    }

    /// The configuration of Pod Security admission, a `PodSecurityConfiguration`; it need not be there.
    pub fn pod_security(&self) -> PathBuf {
        self.path("pod-security.yaml")
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.path("settings.json")
    }

    pub(crate) fn pki(&self) -> PathBuf {
        self.path("pki")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub(crate) fn pods(&self) -> PathBuf {
        self.path("pods")
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.path("volumes")
    }

    pub(crate) fn seccomp(&self) -> PathBuf {
        self.path("seccomp")
    }

    /// The folder of a further node. Its name is a DNS name, so it cannot lead out of here.
    pub(crate) fn node(&self, name: &str) -> PathBuf {
        self.path("nodes").join(name)
    }

    /// Removes the folder of a further node.
    pub(crate) fn remove_node(&self, name: &str) -> Result<(), Error> {
        let folder = self.node(name);
        hostfs::remove_tree(&folder).map_err(|source| Error::file(&folder, source))
    }

    /// Whether the profile was ever started.
    pub fn exists(&self) -> bool {
        self.settings().exists()
    }

    /// Makes the folder, and the store's in it, accessible to their owner alone.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn create(&self) -> Result<(), Error> {
        let folder = self.store();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|source| Error::file(&folder, source))
    }

    /// Takes the lock that says "a daemon runs on this profile". Fails with [`Error::Running`] if one does.
    ///
    /// # Errors
    /// [`Error::Running`] if a daemon runs on it; else when the file cannot be opened or locked.
    pub fn lock(&self) -> Result<ProfileLock, Error> {
        let path = self.path("lock");
        let failed = |source| Error::file(&path, source);
        let mut file = open_lock(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Running(self.name.clone())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // In place: on a full disk, a file that was emptied could not be written again.
        let id = std::process::id().to_string();
        file.write_all(id.as_bytes()).and_then(|()| file.set_len(id.len() as u64)).map_err(failed)?;
        Ok(ProfileLock { _file: file })
    }

    /// The process id of the daemon that runs on this profile.
    pub fn daemon(&self) -> Option<i32> {
        let mut file = File::open(self.path("lock")).ok()?;
        match file.try_lock_shared() {
            // Nobody holds it: whatever process id is in there is history.
            Ok(()) => None,
            Err(_) => {
                let mut text = String::new();
                file.read_to_string(&mut text).ok()?;
                text.trim().parse().ok()
            }
        }
    }

    /// Removes the folder with all that is in it. What is mounted there is unmounted and keeps its files.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub fn remove(&self) -> Result<(), Error> {
        hostfs::remove_tree(&self.folder).map_err(|source| Error::file(&self.folder, source))
    }
}

/// Held by the daemon as long as it lives. The kernel frees it however the daemon ends.
#[derive(Debug)]
pub struct ProfileLock {
    _file: File,
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Writes a private file of the profile; see [`hostfs::write_private`].
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    hostfs::write_private(path, text).map_err(|source| Error::file(path, source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn profile(folder: &Path) -> Profile {
        let home = Home::resolve(Some(folder)).expect("a path");
        home.profile("test").expect("a legal name")
    }

    #[test]
    fn names_are_dns_labels() {
        let home = Home::resolve(Some(Path::new("/nowhere"))).expect("a path");
        for good in ["coracle", "a", "dev-2"] {
            assert!(home.profile(good).is_ok(), "{good}");
        }
        let long = "a".repeat(41);
        for bad in ["", "A", "a_b", "-a", "a-", "../x", "a/b", "a.b", &long] {
            assert!(home.profile(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_daemon_holds_a_profile() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let profile = profile(folder.path());
        assert_eq!(profile.daemon(), None, "never started");
        profile.create().expect("created");
        let lock = profile.lock().expect("free");
        assert!(matches!(profile.lock(), Err(Error::Running(_))));
        assert_eq!(profile.daemon(), Some(std::process::id().cast_signed()));
        drop(lock);
        assert_eq!(profile.daemon(), None, "the id in the file is history");
        profile.lock().expect("free again");
    }

    #[test]
    fn state_is_the_owners_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let profile = profile(&folder.path().join("home"));
        profile.create().expect("created");
        write_private(&profile.settings(), "{}").expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(profile.folder()), 0o700);
        assert_eq!(mode(&profile.settings()), 0o600);
        assert!(profile.exists());
        profile.remove().expect("removed");
        profile.remove().expect("removing twice is fine");
        assert!(!profile.exists());
    }
}
