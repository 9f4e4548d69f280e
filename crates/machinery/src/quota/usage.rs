//! What one object uses.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PersistentVolumeClaim, Pod, PodSpec, ResourceRequirements, Service};

use super::{Amounts, Counted, parse};
use crate::quantity::{Format, Quantity};

/// Resources of which every container must say how much it needs, once a quota limits them.
const COMPULSORY: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const HUGE_PAGES: &str = "hugepages-";
const REQUESTS: &str = "requests.";
const LIMITS: &str = "limits.";
/// Between the name of a class and what is counted of it.
const BY_CLASS: &str = ".storageclass.storage.k8s.io/";
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Kinds that may be limited by their bare name, for history's sake.
const BARE: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

fn one() -> Quantity {
    Quantity::from_units(1, Format::DecimalSi)
}

/// What an object uses, by all the names under which that may be limited.
#[must_use]
pub fn usage(object: Counted<'_>) -> Amounts {
    match object {
        Counted::Pod(pod) => pod_usage(pod),
        Counted::Service(service) => service_usage(service),
        Counted::Claim(claim) => claim_usage(claim),
        Counted::Other(resource) => {
            let mut amounts = Amounts::from([(format!("count/{resource}"), one())]);
            if resource.group.is_empty() && BARE.contains(&resource.resource.as_ref()) {
                amounts.insert(resource.resource.clone().into_owned(), one());
            }
            amounts
        }
    }
}

/// Whether a limit of that name is about objects of this kind at all.
#[must_use]
pub fn concerns(object: Counted<'_>, name: &str) -> bool {
    match object {
        Counted::Pod(_) => {
            let bare = name.strip_prefix(REQUESTS).or_else(|| name.strip_prefix(LIMITS)).unwrap_or(name);
            let extended = name.strip_prefix(REQUESTS).is_some_and(is_extended);
            let huge = !name.starts_with(LIMITS) && bare.starts_with(HUGE_PAGES);
            matches!(name, "pods" | "count/pods") || COMPUTE.contains(&bare) || huge || extended
        }
        Counted::Service(_) => {
            matches!(name, "services" | "count/services" | "services.nodeports" | "services.loadbalancers")
        }
        Counted::Claim(_) => {
            matches!(name, "persistentvolumeclaims" | "count/persistentvolumeclaims" | "requests.storage")
                || name.contains(BY_CLASS)
        }
        Counted::Other(_) => usage(object).contains_key(name),
    }
}

/// What containers of a pod leave open that these limits need to know.
#[must_use]
pub fn missing(object: Counted<'_>, restricted: &[&str]) -> Option<String> {
    let Counted::Pod(pod) = object else { return None };
    let spec = pod.spec.as_ref()?;
    if spec.resources.as_ref().is_some_and(|own| !empty(own.requests.as_ref()) || !empty(own.limits.as_ref())) {
        return None;
    }
    let mut open: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in containers(spec) {
        let said = |part: Part| parse(container.resources.as_ref().and_then(part));
        let mut known = Amounts::new();
        compute(&mut known, &said(requests), &said(limits));
        for name in restricted.iter().filter(|name| COMPULSORY.contains(name) && !known.contains_key(**name)) {
            open.entry(name).or_default().insert(&container.name);
        }
    }
    let lines: Vec<String> = open
        .into_iter()
        .map(|(name, containers)| format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(",")))
        .collect();
    (!lines.is_empty()).then(|| format!("must specify {}", lines.join("; ")))
}

fn empty<T>(map: Option<&BTreeMap<String, T>>) -> bool {
    map.is_none_or(BTreeMap::is_empty)
}

fn pod_usage(pod: &Pod) -> Amounts {
    let mut amounts = Amounts::from([("count/pods".to_owned(), one())]);
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let Some(spec) = pod.spec.as_ref().filter(|_| !matches!(phase, Some("Succeeded" | "Failed"))) else {
        return amounts;
    };
    amounts.insert("pods".to_owned(), one());
    compute(&mut amounts, &pod_totals(spec, requests), &pod_totals(spec, limits));
    amounts
}

/// The names under which requests and limits count.
fn compute(amounts: &mut Amounts, requests: &Amounts, limits: &Amounts) {
    for (name, amount) in requests {
        if COMPUTE.contains(&name.as_str()) || name.starts_with(HUGE_PAGES) {
            amounts.insert(name.clone(), *amount);
        }
        if COMPUTE.contains(&name.as_str()) || name.starts_with(HUGE_PAGES) || is_extended(name) {
            amounts.insert(format!("{REQUESTS}{name}"), *amount);
        }
    }
    for (name, amount) in limits.iter().filter(|(name, _)| COMPUTE.contains(&name.as_str())) {
        amounts.insert(format!("{LIMITS}{name}"), *amount);
    }
}

/// Somebody else's resource, such as `nvidia.com/gpu`.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with(REQUESTS)
}

type Part = fn(&ResourceRequirements) -> Option<&BTreeMap<String, crate::quota::WireQuantity>>;

fn requests(of: &ResourceRequirements) -> Option<&BTreeMap<String, crate::quota::WireQuantity>> {
    of.requests.as_ref()
}

fn limits(of: &ResourceRequirements) -> Option<&BTreeMap<String, crate::quota::WireQuantity>> {
    of.limits.as_ref()
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten())
}

/// What a pod asks for as a whole.
#[must_use]
pub fn pod_requests(spec: &PodSpec) -> Amounts {
    pod_totals(spec, requests)
}

/// What a pod is limited to as a whole.
#[must_use]
pub fn pod_limits(spec: &PodSpec) -> Amounts {
    pod_totals(spec, limits)
}

/// The sum of the long-running containers, or the largest step of the initialisation with the sidecars started before
/// it; what the pod says as a whole goes before both.
fn pod_totals(spec: &PodSpec, part: Part) -> Amounts {
    let said = |container: &Container| parse(container.resources.as_ref().and_then(part));
    let mut running = Amounts::new();
    let mut peak = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        for (name, amount) in said(container) {
            let step = running.get(&name).copied().unwrap_or_default() + amount;
            raise(&mut peak, &name, step);
            if sidecar {
                running.insert(name, step);
            }
        }
    }
    for container in &spec.containers {
        for (name, amount) in said(container) {
            let sum = running.get(&name).copied().unwrap_or_default() + amount;
            running.insert(name, sum);
        }
    }
    for (name, amount) in peak {
        raise(&mut running, &name, amount);
    }
    running.extend(parse(spec.resources.as_ref().and_then(part)));
    for (name, amount) in parse(spec.overhead.as_ref()) {
        if let Some(sum) = running.get_mut(&name) {
            *sum += amount;
        } else {
            running.insert(name, amount);
        }
    }
    running
}

fn raise(amounts: &mut Amounts, name: &str, amount: Quantity) {
    match amounts.get_mut(name) {
        Some(known) if *known < amount => *known = amount,
        Some(_) => {}
        None => {
            amounts.insert(name.to_owned(), amount);
        }
    }
}

fn service_usage(service: &Service) -> Amounts {
    let spec = service.spec.as_ref();
    let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let kind = spec.and_then(|spec| spec.type_.as_deref()).unwrap_or_default();
    let chosen = || ports.iter().filter(|port| port.node_port.is_some_and(|port| port != 0)).count();
    let (node_ports, balancers) = match kind {
        "NodePort" => (ports.len(), 0),
        "LoadBalancer" if spec.and_then(|spec| spec.allocate_load_balancer_node_ports) == Some(false) => (chosen(), 1),
        "LoadBalancer" => (ports.len(), 1),
        _ => (0, 0),
    };
    let count = |number: usize| Quantity::from_units(i64::try_from(number).unwrap_or(i64::MAX), Format::DecimalSi);
    Amounts::from([
        ("count/services".to_owned(), one()),
        ("services".to_owned(), one()),
        ("services.nodeports".to_owned(), count(node_ports)),
        ("services.loadbalancers".to_owned(), count(balancers)),
    ])
}

fn claim_usage(claim: &PersistentVolumeClaim) -> Amounts {
    let name = "persistentvolumeclaims";
    let mut amounts = Amounts::from([(format!("count/{name}"), one()), (name.to_owned(), one())]);
    let spec = claim.spec.as_ref();
    let annotated = claim.metadata.annotations.as_ref().and_then(|all| all.get(BETA_CLASS));
    let class = annotated.or_else(|| spec.and_then(|spec| spec.storage_class_name.as_ref()));
    let class = class.filter(|class| !class.is_empty());
    if let Some(class) = class {
        amounts.insert(format!("{class}{BY_CLASS}{name}"), one());
    }
    let asked = spec.and_then(|spec| spec.resources.as_ref()).and_then(|resources| resources.requests.as_ref());
    let asked = parse(asked).get("storage").copied();
    // While a claim grows, what it has been given already counts, if that is more.
    let given = claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref());
    let given = parse(given).get("storage").copied();
    if let Some(storage) = asked.max(given) {
        amounts.insert("requests.storage".to_owned(), storage);
        if let Some(class) = class {
            amounts.insert(format!("{class}{BY_CLASS}requests.storage"), storage);
        }
    }
    amounts
}
