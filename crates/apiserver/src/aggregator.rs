//! The aggregation layer: versions of API groups that other API servers answer, as APIServices say.
//!
//! An APIService without a service is `Local`: this server answers, and the object says no more than where the version stands
//! in discovery ([`registration`] keeps those of built-in groups and of CustomResourceDefinitions). One with a service leads all
//! requests below `/apis/GROUP/VERSION` to that service's endpoints, once they have been authenticated, authorized and, if it is
//! their turn, admitted to the queue like all others ([`proxy`]). Whether it can be reached is looked at from time to time and
//! whenever its endpoints change ([`availability`]), and so is what it has ([`documents`]), which discovery and OpenAPI list.
//!
//! A user's APIService goes before whatever else answers that version: a CustomResourceDefinition, or a component of this process
//! (`metrics.k8s.io`), which has no APIService itself, so that nothing is in the way of a manifest that brings one. When it
//! is deleted, the other is there again. The group of APIServices themselves is never led elsewhere.
//!
//! Upstream: `staging/src/k8s.io/kube-aggregator`.

mod availability;
pub(crate) mod documents;
mod metrics;
mod openapi;
mod proxy;
pub(crate) mod registration;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, ServiceReference};
use kinds::api_service::{self, API_SERVICES, AVAILABLE, GROUP, Priority};
use machinery::phase::ConditionStatus;
use parking_lot::Mutex;
use registry::Registry;
use registry::optional::text;
use rustls::ClientConfig;
use tokio::sync::{Notify, OnceCell};

use crate::lifecycle::Lifecycle;
use crate::pki::Credential;
use documents::RemoteDocuments;
pub(crate) use metrics::AggregatorMetrics;
use metrics::Unavailable;

/// How long changes that come together are waited for.
const SETTLE: Duration = Duration::from_millis(100);
/// How long it takes at most until everything is looked at again, whatever happened; upstream's figure.
const RESYNC: Duration = Duration::from_secs(30);

/// Knows who answers the versions that this server does not.
pub(crate) struct Aggregator {
    registry: Registry,
    lifecycle: Lifecycle,
    /// The certificate by which the server asks on somebody's behalf; none before it serves over the network.
    credential: ArcSwapOption<Credential>,
    current: ArcSwap<Snapshot>,
    /// Held while `current` is exchanged. Never held across an await.
    exchanging: Mutex<()>,
    /// Something is to be looked at.
    changed: Notify,
    unavailable: Unavailable,
}

/// What the APIServices say at one moment. As long as nothing in it changes, it stays the same allocation.
#[derive(Clone, Default)]
pub(crate) struct Snapshot {
    /// Those that lead to a service. Mostly there are none, and never many.
    pub(crate) remotes: Vec<Remote>,
    /// Where versions stand in discovery for which the object says something else than is usual.
    priorities: Vec<(String, String, Priority)>,
}

/// A version that another API server answers.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(crate) target: Arc<Target>,
    /// What the server was found to have, last.
    pub(crate) documents: Arc<RemoteDocuments>,
    /// What its condition says.
    pub(crate) is_available: bool,
}

/// Who answers a version.
pub(crate) struct Target {
    /// The APIService.
    name: String,
    pub(crate) group: String,
    pub(crate) version: String,
    namespace: String,
    service: String,
    port: i32,
    ca_bundle: Vec<u8>,
    insecure: bool,
    credential: Option<Arc<Credential>>,
    /// Made when it is needed first; so are its sessions of TLS kept.
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Aggregator {
    pub(crate) fn new(registry: Registry, lifecycle: Lifecycle) -> Self {
        let aggregator = Self {
            registry,
            lifecycle,
            credential: ArcSwapOption::empty(),
            current: ArcSwap::default(),
            exchanging: Mutex::default(),
            changed: Notify::new(),
            unavailable: Unavailable::default(),
        };
        aggregator.reload();
        aggregator
    }

    /// Asks with this certificate from now on.
    pub(crate) fn set_credential(&self, credential: Credential) {
        let same = |known: &Arc<Credential>| known.certificate_pem == credential.certificate_pem;
        if !self.credential.load().as_ref().is_some_and(same) {
            self.credential.store(Some(Arc::new(credential)));
            self.reload();
        }
    }

    /// What the APIServices say now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The one that answers a version; `None` where this server does.
    pub(crate) fn find(&self, group: &str, version: &str) -> Option<Remote> {
        // Every request comes here, and as good as always there are none.
        self.current.load().find(group, version).cloned()
    }

    /// Follows the APIServices and whether they can be reached, until the server stops.
    pub(crate) async fn run(&self) {
        tokio::join!(self.follow(), availability::run(self));
    }

    /// Follows the APIServices, and keeps those of this server.
    async fn follow(&self) {
        let mut resources = self.registry.table().changes();
        let mut is_first = true;
        loop {
            // What happens from here on is heard of.
            let watcher = self.registry.store().watch(API_SERVICES, self.registry.store().revision());
            resources.mark_unchanged();
            if let Err(error) = registration::keep(&self.registry, is_first).await {
                tracing::warn!(%error, "the APIServices of this server cannot be kept");
            } else {
                is_first = false;
            }
            self.reload();
            let changed = async {
                let Ok(mut watcher) = watcher else { return tokio::time::sleep(SETTLE).await };
                tokio::select! {
                    // Whatever it was, all of them are looked at.
                    _ = watcher.next() => {}
                    _ = resources.changed() => {}
                }
            };
            let _ = tokio::time::timeout(RESYNC, changed).await;
            self.reload();
            tokio::time::sleep(SETTLE).await;
        }
    }

    /// Reads what the APIServices say.
    fn reload(&self) {
        let credential = self.credential.load_full();
        let _exchanging = self.exchanging.lock();
        let before = self.current.load_full();
        let mut next = Snapshot::default();
        for entry in self.registry.store().snapshot(API_SERVICES).iter() {
            // It was valid when it was written.
            let Ok(object) = serde_json::from_slice::<APIService>(&entry.value) else { continue };
            let is_available = is_available(&object);
            let Some(spec) = object.spec else { continue };
            let (group, version) = (text(&spec.group), text(&spec.version));
            let priority = Priority { group: spec.group_priority_minimum, version: spec.version_priority };
            if priority != api_service::priority(group, version) {
                next.priorities.push((group.to_owned(), version.to_owned(), priority));
            }
            let Some(ServiceReference { name, namespace, port }) = spec.service.filter(|_| group != GROUP) else {
                continue;
            };
            let target = Target {
                name: entry.key.name.to_string(),
                group: spec.group.unwrap_or_default(),
                version: spec.version.unwrap_or_default(),
                namespace: namespace.unwrap_or_default(),
                service: name.unwrap_or_default(),
                port: port.unwrap_or(443),
                ca_bundle: spec.ca_bundle.map(|bundle| bundle.0).unwrap_or_default(),
                insecure: spec.insecure_skip_tls_verify == Some(true),
                credential: credential.clone(),
                tls: OnceCell::new(),
            };
            let known = before.remotes.iter().find(|known| known.target.is_same(&target));
            let (target, documents) = match known {
                Some(known) => (Arc::clone(&known.target), Arc::clone(&known.documents)),
                None => (Arc::new(target), Arc::default()),
            };
            next.remotes.push(Remote { target, documents, is_available });
        }
        if !before.is_same(&next) {
            self.current.store(Arc::new(next));
            self.changed.notify_one();
        }
    }

    /// Keeps what was found out about a target, unless there is another one in its place by now.
    fn learn(&self, target: &Arc<Target>, documents: Arc<RemoteDocuments>, is_available: bool) {
        let _exchanging = self.exchanging.lock();
        let before = self.current.load_full();
        let mut next = Snapshot::clone(&before);
        for remote in next.remotes.iter_mut().filter(|remote| Arc::ptr_eq(&remote.target, target)) {
            remote.documents = Arc::clone(&documents);
            remote.is_available = is_available;
        }
        if !before.is_same(&next) {
            self.current.store(Arc::new(next));
        }
    }
}

impl Snapshot {
    /// The one that answers a version.
    pub(crate) fn find(&self, group: &str, version: &str) -> Option<&Remote> {
        self.remotes.iter().find(|remote| remote.target.group == group && remote.target.version == version)
    }

    /// Where a version stands in discovery.
    pub(crate) fn priority(&self, group: &str, version: &str) -> Priority {
        let special = self.priorities.iter().find(|row| row.0 == group && row.1 == version);
        special.map_or_else(|| api_service::priority(group, version), |row| row.2)
    }

    /// Whether there is no difference.
    fn is_same(&self, other: &Self) -> bool {
        let pairs = self.remotes.iter().zip(&other.remotes);
        self.remotes.len() == other.remotes.len()
            && self.priorities == other.priorities
            && pairs.into_iter().all(|(a, b)| {
                let same = Arc::ptr_eq(&a.target, &b.target) && Arc::ptr_eq(&a.documents, &b.documents);
                same && a.is_available == b.is_available
            })
    }
}

impl Target {
    /// What is above everything in the version, and the name of its OpenAPI v3 document: `apis/metrics.k8s.io/v1beta1`.
    pub(crate) fn root(&self) -> String {
        match self.group.as_str() {
            "" => format!("api/{}", self.version),
            group => format!("apis/{group}/{}", self.version),
        }
    }

    /// Whether the same server is asked in the same way.
    fn is_same(&self, other: &Self) -> bool {
        self.texts() == other.texts()
            && (self.port, self.insecure) == (other.port, other.insecure)
            && self.ca_bundle == other.ca_bundle
            && self.credential.as_ref().map(Arc::as_ptr) == other.credential.as_ref().map(Arc::as_ptr)
    }

    fn texts(&self) -> [&str; 5] {
        let Self { name, group, version, namespace, service, .. } = self;
        [name, group, version, namespace, service]
    }
}

/// Whether the condition of an APIService says that it can be reached.
fn is_available(object: &APIService) -> bool {
    let available = api_service::conditions(object).iter().find(|condition| condition.type_ == AVAILABLE);
    available.is_some_and(|condition| condition.status == ConditionStatus::True)
}
