//! Fields of a Service that depend on each other, on its type, or on what was allocated before.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ServiceSpec;

use super::{
    HEADLESS, externally_accessible, has_cluster_ip, has_node_ports, is_headless, is_load_balancer, needs_health_check,
};
use crate::common::{blank, list, text};

/// On create: `clusterIP` alone stands for both.
pub(super) fn mirror_cluster_ip(spec: &mut ServiceSpec) {
    if let Some(ip) = &spec.cluster_ip
        && !ip.is_empty()
        && list(&spec.cluster_ips).is_empty()
    {
        spec.cluster_ips = Some(vec![ip.clone()]);
    }
}

/// On update: a client that knows only `clusterIP` and changes it means `clusterIPs` as well.
pub(super) fn follow_cluster_ip(new: &mut ServiceSpec, old: &ServiceSpec) {
    if text(&new.cluster_ip) == text(&old.cluster_ip) || list(&new.cluster_ips) != list(&old.cluster_ips) {
        return;
    }
    if blank(&new.cluster_ip) {
        new.cluster_ips = None;
        return;
    }
    let ip = text(&new.cluster_ip).to_owned();
    match new.cluster_ips.as_mut().and_then(|ips| ips.first_mut()) {
        Some(first) => *first = ip,
        None => new.cluster_ips = Some(vec![ip]),
    }
}

/// Puts back what the server allocated where the client left it out: a manifest that is applied again has neither
/// cluster IP nor node ports.
pub(super) fn patch_allocated(new: &mut ServiceSpec, old: &ServiceSpec) {
    if has_cluster_ip(old) && has_cluster_ip(new) {
        if blank(&new.cluster_ip) {
            new.cluster_ip.clone_from(&old.cluster_ip);
        }
        if list(&new.cluster_ips).is_empty() && new.cluster_ip == old.cluster_ip {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
    }
    if has_node_ports(old) && has_node_ports(new) {
        patch_node_ports(new, old);
    }
    if needs_health_check(old) && needs_health_check(new) && new.health_check_node_port.unwrap_or_default() == 0 {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// Ports are recognised by name; a node port which the client gave to another port is not put back.
fn patch_node_ports(new: &mut ServiceSpec, old: &ServiceSpec) {
    let mut used: BTreeSet<(String, i32)> = list(&new.ports)
        .iter()
        .filter_map(|port| Some((text(&port.protocol).to_owned(), port.node_port.filter(|number| *number != 0)?)))
        .collect();
    for port in new.ports.iter_mut().flatten() {
        if port.node_port.unwrap_or_default() != 0 {
            continue;
        }
        let before = list(&old.ports).iter().find(|before| text(&before.name) == text(&port.name));
        if let Some(number) = before.and_then(|before| before.node_port)
            && used.insert((text(&port.protocol).to_owned(), number))
        {
            port.node_port = Some(number);
        }
    }
}

/// Drops what only the old type had, unless the client changed it, which is then refused by validation.
pub(super) fn drop_by_type(new: &mut ServiceSpec, old: &ServiceSpec) {
    if has_cluster_ip(old) && !has_cluster_ip(new) {
        if list(&new.cluster_ips) == list(&old.cluster_ips) {
            new.cluster_ip = None;
            new.cluster_ips = None;
        }
        if new.ip_families == old.ip_families {
            new.ip_families = None;
        }
        if new.ip_family_policy == old.ip_family_policy {
            new.ip_family_policy = None;
        }
    }
    if has_node_ports(old) && !has_node_ports(new) {
        let numbers = |spec: &ServiceSpec| -> BTreeSet<i32> {
            list(&spec.ports).iter().filter_map(|port| port.node_port).filter(|number| *number != 0).collect()
        };
        if numbers(new) == numbers(old) {
            for port in new.ports.iter_mut().flatten() {
                port.node_port = None;
            }
        }
    }
    if needs_health_check(old) && !needs_health_check(new) && new.health_check_node_port == old.health_check_node_port {
        new.health_check_node_port = None;
    }
    if is_load_balancer(old) && !is_load_balancer(new) {
        if new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
    }
    if externally_accessible(old)
        && !externally_accessible(new)
        && new.external_traffic_policy == old.external_traffic_policy
    {
        new.external_traffic_policy = None;
    }
}

/// Says which address families the Service has. The cluster has one, IPv4; a headless Service without a selector,
/// whose endpoints somebody else writes, may have both.
pub(super) fn default_families(spec: &mut ServiceSpec) {
    if !has_cluster_ip(spec) {
        return;
    }
    let free = (is_headless(spec) || text(&spec.cluster_ip) == HEADLESS)
        && spec.selector.as_ref().is_none_or(BTreeMap::is_empty);
    let policy =
        spec.ip_family_policy.get_or_insert_with(|| if free { "RequireDualStack" } else { "SingleStack" }.to_owned());
    let families = spec.ip_families.get_or_insert_default();
    if families.is_empty() {
        let six = list(&spec.cluster_ips).first().is_some_and(|ip| ip.contains(':'));
        families.push(if six { "IPv6" } else { "IPv4" }.to_owned());
    }
    if free && policy != "SingleStack" && families.len() == 1 {
        let other = if families[0] == "IPv6" { "IPv4" } else { "IPv6" };
        families.push(other.to_owned());
    }
}
