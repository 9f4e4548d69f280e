//! Cluster DNS: Services and EndpointSlices become a zone that is answered from memory; all else is asked of the
//! machine's own resolvers and cached.
//!
//! ```text
//!   Services ─┐                                       ┌─ cluster.local, and the reverse of its addresses: from the zone
//!   Slices   ─┼─► Zone (pure) ◄── question ◄── UDP, TCP ┤
//! Namespaces ─┘                                       └─ everything else: the machine's resolvers, with a cache
//! ```
//!
//! | module | what is in it |
//! |---|---|
//! | `zone` | pure: what each Service publishes; which name belongs to an address |
//! | `question` | pure: a name, taken apart by the rules of the DNS specification of Kubernetes, 1.1.0 |
//! | `answer` | pure: question × zone → records, or which kind of nothing |
//! | `forward`, `cache` | the machine's resolvers, read anew when their configuration changes; their answers, kept |
//! | `serve` | a message and its answer: what is decoded, looked up as above, and encoded |
//! | `udp`, `tcp` | datagrams and connections |
//! | `slots` | bounds that are shared fairly among clients |
//!
//! A change is in the zone before the informer that brought it goes on: there is no queue in between. A name that does not
//! exist (NXDOMAIN) and one without records of the type that was asked for (an empty answer) are told apart everywhere: a resolver that
//! is told NXDOMAIN for `AAAA` gives up on the name altogether.
//!
//! This crate must not know where the API server is, nor who asks.

mod answer;
mod cache;
mod forward;
mod question;
mod serve;
mod slots;
mod tcp;
mod udp;
mod zone;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use informer::{Cause, Causes, Ending, Informers, ObjectKey, ReconcileReporter, services_of};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use machinery::well_known::{CLUSTER_DOMAIN, RESOLV_CONF};
use parking_lot::RwLock;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use crate::serve::{Responder, Transport};
use crate::slots::Slots;
use crate::zone::{Update, Zone};

/// Where DNS servers listen.
const PORT: u16 = 53;
/// Most questions for the machine's resolvers at a time. kubeadm's Corefile: `forward . /etc/resolv.conf { max_concurrent 1000 }`.
const MAX_FORWARDED: u64 = 1000;
/// Descriptors that a question may take while it waits: two resolvers are asked at a time, each by up to three datagrams, all
/// from ports of their own, so that nobody can guess them.
const DESCRIPTORS_OF_QUESTION: u64 = 6;
/// Most TCP connections at a time.
const MAX_CONNECTIONS: u64 = 256;
/// What part of the process's descriptors questions may take, and what part connections.
const SHARES: (u64, u64) = (4, 16);

/// What is served, and where.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cluster's domain, `cluster.local` by default.
    pub domain: String,
    /// Where to listen, by UDP and by TCP; port 0 takes a free one for each.
    pub listen: SocketAddr,
    /// Under which address clients know this server: that of the Service in front of it.
    pub address: Option<IpAddr>,
    /// Whose reverse names are the cluster's own, so that they are never asked of anybody else: `ADDRESS/BITS`.
    pub subnets: Vec<String>,
    /// Names the resolvers that are asked for everything else.
    pub resolv_conf: PathBuf,
}

impl Config {
    /// The defaults, listening at `listen`.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            domain: CLUSTER_DOMAIN.to_owned(),
            listen,
            address: None,
            subnets: Vec::new(),
            resolv_conf: PathBuf::from(RESOLV_CONF),
        }
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The configured domain or subnet is none.
    #[error("{0:?} is not {1}")]
    Invalid(String, &'static str),
}

/// A running server.
pub struct Handle {
    udp: SocketAddr,
    tcp: SocketAddr,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Handle {
    /// Where it listens by UDP.
    pub fn udp(&self) -> SocketAddr {
        self.udp
    }

    /// Where it listens by TCP.
    pub fn tcp(&self) -> SocketAddr {
        self.tcp
    }

    /// Stops to listen.
    pub async fn shutdown(self) {
        self.cancel.cancel();
        if let Err(error) = self.task.await {
            warn!(%error, "the DNS server ended badly");
        }
    }
}

/// Starts to listen and to follow the cluster. Questions that come before the first full list wait for it.
///
/// # Errors
/// When the address is taken or the configuration is wrong.
pub async fn start(config: Config, informers: &Informers) -> Result<Handle, Error> {
    let failed = |source| Error::Listen { address: config.listen, source };
    let udp = UdpSocket::bind(config.listen).await.map_err(failed)?;
    let tcp = TcpListener::bind(config.listen).await.map_err(failed)?;
    let udp_address = udp.local_addr().map_err(failed)?;
    let tcp_address = tcp.local_addr().map_err(failed)?;
    let responder = Responder::new(&config, vec![udp_address, tcp_address], informers)?;
    let cancel = CancellationToken::new();
    let datagrams = udp::serve(udp, responder.clone(), cancel.clone());
    let slots = Slots::new(Bounds::of_process().connections);
    let connections = tcp::serve(tcp, responder, slots, cancel.clone());
    let task = tokio::spawn(async move {
        tokio::join!(datagrams, connections);
    });
    Ok(Handle { udp: udp_address, tcp: tcp_address, cancel, task })
}

/// How much is done at a time, so that the rest of the process keeps descriptors.
#[derive(Debug, PartialEq, Eq)]
struct Bounds {
    forwarded: usize,
    connections: usize,
}

impl Bounds {
    /// Those of this process.
    fn of_process() -> Self {
        Self::of(rustix::process::getrlimit(rustix::process::Resource::Nofile).current)
    }

    /// Those of a process that may have so many descriptors; `None` for any number.
    fn of(descriptors: Option<u64>) -> Self {
        let descriptors = descriptors.unwrap_or(u64::MAX);
        let part = |share: u64, each: u64, most: u64| {
            // Two, so that one greedy client leaves something for another.
            usize::try_from((descriptors / share / each).clamp(2, most)).unwrap_or(usize::MAX)
        };
        Self {
            forwarded: part(SHARES.0, DESCRIPTORS_OF_QUESTION, MAX_FORWARDED),
            connections: part(SHARES.1, 1, MAX_CONNECTIONS),
        }
    }
}

/// A zone that the informers keep right, and whether it has seen everything there is.
fn follow(informers: &Informers) -> (Arc<RwLock<Zone>>, watch::Receiver<bool>) {
    let zone = Arc::new(RwLock::new(Zone::default()));
    let reporter = informers.reconciles().reporter::<Zone>();
    let services = informers.informer::<Service>();
    let slices = informers.informer::<EndpointSlice>();
    let namespaces = informers.informer::<Namespace>();

    slices.index_by_service();
    let (for_services, its_slices) = ((Arc::clone(&zone), reporter.clone()), slices.clone());
    services.on_change(move |change| {
        let key = change.key();
        let slices = its_slices.of_service(&key);
        write(&for_services, &key, change.cause(), |zone| zone.set(&key, change.new.as_deref(), &slices));
    });
    let (for_slices, its_services, all) = ((Arc::clone(&zone), reporter.clone()), services.clone(), slices.clone());
    slices.on_change(move |change| {
        for key in services_of(change) {
            let service = its_services.get(&key);
            let slices = all.of_service(&key);
            write(&for_slices, &key, change.cause(), |zone| zone.set(&key, service.as_deref(), &slices));
        }
    });
    let for_namespaces = (Arc::clone(&zone), reporter);
    namespaces.on_change(move |change| {
        let key = change.key();
        write(&for_namespaces, &key, change.cause(), |zone| zone.set_namespace(&key.name, change.new.is_some()));
    });

    let (done, synced) = watch::channel(false);
    tokio::spawn(async move {
        // Ends without a word when nobody is left who asks.
        tokio::select! {
            () = done.closed() => {}
            () = async { services.synced().await; slices.synced().await; namespaces.synced().await } => {
                done.send_replace(true);
                done.closed().await;
            }
        }
    });
    (zone, synced)
}

/// Changes the zone because of `cause`, and reports what that came to.
fn write(
    (zone, reporter): &(Arc<RwLock<Zone>>, ReconcileReporter),
    key: &ObjectKey,
    cause: Cause,
    change: impl FnOnce(&mut Zone) -> Update,
) {
    let mut running = reporter.begin(key, &Causes::new(cause));
    // In a statement of its own: whoever asks waits for the lock.
    let update = change(&mut zone.write());
    match update {
        Update::Nothing(reason) => running.because(reason),
        Update::Published(records) => running.act(|| format!("publish {records} addresses and names")),
        Update::Withdrawn => running.act(|| "withdraw all records"),
    }
    running.end(Ending::AwaitChange, &[]);
}
