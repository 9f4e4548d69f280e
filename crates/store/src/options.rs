//! How a store is set up, and why it may not open.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::{Revision, Transformer};

/// Twice what the write-ahead logs may hold (`max_total_wal_size`): one half for the tables that are written when the database
/// is opened, and one for the deletes after that, whose log is kept to a quarter of the ballast meanwhile.
const BALLAST: u64 = 64 << 20;

/// The settings of a store. [`Options::new`] has defaults for a whole cluster on a laptop.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory. It is created if it is missing.
    pub path: PathBuf,
    /// Whether a commit waits until the disk has it. Without, a crash of the machine (not of the process) loses commits
    /// that were acknowledged: for benchmarks only.
    pub fsync: bool,
    /// How many recent events of each resource are kept in memory for watchers. Those that are further behind read from disk.
    pub ring: usize,
    /// How many bytes those recent events may hold, for each resource: their objects, and the frames that watchers have had of
    /// them.
    pub ring_bytes: usize,
    /// How old those recent events may become, and twice that at most, before only the disk has them: what a burst of writes
    /// left in memory is given back when it is over.
    pub ring_age: Duration,
    /// Size bound: how many revisions the log keeps at most.
    pub retain_revisions: u64,
    /// Size bound: how many bytes the log keeps at most, uncompressed.
    pub retain_bytes: u64,
    /// Time bound: how long the log keeps a revision at most.
    pub retain_age: Duration,
    /// How often the bounds are looked at, at least. The size bounds are also looked at when much has been written.
    pub compact_every: Duration,
    /// Size of the file that takes up space to be given back when the disk is full, at most a sixteenth of the file system;
    /// 0 for none. It is made once there are 64 MiB beyond it, or a quarter of a small file system. Without, objects cannot be deleted on a full disk, and the store cannot be opened.
    pub ballast: u64,
    /// Whether a store whose end or whose history is damaged is opened without what is lost. Its history is forgotten then, so
    /// that watchers begin anew, and no revision is handed out again.
    pub accept_loss: bool,
    /// What changes values on their way to the disk and back; without, they are written as they are.
    pub transformer: Option<Arc<dyn Transformer>>,
    #[cfg(test)]
    pub(crate) faults: Arc<crate::tests::Faults>,
}

impl Options {
    /// Defaults, for a store in this directory: synced; ten minutes, 50,000 revisions or 256 MiB of history; 64 MiB of ballast.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            fsync: true,
            ring: 1024,
            ring_bytes: 8 << 20,
            ring_age: Duration::from_secs(20),
            retain_revisions: 50_000,
            retain_bytes: 256 << 20,
            retain_age: Duration::from_secs(600),
            compact_every: Duration::from_secs(60),
            ballast: BALLAST,
            accept_loss: false,
            transformer: None,
            #[cfg(test)]
            faults: Arc::default(),
        }
    }
}

/// Why a store did not open. Each is one line that says what to do; all that could be read is still there.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the store in {} is in use by {}: stop that first, or use another directory", path.display(), holder(*pid))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that has it, where it said so.
        pid: Option<u32>,
    },
    /// What is on disk is damaged.
    #[error("the store in {} is damaged ({detail}): restore the directory from a copy, try to go on without what is lost (coracle start --accept-data-loss), or move it away to start empty", path.display())]
    Corrupt {
        /// The directory.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// It ends before a revision that was durable.
    #[error("the store in {} is damaged (revision {durable} was written, but the write-ahead log can be read up to {found} only), or a copy made while it ran: restore the directory from a copy, or go on without what is lost: coracle start --accept-data-loss", path.display())]
    Lost {
        /// The directory.
        path: PathBuf,
        /// A revision that was durable.
        durable: Revision,
        /// The newest one that can be read.
        found: Revision,
    },
    /// It is damaged, and to go on without what is lost was tried.
    #[error("the store in {} is damaged ({detail}), too badly to go on without what is lost: restore the directory from a copy, or move it away to start empty", path.display())]
    Unrecoverable {
        /// The directory.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A value cannot be decrypted.
    #[error("the store in {} holds {detail}: restore encryption-key.yaml beside it, or start with the configuration that it was written with (coracle start --encryption-provider-config FILE), or move the directory away to start empty", path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// Which, and why.
        detail: String,
    },
    /// A later version wrote it.
    #[error("the store in {} was written by a later version (format {found}, this one knows {known}): use that version, or move the directory away to start empty", path.display())]
    TooNew {
        /// The directory.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format this version knows.
        known: u32,
    },
    /// The directory cannot be created or written.
    #[error("the store cannot write to {} ({error}): make the directory writable, or use another", path.display())]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The disk failed in another way.
    #[error("the store in {} cannot be opened ({detail}): see to the disk, then try again", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
}

impl OpenError {
    /// The same, for whoever has accepted losses already: to do so again is no way out.
    pub(crate) fn after_acceptance(self) -> Self {
        match self {
            Self::Corrupt { path, detail } => Self::Unrecoverable { path, detail },
            Self::Lost { path, durable, found } => {
                let detail = format!("revision {durable} was written, but it can be read up to {found} only");
                Self::Unrecoverable { path, detail }
            }
            other => other,
        }
    }
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}
