//! The task that follows the objects, makes the routing table, and writes what has become of them.
//!
//! Changes gather for some milliseconds, and then the table is made anew as a whole. Of Services and EndpointSlices only those
//! matter that a rule leads to, which is remembered from the table before.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use informer::{
    Cause, Causes, DurationMetric, Ending, EventType, Informer, Informers, ObjectKey, ObjectVersion, ReconcileReporter,
    Reconciler, Recorder, Running, Write, services_of,
};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass, IngressLoadBalancerIngress, IngressPortStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, warn};

use crate::backend::{Backends, Objects};
use crate::certificate::{CertificateCache, TLS};
use crate::gateway_api::{self, GatewayObjects, Snapshot, StatusWrite};
use crate::ingress;
use crate::problems::Problems;
use crate::serve::{Listeners, Proxy};
use crate::sites::{Site, Sites};
use crate::table::Place;
use crate::{Config, Listening};

/// Changes gather for so long.
const GATHER: Duration = Duration::from_millis(20);
/// How often it is tried again what failed: a port that somebody else has, a status that was not taken.
const RETRY: Duration = Duration::from_secs(5);

/// Why the table is to be made anew.
#[derive(Default)]
pub(crate) struct Changed {
    causes: Mutex<Option<Causes>>,
    notify: Notify,
}

impl Changed {
    pub(crate) fn add(&self, cause: Cause) {
        Causes::add(&mut self.causes.lock(), cause);
        self.notify.notify_one();
    }
}

struct Gateway;

impl Reconciler for Gateway {
    const NAME: &'static str = "gateway";
    // Upstream leaves it to others.
    const DURATION: Option<DurationMetric> = None;
}

/// What is told to whoever started it.
pub(crate) struct Told {
    pub(crate) listening: watch::Sender<Listening>,
    pub(crate) uncertified: watch::Sender<BTreeSet<String>>,
}

/// Runs until cancelled.
pub(crate) async fn run(
    client: Client,
    informers: Informers,
    recorder: Recorder,
    config: Config,
    proxy: Arc<Proxy>,
    told: Told,
    cancel: CancellationToken,
) {
    let reporter = informers.reconciles().reporter::<Gateway>();
    let changed = Arc::new(Changed::default());
    let followed = Followed::new(&client, &informers, &changed, &cancel);
    let (found, gateway_objects) = watch::channel(None);
    let definitions =
        gateway_api::follow(client.clone(), informers.clone(), Arc::clone(&changed), found, cancel.clone());
    let definitions = tokio::spawn(definitions);
    let listeners = Listeners::new(Arc::clone(&proxy), config.ports());
    let mut controller = Controller {
        client,
        recorder,
        config,
        proxy,
        told,
        followed,
        gateway_objects,
        listeners,
        certificates: CertificateCache::default(),
        problems: Problems::default(),
        failed: BTreeMap::new(),
        due: None,
    };
    if cancel.run_until_cancelled(controller.followed.synced()).await.is_some() {
        changed.add(Cause::new("the start of the gateway"));
        cancel.run_until_cancelled(controller.follow(&changed, &reporter)).await;
    }
    // It fails only if the task panicked.
    let _ = definitions.await;
}

/// The objects that are followed.
struct Followed {
    ingresses: Informer<Ingress>,
    classes: Informer<IngressClass>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    /// Those with certificates.
    secrets: Informer<Secret>,
    /// The Services that rules lead to.
    referenced: Arc<ArcSwap<HashSet<ObjectKey>>>,
}

impl Followed {
    fn new(client: &Client, informers: &Informers, changed: &Arc<Changed>, cancel: &CancellationToken) -> Self {
        let certificates = watcher::Config::default().fields(&format!("type={TLS}")).streaming_lists();
        let followed = Self {
            ingresses: informers.informer_of(),
            classes: informers.informer_of(),
            services: informers.informer(),
            slices: informers.informer(),
            secrets: Informer::start(Api::all(client.clone()), certificates, cancel.clone()),
            referenced: Arc::default(),
        };
        followed.slices.index_by_service();
        let for_all = Arc::clone(changed);
        // Whose status alone has changed was written here.
        followed.ingresses.on_change(move |change| {
            let relevant = |ingress: &Option<Arc<Ingress>>| {
                ingress.as_ref().map(|ingress| (ingress.spec.clone(), ingress.metadata.annotations.clone()))
            };
            if relevant(&change.old) != relevant(&change.new) {
                for_all.add(change.cause());
            }
        });
        let for_classes = Arc::clone(changed);
        followed.classes.on_change(move |change| for_classes.add(change.cause()));
        let for_secrets = Arc::clone(changed);
        followed.secrets.on_change(move |change| for_secrets.add(change.cause()));
        let (for_services, referenced) = (Arc::clone(changed), Arc::clone(&followed.referenced));
        followed.services.on_change(move |change| {
            if referenced.load().contains(&change.key()) {
                for_services.add(change.cause());
            }
        });
        let (for_slices, referenced) = (Arc::clone(changed), Arc::clone(&followed.referenced));
        followed.slices.on_change(move |change| {
            let referenced = referenced.load();
            if services_of(change).any(|service| referenced.contains(&service)) {
                for_slices.add(change.cause());
            }
        });
        followed
    }

    async fn synced(&self) {
        self.ingresses.synced().await;
        self.classes.synced().await;
        self.services.synced().await;
        self.slices.synced().await;
        self.secrets.synced().await;
    }
}

impl Objects for Followed {
    fn service(&self, key: &ObjectKey) -> Option<Arc<Service>> {
        self.services.get(key)
    }

    fn slices(&self, service: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
        self.slices.of_service(service)
    }

    fn secret(&self, key: &ObjectKey) -> Option<Arc<Secret>> {
        self.secrets.get(key)
    }
}

/// What the task keeps.
struct Controller {
    client: Client,
    recorder: Recorder,
    config: Config,
    proxy: Arc<Proxy>,
    told: Told,
    followed: Followed,
    /// Those of the Gateway API, while it is there.
    gateway_objects: watch::Receiver<Option<Arc<GatewayObjects>>>,
    listeners: Listeners,
    certificates: CertificateCache,
    problems: Problems,
    /// The places where nothing can listen, and why.
    failed: BTreeMap<Place, String>,
    /// When there is something to do in any case, and what.
    due: Option<(Instant, Cause)>,
}

impl Controller {
    /// Keeps table and status as the objects ask, for ever.
    async fn follow(&mut self, changed: &Arc<Changed>, reporter: &ReconcileReporter) {
        loop {
            let due = self.due.clone();
            let at = due.as_ref().map(|(at, _)| *at);
            let time = async {
                match at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let woken = tokio::select! {
                () = changed.notify.notified() => {
                    tokio::time::sleep(GATHER).await;
                    None
                }
                () = time => due.map(|(_, cause)| cause),
            };
            let mut causes = changed.causes.lock().take();
            woken.into_iter().for_each(|cause| Causes::add(&mut causes, cause));
            // A change that came while the causes were being taken was taken with them.
            let Some(causes) = causes else { continue };
            self.due = None;
            let mut running = reporter.begin(&"table", &causes);
            let span = running.span().clone();
            let ending = self.sync(changed, &mut running).instrument(span).await;
            running.end(ending, &[]);
        }
    }

    fn requeue_at(&mut self, at: Instant, cause: Cause) {
        if self.due.as_ref().is_none_or(|(due, _)| at < *due) {
            self.due = Some((at, cause));
        }
    }

    /// Brings table and status to what the objects ask for now.
    async fn sync(&mut self, changed: &Changed, running: &mut Running) -> Ending {
        let ingresses = ingress::ours(self.followed.ingresses.list(), &self.followed.classes.list());
        let mut backends = Backends::new(&self.followed);
        let compiled = ingress::compile(&ingresses, &mut backends, &mut self.certificates);
        let mut sites = Sites::default();
        if !ingresses.is_empty() {
            sites.0.insert((Site::Shared, 80), compiled.http);
            sites.0.insert((Site::Shared, 443), compiled.https);
        }
        let gateway_objects = self.gateway_objects.borrow().clone();
        let snapshot = gateway_objects.as_deref().map(Snapshot::of).unwrap_or_default();
        let labels = |namespace: &str| gateway_objects.as_ref()?.labels(namespace);
        let addresses = &self.config.gateway_addresses;
        let gateways =
            gateway_api::compile(&snapshot, addresses, &labels, &mut backends, &mut self.certificates, &mut sites);
        let referenced = backends.services();
        self.certificates.retain_used();
        self.remember(referenced, changed);
        self.put_in_force(sites);
        let (served, attached) = (gateways.gateways.len(), gateways.routes.len());
        running.act(|| format!("serve {} Ingresses, {served} Gateways, {attached} HTTPRoutes", ingresses.len()));
        let statuses = gateways.statuses(&gateway_api::Context {
            published: &self.config.published,
            unavailable: &|site, port| self.unavailable(site, port),
            now: Timestamp::now(),
        });
        let uncertified = compiled.uncertified;
        self.told.uncertified.send_if_modified(|hosts| {
            let is_changed = *hosts != uncertified;
            *hosts = uncertified;
            is_changed
        });

        let (told, again) = self.problems.update(Instant::now(), &compiled.problems);
        for (key, problem) in told {
            if let Some(ingress) = ingresses.iter().find(|ingress| ObjectKey::of(&***ingress) == key) {
                let about = ingress.object_ref(&());
                self.recorder.event(&about, EventType::Warning, problem.reason(), problem.to_string());
            }
        }
        if let Some(at) = again {
            self.requeue_at(at, Cause::new("what was missing may still be"));
        }
        let mut written = self.write_ingress_statuses(&ingresses, running).await;
        if let Some(objects) = gateway_objects {
            written = written.and(self.write_gateway_statuses(&objects, statuses, running).await);
        }
        if !self.failed.is_empty() || written.is_err() {
            self.requeue_at(Instant::now() + RETRY, Cause::RETRY);
        }
        let unavailable = self
            .failed
            .iter()
            .next()
            .map(|(place, why)| format!("cannot listen for port {} at {}: {why}", place.port, place.address));
        match (written, unavailable) {
            (Err(why), _) | (Ok(()), Some(why)) => Ending::Failed(why),
            (Ok(()), None) => Ending::AwaitChange,
        }
    }

    /// Takes note of the Services that rules lead to. One that is new among them may have changed since it was looked at, while
    /// nobody cared.
    fn remember(&self, referenced: HashSet<ObjectKey>, changed: &Changed) {
        let is_new = !referenced.is_subset(&self.followed.referenced.load());
        self.followed.referenced.store(Arc::new(referenced));
        if is_new {
            changed.add(Cause::new("rules lead to further Services"));
        }
    }

    /// Answers by a table, and listens where it says.
    fn put_in_force(&mut self, sites: Sites) {
        let table = sites.into_table(&self.config.addresses);
        let places: BTreeSet<Place> = table.entry_points.keys().copied().collect();
        self.proxy.set_table(table);
        let mut failed = self.listeners.set(&places);
        // One address of several is enough: not every machine has IPv6.
        let shared = &self.config.addresses;
        let is_open = |port| shared.iter().any(|address| self.proxy.port(Place { address: *address, port }).is_some());
        failed.retain(|place, _| !shared.contains(&place.address) || !is_open(place.port));
        for (place, why) in failed.iter().filter(|(place, _)| !self.failed.contains_key(place)) {
            warn!(address = %place.address, port = place.port, %why, "cannot listen for the gateway");
        }
        self.failed = failed;
        let listening = Listening { http: self.shared_port(80), https: self.shared_port(443) };
        self.told.listening.send_if_modified(|told| std::mem::replace(told, listening) != listening);
    }

    /// Why nobody listens at a port of a site; none where somebody does.
    fn unavailable(&self, site: Site, port: u16) -> Option<String> {
        let is_of_site = |place: &Place| match site {
            Site::Shared => self.config.addresses.contains(&place.address),
            Site::Own(address) => place.address == address,
        };
        let mut failed = self.failed.iter().filter(|(place, _)| place.port == port && is_of_site(place));
        failed.next().map(|(place, why)| format!("cannot listen at {}: {why}", place.address))
    }

    fn shared_port(&self, port: u16) -> Option<u16> {
        self.config.addresses.iter().find_map(|address| self.proxy.port(Place { address: *address, port }))
    }

    /// Says of each Ingress where it is reached, where it does not say so yet.
    async fn write_ingress_statuses(&self, ingresses: &[Arc<Ingress>], running: &mut Running) -> Result<(), String> {
        let desired = self.ingress_status();
        let mut failure = Ok(());
        for ingress in ingresses {
            let current = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            if current.and_then(|current| current.ingress.as_deref()).unwrap_or_default() == desired {
                continue;
            }
            let key = ObjectKey::of(&**ingress);
            let api: Api<Ingress> = Api::namespaced(self.client.clone(), &key.namespace);
            // A list that is to be empty is removed: an object without it would change nothing.
            let list = (!desired.is_empty()).then_some(&desired);
            let patch = Patch::Merge(json!({ "status": { "loadBalancer": { "ingress": list } } }));
            let answer = api.patch_status(&key.name, &PatchParams::default(), &patch).await;
            running.write(|| status_write("Ingress", &key, answer.as_ref().map(|object| &object.metadata)));
            match answer {
                Ok(_) => self.tell_where(ingress),
                // It is gone.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    warn!(ingress = %key, %error, "cannot write the status of an Ingress");
                    failure = Err(format!("status of Ingress {key}: {error}"));
                }
            }
        }
        failure
    }

    /// Says where an Ingress is reached to whoever describes it: the ports are not always 80 and 443.
    fn tell_where(&self, ingress: &Ingress) {
        let Listening { http, https } = *self.told.listening.borrow();
        let schemes = [("http", http), ("https", https)];
        let at = schemes.into_iter().filter_map(|(scheme, port)| {
            let host = self.config.published.first()?;
            Some(format!("{scheme}://{host}:{}", port?))
        });
        let at: Vec<String> = at.collect();
        if !at.is_empty() {
            let note = format!("Reached at {}", at.join(" and "));
            self.recorder.event(&ingress.object_ref(&()), EventType::Normal, "Listening", note);
        }
    }

    /// Writes what has become of the objects of the Gateway API.
    async fn write_gateway_statuses(
        &self,
        objects: &GatewayObjects,
        statuses: Vec<StatusWrite>,
        running: &mut Running,
    ) -> Result<(), String> {
        let mut failure = Ok(());
        for StatusWrite { kind, key, patch } in statuses {
            let Some(api) = objects.api(&self.client, kind, &key) else { continue };
            let answer = api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            let kind = kind.name();
            running.write(|| status_write(kind, &key, answer.as_ref().map(|object| &object.metadata)));
            match answer {
                Ok(_) => {}
                // It is gone.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    // Somebody else was first: it is written by the version that is shown soon.
                    let is_conflict = matches!(&error, kube::Error::Api(status) if status.code == 409);
                    if !is_conflict {
                        warn!(kind, %key, %error, "cannot write a status");
                    }
                    failure = Err(format!("status of {kind} {key}: {error}"));
                }
            }
        }
        failure
    }

    /// Where Ingresses are reached: nowhere while nothing listens.
    fn ingress_status(&self) -> Vec<IngressLoadBalancerIngress> {
        let listening = *self.told.listening.borrow();
        let ports: Vec<IngressPortStatus> = [listening.http, listening.https]
            .into_iter()
            .flatten()
            .map(|port| IngressPortStatus { port: port.into(), protocol: "TCP".to_owned(), error: None })
            .collect();
        let at = |published: &String| {
            let is_ip = published.parse::<IpAddr>().is_ok();
            IngressLoadBalancerIngress {
                ip: is_ip.then(|| published.clone()),
                hostname: (!is_ip).then(|| published.clone()),
                ports: Some(ports.clone()),
            }
        };
        if ports.is_empty() { Vec::new() } else { self.config.published.iter().map(at).collect() }
    }
}

/// The write of a status, for the trace.
pub(crate) fn status_write(kind: &str, key: &ObjectKey, answer: Result<&ObjectMeta, &kube::Error>) -> Write {
    let object = match answer {
        Ok(metadata) => ObjectVersion::of(kind.into(), metadata),
        Err(_) => ObjectVersion { kind: kind.into(), key: key.clone(), revision: None },
    };
    let refused = answer.err().map(|error| match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    });
    Write { verb: "patch", object, subresource: "status", refused }
}
