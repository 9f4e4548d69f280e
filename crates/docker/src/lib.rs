//! The [`Runtime`] over a Docker daemon, 20.10 (API 1.41) or newer.
//!
//! A sandbox is a container of the pause image, connected to the profile's bridge; the pod's containers join its network
//! and IPC namespaces, and its PID namespace where asked. Everything made carries the label `io.coracle.profile`, and
//! nothing without it is ever touched.
//!
//! | module | what is in it |
//! |---|---|
//! | `transport`, `limits`, `error` | requests to the daemon; how many at a time; what can go wrong with them |
//! | `network`, `subnet` | the profile's bridge network and its address range |
//! | `namesake` | what tells the profile from one of the same name in another home |
//! | `sandbox`, `pause`, `ipam` | sandboxes, their image, which is made here, and their addresses |
//! | `veth`, `netlink` | a sandbox's veth pair to the bridge, made without Docker |
//! | `helper` | a container that changes the machine's network where this process may not |
//! | `pods`, `create`, `inspect`, `container_index`, `stop` | containers: making, finding, ending them |
//! | `image`, `reference` | images |
//! | `events`, `logs`, `stats`, `disk_usage` | what Docker tells about containers |
//! | `exec`, `attach`, `forward`, `stdcopy`, `host` | streams into containers |
//!
//! This crate is the only one that imports bollard. It must not know pods as API objects.

mod attach;
mod cgroup;
mod container_index;
mod create;
mod disk_usage;
mod error;
mod events;
mod exec;
mod forward;
mod freeze;
mod helper;
mod host;
mod image;
mod inspect;
mod ipam;
mod limits;
mod logs;
mod namesake;
mod netlink;
mod network;
mod pause;
mod pods;
mod reference;
mod sandbox;
mod stats;
mod stdcopy;
mod stop;
pub mod subnet;
mod transport;
mod veth;

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::ContainerSummary;
use bollard::query_parameters::ListNetworksOptionsBuilder;
use futures::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use runtime::{
    Auth, Container, ContainerConfig, DiskUsage, Error, EventStream, ExecOutput, Image, Resources, Runtime,
    RuntimeInfo, RuntimeStatus, Sandbox, SandboxConfig, Stats, labels,
};
use streaming::{CommandOptions, Duplex, LogChunks, LogOptions, Streams};
use tokio::sync::OnceCell;

pub use helper::HelperOutput;
pub use host::may_change_network;
pub use image::PullProgress;
pub use network::{Network, bridge_name, network_name};
pub use subnet::Subnet;
pub use transport::default_host;

/// How long an ordinary request may take. A busy daemon on a slow disk takes its time.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// How many containers are removed side by side where all are; how many the daemon is given at a time is up to `limits`.
const REMOVALS: usize = 16;

/// How to use Docker for a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The profile: a name for all that belongs together.
    pub profile: String,
    /// The folder of the profile's state, which tells it from a profile of the same name in another home.
    pub folder: Option<PathBuf>,
    /// Where the daemon listens (`unix:///var/run/docker.sock`); `None` for `DOCKER_HOST` and then the usual socket.
    pub host: Option<String>,
    /// Where host ports listen that do not say so themselves.
    pub host_port_address: IpAddr,
    /// Size at which a container's log file is rotated, in Docker's notation.
    pub log_max_size: String,
    /// Rotated log files kept per container.
    pub log_max_files: u32,
    /// Whether pods are connected to the bridge without Docker, where that is possible.
    pub direct_networking: bool,
}

impl Config {
    /// The defaults for a profile: the usual daemon, host ports on loopback, logs of 5 × 10 MB (upstream's).
    #[must_use]
    pub fn new(profile: impl Into<String>) -> Self {
        Self {
            profile: profile.into(),
            folder: None,
            host: None,
            host_port_address: Ipv4Addr::LOCALHOST.into(),
            log_max_size: "10m".to_owned(),
            log_max_files: 5,
            direct_networking: true,
        }
    }
}

/// A Docker daemon, used for one node of a profile. Clones share everything.
#[derive(Clone)]
pub struct Docker(Arc<Inner>);

struct Inner {
    daemon: Arc<Daemon>,
    settings: create::Settings,
    index: container_index::ContainerIndex,
    attachments: attach::Attachments,
    /// The node's range, where it is not the network's first.
    range: Option<Subnet>,
    /// Its addresses, once they were asked for.
    addresses: OnceCell<ipam::AddressPool>,
}

/// What all nodes of a profile share.
struct Daemon {
    transport: transport::Transport,
    client: bollard::Docker,
    /// Whether containers may have a negative `oom_score_adj`, once known.
    negative_oom_score: OnceCell<bool>,
    /// Whether sandboxes can be connected to the bridge without Docker, once known.
    direct_networking: OnceCell<bool>,
    /// The network as it was last seen.
    network: Mutex<Option<Network>>,
    /// Further addresses of the bridge.
    node_addresses: Mutex<BTreeSet<Ipv4Addr>>,
    /// What the daemon has counted of writable layers lately.
    counted: Mutex<disk_usage::Counted>,
    /// The id of the container that changes the machine's network, while it runs.
    helper: tokio::sync::Mutex<Option<String>>,
}

impl Docker {
    /// Connects to the daemon and agrees on an API version. Changes nothing.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with one line that says what to do.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let transport = transport::Transport::new(config.host.as_deref())?;
        transport.negotiate().await?;
        let daemon = Daemon {
            client: transport.bollard()?,
            transport,
            negative_oom_score: OnceCell::new(),
            direct_networking: OnceCell::new(),
            counted: Mutex::default(),
            network: Mutex::default(),
            node_addresses: Mutex::default(),
            helper: tokio::sync::Mutex::default(),
        };
        let settings = create::Settings {
            profile: config.profile,
            folder: config.folder,
            host_port_address: config.host_port_address,
            log_max_size: config.log_max_size,
            log_max_files: config.log_max_files,
            node: None,
        };
        let docker = Self::of_node(Arc::new(daemon), settings, None);
        // Where it is known beforehand, no sandbox has to fail first.
        if !host::may_lower_oom_score() {
            docker.settle_negative_oom_score(false);
        }
        if !config.direct_networking {
            docker.settle_direct_networking(false, "so it is set");
        }
        Ok(docker)
    }

    /// The same daemon for a further node of the profile, whose pods get their addresses from a range of its own.
    #[must_use]
    pub fn for_node(&self, name: &str, range: Subnet) -> Self {
        let settings = create::Settings { node: Some(name.to_owned()), ..self.settings().clone() };
        Self::of_node(Arc::clone(&self.0.daemon), settings, Some(range))
    }

    fn of_node(daemon: Arc<Daemon>, settings: create::Settings, range: Option<Subnet>) -> Self {
        let (index, addresses) = (container_index::ContainerIndex::default(), OnceCell::new());
        let attachments = attach::Attachments::default();
        Self(Arc::new(Inner { daemon, settings, index, attachments, range, addresses }))
    }

    /// Makes what pods need: the pause image and the network. Cheap when all is there.
    ///
    /// # Errors
    /// As [`Docker::ensure_network`].
    pub async fn prepare(&self, subnet: Subnet) -> Result<Network, Error> {
        let (image, network) = tokio::join!(pause::ensure(self), self.ensure_network(subnet));
        image?;
        let network = network?;
        if let Some(reason) = host::why_no_links(&network.bridge) {
            self.settle_direct_networking(false, reason);
        }
        Ok(network)
    }

    /// Removes all containers of the profile, its network, and the pause image if no other profile uses it. What belongs to
    /// a profile of the same name in another home stays.
    ///
    /// # Errors
    /// The first one met; what could be removed is removed.
    pub async fn delete_profile(&self) -> Result<(), Error> {
        let mut containers = self.list(vec![self.profile_label()]).await?;
        containers.retain(|found| self.namesake(found.labels.as_ref()).is_none());
        self.remove_all(containers).await?;
        if self.namesake_network().await?.is_none() {
            self.remove_helper().await?;
            self.remove_network().await?;
        }
        match self.delete_image(pause::image()).await {
            Ok(()) | Err(Error::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes all containers of this node.
    ///
    /// # Errors
    /// The first one met; what could be removed is removed.
    pub async fn delete_node(&self) -> Result<(), Error> {
        let mut containers = self.list(vec![self.profile_label()]).await?;
        containers.retain(|found| self.is_own(found.labels.as_ref()));
        self.remove_all(containers).await
    }

    /// The profile's further nodes that have containers.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when Docker cannot be reached.
    pub async fn nodes(&self) -> Result<BTreeSet<String>, Error> {
        let containers = self.list(vec![self.profile_label(), labels::NODE.to_owned()]).await?;
        let node = |found: ContainerSummary| found.labels?.remove(labels::NODE);
        Ok(containers.into_iter().filter_map(node).collect())
    }

    async fn remove_all(&self, containers: Vec<ContainerSummary>) -> Result<(), Error> {
        stream::iter(containers.into_iter().filter_map(|found| found.id))
            .map(Ok)
            .try_for_each_concurrent(REMOVALS, |id| async move { self.remove(&id).await })
            .await
    }

    /// The profile.
    #[must_use]
    pub fn profile(&self) -> &str {
        &self.0.settings.profile
    }

    /// Where the daemon is.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.daemon.transport.host()
    }

    fn client(&self) -> &bollard::Docker {
        &self.0.daemon.client
    }

    fn transport(&self) -> &transport::Transport {
        &self.0.daemon.transport
    }

    fn settings(&self) -> &create::Settings {
        &self.0.settings
    }

    fn index(&self) -> &container_index::ContainerIndex {
        &self.0.index
    }

    fn attachments(&self) -> &attach::Attachments {
        &self.0.attachments
    }

    fn negative_oom_score(&self) -> &OnceCell<bool> {
        &self.0.daemon.negative_oom_score
    }

    fn direct_networking(&self) -> &OnceCell<bool> {
        &self.0.daemon.direct_networking
    }

    fn addresses(&self) -> &OnceCell<ipam::AddressPool> {
        &self.0.addresses
    }

    fn range(&self) -> Option<Subnet> {
        self.0.range
    }

    /// The network as it was last seen.
    fn noted_network(&self) -> Option<Network> {
        self.0.daemon.network.lock().clone()
    }

    fn note_network(&self, network: Option<&Network>) {
        *self.0.daemon.network.lock() = network.cloned();
    }

    fn node_addresses(&self) -> BTreeSet<Ipv4Addr> {
        self.0.daemon.node_addresses.lock().clone()
    }

    fn note_node_address(&self, address: Ipv4Addr, wanted: bool) {
        let mut addresses = self.0.daemon.node_addresses.lock();
        match wanted {
            true => addresses.insert(address),
            false => addresses.remove(&address),
        };
    }

    fn error(&self, error: &bollard::errors::Error) -> Error {
        error::map(error, self.host())
    }

    /// Makes a request with a time limit.
    async fn call<T>(
        &self,
        limit: Duration,
        request: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(limit, request).await {
            Ok(result) => result.map_err(|error| self.error(&error)),
            Err(_) => Err(error::timeout(self.host(), limit)),
        }
    }
}

/// Ids come from Docker or from the API; what cannot be one must not get into a path.
fn checked(id: &str) -> Result<&str, Error> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if id.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric()) && id.bytes().all(fits) {
        Ok(id)
    } else {
        Err(pods::no_container(id))
    }
}

#[async_trait]
impl Runtime for Docker {
    async fn info(&self) -> Result<RuntimeInfo, Error> {
        let info = self.call(CALL_TIMEOUT, self.client().info()).await?;
        let number = |value: Option<i64>| value.and_then(|value| value.try_into().ok());
        let options = info.security_options.unwrap_or_default();
        // `name=seccomp,profile=default`
        let secures =
            |name: &str| options.iter().any(|option| option.split(',').next() == Some(&format!("name={name}")));
        let architecture = info.architecture.unwrap_or_default();
        Ok(RuntimeInfo {
            name: "docker".to_owned(),
            version: info.server_version.unwrap_or_default(),
            api_version: self.transport().version(),
            os_image: info.operating_system.unwrap_or_default(),
            kernel: info.kernel_version.unwrap_or_default(),
            architecture: match architecture.as_str() {
                "x86_64" => "amd64".to_owned(),
                "aarch64" => "arm64".to_owned(),
                _ => architecture,
            },
            operating_system: info.os_type.unwrap_or_default(),
            cpus: number(info.ncpu).unwrap_or_default(),
            memory_bytes: number(info.mem_total).unwrap_or_default(),
            cgroup_driver: info.cgroup_driver.map(|driver| driver.to_string()).unwrap_or_default(),
            cgroup_version: info.cgroup_version.map(|version| version.to_string()).unwrap_or_default(),
            root_dir: info.docker_root_dir.unwrap_or_default(),
            user_namespaces: secures("userns") || secures("rootless"),
            // `ReadOnlyForceRecursive` came with Docker 25.
            recursive_read_only: self.transport().is_at_least(1, 44),
            app_armor: secures("apparmor"),
        })
    }

    async fn status(&self) -> Result<RuntimeStatus, Error> {
        // The cheapest question that libnetwork has to answer, too: that is where a daemon gets stuck.
        let filters = HashMap::from([("label", vec![self.profile_label()])]);
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        self.call(CALL_TIMEOUT, self.client().list_networks(Some(options))).await?;
        let stuck = self.transport().limits().stuck(CALL_TIMEOUT);
        let advice = |why: String| format!("{why}: restart the Docker daemon at {}", self.host());
        Ok(RuntimeStatus { not_ready: stuck.map(advice) })
    }

    async fn pods(&self) -> Result<Vec<Sandbox>, Error> {
        self.list_pods().await
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<Sandbox, Error> {
        self.make_sandbox(config).await
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), Error> {
        self.end_sandbox(checked(id)?).await
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), Error> {
        self.delete_sandbox(checked(id)?).await
    }

    async fn create_container(&self, sandbox: &Sandbox, config: &ContainerConfig) -> Result<String, Error> {
        self.make_container(sandbox, config).await
    }

    async fn start_container(&self, id: &str) -> Result<(), Error> {
        self.start(checked(id)?).await
    }

    async fn update_container(&self, id: &str, resources: &Resources) -> Result<(), Error> {
        self.update(checked(id)?, resources).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Error> {
        self.stop(checked(id)?, grace).await
    }

    async fn remove_container(&self, id: &str) -> Result<(), Error> {
        self.remove(checked(id)?).await
    }

    async fn container(&self, id: &str) -> Result<Option<Container>, Error> {
        match checked(id) {
            Ok(id) => self.inspect(id).await,
            Err(_) => Ok(None),
        }
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, Error> {
        self.find_image(reference).await
    }

    async fn pull_image(&self, reference: &str, auth: Option<Auth>) -> Result<String, Error> {
        self.pull_with_progress(reference, auth, |_| {}).await
    }

    async fn images(&self) -> Result<Vec<Image>, Error> {
        self.list_images().await
    }

    async fn remove_image(&self, reference: &str) -> Result<(), Error> {
        self.delete_image(reference).await
    }

    fn events(&self) -> EventStream {
        events::subscribe(self)
    }

    async fn logs(&self, id: &str, options: &LogOptions) -> Result<LogChunks, Error> {
        logs::open(self, checked(id)?, options).await
    }

    async fn exec(
        &self,
        id: &str,
        command: Vec<String>,
        options: CommandOptions,
        streams: Streams,
    ) -> Result<i32, Error> {
        exec::exec(self, checked(id)?, command, options, streams).await
    }

    async fn exec_sync(&self, id: &str, command: Vec<String>, timeout: Duration) -> Result<ExecOutput, Error> {
        exec::exec_sync(self, checked(id)?, command, timeout).await
    }

    async fn attach(&self, id: &str, options: CommandOptions, streams: Streams) -> Result<i32, Error> {
        attach::attach(self, checked(id)?, options, streams).await
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16, io: Box<dyn Duplex>) -> Result<(), Error> {
        forward::forward(self, checked(sandbox_id)?, port, io).await
    }

    async fn stats(&self, id: &str) -> Result<Stats, Error> {
        stats::read(self, checked(id)?).await
    }

    async fn disk_usage(&self, id: &str) -> Result<DiskUsage, Error> {
        disk_usage::read(self, checked(id)?).await
    }
}
