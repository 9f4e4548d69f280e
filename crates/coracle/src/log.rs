//! The log: standard error, which is a file of bounded size when the process is a daemon.
//!
//! Nothing that a client or a pod can repeat may fill the disk. A place in the code that logs again and again is heard
//! [`BURST`] times and then [`PER_SECOND`] times a second; what was left out is counted. And once the file is larger than
//! [`LOG_BYTES`], it is kept beside as `daemon.log.1` and begun afresh, while the daemon runs.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// How large the log gets before it is begun afresh.
const LOG_BYTES: u64 = 16 << 20;
/// How often a line is heard at once, and how often in a second after that.
const BURST: f64 = 30.0;
const PER_SECOND: f64 = 1.0;

/// Opens the log for a daemon to be started; afresh when it has grown too large.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|log| log.len() > LOG_BYTES) {
        fs::rename(path, kept(path))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Where the log before this one is kept.
pub(crate) fn kept(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// What is logged unless `CORACLE_LOG` says otherwise. The DNS library has a line for each question, and warnings for packets
/// that anybody can send: the log would be the pods' to fill.
pub(crate) const DEFAULT_FILTER: &str = "info,kube=error,hickory=off";

/// Sends what is logged to standard error, which is the file at `path` in a daemon.
pub(crate) fn start(path: Option<PathBuf>) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CORACLE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(DEFAULT_FILTER));
    let is_daemon = path.is_some();
    let output = Output(Arc::new(Mutex::new(path.map(LogFile::new))));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(output.clone())
        .with_ansi(!is_daemon && io::stderr().is_terminal())
        // They go to standard error with a macro that panics when the disk is full.
        .log_internal_errors(false);
    let subscriber = tracing_subscriber::registry().with(filter).with(RateLimit::new(output)).with(lines);
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        tracing::warn!("the log was set up already");
    }
}

/// Standard error. That it cannot be written must not end anything: a full disk is the least of times to panic.
#[derive(Clone)]
struct Output(Arc<Mutex<Option<LogFile>>>);

impl Output {
    fn line(&self, line: &[u8]) {
        let mut file = self.0.lock();
        let written = io::stderr().write_all(line).is_ok();
        if let Some(file) = file.as_mut().filter(|_| written) {
            file.written(line.len());
        }
    }
}

impl MakeWriter<'_> for Output {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Write for Output {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The file that standard error is.
struct LogFile {
    path: PathBuf,
    bytes: u64,
}

impl LogFile {
    fn new(path: PathBuf) -> Self {
        let bytes = fs::metadata(&path).map_or(0, |log| log.len());
        Self { path, bytes }
    }

    fn written(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.bytes > LOG_BYTES {
            self.bytes = 0;
            rotate(&self.path, |file| Ok(rustix::stdio::dup2_stderr(file)?));
        }
    }
}

/// Keeps the log beside, and has a new one take its place. Where that cannot be had, as without descriptors, the log is
/// emptied: what is bounded in any case is its size.
fn rotate(path: &Path, take: impl FnOnce(&File) -> io::Result<()>) {
    let new = path.with_extension("log.new");
    let made = OpenOptions::new().append(true).create(true).truncate(false).mode(0o600).open(&new);
    let replaced = made.and_then(|file| {
        fs::rename(path, kept(path))?;
        fs::rename(&new, path)?;
        take(&file)
    });
    if replaced.is_err() {
        let _ = rustix::fs::ftruncate(io::stderr(), 0);
    }
}

/// Bounds how often one place in the code is heard.
struct RateLimit {
    places: Mutex<HashMap<Identifier, Bucket>>,
    output: Output,
}

/// What a place may still say.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
    left_out: u64,
}

impl RateLimit {
    fn new(output: Output) -> Self {
        Self { places: Mutex::default(), output }
    }
}

impl<S: Subscriber> Layer<S> for RateLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let now = Instant::now();
        let metadata = event.metadata();
        let heard = {
            let mut places = self.places.lock();
            places.entry(metadata.callsite()).or_insert_with(|| Bucket::new(now)).take(now)
        };
        if let Some(left_out @ 1..) = heard {
            let line = format!("{left_out} lines like the next one were left out ({})\n", metadata.target());
            self.output.line(line.as_bytes());
        }
        heard.is_some()
    }
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self { tokens: BURST, filled: now, left_out: 0 }
    }

    /// Takes a token. If there is one, returns how many times there was none before.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + since * PER_SECOND).min(BURST);
        self.filled = now;
        if self.tokens < 1.0 {
            self.left_out += 1;
            return None;
        }
        self.tokens -= 1.0;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Collects what is logged.
    #[derive(Clone, Default)]
    struct Collected(Arc<Mutex<Vec<u8>>>);

    impl Write for Collected {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn questions_to_the_dns_server_are_not_logged() {
        let log = Collected::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new(DEFAULT_FILTER))
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "hickory_server::server", "query:www.example.org.:A:IN");
            tracing::warn!(target: "hickory_server::server", "address can not be responded to");
            tracing::warn!(target: "hickory_net::udp", "expected message");
            tracing::info!(target: "dns", "kept");
            tracing::info!(target: "coracle", "kept");
        });
        let log = String::from_utf8(log.0.lock().clone()).expect("text");
        assert_eq!(log.matches("kept").count(), 2, "{log}");
        assert_eq!(log.lines().count(), 2, "{log}");
    }

    #[test]
    fn a_place_is_heard_often_and_then_now_and_then() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let heard = (0..1000).filter(|_| bucket.take(start).is_some()).count();
        assert_eq!(heard, 30);
        let mut later = (1..=60).map(|second| bucket.take(start + Duration::from_secs(second)));
        assert_eq!(later.next(), Some(Some(970)));
        assert!(later.all(|heard| heard == Some(0)));
        let long_after = start + Duration::from_secs(3600);
        assert_eq!((0..1000).filter(|_| bucket.take(long_after).is_some()).count(), 30);
    }

    #[test]
    fn a_log_that_is_full_is_kept_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("daemon.log");
        let mut current = open(&path).expect("a file");
        for text in ["first", "second", "third"] {
            current.write_all(text.as_bytes()).expect("written");
            rotate(&path, |new| {
                current = new.try_clone()?;
                Ok(())
            });
        }
        current.write_all(b"fourth").expect("written");
        let read = |path: &Path| fs::read_to_string(path).expect("a file");
        assert_eq!((read(&path).as_str(), read(&kept(&path)).as_str()), ("fourth", "third"));
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 2);
    }
}
