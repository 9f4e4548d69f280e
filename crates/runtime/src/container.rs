//! Containers: how to make one, and what became of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::PodIdentity;

/// How mounts made later on one side of a bind mount appear on the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// From the machine into the container (`rslave`).
    HostToContainer,
    /// Both ways (`rshared`).
    Bidirectional,
}

/// A file or directory of the machine seen in the container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mount {
    /// Path on the machine; must exist.
    pub host_path: PathBuf,
    /// Whether `host_path` is a directory that this process has open, as `/proc/PID/fd/N`, until the container has been
    /// started: a runtime must mount it from its own mount namespace, for the container's cannot.
    pub descriptor: bool,
    /// Path in the container.
    pub container_path: PathBuf,
    /// Whether the container may only read it.
    pub read_only: bool,
    /// Whether the same holds for whatever is mounted below it; see [`RuntimeInfo`](crate::RuntimeInfo).
    pub recursive_read_only: bool,
    /// How mounts travel.
    pub propagation: Propagation,
}

/// A device node of the machine made available in the container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Device {
    /// Path on the machine.
    pub host_path: PathBuf,
    /// Path in the container.
    pub container_path: PathBuf,
    /// Any of `r`, `w`, `m`.
    pub permissions: String,
}

/// Limits and shares, already in the kernel's units.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Relative weight of processor time; 1024 is one processor, at least 2.
    pub cpu_shares: Option<i64>,
    /// Processor time per period, in microseconds.
    pub cpu_quota_us: Option<i64>,
    /// The period, in microseconds; 100000 when only the quota is given.
    pub cpu_period_us: Option<i64>,
    /// Most memory in bytes; swap is not given on top.
    pub memory_limit_bytes: Option<i64>,
    /// Most processes and threads.
    pub pids_limit: Option<i64>,
}

impl Resources {
    /// The smallest number of shares the kernel takes.
    pub const MIN_SHARES: i64 = 2;
    /// The default period in microseconds.
    pub const PERIOD_US: i64 = 100_000;

    /// Converts requests and limits as upstream does: shares are the request (or, without one, the limit) in
    /// 1024ths of a processor, the quota is the limit per period of 100 ms, at least 1 ms.
    #[must_use]
    pub fn from_milli_cpu(request: Option<i64>, limit: Option<i64>, memory_limit: Option<i64>) -> Self {
        let shares = request.or(limit).unwrap_or(0);
        Self {
            cpu_shares: Some((shares.saturating_mul(1024) / 1000).clamp(Self::MIN_SHARES, 262_144)),
            cpu_quota_us: limit
                .filter(|limit| *limit > 0)
                .map(|limit| (limit.saturating_mul(Self::PERIOD_US) / 1000).max(1000)),
            cpu_period_us: limit.filter(|limit| *limit > 0).map(|_| Self::PERIOD_US),
            memory_limit_bytes: memory_limit.filter(|limit| *limit > 0),
            pids_limit: None,
        }
    }
}

/// Which system calls a container may use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Seccomp {
    /// The runtime's own profile.
    #[default]
    RuntimeDefault,
    /// No filter.
    Unconfined,
    /// A profile: the JSON text itself.
    Profile(String),
}

/// How to make a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerConfig {
    /// The pod.
    pub pod: PodIdentity,
    /// Name in the pod's specification.
    pub name: String,
    /// How many containers of this name the pod had before (the restart count).
    pub attempt: u32,
    /// Reference or id of a local image.
    pub image: String,
    /// Hash of the container's specification: label `io.kubernetes.container.hash`.
    pub hash: String,
    /// The id of another container of the pod whose processes this one sees as its own.
    pub processes_of: Option<String>,
    /// Replaces the image's entrypoint when not empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments when not empty.
    pub args: Vec<String>,
    /// Environment, later entries win.
    pub env: Vec<(String, String)>,
    /// Working directory; the image's when `None`.
    pub working_dir: Option<String>,
    /// Bind mounts.
    pub mounts: Vec<Mount>,
    /// Device nodes.
    pub devices: Vec<Device>,
    /// User id; the image's user when `None`.
    pub user: Option<i64>,
    /// Primary group id; needs `user`.
    pub group: Option<i64>,
    /// Further group ids.
    pub supplemental_groups: Vec<i64>,
    /// Give everything, devices included.
    pub privileged: bool,
    /// Capabilities to add, without `CAP_`; `ALL` for all.
    pub capabilities_add: Vec<String>,
    /// Capabilities to drop, without `CAP_`; `ALL` for all.
    pub capabilities_drop: Vec<String>,
    /// Mount the root file system read-only.
    pub read_only_root: bool,
    /// Forbid gaining privileges (set-uid programs).
    pub no_new_privileges: bool,
    /// System call filter.
    pub seccomp: Seccomp,
    /// AppArmor profile by its name, or `unconfined`; the runtime's own when `None`.
    pub app_armor: Option<String>,
    /// SELinux labels that differ from the runtime's: `user:`, `role:`, `type:` or `level:`, and the value.
    pub se_linux: Vec<String>,
    /// Show all of `/proc`, writable where the kernel lets it be.
    pub unmasked_proc: bool,
    /// Limits and shares.
    pub resources: Resources,
    /// Keep standard input open.
    pub stdin: bool,
    /// Close standard input after the first attached client left.
    pub stdin_once: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// The kernel's preference to kill it when memory is short, -1000 to 1000; degraded to 0 where the privilege
    /// for a negative one is missing.
    pub oom_score_adj: Option<i32>,
    /// Signal to stop it with (`SIGTERM`); the image's when `None`.
    pub stop_signal: Option<String>,
    /// Labels beyond those of [`labels`](crate::labels), which the runtime adds by itself.
    pub labels: BTreeMap<String, String>,
    /// Free text kept with the container.
    pub annotations: BTreeMap<String, String>,
}

/// What a container is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ContainerState {
    /// Made, never started.
    #[default]
    Created,
    /// Its process runs.
    Running {
        /// Since when.
        started: Timestamp,
    },
    /// Its process ended, or could not be started.
    Exited {
        /// Exit code; 128 + N when ended by signal N, 127/126/128 when it could not be started.
        exit_code: i32,
        /// How it ended.
        reason: TerminationReason,
        /// The runtime's explanation; often empty.
        message: String,
        /// When it started; `None` when it never did.
        started: Option<Timestamp>,
        /// When it ended.
        finished: Timestamp,
    },
    /// The runtime cannot tell.
    Unknown,
}

/// The reason of a terminated state (upstream: `pkg/kubelet/container/runtime.go`, and what runtimes of CRI answer).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TerminationReason {
    /// It ended with success.
    Completed,
    /// It ended with a failure.
    Error,
    /// The kernel killed it for want of memory.
    OomKilled,
    /// Its process could not be started.
    ContainerCannotRun,
    /// The runtime has lost it.
    ContainerStatusUnknown,
}

impl TerminationReason {
    /// The reason of a process that ended with this code by itself, or by a signal.
    #[must_use]
    pub fn of(exit_code: i32) -> Self {
        if exit_code == 0 { Self::Completed } else { Self::Error }
    }

    /// The value of the field `reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::OomKilled => "OOMKilled",
            Self::ContainerCannotRun => "ContainerCannotRun",
            Self::ContainerStatusUnknown => "ContainerStatusUnknown",
        }
    }
}

impl ContainerState {
    /// Whether its process runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_exited(&self) -> bool {
        matches!(self, Self::Exited { .. })
    }
}

/// A container as the runtime sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Container {
    /// The runtime's id.
    pub id: String,
    /// Id of the sandbox it was created in.
    pub sandbox_id: String,
    /// The pod it belongs to.
    pub pod: PodIdentity,
    /// Name in the pod's specification.
    pub name: String,
    /// How many containers of this name the pod had before (the restart count).
    pub attempt: u32,
    /// Hash of the specification it was made from.
    pub hash: String,
    /// The image as it was asked for.
    pub image: String,
    /// The image as a pod's status names it: `docker-pullable://REPO@sha256:…` when its registry is known, else
    /// `docker://sha256:…`.
    pub image_id: String,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// What it is doing.
    pub state: ContainerState,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Labels, without those the runtime adds by itself.
    pub labels: BTreeMap<String, String>,
    /// Annotations as given.
    pub annotations: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::Resources;

    #[test]
    fn resources_follow_upstream() {
        // (request, limit) in thousandths → (shares, quota)
        let cases = [
            ((None, None), (2, None)),
            ((Some(0), None), (2, None)),
            ((Some(1), None), (2, None)),
            ((Some(100), None), (102, None)),
            ((Some(1000), Some(2000)), (1024, Some(200_000))),
            ((None, Some(500)), (512, Some(50_000))),
            ((Some(5), Some(5)), (5, Some(1000))),
            ((Some(10_000_000), None), (262_144, None)),
        ];
        for ((request, limit), (shares, quota)) in cases {
            let resources = Resources::from_milli_cpu(request, limit, Some(0));
            assert_eq!(resources.cpu_shares, Some(shares), "{request:?} {limit:?}");
            assert_eq!(resources.cpu_quota_us, quota, "{request:?} {limit:?}");
            assert_eq!(resources.cpu_period_us, quota.map(|_| Resources::PERIOD_US));
            assert_eq!(resources.memory_limit_bytes, None);
        }
    }
}
