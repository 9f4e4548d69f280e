//! What a container takes of the disk: counted here where its folders are on this machine, else by the daemon.
//!
//! A counting can take long, or hang with its disk. So each is a task of its own, one for a container: who asks waits for it so
//! long and no longer, and what it finds later is there for who asks next.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::InspectContainerOptionsBuilder;
use runtime::{DiskUsage, Error};
use tokio::sync::watch;

use crate::{CALL_TIMEOUT, Docker};

/// How long a writable layer may be counted here. What was found by then is the answer.
const WALK: Duration = Duration::from_secs(30);

/// How long the daemon may count. It goes over the same files, but for as long as it likes.
const COUNTING: Duration = Duration::from_secs(600);

/// How long after its beginning a counting is waited for: where there is no number yet, and where there is an older one.
const FIRST: Duration = Duration::from_secs(20);
const RECOUNT: Duration = Duration::from_secs(2);

/// How long a number is kept that nobody asks for, once it is not believed any more.
const KEPT: Duration = Duration::from_secs(600);

/// What was counted is believed for so many times as long as counting took: at most a tenth of the time is spent on it, and what
/// is counted in a moment is never old.
const BELIEVED: u32 = 10;

/// By id of container: what was counted of it, and what is being.
pub(crate) type Counted = HashMap<String, Counting>;

/// What was counted of a container, and what is being.
#[derive(Default)]
pub(crate) struct Counting {
    found: Option<Found>,
    under_way: Option<UnderWay>,
}

/// A counting that has begun.
#[derive(Clone)]
struct UnderWay {
    began: Instant,
    /// Tells what comes of it; none, once it has ended by a fault of this program.
    outcome: watch::Receiver<Option<Result<DiskUsage, Error>>>,
}

/// What was counted, when that had been done, and how long it took.
#[derive(Clone, Copy)]
struct Found {
    usage: DiskUsage,
    at: Instant,
    took: Duration,
}

impl Found {
    fn is_believed(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < self.took * BELIEVED
    }

    fn is_kept(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < self.took * BELIEVED + KEPT
    }
}

impl Counting {
    /// What was found and is believed, or what comes of the counting that `begin` begins unless one is under way.
    fn ask(&mut self, now: Instant, begin: impl FnOnce(watch::Sender<Option<Result<DiskUsage, Error>>>)) -> Asked {
        if let Some(found) = self.found.filter(|found| found.is_believed(now)) {
            return Asked::Known(found.usage);
        }
        let known = self.found.map(|found| found.usage);
        let begun = self.under_way.take().filter(|counting| counting.outcome.has_changed().is_ok());
        let under_way = begun.unwrap_or_else(|| {
            let (sender, outcome) = watch::channel(None);
            begin(sender);
            UnderWay { began: now, outcome }
        });
        self.under_way = Some(under_way.clone());
        Asked::Counted { under_way, known }
    }

    /// Takes what came of the counting that began at `began`.
    fn finish(&mut self, result: &Result<DiskUsage, Error>, began: Instant, now: Instant) {
        self.under_way = None;
        if let Ok(usage) = result {
            self.found = Some(Found { usage: *usage, at: now, took: now.saturating_duration_since(began) });
        }
    }

    fn is_of_use(&self, now: Instant) -> bool {
        self.under_way.is_some() || self.found.is_some_and(|found| found.is_kept(now))
    }
}

enum Asked {
    Known(DiskUsage),
    Counted { under_way: UnderWay, known: Option<DiskUsage> },
}

/// What a container takes of the disk: a number that is believed, else a new one, else one that is older.
pub(crate) async fn read(docker: &Docker, id: &str) -> Result<DiskUsage, Error> {
    let asked = {
        let (mut counted, now) = (docker.0.daemon.counted.lock(), Instant::now());
        counted.retain(|_, counting| counting.is_of_use(now));
        let begin = |sender| {
            tokio::spawn(count_and_tell(docker.clone(), id.to_owned(), sender));
        };
        counted.entry(id.to_owned()).or_default().ask(now, begin)
    };
    let (mut under_way, known) = match asked {
        Asked::Known(usage) => return Ok(usage),
        Asked::Counted { under_way, known } => (under_way, known),
    };
    let limit = if known.is_some() { RECOUNT } else { FIRST };
    let left = limit.saturating_sub(under_way.began.elapsed());
    let result = match tokio::time::timeout(left, under_way.outcome.wait_for(Option::is_some)).await {
        Ok(Ok(result)) => result.clone().unwrap_or_else(|| Err(lost())),
        Ok(Err(_)) => Err(lost()),
        Err(_) => Err(crate::error::timeout(docker.host(), limit)),
    };
    match (result, known) {
        (Err(error), Some(known)) if !matches!(error, Error::NotFound(_)) => Ok(known),
        (result, _) => result,
    }
}

/// The counting has ended without a word, by a fault of this program.
fn lost() -> Error {
    Error::Other("the files of the container were not counted".to_owned())
}

async fn count_and_tell(docker: Docker, id: String, sender: watch::Sender<Option<Result<DiskUsage, Error>>>) {
    let began = Instant::now();
    let result = count(&docker, &id).await;
    let mut counted = docker.0.daemon.counted.lock();
    counted.entry(id).or_default().finish(&result, began, Instant::now());
    drop(counted);
    sender.send_replace(Some(result));
}

/// Counts once. The daemon is asked to count only where this process cannot read the layer (it is another user's), or
/// knows of no folder (the daemon keeps its images in containerd).
async fn count(docker: &Docker, id: &str) -> Result<DiskUsage, Error> {
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
    let options = InspectContainerOptionsBuilder::new().size(true).build();
    let sized = docker.call(COUNTING, docker.client().inspect_container(id, Some(options))).await?;
    let bytes = sized.size_rw.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
    Ok(DiskUsage { writable_layer_bytes: bytes, writable_layer_inodes: 0, log_bytes })
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
    fn one_counting_at_a_time_and_none_too_often() {
        let (mut counting, start) = (Counting::default(), Instant::now());
        let second = |second: u64| start + Duration::from_secs(second);
        let mut begun = Vec::new();
        let mut ask = |counting: &mut Counting, at: u64| match counting.ask(second(at), |sender| begun.push(sender)) {
            Asked::Known(usage) => format!("{} is believed", usage.log_bytes),
            Asked::Counted { known, .. } => format!("counting, known {:?}", known.map(|usage| usage.log_bytes)),
        };
        let usage = |log_bytes: u64| Ok(DiskUsage { log_bytes, ..DiskUsage::default() });
        assert_eq!(ask(&mut counting, 0), "counting, known None");
        // It hangs, and is not begun beside itself.
        assert_eq!(ask(&mut counting, 100), "counting, known None");
        counting.finish(&usage(7), second(0), second(120));
        assert_eq!(ask(&mut counting, 1319), "7 is believed");
        assert!(counting.is_of_use(second(1320)), "it is the answer if the next counting takes as long");
        assert!(!counting.is_of_use(second(1920)));
        assert_eq!(ask(&mut counting, 1320), "counting, known Some(7)");
        // Quickly done, soon done again.
        counting.finish(&usage(8), second(1320), second(1321));
        assert_eq!(ask(&mut counting, 1330), "8 is believed");
        assert_eq!(ask(&mut counting, 1331), "counting, known Some(8)");
        counting.finish(&Err(lost()), second(1331), second(1332));
        assert_eq!(ask(&mut counting, 1332), "counting, known Some(8)");
        assert_eq!(begun.len(), 4);
        assert!(counting.is_of_use(second(9999)), "it is being counted");
        counting.finish(&Err(lost()), second(1332), second(9999));
        assert!(!counting.is_of_use(second(9999)));
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
