//! What a kubelet is told from outside.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use machinery::well_known::{CLUSTER_DOMAIN, MAX_PODS, RESOLV_CONF};
use tokio::sync::watch;

use crate::eviction::signals::Thresholds;

/// Whether pods have the network that they should.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NetworkState {
    /// Not known yet.
    #[default]
    Unknown,
    /// They have.
    Available,
    /// They have not, for this reason.
    Unavailable(String),
}

/// Settings of one kubelet. [`Config::new`] fills in upstream's defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the Node object, and value of `spec.nodeName` of the pods to run.
    pub node_name: String,
    /// The node's `InternalIP`, which is also a pod's `hostIP`.
    pub node_ip: IpAddr,
    /// Where the kubelet's own API is served at that address; 0 where it is not.
    pub port: u16,
    /// Directory for volumes and the other files that pods see. Created with mode 0700 if it is missing.
    pub state_dir: PathBuf,
    /// Directory that `seccompProfile.localhostProfile` of pods is relative to. It need not exist.
    pub seccomp_profile_root: PathBuf,
    /// `spec.podCIDR` of the node, where it is known.
    pub pod_cidr: Option<String>,
    /// Addresses of the cluster's DNS server. While there is none, pods with `dnsPolicy: ClusterFirst` use the
    /// machine's resolvers.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's domain: `cluster.local`.
    pub cluster_domain: String,
    /// Version to report in `status.nodeInfo`, such as `v1.36.0`.
    pub kubelet_version: String,
    /// Labels for the node beyond those every kubelet sets.
    pub labels: BTreeMap<String, String>,
    /// Most pods on this node.
    pub max_pods: u32,
    /// Resources to announce in place of the machine's, or beyond them: name → quantity (`nvidia.com/gpu` → `4`).
    pub capacity: BTreeMap<String, String>,
    /// Whether the Node is created where there is none. A node that somebody else adds and deletes must not come back.
    pub register: bool,
    /// How many sandboxes and containers are created at the same time.
    pub parallel_starts: usize,
    /// Whether a local image serves when `imagePullPolicy: Always` meets a registry that is out of reach.
    pub run_local_image_when_offline: bool,
    /// The node's network, where somebody tells of it: the condition `NetworkUnavailable` follows it.
    pub network: Option<watch::Receiver<NetworkState>>,
    /// Whether the pods' processes are held just now, where somebody tells of it: what probes find meanwhile says nothing.
    pub frozen: Option<watch::Receiver<bool>>,
    /// The machine's resolver configuration.
    pub resolv_conf: PathBuf,
    /// How often the node's Lease is renewed.
    pub lease_period: Duration,
    /// How often the node's status is computed, and compared with what the API has (upstream:
    /// `nodeStatusUpdateFrequency`).
    pub status_check_period: Duration,
    /// How often an unchanged node status is written (upstream: `nodeStatusReportFrequency`).
    pub status_period: Duration,
    /// How often each pod is looked at although nothing is known to have changed (upstream: `syncFrequency`).
    pub sync_period: Duration,
    /// How often the runtime is listed in case an event was lost.
    pub relist_period: Duration,
    /// How often the runtime's health is checked.
    pub runtime_status_period: Duration,
    /// A runtime that has not answered the check for so long is down, and the node not Ready.
    pub runtime_status_timeout: Duration,
    /// Below which amounts the node is under pressure, and pods are evicted (upstream: `evictionHard`).
    pub eviction_hard: Thresholds,
    /// How often the machine is looked at for it. A disk that fills is looked at more often.
    pub eviction_monitoring_period: Duration,
    /// How long the node stays under pressure after its cause is gone (upstream: `evictionPressureTransitionPeriod`).
    pub eviction_pressure_transition_period: Duration,
    /// How often the disk is counted that pods with limits take (upstream: `volumeStatsAggPeriod`).
    pub volume_stats_period: Duration,
    /// Most processes and threads of each container (upstream: `podPidsLimit`, without a limit unless set).
    pub pod_pids_limit: Option<i64>,
    /// The kernel parameters that pods may set beside the safe ones, with dots; `*` at the end stands for whatever follows
    /// (upstream: `allowedUnsafeSysctls`).
    pub allowed_unsafe_sysctls: Vec<String>,
}

impl Config {
    /// The settings upstream uses, for a node called `node_name` at `node_ip` that keeps its files in `state_dir`.
    pub fn new(node_name: impl Into<String>, node_ip: IpAddr, state_dir: impl Into<PathBuf>) -> Self {
        let state_dir = state_dir.into();
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            node_name: node_name.into(),
            node_ip,
            port: 0,
            seccomp_profile_root: state_dir.join("seccomp"),
            state_dir,
            pod_cidr: None,
            cluster_dns: Vec::new(),
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            kubelet_version: "v1.36.0".to_owned(),
            labels: BTreeMap::new(),
            max_pods: MAX_PODS,
            capacity: BTreeMap::new(),
            register: true,
            parallel_starts: (cpus * 2).max(4),
            run_local_image_when_offline: true,
            network: None,
            frozen: None,
            resolv_conf: PathBuf::from(RESOLV_CONF),
            lease_period: Duration::from_secs(10),
            status_check_period: Duration::from_secs(10),
            status_period: Duration::from_secs(300),
            sync_period: Duration::from_secs(60),
            relist_period: Duration::from_secs(60),
            // Upstream: `updateRuntimeUp` and `maxWaitForContainerRuntime` in `pkg/kubelet/kubelet.go`.
            runtime_status_period: Duration::from_secs(5),
            runtime_status_timeout: Duration::from_secs(30),
            eviction_hard: Thresholds::default(),
            // Upstream: `evictionMonitoringPeriod` in `pkg/kubelet/kubelet.go`.
            eviction_monitoring_period: Duration::from_secs(10),
            eviction_pressure_transition_period: Duration::from_secs(300),
            volume_stats_period: Duration::from_secs(60),
            // Enough for the largest programs, and far from what a machine can bear: what OpenShift sets.
            pod_pids_limit: Some(4096),
            allowed_unsafe_sysctls: Vec::new(),
        }
    }
}
