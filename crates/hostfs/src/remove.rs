//! Removal of a directory with all that is in it and nothing else: what is mounted below is unmounted, never entered.
//!
//! Upstream: `k8s.io/kubernetes/pkg/util/removeall`, `RemoveAllOneFilesystem`, which asks for each path whether something
//! is mounted there. Here the kernel answers in the same moment in which the directory is opened (`RESOLVE_NO_XDEV`, which
//! a bind mount from the same disk does not pass either), and every step starts from the descriptor of the last one, so
//! that nothing is won by exchanging a path.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

/// How deep a tree is followed, with one descriptor for each level. Directories further down are moved to the top first.
const DEPTH: usize = 32;
/// How often something is tried again that changed in between: mounts lie one above the other, somebody still writes.
const TRIES: u32 = 64;

/// Removes `path` and everything in it; that it is not there is fine. Mounts at and below it are detached, and what was
/// mounted keeps its files. What cannot be removed stays, the rest goes, and the error is the first one met:
/// [`io::ErrorKind::PermissionDenied`] where a file or a mount is another user's.
///
/// # Errors
/// The first one met; what it concerns stays, with the folders above it.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        let message = format!("{} cannot be removed", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    };
    let name = CString::new(name.as_bytes())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match rustix::fs::openat(CWD, parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        parent => parent?,
    };
    let mut removal = Removal { top: None, moved: 0, failure: None };
    let result = removal.remove(parent.as_fd(), &name, 0);
    let first = removal.failure.or_else(|| result.err().map(|errno| (name, errno)));
    first.map_or(Ok(()), |(name, errno)| {
        let message = format!("cannot remove {} in {}: {errno}", name.to_string_lossy(), path.display());
        Err(io::Error::new(io::Error::from(errno).kind(), message))
    })
}

struct Removal {
    /// The tree's own directory, where what lies too deep is moved to.
    top: Option<OwnedFd>,
    /// How many directories have been moved there.
    moved: u64,
    /// The first entry that could not be removed.
    failure: Option<(CString, Errno)>,
}

impl Removal {
    /// Removes what is called `name` in `parent`, whatever it is.
    fn remove(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<(), Errno> {
        let mut last = Errno::BUSY;
        for _ in 0..TRIES {
            last = match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // A file that something is mounted on.
                Err(Errno::BUSY) => {
                    unmount(parent, name)?;
                    continue;
                }
                // POSIX has EPERM for directories where Linux has EISDIR.
                Err(errno @ (Errno::ISDIR | Errno::PERM)) => errno,
                Err(errno) => return Err(errno),
            };
            let directory = match open(parent, name) {
                Ok(directory) => directory,
                Err(Errno::NOENT) => return Ok(()),
                Err(Errno::XDEV) => {
                    unmount(parent, name)?;
                    continue;
                }
                Err(Errno::NOTDIR) if last == Errno::PERM => return Err(last),
                // It has been exchanged since.
                Err(errno @ (Errno::NOTDIR | Errno::LOOP | Errno::AGAIN)) => {
                    last = errno;
                    continue;
                }
                Err(errno) => return Err(errno),
            };
            if depth >= DEPTH {
                return self.move_up(parent, name);
            }
            if depth == 0 {
                self.top = Some(rustix::io::fcntl_dupfd_cloexec(&directory, 0)?);
            }
            let complete = self.empty(directory, depth)?;
            last = match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // Something was mounted on it in this moment.
                Err(Errno::BUSY) => {
                    unmount(parent, name)?;
                    Errno::BUSY
                }
                Err(errno @ Errno::NOTDIR) => errno,
                Err(errno @ (Errno::NOTEMPTY | Errno::EXIST)) if complete => errno,
                Err(errno) => return Err(errno),
            };
        }
        Err(last)
    }

    /// Removes all entries of a directory; returns whether nothing failed. Entries are read as they are removed: there
    /// may be millions.
    fn empty(&mut self, directory: OwnedFd, depth: usize) -> Result<bool, Errno> {
        let mut entries = Dir::new(directory)?;
        let mut complete = true;
        let mut rounds = 0;
        // Whether a reader sees what is added or removed while it reads is left open by POSIX.
        while rounds < TRIES && complete {
            let moved = self.moved;
            let mut found = false;
            while let Some(entry) = entries.read() {
                let entry = entry?;
                let name = entry.file_name();
                if name == c"." || name == c".." {
                    continue;
                }
                found = true;
                if let Err(errno) = self.remove(entries.fd()?, name, depth + 1) {
                    complete = false;
                    self.failure.get_or_insert_with(|| (name.to_owned(), errno));
                }
            }
            if !found {
                break;
            }
            // Each move makes a deep tree shorter, so that those rounds come to an end by themselves.
            if self.moved == moved {
                rounds += 1;
            }
            entries.rewind();
        }
        Ok(complete)
    }

    /// Moves a directory to the top of the tree, whose next round removes it.
    fn move_up(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        let top = self.top.as_ref().ok_or(Errno::BADF)?;
        loop {
            let new = format!(".removed-{}", self.moved);
            self.moved += 1;
            match rustix::fs::renameat_with(parent, name, top, new.as_str(), RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                result => return result,
            }
        }
    }
}

/// Opens a directory for reading unless something is mounted on it.
fn open(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve)
}

/// Detaches the uppermost mount on `name` in `parent`, with all mounts below it. Who still has a file open in there keeps
/// it.
fn unmount(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    rustix::mount::unmount(path.as_slice(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_removed_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "kept").unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/file"), "").unwrap();
        symlink(&kept, tree.join("a/link")).unwrap();
        symlink(&kept, folder.path().join("tree-link")).unwrap();
        rustix::fs::mknodat(CWD, tree.join("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        remove_tree(&tree).unwrap();
        remove_tree(&tree).unwrap();
        remove_tree(&folder.path().join("tree-link")).unwrap();
        remove_tree(&folder.path().join("no/such/parent")).unwrap();
        assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "kept");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(remove_tree(Path::new("/")).is_err());
        assert!(remove_tree(Path::new("..")).is_err());
    }

    /// A pod can make a tree of any depth by changing into each directory it makes.
    #[test]
    fn depth_costs_neither_descriptors_nor_stack() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

        // Enough for the tests of this crate, far too few for one on each level.
        let limit = Rlimit { current: Some(256), ..getrlimit(Resource::Nofile) };
        setrlimit(Resource::Nofile, limit).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut current = rustix::fs::open(&tree, flags, Mode::empty()).unwrap();
        // A name that the removal would choose itself is in its way.
        rustix::fs::mkdirat(&current, ".removed-0", Mode::RWXU).unwrap();
        for _ in 0..1_000 {
            rustix::fs::mkdirat(&current, "d", Mode::RWXU).unwrap();
            current = rustix::fs::openat(&current, "d", flags, Mode::empty()).unwrap();
        }
        drop(current);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    /// Needs the right to mount, as root has it.
    #[test]
    fn what_is_mounted_below_keeps_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("data/sub")).unwrap();
        fs::write(at("data/file"), "kept").unwrap();
        for mounted in ["tree/a/m", "tree/twice", "tree/tmpfs"] {
            fs::create_dir_all(at(mounted)).unwrap();
        }
        fs::write(at("tree/a/file"), "").unwrap();
        let bind = |from: &str, to: &str| rustix::mount::mount_bind(at(from), at(to)).expect("the right to mount");
        bind("data", "tree/a/m");
        bind("data", "tree/twice");
        bind("data", "tree/twice");
        bind("data/file", "tree/a/file");
        rustix::mount::mount("tmpfs", at("tree/tmpfs"), "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        fs::create_dir(at("tree/tmpfs/m")).unwrap();
        bind("data", "tree/tmpfs/m");
        remove_tree(&at("tree")).unwrap();
        assert!(!at("tree").exists());
        assert_eq!(fs::read_to_string(at("data/file")).unwrap(), "kept");
        assert!(at("data/sub").exists());
        // The tree itself can be a mount as well.
        fs::create_dir(at("tree")).unwrap();
        bind("data", "tree");
        remove_tree(&at("tree")).unwrap();
        assert_eq!(fs::read_to_string(at("data/file")).unwrap(), "kept");
    }
}
