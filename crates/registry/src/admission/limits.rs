//! LimitRanger: containers get the requests and limits of their namespace, and nothing is outside its bounds.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, ResourceRequirements,
};
use machinery::quantity::Quantity;
use machinery::quota::{self, Amounts};
use machinery::status::ApiError;

use super::{Attributes, Operation};
use crate::Registry;
use crate::kind::Subresource;
use crate::ops::Object;

/// Says in a pod what was filled in.
const NOTE: &str = "kubernetes.io/limit-ranger";

/// The bounds of a namespace that hold for a write; none for most.
fn bounds(
    registry: &Registry,
    attributes: &Attributes<'_>,
    object: &dyn Object,
    old: Option<&dyn Object>,
) -> Vec<LimitRangeItem> {
    let is_pod = object.as_any().is::<Pod>();
    let concerned = match (attributes.operation, attributes.subresource) {
        (Operation::Create, None) => is_pod || object.as_any().is::<PersistentVolumeClaim>(),
        // What a pod asks for changes through `resize` only.
        (Operation::Update, None) => object.as_any().is::<PersistentVolumeClaim>(),
        (Operation::Update, Some(Subresource::Resize)) => is_pod,
        _ => false,
    };
    // Who is going may go as it is.
    let going = old.is_some_and(|old| old.meta().deletion_timestamp.is_some());
    if !concerned || going {
        return Vec::new();
    }
    let snapshot = registry.store().snapshot("core/limitranges");
    if snapshot.is_empty() {
        return Vec::new();
    }
    snapshot
        .range(Some(attributes.namespace), None)
        .filter_map(|entry| serde_json::from_slice::<LimitRange>(&entry.value).ok()?.spec)
        .flat_map(|spec| spec.limits)
        .collect()
}

/// Gives the containers of a new pod what they leave out.
pub(super) fn mutate(
    registry: &Registry,
    attributes: &Attributes<'_>,
    object: &mut dyn Object,
    old: Option<&dyn Object>,
) {
    let items = bounds(registry, attributes, object, old);
    if items.is_empty() {
        return;
    }
    let Some(pod) = object.as_any_mut().downcast_mut::<Pod>() else { return };
    // Upstream: each LimitRange in turn, so what the first gives the second does not change.
    for item in items.iter().filter(|item| item.type_ == "Container") {
        let Some(spec) = &mut pod.spec else { return };
        let mut notes = Vec::new();
        let plain = spec.containers.iter_mut().map(|container| ("container", container));
        let init = spec.init_containers.iter_mut().flatten().map(|container| ("init container", container));
        for (what, container) in plain.chain(init) {
            fill(container, item, what, &mut notes);
        }
        if !notes.is_empty() {
            let note = format!("LimitRanger plugin set: {}", notes.join("; "));
            pod.metadata.annotations.get_or_insert_default().insert(NOTE.to_owned(), note);
        }
    }
}

fn fill(container: &mut Container, item: &LimitRangeItem, what: &str, notes: &mut Vec<String>) {
    let resources = container.resources.get_or_insert_default();
    for (word, own, defaults) in
        [("request", &mut resources.requests, &item.default_request), ("limit", &mut resources.limits, &item.default)]
    {
        let mut set = Vec::new();
        for (name, amount) in defaults.iter().flatten() {
            let own = own.get_or_insert_default();
            if !own.contains_key(name) {
                own.insert(name.clone(), amount.clone());
                set.push(name.as_str());
            }
        }
        if !set.is_empty() {
            notes.push(format!("{} {word} for {what} {}", set.join(", "), container.name));
        }
    }
}

/// Refuses what is outside the bounds.
pub(super) fn validate(
    registry: &Registry,
    attributes: &Attributes<'_>,
    object: &dyn Object,
    old: Option<&dyn Object>,
) -> Result<(), ApiError> {
    let items = bounds(registry, attributes, object, old);
    if items.is_empty() {
        return Ok(());
    }
    let mut errors = Vec::new();
    for item in &items {
        if let Some(pod) = object.as_any().downcast_ref::<Pod>() {
            check_pod(&mut errors, item, pod);
        } else if let Some(claim) = object.as_any().downcast_ref::<PersistentVolumeClaim>() {
            check_claim(&mut errors, item, claim);
        }
    }
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(attributes.forbidden(object, one)),
        several => Err(attributes.forbidden(object, format!("[{}]", several.join(", ")))),
    }
}

fn check_pod(errors: &mut Vec<String>, item: &LimitRangeItem, pod: &Pod) {
    let Some(spec) = &pod.spec else { return };
    match item.type_.as_str() {
        "Container" => {
            for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                let none = ResourceRequirements::default();
                let resources = container.resources.as_ref().unwrap_or(&none);
                let request = quota::parse(resources.requests.as_ref());
                check(errors, item, &request, &quota::parse(resources.limits.as_ref()));
            }
        }
        "Pod" => check(errors, item, &quota::pod_requests(spec), &quota::pod_limits(spec)),
        _ => {}
    }
}

fn check(errors: &mut Vec<String>, item: &LimitRangeItem, request: &Amounts, limit: &Amounts) {
    let kind = &item.type_;
    for (name, bound) in quota::parse(item.min.as_ref()) {
        let least = format!("minimum {name} usage per {kind} is {bound}");
        match (request.get(&name), limit.get(&name)) {
            (None, _) => errors.push(format!("{least}.  No request is specified")),
            (Some(request), _) if *request < bound => errors.push(format!("{least}, but request is {request}")),
            (_, Some(limit)) if *limit < bound => errors.push(format!("{least}, but limit is {limit}")),
            _ => {}
        }
    }
    for (name, bound) in quota::parse(item.max.as_ref()) {
        let most = format!("maximum {name} usage per {kind} is {bound}");
        match (request.get(&name), limit.get(&name)) {
            (_, None) => errors.push(format!("{most}.  No limit is specified")),
            (_, Some(limit)) if *limit > bound => errors.push(format!("{most}, but limit is {limit}")),
            (Some(request), _) if *request > bound => errors.push(format!("{most}, but request is {request}")),
            _ => {}
        }
    }
    for (name, bound) in quota::parse(item.max_limit_request_ratio.as_ref()) {
        let most = format!("{name} max limit to request ratio per {kind} is {bound}");
        let given = |amounts: &Amounts| amounts.get(&name).copied().filter(|amount| !amount.is_zero());
        match (given(request), given(limit)) {
            (None, _) => errors.push(format!("{most}, but no request is specified or request is 0")),
            (_, None) => errors.push(format!("{most}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = limit.as_f64() / request.as_f64();
                if ratio > bound.as_f64() {
                    errors.push(format!("{most}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

fn check_claim(errors: &mut Vec<String>, item: &LimitRangeItem, claim: &PersistentVolumeClaim) {
    if item.type_ != "PersistentVolumeClaim" {
        return;
    }
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let request: BTreeMap<String, Quantity> = quota::parse(resources.and_then(|resources| resources.requests.as_ref()));
    let kind = &item.type_;
    for (word, bounds) in [("minimum", &item.min), ("maximum", &item.max)] {
        for (name, bound) in quota::parse(bounds.as_ref()) {
            let rule = format!("{word} {name} usage per {kind} is {bound}");
            match request.get(&name) {
                None => errors.push(format!("{rule}.  No request is specified")),
                Some(request) if (word == "minimum" && *request < bound) || (word == "maximum" && *request > bound) => {
                    errors.push(format!("{rule}, but request is {request}"));
                }
                Some(_) => {}
            }
        }
    }
}
