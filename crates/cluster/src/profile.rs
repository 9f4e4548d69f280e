//! Where a cluster keeps its state: one folder for each profile.
//!
//! ```text
//! HOME/                     0700   --home, $CORACLE_HOME or ~/.coracle
//!   .snapshots/             0700   see `snapshot`
//!   PROFILE/                0700
//!     settings.json                what was chosen at the first start: subnets and ports
//!     scheduler.yaml               how the scheduler is to work, if somebody said so at a start
//!     audit-policy.yaml            which requests are noted in the audit log, if somebody said so at a start
//!     audit.log                    the audit log; up to three older files beside it
//!     encryption-key.yaml          the key that encrypts Secrets in the store
//!     encryption.yaml              how objects are encrypted instead, if somebody said so at a start
//!     encryption.yaml.1            what that was before, as long as something may be encrypted by it; and so on
//!     frozen                       the containers that are held while a snapshot is made
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
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, encryption};

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

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// All profiles of this home that were ever started, by name; those that one may not read are among them.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn profiles(&self) -> Result<Vec<Profile>, Error> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Error::Unreadable { what: "the clusters".to_owned(), path: self.0.clone() });
            }
            Err(source) => return Err(Error::file(&self.0, source)),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut found: Vec<Profile> = names.filter_map(|name| self.profile(&name).ok()).collect();
        found.retain(|profile| profile.exists() || profile.check_readable().is_err());
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
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

    /// The same cluster in another folder, which is about to take this one's place.
    pub(crate) fn in_folder(&self, folder: PathBuf) -> Self {
        Self { name: self.name.clone(), folder }
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

    /// The configuration of encryption at rest, an `EncryptionConfiguration`; it need not be there.
    pub fn encryption(&self) -> PathBuf {
        self.path("encryption.yaml")
    }

    /// Which requests are noted in the audit log, a `Policy`; none are without it.
    pub fn audit_policy(&self) -> PathBuf {
        self.path("audit-policy.yaml")
    }

    pub(crate) fn audit_log(&self) -> PathBuf {
        self.path("audit.log")
    }

    /// The cluster's own keys for its Secrets.
    pub(crate) fn encryption_key(&self) -> PathBuf {
        self.path("encryption-key.yaml")
    }

    /// What an administrator has said of the cluster, and the keys of its store: paths in the folder, of which some are there.
    pub(crate) fn configuration(&self) -> Vec<PathBuf> {
        let others = [self.scheduler(), self.pod_security(), self.audit_policy(), self.seccomp()];
        let all = encryption::files(self).into_iter().chain(others);
        all.filter_map(|path| Some(path.strip_prefix(&self.folder).ok()?.to_owned())).collect()
    }

    /// Whether a path in the folder is one of the files that say how the store is encrypted.
    pub(crate) fn encrypts(&self, path: &Path) -> bool {
        let path = self.folder.join(path);
        path == self.encryption_key()
            || path.parent() == Some(self.folder())
                && path.file_stem().is_some_and(|stem| stem == "encryption" || stem == "encryption.yaml")
    }

    /// What is in those files now, of those that are there.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(crate) fn keys(&self) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
        let read = |path: PathBuf| match fs::read(&path) {
            Ok(text) => Some(Ok((path, text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(Err(error)),
        };
        encryption::files(self).into_iter().filter_map(read).collect()
    }

    /// The folders of the kubelets of all nodes.
    ///
    /// # Errors
    /// When the folder of further nodes cannot be read.
    pub(crate) fn kubelet_folders(&self) -> Result<Vec<PathBuf>, Error> {
        let nodes = self.path("nodes");
        let mut folders = vec![self.pods()];
        match fs::read_dir(&nodes) {
            Ok(entries) => folders.extend(entries.filter_map(|entry| Some(entry.ok()?.path()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::file(&nodes, source)),
        }
        Ok(folders)
    }

    /// The containers that are held while a snapshot is made.
    pub(crate) fn frozen(&self) -> PathBuf {
        self.path("frozen")
    }

    /// The key that signs tokens.
    pub(crate) fn token_key(&self) -> PathBuf {
        self.pki().join("sa.key")
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

    /// Refuses a profile that belongs to somebody else: all that is in it would seem not to be there.
    ///
    /// # Errors
    /// [`Error::Unreadable`].
    pub fn check_readable(&self) -> Result<(), Error> {
        let is_denied =
            |path: &PathBuf| File::open(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        match [self.settings(), self.path("lock")].iter().any(is_denied) {
            true => Err(Error::Unreadable { what: format!("the cluster {}", self.name), path: self.folder.clone() }),
            false => Ok(()),
        }
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
        let mut tries = 0;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                // Who only looks whether somebody holds it does so for a moment.
                Err(TryLockError::WouldBlock) if tries < LOCK_TRIES => tries += 1,
                Err(TryLockError::WouldBlock) => return Err(Error::Running(self.name.clone())),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        write_holder(&mut file, &std::process::id().to_string()).map_err(failed)?;
        Ok(ProfileLock { file })
    }

    /// The daemon that runs on this profile.
    pub fn daemon(&self) -> Option<Daemon> {
        let mut file = File::open(self.path("lock")).ok()?;
        match file.try_lock_shared() {
            // Nobody holds it: whatever process id is in there is history.
            Ok(()) => None,
            Err(_) => {
                let mut text = String::new();
                file.read_to_string(&mut text).ok()?;
                let (pid, stopping) =
                    text.trim().strip_suffix(STOPPING).map_or((text.trim(), false), |pid| (pid, true));
                Some(Daemon { pid: pid.parse().ok()?, stopping })
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

/// What the lock's text says behind the process id of a daemon that stops.
const STOPPING: &str = " stopping";
/// How often, and with what pauses, a lock is tried for that somebody else has.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A daemon that holds a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Daemon {
    /// Its process id.
    pub pid: i32,
    /// Whether it is about to end.
    pub stopping: bool,
}

/// Held by the daemon as long as it lives. The kernel frees it however the daemon ends.
#[derive(Debug)]
pub struct ProfileLock {
    file: File,
}

impl ProfileLock {
    /// Says to whoever asks that the daemon is about to end.
    pub(crate) fn stopping(&mut self) {
        // It helps whoever starts the cluster again at once. Without, they are told that it still runs.
        let _ = write_holder(&mut self.file, &format!("{}{STOPPING}", std::process::id()));
    }
}

/// In place: on a full disk, a file that was emptied could not be written again.
fn write_holder(file: &mut File, text: &str) -> io::Result<()> {
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
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
        let mut lock = profile.lock().expect("free");
        assert!(matches!(profile.lock(), Err(Error::Running(_))));
        let pid = std::process::id().cast_signed();
        assert_eq!(profile.daemon(), Some(Daemon { pid, stopping: false }));
        lock.stopping();
        assert_eq!(profile.daemon(), Some(Daemon { pid, stopping: true }));
        drop(lock);
        assert_eq!(profile.daemon(), None, "the id in the file is history");
        profile.lock().expect("free again");
        assert!(!fs::read_to_string(profile.path("lock")).expect("there").contains(STOPPING));
    }

    #[test]
    fn who_looks_at_a_profile_keeps_no_daemon_from_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let profile = profile(folder.path());
        profile.create().expect("created");
        drop(profile.lock().expect("free"));
        let looking = File::open(profile.path("lock")).expect("there");
        looking.try_lock_shared().expect("free");
        let locking = std::thread::spawn(move || profile.lock().map(|_| ()));
        std::thread::sleep(LOCK_PAUSE * 2);
        drop(looking);
        locking.join().expect("it ends").expect("it has the lock");
    }

    #[test]
    fn a_home_lists_its_profiles() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let home = Home::resolve(Some(&folder.path().join("home"))).expect("a path");
        assert!(home.profiles().expect("none").is_empty());
        for (name, started) in [("b", true), ("a", true), ("never", false)] {
            let profile = home.profile(name).expect("a legal name");
            profile.create().expect("created");
            if started {
                write_private(&profile.settings(), "{}").expect("written");
            }
            profile.check_readable().expect("it is one's own");
        }
        fs::write(home.folder().join("config.json"), "{}").expect("written");
        let names: Vec<String> = home.profiles().expect("two").iter().map(|found| found.name().to_owned()).collect();
        assert_eq!(names, ["a", "b"]);
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
