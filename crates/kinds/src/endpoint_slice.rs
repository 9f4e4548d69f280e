//! discovery.k8s.io/v1 EndpointSlice.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice as Object};
use machinery::field::{ErrorList, FieldError, Path};
use machinery::validate;
use registry::kind::{Column, Context, Descriptor, Kind, bump_generation, cell_age, cell_name};
use serde_json::Value;

use super::check::{Report, dns_label, dns_subdomain, immutable, one_of, ordinary_ip, port, protocol, qualified_name};
use super::common::{default_text, list, text};

const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const MOST_ENDPOINTS: usize = 1000;
const MOST_ADDRESSES: usize = 100;
const MOST_PORTS: usize = 20_000;
const MOST_HINTS: usize = 8;
/// How many addresses and ports the table shows.
const SHOWN: usize = 3;

/// EndpointSlices.
pub(crate) struct EndpointSlice;

impl Kind for EndpointSlice {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor::namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");

    fn default(object: &mut Object) {
        for port in object.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            default_text(&mut port.protocol, "TCP");
        }
    }

    fn prepare_create(object: &mut Object, _context: &Context<'_>) {
        object.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut Object, old: &Object) {
        let labels = |object: &Object| object.metadata.labels.clone();
        let changed = (&new.endpoints, &new.ports, &new.address_type)
            != (&old.endpoints, &old.ports, &old.address_type)
            || labels(new) != labels(old);
        bump_generation(&mut new.metadata, changed);
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        one_of(&mut errors, &Path::new("addressType"), &object.address_type, &ADDRESS_TYPES);
        validate_endpoints(&mut errors, &Path::new("endpoints"), object);
        validate_ports(&mut errors, &Path::new("ports"), list(&object.ports));
        errors
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        immutable(&mut errors, &Path::new("addressType"), &new.address_type, &old.address_type);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("AddressType", "Sort of addresses."),
            Column::string("Ports", "The first few ports."),
            Column::string("Endpoints", "The first few addresses."),
            Column::age(),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let ports = list(&object.ports).iter().map(|port| match (port.port, &port.name) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.clone(),
            (None, None) => "*".to_owned(),
        });
        let addresses = list(&object.endpoints).iter().flat_map(|endpoint| endpoint.addresses.iter().cloned());
        vec![
            cell_name(&object.metadata),
            object.address_type.clone().into(),
            first_few(ports.collect()).into(),
            first_few(addresses.collect()).into(),
            cell_age(&object.metadata, now),
        ]
    }
}

fn first_few(all: Vec<String>) -> String {
    let shown = all.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(",");
    if all.len() > SHOWN {
        format!("{shown} + {} more...", all.len() - SHOWN)
    } else if shown.is_empty() {
        "<unset>".to_owned()
    } else {
        shown
    }
}

fn validate_endpoints(errors: &mut ErrorList, path: &Path, object: &Object) {
    let endpoints = list(&object.endpoints);
    if endpoints.len() > MOST_ENDPOINTS {
        errors.push(FieldError::too_many(path, endpoints.len(), MOST_ENDPOINTS));
        return;
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        validate_endpoint(errors, &path.index(index), endpoint, &object.address_type);
    }
}

fn validate_endpoint(errors: &mut ErrorList, path: &Path, endpoint: &Endpoint, address_type: &str) {
    let field = path.child("addresses");
    if endpoint.addresses.is_empty() {
        errors.required(&field, "must contain at least 1 address");
    } else if endpoint.addresses.len() > MOST_ADDRESSES {
        errors.push(FieldError::too_many(&field, endpoint.addresses.len(), MOST_ADDRESSES));
    }
    for (index, address) in endpoint.addresses.iter().enumerate() {
        let path = field.index(index);
        match (address_type, address.parse::<IpAddr>()) {
            ("FQDN", _) => validate_domain(errors, &path, address),
            ("IPv4" | "IPv6", Err(_)) => errors.messages(&path, address, validate::ip(address)),
            ("IPv4" | "IPv6", Ok(ip)) => {
                if ip.is_ipv4() != (address_type == "IPv4") {
                    errors.invalid(&field, address, format!("must be an {address_type} address"));
                }
                ordinary_ip(errors, &path, address);
            }
            _ => {}
        }
    }
    if let Some(node) = &endpoint.node_name {
        dns_subdomain(errors, &path.child("nodeName"), node);
    }
    if let Some(hostname) = &endpoint.hostname {
        dns_label(errors, &path.child("hostname"), hostname);
    }
    let hints = endpoint.hints.as_ref().map_or(&[][..], |hints| list(&hints.for_zones));
    let path = path.child("hints").child("forZones");
    if hints.len() > MOST_HINTS {
        errors.push(FieldError::too_many(&path, hints.len(), MOST_HINTS));
        return;
    }
    for (index, zone) in hints.iter().enumerate() {
        let path = path.index(index).child("name");
        errors.messages(&path, &zone.name, validate::label_value(&zone.name));
        if hints[..index].iter().any(|earlier| earlier.name == zone.name) {
            errors.duplicate(&path, &zone.name);
        }
    }
}

fn validate_domain(errors: &mut ErrorList, path: &Path, name: &str) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let messages = validate::dns_subdomain(name);
    if !messages.is_empty() {
        errors.messages(path, name, messages);
    } else if name.split('.').count() < 2 {
        errors.invalid(path, name, "should be a domain with at least two segments separated by dots");
    }
}

fn validate_ports(errors: &mut ErrorList, path: &Path, ports: &[EndpointPort]) {
    if ports.len() > MOST_PORTS {
        errors.push(FieldError::too_many(path, ports.len(), MOST_PORTS));
        return;
    }
    let mut names = BTreeSet::new();
    for (index, item) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(&item.name);
        if !name.is_empty() {
            dns_label(errors, &path.child("name"), name);
        }
        if !names.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        if let Some(number) = item.port {
            port(errors, &path.child("port"), number);
        }
        protocol(errors, &path.child("protocol"), text(&item.protocol));
        if let Some(application) = &item.app_protocol {
            qualified_name(errors, &path.child("appProtocol"), application);
        }
    }
}
