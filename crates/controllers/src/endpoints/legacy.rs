//! Endpoints of a Service: the old form, one object with all addresses, for those who still read it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::address::{self, HEADLESS_LABEL, TRIGGER_TIME};
use crate::{meta, pods};

/// The label that says who keeps an Endpoints object.
pub(crate) const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
/// What it says of this controller's.
pub(crate) const MANAGER: &str = "endpoint-controller";
/// Says that there are more addresses than an Endpoints object may have.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// An Endpoints object has no more addresses.
const MAX_ADDRESSES: usize = 1_000;

/// The Endpoints object as it ought to be; nothing if `current` is that already. To be created if there is none.
pub(crate) fn plan(pods: &[Arc<Pod>], service: &Service, current: Option<&Endpoints>) -> Option<Endpoints> {
    let spec = service.spec.as_ref()?;
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned());
    if address::is_headless(spec) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS_LABEL);
    }
    let mut subsets = subsets(pods, service);
    let truncated = truncate(&mut subsets);

    let old = current.map(|current| current.subsets.as_deref().unwrap_or_default());
    let was_truncated = current.is_some_and(|current| meta::annotation(current, OVER_CAPACITY).is_some());
    if old == Some(subsets.as_slice())
        && current.is_some_and(|current| current.metadata.labels.as_ref() == Some(&labels))
        && truncated == was_truncated
    {
        return None;
    }
    let mut metadata = match current {
        Some(current) => current.metadata.clone(),
        None => ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
    };
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    annotations.remove(OVER_CAPACITY);
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    match trigger(pods, service, current, &subsets) {
        Some(time) => annotations.insert(TRIGGER_TIME.to_owned(), time.to_string()),
        None => annotations.remove(TRIGGER_TIME),
    };
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    metadata.labels = Some(labels);
    metadata.managed_fields = None;
    Some(Endpoints { metadata, subsets: (!subsets.is_empty()).then_some(subsets) })
}

/// Whether `endpoints` was made by this controller, so that it goes when its Service goes.
pub(crate) fn is_managed(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY_LABEL)).is_some_and(|manager| manager == MANAGER)
}

type AddressKey = (String, Option<String>);
type PortKey = (Option<String>, i32, Option<String>, Option<String>);

/// The addresses by the ports they have. Upstream's canonical form: ports that have the same addresses, with the same
/// readiness, share one subset.
fn subsets(pods: &[Arc<Pod>], service: &Service) -> Vec<EndpointSubset> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let mut addresses: BTreeMap<AddressKey, EndpointAddress> = BTreeMap::new();
    // Without ports there is one subset, whose key stands for none.
    let mut ports: BTreeMap<Option<PortKey>, BTreeSet<(AddressKey, bool)>> = BTreeMap::new();
    for pod in pods {
        let tolerates = address::tolerates_unready(spec);
        if meta::is_deleting(&**pod) && !tolerates {
            continue;
        }
        let Some(ip) = address::addresses(pod, false).into_iter().next() else {
            continue;
        };
        let key = (ip.clone(), pod.metadata.uid.clone());
        let ready = tolerates || pods::is_ready(pod);
        let service_ports = spec.ports.as_deref().unwrap_or_default();
        if service_ports.is_empty() && address::is_headless(spec) {
            ports.entry(None).or_default().insert((key.clone(), ready));
        }
        for port in service_ports {
            let Some(number) = address::target_port(pod, port) else {
                continue;
            };
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let port = (port.name.clone(), number, Some(protocol), port.app_protocol.clone());
            ports.entry(Some(port)).or_default().insert((key.clone(), ready));
        }
        addresses.insert(
            key,
            EndpointAddress {
                ip,
                hostname: address::hostname(pod, service),
                node_name: pods::node_name(pod).map(str::to_owned),
                target_ref: Some(address::target(pod)),
            },
        );
    }
    let mut by_addresses: BTreeMap<BTreeSet<(AddressKey, bool)>, Vec<EndpointPort>> = BTreeMap::new();
    for (port, addresses) in ports {
        let ports = by_addresses.entry(addresses).or_default();
        ports.extend(port.map(|(name, port, protocol, app_protocol)| EndpointPort {
            name,
            port,
            protocol,
            app_protocol,
        }));
    }
    let of = |keys: &BTreeSet<(AddressKey, bool)>, wanted: bool| {
        let keys = keys.iter().filter(|(_, ready)| *ready == wanted);
        let found: Vec<EndpointAddress> = keys.filter_map(|(key, _)| addresses.get(key).cloned()).collect();
        (!found.is_empty()).then_some(found)
    };
    by_addresses
        .into_iter()
        .map(|(keys, ports)| EndpointSubset {
            addresses: of(&keys, true),
            not_ready_addresses: of(&keys, false),
            ports: (!ports.is_empty()).then_some(ports),
        })
        .collect()
}

/// Cuts `subsets` to what an Endpoints object may have, ready addresses first. True if something was cut.
fn truncate(subsets: &mut Vec<EndpointSubset>) -> bool {
    let mut room = MAX_ADDRESSES;
    let mut cut = false;
    let mut shorten = |addresses: &mut Option<Vec<EndpointAddress>>| {
        if let Some(list) = addresses {
            cut |= list.len() > room;
            list.truncate(room);
            room -= list.len();
            if list.is_empty() {
                *addresses = None;
            }
        }
    };
    subsets.iter_mut().for_each(|subset| shorten(&mut subset.addresses));
    subsets.iter_mut().for_each(|subset| shorten(&mut subset.not_ready_addresses));
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    cut
}

/// When the first of the Pods changed whose address is new or of another readiness.
fn trigger(
    pods: &[Arc<Pod>],
    service: &Service,
    current: Option<&Endpoints>,
    subsets: &[EndpointSubset],
) -> Option<jiff::Timestamp> {
    let flat = |subsets: &[EndpointSubset]| {
        let mut all = BTreeSet::new();
        for subset in subsets {
            let uid = |address: &EndpointAddress| address.target_ref.as_ref().and_then(|target| target.uid.clone());
            all.extend(subset.addresses.iter().flatten().map(|address| (uid(address), true)));
            all.extend(subset.not_ready_addresses.iter().flatten().map(|address| (uid(address), false)));
        }
        all
    };
    let old = flat(current.and_then(|current| current.subsets.as_deref()).unwrap_or_default());
    let new = flat(subsets);
    let changed: BTreeSet<_> = new.difference(&old).filter_map(|(uid, _)| uid.as_deref()).collect();
    let pods = pods.iter().filter(|pod| changed.contains(meta::uid(&***pod)));
    let created = service.metadata.creation_timestamp.as_ref().filter(|_| current.is_none());
    pods.filter_map(|pod| address::changed_at(pod)).chain(created.map(|time| time.0)).min()
}
