//! Volumes that are directories or files of the machine: `hostPath` and `emptyDir`.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, PodSpec};
use machinery::quantity::Quantity;
use rustix::mount::MountFlags;

use crate::values::resources::memory_limit;

/// Checks that a `hostPath` is what it says to be, and creates what it allows to be created.
pub(crate) fn host_path(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let metadata = fs::metadata(path);
    let failed = |what: &str| Err(format!("hostPath type check failed: {} is not {what}", source.path));
    let exists = |is: fn(&fs::FileType) -> bool| metadata.as_ref().is_ok_and(|metadata| is(&metadata.file_type()));
    let missing = matches!(&metadata, Err(error) if error.kind() == ErrorKind::NotFound);
    let create = |result: io::Result<()>| result.map_err(|error| format!("{}: {error}", source.path));
    match kind {
        // Without a type nothing is checked; the runtimes upstream knows create a directory.
        "" if missing => create(fs::create_dir_all(path)),
        "" => Ok(()),
        "DirectoryOrCreate" if missing => create(fs::create_dir_all(path)),
        "Directory" | "DirectoryOrCreate" if exists(fs::FileType::is_dir) => Ok(()),
        "Directory" | "DirectoryOrCreate" => failed("a directory"),
        // Created or nothing: whatever is there by now is neither waited for nor emptied.
        "FileOrCreate" if missing => create(fs::File::create_new(path).map(drop)),
        "File" | "FileOrCreate" if exists(fs::FileType::is_file) => Ok(()),
        "File" | "FileOrCreate" => failed("a file"),
        "Socket" if exists(FileTypeExt::is_socket) => Ok(()),
        "Socket" => failed("a socket file"),
        "CharDevice" if exists(FileTypeExt::is_char_device) => Ok(()),
        "CharDevice" => failed("a character device"),
        "BlockDevice" if exists(FileTypeExt::is_block_device) => Ok(()),
        "BlockDevice" => failed("a block device"),
        other => Err(format!("unknown hostPath type {other}")),
    }
}

/// What an `emptyDir` was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    Disk,
    Memory,
}

/// Makes the directory of an `emptyDir`, unless `ready` says that this was done and is not undone by a restart of the machine.
/// `medium: Memory` is a tmpfs where the privilege to mount one is there, else a directory like any other. A tmpfs has `size`
/// bytes at most; what else is over its limit is evicted. `finish` is what is left to do.
///
/// `ready` is written last: what was cut short is done again (upstream: `SetUpAt` in `pkg/volume/emptydir/empty_dir.go`, with
/// `IsReady` and `SetReady`). A directory that is not noted and has something in it is in use since a version that noted
/// nothing: no container starts before its volumes are complete. It is noted as it is.
pub(crate) fn empty_dir(
    directory: &Path,
    ready: &Path,
    source: &EmptyDirVolumeSource,
    size: i64,
    finish: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let is_there = match made_of(ready) {
        Some(Medium::Disk) => directory.is_dir(),
        Some(Medium::Memory) => is_mounted(directory),
        None if is_used(directory) => {
            return note(ready, if is_mounted(directory) { Medium::Memory } else { Medium::Disk });
        }
        None => false,
    };
    if is_there {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    let mut medium = Medium::Disk;
    if source.medium.as_deref() == Some("Memory") {
        let mounted = match is_mounted(directory) {
            true => Ok(()),
            false => mount_tmpfs(directory, Some(size).filter(|size| *size > 0)),
        };
        match mounted {
            Ok(()) => medium = Medium::Memory,
            Err(error) => tracing::debug!(%error, "no tmpfs for an emptyDir, using the disk"),
        }
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777))?;
    finish()?;
    note(ready, medium)
}

/// Notes that an `emptyDir` is complete.
fn note(ready: &Path, medium: Medium) -> io::Result<()> {
    // What it was made of is told by the name: an empty file needs next to nothing of a disk that is full.
    match fs::remove_dir_all(ready) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(ready)?,
    }
    fs::File::create(ready.join(medium.name())).map(drop)
}

impl Medium {
    fn name(self) -> &'static str {
        match self {
            Self::Disk => "ready",
            Self::Memory => "ready-in-memory",
        }
    }
}

fn made_of(ready: &Path) -> Option<Medium> {
    [Medium::Memory, Medium::Disk].into_iter().find(|medium| ready.join(medium.name()).exists())
}

/// Whether a directory has something in it. One that may not be read has been taken over by whoever used it.
fn is_used(directory: &Path) -> bool {
    match fs::read_dir(directory) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    }
}

/// Whether something is mounted on `directory` itself.
fn is_mounted(directory: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).ok().map(|metadata| metadata.dev());
    let own = device(directory);
    own.is_some() && directory.parent().is_some_and(|parent| own != device(parent))
}

/// How large an `emptyDir` in memory is: as large as its limit, the memory of its pod, and that of the node allow
/// (upstream: `calculateEmptyDirMemorySize` in `pkg/volume/emptydir/empty_dir.go`).
pub(crate) fn memory_size(spec: &PodSpec, source: &EmptyDirVolumeSource, node: i64) -> i64 {
    let own = source.size_limit.as_ref().and_then(|limit| limit.0.parse::<Quantity>().ok());
    [own.map(|own| own.value()), memory_limit(spec), Some(node)]
        .into_iter()
        .flatten()
        .filter(|bytes| *bytes > 0)
        .min()
        .unwrap_or_default()
}

fn mount_tmpfs(directory: &Path, size: Option<i64>) -> io::Result<()> {
    let options = size.map_or_else(|| "mode=0777".to_owned(), |size| format!("mode=0777,size={size}"));
    let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", directory, "tmpfs", flags, options.as_c_str())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_path_types() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().to_str().unwrap();
        fs::write(format!("{root}/file"), "").unwrap();
        for (path, kind, error) in [
            ("new/deep", "", None),
            ("new/deep", "Directory", None),
            ("dir", "DirectoryOrCreate", None),
            ("dir", "File", Some("a file")),
            ("file", "File", None),
            ("file", "Directory", Some("a directory")),
            ("file2", "FileOrCreate", None),
            ("file2", "File", None),
            ("none", "File", Some("a file")),
            ("none", "Directory", Some("a directory")),
            ("none", "Socket", Some("a socket file")),
            ("file", "CharDevice", Some("a character device")),
            ("file", "BlockDevice", Some("a block device")),
        ] {
            let path = format!("{root}/{path}");
            let source = HostPathVolumeSource { path: path.clone(), type_: Some(kind.to_owned()) };
            let expect = error.map_or(Ok(()), |what| Err(format!("hostPath type check failed: {path} is not {what}")));
            assert_eq!(host_path(&source), expect, "{path} {kind}");
        }
        let device = HostPathVolumeSource { path: "/dev/null".to_owned(), type_: Some("CharDevice".to_owned()) };
        assert_eq!(host_path(&device), Ok(()));
    }

    #[test]
    fn empty_dirs_are_for_everyone() {
        let root = tempfile::tempdir().unwrap();
        let (directory, ready) = (root.path().join("v"), root.path().join("ready"));
        let make = || {
            let mut finished = false;
            let finish = || {
                finished = true;
                Ok(())
            };
            empty_dir(&directory, &ready, &EmptyDirVolumeSource::default(), 0, finish).unwrap();
            finished
        };
        let mode = || fs::metadata(&directory).unwrap().permissions().mode() & 0o777;
        assert!(make() && mode() == 0o777);
        // It is the pod's from then on.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(!make() && mode() == 0o750);
    }

    /// A kill between any two steps leaves what the next start must finish.
    #[test]
    fn an_empty_dir_that_was_cut_short_is_finished() {
        let root = tempfile::tempdir().unwrap();
        let (directory, ready) = (root.path().join("v"), root.path().join("ready"));
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        let source = EmptyDirVolumeSource::default();
        let cut = || Err(io::Error::other("killed"));
        empty_dir(&directory, &ready, &source, 0, cut).unwrap_err();
        let mut finished = false;
        let finish = || {
            finished = true;
            Ok(())
        };
        empty_dir(&directory, &ready, &source, 0, finish).unwrap();
        assert!(finished && fs::metadata(&directory).unwrap().permissions().mode() & 0o777 == 0o777);
    }

    #[test]
    fn an_empty_dir_of_a_version_that_noted_nothing_stays_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let (directory, ready) = (root.path().join("v"), root.path().join("ready"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("file"), "kept").unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o750)).unwrap();
        let finish = || Err(io::Error::other("it is the pod's"));
        empty_dir(&directory, &ready, &EmptyDirVolumeSource::default(), 0, finish).unwrap();
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o750);
        assert_eq!(made_of(&ready), Some(Medium::Disk));
        // Noted is noted, whatever the pod removes.
        fs::remove_file(directory.join("file")).unwrap();
        empty_dir(&directory, &ready, &EmptyDirVolumeSource::default(), 0, finish).unwrap();
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o750);
    }

    /// Needs the right to mount, as root has it.
    #[test]
    fn an_empty_dir_in_memory_is_mounted_once_and_again_after_a_restart_of_the_machine() {
        let root = tempfile::tempdir().unwrap();
        let (directory, ready) = (root.path().join("v"), root.path().join("ready"));
        let source = EmptyDirVolumeSource { medium: Some("Memory".to_owned()), size_limit: None };
        let make = || empty_dir(&directory, &ready, &source, 1 << 20, || Ok(())).unwrap();
        // It was cut short before the tmpfs was mounted.
        fs::create_dir(&directory).unwrap();
        make();
        assert!(is_mounted(&directory));
        fs::write(directory.join("file"), "kept").unwrap();
        make();
        assert_eq!(fs::read_to_string(directory.join("file")).unwrap(), "kept");
        // And after that, but before it was noted.
        fs::remove_dir_all(&ready).unwrap();
        make();
        assert_eq!(fs::read_to_string(directory.join("file")).unwrap(), "kept");
        assert_eq!(made_of(&ready), Some(Medium::Memory));
        rustix::mount::unmount(&directory, rustix::mount::UnmountFlags::empty()).unwrap();
        make();
        assert!(is_mounted(&directory) && !directory.join("file").exists());
        rustix::mount::unmount(&directory, rustix::mount::UnmountFlags::empty()).unwrap();
    }

    #[test]
    fn memory_has_the_size_of_the_smallest_limit() {
        use serde_json::json;

        let check = |limit: Option<&str>, limits: &[&str], expect: i64| {
            let containers: Vec<_> =
                limits.iter().map(|limit| json!({"name": "c", "resources": {"limits": {"memory": limit}}})).collect();
            let spec: PodSpec = serde_json::from_value(json!({ "containers": containers })).unwrap();
            let source = serde_json::from_value(json!({"medium": "Memory", "sizeLimit": limit})).unwrap();
            assert_eq!(memory_size(&spec, &source, 1000), expect, "{limit:?} {limits:?}");
        };
        check(None, &[], 1000);
        check(Some("10"), &[], 10);
        check(Some("0"), &[], 1000);
        check(Some("10"), &["5"], 5);
        check(Some("20"), &["5", "7"], 12);
        // One may use all of the node's.
        check(None, &["5", "0"], 1000);
        check(Some("5000"), &[], 1000);
    }
}
