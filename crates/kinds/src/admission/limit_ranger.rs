//! LimitRanger: containers get the requests and limits of their namespace, and nothing is outside its bounds
//! (`plugin/pkg/admission/limitranger/admission.go`).

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, ResourceRequirements,
};
use machinery::quantity::Quantity;
use machinery::quota::{self, Amounts};
use machinery::status::ApiError;
use registry::admission::{
    AdmissionPlugin, Attributes, CLAIMS, Operation, PODS, decode_stored, no_object, object_of, object_of_mut,
};
use registry::kind::Subresource;
use registry::object::Object;

/// Says in a pod what was filled in.
const NOTE: &str = "kubernetes.io/limit-ranger";

/// The plugin.
pub(super) struct LimitRanger;

#[async_trait]
impl AdmissionPlugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        // What a pod asks for changes through `resize` only.
        let resizes = attributes.operation == Operation::Update
            && attributes.subresource == Some(Subresource::Resize)
            && &*attributes.info.storage == PODS;
        let concerned = resizes || attributes.creates(PODS) || attributes.creates(CLAIMS) || attributes.updates(CLAIMS);
        // An object that is being deleted may stay as it is.
        let terminating = attributes.old.is_some_and(|old| old.meta().deletion_timestamp.is_some());
        concerned && !terminating
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Box<dyn Object>>,
        _warnings: &mut Vec<String>,
    ) -> Result<bool, ApiError> {
        let items = items(attributes)?;
        if items.is_empty() || &*attributes.info.storage != PODS {
            return Ok(false);
        }
        Ok(fill_pod(&items, object_of_mut(object)?))
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let items = items(attributes)?;
        let mut errors = Vec::new();
        for item in &items {
            match &*attributes.info.storage {
                PODS => check_pod(&mut errors, item, object_of(object)?),
                _ => check_claim(&mut errors, item, object_of(object)?),
            }
        }
        let object = object.ok_or_else(no_object)?;
        match errors.as_slice() {
            [] => Ok(()),
            [one] => Err(attributes.forbidden(object, one)),
            several => Err(attributes.forbidden(object, format!("[{}]", several.join(", ")))),
        }
    }
}

/// The bounds of the namespace; none for most.
fn items(attributes: &Attributes<'_>) -> Result<Vec<LimitRangeItem>, ApiError> {
    let snapshot = attributes.registry.store().snapshot("core/limitranges");
    if snapshot.is_empty() {
        return Ok(Vec::new());
    }
    let mut items = Vec::new();
    for entry in snapshot.range(Some(attributes.namespace), None) {
        let range: LimitRange = decode_stored(entry, &entry.value)?;
        items.extend(range.spec.into_iter().flat_map(|spec| spec.limits));
    }
    Ok(items)
}

/// Gives the containers of a pod what they leave out. Answers whether there was anything.
fn fill_pod(items: &[LimitRangeItem], pod: &mut Pod) -> bool {
    let mut filled = false;
    // Upstream: each LimitRange in turn, so what the first gives the second does not change.
    for item in items.iter().filter(|item| item.type_ == "Container") {
        let Some(spec) = &mut pod.spec else { return false };
        let mut notes = Vec::new();
        let plain = spec.containers.iter_mut().map(|container| ("container", container));
        let init = spec.init_containers.iter_mut().flatten().map(|container| ("init container", container));
        for (what, container) in plain.chain(init) {
            fill(container, item, what, &mut notes);
        }
        if !notes.is_empty() {
            filled = true;
            let note = format!("LimitRanger plugin set: {}", notes.join("; "));
            pod.metadata.annotations.get_or_insert_default().insert(NOTE.to_owned(), note);
        }
    }
    filled
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
