//! What pods use of what the machine runs out of, or may run out of. Counted when there is a need to know, never before.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::core::v1::PodSpec;
use machinery::quantity::Quantity;
use runtime::DiskUsage;

use super::limits::{Scope, StorageUsage, counts};
use super::rank::{ContainerUsage, PodUsage};
use super::signals::Signal;
use crate::pod::View;
use crate::shared::Shared;
use crate::types::desired::{ContainerKind, DesiredPod};
use crate::values::resources::{container_request, pod_request};
use crate::volumes::PodDirectory;

/// So many pods are looked at at the same time.
const CONCURRENT: usize = 8;
/// How long all pods are looked at. What is known by then counts: the machine is short of something.
const ALL_PODS: Duration = Duration::from_secs(30);
/// How long one volume is counted.
const WALK: Duration = Duration::from_secs(30);

/// What each of these pods uses.
pub(crate) async fn of_pods(shared: &Shared, pods: Vec<View>, signal: Signal, has_image_fs: bool) -> Vec<PodUsage> {
    let looks = stream::iter(pods).map(|pod| of_pod(shared, pod, signal, has_image_fs));
    let mut looks = looks.buffer_unordered(CONCURRENT);
    let deadline = tokio::time::Instant::now() + ALL_PODS;
    let mut found = Vec::new();
    while let Ok(Some(pod)) = tokio::time::timeout_at(deadline, looks.next()).await {
        found.push(pod);
    }
    found
}

async fn of_pod(shared: &Shared, pod: View, signal: Signal, has_image_fs: bool) -> PodUsage {
    let desired = &pod.desired;
    let empty = PodSpec::default();
    let spec = desired.spec().unwrap_or(&empty);
    let resource = if signal == Signal::Memory { "memory" } else { "ephemeral-storage" };
    let mut usage = PodUsage {
        uid: desired.identity.uid.clone(),
        priority: spec.priority.unwrap_or_default(),
        requested: if signal == Signal::Pids || signal.is_inodes() { 0 } else { bytes(pod_request(spec, resource)) },
        ..PodUsage::default()
    };
    // Volumes are on the kubelet's disk, layers and logs on the runtime's; often that is one and the same.
    let (volumes, layers) = match signal {
        Signal::Memory | Signal::Pids => (false, true),
        Signal::NodeFs | Signal::NodeFsInodes => (true, !has_image_fs),
        Signal::ImageFs | Signal::ImageFsInodes => (false, true),
    };
    if volumes {
        let root = PodDirectory::new(&shared.config.state_dir, &desired.identity.uid).empty_dirs();
        let found = count(root).await.unwrap_or_default();
        usage.used = if signal.is_inodes() { found.inodes } else { found.bytes };
    }
    for container in desired.containers.iter().filter(|_| layers) {
        let Some(made) = pod.runtime.latest(container.name()) else { continue };
        let used = match signal {
            Signal::Memory | Signal::Pids if !made.state.is_running() => continue,
            Signal::Memory => shared.runtime.stats(&made.id).await.map(|stats| stats.memory_working_set_bytes),
            Signal::Pids => shared.runtime.stats(&made.id).await.map(|stats| stats.pids),
            signal if signal.is_inodes() => {
                shared.runtime.disk_usage(&made.id).await.map(|usage| usage.writable_layer_inodes)
            }
            _ => shared.runtime.disk_usage(&made.id).await.map(DiskUsage::bytes),
        };
        // What cannot be read has just ended.
        let used = used.unwrap_or_default();
        usage.used = usage.used.saturating_add(used);
        let requested = container_request(&container.spec, resource).unwrap_or_default();
        usage.containers.push(ContainerUsage { name: container.name().to_owned(), used, requested });
    }
    usage
}

/// What a pod takes of the disk, as far as `scope` asks for it.
pub(crate) async fn storage(shared: &Shared, pod: &View, scope: Scope) -> StorageUsage {
    let desired = &pod.desired;
    let mut usage = StorageUsage::default();
    for (name, path) in empty_dirs(shared, desired, scope) {
        // It may not be there yet, or no more.
        if let Some(found) = count(path).await {
            usage.empty_dirs.insert(name, found.bytes);
        }
    }
    for container in desired.containers.iter().filter(|container| scope.containers && is_limited(container.kind)) {
        if let Some(made) = pod.runtime.latest(container.name())
            && let Ok(found) = shared.runtime.disk_usage(&made.id).await
        {
            usage.containers.insert(container.name().to_owned(), found);
        }
    }
    usage
}

/// Ephemeral containers have no resources.
fn is_limited(kind: ContainerKind) -> bool {
    kind != ContainerKind::Ephemeral
}

fn empty_dirs(shared: &Shared, desired: &DesiredPod, scope: Scope) -> Vec<(String, PathBuf)> {
    let Some(spec) = desired.spec() else { return Vec::new() };
    let directory = PodDirectory::new(&shared.config.state_dir, &desired.identity.uid);
    let volumes = spec.volumes.iter().flatten().filter(|volume| counts(spec, &volume.name, scope));
    volumes.map(|volume| (volume.name.clone(), directory.empty_dir(&volume.name))).collect()
}

async fn count(path: PathBuf) -> Option<hostfs::Usage> {
    let count = move || hostfs::usage(Path::new(&path), Instant::now() + WALK).ok();
    tokio::task::spawn_blocking(count).await.ok().flatten()
}

fn bytes(requested: Quantity) -> u64 {
    u64::try_from(requested.value()).unwrap_or_default()
}
