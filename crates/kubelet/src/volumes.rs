//! Volumes: what a pod's containers see of the machine and of the API.
//!
//! Everything lives in `STATE/pods/UID/`, laid out as upstream does:
//!
//! ```text
//! volumes/kubernetes.io~empty-dir/NAME
//! volumes/kubernetes.io~configmap|secret|downward-api|projected/NAME
//! volumes/kubernetes.io~local-volume/NAME     says that a claim's volume has been given to the pod's group
//! volume-subpaths/CONTAINER    parts of volumes, while the container is being started
//! containers/NAME/ATTEMPT      termination log
//! plugins/kubernetes.io~empty-dir/NAME        says that an emptyDir is complete, and what it was made of
//! etc-hosts, etc-resolv.conf
//! evicted                      why the pod was evicted
//! ```

mod atomic;
pub(crate) mod claim;
mod group;
mod local;
mod mounts;
mod payload;
mod subpath;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, PodSpec, Volume};

pub(crate) use mounts::mounts;
pub(crate) use payload::Sources;
pub(crate) use subpath::SubPaths;

/// Name of the file that says why a pod was evicted, and how much of it is read.
const EVICTED: &str = "evicted";
const LONGEST_MESSAGE: u64 = 64 << 10;

/// What of the directories of all pods of a kubelet with this folder cannot be made again: what is in `emptyDir` volumes, what
/// says that they are complete, and that a pod was evicted. Blocks.
///
/// # Errors
/// When the directory of pods cannot be read; it need not be there.
pub fn lasting(state_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let pods = match fs::read_dir(pods_directory(state_dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        pods => pods?,
    };
    let mut kept = Vec::new();
    for pod in pods {
        let pod = PodDirectory(pod?.path());
        kept.extend([pod.empty_dirs(), pod.readies(), pod.0.join(EVICTED)]);
    }
    Ok(kept)
}

/// A pod's volumes, by name.
pub(crate) type Mounted = BTreeMap<String, Mounting>;

/// A volume that is in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounting {
    /// Where it is on the machine.
    pub(crate) path: PathBuf,
    /// Whether containers may only read it, as is the case with files that the kubelet writes.
    pub(crate) read_only: bool,
    /// Whether nobody but the kubelet writes to it.
    pub(crate) private: bool,
}

/// Why a volume could not be put in place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The volume could not be made.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {message}")]
    SetUp {
        /// Name of the volume.
        volume: String,
        /// What is wrong.
        message: String,
    },
    /// There is no volume behind the claim, or not yet.
    #[error(
        "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process \
         volumes=[{volume}]: error processing PVC {claim}: {message}"
    )]
    Claim {
        /// Name of the volume in the pod.
        volume: String,
        /// The claim, `NAMESPACE/NAME`.
        claim: String,
        /// What is wrong.
        message: String,
    },
}

/// The directory of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodDirectory(PathBuf);

impl PodDirectory {
    /// The directory of the pod `uid` below the kubelet's own.
    pub(crate) fn new(state_dir: &Path, uid: &str) -> Self {
        Self(pods_directory(state_dir).join(uid))
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where a container's termination log is.
    pub(crate) fn termination_log(&self, container: &str, attempt: u32) -> PathBuf {
        let directory = self.0.join("containers").join(container);
        directory.join(attempt.to_string())
    }

    /// Where the `emptyDir` volumes are.
    pub(crate) fn empty_dirs(&self) -> PathBuf {
        self.0.join("volumes/kubernetes.io~empty-dir")
    }

    /// Where the `emptyDir` volume `name` is.
    pub(crate) fn empty_dir(&self, name: &str) -> PathBuf {
        self.empty_dirs().join(name)
    }

    /// Where it is noted that the `emptyDir` volume `name` is complete.
    fn ready(&self, name: &str) -> PathBuf {
        self.readies().join(name)
    }

    fn readies(&self) -> PathBuf {
        self.0.join("plugins/kubernetes.io~empty-dir")
    }

    /// Notes for the kubelets to come that the pod was evicted: the API may not know, and what the runtime had of the pod is
    /// removed. Blocks.
    pub(crate) fn set_evicted(&self, message: &str) -> io::Result<()> {
        self.create()?;
        let path = self.0.join(EVICTED);
        // On a disk that is full there is room for a name where there is none for a text.
        hostfs::write_private(&path, message).or_else(|_| fs::File::create(&path)?.sync_all())
    }

    /// Why the pod was evicted, if it was. Blocks for a small file.
    pub(crate) fn evicted(&self) -> Option<String> {
        let path = self.0.join(EVICTED);
        fs::symlink_metadata(&path).ok()?;
        let message = hostfs::read(&path, LONGEST_MESSAGE).unwrap_or_default();
        match String::from_utf8_lossy(&message).into_owned() {
            message if message.is_empty() => Some("The node was low on resource: ephemeral-storage. ".to_owned()),
            message => Some(message),
        }
    }

    /// Where parts of volumes are bound for a container that is being started.
    fn sub_paths(&self, container: &str) -> PathBuf {
        self.0.join("volume-subpaths").join(container)
    }

    /// Makes the directory, closed to others: containers enter by their mounts, not by the path.
    pub(crate) fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }

    /// Puts all volumes of the pod in place, or brings them up to date. Blocks.
    pub(crate) fn set_up(&self, sources: Sources<'_>) -> Result<Mounted, Error> {
        let mut mounted = Mounted::new();
        let Some(spec) = &sources.pod.spec else {
            return Ok(mounted);
        };
        for volume in spec.volumes.iter().flatten() {
            let mounting = match claim::name_of(sources.pod, volume) {
                Some(name) => self.set_up_claim(sources, volume, &name)?,
                None => self
                    .set_up_one(sources, spec, volume)
                    .map_err(|message| Error::SetUp { volume: volume.name.clone(), message })?,
            };
            mounted.insert(volume.name.clone(), mounting);
        }
        Ok(mounted)
    }

    fn set_up_one(&self, sources: Sources<'_>, spec: &PodSpec, volume: &Volume) -> Result<Mounting, String> {
        let text = |error: io::Error| error.to_string();
        if let Some(source) = &volume.host_path {
            local::host_path(source)?;
            return Ok(Mounting { path: PathBuf::from(&source.path), read_only: false, private: false });
        }
        let group = fs_group(sources.pod);
        if let Some(source) = &volume.empty_dir {
            let path = self.empty_dir(&volume.name);
            let size = local::memory_size(spec, source, sources.allocatable.memory);
            let finish = || match group {
                Some(group) => group::give_to_group(&path, group, false).map(drop),
                None => Ok(()),
            };
            local::empty_dir(&path, &self.ready(&volume.name), source, size, finish).map_err(text)?;
            return Ok(Mounting { path, read_only: false, private: false });
        }
        let Some(payload) = payload::payload(sources, volume) else {
            return Err("this node cannot provide volumes of this type".to_owned());
        };
        let kind = match volume {
            Volume { config_map: Some(_), .. } => "configmap",
            Volume { secret: Some(_), .. } => "secret",
            Volume { downward_api: Some(_), .. } => "downward-api",
            _ => "projected",
        };
        let path = self.volume(kind, &volume.name);
        atomic::write(&path, &payload?, group).map_err(text)?;
        Ok(Mounting { path, read_only: true, private: true })
    }

    fn set_up_claim(&self, sources: Sources<'_>, volume: &Volume, name: &str) -> Result<Mounting, Error> {
        let behind = sources.references.claims.get(name).cloned();
        let behind = behind.unwrap_or_else(|| Err(format!("persistentvolumeclaim \"{name}\" not found")));
        let persistent = behind.map_err(|message| Error::Claim {
            volume: volume.name.clone(),
            claim: format!("{}/{name}", sources.pod.metadata.namespace.as_deref().unwrap_or_default()),
            message,
        })?;
        let name = persistent.metadata.name.as_deref().unwrap_or_default();
        let failed = |message: String| Error::SetUp { volume: name.to_owned(), message };
        let path = claim::path(&persistent).map_err(failed)?;
        if let Some(group) = fs_group(sources.pod).filter(|_| claim::takes_group(&persistent)) {
            // Once for the life of the pod: a volume can be large, and its files are the containers' own.
            let done = self.volume("local-volume", name);
            let set_up = || {
                let fits = on_mismatch_only(sources.pod) && claim::root_matches(&path, group);
                if !done.exists() && !fits {
                    group::give_to_group(&path, group, false)?;
                }
                fs::create_dir_all(&done)
            };
            set_up().map_err(|error| failed(error.to_string()))?;
        }
        let source = volume.persistent_volume_claim.as_ref();
        let read_only = source.is_some_and(|source| source.read_only == Some(true));
        Ok(Mounting { path, read_only, private: false })
    }

    fn volume(&self, kind: &str, name: &str) -> PathBuf {
        let volumes = self.0.join("volumes");
        volumes.join(format!("kubernetes.io~{kind}")).join(name)
    }

    /// Takes the volumes away, with what is in them, but not with what somebody has mounted there. Blocks.
    pub(crate) fn tear_down(&self) -> io::Result<()> {
        let parts = hostfs::remove_tree(&self.0.join("volume-subpaths"));
        let notes = hostfs::remove_tree(&self.0.join("plugins"));
        hostfs::remove_tree(&self.0.join("volumes")).and(parts).and(notes)
    }

    /// Removes all files of the pod, but not what somebody has mounted there. Blocks.
    pub(crate) fn remove(&self) -> io::Result<()> {
        hostfs::remove_tree(&self.0)
    }
}

/// Where the directories of pods are.
pub(crate) fn pods_directory(state_dir: &Path) -> PathBuf {
    state_dir.join("pods")
}

/// The uids of the pods that have a directory.
pub(crate) fn directories(state_dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(pods_directory(state_dir)).into_iter().flatten();
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

fn on_mismatch_only(pod: &Pod) -> bool {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    context.and_then(|context| context.fs_group_change_policy.as_deref()) == Some("OnRootMismatch")
}

#[cfg(test)]
mod tests;
