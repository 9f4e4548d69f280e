//! The file of the audit log, and the thread that writes it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::Level;
use super::event::Record;

/// How many events may be queued (upstream's buffer in batch mode: `--audit-log-batch-buffer-size`), and how many bytes they may have
/// of objects and of what clients say of themselves.
const EVENTS: usize = 10_000;
const BYTES: usize = 64 << 20;
/// How much is written at once.
const BATCH: usize = 256 << 10;
/// How large the file becomes, and how many older ones are kept: `audit.log.1` is the latest of them.
const FILE_BYTES: u64 = 64 << 20;
const OLDER: u32 = 3;

/// Takes events, and writes them in the background.
pub(super) struct Log {
    /// Gone when the log is closed.
    queue: Mutex<Option<SyncSender<Record>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    /// The bytes that the events hold which are queued.
    held: AtomicUsize,
    events: AtomicU64,
    errors: AtomicU64,
    /// Events by their level; the first is of none.
    levels: [AtomicU64; 4],
}

impl Log {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::with_limit(path, FILE_BYTES)
    }

    pub(super) fn with_limit(path: &Path, limit: u64) -> io::Result<Self> {
        let mut file = LogFile::open(path, limit)?;
        let (queue, queued) = sync_channel(EVENTS);
        let counters = Arc::<Counters>::default();
        let counting = Arc::clone(&counters);
        let thread = thread::Builder::new().name("audit-log".to_owned()).spawn(move || file.run(&queued, &counting))?;
        Ok(Self { queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)), counters })
    }

    /// Queues an event; drops it, and counts that, where the queue is full.
    pub(super) fn write(&self, record: Record) {
        let counters = &self.counters;
        counters.events.fetch_add(1, Relaxed);
        counters.levels[record.level() as usize].fetch_add(1, Relaxed);
        let bytes = record.held();
        let held = counters.held.fetch_add(bytes, Relaxed);
        // A single one may be as large as the largest answer.
        let fits = held == 0 || held + bytes <= BYTES;
        // The lock is held for as long as it takes to put something into a queue, and never while it is written.
        let queued = || self.queue.lock().as_ref().is_some_and(|queue| queue.try_send(record).is_ok());
        if !(fits && queued()) {
            counters.held.fetch_sub(bytes, Relaxed);
            if counters.errors.fetch_add(1, Relaxed) == 0 {
                tracing::warn!("the audit log cannot keep up: events are dropped; see apiserver_audit_error_total");
            }
        }
    }

    /// Writes what is queued, and ends.
    pub(super) fn close(&self) {
        drop(self.queue.lock().take());
        if let Some(thread) = self.thread.lock().take() {
            // It fails only if it panicked.
            let _ = thread.join();
        }
    }

    pub(super) fn metrics(&self) -> Box<dyn Collector> {
        Box::new(Metrics(Arc::clone(&self.counters)))
    }
}

/// The file.
struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    limit: u64,
}

impl LogFile {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        // Not to append: what was written in part is overwritten.
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes, limit })
    }

    fn run(&mut self, queued: &Receiver<Record>, counters: &Counters) {
        let mut lines = Vec::new();
        while let Ok(first) = queued.recv() {
            let (mut events, mut failed) = (0, 0);
            let mut next = Some(first);
            while let Some(record) = next {
                let length = lines.len();
                match record.write(&mut lines) {
                    Ok(()) => events += 1,
                    Err(error) => {
                        tracing::warn!(%error, "an event cannot be written as JSON");
                        lines.truncate(length);
                        failed += 1;
                    }
                }
                counters.held.fetch_sub(record.held(), Relaxed);
                next = if lines.len() < BATCH { queued.try_recv().ok() } else { None };
            }
            if let Err(error) = self.append(&lines) {
                tracing::warn!(%error, path = %self.path.display(), events, "events of the audit log are lost");
                failed += events;
            }
            counters.errors.fetch_add(failed, Relaxed);
            lines.clear();
            lines.shrink_to(BATCH);
        }
    }

    /// Writes whole lines, or none of them.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + lines.len() as u64 > self.limit {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all_at(lines, self.bytes) {
            // A part of a line would spoil the next one.
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += lines.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let older = |number: u32| {
            let mut path = self.path.clone().into_os_string();
            path.push(format!(".{number}"));
            PathBuf::from(path)
        };
        // Somebody may have taken it away. The older ones are not to suffer for that.
        if self.path.try_exists()? {
            for number in (1..OLDER).rev() {
                match fs::rename(older(number), older(number + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            fs::rename(&self.path, older(1))?;
        }
        *self = Self::open(&self.path, self.limit)?;
        Ok(())
    }
}

struct Metrics(Arc<Counters>);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let counters = &self.0;
        let value = |counter: &AtomicU64| ConstCounter::new(counter.load(Relaxed));
        let (name, help) = ("apiserver_audit_event", "Events handed to the audit log");
        let event = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        value(&counters.events).encode(event)?;
        let (name, help) = ("apiserver_audit_error", "Events that the audit log lost");
        let mut error = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        value(&counters.errors).encode(error.encode_family(&[("plugin", "log")])?)?;
        let (name, help) = ("apiserver_audit_level", "Events by their level");
        let mut levels = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for level in [Level::Metadata, Level::Request, Level::RequestResponse] {
            let count = value(&counters.levels[level as usize]);
            count.encode(levels.encode_family(&[("level", level.as_str())])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_bounded_in_size_and_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut file = LogFile::open(&path, 100).unwrap();
        for number in 0..20 {
            file.append(format!("{number:0>39}\n").as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        let numbers = |name: &str| read(name).lines().map(|line| line.parse::<u32>().unwrap()).collect::<Vec<_>>();
        assert_eq!(numbers("audit.log"), [18, 19]);
        assert_eq!((numbers("audit.log.1"), numbers("audit.log.3")), (vec![16, 17], vec![12, 13]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
        // What is larger than a file has one for itself.
        file.append(&[b'x'; 300]).unwrap();
        assert_eq!((read("audit.log").len(), numbers("audit.log.1")), (300, vec![18, 19]));
        // The next start goes on behind what is there.
        let mut file = LogFile::open(&path, 1000).unwrap();
        file.append(b"y\n").unwrap();
        assert!(read("audit.log").ends_with("xy\n"));
    }

    #[test]
    fn a_file_that_somebody_took_away_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        let mut file = LogFile::open(&path, 10).unwrap();
        file.append(b"first 89\n").unwrap();
        file.append(b"next 789\n").unwrap();
        fs::remove_file(&path).unwrap();
        file.append(b"last 789\n").unwrap();
        assert_eq!((read("audit.log"), read("audit.log.1")), ("last 789\n".to_owned(), "first 89\n".to_owned()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
