//! Small private files, replaced whole.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use super::PkiError;

/// Makes `directory`, its parents too, and sees that nobody else may look into it.
pub(super) fn make_private_directory(directory: &Path) -> Result<(), PkiError> {
    let make = || {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        fs::set_permissions(directory, Permissions::from_mode(0o700))
    };
    make().map_err(failed(directory))
}

/// The text of a file; `None` when there is none. One that is empty has lost its text, and is as good as none.
pub(super) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned()).filter(|text| !text.trim().is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path)(error)),
    }
}

/// Writes a private file; see [`hostfs::write_private`].
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    hostfs::write_private(path, text).map_err(failed(path))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::Io { path: path.clone(), source }
}
