//! Objects of the Gateway API in; answers to requests, and statuses, out. The cases are those of the project's conformance tests
//! for HTTPRoute.

mod gateways;
mod http_routes;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::hosts::HostPattern;
use crate::route::{Target, Wanted};
use crate::sites::Site;
use crate::testing::{TestObjects, parse};

/// The objects of a cluster.
struct Cluster {
    objects: TestObjects,
    classes: Vec<Value>,
    gateways: Vec<Value>,
    routes: Vec<Value>,
    grants: Vec<Value>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    addresses: Vec<IpAddr>,
    unavailable: Vec<u16>,
}

impl Cluster {
    /// One with a class of ours, and the Services v1, v2 and v3 in namespaces `a` and `b`.
    fn new() -> Self {
        let services = [("a", "v1"), ("a", "v2"), ("a", "v3"), ("b", "v1"), ("b", "v2"), ("b", "v3")];
        let class = json!({
            "metadata": { "name": "coracle", "generation": 1 }, "spec": { "controllerName": CONTROLLER },
        });
        Self {
            objects: services.into_iter().fold(TestObjects::new(), |objects, (namespace, name)| {
                objects.web(namespace, name, ("", 80), &["10.0.0.1"])
            }),
            classes: vec![class],
            gateways: Vec::new(),
            routes: Vec::new(),
            grants: Vec::new(),
            namespaces: BTreeMap::new(),
            addresses: Vec::new(),
            unavailable: Vec::new(),
        }
    }

    /// With a Gateway in namespace `a`.
    fn gateway(mut self, name: &str, listeners: &[Value]) -> Self {
        self.gateways.push(json!({
            "metadata": { "namespace": "a", "name": name, "generation": 3, "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "gatewayClassName": "coracle", "listeners": listeners },
        }));
        self
    }

    /// With a route in a namespace, the next in age.
    fn route(mut self, namespace: &str, name: &str, spec: Value) -> Self {
        let created = format!("2026-01-01T00:00:{:02}Z", self.routes.len());
        self.routes.push(json!({
            "metadata": { "namespace": namespace, "name": name, "generation": 5, "creationTimestamp": created },
            "spec": spec,
        }));
        self
    }

    fn compile<R>(&self, look: impl FnOnce(&Compiled<'_>, &Sites) -> R) -> R {
        let objects = |values: &[Value]| values.iter().map(|value| Arc::new(parse(value.clone()))).collect();
        let snapshot = Snapshot::new(
            objects(&self.classes),
            objects(&self.gateways),
            objects(&self.routes),
            objects(&self.grants),
        );
        let mut sites = Sites::default();
        let compiled = compile(
            &snapshot,
            &self.addresses,
            &|namespace| self.namespaces.get(namespace).cloned(),
            &mut Backends::new(&self.objects),
            &mut CertificateCache::default(),
            &mut sites,
        );
        look(&compiled, &sites)
    }

    /// The statuses that are written, by kind, namespace and name.
    fn statuses(&self) -> BTreeMap<String, Value> {
        let unavailable = |_, port: u16| self.unavailable.contains(&port).then(|| "taken".to_owned());
        let context =
            Context { published: &["192.0.2.1".to_owned()], unavailable: &unavailable, now: Timestamp::UNIX_EPOCH };
        let writes = self.compile(|compiled, _| compiled.statuses(&context));
        writes.into_iter().map(|write| (format!("{} {}", write.kind.name(), write.key), write.patch)).collect()
    }

    /// The conditions of a route at its first parent, as `Type=Status/Reason`.
    fn conditions_of_route(&self, key: &str) -> Vec<String> {
        conditions(&self.statuses()[&format!("HTTPRoute {key}")]["status"]["parents"][0]["conditions"])
    }

    /// Where a request leads: to `NAMESPACE/SERVICE`, a redirect, a status, or nowhere.
    fn answer(&self, port: u16, request: &Request) -> String {
        let headers: HeaderMap = request
            .headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let method: Method = request.method.parse().unwrap();
        let (path, query) = request.path.split_once('?').unwrap_or((request.path, ""));
        let wanted = Wanted { host: request.host, method: &method, path, query, headers: &headers };
        self.compile(|_, sites| {
            let Some(entry) = sites.0.get(&(Site::Shared, port)) else { return "closed".to_owned() };
            let Some(action) = entry.find(&wanted) else { return "404".to_owned() };
            if action.filters.redirect.is_some() {
                return "redirect".to_owned();
            }
            match action.choose(0).map(|backend| &backend.target) {
                Some(Target::Endpoints(endpoints)) => endpoints.name.strip_suffix(":80").unwrap().to_owned(),
                Some(Target::Invalid(status)) => status.as_str().to_owned(),
                None => "no backend".to_owned(),
            }
        })
    }
}

/// A request, of which most is the same.
struct Request {
    host: &'static str,
    path: &'static str,
    method: &'static str,
    headers: &'static [(&'static str, &'static str)],
}

fn get(host: &'static str, path: &'static str) -> Request {
    Request { host, path, method: "GET", headers: &[] }
}

fn conditions(conditions: &Value) -> Vec<String> {
    let text = |condition: &Value, name: &str| condition[name].as_str().unwrap().to_owned();
    let one = |condition: &Value| {
        format!("{}={}/{}", text(condition, "type"), text(condition, "status"), text(condition, "reason"))
    };
    conditions.as_array().unwrap().iter().map(one).collect()
}

/// A listener for HTTP on port 80.
fn http(name: &str, hostname: Option<&str>) -> Value {
    json!({ "name": name, "port": 80, "protocol": "HTTP", "hostname": hostname })
}

/// A route to a Gateway in namespace `a`, with rules.
fn route(gateway: &str, hostnames: &[&str], rules: &[Value]) -> Value {
    json!({ "parentRefs": [{ "name": gateway, "namespace": "a" }], "hostnames": hostnames, "rules": rules })
}

/// A rule for a prefix.
fn rule(prefix: &str, service: &str) -> Value {
    json!({ "matches": [{ "path": { "value": prefix } }], "backendRefs": [{ "name": service, "port": 80 }] })
}
