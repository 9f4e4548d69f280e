//! Gateways → addresses and listeners. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use informer::ObjectKey;
use machinery::selector::LabelSelector;
use rustls::sign::CertifiedKey;

use super::conditions::Fault;
use super::grants::Grants;
use super::objects::{GatewaySpec, ListenerSpec, RouteGroupKind, Typed};
use crate::backend::Objects;
use crate::certificate::CertificateCache;
use crate::hosts::{HostPattern, Hosts};
use crate::sites::{Site, Sites};

/// A Gateway of ours.
pub(crate) struct Gateway<'a> {
    pub(crate) object: &'a Typed<GatewaySpec>,
    pub(crate) site: Site,
    /// Why it has not the address that it asks for, or nothing that it asks for as a whole.
    pub(crate) fault: Option<Fault>,
    pub(crate) listeners: Vec<Listener<'a>>,
}

/// A listener of a Gateway.
pub(crate) struct Listener<'a> {
    pub(crate) spec: &'a ListenerSpec,
    pub(crate) hostname: HostPattern,
    /// The kinds of routes that it takes; HTTPRoute or nothing.
    pub(crate) kinds: Vec<RouteGroupKind>,
    /// Why it serves nothing.
    pub(crate) refused: Option<Fault>,
    /// Which other listener stands against it.
    pub(crate) conflict: Option<Fault>,
    /// What it refers to that is not there.
    pub(crate) unresolved: Option<Fault>,
    certificate: Option<Arc<CertifiedKey>>,
    /// The routes that are attached.
    pub(crate) attached: BTreeSet<ObjectKey>,
}

impl Listener<'_> {
    /// Whether it serves what is attached to it.
    pub(crate) fn is_programmed(&self) -> bool {
        let has_certificate = self.spec.protocol != "HTTPS" || self.certificate.is_some();
        self.refused.is_none() && self.conflict.is_none() && has_certificate
    }

    /// Whether routes of this namespace may attach.
    pub(crate) fn allows(
        &self,
        gateway_namespace: &str,
        namespace: &str,
        labels: impl Fn(&str) -> Option<BTreeMap<String, String>>,
    ) -> bool {
        let namespaces = self.spec.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
        match namespaces.and_then(|namespaces| namespaces.from.as_deref()).unwrap_or("Same") {
            "All" => true,
            "Same" => gateway_namespace == namespace,
            "Selector" => {
                let selector = namespaces.and_then(|namespaces| namespaces.selector.as_ref());
                // No selector selects nothing.
                let selector = selector.and_then(|selector| LabelSelector::from_object(Some(selector)).ok());
                selector.zip(labels(namespace)).is_some_and(|(selector, labels)| selector.matches(&labels))
            }
            _ => false,
        }
    }
}

/// Gives each Gateway its site: the address that it asks for, the one that it has, or the next that is free; and where there is
/// none left, those of Ingresses.
pub(crate) fn assign(gateways: &[Typed<GatewaySpec>], addresses: &[IpAddr]) -> Vec<(Site, Option<Fault>)> {
    let asked = |gateway: &Typed<GatewaySpec>| -> Result<Option<IpAddr>, Fault> {
        let mut asked = None;
        for address in &gateway.spec.addresses {
            if address.type_.as_deref().is_some_and(|type_| type_ != "IPAddress") {
                return Err(Fault::new("UnsupportedAddress", "only addresses of type IPAddress are supported"));
            }
            let unusable = || Fault::new("AddressNotUsable", format!("{} is no address for Gateways", address.value));
            if !address.value.is_empty() {
                let ip: IpAddr = address.value.parse().map_err(|_| unusable())?;
                if !addresses.contains(&ip) {
                    return Err(unusable());
                }
                asked = Some(ip);
            }
        }
        Ok(asked)
    };
    let current = |gateway: &Typed<GatewaySpec>| -> Option<IpAddr> {
        let ip = gateway.status("addresses")[0]["value"].as_str()?.parse().ok()?;
        addresses.contains(&ip).then_some(ip)
    };
    let mut taken = BTreeSet::new();
    let mut assigned: Vec<Option<(Site, Option<Fault>)>> = gateways
        .iter()
        .map(|gateway| {
            let wanted = match asked(gateway) {
                Err(fault) => return Some((Site::Shared, Some(fault))),
                Ok(Some(ip)) if taken.contains(&ip) => {
                    let why = format!("{ip} is the address of another Gateway");
                    return Some((Site::Shared, Some(Fault::new("AddressNotUsable", why))));
                }
                Ok(wanted) => wanted.or_else(|| current(gateway)),
            };
            wanted.filter(|ip| taken.insert(*ip)).map(|ip| (Site::Own(ip), None))
        })
        .collect();
    for site in assigned.iter_mut().filter(|site| site.is_none()) {
        let free = addresses.iter().find(|ip| taken.insert(**ip));
        *site = Some((free.map_or(Site::Shared, |ip| Site::Own(*ip)), None));
    }
    assigned.into_iter().flatten().collect()
}

/// The listeners of Gateways, the oldest of which comes first. Ports that serve something else already, `sites` says so, cannot be
/// had.
pub(crate) fn listeners<'a>(
    gateways: &'a [Typed<GatewaySpec>],
    sites: Vec<(Site, Option<Fault>)>,
    grants: &Grants<'_>,
    objects: &dyn Objects,
    certificates: &mut CertificateCache,
    taken: &Sites,
) -> Vec<Gateway<'a>> {
    let mut protocols: BTreeMap<(Site, u16), bool> =
        taken.0.iter().map(|(place, entry)| (*place, entry.tls.is_some())).collect();
    let mut all = Vec::new();
    for (object, (site, fault)) in gateways.iter().zip(sites) {
        let fault = fault.or_else(|| unsupported(&object.spec));
        let mut listeners: Vec<Listener<'a>> = object
            .spec
            .listeners
            .iter()
            .map(|spec| listener(spec, object.namespace(), grants, objects, certificates))
            .collect();
        conflicts(&mut listeners);
        for listener in listeners.iter_mut().filter(|listener| fault.is_none() && listener.is_programmed()) {
            let is_tls = listener.spec.protocol == "HTTPS";
            if *protocols.entry((site, listener.spec.port)).or_insert(is_tls) != is_tls {
                let why = format!("port {} speaks another protocol for somebody else", listener.spec.port);
                listener.refused = Some(Fault::new("PortUnavailable", why));
            }
        }
        all.push(Gateway { object, site, fault, listeners });
    }
    all
}

/// What a Gateway asks for that is not done here. Clients' certificates are nothing to pass over.
fn unsupported(spec: &GatewaySpec) -> Option<Fault> {
    let has_parameters =
        spec.infrastructure.as_ref().is_some_and(|infrastructure| infrastructure.parameters_ref.is_some());
    if has_parameters {
        return Some(Fault::new("InvalidParameters", "parameters are not supported"));
    }
    let has_frontend = spec.tls.as_ref().is_some_and(|tls| tls.frontend.is_some());
    has_frontend.then(|| Fault::new("Invalid", "certificates of clients (tls.frontend) are not supported"))
}

fn listener<'a>(
    spec: &'a ListenerSpec,
    namespace: &str,
    grants: &Grants<'_>,
    objects: &dyn Objects,
    certificates: &mut CertificateCache,
) -> Listener<'a> {
    let mut listener = Listener {
        spec,
        hostname: HostPattern::of_gateway(spec.hostname.as_deref()),
        kinds: Vec::new(),
        refused: None,
        conflict: None,
        unresolved: None,
        certificate: None,
        attached: BTreeSet::new(),
    };
    if !["HTTP", "HTTPS"].contains(&spec.protocol.as_str()) {
        let why = format!("the protocol {} is not supported, only HTTP and HTTPS are", spec.protocol);
        listener.refused = Some(Fault::new("UnsupportedProtocol", why));
        return listener;
    }
    let asked = spec.allowed_routes.as_ref().map(|allowed| allowed.kinds.as_slice()).unwrap_or_default();
    if asked.is_empty() || asked.iter().any(RouteGroupKind::is_http_route) {
        listener.kinds.push(RouteGroupKind::http_route());
    }
    if let Some(other) = asked.iter().find(|kind| !kind.is_http_route()) {
        let why = format!("routes of kind {} are not supported, only HTTPRoutes are", other.kind);
        listener.unresolved = Some(Fault::new("InvalidRouteKinds", why));
    }
    if spec.protocol == "HTTPS" {
        let tls = spec.tls.clone().unwrap_or_default();
        if tls.mode.as_deref().is_some_and(|mode| mode != "Terminate") {
            listener.refused = Some(Fault::new("UnsupportedValue", "TLS is terminated here, and not passed through"));
        } else if tls.frontend_validation.is_some() {
            let why = "certificates of clients (frontendValidation) are not supported";
            listener.refused = Some(Fault::new("UnsupportedValue", why));
        }
        let mut found = Vec::new();
        let mut faults = Vec::new();
        for secret in &tls.certificate_refs {
            let key = ObjectKey::new(secret.namespace.as_deref().unwrap_or(namespace), secret.name.as_str());
            let is_secret = secret.group.as_deref().unwrap_or_default().is_empty()
                && secret.kind.as_deref().is_none_or(|kind| kind == "Secret");
            if !is_secret {
                faults.push(Fault::new("InvalidCertificateRef", format!("{} is no Secret", secret.name)));
            } else if !grants.permit("Gateway", namespace, "Secret", &key) {
                let why = format!("no ReferenceGrant permits the reference to Secret {key}");
                faults.push(Fault::new("RefNotPermitted", why));
            } else {
                match certificates.get(objects, &key) {
                    Ok(certificate) => found.push(certificate),
                    Err(error) => faults.push(Fault::new("InvalidCertificateRef", error.to_string())),
                }
            }
        }
        if tls.certificate_refs.is_empty() {
            faults.push(Fault::new("InvalidCertificateRef", "a listener for HTTPS needs a certificate"));
        }
        listener.certificate = found.into_iter().next();
        listener.unresolved = faults.into_iter().next().or(listener.unresolved);
    }
    listener
}

/// Listeners of one Gateway that stand against each other: all of them are refused.
fn conflicts(listeners: &mut [Listener<'_>]) {
    let seen: Vec<(u16, String, HostPattern)> = listeners
        .iter()
        .map(|listener| (listener.spec.port, listener.spec.protocol.clone(), listener.hostname.clone()))
        .collect();
    for (at, listener) in listeners.iter_mut().enumerate() {
        let others = seen.iter().enumerate().filter(|(other, (port, ..))| *other != at && *port == listener.spec.port);
        for (_, (port, protocol, hostname)) in others {
            if *protocol != listener.spec.protocol {
                let why = format!("another listener on port {port} has protocol {protocol}");
                listener.conflict = Some(Fault::new("ProtocolConflict", why));
            } else if *hostname == listener.hostname {
                let why = format!("another listener on port {port} has the same hostname");
                listener.conflict = Some(Fault::new("HostnameConflict", why));
            }
        }
    }
}

/// Makes room for the listeners that serve: also one without routes keeps requests for its hostname from those with less close
/// hostnames.
pub(crate) fn program(gateways: &[Gateway<'_>], sites: &mut Sites) {
    for gateway in gateways.iter().filter(|gateway| gateway.fault.is_none()) {
        for listener in gateway.listeners.iter().filter(|listener| listener.is_programmed()) {
            let entry = sites.0.entry((gateway.site, listener.spec.port)).or_default();
            entry.listeners.get_or_insert_with(&listener.hostname, Hosts::default);
            if let Some(certificate) = &listener.certificate {
                let tls = entry.tls.get_or_insert_default();
                tls.by_host.get_or_insert_with(&listener.hostname, || Arc::clone(certificate));
            }
        }
    }
}
