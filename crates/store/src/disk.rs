//! RocksDB, and nothing else: where the bytes lie, how they are synced, what its errors mean.

mod log_reader;

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use rocksdb::properties::{BACKGROUND_ERRORS, CUR_SIZE_ALL_MEM_TABLES};
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB,
    DBCompressionType, DBRecoveryMode, ErrorKind, LogLevel, ReadOptions, WriteBatch, WriteOptions,
};

use log_reader::LogReader;

use crate::batch::Batch;
use crate::record::{FORMAT, ObjectRecord, log_key};
use crate::{OpenError, Options, Revision, Transformer, torn, witness};

const OBJECTS: &str = "objects";
const LOG: &str = "log";
const META: &str = "meta";
/// In `meta`: the format of what is on disk.
const META_FORMAT: &[u8] = b"format";
/// That a witness was made ([`witness`]).
const META_WITNESS: &[u8] = b"witness";
/// In `meta`: the log has been compacted up to and with this revision.
const META_HORIZON: &[u8] = b"horizon";
/// How many revisions are passed over where acknowledged ones were lost: more than are written while the witness lags behind.
/// As with etcd: `etcdutl snapshot restore --bump-revision --mark-compacted`.
pub(crate) const BUMP: Revision = 1 << 20;
/// The file whose lock keeps others out. RocksDB has one too, but touches the directory before it looks at it.
const LOCK_FILE: &str = "coracle.lock";

/// An error of the disk, or what was found on it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("{0}")]
    Corrupt(String),
    #[error("{0}")]
    Io(String),
    /// A value that the transformer cannot read, or write.
    #[error("{0}")]
    Unreadable(String),
}

impl From<rocksdb::Error> for DiskError {
    fn from(error: rocksdb::Error) -> Self {
        let text = one_line(error.as_ref());
        match error.kind() {
            ErrorKind::Corruption => Self::Corrupt(text),
            _ => Self::Io(text),
        }
    }
}

pub(crate) type Result<T, E = DiskError> = std::result::Result<T, E>;

/// The open database.
pub(crate) struct Disk {
    db: DB,
    fsync: bool,
    lock: Lock,
    transformer: Option<Arc<dyn Transformer>>,
    #[cfg(test)]
    faults: Arc<crate::tests::Faults>,
}

/// Keeps other processes out of the directory, as long as any copy of it is left.
pub(crate) type Lock = Arc<File>;

impl Disk {
    /// Opens the database, creating it where there is none.
    pub(crate) fn open(options: &Options) -> Result<Self, OpenError> {
        let path = &options.path;
        let unwritable = |error| OpenError::Unwritable { path: path.clone(), error };
        fs::create_dir_all(path).map_err(unwritable)?;
        let lock = Arc::new(lock(path)?);
        Self::open_locked(options, lock)
    }

    /// Opens the database of a directory that is locked already: again, after a failure.
    ///
    /// A write-ahead log without an end that was cut short is opened at once. One with such an end is looked at first, without
    /// writing anything, since to open it means to drop that end: only where nothing is missing that was durable, a crash cut
    /// it short, or left zeros there ([`torn`]). Else it is kept as it is, for whoever may be able to repair it.
    pub(crate) fn open_locked(options: &Options, lock: Lock) -> Result<Self, OpenError> {
        #[cfg(test)]
        options.faults.opening().map_err(|detail| OpenError::Io { path: options.path.clone(), detail })?;
        let witnessed = witness::read(&options.path);
        let open = |mode| {
            Self::open_as(options, Arc::clone(&lock), |path, families| {
                DB::open_cf_descriptors(&database(mode), path, families)
            })
        };
        let opened = match open(DBRecoveryMode::AbsoluteConsistency) {
            Err(OpenError::Corrupt { .. }) => {
                // The one that was read is closed before it is opened to be written.
                let mode = Self::open_unwritten(options, &lock, &witnessed).map(|(_, mode)| mode);
                mode.and_then(open)
            }
            opened => opened.and_then(|disk| disk.check_witness(options, &witnessed).map(|()| disk)),
        };
        let disk = match opened {
            Err(OpenError::Corrupt { .. } | OpenError::Lost { .. }) if options.accept_loss => {
                let disk = open(DBRecoveryMode::PointInTime)?;
                disk.bump(witnessed.ok().flatten()).map_err(|error| refuse(&options.path, error))?;
                disk
            }
            opened => opened?,
        };
        disk.write_format(options)
    }

    /// Opens a database that is there without writing anything: what is in its write-ahead log is read into memory. Every
    /// write fails.
    pub(crate) fn open_read_only(options: &Options) -> Result<Self, OpenError> {
        let lock = Arc::new(lock(&options.path)?);
        let (disk, _) = Self::open_unwritten(options, &lock, &witness::read(&options.path))?;
        match disk.format() {
            Ok(Some(_)) => Ok(disk),
            Ok(None) => Err(refuse(&options.path, damaged("it was never opened"))),
            Err(error) => Err(refuse(&options.path, error)),
        }
    }

    /// Opens a database that a crash may have cut short without writing anything. Says how the end of its write-ahead log has to
    /// be taken.
    fn open_unwritten(
        options: &Options,
        lock: &Lock,
        witnessed: &Result<Option<Revision>>,
    ) -> Result<(Self, DBRecoveryMode), OpenError> {
        let open = |mode| -> Result<_, OpenError> {
            let disk = Self::open_as(options, Arc::clone(lock), |path, families| {
                DB::open_cf_descriptors_read_only(&database(mode), path, families, false)
            })?;
            disk.check_witness(options, witnessed)?;
            Ok((disk, mode))
        };
        match open(DBRecoveryMode::TolerateCorruptedTailRecords) {
            // Without a witness, nobody knows what was there before the zeros.
            Err(OpenError::Corrupt { .. })
                if matches!(witnessed, Ok(Some(_))) && torn::ends_in_zeros(&options.path).unwrap_or(false) =>
            {
                open(DBRecoveryMode::PointInTime)
            }
            opened => opened,
        }
    }

    /// Refuses a database that ends before the witness, or one whose witness cannot be read or is gone.
    fn check_witness(&self, options: &Options, witnessed: &Result<Option<Revision>>) -> Result<(), OpenError> {
        let path = || options.path.clone();
        let has_one = self.has_witness().map_err(|error| refuse(&options.path, error))?;
        let durable = match witnessed {
            Ok(None) if has_one => return Err(refuse(&options.path, witness::gone())),
            Ok(witnessed) => witnessed.unwrap_or(0),
            Err(DiskError::Corrupt(detail)) => {
                return Err(OpenError::Corrupt { path: path(), detail: detail.clone() });
            }
            Err(DiskError::Io(detail) | DiskError::Unreadable(detail)) => {
                return Err(OpenError::Io { path: path(), detail: detail.clone() });
            }
        };
        let found = self.newest().map_err(|error| refuse(&options.path, error))?;
        if found < durable {
            return Err(OpenError::Lost { path: path(), durable, found });
        }
        Ok(())
    }

    /// The newest revision. The log may have been emptied by a compaction; what lies before the horizon was used nevertheless.
    pub(crate) fn newest(&self) -> Result<Revision> {
        let (newest, _) = self.log_last()?.unwrap_or_default();
        Ok(newest.max(self.horizon()?))
    }

    /// Forgets the history, and goes on with revisions that were never handed out.
    pub(crate) fn bump(&self, witnessed: Option<Revision>) -> Result<()> {
        let found = self.newest()?;
        let next = self.pass_over(witnessed.unwrap_or(0))? + 1;
        tracing::error!(found, durable = ?witnessed, next, "the store was damaged: its history is given up, and what could not be read");
        Ok(())
    }

    /// Forgets the history, and passes over all revisions up to one, and over those that may have followed it. Returns the last
    /// one that is passed over.
    pub(crate) fn pass_over(&self, used: Revision) -> Result<Revision> {
        let to = self.newest()?.max(used).saturating_add(BUMP);
        self.compact(to)?;
        Ok(to)
    }

    fn open_as(
        options: &Options,
        lock: Lock,
        open: impl FnOnce(&Path, [ColumnFamilyDescriptor; 3]) -> std::result::Result<DB, rocksdb::Error>,
    ) -> Result<Self, OpenError> {
        let path = &options.path;
        let unwritable = |error| OpenError::Unwritable { path: path.clone(), error };
        let remains = remains_without_head(path).map_err(unwritable)?;
        if let Some(file) = remains {
            // RocksDB would take the directory for a new one, and everything in it would be lost.
            return Err(OpenError::Corrupt {
                path: path.clone(),
                detail: format!("there is {file}, but the file CURRENT is missing"),
            });
        }
        let cache = Cache::new_lru_cache(2 << 20);
        let families = [(OBJECTS, 4 << 20), (LOG, 8 << 20), (META, 64 << 10)]
            .map(|(name, buffer)| ColumnFamilyDescriptor::new(name, family(&cache, buffer)));
        let db = open(path, families).map_err(|error| open_error(path, &error))?;
        let disk = Self {
            db,
            fsync: options.fsync,
            lock,
            transformer: options.transformer.clone(),
            #[cfg(test)]
            faults: Arc::clone(&options.faults),
        };
        disk.check_format(path)?;
        Ok(disk)
    }

    /// Closes the database, and keeps the directory locked.
    pub(crate) fn close(self) -> Lock {
        self.lock
    }

    /// The log has been compacted up to and with this revision.
    pub(crate) fn horizon(&self) -> Result<Revision> {
        let found = self.db.get_pinned_cf(self.family(META)?, META_HORIZON)?;
        match found {
            None => Ok(0),
            Some(bytes) => number(&bytes).ok_or_else(|| damaged("the horizon is no number")),
        }
    }

    /// Shows the objects from a key on, in the order of the keys, for as long as more are asked for.
    pub(crate) fn objects(
        &self,
        from: &[u8],
        mut show: impl FnMut(&[u8], ObjectRecord<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut rows = self.db.raw_iterator_cf_opt(self.family(OBJECTS)?, scanning());
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            let record = ObjectRecord::decode(value)
                .ok_or_else(|| damaged(&format!("the object {} is cut short", String::from_utf8_lossy(key))))?;
            if show(key, record)?.is_break() {
                return Ok(());
            }
            rows.next();
        }
        Ok(rows.status()?)
    }

    /// Reads the log after a revision. It does not see what is written later.
    pub(crate) fn log_after(&self, revision: Revision) -> Result<LogReader<'_>> {
        let mut rows = self.db.raw_iterator_cf_opt(self.family(LOG)?, scanning());
        rows.seek(log_key(revision.saturating_add(1), 0));
        Ok(LogReader { rows })
    }

    /// The revision and the end of the newest record in the log, if there is any.
    pub(crate) fn log_last(&self) -> Result<Option<(Revision, u64)>> {
        let mut rows = self.db.raw_iterator_cf_opt(self.family(LOG)?, scanning());
        rows.seek_to_last();
        let reader = LogReader { rows };
        Ok(reader.current()?.map(|(revision, record)| (revision, record.end)))
    }

    /// Begins to collect what is written together.
    pub(crate) fn batch(&self) -> Result<Batch<'_>> {
        Ok(Batch::new(self.family(OBJECTS)?, self.family(LOG)?, self.transformer.as_deref()))
    }

    /// Writes a batch. When this returns, it is on disk, whole.
    pub(crate) fn write(&self, batch: Batch<'_>) -> Result<()> {
        self.write_synced(batch.into_inner())
    }

    /// Removes the log up to and with a revision.
    pub(crate) fn compact(&self, horizon: Revision) -> Result<()> {
        let log = self.family(LOG)?;
        let (from, to) = (log_key(0, 0), log_key(horizon.saturating_add(1), 0));
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(log, from, to);
        batch.put_cf(self.family(META)?, META_HORIZON, horizon.to_be_bytes());
        // Synced, because the files go at once, and a horizon that is behind them would look like a gap.
        self.write_synced(batch)?;
        // To RocksDB the end of a range belongs to it where files are meant: one whose last record is the first that stays
        // would go.
        self.db.delete_file_in_range_cf(log, from, log_key(horizon, u32::MAX))?;
        Ok(())
    }

    /// How many bytes of what was written are held in memory.
    pub(crate) fn in_memory(&self) -> Result<u64> {
        let mut sum = 0;
        for family in self.families()? {
            sum += self.db.property_int_value_cf(family, CUR_SIZE_ALL_MEM_TABLES)?.unwrap_or(0);
        }
        Ok(sum)
    }

    /// Moves what is held in memory into tables.
    pub(crate) fn flush(&self) -> Result<()> {
        for family in self.families()? {
            self.db.flush_cf(family)?;
        }
        Ok(())
    }

    /// Moves everything into new tables without what was overwritten or deleted, and so rids the disk of it.
    pub(crate) fn purge(&self) -> Result<()> {
        self.flush()?;
        // A compaction does not say itself that it failed.
        let failures = || self.db.property_int_value(BACKGROUND_ERRORS);
        let before = failures()?;
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        for family in self.families()? {
            self.db.compact_range_cf_opt(family, None::<&[u8]>, None::<&[u8]>, &options);
        }
        if failures()? != before {
            return Err(DiskError::Io("the tables of the store cannot be written again".to_owned()));
        }
        Ok(())
    }

    fn write_synced(&self, batch: WriteBatch) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(self.fsync);
        let write = || Ok(self.db.write_opt(batch, &options)?);
        #[cfg(test)]
        return self.faults.writing(write);
        #[cfg(not(test))]
        write()
    }

    /// The format of what is on disk; none before the first start has got so far.
    fn format(&self) -> Result<Option<u32>> {
        let Some(found) = self.db.get_pinned_cf(self.family(META)?, META_FORMAT)? else { return Ok(None) };
        let found = number(&found).ok_or_else(|| damaged("the format is no number"))?;
        Ok(Some(u32::try_from(found).unwrap_or(u32::MAX)))
    }

    fn check_format(&self, path: &Path) -> Result<(), OpenError> {
        match self.format() {
            Ok(Some(found)) if found > FORMAT => Err(OpenError::TooNew { path: path.to_owned(), found, known: FORMAT }),
            Ok(_) => Ok(()),
            Err(error) => Err(refuse(path, error)),
        }
    }

    /// Writes the format where there is none yet, or an older one, and that there is a witness, once there is one.
    fn write_format(self, options: &Options) -> Result<Self, OpenError> {
        let write = || -> Result<()> {
            let mut batch = WriteBatch::default();
            if self.format()? != Some(FORMAT) {
                batch.put_cf(self.family(META)?, META_FORMAT, u64::from(FORMAT).to_be_bytes());
            }
            if self.fsync && !self.has_witness()? && witness::ensure(&options.path, self.newest()?) {
                batch.put_cf(self.family(META)?, META_WITNESS, []);
            }
            if batch.is_empty() { Ok(()) } else { self.write_synced(batch) }
        };
        write().map_err(|error| refuse(&options.path, error))?;
        Ok(self)
    }

    /// Whether a witness was made, which from then on must be there. In stores of an earlier version it may not have been.
    fn has_witness(&self) -> Result<bool> {
        Ok(self.db.get_pinned_cf(self.family(META)?, META_WITNESS)?.is_some())
    }

    fn families(&self) -> Result<[&ColumnFamily; 3]> {
        Ok([self.family(OBJECTS)?, self.family(LOG)?, self.family(META)?])
    }

    fn family(&self, name: &str) -> Result<&ColumnFamily> {
        self.db.cf_handle(name).ok_or_else(|| damaged(&format!("the column family {name} is missing")))
    }
}

/// What an error while reading a store that is being opened means to the user.
pub(crate) fn refuse(path: &Path, error: DiskError) -> OpenError {
    let path = path.to_owned();
    match error {
        DiskError::Corrupt(detail) => OpenError::Corrupt { path, detail },
        DiskError::Io(detail) => OpenError::Io { path, detail },
        DiskError::Unreadable(detail) => OpenError::Unreadable { path, detail },
    }
}

pub(crate) fn damaged(detail: &str) -> DiskError {
    DiskError::Corrupt(detail.to_owned())
}

/// Memory and threads are bounded tightly: objects live in the index, RocksDB only has to remember.
fn database(recovery: DBRecoveryMode) -> rocksdb::Options {
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(recovery);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_total_wal_size(32 << 20);
    options.set_db_write_buffer_size(14 << 20);
    options.set_max_background_jobs(2);
    options.set_max_subcompactions(1);
    options.set_max_open_files(64);
    options.set_max_file_opening_threads(1);
    // One thread writes.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

fn family(cache: &Cache, write_buffer: usize) -> rocksdb::Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(16 << 10);
    table.set_cache_index_and_filter_blocks(true);
    let mut options = rocksdb::Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(write_buffer);
    options.set_max_write_buffer_number(3);
    options.set_target_file_size_base(8 << 20);
    options.set_max_bytes_for_level_base(64 << 20);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}

/// A scan of much, once: it must not push out what the cache holds.
fn scanning() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let unwritable = |error| OpenError::Unwritable { path: path.to_owned(), error };
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join(LOCK_FILE))
        .map_err(unwritable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Who it is helps, but is not needed.
            let _ = file.read_to_string(&mut pid);
            return Err(OpenError::Locked { path: path.to_owned(), pid: pid.trim().parse().ok() });
        }
        Err(TryLockError::Error(error)) => return Err(unwritable(error)),
    }
    // In place, since on a full disk a file that was emptied could not be written again. Who has it helps whoever comes
    // later, but is not needed.
    let id = format!("{}\n", std::process::id());
    let _ = file.write_all(id.as_bytes()).and_then(|()| file.set_len(id.len() as u64));
    Ok(file)
}

/// A file of a database whose head, the file `CURRENT`, is missing.
fn remains_without_head(path: &Path) -> io::Result<Option<String>> {
    let mut found = None;
    for file in fs::read_dir(path)? {
        let name = file?.file_name().to_string_lossy().into_owned();
        if name == "CURRENT" {
            return Ok(None);
        }
        if name.ends_with(".sst") || name.ends_with(".log") {
            found = Some(name);
        }
    }
    Ok(found)
}

fn open_error(path: &Path, error: &rocksdb::Error) -> OpenError {
    let detail = one_line(error.as_ref());
    let path = path.to_owned();
    let says = |text: &str| detail.contains(text);
    if says("lock hold by current process") || says("While lock file") {
        OpenError::Locked { path, pid: None }
    } else if says("Permission denied") || says("Read-only file system") {
        let error = io::Error::other(detail);
        OpenError::Unwritable { path, error }
    } else if error.kind() == ErrorKind::IOError && !says("No such file or directory") {
        OpenError::Io { path, detail }
    } else {
        // What is missing, of an unknown kind, or does not fit together.
        OpenError::Corrupt { path, detail }
    }
}

/// RocksDB quotes what it found, whatever that is.
fn one_line(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(300).map(printable).collect()
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}
