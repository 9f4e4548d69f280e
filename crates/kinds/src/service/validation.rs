//! What may stand in a Service, and what may change in it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::field::{ErrorList, Path};
use machinery::validate;
use serde_json::{Value, json};

use super::{
    HEADLESS, externally_accessible, has_cluster_ip, ingress, is_headless, is_load_balancer, needs_health_check,
};
use crate::check::{
    IMMUTABLE, Report, cidr, dns_label, dns_subdomain, ip, labels, one_of, ordinary_ip, port, port_or_name, protocol,
    qualified_name,
};
use crate::common::{blank, entry, list, text};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const POLICIES: [&str; 2] = ["Cluster", "Local"];
const FAMILY_POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";
/// The longest session affinity, in seconds: a day.
const LONGEST_AFFINITY: i32 = 86_400;

/// Validates a Service on its own.
pub(super) fn validate(object: &Service) -> ErrorList {
    let mut errors = ErrorList::new();
    let empty = ServiceSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&empty);
    let path = Path::new("spec");
    let kind = text(&spec.type_);
    if list(&spec.ports).is_empty() && !is_headless(spec) && kind != "ExternalName" {
        errors.required(&path.child("ports"), "");
    }
    by_type(&mut errors, &path, spec);
    let mut names = BTreeSet::new();
    let ports = list(&spec.ports);
    for (index, item) in ports.iter().enumerate() {
        validate_port(&mut errors, &path.child("ports").index(index), item, ports.len() > 1, &mut names);
    }
    labels(&mut errors, &path.child("selector"), &spec.selector);
    affinity(&mut errors, &path, spec);
    cluster_ips(&mut errors, &path, spec);
    for (index, address) in list(&spec.external_ips).iter().enumerate() {
        let path = path.child("externalIPs").index(index);
        if address.parse::<IpAddr>().is_ok() {
            ordinary_ip(&mut errors, &path, address);
        } else {
            ip(&mut errors, &path, address);
        }
    }
    one_of(&mut errors, &path.child("type"), kind, &TYPES);
    unique_ports(&mut errors, &path.child("ports"), kind, ports);
    load_balancer(&mut errors, &path, object, spec);
    traffic(&mut errors, &path, spec);
    errors
}

fn by_type(errors: &mut ErrorList, path: &Path, spec: &ServiceSpec) {
    match text(&spec.type_) {
        kind @ ("LoadBalancer" | "NodePort") if is_headless(spec) => errors.invalid(
            &path.child("clusterIPs").index(0),
            HEADLESS,
            format!("may not be set to 'None' for {kind} services"),
        ),
        "ExternalName" => {
            const WHY: &str = "may not be set for ExternalName services";
            for (set, name) in [
                (!list(&spec.cluster_ips).is_empty(), "clusterIPs"),
                (!list(&spec.ip_families).is_empty(), "ipFamilies"),
                (spec.ip_family_policy.is_some(), "ipFamilyPolicy"),
            ] {
                if set {
                    errors.forbidden(&path.child(name), WHY);
                }
            }
            let name = text(&spec.external_name);
            match name.strip_suffix('.').unwrap_or(name) {
                "" => errors.required(&path.child("externalName"), ""),
                name => dns_subdomain(errors, &path.child("externalName"), name),
            }
        }
        _ => {}
    }
}

fn validate_port<'a>(
    errors: &mut ErrorList,
    path: &Path,
    item: &'a ServicePort,
    must_be_named: bool,
    names: &mut BTreeSet<&'a str>,
) {
    let name = text(&item.name);
    if !name.is_empty() {
        dns_label(errors, &path.child("name"), name);
        if !names.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
    } else if must_be_named {
        errors.required(&path.child("name"), "");
    }
    port(errors, &path.child("port"), item.port);
    protocol(errors, &path.child("protocol"), text(&item.protocol));
    let target = item.target_port.as_ref().unwrap_or(&IntOrString::Int(0));
    port_or_name(errors, &path.child("targetPort"), target);
    if let Some(application) = &item.app_protocol {
        qualified_name(errors, &path.child("appProtocol"), application);
    }
}

fn unique_ports(errors: &mut ErrorList, path: &Path, kind: &str, ports: &[ServicePort]) {
    let number = |item: &ServicePort| item.node_port.unwrap_or_default();
    for (index, item) in ports.iter().enumerate() {
        if kind == "ClusterIP" && number(item) != 0 {
            errors.forbidden(&path.index(index).child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
    for (index, item) in ports.iter().enumerate() {
        let twin = |earlier: &ServicePort| number(earlier) == number(item) && earlier.protocol == item.protocol;
        if number(item) != 0 && ports[..index].iter().any(twin) {
            errors.duplicate(&path.index(index).child("nodePort"), number(item));
        }
    }
    for (index, item) in ports.iter().enumerate() {
        let twin = |earlier: &ServicePort| earlier.port == item.port && earlier.protocol == item.protocol;
        if ports[..index].iter().any(twin) {
            errors.duplicate(&path.index(index), json!({"port": item.port, "protocol": item.protocol}));
        }
    }
}

fn affinity(errors: &mut ErrorList, path: &Path, spec: &ServiceSpec) {
    one_of(errors, &path.child("sessionAffinity"), text(&spec.session_affinity), &["ClientIP", "None"]);
    let config = &spec.session_affinity_config;
    let path = path.child("sessionAffinityConfig");
    match text(&spec.session_affinity) {
        "ClientIP" => {
            let timeout = config.as_ref().and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
            let field = path.child("clientIP").child("timeoutSeconds");
            match timeout {
                None => errors.required(&field, "when session affinity type is ClientIP"),
                Some(seconds) if !(1..=LONGEST_AFFINITY).contains(&seconds) => {
                    errors.invalid(&field, seconds, format!("must be greater than 0 and less than {LONGEST_AFFINITY}"));
                }
                Some(_) => {}
            }
        }
        "None" if config.is_some() => {
            errors.forbidden(&path, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

fn cluster_ips(errors: &mut ErrorList, path: &Path, spec: &ServiceSpec) {
    if text(&spec.type_) == "ExternalName" {
        return;
    }
    let (field, ips) = (path.child("clusterIPs"), list(&spec.cluster_ips));
    match (text(&spec.cluster_ip), ips.first()) {
        ("", Some(_)) => errors.invalid(&field, ips, "must be empty when `clusterIP` is not specified"),
        ("", None) => {}
        (_, None) => errors.required(&field, ""),
        (one, Some(first)) if one != first => errors.invalid(&field, ips, "first value must match `clusterIP`"),
        _ => {}
    }
    let families = list(&spec.ip_families);
    for (index, family) in families.iter().enumerate() {
        let path = path.child("ipFamilies").index(index);
        if !["IPv4", "IPv6"].contains(&family.as_str()) {
            errors.not_supported(&path, family, &["IPv4", "IPv6"]);
        }
        if families[..index].contains(family) {
            errors.duplicate(&path, family);
        }
    }
    if let Some(policy) = &spec.ip_family_policy
        && !FAMILY_POLICIES.contains(&policy.as_str())
    {
        errors.not_supported(&path.child("ipFamilyPolicy"), policy, &FAMILY_POLICIES);
    }
    let before = errors.len();
    for (index, address) in ips.iter().enumerate() {
        if index == 0 && address == HEADLESS {
            if ips.len() > 1 {
                errors.invalid(&field, ips, "'None' must be the first and only value");
            }
        } else {
            ip(errors, &field.index(index), address);
        }
    }
    if errors.len() > before {
        return;
    }
    if ips.len() > 2 {
        errors.invalid(&field, ips, "may only hold up to 2 values");
    }
    let six = |address: &String| address.contains(':');
    if ips.len() > 1 && (ips.iter().all(six) || !ips.iter().any(six)) {
        errors.invalid(&field, ips, "may specify no more than one IP for each IP family");
    }
    if !is_headless(spec) {
        for (index, (address, family)) in ips.iter().zip(families).enumerate() {
            if six(address) != (family == "IPv6") {
                errors.invalid(
                    &field.index(index),
                    address,
                    format!("expected an {family} value as indicated by `ipFamilies[{index}]`"),
                );
            }
        }
    }
}

fn load_balancer(errors: &mut ErrorList, path: &Path, object: &Service, spec: &ServiceSpec) {
    const ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let balanced = is_load_balancer(spec);
    let ranges = list(&spec.load_balancer_source_ranges);
    if !ranges.is_empty() {
        let field = path.child("LoadBalancerSourceRanges");
        if !balanced {
            errors.forbidden(&field, ONLY_LOAD_BALANCER);
        }
        for (index, range) in ranges.iter().enumerate() {
            cidr(errors, &field.index(index), range.trim());
        }
    } else if let Some(ranges) = entry(&object.metadata.annotations, ANNOTATION) {
        let field = Path::new("metadata").child("annotations").key(ANNOTATION);
        if !balanced {
            errors.forbidden(&field, ONLY_LOAD_BALANCER);
        }
        for range in ranges.split(',').map(str::trim).filter(|_| !ranges.trim().is_empty()) {
            cidr(errors, &field, range);
        }
    }
    if spec.allocate_load_balancer_node_ports.is_some() && !balanced {
        errors.forbidden(&path.child("allocateLoadBalancerNodePorts"), ONLY_LOAD_BALANCER);
    }
    if let Some(class) = &spec.load_balancer_class {
        let path = path.child("loadBalancerClass");
        if balanced {
            errors.messages(&path, class, validate::qualified_name(class));
        } else {
            errors.forbidden(&path, ONLY_LOAD_BALANCER);
        }
    }
}

fn traffic(errors: &mut ErrorList, path: &Path, spec: &ServiceSpec) {
    let field = path.child("externalTrafficPolicy");
    let policy = text(&spec.external_traffic_policy);
    if externally_accessible(spec) {
        one_of(errors, &field, policy, &POLICIES);
    } else if !policy.is_empty() {
        errors.invalid(&field, policy, "may only be set for externally-accessible services");
    }
    let check_port = spec.health_check_node_port.unwrap_or_default();
    let field = path.child("healthCheckNodePort");
    if !needs_health_check(spec) && check_port != 0 {
        errors.invalid(
            &field,
            check_port,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        );
    } else if check_port != 0 {
        port(errors, &field, check_port);
    }
    let field = path.child("internalTrafficPolicy");
    match &spec.internal_traffic_policy {
        None if has_cluster_ip(spec) => errors.required(&field, ""),
        Some(policy) if !POLICIES.contains(&policy.as_str()) => errors.not_supported(&field, policy, &POLICIES),
        _ => {}
    }
    const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    if let Some(distribution) = &spec.traffic_distribution
        && !DISTRIBUTIONS.contains(&distribution.as_str())
    {
        errors.not_supported(&path.child("trafficDistribution"), distribution, &DISTRIBUTIONS);
    }
}

/// Validates the step from one state of a Service to the next.
pub(super) fn validate_update(new: &Service, old: &Service) -> ErrorList {
    let mut errors = ErrorList::new();
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return errors };
    let path = Path::new("spec");
    if text(&new.type_) != "ExternalName" && text(&old.type_) != "ExternalName" {
        if !(is_headless(old) && is_headless(new)) {
            kept_addresses(&mut errors, &path, new, old);
        }
        if !is_headless(old) && !is_headless(new) {
            kept_families(&mut errors, &path, new, old);
        }
    }
    if is_load_balancer(new) && is_load_balancer(old) && new.load_balancer_class != old.load_balancer_class {
        let class = new.load_balancer_class.as_ref().map_or(Value::Null, |class| class.as_str().into());
        errors.invalid(&path.child("loadBalancerClass"), class, "may not change once set");
    }
    if needs_health_check(new) && needs_health_check(old) && new.health_check_node_port != old.health_check_node_port {
        errors.forbidden(&path.child("healthCheckNodePort"), IMMUTABLE);
    }
    errors
}

fn kept_addresses(errors: &mut ErrorList, path: &Path, new: &ServiceSpec, old: &ServiceSpec) {
    let (ips, before) = (list(&new.cluster_ips), list(&old.cluster_ips));
    let field = path.child("clusterIPs");
    if ips.is_empty() && !before.is_empty() {
        errors.invalid(&field.index(0), ips, "primary clusterIP can not be unset");
        return;
    }
    // Of a list that grew or shrank only the first address is bound to stay.
    let fixed = if ips.len() == before.len() { ips.len() } else { 1 };
    for (index, (now, before)) in ips.iter().zip(before).take(fixed).enumerate() {
        if now != before {
            errors.invalid(&field.index(index), ips, "may not change once set");
        }
    }
    if before.len() > ips.len() && ips.len() == 1 && text(&new.ip_family_policy) != "SingleStack" {
        errors.invalid(
            &path.child("ipFamilyPolicy"),
            &new.ip_family_policy,
            "must be set to 'SingleStack' when releasing the secondary clusterIP",
        );
    }
}

fn kept_families(errors: &mut ErrorList, path: &Path, new: &ServiceSpec, old: &ServiceSpec) {
    let (families, before) = (list(&new.ip_families), list(&old.ip_families));
    let field = path.child("ipFamilies").index(0);
    let fixed = if families.len() == before.len() { families.len() } else { 1 };
    for _ in families.iter().zip(before).take(fixed).filter(|(now, before)| now != before) {
        errors.invalid(&field, families, "may not change once set");
    }
    if before.len() > families.len() && families.len() == 1 && text(&new.ip_family_policy) != "SingleStack" {
        errors.invalid(
            &path.child("ipFamilyPolicy"),
            &new.ip_family_policy,
            "must be set to 'SingleStack' when releasing the secondary ipFamily",
        );
    }
}

/// Validates a write to the status.
pub(super) fn validate_status(object: &Service) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let ingress = ingress(object);
    if !ingress.is_empty() && !object.spec.as_ref().is_some_and(is_load_balancer) {
        errors.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
        return errors;
    }
    for (index, item) in ingress.iter().enumerate() {
        let path = path.index(index);
        let address = text(&item.ip);
        if !address.is_empty() {
            ip(&mut errors, &path.child("ip"), address);
        }
        match &item.ip_mode {
            None if !address.is_empty() => {
                errors.required(&path.child("ipMode"), "must be specified when `ip` is set");
            }
            Some(_) if address.is_empty() => {
                errors.forbidden(&path.child("ipMode"), "may not be specified when `ip` is not set");
            }
            Some(mode) if !["Proxy", "VIP"].contains(&mode.as_str()) => {
                errors.not_supported(&path.child("ipMode"), mode, &["Proxy", "VIP"]);
            }
            _ => {}
        }
        if !blank(&item.hostname) {
            let hostname = text(&item.hostname);
            dns_subdomain(&mut errors, &path.child("hostname"), hostname);
            if hostname.parse::<IpAddr>().is_ok() {
                errors.invalid(&path.child("hostname"), hostname, "must be a DNS name, not an IP address");
            }
        }
    }
    errors
}
