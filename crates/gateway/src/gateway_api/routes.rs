//! HTTPRoutes → rules of listeners. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::StatusCode;
use informer::ObjectKey;

use super::conditions::Fault;
use super::grants::Grants;
use super::listeners::Gateway;
use super::objects::{BackendRef, HttpRouteSpec, ParentRef, RouteRule, Typed};
use super::rules;
use crate::backend::{BackendError, Backends, Endpoints, PortRef};
use crate::hosts::HostPattern;
use crate::route::{Action, Match, Mirror, Origin, Precedence, Rule, Target, WeightedBackend};
use crate::sites::Sites;
use crate::table::Rules;

/// What became of an HTTPRoute.
pub(crate) struct Route<'a> {
    pub(crate) object: &'a Typed<HttpRouteSpec>,
    /// Of its parents, those that are ours.
    pub(crate) parents: Vec<Parent<'a>>,
    /// Which of its references lead nowhere.
    pub(crate) unresolved: Option<Fault>,
}

/// What became of a route at one of its parents.
pub(crate) struct Parent<'a> {
    pub(crate) parent_ref: &'a ParentRef,
    /// Why it is not attached.
    pub(crate) refused: Option<Fault>,
}

/// Adds the rules of routes to the listeners that they attach to. Of a namespace's labels `labels` knows.
pub(crate) fn attach<'a>(
    routes: &'a [Typed<HttpRouteSpec>],
    gateways: &mut [Gateway<'_>],
    grants: &Grants<'_>,
    backends: &mut Backends<'_>,
    labels: &dyn Fn(&str) -> Option<BTreeMap<String, String>>,
    sites: &mut Sites,
) -> Vec<Route<'a>> {
    let mut all = Vec::new();
    for object in routes {
        let ours = object.spec.parent_refs.iter().filter_map(|parent_ref| {
            let key = parent_ref.gateway(object.namespace())?;
            let at = gateways.iter().position(|gateway| gateway.object.key() == key)?;
            Some((parent_ref, at))
        });
        let ours: Vec<(&ParentRef, usize)> = ours.collect();
        let mut route = Route { object, parents: Vec::new(), unresolved: None };
        if ours.is_empty() {
            all.push(route);
            continue;
        }
        let (compiled, unresolved) = compile(object, grants, backends);
        route.unresolved = unresolved;
        for (parent_ref, at) in ours {
            let attached = match &compiled {
                Err(unsupported) => Err(unsupported.clone()),
                Ok(rules) => attach_to(object, parent_ref, &mut gateways[at], labels, rules, sites),
            };
            route.parents.push(Parent { parent_ref, refused: attached.err() });
        }
        all.push(route);
    }
    all
}

/// A rule of a route with one of its matches.
type Compiled = (Precedence, Match, Arc<Action>);

/// Attaches a route to all listeners of a Gateway that a reference means.
fn attach_to(
    route: &Typed<HttpRouteSpec>,
    parent_ref: &ParentRef,
    gateway: &mut Gateway<'_>,
    labels: &dyn Fn(&str) -> Option<BTreeMap<String, String>>,
    rules: &[Compiled],
    sites: &mut Sites,
) -> Result<(), Fault> {
    let namespace = gateway.object.namespace();
    let is_meant = |name: &str, port: u16| {
        parent_ref.section_name.as_deref().is_none_or(|section| section == name)
            && parent_ref.port.is_none_or(|meant| meant == port)
    };
    let meant = gateway.listeners.iter_mut().filter(|listener| is_meant(&listener.spec.name, listener.spec.port));
    let mut meant: Vec<_> = meant.collect();
    if meant.is_empty() {
        return Err(Fault::new("NoMatchingParent", "the Gateway has no such listener"));
    }
    meant.retain(|listener| !listener.kinds.is_empty() && listener.allows(namespace, route.namespace(), labels));
    if meant.is_empty() {
        let why = "no listener allows HTTPRoutes of this namespace";
        return Err(Fault::new("NotAllowedByListeners", why));
    }
    let mut is_attached = false;
    for listener in meant {
        let hostnames = hostnames(&route.spec.hostnames, &listener.hostname);
        if hostnames.is_empty() {
            continue;
        }
        is_attached = true;
        listener.attached.insert(route.key());
        // What the listener has no room for is not served.
        let entry = sites.0.get_mut(&(gateway.site, listener.spec.port));
        let Some(entry) = entry.filter(|_| gateway.fault.is_none() && listener.is_programmed()) else { continue };
        let hosts = entry.listeners.get_or_insert_with(&listener.hostname, Default::default);
        for hostname in hostnames {
            let all = hosts.get_or_insert_with(&hostname, Rules::default);
            for (precedence, matches, action) in rules {
                let (precedence, matches) = (precedence.clone(), matches.clone());
                all.add(Rule { precedence, matches, action: Arc::clone(action) });
            }
        }
    }
    let why = "no listener has a hostname in common with the route";
    if is_attached { Ok(()) } else { Err(Fault::new("NoMatchingListenerHostname", why)) }
}

/// The hostnames that a route and a listener have in common.
fn hostnames(of_route: &[String], of_listener: &HostPattern) -> BTreeSet<HostPattern> {
    if of_route.is_empty() {
        return BTreeSet::from([of_listener.clone()]);
    }
    let patterns = of_route.iter().map(|hostname| HostPattern::of_gateway(Some(hostname)));
    patterns.filter_map(|pattern| pattern.intersection(of_listener)).collect()
}

/// The rules of a route, and which of its references lead nowhere.
fn compile(
    route: &Typed<HttpRouteSpec>,
    grants: &Grants<'_>,
    backends: &mut Backends<'_>,
) -> (Result<Vec<Compiled>, Fault>, Option<Fault>) {
    let origin = Origin::of(&*route.object);
    let mut unresolved = None;
    let mut compiled = Vec::new();
    for (index, rule) in route.spec.rules.iter().enumerate() {
        match one_rule(rule, route.namespace(), grants, backends, &mut unresolved) {
            Ok((matches, action)) => {
                let action = Arc::new(action);
                compiled.extend(
                    matches.into_iter().map(|one| (Precedence::new(&one, &origin, index), one, Arc::clone(&action))),
                );
            }
            Err(why) => return (Err(Fault::new("UnsupportedValue", why)), unresolved),
        }
    }
    (Ok(compiled), unresolved)
}

fn one_rule(
    rule: &RouteRule,
    namespace: &str,
    grants: &Grants<'_>,
    backends: &mut Backends<'_>,
    unresolved: &mut Option<Fault>,
) -> Result<(Vec<Match>, Action), String> {
    if rule.retry.is_some() || rule.session_persistence.is_some() {
        return Err("neither retry nor sessionPersistence is supported".to_owned());
    }
    let matches = rules::matches(rule)?;
    let (mirrors, filters): (Vec<_>, Vec<_>) = rule.filters.iter().partition(|filter| filter.type_ == rules::MIRROR);
    let mut action = Action {
        filters: rules::filters(filters, &matches)?,
        backends: Vec::new(),
        mirrors: Vec::new(),
        timeouts: rules::timeouts(rule.timeouts.as_ref())?,
    };
    for mirror in mirrors.into_iter().map(|filter| &filter.request_mirror) {
        match resolve(&mirror.backend_ref, namespace, grants, backends) {
            Ok(endpoints) => action.mirrors.push(Mirror { endpoints, share: rules::share(mirror) }),
            // Nobody gets a copy, and the requests themselves are answered.
            Err(fault) => {
                unresolved.get_or_insert(fault);
            }
        }
    }
    for backend in &rule.backend_refs {
        let target = match resolve(backend, namespace, grants, backends) {
            Ok(endpoints) => Target::Endpoints(endpoints),
            Err(fault) => {
                unresolved.get_or_insert(fault);
                // Its share of the requests fails, not those of the others (`HTTPRouteRule.backendRefs`).
                Target::Invalid(StatusCode::INTERNAL_SERVER_ERROR)
            }
        };
        let filters = rules::filters(&backend.filters, &matches)?;
        action.backends.push(WeightedBackend { weight: backend.weight.unwrap_or(1), target, filters });
    }
    Ok((matches, action))
}

fn resolve(
    backend: &BackendRef,
    namespace: &str,
    grants: &Grants<'_>,
    backends: &mut Backends<'_>,
) -> Result<Arc<Endpoints>, Fault> {
    let kind = backend.kind.as_deref().unwrap_or("Service");
    if !backend.group.as_deref().unwrap_or_default().is_empty() || kind != "Service" {
        return Err(Fault::new("InvalidKind", format!("the backend {kind} {} is no Service", backend.name)));
    }
    let key = ObjectKey::new(backend.namespace.as_deref().unwrap_or(namespace), backend.name.as_str());
    if !grants.permit("HTTPRoute", namespace, "Service", &key) {
        let why = format!("no ReferenceGrant permits the reference to Service {key}");
        return Err(Fault::new("RefNotPermitted", why));
    }
    let port = PortRef::Number(backend.port.unwrap_or_default());
    backends.get(&key, &port).map_err(|error| {
        let reason = match error {
            BackendError::ServiceNotFound(_) | BackendError::PortNotFound(..) => "BackendNotFound",
            BackendError::ExternalName(_) => "UnsupportedValue",
            BackendError::UnsupportedProtocol(..) => "UnsupportedProtocol",
        };
        Fault::new(reason, error.to_string())
    })
}
