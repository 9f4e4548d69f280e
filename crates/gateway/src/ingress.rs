//! Ingresses: `networking.k8s.io/v1` objects → rules and certificates of an entry point. Pure.
//!
//! An Ingress is ours by its class, whose controller is [`CONTROLLER`]. Its rules are answered on both ports; with TLS by the
//! certificates that it names, and otherwise by the default certificate.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::StatusCode;
use informer::ObjectKey;
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressClass, IngressTLS};

use crate::backend::{BackendError, Backends, PortRef};
use crate::certificate::{CertificateCache, CertificateError};
use crate::hosts::HostPattern;
use crate::route::{Action, Match, Origin, PathMatch, Precedence, Rule, Target};
use crate::table::EntryPoint;

/// The `spec.controller` of IngressClasses that are ours.
pub const CONTROLLER: &str = "coracle.dev/ingress";

/// What names a class on Ingresses from before `ingressClassName`.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// What marks a class as the one of Ingresses that name none.
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
/// The value of [`CLASS_ANNOTATION`] that is ours even where there is no such class.
const LEGACY_CLASS: &str = "coracle";

/// What is wrong with an Ingress, of which the rest works.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub(crate) enum Problem {
    #[error("{0}")]
    Backend(#[from] BackendError),
    #[error("the backend {0} is no Service; only Services are supported")]
    Resource(String),
    #[error("{0}")]
    Certificate(#[from] CertificateError),
}

impl Problem {
    /// The reason of the event about it.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Backend(BackendError::ServiceNotFound(_)) => "ServiceNotFound",
            Self::Backend(BackendError::PortNotFound(..)) => "PortNotFound",
            Self::Backend(BackendError::ExternalName(_)) | Self::Resource(_) => "UnsupportedBackend",
            Self::Backend(BackendError::UnsupportedProtocol(..)) => "UnsupportedProtocol",
            Self::Certificate(CertificateError::NotFound(_)) => "SecretNotFound",
            Self::Certificate(CertificateError::Invalid(..)) => "InvalidCertificate",
        }
    }
}

/// Entry points with the rules of Ingresses, and what is to be said of these.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) http: EntryPoint,
    pub(crate) https: EntryPoint,
    pub(crate) problems: BTreeSet<(ObjectKey, Problem)>,
    /// The hosts that are answered by the default certificate, as they stand in a certificate.
    pub(crate) uncertified: BTreeSet<String>,
}

/// The Ingresses of our classes, the oldest first.
pub(crate) fn ours(ingresses: Vec<Arc<Ingress>>, classes: &[Arc<IngressClass>]) -> Vec<Arc<Ingress>> {
    let mut ours: Vec<_> = ingresses.into_iter().filter(|ingress| is_ours(ingress, classes)).collect();
    ours.sort_by_cached_key(|ingress| Origin::of(&**ingress));
    ours
}

fn is_ours(ingress: &Ingress, classes: &[Arc<IngressClass>]) -> bool {
    let controlled =
        |class: &IngressClass| class.spec.as_ref().and_then(|spec| spec.controller.as_deref()) == Some(CONTROLLER);
    let named = |name: &str| classes.iter().find(|class| class.metadata.name.as_deref() == Some(name));
    if let Some(name) = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref()) {
        return named(name).is_some_and(|class| controlled(class));
    }
    let annotations = ingress.metadata.annotations.as_ref();
    if let Some(name) = annotations.and_then(|annotations| annotations.get(CLASS_ANNOTATION)) {
        return named(name).map_or(name == LEGACY_CLASS, |class| controlled(class));
    }
    // Admission gives the default class to Ingresses that are made while there is one; this one is from before.
    let is_default = |class: &&Arc<IngressClass>| {
        let annotations = class.metadata.annotations.as_ref();
        annotations.and_then(|annotations| annotations.get(DEFAULT_CLASS)).is_some_and(|value| value == "true")
    };
    let newest = classes.iter().filter(is_default).max_by_key(|class| {
        let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, std::cmp::Reverse(class.metadata.name.clone()))
    });
    newest.is_some_and(|class| controlled(class))
}

/// The rules of Ingresses, which are ours and in the order of their age.
pub(crate) fn compile(
    ingresses: &[Arc<Ingress>],
    backends: &mut Backends<'_>,
    certificates: &mut CertificateCache,
) -> Compiled {
    let mut compiled = Compiled {
        http: EntryPoint::default(),
        https: EntryPoint::with_tls(),
        problems: BTreeSet::new(),
        uncertified: BTreeSet::new(),
    };
    let mut hosts = BTreeSet::new();
    for ingress in ingresses {
        let mut one = Compiler { origin: Origin::of(&**ingress), backends, certificates, compiled: &mut compiled };
        hosts.extend(one.ingress(ingress));
    }
    if let Some(tls) = &mut compiled.https.tls {
        tls.or_default = !ingresses.is_empty();
        hosts.retain(|host| match host {
            HostPattern::Exact(name) => tls.by_host.matching(name).next().is_none(),
            wildcard => !tls.by_host.contains(wildcard),
        });
    }
    compiled.uncertified = hosts.iter().filter_map(HostPattern::name).collect();
    compiled
}

/// Compiles one Ingress.
struct Compiler<'a, 'b> {
    origin: Origin,
    backends: &'a mut Backends<'b>,
    certificates: &'a mut CertificateCache,
    compiled: &'a mut Compiled,
}

impl Compiler<'_, '_> {
    /// Adds all that an Ingress says. Returns its hosts.
    fn ingress(&mut self, ingress: &Ingress) -> BTreeSet<HostPattern> {
        let Some(spec) = &ingress.spec else { return BTreeSet::new() };
        let rules = spec.rules.as_deref().unwrap_or_default();
        let hosts: BTreeSet<HostPattern> =
            rules.iter().map(|rule| HostPattern::of_ingress(rule.host.as_deref())).collect();
        if let Some(backend) = &spec.default_backend {
            let action = self.backend(backend);
            // Of its own hosts, and of all that nobody has a rule for.
            for host in hosts.iter().chain([&HostPattern::Any]) {
                for entry in [&mut self.compiled.http, &mut self.compiled.https] {
                    entry.default_for(host).add(rule_for(&self.origin, PathMatch::all(), 0, &action));
                }
            }
        }
        let mut index = 0;
        for rule in rules {
            let host = HostPattern::of_ingress(rule.host.as_deref());
            for path in rule.http.iter().flat_map(|http| &http.paths) {
                let action = self.backend(&path.backend);
                for entry in [&mut self.compiled.http, &mut self.compiled.https] {
                    entry.ingress(&host).add(rule_for(&self.origin, path_match(path), index, &action));
                }
                index += 1;
            }
        }
        let mut named: BTreeSet<HostPattern> = BTreeSet::new();
        for tls in spec.tls.iter().flatten() {
            named.extend(self.tls(tls, &hosts));
        }
        hosts.into_iter().chain(named).collect()
    }

    fn problem(&mut self, problem: impl Into<Problem>) {
        self.compiled.problems.insert((self.origin.key().clone(), problem.into()));
    }

    /// What becomes of requests for a backend. One that is missing or cannot be used has no endpoints.
    fn backend(&mut self, backend: &IngressBackend) -> Arc<Action> {
        let found = match (&backend.service, &backend.resource) {
            (Some(service), _) => {
                let key = ObjectKey::new(self.origin.key().namespace.clone(), service.name.clone());
                let port = service.port.clone().unwrap_or_default();
                let port = match port.name.filter(|name| !name.is_empty()) {
                    Some(name) => PortRef::Name(name),
                    None => PortRef::Number(port.number.unwrap_or_default()),
                };
                self.backends.get(&key, &port).map_err(Problem::from)
            }
            (None, resource) => {
                let name = resource.as_ref().map(|resource| format!("{} {}", resource.kind, resource.name));
                Err(Problem::Resource(name.unwrap_or_default()))
            }
        };
        let target = match found {
            Ok(endpoints) => Target::Endpoints(endpoints),
            Err(problem) => {
                self.problem(problem);
                Target::Invalid(StatusCode::SERVICE_UNAVAILABLE)
            }
        };
        Arc::new(Action::to(target))
    }

    /// Adds a certificate for the hosts of a TLS section, or for those of the rules where it has none. Returns the hosts.
    fn tls(&mut self, tls: &IngressTLS, of_rules: &BTreeSet<HostPattern>) -> BTreeSet<HostPattern> {
        let named = tls.hosts.as_deref().unwrap_or_default();
        let hosts = match named {
            [] => of_rules.clone(),
            named => named.iter().map(|host| HostPattern::of_ingress(Some(host))).collect(),
        };
        let Some(name) = tls.secret_name.as_ref().filter(|name| !name.is_empty()) else { return hosts };
        let key = ObjectKey::new(self.origin.key().namespace.clone(), name.clone());
        match self.certificates.get(self.backends.objects, &key) {
            Ok(certificate) => {
                if let Some(tls) = &mut self.compiled.https.tls {
                    for host in &hosts {
                        // That of the oldest Ingress, where several name one.
                        tls.by_host.get_or_insert_with(host, || Arc::clone(&certificate));
                    }
                }
            }
            Err(error) => self.problem(error),
        }
        hosts
    }
}

fn rule_for(origin: &Origin, path: PathMatch, index: usize, action: &Arc<Action>) -> Rule {
    let matches = Match::path(path);
    Rule { precedence: Precedence::new(&matches, origin, index), matches, action: Arc::clone(action) }
}

/// `ImplementationSpecific` is a prefix here, as for most who read Ingresses.
fn path_match(path: &HTTPIngressPath) -> PathMatch {
    let text = path.path.as_deref().unwrap_or("/");
    match path.path_type.as_str() {
        "Exact" => PathMatch::Exact(text.to_owned()),
        _ => PathMatch::prefix(text),
    }
}

#[cfg(test)]
mod tests;
