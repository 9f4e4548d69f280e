//! Endpoints of Services: which Pods a Service reaches, as EndpointSlices and as Endpoints.
//!
//! Watches Services, Pods and the zones of Nodes; owns EndpointSlices and Endpoints. The decisions are
//! [`slices::plan`] and [`legacy::plan`], and [`mirror::plan`] where the Endpoints are somebody else's; this file carries
//! them out. Both forms are written at the same time, and a slice is planned only once the informer shows what was last
//! written.

mod address;
mod legacy;
mod mirror;
mod slices;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use informer::{Action, Cause, Change, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{DeleteParams, PostParams, Preconditions};
use machinery::selector::LabelSelector;
use machinery::well_known::ZONE;

use self::slices::{MANAGED_BY_LABEL, MANAGER, SliceWrite, Snapshot};
use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::expectations::{EXPECTATIONS_TIMEOUT, Expectations};
use crate::{meta, pods};

/// The index under which a Service is found by one of the labels it selects; see [`pods::label_value`].
const BY_SELECTOR: &str = "controllers/selector";
/// The index under which a slice is found by its Service and who keeps it; see [`kept_by`].
const BY_SERVICE: &str = "controllers/service";
/// For so long changes are gathered, so that Pods that become ready together are written together.
const GATHER: Duration = Duration::from_millis(2);

/// The controller of EndpointSlices and Endpoints.
pub(crate) struct Endpointer {
    client: Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    endpoints: Informer<Endpoints>,
    queue: WorkQueue<ObjectKey>,
    slice_expectations: Expectations,
    endpoints_expectations: Expectations,
}

impl Controller for Endpointer {
    const NAME: &'static str = "endpoint_slice";
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        let (slices, endpoints) = (context.informer::<EndpointSlice>(), context.informer::<Endpoints>());
        let controller = Self {
            client: context.client.clone(),
            services: context.informer(),
            pods: context.informer(),
            nodes: context.informer(),
            slice_expectations: context.expectations(&slices),
            endpoints_expectations: context.expectations(&endpoints),
            slices,
            endpoints,
            queue,
        };
        controller.pods.index(pods::BY_LABEL, pods::label_values);
        controller.services.index(BY_SELECTOR, |service: &Service| {
            let first = first_pair(service);
            first.map(|(key, value)| pods::label_value(meta::namespace(service), key, value)).into_iter().collect()
        });
        controller.slices.index(BY_SERVICE, |slice| {
            service_of(slice).map(|(key, manager)| kept_by(manager, &key)).into_iter().collect()
        });
        controller
    }

    fn watch(self: &Arc<Self>) {
        let controller = Arc::clone(self);
        self.services.on_change(move |change| controller.enqueue(change.key(), change.cause()));
        let controller = Arc::clone(self);
        self.pods.on_change(move |change| controller.enqueue_selecting(change));
        let controller = Arc::clone(self);
        self.slices.on_change(move |change| {
            controller.slice_expectations.observe(change);
            let slices = [&change.old, &change.new].into_iter().flatten();
            slices.filter_map(|slice| service_of(slice)).for_each(|(key, _)| controller.enqueue(key, change.cause()));
        });
        let controller = Arc::clone(self);
        self.endpoints.on_change(move |change| {
            controller.endpoints_expectations.observe(change);
            controller.enqueue(change.key(), change.cause());
        });
        let controller = Arc::clone(self);
        self.nodes.on_change(move |change| {
            let zone = |node: &Option<Arc<Node>>| node.as_deref().and_then(zone).map(str::to_owned);
            if zone(&change.old) != zone(&change.new) {
                controller
                    .services
                    .list()
                    .iter()
                    .for_each(|service| controller.enqueue(ObjectKey::of(&**service), change.cause()));
            }
        });
    }

    async fn synced(&self) {
        self.services.synced().await;
        self.pods.synced().await;
        self.nodes.synced().await;
        self.slices.synced().await;
        self.endpoints.synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let service = self.services.get(key).filter(|service| !meta::is_deleting(&**service));
        let endpoints = self.endpoints.get(key);
        if service.is_none()
            && let Some(endpoints) = endpoints.as_ref().filter(|endpoints| legacy::is_managed(endpoints))
        {
            // Slices go with their owner; Endpoints have none.
            let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
            ok_if_not_found(api.delete(&key.name, &only(&**endpoints)).await)?;
        }
        if !Expectations::all_satisfied(&[&self.slice_expectations, &self.endpoints_expectations], key).await {
            // The event that shows the write brings the key back.
            return Ok(Action::RequeueAfter(EXPECTATIONS_TIMEOUT).because("its own last write is not shown yet"));
        }
        let mirrored = self.slices.by_index(BY_SERVICE, &kept_by(mirror::MANAGER, key));
        let mut actions = mirror::plan(endpoints.as_deref(), service.as_deref(), &mirrored);
        let mut legacy = None;
        if let Some(service) = service.filter(|service| address::is_managed(service)) {
            let snapshot = self.snapshot(key, &service);
            actions.extend(slices::plan(&snapshot, &service));
            legacy = legacy::plan(&snapshot.pods, &service, endpoints.as_deref());
        }
        let (slices, legacy) = futures::join!(self.apply(key, actions), self.apply_legacy(key, legacy));
        slices?;
        legacy?;
        Ok(Action::AwaitChange)
    }
}

impl Endpointer {
    fn enqueue(&self, service: ObjectKey, cause: Cause) {
        self.queue.add_after(service, GATHER, cause);
    }

    fn enqueue_selecting(&self, change: &Change<Pod>) {
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && !address::matters(old, new)
        {
            return;
        }
        let mut woken = BTreeSet::new();
        for pod in [&change.old, &change.new].into_iter().flatten() {
            for value in pods::label_values(pod) {
                let services = self.services.by_index(BY_SELECTOR, &value);
                let selecting = services.iter().filter(|service| selects(service, pod));
                woken.extend(selecting.map(|service| ObjectKey::of(&**service)));
            }
        }
        woken.into_iter().for_each(|key| self.enqueue(key, change.cause()));
    }

    fn snapshot(&self, key: &ObjectKey, service: &Service) -> Snapshot {
        let mut pods = match first_pair(service) {
            Some((label, value)) => {
                self.pods.by_index(pods::BY_LABEL, &pods::label_value(&key.namespace, label, value))
            }
            None => Vec::new(),
        };
        pods.retain(|pod| selects(service, pod));
        let mut zones = BTreeMap::new();
        for node in pods.iter().filter_map(|pod| pods::node_name(pod)) {
            if !zones.contains_key(node)
                && let Some(found) = self.nodes.get(&ObjectKey::new("", node))
                && let Some(zone) = zone(&found)
            {
                zones.insert(node.to_owned(), zone.to_owned());
            }
        }
        let slices = self.slices.by_index(BY_SERVICE, &kept_by(MANAGER, key));
        Snapshot { pods, zones, slices }
    }

    async fn apply(&self, key: &ObjectKey, actions: Vec<SliceWrite>) -> Result<(), Error> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.namespace);
        for action in actions {
            match action {
                SliceWrite::Create(mut slice) => {
                    let prefix = slice.metadata.generate_name.clone().unwrap_or_default();
                    let name = machinery::names::generate_name(&prefix);
                    let slice_key = ObjectKey::new(&key.namespace, &name);
                    slice.metadata.name = Some(name);
                    self.slice_expectations.expect_creation(key, slice_key.clone());
                    if let Err(error) = api.create(&PostParams::default(), &slice).await.map_err(Error::from) {
                        self.slice_expectations.observed(&slice_key);
                        if error.is_namespace_terminating() {
                            return Ok(());
                        }
                        return Err(error);
                    }
                }
                SliceWrite::Replace(slice) => {
                    let answer = api.replace(meta::name(&*slice), &PostParams::default(), &slice).await;
                    if let Some(written) = ok_if_not_found(answer)? {
                        self.slice_expectations.expect_write(key, &written, |key| self.slices.get(key));
                    }
                }
                SliceWrite::Delete(slice) => {
                    self.slice_expectations.expect_deletion(key, &*slice);
                    if let Err(error) = ok_if_not_found(api.delete(meta::name(&*slice), &only(&*slice)).await) {
                        self.slice_expectations.observed(&ObjectKey::of(&*slice));
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    async fn apply_legacy(&self, key: &ObjectKey, endpoints: Option<Endpoints>) -> Result<(), Error> {
        let Some(endpoints) = endpoints else {
            return Ok(());
        };
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
        let answer = if endpoints.metadata.resource_version.is_some() {
            api.replace(&key.name, &PostParams::default(), &endpoints).await
        } else {
            api.create(&PostParams::default(), &endpoints).await
        };
        match answer.map_err(Error::from) {
            Ok(written) => {
                self.endpoints_expectations.expect_write(key, &written, |key| self.endpoints.get(key));
                Ok(())
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Deletes this very object, as it is, and no other of its name.
fn only<K: k8s_openapi::Metadata<Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>>(
    object: &K,
) -> DeleteParams {
    DeleteParams::default().preconditions(Preconditions {
        uid: object.metadata().uid.clone(),
        resource_version: object.metadata().resource_version.clone(),
    })
}

fn first_pair(service: &Service) -> Option<(&String, &String)> {
    service.spec.as_ref()?.selector.as_ref()?.iter().next()
}

fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    match (selector, &pod.metadata.labels) {
        (Some(selector), Some(labels)) if !selector.is_empty() => LabelSelector::from_map(selector).matches(labels),
        _ => false,
    }
}

/// The Service of a slice which is kept here, and as whose; others keep their own.
fn service_of(slice: &EndpointSlice) -> Option<(ObjectKey, &'static str)> {
    let manager = slice.metadata.labels.as_ref()?.get(MANAGED_BY_LABEL)?;
    let manager = [MANAGER, mirror::MANAGER].into_iter().find(|own| own == manager)?;
    informer::service_of(slice).map(|key| (key, manager))
}

fn kept_by(manager: &str, service: &ObjectKey) -> String {
    format!("{manager} {service}")
}

fn zone(node: &Node) -> Option<&str> {
    node.metadata.labels.as_ref()?.get(ZONE).map(String::as_str)
}
