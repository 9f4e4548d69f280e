//! What the store measures of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Revision;

/// Upper bounds of the latencies of a write, in seconds.
const SECONDS: [f64; 12] =
    [0.000_05, 0.000_1, 0.000_2, 0.000_4, 0.000_8, 0.001_6, 0.003_2, 0.006_4, 0.012_8, 0.05, 0.2, 1.0];
/// Upper bounds of the numbers of transactions written together.
const SIZES: [f64; 12] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0];

/// The store at a glance, for `/metrics`. Counters count since it was opened.
#[derive(Clone, Debug)]
pub struct Stats {
    /// The newest revision.
    pub revision: Revision,
    /// The log has been compacted up to and with this revision.
    pub horizon: Revision,
    /// How many objects there are of each resource, by its name, sorted.
    pub objects: Vec<(Arc<str>, usize)>,
    /// Transactions committed.
    pub commits: u64,
    /// Transactions refused because a precondition did not hold.
    pub conflicts: u64,
    /// Bytes written to the log, uncompressed.
    pub log_bytes: u64,
    /// Times a watcher had to read from disk.
    pub log_reads: u64,
    /// Compactions of the log.
    pub compactions: u64,
    /// Seconds a synced write took.
    pub fsync: Histogram,
    /// Transactions written together.
    pub batch: Histogram,
}

/// A distribution, as Prometheus counts it.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// The upper bound of each bucket, inclusive. What is above the last is in none.
    pub bounds: &'static [f64],
    /// How many values each bucket holds; not cumulative.
    pub counts: Vec<u64>,
    /// The sum of all values.
    pub sum: f64,
    /// How many values there were.
    pub count: u64,
}

#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    pub(crate) log_bytes: AtomicU64,
    pub(crate) log_reads: AtomicU64,
    pub(crate) compactions: AtomicU64,
    fsync: Buckets,
    batch: Buckets,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            commits: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            log_bytes: AtomicU64::new(0),
            log_reads: AtomicU64::new(0),
            compactions: AtomicU64::new(0),
            fsync: Buckets::new(&SECONDS, 1e-9),
            batch: Buckets::new(&SIZES, 1.0),
        }
    }

    /// Counts one write to disk.
    pub(crate) fn written(&self, transactions: usize, took: Duration) {
        self.fsync.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        self.batch.add(transactions as u64);
    }

    pub(crate) fn fsync(&self) -> Histogram {
        self.fsync.read()
    }

    pub(crate) fn batch(&self) -> Histogram {
        self.batch.read()
    }
}

/// A histogram that is counted without a lock, in whole units of `unit`.
#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    unit: f64,
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
    count: AtomicU64,
}

impl Buckets {
    fn new(bounds: &'static [f64], unit: f64) -> Self {
        Self {
            bounds,
            unit,
            counts: bounds.iter().map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            count: AtomicU64::new(0),
        }
    }

    fn add(&self, value: u64) {
        let scaled = value as f64 * self.unit;
        let bucket = self.bounds.partition_point(|bound| *bound < scaled);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> Histogram {
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Histogram {
            bounds: self.bounds,
            counts: self.counts.iter().map(load).collect(),
            sum: load(&self.sum) as f64 * self.unit,
            count: load(&self.count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_that_holds_them() {
        let counters = Counters::new();
        for (size, nanos) in [(1, 40_000), (2, 50_000), (3, 50_001), (5_000, 2_000_000_000)] {
            counters.written(size, Duration::from_nanos(nanos));
        }
        let fsync = counters.fsync();
        assert_eq!(fsync.counts[..3], [2, 1, 0]);
        assert_eq!(fsync.count, 4);
        assert!((fsync.sum - 2.000_140_001).abs() < 1e-9);
        let batch = counters.batch();
        assert_eq!(batch.counts[..4], [1, 1, 1, 0]);
        assert_eq!(batch.counts.iter().sum::<u64>(), 3);
    }
}
