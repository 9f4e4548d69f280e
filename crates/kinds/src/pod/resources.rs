//! Compute resources of containers and pods: names, quantities, quality-of-service class.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use machinery::field::{ErrorList, Path};
use machinery::quantity::Quantity;
use machinery::validate;

use crate::check::{NEGATIVE, Report, dns_label};
use crate::common::{count, entries, entry, list, quantity, text};

/// What counts for the quality-of-service class.
const QOS_RESOURCES: [&str; 2] = ["cpu", "memory"];
const HUGE_PAGES: &str = "hugepages-";

/// Resources that have a meaning without a prefix.
const STANDARD: [&str; 22] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
    "requests.storage",
    "storage",
    "count",
    "resourceclaims",
];

/// Resources of which there are only whole ones.
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Validates the requests and limits of a container; `claims` are the names of the pod's resource claims.
pub(super) fn validate_container(
    errors: &mut ErrorList,
    path: &Path,
    resources: &ResourceRequirements,
    claims: &BTreeSet<&str>,
) {
    validate_requirements(errors, path, resources, container_resource_name);
    claim_names(errors, &path.child("claims"), resources, claims);
}

/// Validates the requests and limits of a pod as a whole, and against those of its containers.
pub(super) fn validate_pod(errors: &mut ErrorList, path: &Path, spec: &PodSpec) {
    let Some(resources) = &spec.resources else { return };
    if resources.claims.is_some() {
        errors.forbidden(&path.child("claims"), "claims cannot be set for Resources at pod-level");
    }
    validate_requirements(errors, path, resources, pod_resource_name);
    for (name, sum) in container_requests(spec) {
        let requested = entry(&resources.requests, name);
        if requested.and_then(quantity).is_none_or(|requested| sum > requested) {
            errors.invalid(
                &path.child("requests").key(name),
                requested.map_or("0", |requested| &requested.0),
                format!("must be greater than or equal to aggregate container requests of {sum}"),
            );
        }
    }
    for (index, container) in spec.containers.iter().enumerate() {
        let limits = container.resources.as_ref().map(|resources| &resources.limits);
        for (name, limit) in limits.into_iter().flat_map(entries) {
            if let Some(whole) = entry(&resources.limits, name)
                && quantity(limit) > quantity(whole)
            {
                errors.invalid(
                    &path.child("containers").index(index).key(name).child("limits"),
                    &limit.0,
                    format!("must be less than or equal to pod limits of {}", whole.0),
                );
            }
        }
    }
}

/// Validates a quantity of a named resource: not negative, whole where the resource is counted.
pub(crate) fn validate_quantity(errors: &mut ErrorList, path: &Path, name: &str, wire: &WireQuantity) {
    let Some(value) = quantity(wire) else {
        errors.invalid(
            path,
            &wire.0,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        );
        return;
    };
    if value < Quantity::default() {
        errors.invalid(path, &wire.0, NEGATIVE);
    }
    if (COUNTED.contains(&name) || is_extended(name)) && value.milli_value() % 1000 != 0 {
        errors.invalid(path, &wire.0, "must be an integer");
    }
}

/// Validates the name of a resource that anything may count.
pub(crate) fn resource_name(errors: &mut ErrorList, path: &Path, name: &str) -> bool {
    let messages = validate::qualified_name(name);
    if !messages.is_empty() {
        errors.messages(path, name, messages);
        return false;
    }
    if !name.contains('/') && !STANDARD.contains(&name) && !name.starts_with(HUGE_PAGES) {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
        return false;
    }
    true
}

/// Validates the name of a resource a container may ask for.
pub(crate) fn container_resource_name(errors: &mut ErrorList, path: &Path, name: &str) {
    resource_name(errors, path, name);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !name.starts_with(HUGE_PAGES) {
            errors.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

fn pod_resource_name(errors: &mut ErrorList, path: &Path, name: &str) {
    if resource_name(errors, path, name) && !QOS_RESOURCES.contains(&name) && !name.starts_with(HUGE_PAGES) {
        errors.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

fn validate_requirements(
    errors: &mut ErrorList,
    path: &Path,
    resources: &ResourceRequirements,
    validate_name: fn(&mut ErrorList, &Path, &str),
) {
    let (limits, requests) = (path.child("limits"), path.child("requests"));
    for (side, amounts) in [(&limits, &resources.limits), (&requests, &resources.requests)] {
        let is_request = std::ptr::eq(side, &requests);
        for (name, wire) in entries(amounts) {
            let path = side.key(name);
            validate_name(errors, &path, name);
            validate_quantity(errors, &path, name, wire);
            if is_request {
                request_within_limit(errors, side, &limits, name, wire, entry(&resources.limits, name));
            }
            if let Some(size) = name.strip_prefix(HUGE_PAGES)
                && !is_multiple(wire, size)
            {
                errors.invalid(&path, &wire.0, format!("{} is not positive integer multiple of {name}", wire.0));
            }
        }
    }
    let names = || entries(&resources.limits).chain(entries(&resources.requests)).map(|(name, _)| name.as_str());
    if names().any(|name| name.starts_with(HUGE_PAGES)) && !names().any(|name| QOS_RESOURCES.contains(&name)) {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

fn request_within_limit(
    errors: &mut ErrorList,
    requests: &Path,
    limits: &Path,
    name: &str,
    request: &WireQuantity,
    limit: Option<&WireQuantity>,
) {
    let overcommit = is_native(name) && !name.starts_with(HUGE_PAGES);
    match limit {
        None if !overcommit => errors.required(limits, "Limit must be set for non overcommitable resources"),
        None => {}
        Some(limit) if !overcommit && quantity(request) != quantity(limit) => {
            errors.invalid(requests, &request.0, format!("must be equal to {name} limit of {}", limit.0));
        }
        Some(limit) if quantity(request) > quantity(limit) => {
            errors.invalid(requests, &request.0, format!("must be less than or equal to {name} limit of {}", limit.0));
        }
        Some(_) => {}
    }
}

fn claim_names(errors: &mut ErrorList, path: &Path, resources: &ResourceRequirements, known: &BTreeSet<&str>) {
    let mut seen = BTreeSet::new();
    for (index, claim) in list(&resources.claims).iter().enumerate() {
        let path = path.index(index);
        if claim.name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        let request = text(&claim.request);
        if !request.is_empty() {
            dns_label(errors, &path.child("request"), request);
        }
        if seen.contains(&(claim.name.as_str(), "")) || !seen.insert((claim.name.as_str(), request)) {
            errors.duplicate(&path, &claim.name);
        }
        if !known.contains(claim.name.as_str()) {
            errors.not_found(&path, &claim.name);
        }
    }
}

/// Without a prefix, or with one of Kubernetes' own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// A resource of somebody else's making, such as `nvidia.com/gpu`.
fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && validate::qualified_name(&format!("requests.{name}")).is_empty()
}

fn is_multiple(wire: &WireQuantity, page: &str) -> bool {
    let (Some(amount), Ok(page)) = (quantity(wire), page.parse::<Quantity>()) else { return true };
    page.value() > 0 && amount.value() % page.value() == 0
}

/// The quality-of-service class: `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn qos_class(spec: &PodSpec) -> &'static str {
    let holders: Vec<&ResourceRequirements> = match &spec.resources {
        Some(resources) if count(&resources.limits) + count(&resources.requests) > 0 => vec![resources],
        _ => all_containers(spec).filter_map(|container| container.resources.as_ref()).collect(),
    };
    let pod_level = holders.len() == 1 && spec.resources.as_ref().is_some_and(|own| std::ptr::eq(own, holders[0]));
    let mut guaranteed = pod_level || holders.len() == all_containers(spec).count();
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    for resources in holders {
        add_positive(&mut requests, &resources.requests);
        let bounded = add_positive(&mut limits, &resources.limits);
        guaranteed &= bounded.len() == QOS_RESOURCES.len();
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if guaranteed && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Adds the positive amounts of CPU and memory; which of the two there were.
fn add_positive<'a>(
    sums: &mut BTreeMap<&'a str, Quantity>,
    amounts: &'a Option<BTreeMap<String, WireQuantity>>,
) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    for (name, wire) in entries(amounts) {
        if let Some(amount) = quantity(wire)
            && QOS_RESOURCES.contains(&name.as_str())
            && amount > Quantity::default()
        {
            found.insert(name.as_str());
            *sums.entry(name).or_default() += amount;
        }
    }
    found
}

fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers.iter().chain(list(&spec.init_containers))
}

/// What the containers of a pod ask for together: the sum of the long-running ones, or the largest step of the
/// initialisation (with the sidecars started before it) where that is more.
pub(crate) fn container_requests(spec: &PodSpec) -> BTreeMap<&str, Quantity> {
    let mut running: BTreeMap<&str, Quantity> = BTreeMap::new();
    let mut peak: BTreeMap<&str, Quantity> = BTreeMap::new();
    for container in list(&spec.init_containers) {
        let sidecar = text(&container.restart_policy) == "Always";
        for (name, amount) in requests(container) {
            let step = running.get(name).copied().unwrap_or_default() + amount;
            if sidecar {
                running.insert(name, step);
            }
            let highest = peak.entry(name).or_default();
            if step > *highest {
                *highest = step;
            }
        }
    }
    for container in &spec.containers {
        for (name, amount) in requests(container) {
            *running.entry(name).or_default() += amount;
        }
    }
    for (name, amount) in peak {
        let sum = running.entry(name).or_default();
        if amount > *sum {
            *sum = amount;
        }
    }
    running
}

fn requests(container: &Container) -> impl Iterator<Item = (&str, Quantity)> {
    container
        .resources
        .iter()
        .flat_map(|resources| entries(&resources.requests))
        .filter_map(|(name, wire)| Some((name.as_str(), quantity(wire)?)))
}

/// Gives a pod-level request its default where only a limit is set: what the containers ask for, else the limit.
pub(super) fn default_pod_level(spec: &mut PodSpec) {
    let Some(limits) = spec.resources.as_ref().and_then(|resources| resources.limits.clone()) else { return };
    if limits.is_empty() {
        return;
    }
    let sums: BTreeMap<String, WireQuantity> = container_requests(spec)
        .into_iter()
        .filter(|(name, _)| QOS_RESOURCES.contains(name))
        .map(|(name, sum)| (name.to_owned(), WireQuantity(sum.to_string())))
        .collect();
    if let Some(resources) = &mut spec.resources {
        let requests = resources.requests.get_or_insert_with(BTreeMap::new);
        for (name, amount) in sums.into_iter().chain(limits) {
            requests.entry(name).or_insert(amount);
        }
    }
}
