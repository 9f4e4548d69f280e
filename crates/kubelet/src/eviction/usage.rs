//! What pods use of what the machine runs out of, or may run out of. Counted when there is a need to know, never before.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::core::v1::PodSpec;
use machinery::resources::spec_requests;
use parking_lot::Mutex;
use runtime::DiskUsage;

use super::limits::{Scope, StorageUsage, counts};
use super::rank::{ContainerUsage, PodUsage};
use super::signals::Signal;
use crate::pod::View;
use crate::shared::Shared;
use crate::types::desired::{ContainerKind, DesiredPod};
use crate::values::resources::container_request;
use crate::volumes::PodDirectory;

/// So many pods are looked at at the same time.
const CONCURRENT: usize = 8;
/// How long all pods are looked at. What is known by then counts: the machine is short of something.
const ALL_PODS: Duration = Duration::from_secs(30);
/// How long the volumes of one pod are counted. What was found by then counts.
const WALK: Duration = Duration::from_secs(30);
/// How long one pod with limits is looked at: its volumes, and what the runtime says of its containers.
const ONE_POD: Duration = Duration::from_secs(60);

/// So many walks are under way at a time at most, those included that nobody waits for any more: each takes a thread, and on a
/// disk that does not answer none of them ends.
const WALKS: usize = 16;

/// How often it is looked whether a walk may begin.
const TURN: Duration = Duration::from_millis(100);

/// What each of these pods uses. A pod of which that is not known in time is not among them: it would look like one that uses
/// nothing.
pub(crate) async fn of_pods(
    shared: &Shared,
    mut pods: Vec<View>,
    signal: Signal,
    has_image_fs: bool,
    walks: &Walks,
) -> Vec<PodUsage> {
    // Those that must wait for their turn hold up no others.
    pods.sort_by_cached_key(|pod| walks.is_under_way(&pod.desired.identity.uid));
    let looks = stream::iter(pods).map(|pod| of_pod(shared, pod, signal, has_image_fs, walks));
    let mut looks = looks.buffer_unordered(CONCURRENT);
    let deadline = tokio::time::Instant::now() + ALL_PODS;
    let mut found = Vec::new();
    while let Ok(Some(pod)) = tokio::time::timeout_at(deadline, looks.next()).await {
        found.push(pod);
    }
    found
}

async fn of_pod(shared: &Shared, pod: View, signal: Signal, has_image_fs: bool, walks: &Walks) -> PodUsage {
    let desired = &pod.desired;
    let empty = PodSpec::default();
    let spec = desired.spec().unwrap_or(&empty);
    let resource = if signal == Signal::Memory { "memory" } else { "ephemeral-storage" };
    let mut usage = PodUsage {
        uid: desired.identity.uid.clone(),
        priority: spec.priority.unwrap_or_default(),
        requested: if signal == Signal::Pids || signal.is_inodes() {
            0
        } else {
            spec_requests(spec).of(resource).try_into().unwrap_or_default()
        },
        ..PodUsage::default()
    };
    // Volumes are on the kubelet's disk, layers and logs on the runtime's; often that is one and the same.
    let (volumes, layers) = match signal {
        Signal::Memory | Signal::Pids => (false, true),
        Signal::NodeFs | Signal::NodeFsInodes => (true, !has_image_fs),
        Signal::ImageFs | Signal::ImageFsInodes => (false, true),
    };
    if volumes {
        let walking = walks.turn(&desired.identity.uid).await;
        let root = PodDirectory::new(&shared.config.state_dir, &desired.identity.uid).empty_dirs();
        let found = count(root, walking).await.unwrap_or_default();
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

/// The pods whose volumes are being counted. A walk that waits for the disk cannot be broken off: until it has ended its pod is
/// not counted again, and it counts against [`WALKS`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Walks(Arc<Mutex<HashSet<String>>>);

impl Walks {
    fn begin(&self, uid: &str) -> Option<Walking> {
        let mut walking = self.0.lock();
        let may_begin = walking.len() < WALKS && walking.insert(uid.to_owned());
        may_begin.then(|| Walking { walks: self.clone(), uid: uid.to_owned() })
    }

    fn is_under_way(&self, uid: &str) -> bool {
        self.0.lock().contains(uid)
    }

    /// Begins as soon as that may be, which is never where the disk does not answer.
    async fn turn(&self, uid: &str) -> Walking {
        loop {
            match self.begin(uid) {
                Some(walking) => break walking,
                None => tokio::time::sleep(TURN).await,
            }
        }
    }
}

/// One walk, until it is dropped.
struct Walking {
    walks: Walks,
    uid: String,
}

impl Drop for Walking {
    fn drop(&mut self) {
        self.walks.0.lock().remove(&self.uid);
    }
}

/// What a pod takes of the disk, as far as `scope` asks for it and is known within [`ONE_POD`]; none where not even its volumes
/// could be counted by then.
pub(crate) async fn storage(shared: &Shared, pod: &View, scope: Scope, walks: &Walks) -> Option<StorageUsage> {
    let deadline = tokio::time::Instant::now() + ONE_POD;
    let desired = &pod.desired;
    let walking = walks.begin(&desired.identity.uid)?;
    let (volumes, until) = (empty_dirs(shared, desired, scope), Instant::now() + WALK);
    let walk = move || {
        // It may not be there yet, or no more.
        let count = |(name, path): (String, PathBuf)| Some((name, hostfs::usage(&path, until).ok()?));
        let found: Vec<_> = volumes.into_iter().filter_map(count).collect();
        drop(walking);
        found
    };
    let found = tokio::time::timeout_at(deadline, tokio::task::spawn_blocking(walk)).await.ok()?.ok()?;
    let mut usage = StorageUsage::default();
    for (name, found) in found {
        if !found.is_complete {
            usage.uncounted.push(name.clone());
        }
        usage.empty_dirs.insert(name, found.bytes);
    }
    for container in desired.containers.iter().filter(|container| scope.containers && is_limited(container.kind)) {
        if let Some(made) = pod.runtime.latest(container.name())
            && let Ok(Ok(found)) = tokio::time::timeout_at(deadline, shared.runtime.disk_usage(&made.id)).await
        {
            usage.containers.insert(container.name().to_owned(), found);
        }
    }
    Some(usage)
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

async fn count(path: PathBuf, walking: Walking) -> Option<hostfs::Usage> {
    let count = move || {
        let found = hostfs::usage(Path::new(&path), Instant::now() + WALK).ok();
        drop(walking);
        found
    };
    tokio::task::spawn_blocking(count).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_not_counted_twice_at_a_time() {
        let walks = Walks::default();
        let first = walks.begin("a");
        assert!(first.is_some() && walks.begin("a").is_none() && walks.begin("b").is_some());
        drop(first);
        assert!(walks.begin("a").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_being_counted_waits_for_its_turn() {
        let walks = Walks::default();
        let first = walks.begin("a");
        assert!(walks.is_under_way("a") && !walks.is_under_way("b"));
        let mut second = std::pin::pin!(walks.turn("a"));
        assert!(tokio::time::timeout(ALL_PODS, second.as_mut()).await.is_err());
        drop(first);
        let second = second.await;
        assert!(walks.is_under_way("a"));
        drop(second);
        assert!(!walks.is_under_way("a"));
    }

    #[test]
    fn walks_that_do_not_end_are_not_without_number() {
        let walks = Walks::default();
        let hanging: Vec<Walking> = (0..100).filter_map(|pod| walks.begin(&pod.to_string())).collect();
        assert_eq!(hanging.len(), WALKS);
        assert!(walks.begin("other").is_none());
        drop(hanging);
        assert!(walks.begin("other").is_some());
    }
}
