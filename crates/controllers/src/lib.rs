//! The controller manager: what keeps the cluster as its objects ask for it.
//!
//! | controller | watches | owns |
//! |---|---|---|
//! | [`deployment`] | Deployments, ReplicaSets, Pods | ReplicaSets |
//! | [`replicaset`] | ReplicaSets, Pods | Pods |
//! | [`endpoints`] | Services, Pods, Nodes | EndpointSlices, Endpoints |
//! | [`serviceaccount`] | Namespaces, ServiceAccounts | the ServiceAccount `default` of each namespace |
//! | [`root_ca`] | Namespaces, ConfigMaps of one name | the ConfigMap `kube-root-ca.crt` of each namespace |
//!
//! Each controller is a pure `plan` (objects and a time in, actions out; no IO and no clock) and a thin shell that
//! carries the plan out through a [`kube::Client`]. A reconciler gets a key, never an event. What an informer does not
//! show yet of a controller's own writes is in a [`ledger`], so that no lag of a watch leads to anything twice.
//!
//! The crate knows neither the store nor HTTP: it runs against any cluster that its client reaches.

mod claim;
mod client;
mod deployment;
mod endpoints;
mod ledger;
mod meta;
mod namespace;
mod pods;
mod replicaset;
mod root_ca;
mod serviceaccount;

use informer::Informers;
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use client::Error;

/// What the controllers need to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The certificate of the cluster's authority in PEM, for Pods to verify the API server.
    pub ca_certificate: String,
    /// How many objects of one kind each controller works on at once.
    pub workers: usize,
}

impl Config {
    /// The defaults, with this certificate of the cluster's authority.
    pub fn new(ca_certificate: String) -> Self {
        Self {
            ca_certificate,
            workers: 8,
        }
    }
}

/// What the controllers work with.
#[derive(Clone)]
pub struct Deps {
    /// Writes, as `system:kube-controller-manager` or somebody with as many rights.
    pub client: Client,
    /// Reads.
    pub informers: Informers,
}

/// The running controllers. Dropping it stops them at once; [`Handle::shutdown`] lets them finish what they are at.
#[derive(Debug)]
pub struct Handle {
    cancel: CancellationToken,
    controllers: JoinSet<()>,
}

/// Starts all controllers. Must be called within a tokio runtime.
pub fn start(config: Config, deps: Deps) -> Handle {
    let Deps { client, informers } = deps;
    let cancel = CancellationToken::new();
    let mut controllers = JoinSet::new();
    let workers = config.workers;
    controllers.spawn(deployment::run(
        client.clone(),
        informers.clone(),
        workers,
        cancel.clone(),
    ));
    controllers.spawn(replicaset::run(
        client.clone(),
        informers.clone(),
        workers,
        cancel.clone(),
    ));
    controllers.spawn(endpoints::run(
        client.clone(),
        informers.clone(),
        workers,
        cancel.clone(),
    ));
    controllers.spawn(serviceaccount::run(
        client.clone(),
        informers.clone(),
        cancel.clone(),
    ));
    controllers.spawn(root_ca::run(
        client,
        informers,
        config.ca_certificate,
        cancel.clone(),
    ));
    Handle {
        cancel,
        controllers,
    }
}

impl Handle {
    /// Stops the controllers: each finishes what it is working on and starts nothing new.
    pub async fn shutdown(mut self) {
        self.cancel.cancel();
        while let Some(ended) = self.controllers.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a controller ended badly");
            }
        }
    }
}
