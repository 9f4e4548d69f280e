//! What the kubelet asks of a container runtime.
//!
//! One trait, [`Runtime`], and the plain data it speaks in. Implementations (Docker now, CRI later)
//! live in crates of their own; a kubelet built on this crate knows none of them.
//!
//! The model is that of Kubernetes' container runtime interface:
//!
//! ```text
//! Sandbox (one attempt at a pod: namespaces, address, host ports)
//!   └─ Container (one attempt at one container of the pod; started once, never restarted in place)
//! ```
//!
//! Everything a kubelet must know after its own restart is in the labels ([`labels`]) of sandboxes and
//! containers: [`Runtime::pods`] rebuilds it from there. `stop_*` and `remove_*` are idempotent: what is
//! already stopped or gone is no error.
//!
//! This crate must not know any runtime, nor pods as API objects.

mod container;
mod error;
mod event;
mod image;
pub mod labels;
mod sandbox;
mod stats;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use streaming::{CommandOptions, Duplex, LogChunks, LogOptions, Streams};

pub use container::{
    Container, ContainerConfig, ContainerState, Device, Mount, Propagation, Resources, Seccomp, TerminationReason,
};
pub use error::Error;
pub use event::{Event, EventKind};
pub use image::{Auth, Image};
pub use sandbox::{PodIdentity, PortMapping, Protocol, Sandbox, SandboxConfig};
pub use stats::{DiskUsage, Stats};

/// Events in the order in which they happened. The stream ends after its first error.
pub type EventStream = BoxStream<'static, Result<Event, Error>>;

/// What a runtime says about itself and the machine it runs on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuntimeInfo {
    /// `docker`, `containerd`, ...; the scheme of container ids in a pod's status (`docker://ID`).
    pub name: String,
    /// Version of the runtime, as it names it.
    pub version: String,
    /// Version of its API in use.
    pub api_version: String,
    /// `PRETTY_NAME` of the machine's operating system.
    pub os_image: String,
    /// Release of the machine's kernel.
    pub kernel: String,
    /// The machine's architecture in Go's spelling (`amd64`, `arm64`).
    pub architecture: String,
    /// `linux`.
    pub operating_system: String,
    /// Number of logical processors.
    pub cpus: u64,
    /// Physical memory in bytes.
    pub memory_bytes: u64,
    /// `cgroupfs` or `systemd`.
    pub cgroup_driver: String,
    /// `1` or `2`.
    pub cgroup_version: String,
    /// Directory where the runtime keeps images and containers; empty when it is on another machine.
    pub root_dir: String,
    /// Whether containers run in a user namespace that is not the machine's.
    pub user_namespaces: bool,
    /// Whether mounts can be read-only with all that is mounted below them.
    pub recursive_read_only: bool,
    /// Whether containers are confined by AppArmor, by the runtime's own profile unless another is asked for.
    pub app_armor: bool,
}

/// Whether a runtime can do its work, as CRI's `RuntimeStatus`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuntimeStatus {
    /// Why the runtime is not ready although it answers: what it was asked to start or stop does not come back.
    pub not_ready: Option<String>,
}

/// What an [`Runtime::exec_sync`] printed and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecOutput {
    /// Exit code; 128 + N when ended by signal N.
    pub exit_code: i32,
    /// Standard output and standard error as they came, cut off after [`ExecOutput::LIMIT`] bytes.
    pub output: Bytes,
}

impl ExecOutput {
    /// The most that is kept of what a command prints, in bytes. (Upstream keeps 10 KB of a probe's output.)
    pub const LIMIT: usize = 64 * 1024;
}

/// A container runtime, as seen by a kubelet. Every method may be called concurrently.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Describes the runtime. Fails with [`Error::Unavailable`] when it cannot be reached.
    async fn info(&self) -> Result<RuntimeInfo, Error>;

    /// Checks the runtime's health. Cheap enough to be asked every few seconds; one that hangs does not answer.
    async fn status(&self) -> Result<RuntimeStatus, Error>;

    /// All sandboxes of this profile, each with all its containers, whatever their state; found by label
    /// alone. A container whose sandbox is gone comes with a sandbox that is not ready and has that missing id.
    async fn pods(&self) -> Result<Vec<Sandbox>, Error>;

    /// Creates and starts a sandbox. What was made is removed again when starting fails.
    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<Sandbox, Error>;

    /// Stops a sandbox and kills what still runs in it. Its address is free afterwards. Idempotent.
    async fn stop_sandbox(&self, id: &str) -> Result<(), Error>;

    /// Removes a sandbox together with all its containers. Idempotent.
    async fn remove_sandbox(&self, id: &str) -> Result<(), Error>;

    /// Creates a container in a sandbox and answers its id. The image must be present: [`Error::ImageNotFound`].
    async fn create_container(&self, sandbox: &Sandbox, config: &ContainerConfig) -> Result<String, Error>;

    /// Starts a created container. When the program cannot be executed the error is [`Error::StartFailed`], and the
    /// container is left in state exited with a reason and code 127 or 128.
    async fn start_container(&self, id: &str) -> Result<(), Error>;

    /// Gives a running container other limits and shares of processor and memory. What is `None` stays as it is.
    async fn update_container(&self, id: &str, resources: &Resources) -> Result<(), Error>;

    /// Sends the container's stop signal, waits up to `grace`, then kills; returns when it has ended.
    /// Zero kills at once. Idempotent.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Error>;

    /// Kills and removes a container with its anonymous volumes and logs. Idempotent.
    async fn remove_container(&self, id: &str) -> Result<(), Error>;

    /// The state of one container; `None` when it is gone.
    async fn container(&self, id: &str) -> Result<Option<Container>, Error>;

    /// A local image by reference (`nginx`, `nginx:1.21`, `repo@sha256:…`) or id; `None` when it is not present.
    async fn image(&self, reference: &str) -> Result<Option<Image>, Error>;

    /// Pulls an image and answers its id. [`Error::PullFailed`] carries the registry's message.
    async fn pull_image(&self, reference: &str, auth: Option<Auth>) -> Result<String, Error>;

    /// All local images.
    async fn images(&self) -> Result<Vec<Image>, Error>;

    /// Removes an image by reference or id, unless a container uses it. Idempotent.
    async fn remove_image(&self, reference: &str) -> Result<(), Error>;

    /// What happens to this profile's sandboxes and containers from now on. The subscription is in place when
    /// the first item could be lost, so: subscribe, then list. Ends with an error when the runtime goes away;
    /// subscribe again then.
    fn events(&self) -> EventStream;

    /// A container's log. All of [`LogOptions`] but `previous` is honoured here, `limit_bytes` included;
    /// timestamps are RFC 3339 with nanoseconds, one before each line.
    async fn logs(&self, id: &str, options: &LogOptions) -> Result<LogChunks, Error>;

    /// Runs a command in a container, connected to `streams`, and answers its exit code.
    /// Dropping the future closes the streams; the command sees end of file or a broken pipe.
    async fn exec(
        &self,
        id: &str,
        command: Vec<String>,
        options: CommandOptions,
        streams: Streams,
    ) -> Result<i32, Error>;

    /// Runs a command in a container without input and waits for its end: probes and hooks.
    /// [`Error::Timeout`] after `timeout`; the command may then go on until it writes.
    async fn exec_sync(&self, id: &str, command: Vec<String>, timeout: Duration) -> Result<ExecOutput, Error>;

    /// Connects `streams` to the container's main process, and answers its exit code when it ended, 0 when the
    /// caller left first.
    async fn attach(&self, id: &str, options: CommandOptions, streams: Streams) -> Result<i32, Error>;

    /// Connects `io` to a TCP port as a process inside the sandbox would (`127.0.0.1:PORT`), until either side closes.
    async fn port_forward(&self, sandbox_id: &str, port: u16, io: Box<dyn Duplex>) -> Result<(), Error>;

    /// What a running container has used so far.
    async fn stats(&self, id: &str) -> Result<Stats, Error>;

    /// What a container takes of the disk. Counts files, so that it can take seconds.
    async fn disk_usage(&self, id: &str) -> Result<DiskUsage, Error>;
}
