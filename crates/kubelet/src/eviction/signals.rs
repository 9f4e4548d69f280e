//! What the machine runs out of, and the conditions of the node that tell of it. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::measures::{Amount, FileSystem, Measurement};

/// Below which amounts the node is under pressure (upstream: `DefaultEvictionHard` in
/// `pkg/kubelet/apis/config/v1beta1/defaults_linux.go`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Bytes of memory, as upstream.
    pub memory_available: u64,
    /// Bytes of a disk, but never more than a tenth of it, which is upstream's threshold.
    pub disk_available: u64,
    /// Inodes of a disk, but never more than a twentieth of them, which is upstream's threshold.
    pub inodes_free: u64,
    /// Processes and threads, but never more than a twentieth of them. Upstream has no threshold unless told.
    pub pids_available: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { memory_available: 100 << 20, disk_available: 1 << 30, inodes_free: 10_000, pids_available: 1_000 }
    }
}

/// What the machine can run out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Signal {
    /// `memory.available`.
    Memory,
    /// `nodefs.available`.
    NodeFs,
    /// `nodefs.inodesFree`.
    NodeFsInodes,
    /// `imagefs.available`, where that is another disk.
    ImageFs,
    /// `imagefs.inodesFree`, where that is another disk.
    ImageFsInodes,
    /// `pid.available`.
    Pids,
}

impl Signal {
    /// The resource to be reclaimed, as messages name it (upstream: `signalToResource` in
    /// `pkg/kubelet/eviction/helpers.go`).
    pub(crate) fn resource(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::NodeFs | Self::ImageFs => "ephemeral-storage",
            Self::NodeFsInodes | Self::ImageFsInodes => "inodes",
            Self::Pids => "pids",
        }
    }

    /// Whether it is about a disk.
    pub(crate) fn is_disk(self) -> bool {
        !matches!(self, Self::Memory | Self::Pids)
    }

    /// Whether it is about inodes.
    pub(crate) fn is_inodes(self) -> bool {
        matches!(self, Self::NodeFsInodes | Self::ImageFsInodes)
    }
}

/// A threshold that is met: less is left than there should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Met {
    /// What runs out.
    pub(crate) signal: Signal,
    /// How much should be left.
    pub(crate) threshold: u64,
    /// How much is left.
    pub(crate) available: u64,
}

impl Met {
    /// How much is missing.
    pub(crate) fn missing(self) -> u64 {
        self.threshold.saturating_sub(self.available)
    }
}

/// Whether the images and containers are on another disk than the kubelet's directory.
pub(crate) fn has_image_fs(found: &Measurement) -> bool {
    match (&found.node_fs, &found.image_fs) {
        (Some(node), Some(image)) => node.device != image.device,
        _ => false,
    }
}

/// The thresholds that are met, memory first, as upstream reclaims it first.
pub(crate) fn met(thresholds: &Thresholds, found: &Measurement) -> Vec<Met> {
    let image_fs = found.image_fs.filter(|_| has_image_fs(found));
    let bytes = |disk: Option<FileSystem>| disk.map(|disk| disk.bytes);
    let inodes = |disk: Option<FileSystem>| disk.and_then(|disk| disk.inodes);
    let all: [(Signal, Option<Amount>, u64, u64); 6] = [
        (Signal::Memory, found.memory, thresholds.memory_available, 1),
        (Signal::NodeFs, bytes(found.node_fs), thresholds.disk_available, 10),
        (Signal::ImageFs, bytes(image_fs), thresholds.disk_available, 10),
        (Signal::NodeFsInodes, inodes(found.node_fs), thresholds.inodes_free, 20),
        (Signal::ImageFsInodes, inodes(image_fs), thresholds.inodes_free, 20),
        (Signal::Pids, found.pids, thresholds.pids_available, 20),
    ];
    let known =
        all.into_iter().filter_map(|(signal, amount, threshold, part)| Some((signal, amount?, threshold, part)));
    known
        .map(|(signal, amount, threshold, part)| {
            let threshold = threshold.min(amount.capacity / part);
            Met { signal, threshold, available: amount.available }
        })
        .filter(|met| met.available < met.threshold)
        .collect()
}

/// How long to wait before the machine is looked at again (upstream: `evictionMonitoringPeriod` in
/// `pkg/kubelet/kubelet.go`). A disk is looked at the more often the less is left, at most once a second: a
/// fast disk takes several GiB in that time, and space that is only allocated goes at once, so this can be too late. Then
/// the store refuses writes, and evictions make room for it.
pub(crate) fn pause(longest: Duration, thresholds: &Thresholds, found: &Measurement) -> Duration {
    let left = [found.node_fs, found.image_fs].into_iter().flatten().map(|disk| disk.bytes.available).min();
    let seconds = left.map_or(u64::MAX, |left| left.saturating_sub(thresholds.disk_available) >> 30);
    longest.min(Duration::from_secs(seconds.max(1)))
}

/// What the node is short of, as its conditions tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pressure {
    /// `MemoryPressure`.
    pub(crate) memory: bool,
    /// `DiskPressure`.
    pub(crate) disk: bool,
    /// `PIDPressure`.
    pub(crate) pids: bool,
}

impl Pressure {
    /// The names of the conditions that are true, in upstream's order.
    pub(crate) fn conditions(self) -> Vec<&'static str> {
        let all = [(self.disk, "DiskPressure"), (self.memory, "MemoryPressure"), (self.pids, "PIDPressure")];
        all.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect()
    }
}

/// When the node was last short of something. A condition stays for a while, so that it does not come and go with each pod
/// (upstream: `nodeConditionsObservedSince` in `pkg/kubelet/eviction/helpers.go`).
#[derive(Debug, Default)]
pub(crate) struct History {
    memory: Option<Instant>,
    disk: Option<Instant>,
    pids: Option<Instant>,
}

impl History {
    /// Takes the thresholds that are met at `now`; returns the conditions that follow.
    pub(crate) fn observe(&mut self, met: &[Met], now: Instant, transition: Duration) -> Pressure {
        let is_met = |is: fn(Signal) -> bool| met.iter().any(|met| is(met.signal));
        let lasts = |last: &mut Option<Instant>, is_met: bool| {
            if is_met {
                *last = Some(now);
            }
            last.is_some_and(|last| is_met || now.duration_since(last) < transition)
        };
        Pressure {
            memory: lasts(&mut self.memory, is_met(|signal| signal == Signal::Memory)),
            disk: lasts(&mut self.disk, is_met(Signal::is_disk)),
            pids: lasts(&mut self.pids, is_met(|signal| signal == Signal::Pids)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(device: u64, available: u64, capacity: u64, inodes: u64) -> FileSystem {
        FileSystem {
            device,
            bytes: Amount { available, capacity },
            inodes: Some(Amount { available: inodes, capacity: 1_000_000 }),
        }
    }

    fn well() -> Measurement {
        Measurement {
            memory: Some(Amount { available: 8 << 30, capacity: 16 << 30 }),
            node_fs: Some(disk(1, 50 << 30, 500 << 30, 500_000)),
            image_fs: Some(disk(1, 50 << 30, 500 << 30, 500_000)),
            pids: Some(Amount { available: 30_000, capacity: 32_768 }),
        }
    }

    #[test]
    fn thresholds_of_a_laptop() {
        let check = |change: &dyn Fn(&mut Measurement), expect: &[(Signal, u64)]| {
            let mut found = well();
            change(&mut found);
            let met = met(&Thresholds::default(), &found);
            let met: Vec<(Signal, u64)> = met.iter().map(|met| (met.signal, met.threshold)).collect();
            assert_eq!(met, expect, "{found:?}");
        };
        check(&|_| {}, &[]);
        check(&|found| *found = Measurement::default(), &[]);
        check(
            &|found| {
                found.memory = Some(Amount { available: (100 << 20) - 1, capacity: 16 << 30 });
                found.pids = Some(Amount { available: 999, capacity: 32_768 });
            },
            &[(Signal::Memory, 100 << 20), (Signal::Pids, 1_000)],
        );
        // A tenth of the disk is left, which upstream calls pressure, and 50 GiB are not.
        check(&|found| found.node_fs = Some(disk(1, 1 << 30, 500 << 30, 500_000)), &[]);
        check(&|found| found.node_fs = Some(disk(1, 1023 << 20, 500 << 30, 500_000)), &[(Signal::NodeFs, 1 << 30)]);
        // A small disk has upstream's thresholds.
        check(&|found| found.node_fs = Some(disk(1, 250 << 20, 2 << 30, 500_000)), &[]);
        check(&|found| found.node_fs = Some(disk(1, 200 << 20, 2 << 30, 500_000)), &[(Signal::NodeFs, (2 << 30) / 10)]);
        check(&|found| found.node_fs = Some(disk(1, 50 << 30, 500 << 30, 9_999)), &[(Signal::NodeFsInodes, 10_000)]);
        // The same disk is not told twice.
        check(&|found| found.image_fs = Some(disk(1, 0, 500 << 30, 0)), &[]);
        check(
            &|found| found.image_fs = Some(disk(2, 0, 500 << 30, 0)),
            &[(Signal::ImageFs, 1 << 30), (Signal::ImageFsInodes, 10_000)],
        );
    }

    #[test]
    fn the_fuller_a_disk_the_more_often_it_is_looked_at() {
        for (left, seconds) in [(500_u64, 10), (11, 10), (6, 5), (2, 1), (1, 1), (0, 1)] {
            let found = Measurement { node_fs: Some(disk(1, left << 30, 500 << 30, 1)), ..well() };
            let pause = pause(Duration::from_secs(10), &Thresholds::default(), &found);
            assert_eq!(pause.as_secs(), seconds, "{left} GiB");
        }
        let nothing = pause(Duration::from_millis(5), &Thresholds::default(), &Measurement::default());
        assert_eq!(nothing, Duration::from_millis(5));
    }

    #[test]
    fn a_condition_outlasts_its_cause() {
        let transition = Duration::from_secs(300);
        let (mut history, begin) = (History::default(), Instant::now());
        let met = [Met { signal: Signal::ImageFs, threshold: 2, available: 1 }];
        let mut at = |second: u64, met: &[Met]| {
            history.observe(met, begin + Duration::from_secs(second), transition).conditions()
        };
        assert_eq!(at(0, &[]), [""; 0]);
        assert_eq!(at(10, &met), ["DiskPressure"]);
        assert_eq!(at(20, &[]), ["DiskPressure"]);
        assert_eq!(at(309, &[]), ["DiskPressure"]);
        assert_eq!(at(310, &[]), [""; 0]);
        let memory = [Met { signal: Signal::Memory, ..met[0] }, met[0]];
        assert_eq!(at(320, &memory), ["DiskPressure", "MemoryPressure"]);
    }
}
