//! networking.k8s.io/v1 NetworkPolicy.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy as Object, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::field::{ErrorList, Path};
use machinery::validate;
use registry::kind::{Column, Descriptor, Kind, cell_age, cell_name, generation_of};
use serde_json::Value;

use crate::check::{Report, cidr, label_selector, optional_one_of, port};
use crate::common::{format_selector, list, or_none, text};

/// NetworkPolicies.
pub(crate) struct NetworkPolicy;

impl Kind for NetworkPolicy {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["netpol"],
        ..Descriptor::namespaced("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
    };

    fn default(object: &mut Object) {
        let spec = object.spec.get_or_insert_default();
        spec.pod_selector.get_or_insert_default();
        let incoming = spec.ingress.iter_mut().flatten().flat_map(|rule| rule.ports.iter_mut().flatten());
        let outgoing = spec.egress.iter_mut().flatten().flat_map(|rule| rule.ports.iter_mut().flatten());
        for port in incoming.chain(outgoing) {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
        if list(&spec.policy_types).is_empty() {
            let mut types = vec!["Ingress".to_owned()];
            if !list(&spec.egress).is_empty() {
                types.push("Egress".to_owned());
            }
            spec.policy_types = Some(types);
        }
    }

    generation_of!(spec);

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let empty = NetworkPolicySpec::default();
        let (path, spec) = (Path::new("spec"), object.spec.as_ref().unwrap_or(&empty));
        label_selector(&mut errors, &path.child("podSelector"), spec.pod_selector.as_ref());
        for (index, rule) in list(&spec.ingress).iter().enumerate() {
            let path = path.child("ingress").index(index);
            ports(&mut errors, &path.child("ports"), list(&rule.ports));
            peers(&mut errors, &path.child("from"), list(&rule.from));
        }
        for (index, rule) in list(&spec.egress).iter().enumerate() {
            let path = path.child("egress").index(index);
            ports(&mut errors, &path.child("ports"), list(&rule.ports));
            peers(&mut errors, &path.child("to"), list(&rule.to));
        }
        let (path, types) = (path.child("policyTypes"), list(&spec.policy_types));
        if types.len() > 2 {
            errors.invalid(&path, types, "may not specify more than two policyTypes");
            return errors;
        }
        for (index, name) in types.iter().enumerate() {
            if !["Egress", "Ingress"].contains(&name.as_str()) {
                errors.not_supported(&path.index(index), name, &["Egress", "Ingress"]);
            }
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![Column::name(), Column::string("Pod-Selector", "The pods it is about."), Column::age()]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let selector = object.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref()).map(format_selector);
        vec![cell_name(&object.metadata), or_none(text(&selector)), cell_age(&object.metadata, now)]
    }
}

fn ports(errors: &mut ErrorList, path: &Path, ports: &[NetworkPolicyPort]) {
    for (index, item) in ports.iter().enumerate() {
        let path = path.index(index);
        optional_one_of(errors, &path.child("protocol"), &item.protocol, &["TCP", "UDP", "SCTP"]);
        let end = path.child("endPort");
        match (&item.port, item.end_port) {
            (Some(IntOrString::Int(first)), last) => {
                if let Some(last) = last {
                    if last < *first {
                        errors.invalid(&end, first, "must be greater than or equal to `port`");
                    }
                    port(errors, &end, last);
                }
                port(errors, &path.child("port"), *first);
            }
            (Some(IntOrString::String(name)), last) => {
                if let Some(last) = last {
                    errors.invalid(&end, last, "may not be specified when `port` is non-numeric");
                }
                errors.messages(&path.child("port"), name, validate::port_name(name));
            }
            (None, Some(last)) => errors.invalid(&end, last, "may not be specified when `port` is not specified"),
            (None, None) => {}
        }
    }
}

fn peers(errors: &mut ErrorList, path: &Path, peers: &[NetworkPolicyPeer]) {
    for (index, peer) in peers.iter().enumerate() {
        let path = path.index(index);
        label_selector(errors, &path.child("podSelector"), peer.pod_selector.as_ref());
        label_selector(errors, &path.child("namespaceSelector"), peer.namespace_selector.as_ref());
        if let Some(block) = &peer.ip_block {
            ip_block(errors, &path.child("ipBlock"), block);
        }
        match (&peer.ip_block, peer.pod_selector.is_some() || peer.namespace_selector.is_some()) {
            (None, false) => errors.required(&path, "must specify a peer"),
            (Some(_), true) => errors.forbidden(&path, "may not specify both ipBlock and another peer"),
            _ => {}
        }
    }
}

fn ip_block(errors: &mut ErrorList, path: &Path, block: &IPBlock) {
    if block.cidr.is_empty() {
        errors.required(&path.child("cidr"), "");
        return;
    }
    cidr(errors, &path.child("cidr"), &block.cidr);
    let Some(outer) = network(&block.cidr) else { return };
    for (index, except) in list(&block.except).iter().enumerate() {
        let path = path.child("except").index(index);
        cidr(errors, &path, except);
        let Some(inner) = network(except) else { continue };
        if !is_strict_subset(inner, outer) {
            errors.invalid(&path, except, "must be a strict subset of `cidr`");
        }
    }
}

/// Address and prefix length, the address as wide as IPv6 has it.
fn network(text: &str) -> Option<(u128, u32, bool)> {
    let (address, bits) = text.split_once('/')?;
    let bits: u32 = bits.parse().ok()?;
    match address.parse().ok()? {
        IpAddr::V4(v4) => Some((u128::from(u32::from(v4)) << 96, bits, true)),
        IpAddr::V6(v6) => Some((u128::from(v6), bits, false)),
    }
}

fn is_strict_subset(inner: (u128, u32, bool), outer: (u128, u32, bool)) -> bool {
    let mask = u128::MAX.checked_shl(128 - outer.1).unwrap_or_default();
    inner.2 == outer.2 && inner.1 > outer.1 && inner.0 & mask == outer.0 & mask
}
