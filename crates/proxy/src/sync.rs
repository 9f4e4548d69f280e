//! The task that follows Services and EndpointSlices and keeps the kernel and the listeners as they ask.
//!
//! Changes gather for a few milliseconds, then all of them are one transaction: a rollout of many pods does not run `nft` as
//! many times. What a transaction did is remembered, and only differences are sent; when one is refused (somebody flushed
//! the table), everything is made anew.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use informer::{
    Cause, Causes, DurationMetric, Ending, EventType, Informer, ObjectKey, ReconcileReporter, Reconciler, Recorder,
    Running, services_of,
};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, warn};

use crate::health::{HealthCheck, HealthChecks};
use crate::listeners::{Listeners, Taken};
use crate::nft::Failure;
use crate::service::ports;
use crate::service_map::{ChangeTracker, KernelState, NodePort, ServiceMap, transaction};
use crate::table::Table;
use crate::tools::NetworkTools;
use crate::{ClusterIps, NodePorts, flows, host, nft, table};

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
    services: Mutex<Services>,
    notify: Notify,
}

/// Keys of services, and what changed of them.
#[derive(Default)]
struct Services {
    keys: HashSet<ObjectKey>,
    causes: Option<Causes>,
}

impl Changed {
    fn add(&self, key: ObjectKey, cause: Cause) {
        let mut services = self.services.lock();
        services.keys.insert(key);
        Causes::add(&mut services.causes, cause);
        drop(services);
        self.notify.notify_one();
    }

    fn take(&self) -> Services {
        std::mem::take(&mut *self.services.lock())
    }
}

/// What the task is told from outside, and where it tells how it goes.
pub(crate) struct Signals {
    /// To end.
    pub(crate) cancel: CancellationToken,
    /// To look at once whether all is still there.
    pub(crate) recheck: Arc<Notify>,
    /// To tell whether cluster IPs work.
    pub(crate) state: watch::Sender<ClusterIps>,
    /// To tell what each sync did.
    pub(crate) reporter: ReconcileReporter,
}

/// Runs until cancelled, then removes what it added.
pub(crate) async fn run(
    table: Table,
    node_ports: NodePorts,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    recorder: Recorder,
    tools: Arc<dyn NetworkTools>,
    Signals { cancel, recheck, state, reporter }: Signals,
) {
    let name = table.name.clone();
    let begin = |causes: &Causes| reporter.begin(&name, causes);
    let mut running = begin(&Causes::new(Cause::new("the start of the proxy")));
    let kernel = Kernel::new(table, tools).instrument(running.span().clone()).await;
    let ending = kernel.failure.as_ref().map_or(Ending::AwaitChange, Ending::failed);
    running.act(|| "make the table");
    running.end(ending, &[]);
    kernel.tell(&state);

    let changed = follow(&services, &slices);
    let synced = async {
        services.synced().await;
        slices.synced().await;
    };
    let cancelled = tokio::select! { () = cancel.cancelled() => true, () = synced => false };
    let mut proxier = Proxier {
        services,
        slices,
        recorder,
        kernel,
        service_map: ServiceMap::default(),
        listeners: Listeners::new(node_ports),
        taken: BTreeSet::new(),
        health_checks: HealthChecks::default(),
        unchecked: HashSet::new(),
        check: Instant::now() + CHECK,
        again: Instant::now() + TAKEN,
    };
    while !cancelled && !cancel.is_cancelled() {
        let (deadline, due) = proxier.deadline();
        let woken = tokio::select! {
            () = cancel.cancelled() => break,
            () = changed.notify.notified() => {
                tokio::time::sleep(GATHER).await;
                None
            }
            () = recheck.notified() => {
                proxier.check = Instant::now();
                Some(Cause::new("the bridge was made anew"))
            }
            () = tokio::time::sleep_until(deadline) => Some(due),
        };
        let Services { keys, mut causes } = changed.take();
        woken.into_iter().for_each(|cause| Causes::add(&mut causes, cause));
        // A change that came while the keys were being taken was taken with them.
        let Some(causes) = causes else {
            continue;
        };
        let mut running = begin(&causes);
        let span = running.span().clone();
        let ending = proxier.sync(keys, &mut running).instrument(span).await;
        running.end(ending, &[]);
        proxier.kernel.tell(&state);
    }
    proxier.listeners.close().await;
    proxier.health_checks.close().await;
    proxier.kernel.remove().await;
}

/// What the task keeps: upstream's `Proxier` in `pkg/proxy/nftables/proxier.go`.
struct Proxier {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    recorder: Recorder,
    kernel: Kernel,
    service_map: ServiceMap,
    listeners: Listeners,
    /// Node ports that somebody else has.
    taken: BTreeSet<NodePort>,
    health_checks: HealthChecks,
    /// Services whose port for health checks somebody else has.
    unchecked: HashSet<ObjectKey>,
    /// When it is checked that all is still there.
    check: Instant,
    /// When node ports that somebody else had are tried again.
    again: Instant,
}

impl Reconciler for Proxier {
    const NAME: &'static str = "kube-proxy";
    // upstream: `pkg/proxy/metrics/metrics.go`.
    const DURATION: Option<DurationMetric> = Some(DurationMetric {
        name: "kubeproxy_sync_proxy_rules_duration_seconds",
        help: "Time of bringing the rules to what Services and EndpointSlices ask for",
        labels: &[],
        counter: None,
    });
}

/// The reporter of what the proxy does.
pub(crate) fn reporter(reconciles: &informer::Reconciles) -> ReconcileReporter {
    reconciles.reporter::<Proxier>()
}

impl Proxier {
    /// When there is something to do in any case, and what.
    fn deadline(&self) -> (Instant, Cause) {
        let is_missing = !self.taken.is_empty() || !self.unchecked.is_empty();
        let again = is_missing.then_some((self.again, "a node port that was taken is tried again"));
        let retry = self.kernel.retry_at().map(|at| (at, Cause::RETRY));
        let others = again.map(|(at, why)| (at, Cause::new(why))).into_iter().chain(retry);
        let check = (self.check, Cause::new("the periodic check"));
        others.fold(check, |first, other| if other.0 < first.0 { other } else { first })
    }

    /// Brings kernel and listeners to what the services with these keys ask for now, and does what is due.
    async fn sync(&mut self, keys: HashSet<ObjectKey>, running: &mut Running) -> Ending {
        let mut tracker = ChangeTracker::default();
        let range = self.kernel.table.services();
        for key in &keys {
            let ports = self.services.get(key).map(|service| ports(&service, &self.slices.of_service(key), range));
            self.service_map.set(key, ports.unwrap_or_default(), &mut tracker);
        }
        let mut to_open: BTreeSet<NodePort> = tracker.node_ports.clone();
        let mut missed = BTreeSet::new();
        let mut to_check = keys;
        if Instant::now() >= self.again.min(self.check) {
            // Whoever had them may be gone.
            self.again = Instant::now() + TAKEN;
            missed.append(&mut self.taken);
            to_open.extend(&missed);
            to_check.extend(self.unchecked.iter().cloned());
        }
        if Instant::now() >= self.check {
            self.check = Instant::now() + CHECK;
            self.kernel.check().await;
        }
        let ending = match self.kernel.update(&self.service_map, &tracker).await {
            Update::Nothing(reason) => {
                running.because(reason);
                Ending::AwaitChange
            }
            Update::Changed(count) => {
                running.act(|| format!("change {count} chains and elements"));
                Ending::AwaitChange
            }
            Update::MadeAnew(count) => {
                running.act(|| format!("make the table anew with {count} chains and elements"));
                Ending::AwaitChange
            }
            Update::Failed(message) => Ending::Failed(message),
        };
        for node_port in to_open {
            let port = self.service_map.node_port(node_port);
            let verb = if port.is_some() { "serve" } else { "close" };
            running.act(|| format!("{verb} node port {}/{}", node_port.1, node_port.0));
            match self.listeners.set(node_port, port).await {
                Ok(()) => drop(self.taken.remove(&node_port)),
                Err(failure) => {
                    running.because(format!("node port {}/{} is taken", node_port.1, node_port.0));
                    if !missed.contains(&node_port) {
                        let service = port.and_then(|port| self.services.get(&port.service));
                        report(&failure, service.as_deref(), &self.recorder);
                    }
                    self.taken.insert(node_port);
                }
            }
        }
        self.answer_health_checks(to_check).await;
        ending
    }

    /// Has the health checks of these services answered as they ask for now.
    async fn answer_health_checks(&mut self, keys: HashSet<ObjectKey>) {
        let is_healthy = self.kernel.failure.is_none();
        for key in keys {
            let service = self.services.get(&key);
            let slices = || self.slices.of_service(&key);
            let check = service.as_ref().and_then(|service| HealthCheck::of(service, slices));
            match (self.health_checks.set(&key, check, is_healthy).await, service, check) {
                (Err(error), Some(service), Some(check)) => {
                    if self.unchecked.insert(key) {
                        let message = format!("healthCheckNodePort {} cannot be opened: {error}", check.port);
                        warn!("{message}");
                        // The reason is upstream's.
                        let reason = "FailedToStartServiceHealthcheck";
                        self.recorder.event(&service.object_ref(&()), EventType::Warning, reason, message);
                    }
                }
                _ => drop(self.unchecked.remove(&key)),
            }
        }
        self.health_checks.tell(is_healthy);
    }
}

/// Collects the keys of services that change from now on; all present ones are among them.
fn follow(services: &Informer<Service>, slices: &Informer<EndpointSlice>) -> Arc<Changed> {
    let changed = Arc::new(Changed::default());
    slices.index_by_service();
    let for_slices = Arc::clone(&changed);
    slices.on_change(move |change| services_of(change).for_each(|key| for_slices.add(key, change.cause())));
    let for_services = Arc::clone(&changed);
    services.on_change(move |change| for_services.add(change.key(), change.cause()));
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

/// What came of an update of the kernel.
pub(crate) enum Update {
    /// There was nothing to do, for this reason.
    Nothing(&'static str),
    /// So many chains and elements of maps and sets were changed.
    Changed(usize),
    /// The table was made anew, with so many.
    MadeAnew(usize),
    /// The kernel, or the tools for it, refused.
    Failed(String),
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
    pub(crate) async fn update(&mut self, service_map: &ServiceMap, tracker: &ChangeTracker) -> Update {
        let Some(installed) = &mut self.installed else {
            return Update::Nothing("cluster IPs do not work on this machine");
        };
        if !self.stale && tracker.is_empty() {
            return Update::Nothing("no port of a service has changed");
        }
        // A pod that is a new endpoint has a new port on the bridge.
        if service_map.has_endpoints() {
            host::allow_hairpin(&self.table.bridge, &*self.tools).await;
        }
        if !self.stale {
            let changes = installed.changes(service_map, tracker);
            let count = changes.len();
            if count == 0 {
                return Update::Nothing("the kernel has these rules");
            }
            match nft::run(&*self.tools, &transaction(&self.table.name, &changes)).await {
                Ok(()) => {
                    installed.apply(changes);
                    flows::forget(service_map.udp(tracker), &self.table, &*self.tools).await;
                    return Update::Changed(count);
                }
                Err(failure) => {
                    info!(?failure, "making the rules of services anew");
                    self.stale = true;
                }
            }
        }
        *installed = KernelState::default();
        let changes = installed.changes(service_map, &service_map.all());
        let count = changes.len();
        let script = self.table.base() + &transaction(&self.table.name, &changes);
        match nft::run(&*self.tools, &script).await {
            Ok(()) => {
                installed.apply(changes);
                self.stale = false;
                self.retry = None;
                self.failure = None;
                flows::forget(service_map.udp(&service_map.all()), &self.table, &*self.tools).await;
                Update::MadeAnew(count)
            }
            Err(Failure::Unavailable(what)) => {
                warn!("cluster IPs do not work on this machine, node ports on localhost do: {what}");
                self.failure = Some(what.clone());
                self.installed = None;
                self.retry = None;
                Update::Failed(what)
            }
            Err(Failure::Refused(message)) => {
                let pause = self.retry.map_or(RETRY, |(_, pause)| (pause * 2).min(RETRY_MOST));
                warn!(message, ?pause, "cannot set the rules of services; trying again");
                self.retry = Some((Instant::now() + pause, pause));
                self.failure = Some(message.clone());
                Update::Failed(message)
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
