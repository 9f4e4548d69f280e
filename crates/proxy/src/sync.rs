//! The task that follows Services and EndpointSlices and keeps the kernel and the listeners as they ask.
//!
//! Changes gather for a few milliseconds, then all of them are one transaction: a rollout of many pods does not run `nft` as
//! many times. What a transaction did is remembered, and only differences are sent; when one is refused (somebody flushed
//! the table), everything is made anew.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use informer::{EventType, Informer, ObjectKey, Recorder, services_of};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::listeners::{Listeners, Taken};
use crate::nft::Failure;
use crate::service::ports;
use crate::service_map::{ChangeTracker, KernelState, NodePort, ServiceMap, transaction};
use crate::table::Table;
use crate::tools::NetworkTools;
use crate::{ClusterIps, NodePorts, host, nft, table};

/// Changes gather for so long.
const GATHER: Duration = Duration::from_millis(5);
/// How often it is checked that all is still there.
const CHECK: Duration = Duration::from_secs(60);
/// How often a node port that somebody else has is tried again.
const TAKEN: Duration = Duration::from_secs(5);
/// Pause after a refused transaction, doubled each time up to the longer one.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// Services that changed, by themselves or in their slices.
#[derive(Default)]
struct Changed {
    keys: Mutex<HashSet<ObjectKey>>,
    notify: Notify,
}

impl Changed {
    fn add(&self, key: ObjectKey) {
        self.lock().insert(key);
        self.notify.notify_one();
    }

    fn take(&self) -> HashSet<ObjectKey> {
        std::mem::take(&mut *self.lock())
    }

    /// Held for a single operation on the set.
    fn lock(&self) -> parking_lot::MutexGuard<'_, HashSet<ObjectKey>> {
        self.keys.lock()
    }
}

/// What the task is told from outside.
pub(crate) struct Signals {
    /// To end.
    pub(crate) cancel: CancellationToken,
    /// To look at once whether all is still there.
    pub(crate) recheck: Arc<Notify>,
    /// To tell how it went.
    pub(crate) state: watch::Sender<ClusterIps>,
}

/// Runs until cancelled, then removes what it added.
pub(crate) async fn run(
    table: Table,
    node_ports: NodePorts,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    recorder: Recorder,
    tools: Arc<dyn NetworkTools>,
    Signals { cancel, recheck, state }: Signals,
) {
    let mut kernel = Kernel::new(table, tools).await;
    kernel.tell(&state);
    let mut service_map = ServiceMap::default();
    let mut listeners = Listeners::new(node_ports);
    let mut taken: BTreeSet<NodePort> = BTreeSet::new();

    let changed = follow(&services, &slices);
    let synced = async {
        services.synced().await;
        slices.synced().await;
    };
    let cancelled = tokio::select! { () = cancel.cancelled() => true, () = synced => false };
    let (mut check, mut again) = (Instant::now() + CHECK, Instant::now() + TAKEN);
    while !cancelled && !cancel.is_cancelled() {
        let mut deadline = kernel.retry_at().map_or(check, |retry| retry.min(check));
        if !taken.is_empty() {
            deadline = deadline.min(again);
        }
        tokio::select! {
            () = cancel.cancelled() => break,
            () = changed.notify.notified() => tokio::time::sleep(GATHER).await,
            () = recheck.notified() => check = Instant::now(),
            () = tokio::time::sleep_until(deadline) => {}
        }
        let mut tracker = ChangeTracker::default();
        for key in changed.take() {
            let ports = services.get(&key).map(|service| ports(&service, &slices.of_service(&key)));
            service_map.set(&key, ports.unwrap_or_default(), &mut tracker);
        }
        let mut to_open: BTreeSet<NodePort> = tracker.node_ports.clone();
        let mut missed = BTreeSet::new();
        if Instant::now() >= again.min(check) {
            // Whoever had them may be gone.
            again = Instant::now() + TAKEN;
            missed.append(&mut taken);
            to_open.extend(&missed);
        }
        if Instant::now() >= check {
            check = Instant::now() + CHECK;
            kernel.check().await;
        }
        kernel.update(&service_map, &tracker).await;
        kernel.tell(&state);
        for node_port in to_open {
            let port = service_map.node_port(node_port);
            match listeners.set(node_port, port).await {
                Ok(()) => drop(taken.remove(&node_port)),
                Err(failure) => {
                    if !missed.contains(&node_port) {
                        let service = port.and_then(|port| services.get(&port.service));
                        report(&failure, service.as_deref(), &recorder);
                    }
                    taken.insert(node_port);
                }
            }
        }
    }
    listeners.close().await;
    kernel.remove().await;
}

/// Collects the keys of services that change from now on; all present ones are among them.
fn follow(services: &Informer<Service>, slices: &Informer<EndpointSlice>) -> Arc<Changed> {
    let changed = Arc::new(Changed::default());
    slices.index_by_service();
    let for_slices = Arc::clone(&changed);
    slices.on_change(move |change| services_of(change).for_each(|key| for_slices.add(key)));
    let for_services = Arc::clone(&changed);
    services.on_change(move |change| for_services.add(change.key()));
    changed
}

fn report(taken: &Taken, service: Option<&Service>, recorder: &Recorder) {
    let Taken { node_port: (protocol, port), address, reason } = taken;
    let message = format!(
        "node port {port}/{protocol} cannot be opened at {address} ({reason}): free it, or choose another nodePort"
    );
    warn!("{message}");
    if let Some(service) = service {
        recorder.event(&service.object_ref(&()), EventType::Warning, "NodePortNotAvailable", message);
    }
}

/// The kernel's side: what is in it, and how to change it.
pub(crate) struct Kernel {
    table: Table,
    tools: Arc<dyn NetworkTools>,
    /// Whether packets to the service range stay on this machine.
    routed: bool,
    /// Why the rules are not what they should be.
    failure: Option<String>,
    /// `None` when the machine cannot do it at all.
    installed: Option<KernelState>,
    /// The next update is to make everything anew.
    stale: bool,
    retry: Option<(Instant, Duration)>,
}

impl Kernel {
    /// Makes the machine ready and the table anew, without services yet.
    pub(crate) async fn new(mut table: Table, tools: Arc<dyn NetworkTools>) -> Self {
        let prepared = host::prepare(&table, &*tools).await;
        table.masquerade_pods = !prepared.hooked;
        let installed = Some(KernelState::default());
        let routed = prepared.routed;
        let mut kernel = Self { table, tools, routed, failure: None, installed, stale: true, retry: None };
        kernel.update(&ServiceMap::default(), &ChangeTracker::default()).await;
        kernel
    }

    /// Tells whether cluster IPs work, when that has changed.
    fn tell(&self, state: &watch::Sender<ClusterIps>) {
        let new = match &self.failure {
            None => ClusterIps::Working,
            Some(why) if self.routed => ClusterIps::Failing(format!("cluster IPs do not work on this machine: {why}")),
            Some(why) => ClusterIps::Failing(format!(
                "cluster IPs do not work on this machine, and packets to {} leave it: {why}",
                self.table.service_cidr
            )),
        };
        state.send_if_modified(|state| {
            let changed = *state != new;
            *state = new;
            changed
        });
    }

    fn retry_at(&self) -> Option<Instant> {
        self.retry.map(|(at, _)| at)
    }

    /// Brings the kernel to what the service map asks for, looking only at what changed, or at everything after a failure.
    pub(crate) async fn update(&mut self, service_map: &ServiceMap, tracker: &ChangeTracker) {
        let Some(installed) = &mut self.installed else { return };
        if !self.stale && tracker.is_empty() {
            return;
        }
        // A pod that is a new endpoint has a new port on the bridge.
        if service_map.has_endpoints() {
            host::allow_hairpin(&self.table.bridge, &*self.tools).await;
        }
        if !self.stale {
            let changes = installed.changes(service_map, tracker);
            if changes.is_empty() {
                return;
            }
            match nft::run(&*self.tools, &transaction(&self.table.name, &changes)).await {
                Ok(()) => return installed.apply(changes),
                Err(failure) => {
                    info!(?failure, "making the rules of services anew");
                    self.stale = true;
                }
            }
        }
        *installed = KernelState::default();
        let changes = installed.changes(service_map, &service_map.all());
        let script = self.table.base() + &transaction(&self.table.name, &changes);
        match nft::run(&*self.tools, &script).await {
            Ok(()) => {
                installed.apply(changes);
                self.stale = false;
                self.retry = None;
                self.failure = None;
            }
            Err(Failure::Unavailable(what)) => {
                warn!("cluster IPs do not work on this machine, node ports on localhost do: {what}");
                self.failure = Some(what);
                self.installed = None;
                self.retry = None;
            }
            Err(Failure::Refused(message)) => {
                let pause = self.retry.map_or(RETRY, |(_, pause)| (pause * 2).min(RETRY_MOST));
                warn!(message, ?pause, "cannot set the rules of services; trying again");
                self.retry = Some((Instant::now() + pause, pause));
                self.failure = Some(message);
            }
        }
    }

    /// Looks whether somebody removed what was made here: then the next update makes it anew.
    pub(crate) async fn check(&mut self) {
        if self.installed.is_some() && !self.stale {
            self.routed = host::prepare(&self.table, &*self.tools).await.routed;
            if !nft::has(&*self.tools, &self.table.name, "prerouting").await {
                info!(table = self.table.name, "the table of services is gone; making it anew");
                self.stale = true;
            }
        }
    }

    /// As on a machine where packets between pods pass no hooks.
    #[cfg(test)]
    pub(crate) async fn masquerade_pods(&mut self) {
        self.table.masquerade_pods = true;
        self.stale = true;
        self.update(&ServiceMap::default(), &ChangeTracker::default()).await;
    }

    pub(crate) async fn remove(self) {
        if self.installed.is_some()
            && let Err(failure) = nft::run(&*self.tools, &table::removal(&self.table.name)).await
        {
            warn!(?failure, "cannot remove the rules of services");
        }
        if self.routed {
            host::remove_route(&self.table, &*self.tools).await;
        }
    }
}
