//! The endpoints of the Service `kubernetes` in `default`: where pods reach this server.

use std::net::SocketAddr;

use machinery::status::ApiError;
use registry::Target;
use serde_json::{Value, json};

use crate::server::ApiServer;

const NAMESPACE: &str = "default";
const SERVICE: &str = "kubernetes";

impl ApiServer {
    /// Says in the API that the Service `kubernetes` is served at `address` (the bridge's, which pods can reach). The
    /// Service itself, without a selector, is the registry's.
    ///
    /// # Errors
    /// When the objects cannot be written.
    pub async fn publish_endpoints(&self, address: SocketAddr) -> Result<(), ApiError> {
        for (group, kind, object) in
            [("", "Endpoints", endpoints(address)), ("discovery.k8s.io", "EndpointSlice", endpoint_slice(address))]
        {
            let resources = self.0.registry.resources();
            let resource = resources.by_kind(group, "v1", kind).ok_or_else(ApiError::no_such_resource)?;
            self.0.registry.upsert(&Target::object(resource, NAMESPACE, SERVICE), object).await?;
        }
        Ok(())
    }
}

fn endpoints(address: SocketAddr) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": SERVICE,
            "namespace": NAMESPACE,
            // The slice below is ours: nobody is to make another one from this.
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": [{
            "addresses": [{ "ip": address.ip().to_string() }],
            "ports": [{ "name": "https", "port": address.port(), "protocol": "TCP" }],
        }],
    })
}

fn endpoint_slice(address: SocketAddr) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": SERVICE,
            "namespace": NAMESPACE,
            "labels": { "kubernetes.io/service-name": SERVICE },
        },
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{ "addresses": [address.ip().to_string()], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "port": address.port(), "protocol": "TCP" }],
    })
}
