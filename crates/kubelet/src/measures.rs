//! How much of the machine is left: the one place that asks for it, so that tests can invent the answer.

use std::path::Path;

/// How much there is of something, and how much of that is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// What is left.
    pub available: u64,
    /// What there is.
    pub capacity: u64,
}

impl Amount {
    /// How much is used, in hundredths.
    pub(crate) fn used_percent(self) -> u64 {
        let used = u128::from(self.capacity.saturating_sub(self.available));
        u64::try_from(used * 100 / u128::from(self.capacity.max(1))).unwrap_or(100)
    }
}

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileSystem {
    /// The number of its device, which tells it from others.
    pub device: u64,
    /// Bytes.
    pub bytes: Amount,
    /// Inodes; none where their number is not fixed.
    pub inodes: Option<Amount>,
}

/// How the machine is. What could not be asked for is missing, and under no pressure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measurement {
    /// Bytes of memory; available is what can be had without swapping.
    pub memory: Option<Amount>,
    /// The disk that holds the kubelet's directory (upstream: nodefs).
    pub node_fs: Option<FileSystem>,
    /// The disk that holds the runtime's images and containers (upstream: imagefs).
    pub image_fs: Option<FileSystem>,
    /// Processes and threads.
    pub pids: Option<Amount>,
}

/// Whoever knows how the machine is.
pub trait Measures: Send + Sync + 'static {
    /// How the machine is now. Blocks: a file system may take its time. `root_dir` is the runtime's directory, where it is
    /// on this machine.
    fn measure(&self, state_dir: &Path, root_dir: Option<&Path>) -> Measurement;
}

/// The machine itself, as the kernel tells it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kernel;

impl Measures for Kernel {
    fn measure(&self, state_dir: &Path, root_dir: Option<&Path>) -> Measurement {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Measurement {
            memory: memory(&read("/proc/meminfo")),
            node_fs: state_dir.ancestors().find_map(file_system),
            image_fs: root_dir.and_then(file_system),
            pids: pids(
                &read("/proc/loadavg"),
                &[read("/proc/sys/kernel/pid_max"), read("/proc/sys/kernel/threads-max")],
            ),
        }
    }
}

fn file_system(path: &Path) -> Option<FileSystem> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let device = rustix::fs::stat(path).ok()?.st_dev;
    Some(FileSystem {
        device,
        bytes: Amount {
            available: stat.f_bavail.saturating_mul(stat.f_frsize),
            capacity: stat.f_blocks.saturating_mul(stat.f_frsize),
        },
        // A file system without a fixed number of inodes counts none at all.
        inodes: (stat.f_files > 0).then_some(Amount { available: stat.f_favail, capacity: stat.f_files }),
    })
}

/// From the text of `/proc/meminfo`.
fn memory(text: &str) -> Option<Amount> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    };
    Some(Amount { available: bytes("MemAvailable")?, capacity: bytes("MemTotal")? })
}

/// From the text of `/proc/loadavg`, whose fourth word is `RUNNING/ALL`, and the limits, of which the lowest counts.
fn pids(loadavg: &str, limits: &[String]) -> Option<Amount> {
    let all: u64 = loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    let capacity = limits.iter().filter_map(|limit| limit.trim().parse::<u64>().ok()).min()?;
    Some(Amount { available: capacity.saturating_sub(all), capacity })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells() {
        let text = "MemTotal: 100 kB\nMemFree: 40 kB\nMemAvailable: 60 kB\n";
        assert_eq!(memory(text), Some(Amount { available: 60 << 10, capacity: 100 << 10 }));
        assert_eq!(memory("MemTotal: 100 kB\n"), None);
        let limits = ["32768\n".to_owned(), "15000\n".to_owned()];
        let expect = Some(Amount { available: 14_400, capacity: 15_000 });
        assert_eq!(pids("0.1 0.2 0.3 2/600 4711\n", &limits), expect);
        assert_eq!(pids("", &limits), None);
        let folder = tempfile::tempdir().unwrap();
        let found = Kernel.measure(&folder.path().join("not/there/yet"), Some(folder.path()));
        assert!(found.memory.is_some() && found.pids.is_some(), "{found:?}");
        assert_eq!(found.node_fs.unwrap().device, found.image_fs.unwrap().device);
    }

    #[test]
    fn hundredths() {
        let used = |available, capacity| Amount { available, capacity }.used_percent();
        assert_eq!((used(15, 100), used(0, 7), used(9, 0)), (85, 100, 0));
    }
}
