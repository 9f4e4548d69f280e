//! The port of a kubelet (upstream: 10250), for those who ask nodes and not the API: Prometheus above all.
//!
//! It listens on the node's address alone, with a certificate of the cluster's authority that is good for this address; the
//! answers are those of [`kubelet`](crate::kubelet). The listener has its own end, since nodes come and go while the API stays,
//! and the API's limits: its connections are among those that pods may have.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use streaming::NodeApi;
use tokio::net::TcpListener;

use crate::handle::{Handle, StartError, bind};
use crate::kubelet::Kubelet;
use crate::kubelet_routes::KUBELET_PORT;
use crate::pki::{self, Pki};
use crate::serve::tls::Tls;
use crate::serve::{Audience, Limits, Service, Serving, Slots};
use crate::server::ApiServer;

/// Opens ports of kubelets beside an API server, and for as long as that runs.
#[derive(Clone)]
pub struct KubeletPorts {
    server: ApiServer,
    pki: Arc<Pki>,
    limits: Limits,
    slots: Arc<Slots>,
}

/// A port that is a node's, and where nobody answers yet: a kubelet says where it is served when it starts.
pub struct BoundKubeletPort {
    ports: KubeletPorts,
    node: String,
    listener: TcpListener,
    address: SocketAddr,
    tls: Tls,
}

/// A port that is served.
pub struct KubeletPort {
    serving: Arc<Serving>,
}

impl Handle {
    /// The ports of the kubelets, which are opened one by one and end with the server at the latest.
    #[must_use]
    pub fn kubelet_ports(&self) -> KubeletPorts {
        KubeletPorts {
            server: self.server.clone(),
            pki: Arc::clone(&self.pki),
            limits: self.serving.limits.clone(),
            slots: Arc::clone(&self.serving.slots),
        }
    }
}

impl KubeletPorts {
    /// Takes the port 10250 of the node's address; another one if that is taken, by the kubelet of another cluster for example.
    ///
    /// # Errors
    /// When there is no such address here, or no certificate can be issued.
    pub fn bind(&self, node: &str, address: IpAddr) -> Result<BoundKubeletPort, StartError> {
        self.bind_at(node, SocketAddr::new(address, KUBELET_PORT))
    }

    pub(crate) fn bind_at(&self, node: &str, address: SocketAddr) -> Result<BoundKubeletPort, StartError> {
        let certificate = self.pki.kubelet(node, address.ip())?;
        let tls = Tls::new(&certificate, self.pki.authority_pem(), None)?;
        let (listener, address) = match bind(address) {
            Err(StartError::Listen { source, .. }) if source.kind() == std::io::ErrorKind::AddrInUse => {
                bind(SocketAddr::new(address.ip(), 0))?
            }
            bound => bound?,
        };
        Ok(BoundKubeletPort { ports: self.clone(), node: node.to_owned(), listener, address, tls })
    }
}

impl BoundKubeletPort {
    /// Which address it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets `api` answer here.
    #[must_use]
    pub fn serve(self, api: Arc<dyn NodeApi>) -> KubeletPort {
        let Self { ports: KubeletPorts { server, pki, limits, slots }, node, listener, address, tls } = self;
        let lifecycle = server.0.lifecycle.child();
        let renewal = (pki, node.clone(), address.ip());
        let kubelet = Arc::new(Kubelet { server, lifecycle: lifecycle.clone(), node, api });
        let serving = Serving::new(Service::Kubelet(kubelet), tls, limits, slots);
        tracing::info!(%address, "serving the kubelet");
        serving.accept_on(listener, Audience::Pods);
        lifecycle.spawn(renew_certificate(Arc::clone(&serving), renewal));
        KubeletPort { serving }
    }
}

impl KubeletPort {
    /// Stops: no new connections, running requests get a few seconds.
    pub async fn shutdown(&self) {
        self.serving.stop().await;
    }
}

/// Serves with a new certificate from time to time, long before the one before has ended.
async fn renew_certificate(serving: Arc<Serving>, (pki, node, address): (Arc<Pki>, String, IpAddr)) {
    loop {
        tokio::time::sleep(pki::RENEWAL_CHECK).await;
        let renewed = pki.kubelet(&node, address).map_err(StartError::from);
        let served = renewed.and_then(|credential| serving.tls.replace(&credential).map_err(StartError::from));
        if let Err(error) = served {
            tracing::warn!(%error, node, "cannot renew the kubelet's certificate");
        }
    }
}
