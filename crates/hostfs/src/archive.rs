//! Trees as tar archives: what pods have written, kept elsewhere and put back.
//!
//! An archive is made on descriptors, from one directory to the next, and stays on one mount: a link that is exchanged while it
//! is read leads nowhere, and what is mounted below is left out. It has directories, regular files with their holes, symbolic
//! links and further names of a file, with modes, owners and times; pipes, sockets, devices and extended attributes are left out.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, OsStr};
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

/// How deep a tree may be: one descriptor is open for each level.
const DEPTH: usize = 128;
/// Most files with several names whose names are kept together. Those beyond become files of their own.
const LINKED_FILES: usize = 65_536;

/// Makes an archive of trees.
pub struct Archiver<W: Write> {
    tar: Builder<W>,
    /// The first name in the archive of files with several: by device and number.
    linked: HashMap<(u64, u64), PathBuf>,
    /// The directories on the way to what was added that are in the archive, without what else is in them.
    parents: HashSet<PathBuf>,
    left_out: u64,
}

impl<W: Write> Archiver<W> {
    /// An empty archive, which is written to `into`.
    pub fn new(into: W) -> Self {
        Self { tar: Builder::new(into), linked: HashMap::new(), parents: HashSet::new(), left_out: 0 }
    }

    /// Adds what is called `name` in the directory `root`, a file or a directory with all that is in it, and the directories that
    /// lead there. That it is not there is fine.
    ///
    /// # Errors
    /// When something cannot be read, becomes shorter while it is read, or lies more than 128 directories deep; and what writing
    /// fails with. The archive cannot be used then.
    pub fn add(&mut self, root: &Path, name: &Path) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut parent = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
        let mut path = PathBuf::new();
        let mut parts = name.components().peekable();
        let directory = loop {
            let Some(part) = parts.next() else { return Ok(()) };
            path.push(part);
            let last = std::ffi::CString::new(part.as_os_str().as_bytes())?;
            if parts.peek().is_some() && self.parents.contains(&path) {
                let Some(next) = open(parent.as_fd(), &last, flags)? else { return Ok(()) };
                parent = next;
                continue;
            }
            let found = self.entry(parent.as_fd(), &last, &path).map_err(|error| at(root, &path, &error))?;
            match found {
                None => return Ok(()),
                Some(directory) if parts.peek().is_none() => break directory,
                Some(directory) => {
                    self.parents.insert(path.clone());
                    parent = directory;
                }
            }
        };
        let mut name = name.to_owned();
        let mut open = vec![Dir::new(directory)?];
        while let Some(entries) = open.last_mut() {
            let Some(entry) = entries.read() else {
                open.pop();
                name.pop();
                continue;
            };
            let entry = entry.map_err(|error| at(root, &name, &error.into()))?;
            if [c".", c".."].contains(&entry.file_name()) {
                continue;
            }
            name.push(OsStr::from_bytes(entry.file_name().to_bytes()));
            let below = self.entry(entries.fd()?, entry.file_name(), &name);
            match below.map_err(|error| at(root, &name, &error))? {
                Some(_) if open.len() >= DEPTH => {
                    let why = format!("it lies more than {DEPTH} directories deep");
                    return Err(at(root, &name, &io::Error::new(io::ErrorKind::InvalidInput, why)));
                }
                Some(directory) => open.push(Dir::new(directory)?),
                None => {
                    name.pop();
                }
            }
        }
        Ok(())
    }

    /// Adds what is called `name` in `parent` as `path`; a directory is returned. What is gone, or mounted, is not there.
    fn entry(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &Path) -> io::Result<Option<OwnedFd>> {
        let Some(found) = open(parent, name, OFlags::PATH)? else { return Ok(None) };
        let found = File::from(found);
        let metadata = found.metadata()?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            self.tar.append_data(&mut header(&metadata), path, io::empty())?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            return Ok(Some(rustix::fs::openat(&found, c".", flags, Mode::empty())?));
        }
        if kind.is_symlink() {
            let target = rustix::fs::readlinkat(&found, c"", Vec::new())?;
            self.tar.append_link(&mut header(&metadata), path, OsStr::from_bytes(target.to_bytes()))?;
        } else if kind.is_file() {
            self.file(parent, name, path)?;
        } else {
            self.left_out += 1;
        }
        Ok(None)
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &Path) -> io::Result<()> {
        // It may have become something else meanwhile: a pipe would be waited for without an end.
        let Some(found) = open(parent, name, OFlags::RDONLY | OFlags::NONBLOCK)? else { return Ok(()) };
        let mut file = File::from(found);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            self.left_out += 1;
            return Ok(());
        }
        let identity = (metadata.dev(), metadata.ino());
        if let Some(first) = self.linked.get(&identity) {
            let mut header = header(&metadata);
            header.set_entry_type(EntryType::Link);
            header.set_size(0);
            return self.tar.append_link(&mut header, path, first);
        }
        if metadata.nlink() > 1 && self.linked.len() < LINKED_FILES {
            self.linked.insert(identity, path.to_owned());
        }
        self.tar.append_file(path, &mut file)?;
        if file.metadata()?.len() < metadata.len() {
            return Err(io::Error::other("it became shorter while it was read; try again"));
        }
        Ok(())
    }

    /// Ends the archive. Returns what it was written to, and how many pipes, sockets and devices are not in it.
    ///
    /// # Errors
    /// What writing fails with.
    pub fn finish(self) -> io::Result<(W, u64)> {
        Ok((self.tar.into_inner()?, self.left_out))
    }
}

/// Puts what an archive has into a directory that nobody else uses. Owners are kept if the process may give files away.
///
/// # Errors
/// What reading and writing fail with; also when an entry leads out of the directory.
pub fn unarchive(archive: impl Read, folder: &Path) -> io::Result<()> {
    reader(archive).unpack(folder)
}

/// Puts those files of an archive into a directory whose names are wanted.
///
/// # Errors
/// As [`unarchive`].
pub fn unarchive_files(archive: impl Read, folder: &Path, is_wanted: impl Fn(&Path) -> bool) -> io::Result<()> {
    for entry in reader(archive).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() && is_wanted(&entry.path()?) {
            entry.unpack_in(folder)?;
        }
    }
    Ok(())
}

fn reader<R: Read>(archive: R) -> tar::Archive<R> {
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(rustix::process::geteuid().is_root());
    archive.set_preserve_mtime(true);
    archive
}

fn header(metadata: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    header
}

/// Opens what is called `name` in `parent`, a symbolic link itself; nothing where it is gone, or something is mounted on it.
fn open(parent: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> io::Result<Option<OwnedFd>> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
        // A socket, or a link where there was a file.
        Err(Errno::NOENT | Errno::XDEV | Errno::NXIO | Errno::LOOP) => Ok(None),
        found => Ok(Some(found?)),
    }
}

fn at(root: &Path, name: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{} in {}: {error}", name.display(), root.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

    use super::*;

    fn archived(root: &Path, names: &[&str]) -> io::Result<(Vec<u8>, u64)> {
        let mut archiver = Archiver::new(Vec::new());
        names.iter().try_for_each(|name| archiver.add(root, Path::new(name)))?;
        archiver.finish()
    }

    #[test]
    fn a_tree_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("kept/tree");
        let deep = tree.join("a".repeat(120)).join("b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(folder.path().join("kept/other"), "other").unwrap();
        fs::write(folder.path().join("kept/third"), "third").unwrap();
        fs::set_permissions(folder.path().join("kept"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(deep.join("file"), "text").unwrap();
        fs::set_permissions(deep.join("file"), fs::Permissions::from_mode(0o604)).unwrap();
        fs::set_permissions(&deep, fs::Permissions::from_mode(0o1777)).unwrap();
        fs::hard_link(deep.join("file"), tree.join("again")).unwrap();
        symlink("/nowhere/at all", tree.join("link")).unwrap();
        let holes = File::create(tree.join("holes")).unwrap();
        holes.set_len(1 << 30).unwrap();
        holes.write_all_at(b"here", 1 << 29).unwrap();
        rustix::fs::mknodat(CWD, tree.join("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();

        let (archive, left_out) = archived(folder.path(), &["kept/tree", "none/of/it", "kept/other"]).unwrap();
        assert_eq!(left_out, 2);
        assert!(archive.len() < 10 << 20, "holes take no space: {}", archive.len());
        let into = folder.path().join("into");
        fs::create_dir(&into).unwrap();
        unarchive(&*archive, &into).unwrap();
        let tree = into.join("kept/tree");
        let deep = tree.join("a".repeat(120)).join("b");
        assert_eq!(fs::read_to_string(deep.join("file")).unwrap(), "text");
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&deep.join("file")), mode(&deep), mode(&into.join("kept"))), (0o604, 0o1777, 0o700));
        let beside = |name: &str| fs::read_to_string(into.join("kept").join(name)).ok();
        assert_eq!((beside("other").as_deref(), beside("third")), (Some("other"), None));
        let number = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(number(&deep.join("file")), number(&tree.join("again")));
        assert_eq!(fs::read_link(tree.join("link")).unwrap(), Path::new("/nowhere/at all"));
        let alone = folder.path().join("alone");
        fs::create_dir(&alone).unwrap();
        unarchive_files(&*archive, &alone, |path| path.ends_with("other")).unwrap();
        assert_eq!(fs::read_dir(alone.join("kept")).unwrap().count(), 1);
        let holes = File::open(tree.join("holes")).unwrap();
        let mut found = [0; 4];
        holes.read_exact_at(&mut found, 1 << 29).unwrap();
        assert_eq!((&found, holes.metadata().unwrap().len()), (b"here", 1 << 30));
        assert!(holes.metadata().unwrap().blocks() < 1000, "they are holes again");
        assert!(!tree.join("pipe").exists() && !tree.join("socket").exists());
    }

    #[test]
    fn links_are_not_followed_and_what_is_missing_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("secret")).unwrap();
        fs::write(folder.path().join("secret/file"), "secret").unwrap();
        symlink(folder.path().join("secret"), folder.path().join("tree")).unwrap();
        let (archive, _) = archived(folder.path(), &["tree", "tree/file"]).unwrap();
        assert!(!archive.windows(4).any(|window| window == b"file"), "what the link leads to is not in it");
        let into = folder.path().join("into");
        fs::create_dir(&into).unwrap();
        unarchive(&*archive, &into).unwrap();
        assert!(fs::symlink_metadata(into.join("tree")).unwrap().is_symlink());
        for missing in ["none", "no/such/parent"] {
            archived(folder.path(), &[missing]).unwrap();
        }
    }

    /// A pod can make a tree of any depth.
    #[test]
    fn a_tree_that_is_too_deep_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let levels = |count: usize| {
            let tree = folder.path().join(count.to_string());
            fs::create_dir_all((0..count).fold(tree.clone(), |path, _| path.join("d"))).unwrap();
            archived(folder.path(), &[&count.to_string()]).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(levels(DEPTH - 1), Ok(()));
        let why = levels(DEPTH).unwrap_err();
        assert!(why.contains("more than 128 directories deep"), "{why}");
    }

    /// Needs the right to mount, as root has it.
    #[test]
    fn what_is_mounted_is_left_out() {
        use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
        let folder = tempfile::tempdir().unwrap();
        let mounted = folder.path().join("tree/mounted");
        fs::create_dir_all(&mounted).unwrap();
        match mount("tmpfs", &mounted, "tmpfs", MountFlags::empty(), None) {
            Err(Errno::PERM) => return,
            result => result.unwrap(),
        }
        fs::write(mounted.join("file"), "in memory").unwrap();
        let made = archived(folder.path(), &["tree"]);
        unmount(&mounted, UnmountFlags::DETACH).unwrap();
        let into = folder.path().join("into");
        fs::create_dir(&into).unwrap();
        unarchive(&*made.unwrap().0, &into).unwrap();
        assert!(into.join("tree").is_dir() && !into.join("tree/mounted").exists());
    }
}
