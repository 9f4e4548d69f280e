//! The service proxy: Services and EndpointSlices become rules of the kernel, and listeners on loopback; NetworkPolicies
//! become rules of the kernel too.
//!
//! ```text
//!   Services ─┐                                      ┌─► nftables table `coracle-PROFILE`: cluster IPs, and node
//!             ├─► ServiceMap (pure) ─► what changed ─┤   ports on the bridge's address, for pods and the machine
//!   Slices ───┘                                      └─► node ports on loopback: a listener per port in this process
//! ```
//!
//! | module | what is in it |
//! |---|---|
//! | `service` | pure: a Service and its slices → ports with endpoints |
//! | `service_map` | pure: ports → what must be in the kernel; what to change; as a transaction for `nft` |
//! | `table` | pure: the table's fixed part: hooks, and the refusal of what is left |
//! | `sync` | the task that follows the informers and applies transactions |
//! | `flows` | flows of UDP that the kernel is to forget, since their endpoint is gone |
//! | `nft`, `host` | running `nft`; forwarding, the route, the bridge's settings |
//! | `tools` | who runs `nft` and `ip`: this process, or somebody with the privilege for it |
//! | `listeners`, `tcp`, `udp`, `accept` | node ports on loopback |
//! | `health` | the health checks of load balancers |
//! | `policy` | NetworkPolicies, by a table and a task of their own |
//!
//! External IPs and those of load balancers lead to the same rules, for the machine and its pods.
//!
//! Packets for the service range never leave the machine: it is routed to the pod bridge, and whatever no rule translates
//! is refused there, so that a service without endpoints is a refused connection at once.
//!
//! Everything added to the host's network is removed by [`Handle::shutdown`], or after a crash by [`cleanup`]; a start
//! replaces leftovers. Left as they are: `net.ipv4.ip_forward` (Docker needs it too) and settings of the bridge itself,
//! which go with it.
//!
//! This crate must not know where the API server is, nor Docker.

mod accept;
mod endpoints;
mod flows;
mod health;
mod host;
mod listeners;
mod nft;
mod policy;
mod service;
mod service_map;
mod sync;
mod table;
mod tcp;
mod tools;
mod udp;

#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod start_tests;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use informer::{Informers, Recorder};
use kube::Client;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::policy::PolicyTable;
use crate::table::Table;

pub use crate::tools::{LocalTools, NetworkTools, ToolOutput};

/// Where node ports are reachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NodePorts {
    /// On loopback and on the bridge's address, for the machine and its pods alone.
    #[default]
    Local,
    /// On all addresses of the machine.
    All,
}

/// What to proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The profile: names the table.
    pub profile: String,
    /// The interface of the bridge that pods are on.
    pub bridge: String,
    /// The pods' addresses, `10.244.0.0/16`. Its first address is the bridge's own.
    pub pod_cidr: String,
    /// The services' addresses, `10.96.0.0/16`.
    pub service_cidr: String,
    /// Where node ports are reachable.
    pub node_ports: NodePorts,
    /// Where pods ask the cluster's DNS by UDP: of each pod so many questions get there that others are heard.
    pub dns: Vec<SocketAddrV4>,
}

impl Config {
    /// The defaults for a profile.
    #[must_use]
    pub fn new(profile: &str, bridge: &str, pod_cidr: &str, service_cidr: &str) -> Self {
        Self {
            profile: profile.to_owned(),
            bridge: bridge.to_owned(),
            pod_cidr: pod_cidr.to_owned(),
            service_cidr: service_cidr.to_owned(),
            node_ports: NodePorts::default(),
            dns: Vec::new(),
        }
    }
}

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is malformed.
    #[error("{what} {value:?} is malformed")]
    Config {
        /// Which one.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// `nft` refused.
    #[error("nftables: {0}")]
    Nft(String),
}

/// Whether cluster IPs lead where they should.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ClusterIps {
    /// Not known yet.
    #[default]
    Unknown,
    /// The kernel has the rules.
    Working,
    /// They do not work on this machine, for this reason.
    Failing(String),
}

/// A running proxy.
#[derive(Debug)]
pub struct Handle {
    cancel: CancellationToken,
    recheck: Arc<Notify>,
    cluster_ips: watch::Receiver<ClusterIps>,
    task: JoinHandle<()>,
    policies: JoinHandle<()>,
}

impl Handle {
    /// To be notified when the bridge was made anew: what hung on it is missing then.
    #[must_use]
    pub fn recheck(&self) -> Arc<Notify> {
        Arc::clone(&self.recheck)
    }

    /// Whether cluster IPs work, as it changes.
    #[must_use]
    pub fn cluster_ips(&self) -> watch::Receiver<ClusterIps> {
        self.cluster_ips.clone()
    }

    /// Stops it and removes what it added to the host's network.
    pub async fn shutdown(self) {
        self.cancel.cancel();
        // They fail only if a task panicked; then its leftovers are replaced by the next start.
        let _ = self.task.await;
        let _ = self.policies.await;
    }
}

/// Starts to proxy, changing the kernel with these tools. Where `nft` or the privilege for it is missing, node ports work and
/// cluster IPs do not: the log and [`Handle::cluster_ips`] say so.
///
/// # Errors
/// [`Error::Config`] only: what the host lacks is no error.
// An `async fn` although it waits for nothing: it must run within a tokio runtime.
#[allow(clippy::unused_async)]
pub async fn start(
    config: Config,
    informers: &Informers,
    client: Client,
    tools: Arc<dyn NetworkTools>,
) -> Result<Handle, Error> {
    let table = Table::new(&config)?;
    let cancel = CancellationToken::new();
    let services = informers.informer();
    let slices = informers.informer();
    let recorder = Recorder::new(client, "kube-proxy", None);
    let recheck = Arc::new(Notify::new());
    let (state, cluster_ips) = watch::channel(ClusterIps::Unknown);
    let reporter = sync::reporter(informers.reconciles());
    let signals = sync::Signals { cancel: cancel.clone(), recheck: Arc::clone(&recheck), state, reporter };
    let policies = policy::run(
        PolicyTable::new(&config)?,
        informers.clone(),
        recorder.clone(),
        Arc::clone(&tools),
        cancel.clone(),
    );
    let task = tokio::spawn(sync::run(table, config.node_ports, services, slices, recorder, tools, signals));
    Ok(Handle { cancel, recheck, cluster_ips, task, policies: tokio::spawn(policies) })
}

/// Removes what a proxy of this profile left behind. Idempotent. The route goes with the bridge.
///
/// # Errors
/// When `nft` refuses. A machine without `nft` has nothing to remove.
pub async fn cleanup(profile: &str, tools: &dyn NetworkTools) -> Result<(), Error> {
    let names = [table::name(profile)?, policy::name(profile)?];
    match nft::run(tools, &names.map(|name| table::removal(&name)).concat()).await {
        Ok(()) | Err(nft::Failure::Unavailable(_)) => Ok(()),
        Err(nft::Failure::Refused(message)) => Err(Error::Nft(message)),
    }
}

/// `ADDRESS/PREFIX`, as its first address and the length of its prefix.
pub(crate) fn parse_cidr(what: &'static str, value: &str) -> Result<(Ipv4Addr, u8), Error> {
    let parse = || {
        let (address, prefix) = value.split_once('/')?;
        let address: Ipv4Addr = address.parse().ok()?;
        let prefix: u8 = prefix.parse().ok().filter(|prefix| (1..=30).contains(prefix))?;
        Some((Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << (32 - prefix))), prefix))
    };
    parse().ok_or_else(|| Error::Config { what, value: value.to_owned() })
}
