//! What a container has used, read from its control group: a few files of this machine instead of a question to the daemon,
//! which takes milliseconds for each container.
//!
//! Only where the daemon puts its groups by default (`/docker/ID` with the driver `cgroupfs`, a scope in `system.slice` with
//! `systemd`); elsewhere, and for a daemon on another machine, there is no such folder and the caller asks the daemon.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use runtime::Stats;

/// Where control groups are mounted.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";

/// A limit of version 1 above this is none: the kernel writes the largest number of pages there is.
const UNLIMITED: u64 = 1 << 60;

/// Reads the group of the container `id` below `root`.
pub(crate) fn read(root: &Path, id: &str) -> io::Result<Stats> {
    let unified = root.join("cgroup.controllers").exists();
    let names = [format!("docker/{id}"), format!("system.slice/docker-{id}.scope")];
    let first = if unified { root.to_owned() } else { root.join("cpuacct") };
    let name = names.iter().find(|name| first.join(name).exists());
    let name = name.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no control group of that container"))?;
    let mut stats = if unified { version_2(&root.join(name))? } else { version_1(root, name)? };
    (stats.network_rx_bytes, stats.network_tx_bytes) = network(&first.join(name)).unwrap_or_default();
    Ok(stats)
}

fn version_1(root: &Path, name: &str) -> io::Result<Stats> {
    let folder = |controller: &str| root.join(controller).join(name);
    let memory = folder("memory");
    let detail = fs::read_to_string(memory.join("memory.stat"))?;
    let usage = number(&memory.join("memory.usage_in_bytes"))?;
    Ok(Stats {
        cpu_usage_ns: number(&folder("cpuacct").join("cpuacct.usage"))?,
        time: Timestamp::now(),
        memory_usage_bytes: usage,
        memory_working_set_bytes: usage.saturating_sub(field(&detail, "total_inactive_file")),
        memory_rss_bytes: field(&detail, "total_rss"),
        memory_limit_bytes: number(&memory.join("memory.limit_in_bytes")).ok().filter(|limit| *limit < UNLIMITED),
        // Not every kernel counts processes.
        pids: number(&folder("pids").join("pids.current")).unwrap_or_default(),
        ..Stats::default()
    })
}

fn version_2(folder: &Path) -> io::Result<Stats> {
    let cpu = fs::read_to_string(folder.join("cpu.stat"))?;
    let time = Timestamp::now();
    let detail = fs::read_to_string(folder.join("memory.stat"))?;
    let usage = number(&folder.join("memory.current"))?;
    Ok(Stats {
        time,
        cpu_usage_ns: field(&cpu, "usage_usec").saturating_mul(1000),
        memory_usage_bytes: usage,
        memory_working_set_bytes: usage.saturating_sub(field(&detail, "inactive_file")),
        memory_rss_bytes: field(&detail, "anon"),
        // The word `max` is no number: no limit.
        memory_limit_bytes: number(&folder.join("memory.max")).ok(),
        pids: number(&folder.join("pids.current")).unwrap_or_default(),
        ..Stats::default()
    })
}

/// Bytes received and sent in the network namespace of the group's first process, but for its loopback.
fn network(folder: &Path) -> Option<(u64, u64)> {
    let processes = fs::read_to_string(folder.join("cgroup.procs")).ok()?;
    let pid: u32 = processes.lines().next()?.parse().ok()?;
    let path: PathBuf = format!("/proc/{pid}/net/dev").into();
    Some(interfaces(&fs::read_to_string(path).ok()?))
}

/// The sums over all interfaces but loopback, from the text of `/proc/PID/net/dev`.
fn interfaces(text: &str) -> (u64, u64) {
    let mut sums = (0, 0);
    for (name, counters) in text.lines().filter_map(|line| line.split_once(':')) {
        if name.trim() == "lo" {
            continue;
        }
        let mut counters = counters.split_whitespace().map(|counter| counter.parse::<u64>().unwrap_or_default());
        sums.0 += counters.next().unwrap_or_default();
        sums.1 += counters.nth(7).unwrap_or_default();
    }
    sums
}

fn number(path: &Path) -> io::Result<u64> {
    fs::read_to_string(path)?.trim().parse().map_err(io::Error::other)
}

/// The number after `name ` at the start of a line; 0 where there is none.
fn field(text: &str, name: &str) -> u64 {
    let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    values.find_map(|value| value.trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], limit: Option<u64>) {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let stats = read(root.path(), "abc").unwrap();
        assert_eq!(stats.cpu_usage_ns, 7_000);
        assert_eq!((stats.memory_usage_bytes, stats.memory_working_set_bytes, stats.memory_rss_bytes), (100, 70, 50));
        assert_eq!(stats.memory_limit_bytes, limit);
        assert_eq!(stats.pids, 3);
        assert!(read(root.path(), "other").is_err());
    }

    #[test]
    fn both_versions_and_both_drivers() {
        check(
            &[
                ("cpuacct/docker/abc/cpuacct.usage", "7000\n"),
                ("memory/docker/abc/memory.usage_in_bytes", "100\n"),
                ("memory/docker/abc/memory.stat", "rss 1\ntotal_inactive_file 30\ntotal_rss 50\n"),
                ("memory/docker/abc/memory.limit_in_bytes", "9223372036854771712\n"),
                ("pids/docker/abc/pids.current", "3\n"),
            ],
            None,
        );
        let scope = "system.slice/docker-abc.scope";
        let files = [
            ("cpu.stat", "usage_usec 7\nuser_usec 5\n"),
            ("memory.current", "100\n"),
            ("memory.stat", "anon 50\ninactive_file 30\n"),
            ("memory.max", "200\n"),
            ("pids.current", "3\n"),
        ];
        let files = files.map(|(name, content)| (format!("{scope}/{name}"), content));
        let mut files: Vec<(&str, &str)> = files.iter().map(|(path, content)| (path.as_str(), *content)).collect();
        files.push(("cgroup.controllers", "cpu memory pids\n"));
        check(&files, Some(200));
    }

    #[test]
    fn loopback_does_not_count() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs\n    \
                    lo:     100       1    0    0    0     0          0         0      100       1    0\n  \
                    eth0:    5000      10    0    0    0     0          0         0     7000      20    0\n";
        assert_eq!(interfaces(text), (5000, 7000));
    }
}
