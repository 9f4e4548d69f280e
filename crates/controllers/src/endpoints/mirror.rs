//! EndpointSlices of Endpoints that somebody keeps by hand, for a Service without a selector: proxies and DNS read slices only.
//!
//! upstream: the endpointslice-mirroring controller.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::address::TRIGGER_TIME;
use super::slices::{self, Family, Group, MANAGED_BY_LABEL, SliceWrite};
use crate::meta;

/// What [`MANAGED_BY_LABEL`] says of a mirrored slice.
pub(crate) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";

/// The label of Endpoints that are not to be mirrored: whoever keeps them keeps slices, too.
const SKIP_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
/// The annotation of Endpoints that are a lock and nothing else.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// What `kubectl apply` remembers is about the Endpoints.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// No slice has more endpoints, and of a subset no more are mirrored.
const MAX_ENDPOINTS: usize = 1_000;

/// Decides what the mirrored `slices` of a Service need. Nothing, if they are what they ought to be.
pub(crate) fn plan(
    endpoints: Option<&Endpoints>,
    service: Option<&Service>,
    slices: &[Arc<EndpointSlice>],
) -> Vec<SliceWrite> {
    let has_selector = |service: &Service| service.spec.as_ref().is_some_and(|spec| spec.selector.is_some());
    let endpoints = endpoints.filter(|endpoints| is_mirrored(endpoints));
    let (Some(endpoints), Some(_)) = (endpoints, service.filter(|service| !has_selector(service))) else {
        return slices.iter().cloned().map(SliceWrite::Delete).collect();
    };
    let template = template(endpoints);
    let trigger = meta::annotation(endpoints, TRIGGER_TIME).and_then(|time| time.parse().ok());
    let families = ["IPv4", "IPv6"].into_iter().flat_map(|name| {
        let family = Family { name, template: &template, slices, max: MAX_ENDPOINTS, keeps_empty: false };
        family.plan(groups(endpoints, name == "IPv6"), |_| trigger)
    });
    families.collect()
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    let skipped = labels.and_then(|labels| labels.get(SKIP_LABEL)).is_some_and(|skip| skip == "true");
    !skipped && meta::annotation(endpoints, LEADER).is_none() && !meta::is_deleting(endpoints)
}

fn template(endpoints: &Endpoints) -> ObjectMeta {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(informer::SERVICE_NAME.to_owned(), meta::name(endpoints).to_owned());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| ![TRIGGER_TIME, LAST_APPLIED].contains(&key.as_str()));
    ObjectMeta {
        namespace: endpoints.metadata.namespace.clone(),
        generate_name: Some(format!("{}-", meta::name(endpoints))),
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: Some(vec![meta::controller_ref(endpoints)]),
        ..ObjectMeta::default()
    }
}

fn groups(endpoints: &Endpoints, ipv6: bool) -> Vec<Group> {
    let mut groups = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        let all = ready.chain(unready).filter(|(address, _)| address.ip.contains(':') == ipv6);
        let ports = ports(subset);
        for (address, ready) in all.take(MAX_ENDPOINTS) {
            slices::add(&mut groups, ports.clone(), endpoint(address, ready));
        }
    }
    groups
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let ports = subset.ports.iter().flatten().map(|port| EndpointPort {
        // An empty name is a name.
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    });
    ports.collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}
