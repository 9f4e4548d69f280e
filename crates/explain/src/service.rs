//! A Service: how it is reached, its endpoints, and for each pod that it selects why it is none.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::selector::LabelSelector;
use machinery::well_known::SERVICE_NAME;

use crate::common::latest_event;
use crate::explanation::{Explanation, Step};
use crate::meta::{has_ended, is_deleting, is_ready, name};
use crate::pod;
use crate::related::Related;
use crate::words::{count, given, list, number, reason_and_message, written};

/// So many endpoints are named.
const ENDPOINTS: usize = 8;

pub(crate) fn explain(out: &mut Explanation, service: &Service, related: &Related, _now: Timestamp) {
    let Some(spec) = &service.spec else { return };
    let type_ = spec.type_.as_deref().unwrap_or("ClusterIP");
    if type_ == "ExternalName" {
        let target = spec.external_name.as_deref().unwrap_or_default();
        out.wants(format!("to be another name of {target} (ExternalName)"));
        out.next(Step::new("The cluster's DNS", "answers with that name; nothing else acts on it"));
        return;
    }
    addresses(out, spec, type_);
    endpoints(out, service, spec, related);
    if is_deleting(&service.metadata) {
        return;
    }
    let selector = spec.selector.clone().unwrap_or_default();
    if selector.is_empty() {
        out.wants("endpoints that somebody else writes: it has no selector");
    } else {
        let text = selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
        out.wants(format!("the ready pods with the labels {text}"));
        if related.knows("pods") {
            pods(out, spec, &LabelSelector::from_map(&selector), &text, related);
        }
    }
    if type_ == "LoadBalancer" {
        load_balancer(out, service, spec, related);
    }
    if out.next.is_empty() {
        out.next(Step::new("Nobody", "needs to act: the endpoints controller and the proxy follow its pods"));
    }
}

fn port_text(port: &ServicePort) -> String {
    let target = match &port.target_port {
        None => port.port.to_string(),
        Some(target) => written(target),
    };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let node = port.node_port.filter(|port| *port > 0).map(|port| format!(", node port {port}")).unwrap_or_default();
    format!("port {}/{protocol} to {target} of the pods{node}", port.port)
}

fn addresses(out: &mut Explanation, spec: &ServiceSpec, type_: &str) {
    match given(spec.cluster_ip.as_ref()) {
        Some("None") => out.wants("no address of its own: its name means the pods' addresses (headless)"),
        Some(address) => out.has(format!("the cluster IP {address} (type {type_})")),
        None => out.has(format!("no cluster IP yet (type {type_})")),
    }
    for port in spec.ports.iter().flatten() {
        out.wants(port_text(port));
    }
    for (field, what) in [
        (spec.external_traffic_policy.as_ref(), "traffic from outside"),
        (spec.internal_traffic_policy.as_ref(), "traffic from inside"),
    ] {
        if field.map(String::as_str) == Some("Local") {
            out.wants(format!("{what} for pods of the same node only (Local)"));
        }
    }
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        out.wants("each client to stay with one pod (sessionAffinity ClientIP)");
    }
    if spec.publish_not_ready_addresses == Some(true) {
        out.wants("pods that are not ready, too (publishNotReadyAddresses)");
    }
}

fn endpoints(out: &mut Explanation, service: &Service, spec: &ServiceSpec, related: &Related) {
    if !related.knows("endpointslices.discovery.k8s.io") {
        return;
    }
    let is_its = |slice: &EndpointSlice| {
        let label = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
        label.map(String::as_str) == Some(name(&service.metadata))
    };
    let slices: Vec<EndpointSlice> =
        related.all::<EndpointSlice>("endpointslices.discovery.k8s.io").into_iter().filter(is_its).collect();
    let mut ready = Vec::new();
    let mut other = 0;
    for endpoint in slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()) {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        if conditions.ready != Some(false) {
            let target = endpoint.target_ref.as_ref().and_then(|target| target.name.clone());
            let address = endpoint.addresses.first().cloned().unwrap_or_default();
            ready.push(target.map_or_else(|| address.clone(), |target| format!("{target} at {address}")));
        } else {
            other += 1;
        }
    }
    let what = if ready.is_empty() {
        "no ready endpoint".to_owned()
    } else {
        format!("{}: {}", count(number(ready.len()), "ready endpoint"), list(&ready))
    };
    out.has(format!(
        "{what}{}",
        if other > 0 { format!("; {} not ready", count(other, "endpoint")) } else { String::new() }
    ));
    match given(spec.cluster_ip.as_ref()) {
        Some("None") | None => {}
        Some(address) if ready.is_empty() => {
            out.why(format!("connections to {address} are refused as long as it has no ready endpoint"));
        }
        Some(_) => {}
    }
}

/// Why selected pods are no endpoints.
fn pods(out: &mut Explanation, spec: &ServiceSpec, selector: &LabelSelector, text: &str, related: &Related) {
    let all = related.all::<Pod>("pods");
    let selected: Vec<&Pod> = all.iter().filter(|pod| selector.matches_option(pod.metadata.labels.as_ref())).collect();
    if selected.is_empty() {
        out.next(
            Step::new("The endpoints controller", "adds endpoints").waits_for(format!("a pod with the labels {text}")),
        );
        out.why(format!(
            "no pod of its namespace has the labels {text}; there are {} in it",
            count(number(all.len()), "pod")
        ));
        return;
    }
    let mut more = 0;
    let mut shown = 0;
    for pod in selected {
        let called = name(&pod.metadata);
        let Some(why) = not_an_endpoint(pod, spec) else { continue };
        if shown == ENDPOINTS {
            more += 1;
            continue;
        }
        shown += 1;
        if has_ended(pod) || is_deleting(&pod.metadata) {
            out.why(format!("{called} is no endpoint: {why}"));
        } else {
            let step = Step::new("The endpoints controller", format!("makes {called} a ready endpoint"));
            out.next(step.waits_for(format!("this: {why} (coracle explain pod/{called})")));
        }
    }
    if more > 0 {
        out.why(format!("{} are no ready endpoints either", count(more, "other pod")));
    }
}

/// Why a pod that is selected is no ready endpoint.
fn not_an_endpoint(pod: &Pod, spec: &ServiceSpec) -> Option<String> {
    let tolerated = spec.publish_not_ready_addresses == Some(true);
    if has_ended(pod) || is_deleting(&pod.metadata) || (!is_ready(pod) && !tolerated) {
        return pod::not_ready(pod);
    }
    if given(pod.status.as_ref().and_then(|status| status.pod_ip.as_ref())).is_none() {
        return Some("it has no address yet".to_owned());
    }
    let containers =
        pod.spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let names: Vec<&str> =
        containers.flat_map(|it| it.ports.iter().flatten()).filter_map(|port| port.name.as_deref()).collect();
    for port in spec.ports.iter().flatten() {
        if let Some(IntOrString::String(target)) = &port.target_port
            && !names.contains(&target.as_str())
        {
            return Some(format!("none of its ports is called {target}, as the targetPort of port {} says", port.port));
        }
    }
    None
}

fn load_balancer(out: &mut Explanation, service: &Service, spec: &ServiceSpec, related: &Related) {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let addresses: Vec<String> = status
        .iter()
        .flat_map(|status| status.ingress.iter().flatten())
        .filter_map(|ingress| ingress.ip.clone().or_else(|| ingress.hostname.clone()))
        .collect();
    if !addresses.is_empty() {
        out.has(format!("the load balancer's address {}", list(&addresses)));
        return;
    }
    match given(spec.load_balancer_class.as_ref()) {
        Some(class) => out.next(
            Step::new(format!("The load balancer of the class {class}"), "gives it an address")
                .waits_for("its controller, which has to be installed"),
        ),
        None => out.next(Step::new("The load balancer's controller", "gives it an address")),
    }
    let reasons = ["SyncLoadBalancerFailed", "AllocationFailed", "FailedAllocation"];
    if let Some(event) = latest_event(related, "Service", name(&service.metadata), &reasons) {
        out.why(reason_and_message(event.reason.as_ref(), event.message.as_ref()));
    }
}
