//! What a tree takes of its disk, counted on descriptors and within a time.

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

/// How many levels are open at once. Directories further down are counted later, from the top.
const DEPTH: usize = 64;
/// Most bytes of paths that are remembered for later.
const DEFERRED_BYTES: usize = 1 << 20;
/// Most files with several names that are told apart. Of those beyond, each name counts for its share.
const LINKED_FILES: usize = 65_536;
/// The clock is looked at once for so many entries.
const ENTRIES_PER_LOOK: u32 = 128;
/// The kernel takes paths of at most 4,096 bytes, the last of them a zero.
const LONGEST_PATH: usize = 4000;

/// What is known of a file without asking a server for it, and without mounting anything: a mounted file system may never answer.
const STATX: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::NO_AUTOMOUNT).union(AtFlags::STATX_DONT_SYNC);

const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What a tree takes of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of the blocks that are allocated, as `du` counts them.
    pub bytes: u64,
    /// Files, directories and links.
    pub inodes: u64,
    /// Whether everything was counted. If not, there is at least so much.
    pub is_complete: bool,
}

/// Counts what `path` and everything in it take of the disk. What is mounted below counts for nothing, and a file with
/// several names once. Ends at `until` with what was found by then.
///
/// # Errors
/// What opening `path` fails with; it must be a directory. Directories below that cannot be read only make the answer
/// incomplete.
pub fn usage(path: &Path, until: Instant) -> io::Result<Usage> {
    let root = rustix::fs::openat(CWD, path, FLAGS, Mode::empty())?;
    let mut walk = Walk {
        usage: Usage { is_complete: true, ..Usage::default() },
        linked: HashSet::new(),
        deferred: Vec::new(),
        deferred_bytes: 0,
        until,
        entries: 0,
    };
    let stat = rustix::fs::fstat(&root)?;
    walk.add(blocks(u64::try_from(stat.st_blocks).unwrap_or_default()));
    let mut next = Some((rustix::io::fcntl_dupfd_cloexec(&root, 0)?, Vec::new()));
    while let Some((directory, path)) = next {
        if !walk.descend(directory, path) {
            walk.usage.is_complete = false;
            break;
        }
        next = None;
        while let Some(path) = walk.deferred.pop() {
            walk.deferred_bytes -= path.len();
            match open_path(root.as_fd(), &path) {
                Ok(directory) => {
                    next = Some((directory, path));
                    break;
                }
                Err(Errno::NOENT) => {}
                Err(_) => walk.usage.is_complete = false,
            }
        }
    }
    Ok(walk.usage)
}

struct Walk {
    usage: Usage,
    /// Device and number of files with several names.
    linked: HashSet<(u32, u32, u64)>,
    /// Directories to be counted later, by their path from the root. They themselves have been counted.
    deferred: Vec<Vec<u8>>,
    deferred_bytes: usize,
    until: Instant,
    entries: u32,
}

impl Walk {
    fn add(&mut self, bytes: u64) {
        self.usage.bytes = self.usage.bytes.saturating_add(bytes);
        self.usage.inodes += 1;
    }

    fn is_over(&mut self) -> bool {
        self.entries = self.entries.wrapping_add(1);
        self.entries.is_multiple_of(ENTRIES_PER_LOOK) && Instant::now() >= self.until
    }

    /// Counts what is in `directory`, which has `path` from the root. Returns whether there was time for all of it.
    fn descend(&mut self, directory: OwnedFd, mut path: Vec<u8>) -> bool {
        let Ok(entries) = Dir::new(directory) else {
            self.usage.is_complete = false;
            return true;
        };
        // A directory, and how long the path of its parent is.
        let mut open = vec![(entries, path.len())];
        while let Some((entries, parent)) = open.last_mut() {
            if self.is_over() {
                return false;
            }
            let entry = match entries.read() {
                Some(Ok(entry)) => entry,
                end => {
                    self.usage.is_complete &= end.is_none();
                    path.truncate(*parent);
                    open.pop();
                    continue;
                }
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(descriptor) = entries.fd() else {
                self.usage.is_complete = false;
                continue;
            };
            let Some(below) = self.count(descriptor, name) else { continue };
            let parent = path.len();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            if open.len() < DEPTH {
                match Dir::new(below) {
                    Ok(below) => open.push((below, parent)),
                    Err(_) => {
                        self.usage.is_complete = false;
                        path.truncate(parent);
                    }
                }
                continue;
            }
            if self.deferred_bytes + path.len() <= DEFERRED_BYTES {
                self.deferred_bytes += path.len();
                self.deferred.push(path.clone());
            } else {
                self.usage.is_complete = false;
            }
            path.truncate(parent);
        }
        true
    }

    /// Counts what is called `name` in `parent`. A directory is returned, unless something is mounted on it.
    fn count(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Option<OwnedFd> {
        let stat = match rustix::fs::statx(parent, name, STATX, StatxFlags::BASIC_STATS) {
            // What is mounted takes nothing of this disk.
            Ok(stat) if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) => return None,
            Ok(stat) => stat,
            // Pods go on working meanwhile.
            Err(Errno::NOENT) => return None,
            Err(_) => {
                self.usage.is_complete = false;
                return None;
            }
        };
        let bytes = blocks(stat.stx_blocks);
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::Directory {
            let links = u64::from(stat.stx_nlink);
            let file = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
            if links < 2 {
                self.add(bytes);
            } else if self.linked.len() >= LINKED_FILES {
                self.add(bytes / links);
            } else if self.linked.insert(file) {
                self.add(bytes);
            }
            return None;
        }
        match open_below(parent, name) {
            Ok(directory) => {
                self.add(bytes);
                Some(directory)
            }
            // Linux 5.7 and older does not tell what is mounted before it is opened.
            Err(Errno::XDEV | Errno::NOENT) => None,
            Err(_) => {
                self.add(bytes);
                self.usage.is_complete = false;
                None
            }
        }
    }
}

/// Bytes of so many blocks. stat(2): the unit is 512 bytes, whatever the size of a block is.
fn blocks(number: u64) -> u64 {
    number.saturating_mul(512)
}

fn open_below(parent: BorrowedFd<'_>, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(parent, name, FLAGS, Mode::empty(), resolve)
}

/// Opens a directory by its path from `root`, which may be longer than the kernel takes at once.
fn open_path(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let mut rest = path;
    let mut current: Option<OwnedFd> = None;
    while !rest.is_empty() {
        let end = match rest.len() <= LONGEST_PATH {
            true => rest.len(),
            false => rest[..LONGEST_PATH].iter().rposition(|byte| *byte == b'/').ok_or(Errno::NAMETOOLONG)?,
        };
        let from = current.as_ref().map_or(root, AsFd::as_fd);
        current = Some(open_below(from, &rest[..end])?);
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    current.ok_or(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn files_count_once_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("tree/a/b")).unwrap();
        let empty = usage(&at("tree"), soon()).unwrap();
        assert!(empty.is_complete && empty.inodes == 3, "{empty:?}");
        fs::write(at("tree/a/b/file"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(at("tree/a/b/file"), at("tree/a/same")).unwrap();
        fs::write(at("outside"), vec![1; 1 << 20]).unwrap();
        symlink(at("outside"), at("tree/link")).unwrap();
        symlink(folder.path(), at("tree/folder")).unwrap();
        let sparse = fs::File::create(at("tree/sparse")).unwrap();
        sparse.set_len(8 << 40).unwrap();
        let found = usage(&at("tree"), soon()).unwrap();
        assert_eq!((found.inodes, found.is_complete), (7, true));
        assert!((1 << 20..2 << 20).contains(&(found.bytes - empty.bytes)), "{found:?}");
        assert!(usage(&at("none"), soon()).is_err());
        assert!(usage(&at("tree/link"), soon()).is_err());
    }

    #[test]
    fn it_ends_in_time_with_what_it_found() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..1_000 {
            fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        let found = usage(folder.path(), Instant::now()).unwrap();
        assert!(!found.is_complete && found.inodes < 1_000, "{found:?}");
    }

    /// A pod can make a tree of any depth by changing into each directory it makes, so depth must hide nothing.
    #[test]
    fn depth_hides_nothing_and_costs_no_descriptors() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut current = rustix::fs::open(&tree, FLAGS, Mode::empty()).unwrap();
        // Far longer than a path may be.
        let name = "d".repeat(50);
        for _ in 0..1_000 {
            rustix::fs::mkdirat(&current, name.as_str(), Mode::RWXU).unwrap();
            current = rustix::fs::openat(&current, name.as_str(), FLAGS, Mode::empty()).unwrap();
        }
        let create = OFlags::CREATE | OFlags::WRONLY;
        let file = rustix::fs::openat(&current, "file", create, Mode::RUSR).unwrap();
        rustix::io::write(&file, &[1; 4096]).unwrap();
        let found = usage(&tree, soon()).unwrap();
        assert_eq!((found.inodes, found.is_complete), (1_002, true));
        drop((current, file));
        crate::remove_tree(&tree).unwrap();
    }

    /// Needs the right to mount, as root has it.
    #[test]
    fn what_is_mounted_below_takes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("tree/m")).unwrap();
        fs::write(at("tree/f"), "").unwrap();
        fs::create_dir(at("data")).unwrap();
        fs::write(at("data/file"), vec![1; 1 << 20]).unwrap();
        rustix::mount::mount_bind(at("data"), at("tree/m")).expect("the right to mount");
        rustix::mount::mount_bind(at("data/file"), at("tree/f")).expect("the right to mount");
        let found = usage(&at("tree"), soon()).unwrap();
        crate::remove_tree(&at("tree")).unwrap();
        assert!(found.bytes < 1 << 20 && found.is_complete, "{found:?}");
    }
}
