//! What all parts of one kubelet share.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use informer::{Informer, ReconcileReporter};
use k8s_openapi::api::core::v1::{Node, Service};
use kube::Client;
use machinery::quantity::Quantity;
use parking_lot::Mutex;
use runtime::{Runtime, RuntimeInfo};
use tokio::sync::{Semaphore, watch};

use crate::Deps;
use crate::allocation::Allocations;
use crate::backoff::Rejections;
use crate::config::Config;
use crate::container::files::Resolver;
use crate::container::services;
use crate::eviction::signals::Pressure;
use crate::image_gc::PulledImages;
use crate::images::Images;
use crate::measures::Measures;
use crate::objects::Objects;
use crate::pleg::Pleg;
use crate::probes::ProbeCounts;
use crate::report::Reporter;
use crate::values::resources::Allocatable;

/// The longest resolver configuration of the machine that is read, in bytes.
const LONGEST_RESOLV_CONF: u64 = 64 << 10;

/// Name of the index of services by namespace.
const BY_NAMESPACE: &str = "namespace";

/// What all parts of one kubelet share.
pub(crate) struct Shared {
    /// Settings.
    pub(crate) config: Config,
    /// The API.
    pub(crate) client: Client,
    /// The runtime.
    pub(crate) runtime: Arc<dyn Runtime>,
    /// How much of the machine is left.
    pub(crate) measures: Arc<dyn Measures>,
    /// What the node is short of.
    pub(crate) pressure: watch::Sender<Pressure>,
    /// The images that were pulled here.
    pub(crate) pulled: PulledImages,
    /// Whose pods were rejected.
    pub(crate) rejections: Mutex<Rejections>,
    /// What the runtime has.
    pub(crate) pleg: Pleg,
    /// Images.
    pub(crate) images: Images,
    /// What pods refer to.
    pub(crate) objects: Objects,
    /// Events.
    pub(crate) reporter: Reporter,
    /// What each sync of a pod did, and why.
    pub(crate) syncs: ReconcileReporter,
    /// How probes ended.
    pub(crate) probe_counts: ProbeCounts,
    /// What the pods of this node hold of it.
    pub(crate) allocations: Allocations,
    /// All nodes.
    pub(crate) nodes: Informer<Node>,
    /// All services.
    pub(crate) services: Informer<Service>,
    /// How many sandboxes and containers may be made at the same time.
    pub(crate) starts: Semaphore,
    machine: ArcSwap<Machine>,
}

/// The machine, as far as pods depend on it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    /// What the runtime says.
    pub(crate) info: RuntimeInfo,
    /// Size of the disk that holds the state directory, in bytes.
    pub(crate) storage: u64,
}

impl Machine {
    /// What pods could have of it.
    pub(crate) fn allocatable(&self) -> Allocatable {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Allocatable {
            milli_cpu: number(self.info.cpus).saturating_mul(1000),
            memory: number(self.info.memory_bytes),
            storage: number(self.storage),
        }
    }
}

impl Shared {
    /// Puts the parts together. Blocks for a small file.
    pub(crate) fn new(
        config: Config,
        deps: &Deps,
        objects: Objects,
        reporter: Reporter,
        syncs: ReconcileReporter,
    ) -> Self {
        let (runtime, services) = (Arc::clone(&deps.runtime), deps.informers.informer::<Service>());
        services.index(BY_NAMESPACE, |service| service.metadata.namespace.clone().into_iter().collect());
        let pulled = PulledImages::load(&config.state_dir);
        Self {
            pleg: Pleg::new(Arc::clone(&runtime)),
            images: Images::new(Arc::clone(&runtime), pulled.clone(), config.run_local_image_when_offline),
            starts: Semaphore::new(config.parallel_starts.max(1)),
            machine: ArcSwap::default(),
            measures: Arc::clone(&deps.measures),
            pressure: watch::Sender::default(),
            pulled,
            rejections: Mutex::default(),
            config,
            client: deps.client.clone(),
            runtime,
            objects,
            reporter,
            syncs,
            probe_counts: ProbeCounts::default(),
            allocations: Allocations::default(),
            nodes: deps.informers.informer(),
            services,
        }
    }

    /// The machine as last seen.
    pub(crate) fn machine(&self) -> Arc<Machine> {
        self.machine.load_full()
    }

    /// What pods can have of the node: of the machine, as far as nothing else was said.
    pub(crate) fn allocatable(&self) -> Allocatable {
        let machine = self.machine().allocatable();
        let said = |name: &str| self.config.capacity.get(name)?.parse::<Quantity>().ok();
        Allocatable {
            milli_cpu: said("cpu").map_or(machine.milli_cpu, |cpu| cpu.milli_value()),
            memory: said("memory").map_or(machine.memory, |memory| memory.value()),
            storage: said("ephemeral-storage").map_or(machine.storage, |storage| storage.value()),
        }
    }

    /// Notes how the machine is.
    pub(crate) fn set_machine(&self, machine: Machine) {
        self.machine.store(Arc::new(machine));
    }

    /// The machine's resolvers. Behind a local stub, those that the stub asks.
    pub(crate) fn resolver(&self) -> Resolver {
        let read = |path: &std::path::Path| {
            let text = hostfs::read(path, LONGEST_RESOLV_CONF).unwrap_or_default();
            Resolver::parse(&String::from_utf8_lossy(&text))
        };
        let resolver = read(&self.config.resolv_conf);
        match resolver.servers.is_empty() {
            true => {
                let behind = read("/run/systemd/resolve/resolv.conf".as_ref());
                match behind.servers.is_empty() {
                    true => resolver,
                    false => behind,
                }
            }
            false => resolver,
        }
    }

    /// The environment that tells of services, for pods in `namespace`: those of the namespace where `links` asks for
    /// them, and the API server itself always. Waits until services are known.
    pub(crate) async fn service_environment(&self, namespace: &str, links: bool) -> BTreeMap<String, String> {
        self.services.synced().await;
        let master = |name: Option<&str>| name == Some("kubernetes");
        let all = self.services.by_index(BY_NAMESPACE, "default");
        let api = all.iter().filter(|service| master(service.metadata.name.as_deref()));
        let mut environment = services::environment(api.map(Arc::as_ref));
        if links {
            let own = self.services.by_index(BY_NAMESPACE, namespace);
            environment.extend(services::environment(own.iter().map(Arc::as_ref)));
        }
        environment
    }

    /// `User-Agent` of probes and hooks.
    pub(crate) fn probe_agent(&self) -> String {
        let version = self.config.kubelet_version.trim_start_matches('v');
        let short: Vec<&str> = version.split('.').take(2).collect();
        format!("kube-probe/{}", short.join("."))
    }
}
