//! The Gateway API: GatewayClasses, Gateways, HTTPRoutes and ReferenceGrants → rules, certificates and statuses.
//!
//! | module | what is in it |
//! |---|---|
//! | `objects` | the fields of these objects that are read |
//! | `follow` | their informers, which run while their definitions are there |
//! | `listeners` | pure: Gateways → addresses and listeners |
//! | `routes` | pure: HTTPRoutes → rules of listeners |
//! | `rules` | pure: matches, filters and timeouts of a rule |
//! | `grants` | pure: ReferenceGrants |
//! | `status`, `conditions` | pure: what is said of all of them |
//!
//! A Gateway has one of the addresses that are there for Gateways, the one that it asks for or the next; where there is none left it
//! shares those of Ingresses, with rules side by side. A port of a listener is opened as it is, 80 and 443 apart, which are the
//! ports that Ingresses have.
//!
//! Not supported, which a condition says: mirrors of single backends, extensions, retries, sessions that persist, certificates of clients, TLS that
//! is passed through, parameters, and routes but HTTPRoutes.

mod conditions;
mod follow;
mod grants;
mod listeners;
pub(crate) mod objects;
mod routes;
mod rules;
mod status;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

pub(crate) use follow::{GatewayObjects, Kind, follow};
use grants::Grants;
use kube::api::DynamicObject;
use listeners::Gateway;
use objects::{GatewayClassSpec, GatewaySpec, HttpRouteSpec, ReferenceGrantSpec, Typed};
use routes::Route;
pub(crate) use status::{Context, StatusWrite};

use crate::backend::Backends;
use crate::certificate::CertificateCache;
use crate::sites::Sites;

/// The `spec.controllerName` of GatewayClasses that are ours.
pub const CONTROLLER: &str = "coracle.dev/gateway";

/// All objects as they were at one time.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// Those that are ours.
    classes: Vec<Typed<GatewayClassSpec>>,
    /// Those of a class of ours.
    gateways: Vec<Typed<GatewaySpec>>,
    routes: Vec<Typed<HttpRouteSpec>>,
    grants: Vec<Typed<ReferenceGrantSpec>>,
}

impl Snapshot {
    /// What is known now.
    pub(crate) fn of(objects: &GatewayObjects) -> Self {
        let grants = objects.grants.as_ref().map(informer::Informer::list).unwrap_or_default();
        Self::new(objects.classes.list(), objects.gateways.list(), objects.routes.list(), grants)
    }

    fn new(
        classes: Vec<Arc<DynamicObject>>,
        gateways: Vec<Arc<DynamicObject>>,
        routes: Vec<Arc<DynamicObject>>,
        grants: Vec<Arc<DynamicObject>>,
    ) -> Self {
        let mut classes: Vec<Typed<GatewayClassSpec>> = Typed::all(classes);
        classes.retain(|class| class.spec.controller_name == CONTROLLER);
        let mut gateways: Vec<Typed<GatewaySpec>> = Typed::all(gateways);
        gateways.retain(|gateway| {
            classes.iter().any(|class| {
                let is_named = class.metadata().name.as_deref() == Some(gateway.spec.gateway_class_name.as_str());
                is_named && class.spec.parameters_ref.is_none()
            })
        });
        Self { classes, gateways, routes: Typed::all(routes), grants: Typed::all(grants) }
    }
}

/// What became of the objects.
pub(crate) struct Compiled<'a> {
    classes: &'a [Typed<GatewayClassSpec>],
    pub(crate) gateways: Vec<Gateway<'a>>,
    pub(crate) routes: Vec<Route<'a>>,
}

/// Adds what the objects ask for to `sites`, where the entry points of Ingresses are already. Of a namespace's labels `labels`
/// knows.
pub(crate) fn compile<'a>(
    snapshot: &'a Snapshot,
    addresses: &[IpAddr],
    labels: &dyn Fn(&str) -> Option<BTreeMap<String, String>>,
    backends: &mut Backends<'_>,
    certificates: &mut CertificateCache,
    sites: &mut Sites,
) -> Compiled<'a> {
    let grants = Grants(&snapshot.grants);
    let assigned = listeners::assign(&snapshot.gateways, addresses);
    let mut gateways =
        listeners::listeners(&snapshot.gateways, assigned, &grants, backends.objects, certificates, sites);
    listeners::program(&gateways, sites);
    let routes = routes::attach(&snapshot.routes, &mut gateways, &grants, backends, labels, sites);
    Compiled { classes: &snapshot.classes, gateways, routes }
}

impl Compiled<'_> {
    /// The statuses that are not written yet.
    pub(crate) fn statuses(&self, context: &Context<'_>) -> Vec<StatusWrite> {
        let classes = self.classes.iter().filter_map(|class| status::of_class(class, context));
        let gateways = self.gateways.iter().filter_map(|gateway| status::of_gateway(gateway, context));
        let routes = self.routes.iter().filter_map(|route| status::of_route(route, context));
        classes.chain(gateways).chain(routes).collect()
    }
}
