//! `fsGroup`: gives a volume to a group, on descriptors, so that no link that a container puts there is followed.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags};
use rustix::io::Errno;

/// How deep a volume may be; each level takes a descriptor. Upstream walks by paths, which end at 4,096 bytes.
const DEPTH: usize = 256;

/// Gives a volume to a group: it owns everything in it, and what is created in it later belongs to it, too.
/// Without the privilege to do so the volume stays as it is, and the answer is false. Blocks.
///
/// Upstream: `pkg/volume/volume_linux.go`, `changeFilePermission`, with its masks.
pub(crate) fn give_to_group(path: &Path, group: u32, read_only: bool) -> io::Result<bool> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, path, flags | OFlags::NOFOLLOW, Mode::empty())?;
    let mask = if read_only { 0o440 } else { 0o660 };
    Ok(give(root, group, mask, 0)?)
}

fn give(file: OwnedFd, group: u32, mask: u32, depth: usize) -> Result<bool, Errno> {
    let stat = rustix::fs::fstat(&file)?;
    let file_type = FileType::from_raw_mode(stat.st_mode);
    if file_type == FileType::Symlink {
        return Ok(true);
    }
    match rustix::fs::chownat(&file, "", None, Some(Gid::from_raw(group)), AtFlags::EMPTY_PATH) {
        Err(Errno::PERM) => return Ok(false),
        result => result?,
    }
    let is_directory = file_type == FileType::Directory;
    let more = if is_directory { mask | 0o2110 } else { mask };
    // A descriptor that only names a file takes no fchmod(2); this leads to the same file, whatever its path is now.
    let same = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::chmod(same, Mode::from_raw_mode((stat.st_mode & 0o7777) | more))?;
    if !is_directory {
        return Ok(true);
    }
    if depth >= DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut entries = Dir::new(rustix::fs::openat(&file, ".", flags, Mode::empty())?)?;
    drop(file);
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let below = match rustix::fs::openat(entries.fd()?, name, flags, Mode::empty()) {
            // A volume that others use as well goes on changing.
            Err(Errno::NOENT) => continue,
            below => below?,
        };
        if !give(below, group, mask, depth + 1)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    /// Needs root, as every change of a group to one that is not the process's own.
    #[test]
    fn everything_but_what_links_lead_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("volume/sub")).unwrap();
        for file in ["outside", "volume/sub/file"] {
            fs::write(at(file), "").unwrap();
            fs::set_permissions(at(file), fs::Permissions::from_mode(0o600)).unwrap();
        }
        symlink(at("outside"), at("volume/link")).unwrap();
        symlink(folder.path(), at("volume/up")).unwrap();
        assert!(give_to_group(&at("volume"), 4321, false).unwrap());
        let check = |name: &str, group: u32, mode: u32| {
            let metadata = fs::metadata(at(name)).unwrap();
            assert_eq!((metadata.gid(), metadata.mode() & 0o7777), (group, mode), "{name}");
        };
        check("volume", 4321, 0o2775);
        check("volume/sub", 4321, 0o2775);
        check("volume/sub/file", 4321, 0o660);
        check("outside", fs::metadata(folder.path()).unwrap().gid(), 0o600);
        assert!(give_to_group(&at("volume/sub/file"), 4321, true).unwrap());
    }

    #[test]
    fn a_volume_without_end_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut current = rustix::fs::open(folder.path(), flags, Mode::empty()).unwrap();
        for _ in 0..=DEPTH {
            rustix::fs::mkdirat(&current, "d", Mode::RWXU).unwrap();
            current = rustix::fs::openat(&current, "d", flags, Mode::empty()).unwrap();
        }
        assert!(give_to_group(folder.path(), 4321, false).is_err());
        drop(current);
        hostfs::remove_tree(&folder.path().join("d")).unwrap();
    }
}
