//! Which of a pod's volumes a container sees, and where.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, VolumeMount};
use runtime::{Mount, Propagation};

use super::Mounted;
use crate::container::expand;

/// The mounts of `container`. The error is the message of `CreateContainerConfigError`. Blocks: sub-paths are created.
pub(crate) fn mounts(container: &Container, volumes: &Mounted, env: &[(String, String)]) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes.get(&mount.name).ok_or_else(|| format!("volume \"{}\" is not mounted", mount.name))?;
        let host_path = match sub_path(mount, env)? {
            Some(sub_path) => below(&volume.path, &sub_path, mount)?,
            None => volume.path.clone(),
        };
        // Like upstream, a relative path counts from the root.
        let container_path = Path::new("/").join(&mount.mount_path);
        mounts.push(Mount {
            host_path,
            container_path,
            read_only: mount.read_only == Some(true) || volume.read_only,
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::Private,
            },
        });
    }
    Ok(mounts)
}

fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Result<Option<String>, String> {
    if let Some(expression) = mount.sub_path_expr.as_deref().filter(|text| !text.is_empty()) {
        let missing = std::cell::RefCell::new(None);
        let path = expand(expression, |name| {
            let value = env.iter().find(|(key, _)| key == name);
            if value.is_none() {
                missing.replace(Some(name.to_owned()));
            }
            value.map(|(_, value)| value.clone())
        });
        return match missing.into_inner() {
            Some(name) => Err(format!("missing value for \"{name}\"")),
            None => Ok(Some(path)),
        };
    }
    Ok(mount.sub_path.clone().filter(|path| !path.is_empty()))
}

/// The path of `sub_path` in `volume`, made if it is missing. It must not lead out of the volume, by `..` or by a link
/// that a container has put there.
fn below(volume: &Path, sub_path: &str, mount: &VolumeMount) -> Result<PathBuf, String> {
    let failed = |why: &str| {
        format!("failed to create subPath directory for volumeMount \"{}\" of container: {why}", mount.name)
    };
    let relative = Path::new(sub_path);
    let normal = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    if !relative.components().all(normal) {
        return Err(failed("the path must be relative and must not contain '..'"));
    }
    let root = fs::canonicalize(volume).map_err(|error| failed(&error.to_string()))?;
    let path = root.join(relative);
    // Directories are made one by one, so that a link in the middle is seen before it is followed.
    let mut made = root.clone();
    for component in relative.components() {
        made.push(component);
        match fs::canonicalize(&made) {
            Ok(real) if real.starts_with(&root) => {}
            Ok(_) => return Err(failed("the path leads out of the volume")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let mode = fs::metadata(&root).map_or(0o755, |root| root.permissions().mode());
                // What is made in a volume of a group belongs to that group, too.
                let mode = mode & 0o2777;
                fs::DirBuilder::new()
                    .mode(mode)
                    .create(&made)
                    .and_then(|()| fs::set_permissions(&made, fs::Permissions::from_mode(mode)))
                    .map_err(|error| failed(&error.to_string()))?;
            }
            Err(error) => return Err(failed(&error.to_string())),
        }
    }
    fs::canonicalize(&path).map_err(|error| failed(&error.to_string()))
}
