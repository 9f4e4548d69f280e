//! Small files that only their owner may read, replaced whole.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Permissions of a private file.
const MODE: u32 = 0o600;

/// Writes `text` to the file at `path` with mode 0600, so that a reader sees the old or the new text and never half of one,
/// also after a power cut. A file that says the same already is left alone, so that this works on a full disk.
///
/// # Errors
/// The first error of the file system. Then the file is as it was, or has the new text and may lose it in a power cut.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    if is_private(path) && fs::read(path).is_ok_and(|known| known == text.as_bytes()) {
        return Ok(());
    }
    let temporary = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&temporary)?;
        // One that was left behind has whatever mode it had.
        file.set_permissions(Permissions::from_mode(MODE))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    if let Err(error) = write() {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    // The rename itself is durable once the directory is.
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn is_private(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.mode() & 0o7777 == MODE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_only_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_private(&path, "one").unwrap();
        let inode = || fs::metadata(&path).unwrap().ino();
        let first = inode();
        write_private(&path, "one").unwrap();
        assert_eq!(inode(), first, "nothing was written");
        // The number of a file that is gone may be used again.
        let old = File::open(&path).unwrap();
        write_private(&path, "two").unwrap();
        assert_ne!(inode(), first);
        assert_eq!(
            (io::read_to_string(old).unwrap(), fs::read_to_string(&path).unwrap()),
            ("one".into(), "two".into())
        );
    }

    #[test]
    fn others_lose_their_access() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "same").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        write_private(&path, "same").unwrap();
        assert!(is_private(&path));
    }

    #[test]
    fn an_error_leaves_the_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_private(&path, "kept").unwrap();
        fs::create_dir(folder.path().join("key.new")).unwrap();
        write_private(&path, "other").unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    }
}
