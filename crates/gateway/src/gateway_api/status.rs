//! What is said of GatewayClasses, Gateways and HTTPRoutes, and whether it is said already. Pure.

use informer::ObjectKey;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::conditions::{Condition, Fault, merge};
use super::listeners::{Gateway, Listener};
use super::objects::{GatewayClassSpec, Typed};
use super::routes::Route;
use super::{CONTROLLER, Kind};
use crate::sites::Site;

/// What Gateways of ours can do, by the names of the project's conformance tests (gateway-api `pkg/features`): all of these pass.
/// In the order of the alphabet, as `GatewayClassStatus.supportedFeatures` wants it (`apis/v1/gatewayclass_types.go`).
pub(super) const SUPPORTED_FEATURES: &[&str] = &[
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayPort8080",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteSchemeRedirect",
    "ReferenceGrant",
];

/// A status that is to be written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StatusWrite {
    pub(crate) kind: Kind,
    pub(crate) key: ObjectKey,
    /// The patch, which holds for the version of the object that was looked at alone: others write to these statuses, too.
    pub(crate) patch: Value,
}

/// What is known beside the objects.
pub(crate) struct Context<'a> {
    /// What the addresses of Ingresses are called.
    pub(crate) published: &'a [String],
    /// Why nobody listens at a port of a site; none where somebody does.
    pub(crate) unavailable: &'a dyn Fn(Site, u16) -> Option<String>,
    pub(crate) now: Timestamp,
}

/// The write, where an object does not say all of `status` yet.
fn write<S>(kind: Kind, object: &Typed<S>, status: Value) -> Option<StatusWrite> {
    let current = &object.object.data["status"];
    let is_said = status.as_object().is_some_and(|fields| fields.iter().all(|(name, value)| current[name] == *value));
    let version = object.metadata().resource_version.clone();
    let patch = json!({ "metadata": { "resourceVersion": version }, "status": status });
    (!is_said).then(|| StatusWrite { kind, key: ObjectKey::of(&*object.object), patch })
}

/// Of a class of ours.
pub(crate) fn of_class(class: &Typed<GatewayClassSpec>, context: &Context<'_>) -> Option<StatusWrite> {
    let parameters = class.spec.parameters_ref.as_ref();
    let fault = parameters.map(|_| Fault::new("InvalidParameters", "parameters are not supported"));
    let desired = [Condition::unless("Accepted", "Accepted", fault.as_ref())];
    let generation = class.metadata().generation.unwrap_or_default();
    let conditions = merge(class.status("conditions"), &desired, generation, context.now);
    let features: Vec<Value> = SUPPORTED_FEATURES.iter().map(|name| json!({ "name": name })).collect();
    write(Kind::GatewayClass, class, json!({ "conditions": conditions, "supportedFeatures": features }))
}

/// Of a Gateway of ours.
pub(crate) fn of_gateway(gateway: &Gateway<'_>, context: &Context<'_>) -> Option<StatusWrite> {
    let object = gateway.object;
    let generation = object.metadata().generation.unwrap_or_default();
    let existing = object.status("listeners").as_array().map(Vec::as_slice).unwrap_or_default();
    let mut listeners = Vec::new();
    let (mut valid, mut programmed) = (0, 0);
    for listener in &gateway.listeners {
        let conditions = of_listener(gateway, listener, context);
        let is_true = |type_: &str| conditions.iter().any(|one| one.type_ == type_ && one.is_true);
        valid += usize::from(is_true("Accepted") && is_true("ResolvedRefs"));
        programmed += usize::from(is_true("Programmed"));
        let old = existing.iter().find(|old| old["name"] == listener.spec.name);
        let old = old.map_or(&Value::Null, |old| &old["conditions"]);
        listeners.push(json!({
            "name": listener.spec.name,
            "supportedKinds": listener.kinds,
            "attachedRoutes": listener.attached.len(),
            "conditions": merge(old, &conditions, generation, context.now),
        }));
    }
    let not_valid = || Fault::new("ListenersNotValid", "there are listeners that are not valid");
    let not_programmed = || Fault::new("Invalid", "no listener is served");
    let accepted = match &gateway.fault {
        Some(fault) if fault.reason != "AddressNotUsable" => Condition::unless("Accepted", "Accepted", Some(fault)),
        _ if programmed == 0 && valid < gateway.listeners.len() => {
            Condition::unless("Accepted", "Accepted", Some(&not_valid()))
        }
        _ if valid < gateway.listeners.len() => {
            Condition { message: not_valid().message, ..Condition::unless("Accepted", "ListenersNotValid", None) }
        }
        _ => Condition::unless("Accepted", "Accepted", None),
    };
    let fault = match &gateway.fault {
        Some(fault) if fault.reason == "AddressNotUsable" => Some(fault.clone()),
        Some(fault) => Some(Fault::new("Invalid", fault.message.clone())),
        None => (programmed == 0).then(not_programmed),
    };
    let desired = [accepted, Condition::unless("Programmed", "Programmed", fault.as_ref())];
    let addresses: Vec<Value> = match (&gateway.fault, gateway.site) {
        (Some(_), _) => Vec::new(),
        (None, Site::Own(ip)) => vec![address(&ip.to_string())],
        (None, Site::Shared) => context.published.iter().map(|published| address(published)).collect(),
    };
    let conditions = merge(object.status("conditions"), &desired, generation, context.now);
    let status = json!({ "addresses": addresses, "conditions": conditions, "listeners": listeners });
    write(Kind::Gateway, object, status)
}

fn address(value: &str) -> Value {
    let type_ = if value.parse::<std::net::IpAddr>().is_ok() { "IPAddress" } else { "Hostname" };
    json!({ "type": type_, "value": value })
}

fn of_listener(gateway: &Gateway<'_>, listener: &Listener<'_>, context: &Context<'_>) -> Vec<Condition> {
    let conflict = listener.conflict.as_ref();
    let is_served = gateway.fault.is_none() && listener.is_programmed();
    let unavailable = is_served.then(|| (context.unavailable)(gateway.site, listener.spec.port)).flatten();
    let unavailable = unavailable.map(|why| Fault::new("PortUnavailable", why));
    let refused = listener.refused.as_ref().or(conflict).or(unavailable.as_ref());
    let not_served = match refused.or(gateway.fault.as_ref()) {
        Some(fault) => Some(Fault::new("Invalid", fault.message.clone())),
        None if is_served => None,
        None => {
            let why = listener.unresolved.as_ref().map(|fault| fault.message.clone());
            Some(Fault::new("Invalid", why.unwrap_or_default()))
        }
    };
    vec![
        Condition::unless("Accepted", "Accepted", refused),
        Condition::unless("Programmed", "Programmed", not_served.as_ref()),
        Condition::unless("ResolvedRefs", "ResolvedRefs", listener.unresolved.as_ref()),
        // The only one that is bad when it is true.
        Condition {
            type_: "Conflicted",
            is_true: conflict.is_some(),
            reason: conflict.map_or("NoConflicts", |fault| fault.reason),
            message: conflict.map(|fault| fault.message.clone()).unwrap_or_default(),
        },
    ]
}

/// Of an HTTPRoute: what other controllers say of other parents stays, and what was said here of parents that are no more goes.
pub(crate) fn of_route(route: &Route<'_>, context: &Context<'_>) -> Option<StatusWrite> {
    let object = route.object;
    let generation = object.metadata().generation.unwrap_or_default();
    let existing = object.status("parents").as_array().cloned().unwrap_or_default();
    let is_ours = |parent: &Value| parent["controllerName"] == CONTROLLER;
    let mut ours: Vec<Value> = Vec::new();
    for parent in &route.parents {
        let parent_ref = json!(parent.parent_ref);
        let old = existing.iter().find(|old| is_ours(old) && old["parentRef"] == parent_ref);
        let old = old.map_or(&Value::Null, |old| &old["conditions"]);
        let desired = [
            Condition::unless("Accepted", "Accepted", parent.refused.as_ref()),
            Condition::unless("ResolvedRefs", "ResolvedRefs", route.unresolved.as_ref()),
        ];
        let conditions = merge(old, &desired, generation, context.now);
        ours.push(json!({ "controllerName": CONTROLLER, "parentRef": parent_ref, "conditions": conditions }));
    }
    if ours.is_empty() && !existing.iter().any(is_ours) {
        return None;
    }
    let mut parents: Vec<Value> = Vec::new();
    for old in &existing {
        let now = ours.iter().position(|one| one["parentRef"] == old["parentRef"]);
        match now {
            _ if !is_ours(old) => parents.push(old.clone()),
            Some(at) => parents.push(ours.remove(at)),
            None => {}
        }
    }
    parents.extend(ours);
    write(Kind::HttpRoute, object, json!({ "parents": parents }))
}
