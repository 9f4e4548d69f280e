//! What the machine says about itself.

use std::path::Path;

/// Size in bytes of the disk that holds `path`, or its nearest parent that exists.
pub(super) fn storage(path: &Path) -> u64 {
    let stat = path.ancestors().find_map(|path| rustix::fs::statvfs(path).ok());
    stat.map_or(0, |stat| stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// How full the disk that holds `path` is: available and total bytes, free and total inodes.
pub(super) fn disk(path: &Path) -> Option<[u64; 4]> {
    let stat = path.ancestors().find_map(|path| rustix::fs::statvfs(path).ok())?;
    Some([
        stat.f_bavail.saturating_mul(stat.f_frsize),
        stat.f_blocks.saturating_mul(stat.f_frsize),
        stat.f_favail,
        stat.f_files,
    ])
}

/// Bytes of memory that can be had without swapping.
pub(super) fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
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
