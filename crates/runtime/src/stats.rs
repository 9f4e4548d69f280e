//! What a container has used.

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
