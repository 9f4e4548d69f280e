//! Where a proxied request goes.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointSubset, Endpoints, Node, Pod, Service};
use machinery::status::ApiError;
use rand::RngExt as _;
use registry::Target;
use serde::de::DeserializeOwned;

use super::super::Call;
use crate::kubelet_routes::KUBELET_PORT;

/// How to speak to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// In clear.
    Http,
    /// Over TLS, whose certificate nobody verifies, as upstream.
    Https,
}

/// `[SCHEME:]NAME[:PORT]`, taken apart; later with a host in place of the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) scheme: Scheme,
    pub(super) name: &'a str,
    pub(super) port: &'a str,
}

impl<'a> Place<'a> {
    /// Reads the name of a request; `None` when it has not this shape.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(':');
        let (first, second, third, more) = (parts.next()?, parts.next(), parts.next(), parts.next());
        let (scheme, name, port) = match (second, third, more) {
            (None, ..) => ("", first, ""),
            (Some(port), None, _) => ("", first, port),
            (Some(name), Some(port), None) => (first, name, port),
            _ => return None,
        };
        let scheme = match scheme {
            "" | "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { scheme, name, port })
    }
}

/// An address to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) scheme: Scheme,
    pub(super) ip: IpAddr,
    pub(super) port: u16,
}

/// A pod's address. Without a port its first declared one counts, else that of the scheme.
pub(super) async fn pod(call: &Call<'_>, name: &str) -> Result<Address, ApiError> {
    let place = Place::parse(name).ok_or_else(|| ApiError::bad_request(format!("invalid pod request {name:?}")))?;
    let pod: Pod = get(call, "Pod", place.name).await?;
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut declared = containers.flat_map(|container| container.ports.iter().flatten());
    let port = match place.port {
        "" => declared.next().and_then(|port| u16::try_from(port.container_port).ok()).unwrap_or(usual(place.scheme)),
        port => number(port)?,
    };
    let ip = pod.status.and_then(|status| status.pod_ip).unwrap_or_default();
    Ok(Address { scheme: place.scheme, ip: proxyable(&ip)?, port })
}

/// The address of one of a service's ready pods.
pub(super) async fn service(call: &Call<'_>, name: &str) -> Result<Address, ApiError> {
    let place = Place::parse(name).ok_or_else(|| ApiError::bad_request(format!("invalid service request {name:?}")))?;
    let service: Service = get(call, "Service", place.name).await?;
    let mut port = place.port.to_owned();
    if let Ok(wanted) = place.port.parse::<i32>() {
        let ports = service.spec.into_iter().flat_map(|spec| spec.ports.unwrap_or_default());
        let found = ports.into_iter().find(|port| port.port == wanted).ok_or_else(|| {
            ApiError::service_unavailable(format!("no service port {wanted} found for service {:?}", place.name))
        })?;
        port = found.name.unwrap_or_default();
    }
    let none = || ApiError::service_unavailable(format!("no endpoints available for service {:?}", place.name));
    let endpoints: Endpoints = get(call, "Endpoints", place.name).await.map_err(|_| none())?;
    let mut choices = addresses(&endpoints.subsets.unwrap_or_default(), &port);
    if choices.is_empty() {
        return Err(none());
    }
    let (pod, ip, port) = choices.swap_remove(rand::rng().random_range(0..choices.len()));
    // Upstream: an address that is not a pod's could lead anywhere, so it is not followed.
    let pod: Pod = get(call, "Pod", &pod).await.map_err(|_| none())?;
    let ips = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    if !ips.map(|known| known.ip.as_str()).any(|known| known == ip) {
        return Err(none());
    }
    Ok(Address { scheme: place.scheme, ip: proxyable(&ip)?, port })
}

/// Whether the port of a node that is meant is its kubelet's: the one that the node tells, and upstream's, which is what
/// clients write that do not ask.
pub(super) fn is_kubelet(node: &Node, place: &Place<'_>) -> bool {
    let endpoints = node.status.as_ref().and_then(|status| status.daemon_endpoints.as_ref());
    let told = endpoints.and_then(|endpoints| endpoints.kubelet_endpoint.as_ref()).map_or(0, |endpoint| endpoint.port);
    place.port.is_empty()
        || place.port.parse().is_ok_and(|port: i32| port > 0 && (port == i32::from(KUBELET_PORT) || port == told))
}

/// A port of a node's address.
pub(super) fn node(node: Node, place: &Place<'_>) -> Result<Address, ApiError> {
    let addresses = node.status.into_iter().flat_map(|status| status.addresses.unwrap_or_default());
    let internal = addresses.into_iter().find(|address| address.type_ == "InternalIP");
    let ip = internal.map(|address| address.address).unwrap_or_default();
    Ok(Address { scheme: place.scheme, ip: proxyable(&ip)?, port: number(place.port)? })
}

/// The object of a kind of the core group with that name, in the request's namespace.
pub(super) async fn get<T: DeserializeOwned>(call: &Call<'_>, kind: &str, name: &str) -> Result<T, ApiError> {
    let resources = call.registry.resources();
    let resource = resources.by_kind("", "v1", kind).ok_or_else(ApiError::no_such_resource)?;
    let target = Target::object(resource, &call.target.namespace, name);
    let entry = call.registry.get(&target, "").await?;
    serde_json::from_slice(&entry.value).map_err(ApiError::internal)
}

/// The ready pods behind the port called `name`: pod, address, port.
fn addresses(subsets: &[EndpointSubset], name: &str) -> Vec<(String, String, u16)> {
    let mut found = Vec::new();
    for subset in subsets {
        let ports = subset.ports.iter().flatten();
        let Some(port) = ports.into_iter().find(|port| port.name.as_deref().unwrap_or_default() == name) else {
            continue;
        };
        let Ok(port) = u16::try_from(port.port) else { continue };
        for address in subset.addresses.iter().flatten() {
            let target = address.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
            if let Some(pod) = target.and_then(|target| target.name.clone()) {
                found.push((pod, address.ip.clone(), port));
            }
        }
    }
    found
}

fn usual(scheme: Scheme) -> u16 {
    match scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    }
}

fn number(port: &str) -> Result<u16, ApiError> {
    let port = port.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| ApiError::bad_request("invalid port"))
}

/// Upstream's rule: nobody is led to this machine's own loopback, nor to link-local addresses.
fn proxyable(ip: &str) -> Result<IpAddr, ApiError> {
    let ip: Option<IpAddr> = ip.parse().ok();
    let allowed = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast())
        }
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast()),
    };
    ip.filter(allowed).ok_or_else(|| ApiError::bad_request("address not allowed"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names() {
        let check = |text: &str, expected: Option<(Scheme, &str, &str)>| {
            let expected = expected.map(|(scheme, name, port)| Place { scheme, name, port });
            assert_eq!(Place::parse(text), expected, "{text}");
        };
        check("web", Some((Scheme::Http, "web", "")));
        check("web:80", Some((Scheme::Http, "web", "80")));
        check("web:http", Some((Scheme::Http, "web", "http")));
        check("https:web:443", Some((Scheme::Https, "web", "443")));
        check("https:web:", Some((Scheme::Https, "web", "")));
        check("ftp:web:1", None);
        check("a:b:c:d", None);
        check(":80", None);
        check("", None);
    }

    #[test]
    fn the_port_of_the_kubelet() {
        let node: Node = serde_json::from_value(
            json!({ "status": { "daemonEndpoints": { "kubeletEndpoint": { "Port": 40123 } } } }),
        )
        .unwrap();
        for (port, of_told, of_silent) in [
            ("", true, true),
            ("10250", true, true),
            ("40123", true, false),
            ("0", false, false),
            ("9100", false, false),
            ("x", false, false),
        ] {
            let place = Place { scheme: Scheme::Https, name: "n", port };
            let found = (is_kubelet(&node, &place), is_kubelet(&Node::default(), &place));
            assert_eq!(found, (of_told, of_silent), "{port}");
        }
    }

    #[test]
    fn addresses_that_lead_home_are_refused() {
        for (ip, allowed) in
            [("10.1.2.3", true), ("127.0.0.1", false), ("169.254.1.1", false), ("::1", false), ("", false)]
        {
            assert_eq!(proxyable(ip).is_ok(), allowed, "{ip}");
        }
    }

    #[test]
    fn only_pods_behind_the_named_port() {
        let subsets: Vec<EndpointSubset> = serde_json::from_value(json!([
            {
                "addresses": [
                    { "ip": "10.0.0.1", "targetRef": { "kind": "Pod", "name": "a" } },
                    { "ip": "10.0.0.2" },
                ],
                "notReadyAddresses": [{ "ip": "10.0.0.3", "targetRef": { "kind": "Pod", "name": "c" } }],
                "ports": [{ "name": "http", "port": 8080 }, { "name": "other", "port": 9090 }],
            },
        ]))
        .unwrap();
        assert_eq!(addresses(&subsets, "http"), [("a".to_owned(), "10.0.0.1".to_owned(), 8080)]);
        assert_eq!(addresses(&subsets, "none"), []);
    }
}
