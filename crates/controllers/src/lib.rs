//! The controller manager: what keeps the cluster as its objects ask for it.
//!
//! | controller | watches | owns |
//! |---|---|---|
//! | `deployment` | Deployments, ReplicaSets, Pods | ReplicaSets |
//! | `replicaset` | ReplicaSets, ReplicationControllers, Pods | Pods |
//! | `statefulset` | StatefulSets, Pods, ControllerRevisions, PersistentVolumeClaims, Services | Pods, ControllerRevisions |
//! | `daemonset` | DaemonSets, Pods, Nodes, ControllerRevisions | Pods, ControllerRevisions |
//! | `job` | Jobs, Pods | Pods, and the finalizer by which they are counted; Jobs whose time to live is over |
//! | `cronjob` | CronJobs, Jobs | Jobs |
//! | `autoscaler` | HorizontalPodAutoscalers, Pods; the metrics APIs | the scale of what they refer to |
//! | `disruption` | PodDisruptionBudgets, Pods, and what controls them | the status of PodDisruptionBudgets |
//! | `lws` | LeaderWorkerSets, while the addon's definition is there; StatefulSets, Pods, Services | StatefulSets, Services |
//! | `rbg` | RoleBasedGroups, while the addon's definition is there; what it makes of them, and Pods | workloads, Services, ConfigMaps, PodGroups, scaling adapters |
//! | `rbg::set` | RoleBasedGroupSets, while the addon's definition is there; RoleBasedGroups | RoleBasedGroups |
//! | `endpoints` | Services, Pods, Nodes, Endpoints of others | EndpointSlices, Endpoints |
//! | `serviceaccount` | Namespaces, ServiceAccounts | the ServiceAccount `default` of each namespace |
//! | `token_secrets` | Secrets of type `kubernetes.io/service-account-token`, ServiceAccounts | their content |
//! | `root_ca` | Namespaces, ConfigMaps of one name | the ConfigMap `kube-root-ca.crt` of each namespace |
//! | `aggregation` | ClusterRoles | the rules of those with an `aggregationRule` |
//! | `namespace` | Namespaces, Pods, all kinds by discovery | the content and the finalizer of Namespaces that go |
//! | `garbage` | the metadata of all kinds | what has no owner left; the finalizers `foregroundDeletion` and `orphan` |
//! | `custom_resources` | the metadata of CustomResourceDefinitions | the objects and the finalizer of those that go |
//! | `node_lifecycle` | Nodes, their Leases, Pods | conditions of silent Nodes, taints `node.kubernetes.io/...` |
//! | `pod_gc` | Pods, Nodes | Pods of Nodes that are gone; finished Pods beyond a number |
//! | `storage` | PersistentVolumeClaims, PersistentVolumes, StorageClasses, Pods, Nodes | the binding of claims to volumes, the volumes that the built-in provisioner makes |
//! | `storage::protection` | PersistentVolumeClaims, PersistentVolumes, Pods | the finalizers of what is in use |
//! | `storage::ephemeral` | Pods, PersistentVolumeClaims | the claims of ephemeral volumes |
//! | `resource_quota` | ResourceQuotas | their status |
//! | `event_ttl` | nothing: it looks from time to time | Events that are an hour old |
//!
//! Each controller is a pure `plan` (objects and a time in, actions out; no IO and no clock) and a thin shell that
//! carries the plan out through a [`kube::Client`]. A reconciler gets a key, never an event. What an informer does not
//! show yet of a controller's own writes is in a `expectations`, so that no lag of a watch leads to anything twice.
//!
//! The crate knows neither the store nor HTTP: it runs against any cluster that its client reaches.

mod addon;
mod aggregation;
mod applier;
mod autoscaler;
mod claim;
mod client;
mod cronjob;
mod custom_resources;
mod daemonset;
mod deployment;
mod discovery;
mod disruption;
mod endpoints;
mod event_ttl;
mod expectations;
mod garbage;
mod history;
mod job;
mod lws;
mod meta;
mod namespace;
mod node_lifecycle;
mod owner;
mod pod_control;
mod pod_gc;
mod pods;
mod rbg;
mod replicaset;
mod resource_quota;
mod root_ca;
mod serviceaccount;
#[cfg(test)]
mod simulation;
mod statefulset;
mod storage;
mod token_secrets;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

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
    /// How many finished Pods are kept.
    pub finished_pods: usize,
    /// Where the built-in provisioner makes its directories.
    pub volumes_dir: PathBuf,
    /// How often the metrics of each autoscaler are looked at.
    pub autoscaler_period: Duration,
    /// Signs the tokens of Secrets; without it these Secrets stay empty.
    pub sign_token: Option<SignToken>,
}

/// Takes namespace, name and uid of the account, and the name of the Secret.
pub type Sign = dyn Fn(&str, &str, &str, &str) -> Option<String> + Send + Sync;

/// Signs a token.
#[derive(Clone)]
pub struct SignToken(pub Arc<Sign>);

impl std::fmt::Debug for SignToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignToken")
    }
}

impl Config {
    /// The defaults, with this certificate of the cluster's authority and this place for volumes.
    pub fn new(ca_certificate: String, volumes_dir: PathBuf) -> Self {
        let autoscaler_period = Duration::from_secs(15);
        let sign_token = None;
        Self { ca_certificate, workers: 8, finished_pods: 12_500, volumes_dir, autoscaler_period, sign_token }
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
    let Config { ca_certificate, workers, finished_pods, volumes_dir, autoscaler_period, sign_token } = config;
    let cancel = CancellationToken::new();
    let mut controllers = JoinSet::new();
    let with = || (deps.client.clone(), deps.informers.clone(), cancel.clone());

    let (client, informers, stop) = with();
    controllers.spawn(deployment::run(client, informers, workers, stop));
    let (client, informers, stop) = with();
    controllers.spawn(replicaset::run(client, informers, workers, stop));
    let (client, informers, stop) = with();
    controllers.spawn(replicaset::run_legacy(client, informers, workers, stop));
    let (client, informers, stop) = with();
    controllers.spawn(statefulset::run(client, informers, workers, stop));
    let (client, informers, stop) = with();
    controllers.spawn(daemonset::run(client, informers, workers, stop));
    let (client, informers, stop) = with();
    controllers.spawn(job::run(client, informers, workers, stop));
    let (client, informers, stop) = with();
    controllers.spawn(cronjob::run(client, informers, workers, stop));
    let (client, informers, stop) = with();
    controllers.spawn(autoscaler::run(client, informers, workers, autoscaler_period, stop));
    let (client, informers, stop) = with();
    controllers.spawn(disruption::run(client, informers, workers, stop));
    let (client, informers, stop) = with();
    controllers.spawn(lws::run(client, informers, workers, stop));
    let (client, informers, stop) = with();
    controllers.spawn(rbg::run(client, informers, workers, stop));
    let (client, informers, stop) = with();
    controllers.spawn(rbg::set::run(client, informers, workers, stop));
    let (client, informers, stop) = with();
    controllers.spawn(endpoints::run(client, informers, workers, stop));
    let (client, informers, stop) = with();
    controllers.spawn(serviceaccount::run(client, informers, stop));
    if let Some(sign) = sign_token {
        let (client, informers, stop) = with();
        controllers.spawn(token_secrets::run(client, informers, ca_certificate.clone(), sign, stop));
    }
    let (client, informers, stop) = with();
    controllers.spawn(root_ca::run(client, informers, ca_certificate, stop));
    let (client, informers, stop) = with();
    controllers.spawn(aggregation::run(client, informers, stop));
    let (client, informers, stop) = with();
    controllers.spawn(namespace::run(client, informers, workers, stop));
    let (client, _, stop) = with();
    // Garbage is many objects, and one small request for each.
    controllers.spawn(garbage::run(client, workers.saturating_mul(2), stop));
    let (client, _, stop) = with();
    controllers.spawn(custom_resources::run(client, stop));
    let (client, informers, stop) = with();
    controllers.spawn(node_lifecycle::run(client, informers, stop));
    let (client, informers, stop) = with();
    controllers.spawn(pod_gc::run(client, informers, finished_pods, stop));
    let (client, informers, stop) = with();
    controllers.spawn(storage::run(client, informers, volumes_dir, workers, stop));
    let (client, informers, stop) = with();
    controllers.spawn(storage::protection::run(client, informers, workers, stop));
    let (client, informers, stop) = with();
    controllers.spawn(storage::ephemeral::run(client, informers, workers, stop));
    let (client, informers, stop) = with();
    controllers.spawn(resource_quota::run(client, informers, stop));
    let (client, _, stop) = with();
    controllers.spawn(event_ttl::run(client, stop));
    Handle { cancel, controllers }
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
