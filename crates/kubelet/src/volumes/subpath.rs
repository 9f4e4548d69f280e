//! `subPath`: a part of a volume, so that nobody who writes to the volume can make it lead elsewhere.
//!
//! A path that is checked and then handed to the runtime can be exchanged for a symbolic link in between. So the part is
//! opened once, below the volume's directory (`openat2` with `RESOLVE_BENEATH`), and what the runtime gets is that very
//! file or directory: bound to a place that no container sees, as upstream does (`pkg/volume/util/subpath`):
//!
//! ```text
//! STATE/pods/UID/volume-subpaths/CONTAINER/         a tmpfs, so that a runtime which does not see the mounts of this
//!                                                   process finds nothing, and not an empty directory
//! STATE/pods/UID/volume-subpaths/CONTAINER/INDEX    the bind mount for volumeMounts[INDEX]
//! ```
//!
//! Unlike upstream's they go as soon as the container has been started, which has mounts of its own by then: whoever
//! removes the state directory by hand must not meet a volume in it.
//!
//! Without the right to mount, a directory goes to the runtime as a descriptor of this process, which the runtime binds
//! with its own rights. For a file there is no such way: it is refused, except from a volume that only the kubelet writes
//! to, where paths stay what they are.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

/// Where the runtime finds a part of a volume.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// Its path.
    pub(crate) path: PathBuf,
    /// Whether that is a descriptor of this process; see [`runtime::Mount::descriptor`].
    pub(crate) descriptor: bool,
}

/// The parts of volumes that are held for one container. They are let go when it is dropped, which blocks.
#[derive(Debug)]
pub(crate) struct SubPaths {
    directory: PathBuf,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing is held.
    Empty,
    /// Bind mounts below the directory.
    Mounts,
    /// Descriptors, for want of the right to mount.
    Descriptors(Vec<OwnedFd>),
}

impl SubPaths {
    /// Will bind to places below `directory`, which belongs to it alone.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, state: State::Empty }
    }

    /// Holds `part` for the mount of this index. `private` tells that only the kubelet writes to its volume.
    pub(super) fn hold(&mut self, index: usize, part: OwnedFd, private: bool) -> io::Result<Source> {
        if matches!(self.state, State::Empty) {
            self.state = match self.mount() {
                Ok(()) => State::Mounts,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => State::Descriptors(Vec::new()),
                Err(error) => return Err(error),
            };
        }
        let is_directory = FileType::from_raw_mode(rustix::fs::fstat(&part)?.st_mode) == FileType::Directory;
        match &mut self.state {
            State::Descriptors(_) if private => {
                let path = fs::read_link(format!("/proc/self/fd/{}", part.as_raw_fd()))?;
                Ok(Source { path, descriptor: false })
            }
            State::Descriptors(held) => {
                if !is_directory || !in_initial_pid_namespace() {
                    let message = "this subPath needs the right to mount: run the node as root";
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
                }
                let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), part.as_raw_fd()));
                held.push(part);
                Ok(Source { path, descriptor: true })
            }
            _ => {
                let path = self.directory.join(index.to_string());
                match is_directory {
                    true => fs::create_dir(&path)?,
                    // A file does for everything else: the mount is of the type of what is mounted.
                    false => drop(fs::File::create_new(&path)?),
                }
                rustix::mount::mount_bind(format!("/proc/self/fd/{}", part.as_raw_fd()), &path)?;
                Ok(Source { path, descriptor: false })
            }
        }
    }

    /// Lets go without blocking the caller's thread.
    pub(crate) async fn release(self) {
        if matches!(self.state, State::Mounts) {
            // It fails only if the runtime shuts down, which drops it as well.
            let _ = tokio::task::spawn_blocking(move || drop(self)).await;
        }
    }

    fn mount(&self) -> io::Result<()> {
        // What an earlier life of this process may have left.
        hostfs::remove_tree(&self.directory)?;
        fs::create_dir_all(&self.directory)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("tmpfs", &self.directory, "tmpfs", flags, c"mode=0700,size=64k")?;
        Ok(())
    }
}

impl Drop for SubPaths {
    fn drop(&mut self) {
        if matches!(self.state, State::Mounts) {
            // Detached in one step, with the mounts below it. What is left is found when the pod's files are removed.
            let result = rustix::mount::unmount(&self.directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
            if let Err(error) = result.map_err(io::Error::from).and_then(|()| fs::remove_dir(&self.directory)) {
                tracing::warn!(%error, directory = %self.directory.display(), "the mounts of sub-paths are left");
            }
        }
    }
}

/// Whether this process has the same number for itself as the runtime has for it: elsewhere `/proc/PID/fd/N` is a file of
/// somebody else. The number is `PROC_PID_INIT_INO` of the kernel's `include/linux/proc_ns.h`.
fn in_initial_pid_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|namespace| namespace == Path::new("pid:[4026531836]"))
}

/// Opens `sub_path` in the directory `volume`; directories that are missing are made, like the volume's own. Symbolic
/// links within the volume are followed, out of it never.
pub(super) fn open(volume: &Path, sub_path: &str) -> io::Result<OwnedFd> {
    let relative = Path::new(sub_path);
    let normal = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    if !relative.components().all(normal) {
        let message = "the path must be relative and must not contain '..'";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let root = rustix::fs::open(volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    // What is made in a volume of a group belongs to that group, too.
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&root)?.st_mode & 0o2777);
    let mut reached = PathBuf::from(".");
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let mut current = hostfs::open_beneath(&root, &reached, flags)?;
    // Directories are made one by one, so that a link in the middle is seen before it is followed.
    for component in relative.components() {
        let Component::Normal(name) = component else {
            continue;
        };
        reached.push(name);
        current = match hostfs::open_beneath(&root, &reached, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(&current, name, mode)?;
                hostfs::open_beneath(&root, &reached, flags)?
            }
            found => found?,
        };
    }
    Ok(current)
}

/// Makes the directory `name` in `parent` with this very mode: the process's mask would take from it.
fn make(parent: &OwnedFd, name: &OsStr, mode: Mode) -> Result<(), Errno> {
    match rustix::fs::mkdirat(parent, name.as_bytes(), mode) {
        // Somebody was faster, or a link leads nowhere: the next look says which.
        Err(Errno::EXIST) => return Ok(()),
        result => result?,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(parent, name.as_bytes(), flags, Mode::empty())?;
    rustix::fs::fchmod(made.as_fd(), mode)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn inode(path: &Path) -> (u64, u64) {
        let metadata = fs::metadata(path).unwrap();
        (metadata.dev(), metadata.ino())
    }

    fn path_of(part: &OwnedFd) -> PathBuf {
        fs::read_link(format!("/proc/self/fd/{}", part.as_raw_fd())).unwrap()
    }

    #[test]
    fn directories_are_made_like_the_volume() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().canonicalize().unwrap().join("v");
        fs::create_dir(&volume).unwrap();
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o2770)).unwrap();
        fs::write(volume.join("file"), "").unwrap();
        symlink("file", volume.join("inner")).unwrap();
        symlink("nowhere", volume.join("dangling")).unwrap();
        symlink("/etc", volume.join("absolute")).unwrap();
        symlink("../..", volume.join("up")).unwrap();
        for (sub_path, expect) in [
            ("a/b", Ok("a/b")),
            ("./a//b/", Ok("a/b")),
            ("file", Ok("file")),
            ("inner", Ok("file")),
            (".", Ok("")),
            ("../x", Err("must not contain '..'")),
            ("a/../../x", Err("must not contain '..'")),
            ("/etc", Err("must be relative")),
            ("absolute/x", Err("leads out of its directory")),
            ("up", Err("leads out of its directory")),
            ("dangling/x", Err("No such file")),
            ("file/x", Err("Not a directory")),
        ] {
            match (open(&volume, sub_path), expect) {
                (Ok(part), Ok(path)) => {
                    let found = path_of(&part);
                    assert_eq!(found, volume.join(path).components().collect::<PathBuf>(), "{sub_path}");
                    if found.is_dir() {
                        assert_eq!(fs::metadata(&found).unwrap().permissions().mode() & 0o7777, 0o2770, "{sub_path}");
                    }
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{sub_path}: {error}"),
                (found, _) => panic!("{sub_path}: {found:?}"),
            }
        }
        assert!(open(&volume.join("none"), "a").is_err());
    }

    /// Whoever writes to the volume exchanges the part for a link to `/` as fast as they can.
    #[test]
    fn an_exchange_for_a_link_does_not_lead_out() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().canonicalize().unwrap();
        fs::create_dir(volume.join("part")).unwrap();
        symlink("/", volume.join("link")).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (part, link) = (volume.join("part"), volume.join("link"));
                while !stop.load(Ordering::Relaxed) {
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(rustix::fs::CWD, &part, rustix::fs::CWD, &link, flags).unwrap();
                }
            });
            let (mut opened, mut refused) = (0, 0);
            while opened < 100 || refused < 100 {
                match open(&volume, "part/sub") {
                    Ok(part) => {
                        let path = path_of(&part);
                        assert!(path.starts_with(&volume), "{}", path.display());
                        opened += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(!Path::new("/sub").exists());
    }

    /// Needs the right to mount, as root has it.
    #[test]
    fn what_is_held_is_no_longer_a_matter_of_paths() {
        let folder = tempfile::tempdir().unwrap();
        let (volume, places) = (folder.path().join("v"), folder.path().join("p/c"));
        fs::create_dir_all(volume.join("dir")).unwrap();
        fs::write(volume.join("file"), "text").unwrap();
        let (dir, file) = (inode(&volume.join("dir")), inode(&volume.join("file")));
        for _ in 0..2 {
            let mut held = SubPaths::new(places.clone());
            let first = held.hold(0, open(&volume, "dir").unwrap(), false).unwrap();
            let second = held.hold(3, open(&volume, "file").unwrap(), false).unwrap();
            fs::rename(volume.join("dir"), volume.join("moved")).unwrap();
            symlink("/", volume.join("dir")).unwrap();
            assert_eq!(first, Source { path: places.join("0"), descriptor: false });
            assert_eq!((inode(&first.path), inode(&second.path)), (dir, file));
            fs::remove_file(volume.join("dir")).unwrap();
            fs::rename(volume.join("moved"), volume.join("dir")).unwrap();
            drop(held);
            assert!(!places.exists());
        }
        // A process that was killed in between leaves its mounts to the next.
        let mut killed = SubPaths::new(places.clone());
        killed.hold(0, open(&volume, "dir").unwrap(), false).unwrap();
        std::mem::forget(killed);
        let mut next = SubPaths::new(places.clone());
        let source = next.hold(0, open(&volume, "file").unwrap(), false).unwrap();
        assert_eq!(inode(&source.path), file);
        drop(next);
        assert!(!places.exists() && volume.join("dir").exists());
    }

    #[test]
    fn without_the_right_to_mount_a_directory_is_a_descriptor() {
        let volume = tempfile::tempdir().unwrap();
        fs::write(volume.path().join("file"), "").unwrap();
        let state = State::Descriptors(Vec::new());
        let mut held = SubPaths { directory: volume.path().join("unused"), state };
        let source = held.hold(0, open(volume.path(), "dir").unwrap(), false).unwrap();
        assert!(source.descriptor && source.path.starts_with(format!("/proc/{}/fd", std::process::id())));
        assert_eq!(inode(&source.path), inode(&volume.path().join("dir")));
        let private = held.hold(2, open(volume.path(), "file").unwrap(), true).unwrap();
        assert_eq!(private, Source { path: volume.path().canonicalize().unwrap().join("file"), descriptor: false });
        let refused = held.hold(1, open(volume.path(), "file").unwrap(), false).unwrap_err();
        assert!(refused.to_string().contains("run the node as root"), "{refused}");
    }
}
