//! Files that change all at once.
//!
//! ```text
//! ..2026_11_23_06_30_00.1/   the files
//! ..data -> ..2026_…         replaced by a rename, which is atomic
//! key -> ..data/key          what programs open
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::group::give_to_group;
use super::payload::{File, Payload};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes `directory` show `payload`, and belong to `group`. Answers whether something changed. Readers see the old files or the
/// new ones, never a mixture, nor files that they may not read yet.
pub(crate) fn write(directory: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    fs::create_dir_all(directory)?;
    let old = match fs::read_link(directory.join(DATA)) {
        Ok(target) => Some(target),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let links: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    if old.as_ref().is_some_and(|old| shows(&directory.join(old), payload)) {
        // An interrupted earlier write may have left links out.
        link(directory, &links)?;
        return match group.filter(|group| !belongs_to(&directory.join(DATA), payload, *group)) {
            // Without the privilege it stays as it is.
            Some(group) => give_to_group(directory, group, true),
            None => Ok(false),
        };
    }

    let now = jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S");
    let name = (0u32..)
        .map(|number| format!("..{now}.{number}"))
        .find(|name| !directory.join(name).exists())
        .unwrap_or_default();
    let fresh = directory.join(&name);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        let path = fresh.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
        if file.owner.is_some() {
            std::os::unix::fs::lchown(&path, file.owner, None)?;
        }
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    if let Some(group) = group {
        give_to_group(directory, group, true)?;
    }
    let new_data = directory.join(NEW_DATA);
    remove_if_there(&new_data)?;
    symlink(&name, &new_data)?;
    fs::rename(&new_data, directory.join(DATA))?;
    link(directory, &links)?;
    if let Some(old) = old {
        hostfs::remove_tree(&directory.join(old))?;
    }
    Ok(true)
}

/// Whether the files in `directory` are exactly those of `payload`.
fn shows(directory: &Path, payload: &Payload) -> bool {
    let same = |(path, file): (&String, &File)| {
        let path = directory.join(path);
        let allowed = fs::metadata(&path).is_ok_and(|metadata| {
            let mode = metadata.mode() & 0o777;
            // An owner by fsGroup adds permissions for the group.
            (mode == file.mode || mode == file.mode | 0o440) && file.owner.is_none_or(|owner| owner == metadata.uid())
        });
        allowed && hostfs::has_content(&path, &file.content)
    };
    count(directory).is_ok_and(|count| count == payload.len()) && payload.iter().all(same)
}

/// Whether the files of `payload` in `directory` are the group's to read.
fn belongs_to(directory: &Path, payload: &Payload, group: u32) -> bool {
    let belongs = |metadata: fs::Metadata| metadata.gid() == group && metadata.mode() & 0o440 == 0o440;
    payload.keys().all(|path| fs::metadata(directory.join(path)).is_ok_and(belongs))
}

fn count(directory: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        files += match entry.file_type()?.is_dir() {
            true => count(&entry.path())?,
            false => 1,
        };
    }
    Ok(files)
}

/// Makes the visible links be `links`.
fn link(directory: &Path, links: &BTreeSet<&str>) -> io::Result<()> {
    for name in links {
        match symlink(Path::new(DATA).join(name), directory.join(name)) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            result => result?,
        }
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let stale = name.to_str().is_none_or(|name| !name.starts_with("..") && !links.contains(name));
        if stale && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        let file = |(path, content, mode): &(&str, &str, u32)| {
            let content = content.as_bytes().to_vec();
            ((*path).to_owned(), File { content, mode: *mode, owner: None })
        };
        files.iter().map(file).collect()
    }

    fn read(directory: &Path, path: &str) -> Option<String> {
        fs::read_to_string(directory.join(path)).ok()
    }

    #[test]
    fn files_switch_together() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        assert!(write(directory, &payload(&[("a", "1", 0o644), ("d/b", "2", 0o600)]), None).unwrap());
        assert_eq!(read(directory, "a").as_deref(), Some("1"));
        assert_eq!(read(directory, "d/b").as_deref(), Some("2"));
        let mode = fs::metadata(directory.join("d/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let first = fs::read_link(directory.join(DATA)).unwrap();

        // The same again changes nothing.
        assert!(!write(directory, &payload(&[("a", "1", 0o644), ("d/b", "2", 0o600)]), None).unwrap());
        assert_eq!(fs::read_link(directory.join(DATA)).unwrap(), first);

        assert!(write(directory, &payload(&[("a", "3", 0o644), ("c", "4", 0o644)]), None).unwrap());
        assert_eq!(read(directory, "a").as_deref(), Some("3"));
        assert_eq!(read(directory, "c").as_deref(), Some("4"));
        assert!(fs::symlink_metadata(directory.join("d")).is_err());
        assert!(!directory.join(first).exists());
        // One directory of files, the link to it, two visible links.
        assert_eq!(fs::read_dir(directory).unwrap().count(), 4);
    }

    #[test]
    fn nothing_is_a_payload_too() {
        let directory = tempfile::tempdir().unwrap();
        assert!(write(directory.path(), &Payload::new(), None).unwrap());
        assert!(!write(directory.path(), &Payload::new(), None).unwrap());
    }

    /// Needs root, as every change of a group to one that is not the process's own.
    #[test]
    fn a_group_can_read_files_as_soon_as_they_are_shown() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let mut payload = payload(&[("a", "1", 0o400), ("d/b", "2", 0o600)]);
        let check = |name: &str, group: u32, mode: u32| {
            let metadata = fs::metadata(directory.join(DATA).join(name)).unwrap();
            assert_eq!((metadata.gid(), metadata.mode() & 0o777), (group, mode), "{name}");
        };
        assert!(write(directory, &payload, Some(4321)).unwrap());
        check("a", 4321, 0o440);
        check("d/b", 4321, 0o640);
        assert!(!write(directory, &payload, Some(4321)).unwrap());
        // What an earlier process left half done is put right.
        std::os::unix::fs::lchown(directory.join(DATA).join("d/b"), None, Some(4322)).unwrap();
        assert!(write(directory, &payload, Some(4321)).unwrap());
        check("d/b", 4321, 0o640);
        payload.get_mut("a").unwrap().owner = Some(4000);
        assert!(write(directory, &payload, Some(4321)).unwrap());
        assert_eq!(fs::metadata(directory.join(DATA).join("a")).unwrap().uid(), 4000);
        assert!(!write(directory, &payload, Some(4321)).unwrap());
    }
}
