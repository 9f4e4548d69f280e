//! The controller manager: what keeps the cluster as its objects ask for it.
//!
//! | controller | module | watches | owns |
//! |---|---|---|---|
//! | `deployment` | `deployment` | Deployments, ReplicaSets, Pods | ReplicaSets |
//! | `replicaset` | `replicaset` | ReplicaSets, Pods | Pods |
//! | `replicationmanager` | `replicaset` | ReplicationControllers, Pods | Pods |
//! | `statefulset` | `statefulset` | StatefulSets, Pods, ControllerRevisions, PersistentVolumeClaims, Services | Pods, ControllerRevisions |
//! | `daemonset` | `daemonset` | DaemonSets, Pods, Nodes, ControllerRevisions | Pods, ControllerRevisions |
//! | `job` | `job` | Jobs, Pods | Pods, and the finalizer by which they are counted; Jobs whose time to live is over |
//! | `job_orphan_pod` | `job::orphans` | Jobs, Pods | that finalizer, where no Job counts any more |
//! | `cronjob` | `cronjob` | CronJobs, Jobs | Jobs |
//! | `horizontalpodautoscaler` | `autoscaler` | HorizontalPodAutoscalers, Pods; the metrics APIs | the scale of what they refer to |
//! | `disruption` | `disruption` | PodDisruptionBudgets, Pods, and what controls them | the status of PodDisruptionBudgets |
//! | `endpoint_slice` | `endpoints` | Services, Pods, Nodes, Endpoints of others | EndpointSlices, Endpoints |
//! | `service` | `load_balancer` | Services | the addresses of load balancers in their status |
//! | `serviceaccount` | `serviceaccount` | Namespaces, ServiceAccounts | the ServiceAccount `default` of each namespace |
//! | `serviceaccount_tokens_secret` | `token_secrets` | Secrets of type `kubernetes.io/service-account-token`, ServiceAccounts | their content |
//! | `root_ca_cert_publisher` | `root_ca` | Namespaces, ConfigMaps of one name | the ConfigMap `kube-root-ca.crt` of each namespace |
//! | `ClusterRoleAggregator` | `aggregation` | ClusterRoles | the rules of those with an `aggregationRule` |
//! | `csrapproving` | `certificates::approver` | CertificateSigningRequests | the approval of those of kubelets |
//! | `csrsigning` | `certificates::signer` | CertificateSigningRequests | the certificate in their status |
//! | `csrcleaner` | `certificates::cleaner` | nothing: it looks from time to time | CertificateSigningRequests that are done or forgotten |
//! | `namespace` | `namespace` | Namespaces, Pods, all kinds by discovery | the content and the finalizer of Namespaces that go |
//! | `garbage_collector_attempt_to_delete` | `garbage` | the metadata of all kinds | what has no owner left; the finalizers `foregroundDeletion` and `orphan` |
//! | `crd_finalizer` | `custom_resources` | the metadata of CustomResourceDefinitions | the objects and the finalizer of those that go |
//! | `node_lifecycle_controller` | `node_lifecycle` | Nodes, their Leases, Pods | conditions of silent Nodes, taints `node.kubernetes.io/...` |
//! | `orphaned_pods_nodes` | `pod_gc` | Pods, Nodes | Pods of Nodes that are gone; finished Pods beyond a number |
//! | `persistentvolume_binder` | `storage` | PersistentVolumeClaims, PersistentVolumes, StorageClasses, Pods, Nodes | the binding of claims to volumes, the volumes that the built-in provisioner makes |
//! | `pvcprotection` | `storage::protection` | PersistentVolumeClaims, PersistentVolumes, Pods | the finalizers of what is in use |
//! | `vacprotection` | `storage::class_protection` | VolumeAttributesClasses, PersistentVolumeClaims, PersistentVolumes | the finalizers of classes in use |
//! | `ephemeral_volume` | `storage::ephemeral` | Pods, PersistentVolumeClaims | the claims of ephemeral volumes |
//! | `resourcequota_primary` | `resource_quota` | ResourceQuotas | their status |
//! | `validatingadmissionpolicy-status` | `policy_status` | ValidatingAdmissionPolicies | their status |
//! | `event_ttl` | `event_ttl` | nothing: it looks from time to time | Events that are an hour old |
//!
//! All have one shape, [`controller::Controller`], and are rows of one table; [`controller::run`] runs each. Names are those
//! of upstream's work queues where it has one for the same, so that its dashboards fit.
//!
//! Each controller is a pure `plan` (objects and a time in, actions out; no IO and no clock) and a thin shell that
//! carries the plan out through a [`kube::Client`]. A reconciler gets a key, never an event. What an informer does not
//! show yet of a controller's own writes is in its `expectations`, so that no lag of a watch leads to anything twice.
//!
//! Addons bring further controllers ([`AddonControllers`]). What they are made with is public: [`controller`] (the shape),
//! [`served`] (for custom resources), [`client`], [`owner`], [`expectations`], [`applier`], [`history`], [`meta`], [`pods`].
//! Whoever explains what controllers do asks their plans through [`preview`].
//!
//! The crate knows neither the store nor HTTP: it runs against any cluster that its client reaches.

mod aggregation;
pub mod applier;
mod autoscaler;
mod certificates;
mod claim;
pub mod client;
pub mod controller;
mod cronjob;
mod custom_resources;
mod daemonset;
mod deployment;
mod discovery;
mod disruption;
mod endpoints;
mod event_ttl;
pub mod expectations;
mod garbage;
pub mod history;
mod job;
mod load_balancer;
pub mod meta;
mod namespace;
mod node_lifecycle;
pub mod owner;
mod pod_control;
mod pod_gc;
pub mod pods;
mod policy_status;
pub mod preview;
mod replicaset;
mod resource_quota;
mod root_ca;
pub mod served;
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
use ipnet::Ipv4Net;
use kube::Client;
use machinery::certificates::CertificateRequest;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

pub use client::Error;
use controller::{Context, Row};

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
    /// The range of the cluster's Services, from which those of type LoadBalancer get addresses; without it somebody else
    /// gives them.
    pub load_balancer_range: Option<Ipv4Net>,
    /// Signs the tokens of Secrets; without it these Secrets stay empty.
    pub sign_token: Option<SignToken>,
    /// Signs what CertificateSigningRequests ask for; without it approved ones wait for somebody else.
    pub sign_certificate: Option<SignCertificate>,
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

/// Takes a request, its usages and how long the certificate is to be valid; answers with the certificate in PEM, or with what is
/// wrong.
pub type Issue = dyn Fn(&CertificateRequest, &[String], Duration) -> Result<String, String> + Send + Sync;

/// Signs a certificate.
#[derive(Clone)]
pub struct SignCertificate(pub Arc<Issue>);

impl std::fmt::Debug for SignCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignCertificate")
    }
}

impl Config {
    /// The defaults, with this certificate of the cluster's authority and this place for volumes.
    pub fn new(ca_certificate: String, volumes_dir: PathBuf) -> Self {
        let autoscaler_period = Duration::from_secs(15);
        Self {
            ca_certificate,
            workers: 8,
            finished_pods: 12_500,
            volumes_dir,
            autoscaler_period,
            load_balancer_range: None,
            sign_token: None,
            sign_certificate: None,
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

/// The controllers of an addon.
pub struct AddonControllers {
    /// They themselves.
    pub rows: &'static [Row],
    /// Reads and writes their custom resources and writes what they make, with the rights of the addon alone.
    pub client: Client,
}

/// The running controllers. Dropping it stops them at once; [`Handle::shutdown`] lets them finish what they are at.
#[derive(Debug)]
pub struct Handle {
    cancel: CancellationToken,
    controllers: JoinSet<()>,
    tasks: Vec<AbortHandle>,
}

/// The controllers. To add one, write a type that implements [`controller::Controller`], and add its row.
const ROWS: &[Row] = &[
    Row::of::<deployment::Deployments>(),
    Row::of::<replicaset::ReplicaSets>(),
    Row::of::<replicaset::ReplicationControllers>(),
    Row::of::<statefulset::StatefulSets>(),
    Row::of::<daemonset::DaemonSets>(),
    Row::of::<job::Jobs>(),
    Row::of::<job::orphans::OrphanPods>(),
    Row::of::<cronjob::CronJobs>(),
    Row::of::<autoscaler::Autoscalers>(),
    Row::of::<disruption::Disruptions>(),
    Row::of::<endpoints::Endpointer>(),
    Row::of::<load_balancer::LoadBalancers>(),
    Row::of::<serviceaccount::ServiceAccounts>(),
    Row::of::<token_secrets::TokenSecrets>(),
    Row::of::<root_ca::RootCaPublisher>(),
    Row::of::<aggregation::ClusterRoleAggregation>(),
    Row::of::<certificates::approver::Approver>(),
    Row::of::<certificates::signer::Signer>(),
    Row::of::<certificates::cleaner::Cleaner>(),
    Row::of::<namespace::Namespaces>(),
    Row::of::<garbage::GarbageCollector>(),
    Row::of::<custom_resources::CustomResources>(),
    Row::of::<node_lifecycle::NodeLifecycle>(),
    Row::of::<pod_gc::PodGc>(),
    Row::of::<storage::Binder>(),
    Row::of::<storage::protection::Protection>(),
    Row::of::<storage::class_protection::ClassProtection>(),
    Row::of::<storage::ephemeral::EphemeralVolumes>(),
    Row::of::<resource_quota::ResourceQuotas>(),
    Row::of::<policy_status::PolicyStatus>(),
    Row::of::<event_ttl::EventTtl>(),
];

/// Starts all controllers, those of addons among them. Must be called within a tokio runtime.
pub fn start(config: Config, deps: Deps, addons: Vec<AddonControllers>) -> Handle {
    let cancel = CancellationToken::new();
    let Deps { client, informers } = deps;
    let context = Context { client: client.clone(), informers, config: Arc::new(config), cancel: cancel.clone() };
    let mut controllers = JoinSet::new();
    let mut tasks = Vec::new();
    let own = AddonControllers { rows: ROWS, client };
    for AddonControllers { rows, client } in std::iter::once(own).chain(addons) {
        for row in rows {
            tracing::debug!(controller = row.name, "starting");
            tasks.push(controllers.spawn((row.run)(Context { client: client.clone(), ..context.clone() })));
        }
    }
    Handle { cancel, controllers, tasks }
}

impl Handle {
    /// The tasks, which end with the controllers.
    #[must_use]
    pub fn tasks(&self) -> Vec<AbortHandle> {
        self.tasks.clone()
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_front_page_has_a_line_for_each_row() {
        let lines = include_str!("lib.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
        let listed: Vec<&str> = lines.filter_map(|line| line.split('`').next()).collect();
        let rows: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(listed, rows);
    }
}
