//! A file beside the database that says which revision was durable last.
//!
//! RocksDB cannot tell a write-ahead log that a crash cut short from one whose last records are damaged: both end early. What
//! was acknowledged would be lost without a word, and its revisions given to other changes. The witness tells them apart: a
//! database that ends before it is damaged. The database itself notes that there is one, so whoever removes the file is told
//! that nobody knows any more what is missing.
//!
//! A revision is recorded once it has been synced in the database, so the witness is never ahead. It is overwritten in place,
//! which costs two microseconds and no sync: the death of the process loses nothing of it. It is synced [`LAG`] later at most;
//! only damage of what was written within that time before the machine itself lost power is not found.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::time::Duration;

use crate::Revision;
use crate::disk::{DiskError, Result, damaged};

/// The name of the file, beside those of RocksDB.
const FILE: &str = "coracle.witness";
/// How long what was recorded may be unsynced.
pub(crate) const LAG: Duration = Duration::from_secs(1);
/// The two records lie in blocks of their own and are written in turn: a power cut while one is written leaves the other.
const OFFSETS: [u64; 2] = [0, 4096];
/// A record: the revision, and its complement.
const RECORD: usize = 16;

/// Records the newest durable revision.
pub(crate) struct Witness {
    path: PathBuf,
    /// Without a sync in the database, a crash of the machine would leave the witness ahead: then there is none.
    enabled: bool,
    /// Absent until the file can be made: a full disk has no space for it.
    file: OnceLock<File>,
    recorded: AtomicU64,
    /// Which of the two records is written next.
    second: AtomicBool,
    unsynced: AtomicBool,
}

/// The revision that was durable last, as far as the witness in this directory knows; `None` where there is none, as before
/// the first write and in a store of an earlier version.
pub(crate) fn read(folder: &Path) -> Result<Option<Revision>> {
    let path = folder.join(FILE);
    let io = |error: io::Error| DiskError::Io(format!("{}: {error}", path.display()));
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut newest = None;
    for offset in OFFSETS {
        let mut record = [0; RECORD];
        match file.read_exact_at(&mut record, offset) {
            Ok(()) => newest = newest.max(decode(record)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(io(error)),
        }
    }
    let unreadable = || damaged(&format!("both records of {FILE} are unreadable"));
    newest.map(Some).ok_or_else(unreadable)
}

/// What is wrong with a database whose witness somebody has removed.
pub(crate) fn gone() -> DiskError {
    damaged(&format!("{FILE} is gone, and with it the proof that nothing is missing"))
}

/// Makes the witness of a database at this revision, unless it is there. Returns whether it is there now, also after a power
/// cut: a full disk may have no space for it.
pub(crate) fn ensure(folder: &Path, revision: Revision) -> bool {
    let path = folder.join(FILE);
    path.exists() || make(&path, revision).is_ok()
}

impl Witness {
    /// The witness of a directory whose database was opened at this revision.
    pub(crate) fn new(folder: &Path, enabled: bool, revision: Revision) -> Self {
        let path = folder.join(FILE);
        let file = OnceLock::new();
        if enabled && let Ok(existing) = OpenOptions::new().write(true).open(&path) {
            let _ = file.set(existing);
        }
        let witness = Self {
            path,
            enabled,
            file,
            recorded: AtomicU64::new(revision),
            second: AtomicBool::new(false),
            unsynced: AtomicBool::new(false),
        };
        if !read(folder).is_ok_and(|known| known == Some(revision)) {
            witness.record(revision);
            witness.sync();
        }
        witness
    }

    /// Records a revision that is durable. Returns whether a sync has become necessary by that. One thread at a time records.
    pub(crate) fn record(&self, revision: Revision) -> bool {
        if !self.enabled {
            return false;
        }
        self.recorded.store(revision, Relaxed);
        if let Some(file) = self.file.get() {
            let second = self.second.fetch_xor(true, Relaxed);
            if let Err(error) = file.write_all_at(&encode(revision), OFFSETS[usize::from(second)]) {
                // It stays behind, which is no worse than to have none. What it is about is durable.
                tracing::warn!(%error, path = %self.path.display(), "cannot record the newest revision");
            }
        }
        !self.unsynced.swap(true, AcqRel)
    }

    /// Whether something was recorded since the last sync.
    pub(crate) fn is_unsynced(&self) -> bool {
        self.unsynced.load(Acquire)
    }

    /// Makes what was recorded durable, and the file where there is none yet.
    pub(crate) fn sync(&self) {
        if !self.unsynced.swap(false, AcqRel) {
            return;
        }
        let synced = match self.file.get() {
            Some(file) => file.sync_data(),
            None => make(&self.path, self.recorded.load(Relaxed)).map(|file| {
                // What has been recorded meanwhile is recorded again with the next write.
                let _ = self.file.set(file);
            }),
        };
        if let Err(error) = synced {
            self.unsynced.store(true, Release);
            tracing::debug!(%error, path = %self.path.display(), "cannot sync the newest revision");
        }
    }
}

/// Makes the file under another name first: a part of it must not pass for a damaged one.
fn make(path: &Path, revision: Revision) -> io::Result<File> {
    let new = path.with_extension("witness.new");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let record = encode(revision);
    for offset in OFFSETS {
        file.write_all_at(&record, offset)?;
    }
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

fn encode(revision: Revision) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..8].copy_from_slice(&revision.to_be_bytes());
    record[8..].copy_from_slice(&(!revision).to_be_bytes());
    record
}

fn decode(record: [u8; RECORD]) -> Option<Revision> {
    let (revision, complement) = record.split_at(8);
    let number = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?));
    number(revision).filter(|revision| number(complement) == Some(!revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_record_that_is_whole_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        assert_eq!(read(folder.path()).unwrap(), None);
        let witness = Witness::new(folder.path(), true, 7);
        assert_eq!(read(folder.path()).unwrap(), Some(7));
        assert!(witness.record(8), "somebody has to sync it");
        assert!(!witness.record(9), "that is known already");
        assert_eq!(read(folder.path()).unwrap(), Some(9));
        witness.sync();
        assert!(!witness.is_unsynced());
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        // A record that was cut short in the midst of being written: the other one is older.
        let newest = OFFSETS.into_iter().find(|offset| {
            let mut record = [0; RECORD];
            File::open(&path).unwrap().read_exact_at(&mut record, *offset).unwrap();
            decode(record) == Some(9)
        });
        file.write_all_at(&[0xff; 5], newest.unwrap()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), Some(8));
        for offset in OFFSETS {
            file.write_all_at(&[0xff; 5], offset).unwrap();
        }
        assert!(matches!(read(folder.path()), Err(DiskError::Corrupt(_))));
        file.set_len(0).unwrap();
        assert!(matches!(read(folder.path()), Err(DiskError::Corrupt(_))));
    }

    #[test]
    fn there_is_none_of_a_database_that_does_not_sync() {
        let folder = tempfile::tempdir().unwrap();
        let witness = Witness::new(folder.path(), false, 7);
        assert!(!witness.record(8));
        witness.sync();
        assert_eq!(read(folder.path()).unwrap(), None);
    }
}
