//! The kubelets of this process: the profile's own, and one for each further node.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use apiserver::{ApiServer, BoundKubeletPort, KubeletPort, KubeletPorts, User};
use docker::{Docker, Network};
use informer::Informers;
use kubelet::NetworkState;
use machinery::well_known::CONTROL_PLANE;
use runtime::Runtime;
use tokio::sync::watch;
use tracing::warn;

use crate::Error;
use crate::connect::LocalNodes;
use crate::profile::Profile;

/// What all kubelets of this process have in common.
pub(crate) struct Kubelets {
    pub(crate) profile: Profile,
    pub(crate) docker: Docker,
    pub(crate) server: ApiServer,
    pub(crate) ports: KubeletPorts,
    pub(crate) informers: Informers,
    pub(crate) network: Network,
    pub(crate) cluster_dns: Option<Ipv4Addr>,
    pub(crate) network_state: watch::Receiver<NetworkState>,
    /// Whether the pods' processes are held.
    pub(crate) frozen: watch::Receiver<bool>,
    pub(crate) nodes: Arc<LocalNodes>,
    /// Most processes and threads of each container, where the default is not wanted.
    pub(crate) cluster_domain: String,
    pub(crate) pod_pids_limit: Option<i64>,
    /// The kernel parameters that pods may set beside the safe ones.
    pub(crate) allowed_unsafe_sysctls: Vec<String>,
}

/// A kubelet that runs, with its port where it has one.
pub(crate) struct RunningKubelet {
    kubelet: kubelet::Handle,
    port: Option<KubeletPort>,
}

impl RunningKubelet {
    /// Stops: first what asks the kubelet, then it. Its containers go on running.
    pub(crate) async fn shutdown(self) {
        if let Some(port) = self.port {
            port.shutdown().await;
        }
        self.kubelet.shutdown().await;
    }
}

impl Kubelets {
    /// Starts the kubelet of the profile's own node.
    pub(crate) fn start_own(&self) -> Result<RunningKubelet, Error> {
        let name = self.profile.name();
        let mut config = self.config(name, self.network.gateway, self.profile.pods());
        config.pod_cidr = self.network.node_range(0).map(|range| range.to_string());
        // One machine is everything at once: `kubectl get nodes` shows the role, and pods need no toleration for it.
        config.labels.insert(CONTROL_PLANE.to_owned(), String::new());
        self.start(config, self.docker.clone())
    }

    /// The settings of a kubelet.
    pub(crate) fn config(&self, name: &str, address: Ipv4Addr, folder: PathBuf) -> kubelet::Config {
        let mut config = kubelet::Config::new(name, IpAddr::V4(address), folder);
        config.network = Some(self.network_state.clone());
        config.frozen = Some(self.frozen.clone());
        config.seccomp_profile_root = self.profile.seccomp();
        if let Some(limit) = self.pod_pids_limit {
            config.pod_pids_limit = Some(limit).filter(|limit| *limit > 0);
        }
        config.allowed_unsafe_sysctls.clone_from(&self.allowed_unsafe_sysctls);
        config.cluster_domain.clone_from(&self.cluster_domain);
        config.cluster_dns = self.cluster_dns.into_iter().map(IpAddr::V4).collect();
        apiserver::version::GIT_VERSION.clone_into(&mut config.kubelet_version);
        config
    }

    /// Starts a kubelet, and lets the API server find it, and whoever asks at its port.
    pub(crate) fn start(&self, mut config: kubelet::Config, docker: Docker) -> Result<RunningKubelet, Error> {
        let name = config.node_name.clone();
        let port = self.bind(&name, config.node_ip);
        config.port = port.as_ref().map_or(0, |port| port.address().port());
        let deps = kubelet::Deps {
            client: self.server.client(User::node(&name), "default"),
            informers: self.informers.clone(),
            runtime: Arc::new(docker) as Arc<dyn Runtime>,
            measures: Arc::new(kubelet::Kernel),
        };
        let started = kubelet::start(config, deps);
        let kubelet = started.map_err(|error| Error::Component { component: "kubelet", reason: error.to_string() })?;
        self.nodes.set(&name, Some(kubelet.node_api()));
        let port = port.map(|port| port.serve(kubelet.node_api()));
        Ok(RunningKubelet { kubelet, port })
    }

    /// The port of a kubelet. Where there is none, on a machine without the bridge's address for example, the node's object says
    /// so, and the API server answers for the kubelet as ever.
    fn bind(&self, node: &str, address: IpAddr) -> Option<BoundKubeletPort> {
        let bound = self.ports.bind(node, address);
        bound.inspect_err(|error| warn!(node, %error, "the kubelet can be asked through the API only")).ok()
    }
}
