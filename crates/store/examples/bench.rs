//! How fast the store is by itself: `cargo run --release -p coracle-store --example bench [DIRECTORY]`.
//!
//! The directory should be on the disk that matters: in memory, a sync costs nothing.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use coracle_store as store;
use hdrhistogram::Histogram;
use store::{Attributes, Encoded, Key, Op, Options, Precondition, Store};
use tokio::task::JoinSet;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// An object of 1 KB, as of a ConfigMap.
const SIZE: usize = 1024;
const RESOURCE: &str = "core/configmaps";

#[tokio::main]
async fn main() -> Result<()> {
    let parent = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let dir = tempfile::tempdir_in(parent)?;
    println!("objects of {SIZE} bytes, in {}", dir.path().display());
    let before = resident();
    let empty = open(dir.path(), "empty", true)?;
    println!("memory: {before}, with an empty store open {}", resident());
    empty.close().await;
    for fsync in [true, false] {
        for (clients, each) in [(1, 5_000), (16, 3_000), (64, 1_000)] {
            creates(dir.path(), fsync, clients, each).await?;
        }
    }
    watches(dir.path(), 50, 500, 1).await?;
    watches(dir.path(), 50, 5_000, 16).await?;
    reads(dir.path(), 3_000).await?;
    reopen(dir.path()).await
}

fn open(dir: &Path, name: &str, fsync: bool) -> Result<Store> {
    let mut options = Options::new(dir.join(name));
    options.fsync = fsync;
    Ok(Store::open(options, |_, _| Attributes::default())?)
}

fn create(name: String) -> Op {
    Op::Put {
        key: Key::new(RESOURCE, "default", name),
        value: Encoded::new(vec![b'x'; SIZE], SIZE / 2),
        attributes: Attributes::default(),
        precondition: Precondition::Absent,
    }
}

async fn creates(dir: &Path, fsync: bool, clients: usize, each: usize) -> Result<()> {
    let name = format!("creates-{fsync}-{clients}");
    let store = open(dir, &name, fsync)?;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let store = store.clone();
        tasks.spawn(async move {
            let mut latencies = Latencies::new();
            for n in 0..each {
                let start = Instant::now();
                store.commit(create(format!("c{client}-{n}"))).await?;
                latencies.add(start.elapsed());
            }
            Ok::<_, store::CommitError>(latencies)
        });
    }
    let mut latencies = Latencies::new();
    while let Some(done) = tasks.join_next().await {
        latencies.merge(&done??);
    }
    let took = start.elapsed();
    let stats = store.stats();
    println!(
        "create, {clients:2} clients, {}: {:7.0}/s  {latencies}  {:.1} per sync of {:.3} ms",
        if fsync { "synced  " } else { "unsynced" },
        (clients * each) as f64 / took.as_secs_f64(),
        stats.batch.sum / stats.batch.count as f64,
        stats.fsync.sum / stats.fsync.count as f64 * 1e3,
    );
    store.close().await;
    Ok(())
}

async fn watches(dir: &Path, watchers: usize, events: usize, clients: usize) -> Result<()> {
    let store = open(dir, &format!("watches-{clients}"), true)?;
    let born = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..watchers {
        let mut watcher = store.watch(RESOURCE, store.revision())?;
        tasks.spawn(async move {
            let mut latencies = Latencies::new();
            for _ in 0..events {
                let event = watcher.next().await?;
                // The object begins with the time at which it was sent.
                let sent = event.entry.value[..8].try_into().unwrap_or_default();
                let sent = Duration::from_nanos(u64::from_be_bytes(sent));
                latencies.add(born.elapsed().saturating_sub(sent));
            }
            Ok::<_, store::WatchError>(latencies)
        });
    }
    let start = Instant::now();
    let mut writers = JoinSet::new();
    for client in 0..clients {
        let store = store.clone();
        writers.spawn(async move {
            for n in 0..events / clients + usize::from(client < events % clients) {
                let mut value = vec![b'x'; SIZE];
                let now = u64::try_from(born.elapsed().as_nanos()).unwrap_or(u64::MAX);
                value[..8].copy_from_slice(&now.to_be_bytes());
                let op = Op::Put {
                    key: Key::new(RESOURCE, "default", format!("w{client}-{n}")),
                    value: Encoded::new(value, SIZE / 2),
                    attributes: Attributes::default(),
                    precondition: Precondition::Any,
                };
                store.commit(op).await?;
            }
            Ok::<_, store::CommitError>(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    let mut latencies = Latencies::new();
    while let Some(done) = tasks.join_next().await {
        latencies.merge(&done??);
    }
    let rate = (watchers * events) as f64 / start.elapsed().as_secs_f64();
    println!(
        "watch, {watchers} watchers x {events} events of {clients:2} clients: {rate:7.0} events/s  {latencies} from the request on"
    );
    store.close().await;
    Ok(())
}

async fn reads(dir: &Path, objects: usize) -> Result<()> {
    let store = open(dir, "reads", false)?;
    for n in 0..objects {
        store.commit(create(format!("r{n}"))).await?;
    }
    const ROUNDS: usize = 100;
    let start = Instant::now();
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let snapshot = store.snapshot(RESOURCE);
        bytes += snapshot.iter().map(|e| e.value.len()).sum::<usize>();
    }
    let list = start.elapsed() / ROUNDS as u32;
    let start = Instant::now();
    for round in 0..ROUNDS {
        for n in 0..objects {
            let key = Key::new(RESOURCE, "default", format!("r{}", (n * 7 + round) % objects));
            bytes += store.get(&key).map_or(0, |e| e.value.len());
        }
    }
    let gets = (ROUNDS * objects) as f64 / start.elapsed().as_secs_f64();
    println!("read: {gets:.0} gets/s; a walk through {objects} objects takes {list:?} ({bytes} bytes)");
    store.close().await;
    Ok(())
}

async fn reopen(dir: &Path) -> Result<()> {
    let start = Instant::now();
    let store = open(dir, "creates-true-64", true)?;
    let objects = store.snapshot(RESOURCE).len();
    let took = start.elapsed();
    println!("open with {objects} objects: {took:?}");
    store.close().await;
    Ok(())
}

/// The resident memory of this process, as Linux tells it.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap_or("unknown").trim().to_owned()
}

struct Latencies(Histogram<u64>);

impl Latencies {
    fn new() -> Self {
        // From a microsecond to a minute, to a part in a thousand.
        Self(Histogram::new_with_bounds(1, 60_000_000, 3).unwrap_or_else(|_| unreachable!()))
    }

    fn add(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros);
    }

    fn merge(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.0.add(&other.0);
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |q| self.0.value_at_quantile(q) as f64 / 1e3;
        write!(f, "p50 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99))
    }
}
