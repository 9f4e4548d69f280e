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
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::payload::Payload;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes `directory` show `payload`. Answers whether something changed. Readers see the old files or the new ones, never
/// a mixture.
pub(crate) fn write(directory: &Path, payload: &Payload) -> io::Result<bool> {
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
        return Ok(false);
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
    let same = |(path, file): (&String, &super::payload::File)| {
        let path = directory.join(path);
        let mode = fs::metadata(&path).map(|meta| meta.permissions().mode() & 0o777);
        // An owner by fsGroup adds permissions for the group.
        let allowed = mode.is_ok_and(|mode| mode == file.mode || mode == file.mode | 0o440);
        allowed && hostfs::has_content(&path, &file.content)
    };
    count(directory).is_ok_and(|count| count == payload.len()) && payload.iter().all(same)
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
    use crate::volumes::payload::File;

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
        assert!(write(directory, &payload(&[("a", "1", 0o644), ("d/b", "2", 0o600)])).unwrap());
        assert_eq!(read(directory, "a").as_deref(), Some("1"));
        assert_eq!(read(directory, "d/b").as_deref(), Some("2"));
        let mode = fs::metadata(directory.join("d/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let first = fs::read_link(directory.join(DATA)).unwrap();

        // The same again changes nothing.
        assert!(!write(directory, &payload(&[("a", "1", 0o644), ("d/b", "2", 0o600)])).unwrap());
        assert_eq!(fs::read_link(directory.join(DATA)).unwrap(), first);

        assert!(write(directory, &payload(&[("a", "3", 0o644), ("c", "4", 0o644)])).unwrap());
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
        assert!(write(directory.path(), &Payload::new()).unwrap());
        assert!(!write(directory.path(), &Payload::new()).unwrap());
    }
}
