//! Making a snapshot.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use docker::Docker;
use hostfs::Archiver;
use k8s_openapi::jiff::Timestamp;
use sha2::{Digest, Sha256};
use store::{Attributes, Revision, Snapshot, Store, Transformer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::freeze::{Frozen, thaw_left};
use super::{Error, FILES, FORMAT, Manifest, OBJECTS, Snapshots, Sum, blocking, check_name, hex, objects, sum};
use crate::cluster::docker_config;
use crate::profile::Profile;
use crate::settings::Settings;
use crate::{descriptors, encryption};

/// How long it is counted what volumes take. What was not counted by then is saved as well, as long as there is space.
const COUNTING: Duration = Duration::from_secs(10);
/// What is left to the store and the pods of the disk: more than the ballast, and than what a node is under pressure without.
const RESERVE: u64 = 512 << 20;

/// Which snapshot is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) name: String,
    /// Of which revision; of now if it is left out.
    pub(super) revision: Option<Revision>,
    /// Whether to keep what is in volumes. Of an earlier revision nobody knows that.
    pub(super) volumes: bool,
}

/// What a snapshot is made of.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) profile: Profile,
    pub(super) store: Store,
    pub(super) transformer: Arc<dyn Transformer>,
    /// Who can hold the pods, and who is told of it.
    pub(super) freezer: Option<(Docker, watch::Sender<bool>)>,
    /// Gives it up.
    pub(super) cancel: CancellationToken,
}

/// Makes a snapshot of a cluster that does not run.
///
/// # Errors
/// When there is one of this name, the cluster runs, its store cannot be opened, or the snapshot cannot be written; nothing is left of
/// it then.
pub async fn save_stopped(profile: &Profile, name: &str, volumes: bool) -> Result<Manifest, crate::Error> {
    check_name(name)?;
    descriptors::raise_limit();
    let _lock = profile.lock()?;
    let transformer: Arc<dyn Transformer> = encryption::open(profile)?;
    let options =
        store::Options { transformer: Some(Arc::clone(&transformer)), ..store::Options::new(profile.store()) };
    let store = blocking(move || Ok(Store::open(options, |_, _| Attributes::default())?)).await?;
    // Pods may run without the cluster, but not without Docker.
    let docker = Docker::connect(docker_config(profile)).await.ok();
    if let Some(docker) = &docker {
        thaw_left(profile, docker).await;
    }
    let source = Source {
        profile: profile.clone(),
        store: store.clone(),
        transformer,
        freezer: docker.map(|docker| (docker, watch::channel(false).0)),
        cancel: CancellationToken::new(),
    };
    let saved = save(&source, &Wanted { name: name.to_owned(), revision: None, volumes }).await;
    store.close().await;
    saved
}

/// Makes a snapshot.
///
/// # Errors
/// As [`save_stopped`].
pub(super) async fn save(source: &Source, wanted: &Wanted) -> Result<Manifest, crate::Error> {
    let snapshots = Snapshots::beside(&source.profile)?;
    let folder = snapshots.begin(&wanted.name, source.profile.name())?;
    let saved = match fill(source, wanted, &folder).await {
        Ok(manifest) => snapshots.complete(&wanted.name, &folder, &manifest).map(|()| manifest),
        Err(error) => Err(error),
    };
    if saved.is_err()
        && let Err(error) = hostfs::remove_tree(&folder)
    {
        tracing::warn!(folder = %folder.display(), %error, "a part of a snapshot is left");
    }
    saved
}

/// Writes the two files of a snapshot. The pods are held for no longer than that takes.
async fn fill(source: &Source, wanted: &Wanted, folder: &Path) -> Result<Manifest, crate::Error> {
    let profile = &source.profile;
    let volumes = wanted.volumes && wanted.revision.is_none();
    let (trees, counted_in) = (Trees::of(profile, volumes)?, folder.to_owned());
    let needed = source.store.stats().objects.iter().map(|(_, count)| *count as u64 * 4096).sum();
    blocking(move || Ok(trees.check_space(&counted_in, needed)?)).await?;
    let frozen = match &source.freezer {
        Some((docker, tell)) if volumes => Some(Frozen::freeze(profile, docker, tell.clone()).await?),
        _ => None,
    };
    let written = async {
        let (revision, all) = match wanted.revision {
            None => source.store.everything(),
            Some(revision) => (revision, source.store.everything_at(revision).await.map_err(Error::from)?),
        };
        // What pods have come and gone meanwhile is known now.
        let trees = Trees::of(profile, volumes)?;
        let (source, folder) = (source.clone(), folder.to_owned());
        let written = blocking(move || Ok(write(&source, &all, &trees, &folder)?)).await?;
        Ok::<_, crate::Error>((revision, written))
    };
    let written = written.await;
    if let Some(frozen) = frozen {
        frozen.thaw().await;
    }
    let (revision, Written { objects, left_out, files }) = written?;
    Ok(Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        profile: profile.name().to_owned(),
        folder: profile.canonical_folder(),
        revision,
        time: Timestamp::now(),
        objects,
        volumes,
        left_out,
        settings: Settings::load(profile)?.ok_or_else(|| Error::Write(io::ErrorKind::NotFound.into()))?,
        token_key: token_key(profile),
        files,
    })
}

/// The sum of the key that signs tokens.
pub(super) fn token_key(profile: &Profile) -> Option<String> {
    sum(&profile.token_key()).ok().map(|sum| sum.sha256)
}

/// What of a profile's folder is kept, beside the store.
struct Trees {
    profile: PathBuf,
    /// Paths in it.
    paths: Vec<PathBuf>,
}

impl Trees {
    fn of(profile: &Profile, volumes: bool) -> Result<Self, crate::Error> {
        let mut paths = profile.configuration();
        if volumes {
            paths.push(relative(profile, &profile.volumes()));
            for state in profile.kubelet_folders()? {
                let kept = kubelet::lasting(&state).map_err(|source| crate::Error::file(&state, source))?;
                paths.extend(kept.iter().map(|path| relative(profile, path)));
            }
        }
        Ok(Self { profile: profile.folder().to_owned(), paths })
    }

    /// Refuses what would fill the disk.
    fn check_space(&self, into: &Path, objects: u64) -> Result<(), Error> {
        let until = Instant::now() + COUNTING;
        let usage = |path: &PathBuf| hostfs::usage(&self.profile.join(path), until).map_or(0, |usage| usage.bytes);
        let needed = self.paths.iter().map(usage).fold(objects, u64::saturating_add);
        let disk = rustix::fs::statvfs(into).map_err(|error| Error::Write(error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize).saturating_sub(RESERVE);
        match needed <= free {
            true => Ok(()),
            false => Err(Error::Space { path: into.parent().unwrap_or(into).to_owned(), needed, free }),
        }
    }
}

fn relative(profile: &Profile, path: &Path) -> PathBuf {
    path.strip_prefix(profile.folder()).unwrap_or(path).to_owned()
}

struct Written {
    objects: u64,
    left_out: u64,
    files: BTreeMap<String, Sum>,
}

fn write(source: &Source, all: &[(Arc<str>, Snapshot)], trees: &Trees, folder: &Path) -> Result<Written, Error> {
    let keys = || source.profile.keys().map_err(Error::Write);
    let before = keys()?;
    let mut count = 0;
    let mut file = Summing::create(&folder.join(OBJECTS), &source.cancel)?;
    for entry in all.iter().flat_map(|(_, snapshot)| snapshot.iter()) {
        objects::write(&mut file, entry, &*source.transformer)?;
        count += 1;
    }
    let objects = file.finish()?;
    let mut archive = Archiver::new(Summing::create(&folder.join(FILES), &source.cancel)?);
    for path in &trees.paths {
        archive.add(&trees.profile, path).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => Error::Denied(error),
            _ => Error::Write(error),
        })?;
    }
    let (file, left_out) = archive.finish().map_err(Error::Write)?;
    // A new key is in its file before anything is encrypted with it, and an old one until nothing is. So those that have not
    // changed meanwhile are the right ones.
    if keys()? != before {
        return Err(Error::Write(io::Error::other("the key of the store was exchanged meanwhile; try again")));
    }
    let files = BTreeMap::from([(OBJECTS.to_owned(), objects), (FILES.to_owned(), file.finish()?)]);
    Ok(Written { objects: count, left_out, files })
}

/// A private file that knows the sum of what was written to it, and stops when it is to be given up.
struct Summing {
    file: BufWriter<File>,
    hasher: Sha256,
    bytes: u64,
    cancel: CancellationToken,
}

impl Summing {
    fn create(path: &Path, cancel: &CancellationToken) -> Result<Self, Error> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(Error::Write)?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(Self { file, hasher: Sha256::new(), bytes: 0, cancel: cancel.clone() })
    }

    fn finish(self) -> Result<Sum, Error> {
        let file = self.file.into_inner().map_err(|error| Error::Write(error.into_error()))?;
        file.sync_all().map_err(Error::Write)?;
        Ok(Sum { bytes: self.bytes, sha256: hex(&self.hasher.finalize()) })
    }
}

impl Write for Summing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("the cluster is being stopped"));
        }
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
