//! Cluster IPs and node ports of a Service, and the addresses that a load balancer gives it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use machinery::field::{ErrorList, FieldError, Path};
use machinery::gvk::GroupKind;
use machinery::status::ApiError;
use registry::allocate::{AllocationError, Allocators, Holdings, ServiceRange, Taking};
use registry::kind::Reservation;

use super::{HEADLESS, has_cluster_ip, has_node_ports, ingress, is_headless, needs_health_check, wants_node_ports};
use crate::common::{list, text};

/// Finds what the Service needs and does not have yet. What the old one had and this one has not is given back when
/// the write is stored.
pub(super) fn allocate(
    new: &mut Service,
    old: Option<&Service>,
    allocators: &Allocators,
) -> Result<Reservation, ApiError> {
    let range = allocators.services();
    let before = old.map(|old| held(old, range)).unwrap_or_default();
    let name = text(&new.metadata.name).to_owned();
    let Some(spec) = &mut new.spec else { return Ok(Reservation::none()) };
    let mut taking = allocators.begin();
    families(spec)
        .and_then(|()| cluster_ip(spec, &before, &mut taking))
        .and_then(|()| node_ports(spec, &before, &mut taking))
        .and_then(|()| health_check_port(spec, &before, &mut taking))
        .map_err(|failure| failure.answer(&name))?;
    Ok(taking.keep(before.without(&held(new, range))))
}

/// Takes the addresses of the cluster's range that a load balancer gives to the Service: no other Service has them, nor gets
/// them as its cluster IP.
pub(super) fn allocate_status(new: &Service, old: &Service, allocators: &Allocators) -> Result<Reservation, ApiError> {
    let range = allocators.services();
    let before = held(old, range);
    let mut taking = allocators.begin();
    let mut own = before.addresses.clone();
    for (index, address) in balanced(new, range) {
        if own.insert(address) {
            taking.address(address).map_err(|error| {
                let path = Path::new("status").child("loadBalancer").child("ingress").index(index).child("ip");
                let detail = format!("failed to allocate IP {address}: {error}");
                Failure::Refused(FieldError::invalid(&path, address.to_string(), detail))
                    .answer(text(&new.metadata.name))
            })?;
        }
    }
    Ok(taking.keep(before.without(&held(new, range))))
}

/// Marks as taken what a stored Service holds.
pub(super) fn occupy(object: &Service, allocators: &Allocators) {
    allocators.occupy(&held(object, allocators.services()));
}

/// Gives back what a Service held.
pub(super) fn release(object: &Service, allocators: &Allocators) {
    allocators.release(&held(object, allocators.services()));
}

/// What a Service holds.
fn held(object: &Service, range: ServiceRange) -> Holdings {
    let Some(spec) = &object.spec else { return Holdings::default() };
    let addresses = list(&spec.cluster_ips).iter().filter(|_| has_cluster_ip(spec));
    let numbers = list(&spec.ports).iter().filter(|_| has_node_ports(spec)).filter_map(|port| port.node_port);
    let health_check = spec.health_check_node_port.filter(|_| needs_health_check(spec));
    Holdings {
        addresses: addresses
            .filter_map(|address| address.parse().ok())
            .chain(balanced(object, range).map(|(_, address)| address))
            .collect(),
        ports: numbers
            .chain(health_check)
            .filter_map(|number| u16::try_from(number).ok())
            .filter(|number| *number != 0)
            .collect(),
    }
}

/// The addresses of the cluster's range that a load balancer gave to a Service, each with its index. Others are somebody
/// else's to hand out.
fn balanced(object: &Service, range: ServiceRange) -> impl Iterator<Item = (usize, Ipv4Addr)> {
    let addresses = ingress(object)
        .iter()
        .enumerate()
        .filter_map(|(index, ingress)| Some((index, text(&ingress.ip).parse().ok()?)));
    addresses.filter(move |(_, address)| range.contains(*address))
}

/// Why nothing was allocated.
enum Failure {
    /// What was asked for cannot be had.
    Refused(FieldError),
    /// There is nothing left.
    Exhausted(String),
}

impl Failure {
    fn answer(self, name: &str) -> ApiError {
        match self {
            Self::Refused(error) => ApiError::invalid(&GroupKind::new("", "Service"), name, &ErrorList(vec![error])),
            Self::Exhausted(message) => ApiError::internal(message),
        }
    }
}

/// The cluster has IPv4 addresses only.
fn families(spec: &ServiceSpec) -> Result<(), Failure> {
    let path = Path::new("spec");
    if !has_cluster_ip(spec) || (is_headless(spec) && spec.selector.as_ref().is_none_or(BTreeMap::is_empty)) {
        return Ok(());
    }
    if let Some(index) = list(&spec.ip_families).iter().position(|family| family == "IPv6") {
        let path = path.child("ipFamilies").index(index);
        return Err(Failure::Refused(FieldError::invalid(&path, "IPv6", "not configured on this cluster")));
    }
    if text(&spec.ip_family_policy) == "RequireDualStack" {
        return Err(Failure::Refused(FieldError::invalid(
            &path.child("ipFamilyPolicy"),
            "RequireDualStack",
            "this cluster is not configured for dual-stack services",
        )));
    }
    Ok(())
}

fn cluster_ip(spec: &mut ServiceSpec, before: &Holdings, taking: &mut Taking) -> Result<(), Failure> {
    if !has_cluster_ip(spec) || text(&spec.cluster_ip) == HEADLESS {
        return Ok(());
    }
    let path = Path::new("spec").child("clusterIPs");
    let requested: Vec<String> = list(&spec.cluster_ips).to_vec();
    let Some(first) = requested.first() else {
        let address = taking
            .any_address()
            .map_err(|error| Failure::Exhausted(format!("failed to allocate a serviceIP: {error}")))?;
        spec.cluster_ip = Some(address.to_string());
        spec.cluster_ips = Some(vec![address.to_string()]);
        return Ok(());
    };
    let refuse = |error: AllocationError| {
        Failure::Refused(FieldError::invalid(&path, &requested, format!("failed to allocate IP {first}: {error}")))
    };
    match first.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) if before.addresses.contains(&address) => Ok(()),
        Ok(IpAddr::V4(address)) => taking.address(address).map_err(refuse),
        _ => Err(Failure::Refused(FieldError::invalid(&path.index(0), first, "not configured on this cluster"))),
    }
}

/// One number serves all protocols of a Service that ask for it, as DNS does with TCP and UDP.
fn node_ports(spec: &mut ServiceSpec, before: &Holdings, taking: &mut Taking) -> Result<(), Failure> {
    if !has_node_ports(spec) {
        return Ok(());
    }
    let find = wants_node_ports(spec);
    let mut own: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    let ports = spec.ports.get_or_insert_default();
    for (index, port) in ports.iter().enumerate() {
        let number = port.node_port.unwrap_or_default();
        if number == 0 {
            continue;
        }
        let refuse = |error: AllocationError| {
            let path = Path::new("spec").child("ports").index(index).child("nodePort");
            Failure::Refused(FieldError::invalid(&path, number, error.to_string()))
        };
        let wanted = u16::try_from(number).map_err(|_| refuse(taking.port_out_of_range()))?;
        if !before.ports.contains(&wanted) && !own.contains_key(&wanted) {
            taking.port(wanted).map_err(refuse)?;
        }
        own.entry(wanted).or_default().push(text(&port.protocol).to_owned());
    }
    for index in 0..ports.len() {
        if !find || ports[index].node_port.unwrap_or_default() != 0 {
            continue;
        }
        let protocol = text(&ports[index].protocol).to_owned();
        let number = ports[index].port;
        // The same port under another protocol, if it has a node port which this protocol leaves free.
        let shared = ports
            .iter()
            .filter(|other| other.port == number)
            .filter_map(|other| u16::try_from(other.node_port?).ok())
            .find(|candidate| own.get(candidate).is_some_and(|protocols| !protocols.contains(&protocol)));
        let found = match shared {
            Some(found) => found,
            None => taking
                .any_port()
                .map_err(|error| Failure::Exhausted(format!("failed to allocate a nodePort: {error}")))?,
        };
        own.entry(found).or_default().push(protocol);
        ports[index].node_port = Some(i32::from(found));
    }
    Ok(())
}

fn health_check_port(spec: &mut ServiceSpec, before: &Holdings, taking: &mut Taking) -> Result<(), Failure> {
    if !needs_health_check(spec) {
        return Ok(());
    }
    let number = spec.health_check_node_port.unwrap_or_default();
    if number == 0 {
        let found = taking
            .any_port()
            .map_err(|error| Failure::Exhausted(format!("failed to allocate a HealthCheck NodePort: {error}")))?;
        spec.health_check_node_port = Some(i32::from(found));
        return Ok(());
    }
    let refuse = |error: AllocationError| {
        Failure::Exhausted(format!("failed to allocate requested HealthCheck NodePort {number}: {error}"))
    };
    let wanted = u16::try_from(number).map_err(|_| refuse(taking.port_out_of_range()))?;
    if before.ports.contains(&wanted) { Ok(()) } else { taking.port(wanted).map_err(refuse) }
}
