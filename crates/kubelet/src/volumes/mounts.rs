//! Which of a pod's volumes a container sees, and where.

use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, VolumeMount};
use runtime::{Mount, Propagation};

use super::subpath::{self, Source, SubPaths};
use super::{Mounted, Mounting, PodDirectory};
use crate::values::expand;

/// The mounts of `container`, and what must be held until it has been started. The error is the message of
/// `CreateContainerConfigError`. Blocks: sub-paths are created and bound. `recursive_read_only` is whether the runtime can make
/// what is mounted below a volume read-only, too.
pub(crate) fn mounts(
    container: &Container,
    volumes: &Mounted,
    env: &[(String, String)],
    directory: &PodDirectory,
    recursive_read_only: bool,
) -> Result<(Vec<Mount>, SubPaths), String> {
    let mut mounts = Vec::new();
    let mut held = SubPaths::new(directory.sub_paths(&container.name));
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = volumes.get(&mount.name).ok_or_else(|| format!("volume \"{}\" is not mounted", mount.name))?;
        let source = match sub_path(mount, env)? {
            Some(sub_path) => hold(&mut held, index, volume, &sub_path).map_err(|error| {
                format!(
                    "failed to prepare subPath for volumeMount \"{}\" of container \"{}\": {error}",
                    mount.name, container.name
                )
            })?,
            None => Source { path: volume.path.clone(), descriptor: false },
        };
        let recursive = mount.recursive_read_only.as_deref() == Some("Enabled");
        if recursive && (!recursive_read_only || source.descriptor) {
            let why = match source.descriptor {
                true => "a subPath cannot be",
                false => "it needs Docker 25 or newer",
            };
            let (name, container) = (&mount.name, &container.name);
            return Err(format!(
                "recursiveReadOnly of volumeMount \"{name}\" of container \"{container}\" cannot be enforced: {why}"
            ));
        }
        // Like upstream, a relative path counts from the root.
        let container_path = Path::new("/").join(&mount.mount_path);
        mounts.push(Mount {
            host_path: source.path,
            descriptor: source.descriptor,
            container_path,
            read_only: mount.read_only == Some(true) || volume.read_only,
            recursive_read_only: recursive,
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::Private,
            },
        });
    }
    Ok((mounts, held))
}

fn hold(held: &mut SubPaths, index: usize, volume: &Mounting, sub_path: &str) -> io::Result<Source> {
    held.hold(index, subpath::open(&volume.path, sub_path)?, volume.private)
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
