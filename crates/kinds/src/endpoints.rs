//! core/v1 Endpoints.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, Endpoints as Object};
use machinery::field::{ErrorList, Path};
use registry::kind::{Column, Descriptor, Kind, cell_age, cell_name};
use serde_json::Value;

use super::check::{Report, dns_label, dns_subdomain, ip, ordinary_ip, port, protocol, qualified_name};
use super::common::{default_text, list, text};

/// How many endpoints the table shows.
const SHOWN: usize = 3;

/// Endpoints.
pub(crate) struct Endpoints;

impl Kind for Endpoints {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["ep"],
        list_kind: "EndpointsList",
        singular: "endpoints",
        create_on_update: true,
        deprecation: Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        ..Descriptor::namespaced("", "v1", "Endpoints", "endpoints")
    };

    fn default(object: &mut Object) {
        for subset in object.subsets.iter_mut().flatten() {
            for port in subset.ports.iter_mut().flatten() {
                default_text(&mut port.protocol, "TCP");
            }
        }
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        for (index, subset) in list(&object.subsets).iter().enumerate() {
            let path = Path::new("subsets").index(index);
            let (ready, unready) = (list(&subset.addresses), list(&subset.not_ready_addresses));
            if ready.is_empty() && unready.is_empty() {
                errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
            }
            for (name, addresses) in [("addresses", ready), ("notReadyAddresses", unready)] {
                for (index, address) in addresses.iter().enumerate() {
                    validate_address(&mut errors, &path.child(name).index(index), address);
                }
            }
            let ports = list(&subset.ports);
            for (index, port) in ports.iter().enumerate() {
                validate_port(&mut errors, &path.child("ports").index(index), port, ports.len() > 1);
            }
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![Column::name(), Column::string("Endpoints", "The first few addresses and ports."), Column::age()]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        vec![cell_name(&object.metadata), summary(object).into(), cell_age(&object.metadata, now)]
    }
}

fn summary(object: &Object) -> String {
    let subsets = list(&object.subsets);
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let all: Vec<String> = subsets
        .iter()
        .flat_map(|subset| {
            let addresses = list(&subset.addresses);
            let ports = list(&subset.ports);
            let bare = ports.is_empty().then(|| addresses.iter().map(|address| address.ip.clone()));
            let full = ports
                .iter()
                .flat_map(move |port| addresses.iter().map(move |address| host_port(&address.ip, port.port)));
            bare.into_iter().flatten().chain(full)
        })
        .collect();
    let shown = all.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(",");
    if all.len() > SHOWN { format!("{shown} + {} more...", all.len() - SHOWN) } else { shown }
}

fn host_port(ip: &str, port: i32) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn validate_address(errors: &mut ErrorList, path: &Path, address: &EndpointAddress) {
    ip(errors, &path.child("ip"), &address.ip);
    let hostname = text(&address.hostname);
    if !hostname.is_empty() {
        dns_label(errors, &path.child("hostname"), hostname);
    }
    if let Some(node) = &address.node_name {
        dns_subdomain(errors, &path.child("nodeName"), node);
    }
    ordinary_ip(errors, &path.child("ip"), &address.ip);
}

fn validate_port(errors: &mut ErrorList, path: &Path, item: &EndpointPort, must_be_named: bool) {
    let name = text(&item.name);
    if !name.is_empty() {
        dns_label(errors, &path.child("name"), name);
    } else if must_be_named {
        errors.required(&path.child("name"), "");
    }
    port(errors, &path.child("port"), item.port);
    protocol(errors, &path.child("protocol"), text(&item.protocol));
    if let Some(application) = &item.app_protocol {
        qualified_name(errors, &path.child("appProtocol"), application);
    }
}
