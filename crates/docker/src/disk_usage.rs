//! What a container takes of the disk: counted here where its folders are on this machine, else by the daemon.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::InspectContainerOptionsBuilder;
use runtime::{DiskUsage, Error};

use crate::{CALL_TIMEOUT, Docker};

/// How long a writable layer may be counted. What was found by then is the answer.
const WALK: Duration = Duration::from_secs(30);

/// What the daemon has counted is believed for so long.
const BELIEVED: Duration = Duration::from_secs(60);

/// By id of container: bytes of its writable layer as the daemon counted them, and when.
pub(crate) type Counted = HashMap<String, (Instant, u64)>;

/// Counts once. The daemon is asked to count only where this process cannot read the layer (it is another user's), or
/// knows of no folder (the daemon keeps its images in containerd): it goes over the same files, but for as long as it likes.
pub(crate) async fn read(docker: &Docker, id: &str) -> Result<DiskUsage, Error> {
    let found = docker.call(CALL_TIMEOUT, docker.client().inspect_container(id, None)).await?;
    let (layer, log) = folders(&found);
    let local = tokio::task::spawn_blocking(move || {
        let layer = layer.and_then(|layer| hostfs::usage(&layer, Instant::now() + WALK).ok());
        (layer, log.map_or(0, |log| log_bytes(&log).unwrap_or_default()))
    });
    let (layer, log_bytes) = local.await.map_err(|error| Error::Other(error.to_string()))?;
    if let Some(layer) = layer {
        return Ok(DiskUsage { writable_layer_bytes: layer.bytes, writable_layer_inodes: layer.inodes, log_bytes });
    }
    let counted = docker.0.daemon.counted.lock().get(id).copied();
    let bytes = match counted {
        Some((at, bytes)) if at.elapsed() < BELIEVED => bytes,
        _ => count(docker, id).await?,
    };
    Ok(DiskUsage { writable_layer_bytes: bytes, writable_layer_inodes: 0, log_bytes })
}

async fn count(docker: &Docker, id: &str) -> Result<u64, Error> {
    let options = InspectContainerOptionsBuilder::new().size(true).build();
    let sized = docker.call(CALL_TIMEOUT, docker.client().inspect_container(id, Some(options))).await?;
    let bytes = sized.size_rw.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
    let mut counted = docker.0.daemon.counted.lock();
    counted.retain(|_, (at, _)| at.elapsed() < BELIEVED);
    counted.insert(id.to_owned(), (Instant::now(), bytes));
    Ok(bytes)
}

/// The folder of a container's writable layer, and its log file.
fn folders(found: &ContainerInspectResponse) -> (Option<PathBuf>, Option<PathBuf>) {
    let driver = found.graph_driver.as_ref();
    let layer = driver.and_then(|driver| driver.data.get("UpperDir")).map(PathBuf::from);
    let log = found.log_path.as_ref().filter(|path| !path.is_empty()).map(PathBuf::from);
    (layer, log)
}

/// Bytes of a log file and of those that were rotated, `LOG.1` and so on.
fn log_bytes(log: &Path) -> io::Result<u64> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Ok(0);
    };
    let mut bytes = 0_u64;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|entry| entry.starts_with(name)) {
            // stat(2): the unit is 512 bytes.
            bytes = bytes.saturating_add(entry.metadata()?.blocks().saturating_mul(512));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn where_a_container_keeps_its_files() {
        let found = json!({
            "LogPath": "/d/containers/c/c-json.log",
            "GraphDriver": { "Name": "overlay2", "Data": { "UpperDir": "/d/overlay2/l/diff", "LowerDir": "/x" } },
        });
        let found: ContainerInspectResponse = serde_json::from_value(found).unwrap();
        assert_eq!(folders(&found), (Some("/d/overlay2/l/diff".into()), Some("/d/containers/c/c-json.log".into())));
        let containerd: ContainerInspectResponse = serde_json::from_value(json!({ "LogPath": "" })).unwrap();
        assert_eq!(folders(&containerd), (None, None));
    }

    #[test]
    fn rotated_logs_count() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["c-json.log", "c-json.log.1", "config.v2.json"] {
            fs::write(folder.path().join(name), vec![1; 64 << 10]).unwrap();
        }
        let bytes = log_bytes(&folder.path().join("c-json.log")).unwrap();
        assert!((128 << 10..192 << 10).contains(&bytes), "{bytes}");
    }
}
