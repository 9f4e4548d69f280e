//! Folders that somebody wrote down, to tell later whose things are.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Whether the folder that was written down is another than `own`, which is canonical, and is still there. One that may not
/// be looked at is there; one that was moved, with a symbolic link left in its place, is where it was moved to.
pub fn is_another_folder(recorded: &Path, own: &Path) -> bool {
    let is_gone = fs::symlink_metadata(recorded).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    !is_gone && fs::canonicalize(recorded).as_deref().unwrap_or(recorded) != own
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_that_was_moved_is_no_other() {
        let home = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(home.path()).unwrap();
        let [own, other, moved, dangling, gone] =
            ["own", "other", "moved", "dangling", "gone"].map(|name| home.join(name));
        fs::create_dir(&own).unwrap();
        fs::create_dir(&other).unwrap();
        symlink(&own, &moved).unwrap();
        symlink(&gone, &dangling).unwrap();
        let answers = [&own, &moved, &gone, &other, &dangling].map(|recorded| is_another_folder(recorded, &own));
        // What a link leads to may only be away for a while.
        assert_eq!(answers, [false, false, false, true, true]);
    }
}
