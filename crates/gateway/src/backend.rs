//! Backends: from a Service's port and the Service's EndpointSlices to endpoints. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use informer::ObjectKey;
use k8s_openapi::api::core::v1::{Secret, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// The objects that rules lead to.
pub(crate) trait Objects: Sync {
    /// The Service with this key.
    fn service(&self, key: &ObjectKey) -> Option<Arc<Service>>;
    /// The EndpointSlices of a Service.
    fn slices(&self, service: &ObjectKey) -> Vec<Arc<EndpointSlice>>;
    /// The Secret with this key; one that has no certificate need not be known.
    fn secret(&self, key: &ObjectKey) -> Option<Arc<Secret>>;
}

/// What an endpoint speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// HTTP/1.1, and HTTP/2 without TLS for requests of gRPC, which knows nothing else.
    Http,
    /// HTTP/2 without TLS, with prior knowledge (RFC 9113, section 3.3).
    H2c,
}

/// The endpoints of a Service's port.
#[derive(Debug)]
pub(crate) struct Endpoints {
    /// `NAMESPACE/SERVICE:PORT`, for logs.
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    /// In order, without duplicates.
    pub(crate) addresses: Vec<SocketAddr>,
    next: AtomicUsize,
}

impl Endpoints {
    /// These addresses, of which any may be the first.
    pub(crate) fn new(name: String, protocol: Protocol, addresses: Vec<SocketAddr>) -> Self {
        // Each table begins somewhere, or a Service that changes often would always lead to its first endpoint.
        Self { name, protocol, addresses, next: AtomicUsize::new(rand::random::<u16>().into()) }
    }

    /// All addresses, each once: those after the first are tried where it refuses the connection. Every call begins with the next.
    pub(crate) fn in_turn(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let count = self.addresses.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        (0..count).map(move |offset| self.addresses[first.wrapping_add(offset) % count])
    }
}

/// A port of a Service, as objects name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum PortRef {
    /// By its number.
    Number(i32),
    /// By its name.
    Name(String),
}

impl fmt::Display for PortRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Why a Service is no backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub(crate) enum BackendError {
    #[error("Service {0} does not exist")]
    ServiceNotFound(ObjectKey),
    #[error("Service {0} has no port {1}")]
    PortNotFound(ObjectKey, PortRef),
    #[error("Service {0} is of type ExternalName, which leads out of the cluster")]
    ExternalName(ObjectKey),
    #[error("port {1} of Service {0} has the appProtocol {2}, which is not supported")]
    UnsupportedProtocol(ObjectKey, PortRef, String),
}

/// The backends of a table: all rules that lead to one port of a Service share what they know of it.
pub(crate) struct Backends<'a> {
    pub(crate) objects: &'a dyn Objects,
    found: HashMap<(ObjectKey, PortRef), Result<Arc<Endpoints>, BackendError>>,
}

impl<'a> Backends<'a> {
    pub(crate) fn new(objects: &'a dyn Objects) -> Self {
        Self { objects, found: HashMap::new() }
    }

    /// The Services that were asked for, whether or not they exist.
    pub(crate) fn services(&self) -> HashSet<ObjectKey> {
        self.found.keys().map(|(service, _)| service.clone()).collect()
    }

    /// The endpoints of a port of a Service.
    pub(crate) fn get(&mut self, service: &ObjectKey, port: &PortRef) -> Result<Arc<Endpoints>, BackendError> {
        let key = (service.clone(), port.clone());
        let objects = self.objects;
        self.found.entry(key).or_insert_with(|| resolve(objects, service, port).map(Arc::new)).clone()
    }
}

fn resolve(objects: &dyn Objects, key: &ObjectKey, wanted: &PortRef) -> Result<Endpoints, BackendError> {
    let service = objects.service(key).ok_or_else(|| BackendError::ServiceNotFound(key.clone()))?;
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
        return Err(BackendError::ExternalName(key.clone()));
    }
    let mut ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default().iter();
    let port = ports.find(|port| is_tcp(port.protocol.as_deref()) && is_named(port, wanted));
    let port = port.ok_or_else(|| BackendError::PortNotFound(key.clone(), wanted.clone()))?;
    let protocol = protocol(port.app_protocol.as_deref());
    let protocol =
        protocol.map_err(|name| BackendError::UnsupportedProtocol(key.clone(), wanted.clone(), name.to_owned()))?;
    let addresses = addresses(port, &objects.slices(key));
    Ok(Endpoints::new(format!("{key}:{wanted}"), protocol, addresses))
}

fn is_named(port: &ServicePort, wanted: &PortRef) -> bool {
    match wanted {
        PortRef::Number(number) => port.port == *number,
        PortRef::Name(name) => port.name.as_deref() == Some(name),
    }
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

/// What `appProtocol` says: the names of Kubernetes (KEP-3726), and those that are in use elsewhere. What is unknown is somebody
/// else's hint about HTTP, or wants TLS.
fn protocol(name: Option<&str>) -> Result<Protocol, &str> {
    match name {
        Some("kubernetes.io/h2c" | "h2c" | "grpc" | "http2") => Ok(Protocol::H2c),
        Some(name @ ("kubernetes.io/wss" | "https" | "tls" | "wss")) => Err(name),
        _ => Ok(Protocol::Http),
    }
}

/// The ready endpoints of a port, or where there is none those that are going away but still serve, as kube-proxy has it. Of a
/// Service with two families of addresses those that are there in IPv4.
fn addresses(port: &ServicePort, slices: &[Arc<EndpointSlice>]) -> Vec<SocketAddr> {
    let select = |family: &str, wanted: fn(&Endpoint) -> bool| {
        let mut found = BTreeSet::new();
        for slice in slices.iter().filter(|slice| slice.address_type == family) {
            let Some(number) = target(port, slice) else { continue };
            for endpoint in slice.endpoints.iter().flatten().filter(|endpoint| wanted(endpoint)) {
                // All addresses of an endpoint are equal; upstream uses the first.
                let address = endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok());
                found.extend(address.map(|address| SocketAddr::new(address, number)));
            }
        }
        found.into_iter().collect::<Vec<_>>()
    };
    let ready = ["IPv4", "IPv6"].map(|family| select(family, is_ready));
    let serving = ["IPv4", "IPv6"].map(|family| select(family, still_serves));
    ready.into_iter().chain(serving).find(|found| !found.is_empty()).unwrap_or_default()
}

/// The endpoints' number of a Service's port: slices name ports as the Service does.
fn target(port: &ServicePort, slice: &EndpointSlice) -> Option<u16> {
    let name = port.name.as_deref().unwrap_or_default();
    let mut ports = slice.ports.iter().flatten();
    let found =
        ports.find(|found| found.name.as_deref().unwrap_or_default() == name && is_tcp(found.protocol.as_deref()))?;
    u16::try_from(found.port?).ok().filter(|number| *number > 0)
}

/// Unknown counts as ready.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn still_serves(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    conditions.terminating == Some(true) && conditions.serving == Some(true)
}

#[cfg(test)]
mod tests;
