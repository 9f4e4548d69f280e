//! The endpoints of Services that this process itself stands behind: `kubernetes` in `default`, and the cluster's DNS.
//! Such Services have no selector; their endpoints are kept here.

use std::net::SocketAddr;

use machinery::status::ApiError;
use registry::Target;
use registry::endpoint::SERVICE_NAME;
use serde_json::{Value, json};

use crate::server::ApiServer;

/// A port of such a Service: its name there, the protocol, and where it is served.
#[derive(Debug, Clone, Copy)]
pub struct Served {
    /// The port's name in the Service.
    pub name: &'static str,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// Where, as pods reach it. All ports of a Service are served at one address.
    pub at: SocketAddr,
}

impl ApiServer {
    /// Says in the API that the Service `kubernetes` is served at `address` (the bridge's, which pods can reach). The
    /// Service itself, without a selector, is the registry's.
    ///
    /// # Errors
    /// When the objects cannot be written.
    pub async fn publish_endpoints(&self, address: SocketAddr) -> Result<(), ApiError> {
        let https = Served { name: "https", protocol: "TCP", at: address };
        self.publish_service("default", "kubernetes", &[https]).await
    }

    /// Says in the API where a Service without a selector is served.
    ///
    /// # Errors
    /// When the objects cannot be written.
    pub async fn publish_service(&self, namespace: &str, service: &str, ports: &[Served]) -> Result<(), ApiError> {
        for (group, kind, object) in [
            ("", "Endpoints", endpoints(namespace, service, ports)),
            ("discovery.k8s.io", "EndpointSlice", endpoint_slice(namespace, service, ports)),
        ] {
            let resources = self.0.registry.resources();
            let resource = resources.by_kind(group, "v1", kind).ok_or_else(ApiError::no_such_resource)?;
            self.0.registry.upsert(&Target::object(resource, namespace, service), object).await?;
        }
        Ok(())
    }
}

fn endpoints(namespace: &str, service: &str, ports: &[Served]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": service,
            "namespace": namespace,
            // The slice below is ours: nobody is to make another one from this.
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": [{ "addresses": [{ "ip": address(ports) }], "ports": numbers(ports) }],
    })
}

fn endpoint_slice(namespace: &str, service: &str, ports: &[Served]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": service,
            "namespace": namespace,
            "labels": { SERVICE_NAME: service },
        },
        "addressType": if ports.iter().all(|port| port.at.is_ipv4()) { "IPv4" } else { "IPv6" },
        "endpoints": [{ "addresses": [address(ports)], "conditions": { "ready": true } }],
        "ports": numbers(ports),
    })
}

fn address(ports: &[Served]) -> Option<String> {
    ports.first().map(|port| port.at.ip().to_string())
}

fn numbers(ports: &[Served]) -> Vec<Value> {
    let number = |port: &Served| json!({ "name": port.name, "port": port.at.port(), "protocol": port.protocol });
    ports.iter().map(number).collect()
}
