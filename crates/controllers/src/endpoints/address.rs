//! What both forms of endpoints share: which Pods a Service reaches, at which addresses and ports.

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{meta, pods};

/// The label that marks endpoints of a Service without a cluster IP.
pub(crate) const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// When what the endpoints follow changed: for measuring how long the change takes to the proxies.
pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Whether this controller is responsible for the endpoints of `service`: it has a selector and is no mere alias.
pub(crate) fn is_managed(service: &Service) -> bool {
    let Some(spec) = &service.spec else {
        return false;
    };
    spec.type_.as_deref() != Some("ExternalName") && spec.selector.as_ref().is_some_and(|selector| !selector.is_empty())
}

/// Whether `service` has no cluster IP, so that clients find the Pods themselves.
pub(crate) fn is_headless(spec: &ServiceSpec) -> bool {
    matches!(spec.cluster_ip.as_deref(), None | Some("" | "None"))
}

/// Whether Pods that are not ready count as ready.
pub(crate) fn tolerates_unready(spec: &ServiceSpec) -> bool {
    spec.publish_not_ready_addresses == Some(true)
}

/// The addresses of `pod` of one family, if it may be reached at all.
pub(crate) fn addresses(pod: &Pod, ipv6: bool) -> Vec<String> {
    let Some(status) = pod.status.as_ref().filter(|_| !pods::is_finished(pod)) else {
        return Vec::new();
    };
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut found: Vec<String> = all.filter(|ip| of_family(ip, ipv6)).map(str::to_owned).collect();
    if let Some(ip) = status.pod_ip.as_deref().filter(|ip| found.is_empty() && of_family(ip, ipv6)) {
        found.push(ip.to_owned());
    }
    found
}

fn of_family(ip: &str, ipv6: bool) -> bool {
    !ip.is_empty() && ip.contains(':') == ipv6
}

/// The name by which DNS knows `pod` within `service`: its `hostname`, if its `subdomain` is this Service.
pub(crate) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|hostname| !hostname.is_empty())?;
    (spec.subdomain.as_deref() == service.metadata.name.as_deref()).then_some(hostname)
}

/// The reference that names `pod` in an endpoint.
pub(crate) fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The number of the port that `port` means on `pod`. Nothing if it is named and `pod` has no port of that name.
pub(crate) fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        // Zero is what is left out.
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let mut named = ports.filter(|candidate| {
        candidate.name.as_deref() == Some(name) && candidate.protocol.as_deref().unwrap_or("TCP") == protocol
    });
    named.next().map(|port| port.container_port)
}

/// When `pod` last changed in a way that matters: when it became ready or ceased to be.
pub(crate) fn changed_at(pod: &Pod) -> Option<jiff::Timestamp> {
    Some(pods::condition(pod, "Ready")?.last_transition_time.as_ref()?.0)
}

/// Whether a change of a Pod from `old` to `new` can change the endpoints of a Service that selects it.
pub(crate) fn matters(old: &Pod, new: &Pod) -> bool {
    let spec = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        spec.map(|spec| (spec.node_name.clone(), spec.hostname.clone(), spec.subdomain.clone()))
    };
    let ips = |pod: &Pod| {
        let status = pod.status.as_ref();
        status.map(|status| (status.pod_ip.clone(), status.pod_ips.clone()))
    };
    meta::uid(old) != meta::uid(new)
        || old.metadata.labels != new.metadata.labels
        || meta::is_deleting(old) != meta::is_deleting(new)
        || pods::is_finished(old) != pods::is_finished(new)
        || pods::is_ready(old) != pods::is_ready(new)
        || ips(old) != ips(new)
        || spec(old) != spec(new)
}
