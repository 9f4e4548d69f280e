//! core/v1 Service.
//!
//! | module | subject |
//! |---|---|
//! | [`fields`] | fields that depend on each other or on the type: patched in, dropped, kept in step |
//! | [`validation`] | what may stand in a Service, and what may change |
//! | [`allocation`] | cluster IPs and node ports |

mod allocation;
mod fields;
mod validation;
mod warnings;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ClientIPConfig, LoadBalancerIngress, LoadBalancerStatus, Service as Object, ServicePort, ServiceSpec,
    ServiceStatus, SessionAffinityConfig,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::field::ErrorList;
use machinery::status::ApiError;
use registry::allocate::Allocators;
use registry::kind::{Column, Context, Descriptor, Kind, NameRule, Reservation, Subresource, cell_age, cell_name};
use serde_json::Value;

use super::common::{default_text, format_labels, list, or_none, port_unset, text};

/// How long, in seconds, a client sticks to an endpoint by default: three hours.
const AFFINITY_SECONDS: i32 = 10_800;
/// The cluster IP of a headless Service.
const HEADLESS: &str = "None";

/// Services.
pub(crate) struct Service;

impl Kind for Service {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["svc"],
        categories: &["all"],
        subresources: &[Subresource::Proxy, Subresource::Status],
        names: NameRule::Label,
        selectable: &["spec.clusterIP", "spec.type"],
        create_on_update: true,
        returns_deleted_object: true,
        ..Descriptor::namespaced("", "v1", "Service", "services")
    };

    fn default(object: &mut Object) {
        let spec = object.spec.get_or_insert_default();
        default_text(&mut spec.type_, "ClusterIP");
        default_text(&mut spec.session_affinity, "None");
        match text(&spec.session_affinity) {
            "None" => spec.session_affinity_config = None,
            "ClientIP" => {
                let config = spec.session_affinity_config.get_or_insert_with(SessionAffinityConfig::default);
                let client = config.client_ip.get_or_insert_with(ClientIPConfig::default);
                client.timeout_seconds.get_or_insert(AFFINITY_SECONDS);
            }
            _ => {}
        }
        for port in spec.ports.iter_mut().flatten() {
            default_text(&mut port.protocol, "TCP");
            if port_unset(port.target_port.as_ref()) {
                port.target_port = Some(IntOrString::Int(port.port));
            }
        }
        if externally_accessible(spec) {
            default_text(&mut spec.external_traffic_policy, "Cluster");
        }
        if has_cluster_ip(spec) {
            spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
        }
        if is_load_balancer(spec) {
            spec.allocate_load_balancer_node_ports.get_or_insert(true);
            let status = object.status.get_or_insert_default().load_balancer.get_or_insert_default();
            for ingress in status.ingress.iter_mut().flatten() {
                if ingress.ip.as_ref().is_some_and(|ip| !ip.is_empty()) {
                    ingress.ip_mode.get_or_insert_with(|| "VIP".to_owned());
                }
            }
        }
    }

    fn prepare_create(object: &mut Object, _context: &Context<'_>) {
        object.status = Some(empty_status());
        let spec = object.spec.get_or_insert_default();
        fields::mirror_cluster_ip(spec);
        fields::default_families(spec);
    }

    fn prepare_update(new: &mut Object, old: &Object) {
        new.status.clone_from(&old.status);
        let empty = ServiceSpec::default();
        let old_spec = old.spec.as_ref().unwrap_or(&empty);
        let spec = new.spec.get_or_insert_default();
        fields::patch_allocated(spec, old_spec);
        fields::follow_cluster_ip(spec, old_spec);
        fields::drop_by_type(spec, old_spec);
        fields::default_families(spec);
    }

    fn prepare_status(new: &mut Object, old: &Object) {
        new.spec.clone_from(&old.spec);
        new.status.get_or_insert_with(empty_status);
    }

    fn validate(object: &Object) -> ErrorList {
        validation::validate(object)
    }

    fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
        warnings::of_service(new, old)
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        validation::validate_update(new, old)
    }

    fn validate_status(new: &Object, _old: &Object) -> ErrorList {
        validation::validate_status(new)
    }

    fn allocate(new: &mut Object, old: Option<&Object>, context: &Context<'_>) -> Result<Reservation, ApiError> {
        allocation::allocate(new, old, context.allocators)
    }

    fn allocate_status(new: &mut Object, old: &Object, context: &Context<'_>) -> Result<Reservation, ApiError> {
        allocation::allocate_status(new, old, context.allocators)
    }

    fn occupy(object: &Object, allocators: &Allocators) {
        allocation::occupy(object, allocators);
    }

    fn release(object: &Object, allocators: &Allocators) {
        allocation::release(object, allocators);
    }

    fn fields(object: &Object) -> Vec<(&'static str, String)> {
        let spec = object.spec.as_ref();
        vec![
            ("spec.clusterIP", spec.map_or("", |spec| text(&spec.cluster_ip)).to_owned()),
            ("spec.type", spec.map_or("", |spec| text(&spec.type_)).to_owned()),
        ]
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("Type", "How it is reached."),
            Column::string("Cluster-IP", "Address inside the cluster."),
            Column::string("External-IP", "Addresses outside of the cluster."),
            Column::string("Port(s)", "Ports, with node port and protocol."),
            Column::age(),
            Column::wide("Selector", "Labels of the pods behind it."),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let empty = ServiceSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&empty);
        let ports: Vec<String> = list(&spec.ports).iter().map(port_cell).collect();
        vec![
            cell_name(&object.metadata),
            text(&spec.type_).into(),
            or_none(list(&spec.cluster_ips).first().map_or("", String::as_str)),
            external_cell(object, spec).into(),
            or_none(&ports.join(",")),
            cell_age(&object.metadata, now),
            format_labels(&spec.selector).into(),
        ]
    }
}

fn empty_status() -> ServiceStatus {
    ServiceStatus { load_balancer: Some(LoadBalancerStatus::default()), ..ServiceStatus::default() }
}

fn port_cell(port: &ServicePort) -> String {
    let (number, protocol) = (port.port, text(&port.protocol));
    match port.node_port.unwrap_or_default() {
        0 => format!("{number}/{protocol}"),
        node_port => format!("{number}:{node_port}/{protocol}"),
    }
}

fn external_cell(object: &Object, spec: &ServiceSpec) -> String {
    let external = list(&spec.external_ips);
    match text(&spec.type_) {
        "ClusterIP" | "NodePort" if external.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => external.join(","),
        "LoadBalancer" => {
            let mut addresses: Vec<&str> = ingress(object)
                .iter()
                .map(|ingress| match text(&ingress.ip) {
                    "" => text(&ingress.hostname),
                    ip => ip,
                })
                .filter(|address| !address.is_empty())
                .collect();
            // A set upstream, so sorted and without repetition.
            addresses.sort_unstable();
            addresses.dedup();
            addresses.extend(external.iter().map(String::as_str));
            if addresses.is_empty() { "<pending>".to_owned() } else { addresses.join(",") }
        }
        "ExternalName" => text(&spec.external_name).to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// What a load balancer gave to a Service.
fn ingress(object: &Object) -> &[LoadBalancerIngress] {
    let balancer = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    balancer.map_or(&[][..], |balancer| list(&balancer.ingress))
}

fn is_load_balancer(spec: &ServiceSpec) -> bool {
    text(&spec.type_) == "LoadBalancer"
}

/// Whether the type has a cluster IP, be it `None`.
fn has_cluster_ip(spec: &ServiceSpec) -> bool {
    matches!(text(&spec.type_), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn is_headless(spec: &ServiceSpec) -> bool {
    list(&spec.cluster_ips) == [HEADLESS]
}

/// Whether the type has node ports, or may have them.
fn has_node_ports(spec: &ServiceSpec) -> bool {
    matches!(text(&spec.type_), "NodePort" | "LoadBalancer")
}

/// Whether node ports are to be found for ports that name none.
fn wants_node_ports(spec: &ServiceSpec) -> bool {
    text(&spec.type_) == "NodePort" || (is_load_balancer(spec) && spec.allocate_load_balancer_node_ports != Some(false))
}

fn externally_accessible(spec: &ServiceSpec) -> bool {
    has_node_ports(spec) || (text(&spec.type_) == "ClusterIP" && !list(&spec.external_ips).is_empty())
}

/// Whether a load balancer has to ask each node whether it has endpoints of its own.
fn needs_health_check(spec: &ServiceSpec) -> bool {
    is_load_balancer(spec) && text(&spec.external_traffic_policy) == "Local"
}
