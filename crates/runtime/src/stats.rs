//! What a container has used, and takes.

use jiff::Timestamp;

/// Counters and gauges of one container at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// When they were read.
    pub time: Timestamp,
    /// Processor time used since its start, in nanoseconds.
    pub cpu_usage_ns: u64,
    /// Memory in use, page cache included, in bytes.
    pub memory_usage_bytes: u64,
    /// Memory in use without cache that can be dropped at once; what evictions and `kubectl top` look at.
    pub memory_working_set_bytes: u64,
    /// Anonymous memory, in bytes.
    pub memory_rss_bytes: u64,
    /// Limit in bytes, when there is one.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes received by its network namespace; 0 for a container, which uses its sandbox's.
    pub network_rx_bytes: u64,
    /// Bytes sent by its network namespace; 0 for a container, which uses its sandbox's.
    pub network_tx_bytes: u64,
}

/// What a container takes of the disk beside its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskUsage {
    /// Bytes of its writable layer.
    pub writable_layer_bytes: u64,
    /// Files, directories and links of its writable layer; 0 where the runtime does not tell.
    pub writable_layer_inodes: u64,
    /// Bytes of its logs.
    pub log_bytes: u64,
}

impl DiskUsage {
    /// All bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.writable_layer_bytes.saturating_add(self.log_bytes)
    }
}
