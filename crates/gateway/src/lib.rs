//! Ingress and Gateway API: a proxy in the process, which leads what comes in to the cluster's Services.
//!
//! ```text
//!   Ingresses, IngressClasses ──┐
//!   GatewayClasses, Gateways, ──┤                             ┌─► requests: HTTP/1.1, HTTP/2, WebSocket, gRPC
//!   HTTPRoutes, ReferenceGrants ┼─► compile (pure) ─► Table ──┤
//!   Services, EndpointSlices ───┤                             └─► handshakes of TLS
//!   Secrets with certificates ──┘
//! ```
//!
//! | module | what is in it |
//! |---|---|
//! | `route` | pure: rules, whatever object they come from: matches, precedence, filters, weights |
//! | `hosts` | pure: what belongs to a host, by name or wildcard |
//! | `table` | pure: the rules of all entry points, and which of them a request meets |
//! | `ingress` | pure: Ingresses → rules |
//! | `gateway_api` | Gateways and HTTPRoutes → rules, and what is said of them |
//! | `backend` | pure: Services and their slices → endpoints |
//! | `certificate` | Secrets → certificates, each read once |
//! | `sites` | pure: entry points → the addresses that they are at |
//! | `problems` | pure: what is told of an Ingress, and when |
//! | `sync` | the task that follows the informers, exchanges the table and writes status |
//! | `serve` | the data plane |
//!
//! Nothing listens while there is no Ingress or Gateway of ours: somebody who uses none keeps port 80. The model of a rule is that
//! of the Gateway API's HTTPRoute, so that both kinds of objects share one table and one data plane.
//!
//! What whoever starts it has to bring:
//!
//! - an IngressClass whose controller is [`INGRESS_CONTROLLER`]; the GatewayClass `coracle` it makes itself where the definitions of
//!   the Gateway API are installed, which it follows from then on;
//! - rights to watch Ingresses, IngressClasses, Services, EndpointSlices, Secrets, Namespaces, CustomResourceDefinitions,
//!   GatewayClasses, Gateways, HTTPRoutes and ReferenceGrants, to create GatewayClasses, to patch the status of Ingresses, GatewayClasses, Gateways and
//!   HTTPRoutes, and to create Events;
//! - a certificate for the names of [`Handle::uncertified`], which it may replace whenever they change.
//!
//! This crate must not know where the API server is, nor how certificates are issued.

mod backend;
mod certificate;
mod gateway_api;
mod hosts;
mod ingress;
mod problems;
mod route;
mod serve;
mod sites;
mod sync;
mod table;

#[cfg(test)]
mod start_tests;
#[cfg(test)]
mod testing;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use informer::{Informers, Recorder};
use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::serve::{Ports, Proxy};
use crate::sync::Told;

pub use crate::gateway_api::CONTROLLER as GATEWAY_CONTROLLER;
pub use crate::ingress::CONTROLLER as INGRESS_CONTROLLER;
pub use crate::serve::Limits;

/// Where to listen, and what to say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The addresses that Ingresses are answered at. One that this machine does not have is no error as long as it has another.
    pub addresses: Vec<IpAddr>,
    /// The ports for HTTP, of which the first is used that is free and may be had.
    pub http_ports: Vec<u16>,
    /// The same for HTTPS.
    pub https_ports: Vec<u16>,
    /// Addresses for Gateways, each of which gets one of its own. Those that come when there is none left share the addresses of
    /// Ingresses; without any, all of them do.
    pub gateway_addresses: Vec<IpAddr>,
    /// What the status of Ingresses says, and of Gateways that share their addresses: addresses, or names.
    pub published: Vec<String>,
    /// What clients and their requests may take.
    pub limits: Limits,
}

impl Default for Config {
    /// Loopback alone, ports 80 and 443 or, where these are taken or forbidden, the next from 8080 and 8443 on.
    fn default() -> Self {
        Self {
            addresses: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            http_ports: [80].into_iter().chain(8080..8100).collect(),
            https_ports: [443].into_iter().chain(8443..8463).collect(),
            gateway_addresses: Vec::new(),
            published: vec![Ipv4Addr::LOCALHOST.to_string()],
            limits: Limits::default(),
        }
    }
}

impl Config {
    fn ports(&self) -> Ports {
        Ports { http: self.http_ports.clone(), https: self.https_ports.clone() }
    }
}

/// The ports that are open; none where nobody needs one, or none can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Listening {
    /// For HTTP.
    pub http: Option<u16>,
    /// For HTTPS.
    pub https: Option<u16>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be served with.
    #[error("the default certificate cannot be used: {0}")]
    Certificate(String),
}

/// A running gateway.
pub struct Handle {
    proxy: Arc<Proxy>,
    cancel: CancellationToken,
    listening: watch::Receiver<Listening>,
    uncertified: watch::Receiver<BTreeSet<String>>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("listening", &self.listening).finish_non_exhaustive()
    }
}

impl Handle {
    /// The ports that are open, as they change.
    #[must_use]
    pub fn listening(&self) -> watch::Receiver<Listening> {
        self.listening.clone()
    }

    /// The names that are served over TLS and have no certificate of their own, as they stand in a certificate, as they change.
    #[must_use]
    pub fn uncertified(&self) -> watch::Receiver<BTreeSet<String>> {
        self.uncertified.clone()
    }

    /// Serves with this certificate what has none of its own. Chain and key are PEM.
    ///
    /// # Errors
    /// [`Error::Certificate`]: then the one before stays.
    pub fn set_default_certificate(&self, chain: &str, key: &str) -> Result<(), Error> {
        let certificate = certificate::certified(chain.as_bytes(), key.as_bytes()).map_err(Error::Certificate)?;
        self.proxy.set_default_certificate(Some(certificate));
        Ok(())
    }

    /// Stops it: lets running requests finish for a while, then ends whatever is left.
    pub async fn shutdown(self) {
        self.cancel.cancel();
        self.proxy.shutdown().await;
        // It fails only if the task panicked.
        let _ = self.task.await;
    }
}

/// Starts to follow the objects and to answer. Must be called within a tokio runtime.
pub fn start(client: Client, informers: &Informers, recorder: Recorder, config: Config) -> Handle {
    let cancel = CancellationToken::new();
    let proxy = Proxy::new(config.limits.clone());
    let (listening, is_listening) = watch::channel(Listening::default());
    let (uncertified, are_uncertified) = watch::channel(BTreeSet::new());
    let told = Told { listening, uncertified };
    let run = sync::run(client, informers.clone(), recorder, config, Arc::clone(&proxy), told, cancel.clone());
    let task = tokio::spawn(run);
    Handle { proxy, cancel, listening: is_listening, uncertified: are_uncertified, task }
}
