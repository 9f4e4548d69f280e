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
//! | `forward` | the machine's resolvers, read anew when their configuration changes |
//! | `serve` | the handler between the library's server and all of the above |
//!
//! A change is in the zone before the informer that brought it goes on: there is no queue in between. A name that does not
//! exist (NXDOMAIN) and one without records of the wished type (an empty answer) are told apart everywhere: a resolver that
//! is told NXDOMAIN for `AAAA` gives up on the name altogether.
//!
//! This crate must not know where the API server is, nor who asks.

mod answer;
mod forward;
mod question;
mod serve;
mod zone;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hickory_server::Server;
use informer::{Informers, services_of};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::answer::Authority;
use crate::forward::Forwarder;
use crate::serve::Handler;
use crate::zone::Zone;

/// Where DNS servers listen.
const PORT: u16 = 53;
/// A TCP connection that asks nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// Answers that may wait for one slow TCP client.
const PENDING_ANSWERS: usize = 32;

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
            domain: "cluster.local".to_owned(),
            listen,
            address: None,
            subnets: Vec::new(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
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
    let authority = Authority::new(&config.domain, config.address, &config.subnets)?;
    let failed = |source| Error::Listen { address: config.listen, source };
    let udp = UdpSocket::bind(config.listen).await.map_err(failed)?;
    let tcp = TcpListener::bind(config.listen).await.map_err(failed)?;
    let udp_address = udp.local_addr().map_err(failed)?;
    let tcp_address = tcp.local_addr().map_err(failed)?;

    let (zone, synced) = follow(informers);
    let mut own = vec![udp_address, tcp_address];
    own.extend(config.address.map(|address| SocketAddr::new(address, PORT)));
    let forwarder = Forwarder::new(config.resolv_conf, PORT, own);
    let mut server = Server::new(Handler::new(authority, zone, synced, forwarder));
    server.register_socket(udp);
    server.register_listener(tcp, IDLE, PENDING_ANSWERS);
    let cancel = server.shutdown_token().clone();
    let task = tokio::spawn(async move {
        if let Err(error) = server.block_until_done().await {
            warn!(%error, "the DNS server gave up");
        }
    });
    Ok(Handle { udp: udp_address, tcp: tcp_address, cancel, task })
}

/// A zone that the informers keep right, and whether it has seen everything there is.
fn follow(informers: &Informers) -> (Arc<RwLock<Zone>>, watch::Receiver<bool>) {
    let zone = Arc::new(RwLock::new(Zone::default()));
    let write = |zone: &RwLock<Zone>, change: &dyn Fn(&mut Zone)| {
        change(&mut zone.write().unwrap_or_else(PoisonError::into_inner));
    };
    let services = informers.informer::<Service>();
    let slices = informers.informer::<EndpointSlice>();
    let namespaces = informers.informer::<Namespace>();

    slices.index_by_service();
    let (for_services, its_slices) = (Arc::clone(&zone), slices.clone());
    services.on_change(move |change| {
        let key = change.key();
        let slices = its_slices.of_service(&key);
        write(&for_services, &|zone| zone.set(&key, change.new.as_deref(), &slices));
    });
    let (for_slices, its_services, all) = (Arc::clone(&zone), services.clone(), slices.clone());
    slices.on_change(move |change| {
        for key in services_of(change) {
            let service = its_services.get(&key);
            let slices = all.of_service(&key);
            write(&for_slices, &|zone| zone.set(&key, service.as_deref(), &slices));
        }
    });
    let for_namespaces = Arc::clone(&zone);
    namespaces.on_change(move |change| {
        let name = change.key().name;
        write(&for_namespaces, &|zone| zone.set_namespace(&name, change.new.is_some()));
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
