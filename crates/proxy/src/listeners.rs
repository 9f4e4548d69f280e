//! Node ports on loopback, or on all addresses: a listener per port in this process.
//!
//! The kernel could translate connections to loopback only with a setting (`route_localnet`) that opens loopback to the
//! network; so they are carried here.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::endpoints::Endpoints;
use crate::service::{Port, Protocol};
use crate::service_map::NodePort;
use crate::{NodePorts, tcp, udp};

/// A node port that could not be opened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) node_port: NodePort,
    pub(crate) address: SocketAddr,
    pub(crate) reason: String,
}

/// All open node ports.
pub(crate) struct Listeners {
    addresses: Vec<IpAddr>,
    open: HashMap<NodePort, Open>,
    tasks: TaskTracker,
}

struct Open {
    endpoints: watch::Sender<Arc<[SocketAddrV4]>>,
    cancel: CancellationToken,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Listeners {
    /// None yet.
    pub(crate) fn new(node_ports: NodePorts) -> Self {
        let addresses: Vec<IpAddr> = match node_ports {
            NodePorts::Local => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            // Takes IPv4 as well; where there is no IPv6, the other one does.
            NodePorts::All => vec![Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()],
        };
        Self { addresses, open: HashMap::new(), tasks: TaskTracker::new() }
    }

    /// Opens, changes or closes a node port.
    pub(crate) async fn set(&mut self, node_port: NodePort, port: Option<&Port>) -> Result<(), Taken> {
        let Some(port) = port else {
            self.open.remove(&node_port);
            return Ok(());
        };
        let endpoints: Arc<[SocketAddrV4]> = port.endpoints.as_slice().into();
        if let Some(open) = self.open.get(&node_port) {
            open.endpoints.send_replace(endpoints);
            return Ok(());
        }
        let (sender, receiver) = watch::channel(endpoints);
        let open = Open { endpoints: sender, cancel: CancellationToken::new() };
        let mut opened = 0;
        let mut failure = None;
        for address in &self.addresses {
            let address = SocketAddr::new(*address, node_port.1);
            match self.listen(node_port.0, address, &receiver, &open.cancel).await {
                Ok(()) => opened += 1,
                Err(error) => {
                    let in_use = error.kind() == io::ErrorKind::AddrInUse;
                    // No IPv6 on this machine is no failure, nor IPv4 when the listener for all took it.
                    if address.is_ipv4() && !(in_use && opened > 0) || in_use && opened == 0 {
                        failure.get_or_insert(Taken { node_port, address, reason: error.to_string() });
                    }
                }
            }
        }
        match failure {
            // Half a port is worth keeping only if it is the half people use.
            Some(taken) => Err(taken),
            None => {
                self.open.insert(node_port, open);
                Ok(())
            }
        }
    }

    /// Closes everything and waits until it is closed.
    pub(crate) async fn close(mut self) {
        self.open.clear();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn listen(
        &self,
        protocol: Protocol,
        address: SocketAddr,
        endpoints: &Endpoints,
        cancel: &CancellationToken,
    ) -> io::Result<()> {
        match protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(address).await?;
                self.tasks.spawn(tcp::serve(listener, endpoints.clone(), cancel.clone()));
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(address).await?;
                self.tasks.spawn(udp::serve(socket, endpoints.clone(), cancel.clone()));
            }
            // Nothing carries it outside the kernel.
            Protocol::Sctp => {}
        }
        Ok(())
    }
}
