//! What the machine says about itself.

use std::path::Path;

use jiff::Timestamp;
use streaming::stats::MemoryStats;

/// Size in bytes of the disk that holds `path`, or its nearest parent that exists.
pub(super) fn storage(path: &Path) -> u64 {
    let stat = path.ancestors().find_map(|path| rustix::fs::statvfs(path).ok());
    stat.map_or(0, |stat| stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// What the machine has used: nanoseconds of one core since its start, and its memory now.
pub(crate) fn usage(now: Timestamp) -> (u64, MemoryStats) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    (processor_time(&read("/proc/stat")), memory(&read("/proc/meminfo"), now))
}

/// When the machine was started.
pub(crate) fn boot_time() -> Option<Timestamp> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    Timestamp::from_second(line.trim().parse().ok()?).ok()
}

/// Nanoseconds that the processors did not idle, from the text of `/proc/stat`.
fn processor_time(text: &str) -> u64 {
    /// What the kernel tells user space a tick is, on every architecture.
    const NANOSECONDS_PER_TICK: u64 = 10_000_000;
    let Some(line) = text.lines().find_map(|line| line.strip_prefix("cpu ")) else { return 0 };
    // user nice system idle iowait irq softirq steal; guests are counted among the users.
    let ticks = line.split_whitespace().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4));
    ticks.filter_map(|(_, ticks)| ticks.parse::<u64>().ok()).sum::<u64>().saturating_mul(NANOSECONDS_PER_TICK)
}

/// The machine's memory, from the text of `/proc/meminfo`.
fn memory(text: &str, time: Timestamp) -> MemoryStats {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() * 1024
    };
    let total = bytes("MemTotal");
    let usage_bytes = total.saturating_sub(bytes("MemFree"));
    let working_set_bytes = usage_bytes.saturating_sub(bytes("Inactive(file)"));
    MemoryStats {
        time,
        available_bytes: Some(total.saturating_sub(working_set_bytes)),
        usage_bytes,
        working_set_bytes,
        rss_bytes: bytes("AnonPages"),
    }
}

/// The identities of the machine, its system and its present run.
pub(super) struct Identity {
    pub(super) machine_id: String,
    pub(super) system_uuid: String,
    pub(super) boot_id: String,
}

impl Identity {
    pub(super) fn read() -> Self {
        let read = |path: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.trim().to_owned()
        };
        let machine_id = read("/etc/machine-id");
        let uuid = read("/sys/class/dmi/id/product_uuid");
        Self {
            system_uuid: match uuid.is_empty() {
                // Readable by root only; upstream falls back to the machine id, too.
                true => machine_id.clone(),
                false => uuid.to_lowercase(),
            },
            machine_id,
            boot_id: read("/proc/sys/kernel/random/boot_id"),
        }
    }
}

/// The architecture in Go's spelling.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells() {
        assert_eq!(processor_time("cpu  10 1 5 100 50 2 3 4 7 7\ncpu0 1 1\n"), 250_000_000);
        assert_eq!(processor_time(""), 0);
        let text = "MemTotal: 100 kB\nMemFree: 40 kB\nInactive: 30 kB\nInactive(file): 20 kB\nAnonPages: 7 kB\n";
        let memory = memory(text, Timestamp::UNIX_EPOCH);
        assert_eq!((memory.usage_bytes, memory.working_set_bytes), (60 << 10, 40 << 10));
        assert_eq!((memory.available_bytes, memory.rss_bytes), (Some(60 << 10), 7 << 10));
        assert!(boot_time().is_some());
    }
}
