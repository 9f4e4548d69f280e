//! A running cluster: its start, in order, and its end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apiserver::audit::Audit;
use apiserver::authz::Authorizer;
use apiserver::pki::Pki;
use apiserver::{Dependencies, User};
use docker::{Docker, Network};
use informer::{Informers, ObjectKey, Reconciles};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kinds::{AdmissionConfig, PodSecurityConfiguration};
use kubelet::NetworkState;
use machinery::certificates::CertificateRequest;
use machinery::phase::ConditionStatus;
use proxy::ClusterIps;
use registry::Registry;
use registry::allocate::AllocatorConfig;
use serde_json::Value;
use store::Health;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::addresses::Addresses;
use crate::api_server::{api_port, serve};
use crate::bootstrap::Outstanding;
use crate::connect::LocalNodes;
use crate::history::History;
use crate::ingress::{self, Ingress};
use crate::kubelets::{Kubelets, RunningKubelet};
use crate::metrics_api::MetricsApi;
use crate::profile::{Profile, ProfileLock};
use crate::settings::Settings;
use crate::{
    Error, addons, audit, component_health, descriptors, encryption, explain, extra, names, network, service_network,
    snapshot, stepping, store_health, timeline,
};

/// How long a start waits to hear whether cluster IPs work.
const NETWORK_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a store may take to get over a failed write until a start says so.
const STORE_TIMEOUT: Duration = Duration::from_secs(3);

/// What to start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the cluster keeps its state.
    pub profile: Profile,
    /// Whether a damaged store is opened without what is lost; see `store::Options::accept_loss`.
    pub accept_data_loss: bool,
    /// Whether writes wait for the disk; see `store::Options::fsync`.
    pub fsync: bool,
    /// How much of what has been is remembered; the store's default where nothing is said.
    pub history: Option<History>,
    /// The addresses that are chosen; others are found.
    pub addresses: Addresses,
    /// How often each HorizontalPodAutoscaler looks at its metrics.
    pub autoscaler_period: Duration,
    /// Whether Services of type LoadBalancer get addresses of the cluster's own; else somebody else gives them.
    pub load_balancer: bool,
    /// Most processes and threads of each container; the kubelet's default where there is none, no limit below 1.
    pub pod_pids_limit: Option<i64>,
    /// The kernel parameters that pods may set beside the safe ones, as [`kubelet::check_unsafe_sysctl`] returns them.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// The admission plugins that are turned off, by their names in [`admission_plugins`].
    pub disabled_admission_plugins: Vec<String>,
}

/// The names of the admission plugins, in the order in which they are asked.
pub fn admission_plugins() -> impl Iterator<Item = &'static str> {
    kinds::PLUGINS.iter().map(|plugin| plugin.name())
}

/// What a start reports to the person who waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// This is being done now.
    Doing(String),
    /// This is done.
    Done(String),
}

/// A running cluster. Dropping it stops it without a goodbye; nothing that was acknowledged is lost by that.
pub struct Cluster {
    name: String,
    started: Timestamp,
    informers: Informers,
    cancel: CancellationToken,
    network: JoinHandle<()>,
    network_told: JoinHandle<()>,
    /// Who has the container that changes the machine's network, where this process may not.
    helper: Option<Docker>,
    store_health: JoinHandle<()>,
    outstanding: Outstanding,
    further_nodes: (CancellationToken, JoinHandle<()>),
    proxy: proxy::Handle,
    ingress: Ingress,
    dns: Option<dns::Handle>,
    controllers: controllers::Handle,
    scheduler: scheduler::Handle,
    kubelet: RunningKubelet,
    fake_nodes: kubelet::fake_node::Handle,
    saver: snapshot::api::Saver,
    server: apiserver::Handle,
    audit: Option<Audit>,
    registry: Registry,
    lock: ProfileLock,
}

impl Cluster {
    /// Starts all components, in the order and for the reasons that the crate's documentation gives.
    ///
    /// # Errors
    /// In one line that says what to do. What was started by then is stopped again; state is only ever added.
    pub async fn start(config: Config, report: &(dyn Fn(Progress) + Sync)) -> Result<Self, Error> {
        let Config {
            profile,
            accept_data_loss,
            fsync,
            history,
            addresses,
            autoscaler_period,
            load_balancer,
            pod_pids_limit,
            allowed_unsafe_sysctls,
            disabled_admission_plugins,
        } = config;
        let started = Timestamp::now();
        descriptors::raise_limit();
        let name = profile.name().to_owned();
        profile.create()?;
        let lock = profile.lock()?;

        report(Progress::Doing("Asking Docker".to_owned()));
        let docker = Docker::connect(docker_config(&profile)).await?;
        let (settings, network) = network::establish(&profile, &docker, &addresses).await?;
        snapshot::thaw_left(&profile, &docker).await;
        report(Progress::Done(format!("Docker network {} ({})", network.name, network.subnet)));
        report(Progress::Doing("Opening the store".to_owned()));
        let encryption = encryption::open(&profile)?;
        let transformer = Some(Arc::clone(&encryption) as Arc<dyn store::Transformer>);
        let mut store = store::Options {
            fsync,
            accept_loss: accept_data_loss,
            transformer,
            ..store::Options::new(profile.store())
        };
        if let Some(history) = history {
            history.set(&mut store);
        }
        let (registry, authorizer, pki) = open(&profile, &settings, store, disabled_admission_plugins).await?;
        encryption::save_key(&encryption)?;
        report(Progress::Done(format!("Store at revision {}", registry.store().revision())));

        report(Progress::Doing("Starting the API server".to_owned()));
        let audit = audit::open(&profile)?;
        let nodes = Arc::new(LocalNodes::default());
        let metrics_api = Arc::new(MetricsApi::default());
        let scheduling = scheduling(&profile)?;
        let mut extensions = metrics_api.extensions();
        extensions.push(explain::extension(scheduling.records.clone(), scheduling.previews.clone()));
        let reconciles = Reconciles::default();
        extensions.push(stepping::extension(reconciles.clone()));
        extensions.push(timeline::extension(registry.clone(), reconciles.clone(), scheduling.records.clone()));
        let (tell_frozen, frozen) = watch::channel(false);
        let transformer = Arc::clone(&encryption) as Arc<dyn store::Transformer>;
        let saver =
            snapshot::api::Saver::new(&profile, registry.store().clone(), transformer, docker.clone(), tell_frozen);
        extensions.push(saver.extension());
        extensions.push(encryption::extension(profile.clone(), registry.store().clone(), encryption));
        let dependencies = Dependencies {
            registry: registry.clone(),
            nodes: Arc::clone(&nodes) as Arc<dyn apiserver::NodeConnector>,
            authorizer,
            extensions,
            limits: apiserver::RequestLimits::default(),
            audit: audit.clone(),
        };
        let cancel = CancellationToken::new();
        let mut outstanding = Outstanding::new(registry.store().watch_health(), cancel.clone());
        let server =
            serve(&profile, (settings.clone(), &addresses), dependencies, &pki, &network, &mut outstanding).await?;
        let port = api_port(&server);
        report(Progress::Done(format!("API server at https://127.0.0.1:{port}")));

        // All read through one set of informers, so they share one identity for reading.
        let reader = server.client(User::component("system:kube-controller-manager"), "default");
        let informers = Informers::new(reader, cancel.clone()).reporting_to(reconciles.clone());
        server.server().register_metrics(Box::new(reconciles));
        nodes.know(informers.informer());

        metrics_api.set(metrics::Api::new(metrics::Deps {
            client: server.client(User::component("system:metrics"), "default"),
            informers: informers.clone(),
        }));
        let cluster_dns = registry.allocators().services().dns();
        let dns = names::serve(&server, &informers, &network, &settings, cluster_dns, &mut outstanding).await;
        let (tell_network, network_state) = watch::channel(NetworkState::Unknown);
        let kubelets = Kubelets {
            profile: profile.clone(),
            docker: docker.clone(),
            server: server.server().clone(),
            ports: server.kubelet_ports(),
            informers: informers.clone(),
            network: network.clone(),
            cluster_dns: dns.as_ref().map(|_| cluster_dns),
            network_state,
            frozen,
            nodes,
            cluster_domain: settings.dns_domain.clone(),
            pod_pids_limit,
            allowed_unsafe_sysctls,
        };
        let kubelet = kubelets.start_own()?;
        let fake_nodes = kubelet::fake_node::start(kubelet::fake_node::Deps {
            client: server.client(User::component("system:kube-controller-manager"), "default"),
            informers: informers.clone(),
            kubelet_version: apiserver::version::GIT_VERSION.to_owned(),
        });
        let scheduler = scheduler::start(
            scheduling,
            &scheduler::Deps {
                client: server.client(User::component("system:kube-scheduler"), "default"),
                informers: informers.clone(),
            },
        );
        let controllers = controllers::start(
            controllers::Config {
                autoscaler_period,
                load_balancer_range: load_balancer
                    .then(|| settings.service_subnet(&profile).map(Into::into))
                    .transpose()?,
                ..controllers_config(&pki, &profile)?
            },
            controllers::Deps {
                client: server.client(User::component("system:kube-controller-manager"), "default"),
                informers: informers.clone(),
            },
            addons::controllers(|user| server.client(user, "default")),
        );
        component_health::register(&registry, scheduler.tasks(), controllers.tasks());
        let asked = dns.as_ref().map(|dns| [SocketAddr::new(cluster_dns.into(), 53), dns.udp()]);
        let asked = asked.into_iter().flatten().collect();
        let proxy = start_proxy(&profile, &server, &informers, &network, &docker, asked).await?;
        let ingress = ingress::start(&server, &informers, &network, &pki);
        let network_told = service_network::tell(proxy.cluster_ips(), tell_network);
        let network = keep_network(docker.clone(), &proxy, cancel.clone());
        let store_health = tokio::spawn(store_health::run(
            server.client(User::node(&name), "default"),
            name.clone(),
            registry.store().watch_health(),
            cancel.clone(),
        ));
        let stop_nodes = CancellationToken::new();
        let further_nodes = tokio::spawn(extra::run(kubelets, stop_nodes.clone()));
        Ok(Self {
            name,
            started,
            informers,
            cancel,
            network,
            network_told,
            helper: (!docker::may_change_network()).then_some(docker),
            store_health,
            outstanding,
            further_nodes: (stop_nodes, further_nodes),
            proxy,
            ingress,
            dns,
            controllers,
            scheduler,
            kubelet,
            fake_nodes,
            saver,
            server,
            audit,
            registry,
            lock,
        })
    }

    /// The node's name: the profile's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until the kubelet of this start has said that the node is Ready. What the last one said does not count.
    ///
    /// # Errors
    /// In words, when the store cannot write, so that the kubelet cannot say it.
    pub async fn ready(&self) -> Result<(), String> {
        tokio::select! {
            biased;
            () = self.node_ready() => Ok(()),
            reason = self.store_unwritable() => Err(reason),
        }
    }

    /// Waits until the store has not been able to write for some time, and says why.
    async fn store_unwritable(&self) -> String {
        let mut health = self.registry.store().watch_health();
        loop {
            // A store that is gone is being shut down.
            if health.wait_for(|health| matches!(health, Health::ReadOnly(_))).await.is_err() {
                std::future::pending::<()>().await;
            }
            let over =
                tokio::time::timeout(STORE_TIMEOUT, health.wait_for(|health| !matches!(health, Health::ReadOnly(_))));
            if over.await.is_err()
                && let Health::ReadOnly(why) = health.borrow().clone()
            {
                return format!("the store cannot write ({why}); what it holds can be read");
            }
        }
    }

    async fn node_ready(&self) {
        let key = ObjectKey::new("", &self.name);
        let nodes = self.informers.informer::<Node>();
        let changed = Arc::new(tokio::sync::Notify::new());
        let notify = Arc::clone(&changed);
        nodes.on_change(move |_| notify.notify_one());
        while !nodes.get(&key).is_some_and(|node| is_ready(&node, self.started)) {
            changed.notified().await;
        }
    }

    /// Why cluster IPs do not work on this machine; `None` when they do. Waits until it is known, but not for ever.
    pub async fn network_problem(&self) -> Option<String> {
        let mut state = self.proxy.cluster_ips();
        let known = state.wait_for(|state| *state != ClusterIps::Unknown);
        match tokio::time::timeout(NETWORK_TIMEOUT, known).await.ok()?.as_deref() {
            Ok(ClusterIps::Failing(why)) => Some(why.clone()),
            _ => None,
        }
    }

    /// Stops everything, last started first. Containers keep running, unless [`crate::stop_pods`] follows; rules in the host's network are removed.
    pub async fn shutdown(mut self) {
        self.lock.stopping();
        self.saver.shutdown().await;
        let (stop_nodes, further_nodes) = self.further_nodes;
        stop_nodes.cancel();
        // It fails only if it panicked, and then there is nothing left to end.
        let _ = further_nodes.await;
        self.ingress.shutdown().await;
        self.proxy.shutdown().await;
        // It ends with the proxy.
        let _ = self.network_told.await;
        if let Some(docker) = self.helper
            && let Err(error) = docker.remove_helper().await
        {
            warn!(%error, "cannot remove the container that changed the machine's network");
        }
        if let Some(dns) = self.dns {
            dns.shutdown().await;
        }
        self.controllers.shutdown().await;
        self.scheduler.shutdown().await;
        self.fake_nodes.shutdown().await;
        self.kubelet.shutdown().await;
        self.cancel.cancel();
        // They fail only if they panicked, and then there is nothing left to end.
        let _ = (self.network.await, self.store_health.await);
        self.outstanding.ended().await;
        self.server.shutdown().await;
        if let Some(audit) = self.audit {
            audit.close().await;
        }
        self.registry.close().await;
    }
}

/// Removes a cluster that does not run: its containers, its network, what it left in the host's, and its state.
///
/// What Docker has of a cluster of the same name in another home stays, and so does what that one left in the host's
/// network; the answer is that home.
///
/// # Errors
/// When Docker cannot be reached: its state is needed to find the containers, so nothing is removed then.
pub async fn delete(profile: &Profile) -> Result<Option<PathBuf>, Error> {
    let lock = if profile.folder().exists() { Some(profile.lock()?) } else { None };
    let docker = Docker::connect(docker_config(profile)).await?;
    let namesake = docker.find_namesake().await?;
    // The tools may be a container's, which goes with the profile.
    if namesake.is_none()
        && let Err(error) = proxy::cleanup(profile.name(), &*service_network::tools(&docker)).await
    {
        warn!(%error, "cannot remove the rules of the host's network");
    }
    docker.delete_profile().await?;
    profile.remove()?;
    drop(lock);
    Ok(namesake.and_then(|folder| folder.parent().map(Path::to_owned)))
}

/// How a profile uses Docker.
pub(crate) fn docker_config(profile: &Profile) -> docker::Config {
    docker::Config { folder: Some(profile.canonical_folder()), ..docker::Config::new(profile.name()) }
}

/// How the scheduler is to work: as the profile's file says, if it has one.
fn scheduling(profile: &Profile) -> Result<scheduler::Config, Error> {
    let path = profile.scheduler();
    read_kept(&path)?.map_or_else(|| Ok(scheduler::Config::default()), |text| read_scheduling(&path, &text))
}

/// The configuration of PodSecurity, if the profile has one.
fn pod_security(profile: &Profile) -> Result<Option<PodSecurityConfiguration>, Error> {
    let path = profile.pod_security();
    read_kept(&path)?.map(|text| read_pod_security(&path, &text)).transpose()
}

/// The text of a file of the profile that need not be there.
pub(crate) fn read_kept(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::file(path, source)),
    }
}

/// Reads the text of a scheduler's configuration that is, or was given, at `path`.
fn read_scheduling(path: &Path, text: &str) -> Result<scheduler::Config, Error> {
    let read = read_yaml(text).and_then(|value| scheduler::Config::read(&value).map_err(|error| error.to_string()));
    read.map_err(|reason| Error::Scheduler { path: path.to_owned(), reason })
}

/// Reads the text of a configuration of PodSecurity that is, or was given, at `path`.
fn read_pod_security(path: &Path, text: &str) -> Result<PodSecurityConfiguration, Error> {
    let read = read_yaml(text).and_then(|value| PodSecurityConfiguration::read(&value));
    read.map_err(|reason| Error::PodSecurity { path: path.to_owned(), reason })
}

pub(crate) fn read_yaml(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|error| {
        // The lines after the first show the place.
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        line.strip_prefix("error: ").unwrap_or(line).to_owned()
    })
}

/// Whether a configuration of PodSecurity can be used, before it is kept.
///
/// # Errors
/// What is wrong with it.
pub fn check_pod_security_config(path: &Path, text: &str) -> Result<(), Error> {
    read_pod_security(path, text).map(|_| ())
}

/// Whether a scheduler's configuration can be used, before it is kept.
///
/// # Errors
/// What is wrong with it.
pub fn check_scheduler_config(path: &Path, text: &str) -> Result<(), Error> {
    read_scheduling(path, text).map(|_| ())
}

/// Opens the store, which blocks, with who checks what is written to it, and the certificate authority.
async fn open(
    profile: &Profile,
    settings: &Settings,
    store: store::Options,
    disabled_admission_plugins: Vec<String>,
) -> Result<(Registry, Arc<dyn Authorizer>, Arc<Pki>), Error> {
    let range = settings.service_subnet.parse().map_err(|error: registry::allocate::InvalidRange| Error::Settings {
        path: profile.settings(),
        reason: error.to_string(),
    })?;
    let options =
        registry::Options { store, allocators: AllocatorConfig { services: range, ..AllocatorConfig::default() } };
    let admission = AdmissionConfig { disabled: disabled_admission_plugins, pod_security: pod_security(profile)? };
    let pki = profile.pki();
    let opened = tokio::task::spawn_blocking(move || {
        let pki = Pki::open(&pki)?;
        let (registry, authorizer) = apiserver::open(options, &addons::ADMISSION, admission)?;
        Ok((registry, authorizer as Arc<dyn Authorizer>, Arc::new(pki)))
    });
    opened.await.unwrap_or_else(|error| Err(Error::Component { component: "store", reason: error.to_string() }))
}

/// What the controllers need of the certificate authority: its certificate, and a pen for tokens that live in Secrets and one for
/// certificates.
fn controllers_config(pki: &Arc<Pki>, profile: &Profile) -> Result<controllers::Config, Error> {
    let key = pki.token_key()?;
    let sign = move |namespace: &str, account: &str, uid: &str, secret: &str| {
        key.secret_token(namespace, account, uid, secret)
    };
    let authority = Arc::clone(pki);
    let issue = move |request: &CertificateRequest, usages: &[String], lifetime: Duration| {
        authority.sign(request, usages, lifetime).map_err(|error| error.to_string())
    };
    Ok(controllers::Config {
        sign_token: Some(controllers::SignToken(Arc::new(sign))),
        sign_certificate: Some(controllers::SignCertificate(Arc::new(issue))),
        ..controllers::Config::new(pki.authority_pem().to_owned(), profile.volumes())
    })
}

async fn start_proxy(
    profile: &Profile,
    server: &apiserver::Handle,
    informers: &Informers,
    network: &Network,
    docker: &Docker,
    dns: Vec<SocketAddr>,
) -> Result<proxy::Handle, Error> {
    let settings = Settings::load(profile)?;
    let services = settings.map(|settings| settings.service_subnet).unwrap_or_default();
    let v4 = |address| if let SocketAddr::V4(address) = address { Some(address) } else { None };
    let config = proxy::Config {
        dns: dns.into_iter().filter_map(v4).collect(),
        ..proxy::Config::new(profile.name(), &network.bridge, &network.subnet.to_string(), &services)
    };
    let client = server.client(User::component("system:kube-proxy"), "default");
    proxy::start(config, informers, client, service_network::tools(docker))
        .await
        .map_err(|error| Error::Component { component: "proxy", reason: error.to_string() })
}

/// Keeps the pods' network there, and what the proxy has hung on it, until `cancel` is triggered.
fn keep_network(docker: Docker, proxy: &proxy::Handle, cancel: CancellationToken) -> JoinHandle<()> {
    let recheck = proxy.recheck();
    tokio::spawn(async move {
        cancel.run_until_cancelled(docker.keep_network(|| recheck.notify_one())).await;
    })
}

/// Whether a kubelet has said since `started` that the node is Ready. The API keeps whole seconds.
fn is_ready(node: &Node, started: Timestamp) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| {
        let said = condition.last_heartbeat_time.as_ref().map(|time| time.0.as_second());
        condition.type_ == "Ready" && condition.status == ConditionStatus::True && said >= Some(started.as_second())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_was_said_since_the_start_counts() {
        let started: Timestamp = "2026-01-01T00:00:10.5Z".parse().expect("a time");
        let check = |status: &str, said: &str, expected: bool| {
            let condition = json!({ "type": "Ready", "status": status, "lastHeartbeatTime": said });
            let node = json!({ "metadata": {}, "status": { "conditions": [condition] } });
            let node: Node = serde_json::from_value(node).expect("a node");
            assert_eq!(is_ready(&node, started), expected, "{status} {said}");
        };
        check("True", "2026-01-01T00:00:10Z", true);
        check("True", "2026-01-01T00:00:11Z", true);
        check("True", "2026-01-01T00:00:09Z", false);
        check("False", "2026-01-01T00:00:11Z", false);
        assert!(!is_ready(&Node::default(), started));
    }
}
