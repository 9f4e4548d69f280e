//! Where a Service is reached by the API server itself, which asks webhooks and aggregated API servers.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
pub use machinery::well_known::SERVICE_NAME;
use rand::seq::IndexedRandom;
use store::Key;

use crate::Registry;
use crate::optional::text;

/// The resource parts of the store's keys.
pub const SERVICES: &str = "core/services";
/// As [`SERVICES`].
pub const ENDPOINT_SLICES: &str = "discovery.k8s.io/endpointslices";

impl Registry {
    /// The stored Service of that name.
    #[must_use]
    pub fn service(&self, namespace: &str, name: &str) -> Option<Service> {
        let entry = self.store().get(&Key::new(SERVICES, namespace, name))?;
        serde_json::from_slice(&entry.value).ok()
    }

    /// The slices that say where a Service's endpoints are. Only these are decoded.
    #[must_use]
    pub fn endpoint_slices(&self, namespace: &str, service: &str) -> Vec<EndpointSlice> {
        let slices = self.store().snapshot(ENDPOINT_SLICES);
        let of_service = slices.range(Some(namespace), None);
        let of_service = of_service.filter(|entry| entry.attributes.label(SERVICE_NAME) == Some(service));
        of_service.filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect()
    }

    /// A ready endpoint of a Service's port.
    ///
    /// # Errors
    /// Why there is none, in upstream's words.
    pub fn endpoint(&self, namespace: &str, name: &str, port: i32) -> Result<SocketAddr, String> {
        let service = self.service(namespace, name).ok_or_else(|| format!("service {name:?} not found"))?;
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let served = ports.iter().find(|served| served.port == port);
        let served = served.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
        let ready = ready(&self.endpoint_slices(namespace, name), served);
        ready.choose(&mut rand::rng()).copied().ok_or_else(|| format!("no endpoints available for service {name:?}"))
    }
}

/// The ready endpoints behind a port.
#[must_use]
pub fn ready(slices: &[EndpointSlice], served: &ServicePort) -> Vec<SocketAddr> {
    let mut ready = Vec::new();
    for slice in slices {
        let target = slice.ports.iter().flatten().find(|port| text(&port.name) == text(&served.name));
        let Some(target) = target.and_then(|port| u16::try_from(port.port?).ok()) else { continue };
        let able =
            slice.endpoints.iter().flatten().filter(|endpoint| {
                endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
            });
        let addresses = able.flat_map(|endpoint| &endpoint.addresses).filter_map(|address| address.parse().ok());
        ready.extend(addresses.map(|address: IpAddr| SocketAddr::new(address, target)));
    }
    ready
}
