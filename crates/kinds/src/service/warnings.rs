//! What is legal in a Service and does nothing, or will do nothing some day.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use crate::common::{entry, list, text};

const OLD_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";

/// Of a Service that is created or changed.
pub(super) fn of_service(service: &Service, old: Option<&Service>) -> Vec<String> {
    let mut warnings = Vec::new();
    if entry(&service.metadata.annotations, OLD_HINTS).is_some() {
        warnings.push(format!("annotation {OLD_HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"));
    }
    let Some(spec) = &service.spec else { return warnings };
    let headless = text(&spec.type_) == "ClusterIP" && text(&spec.cluster_ip) == "None";
    let elsewhere = text(&spec.type_) == "ExternalName";
    let external = !list(&spec.external_ips).is_empty();
    let ignored = [
        (headless && !text(&spec.load_balancer_ip).is_empty(), "spec.loadBalancerIP is ignored for headless services"),
        (headless && external, "spec.externalIPs is ignored for headless services"),
        (headless && text(&spec.session_affinity) != "None", "spec.SessionAffinity is ignored for headless services"),
        (
            external && !headless && !elsewhere,
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
        ),
        (elsewhere && external, "spec.externalIPs is ignored when spec.type is \"ExternalName\""),
        (
            !elsewhere && !text(&spec.external_name).is_empty(),
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
        ),
        (
            text(&spec.traffic_distribution) == "PreferClose",
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ),
    ];
    warnings.extend(ignored.into_iter().filter(|(found, _)| *found).map(|(_, text)| text.to_owned()));
    if old.is_none_or(|old| old.spec.as_ref() != Some(spec)) {
        warnings.extend(unenforced(spec));
    }
    warnings
}

/// What nothing here does. Said once, when it is asked for: controllers write Services often.
fn unenforced(spec: &ServiceSpec) -> impl Iterator<Item = String> {
    [
        (
            text(&spec.external_traffic_policy) == "Local",
            "spec.externalTrafficPolicy: not enforced: endpoints of all nodes are used, as with Cluster",
        ),
        (
            text(&spec.internal_traffic_policy) == "Local",
            "spec.internalTrafficPolicy: not enforced: endpoints of all nodes are used, as with Cluster",
        ),
    ]
    .into_iter()
    .filter(|(found, _)| *found)
    .map(|(_, text)| text.to_owned())
}
