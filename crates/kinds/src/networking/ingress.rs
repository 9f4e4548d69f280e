//! networking.k8s.io/v1 Ingress.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, Ingress as Object, IngressBackend, IngressLoadBalancerStatus, IngressRule, IngressSpec,
    IngressStatus,
};
use machinery::field::{ErrorList, Path};
use machinery::validate;
use registry::kind::{Column, Context, Descriptor, Kind, Subresource, bump_generation, cell_age, cell_name};
use serde_json::Value;

use super::ingress_class::referenced;
use crate::check::{Report, dns_subdomain, port};
use crate::common::{blank, entry, list, text};

/// The annotation that named the class before there was a field for it.
pub(crate) const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// So many hosts a table shows.
const HOSTS_SHOWN: usize = 3;

/// Ingresses.
pub(crate) struct Ingress;

impl Kind for Ingress {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["ing"],
        subresources: &[Subresource::Status],
        ..Descriptor::namespaced("networking.k8s.io", "v1", "Ingress", "ingresses")
    };

    fn prepare_create(object: &mut Object, _context: &Context<'_>) {
        // Upstream's is never empty: the field has no pointer there.
        object.status = Some(IngressStatus { load_balancer: Some(IngressLoadBalancerStatus::default()) });
        object.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut Object, old: &Object) {
        new.status.clone_from(&old.status);
        let changed = new.spec != old.spec;
        bump_generation(&mut new.metadata, changed);
    }

    fn prepare_status(new: &mut Object, old: &Object) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let empty = IngressSpec::default();
        let (path, spec) = (Path::new("spec"), object.spec.as_ref().unwrap_or(&empty));
        if list(&spec.rules).is_empty() && spec.default_backend.is_none() {
            errors.invalid(&path, list(&spec.rules), "either `defaultBackend` or `rules` must be specified");
        }
        if let Some(target) = &spec.default_backend {
            backend(&mut errors, &path.child("defaultBackend"), target);
        }
        for (index, item) in list(&spec.rules).iter().enumerate() {
            rule(&mut errors, &path.child("rules").index(index), item);
        }
        for (index, item) in list(&spec.tls).iter().enumerate() {
            let path = path.child("tls").index(index);
            for (index, name) in list(&item.hosts).iter().enumerate() {
                host(&mut errors, &path.child("hosts").index(index), name);
            }
            if !blank(&item.secret_name) {
                dns_subdomain(&mut errors, &path.child("secretName"), text(&item.secret_name));
            }
        }
        if let Some(class) = &spec.ingress_class_name {
            dns_subdomain(&mut errors, &path.child("ingressClassName"), class);
        }
        errors
    }

    fn warnings(new: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut warnings = Vec::new();
        let by_field = new.spec.as_ref().is_some_and(|spec| spec.ingress_class_name.is_some());
        if !by_field && entry(&new.metadata.annotations, CLASS_ANNOTATION).is_some() {
            let advice = "is deprecated, please use 'spec.ingressClassName' instead";
            warnings.push(format!("annotation \"{CLASS_ANNOTATION}\" {advice}"));
        }
        warnings
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("Class", "The class it asks for."),
            Column::string("Hosts", "Hosts of its rules."),
            Column::string("Address", "Where it is reached."),
            Column::string("Ports", "Ports of the hosts."),
            Column::age(),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let empty = IngressSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&empty);
        vec![
            cell_name(&object.metadata),
            spec.ingress_class_name.as_deref().unwrap_or("<none>").into(),
            hosts(list(&spec.rules)).into(),
            address(object).into(),
            if list(&spec.tls).is_empty() { "80" } else { "80, 443" }.into(),
            cell_age(&object.metadata, now),
        ]
    }
}

fn hosts(rules: &[IngressRule]) -> String {
    let mut shown: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= shown.len() == HOSTS_SHOWN;
        if !more && !blank(&rule.host) {
            shown.push(text(&rule.host));
        }
    }
    match (shown.is_empty(), more) {
        (true, _) => "*".to_owned(),
        (false, false) => shown.join(","),
        (false, true) => format!("{} + {} more...", shown.join(","), rules.len() - HOSTS_SHOWN),
    }
}

fn address(object: &Object) -> String {
    let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let points = status.map_or(&[][..], |status| list(&status.ingress));
    let names = points.iter().map(|point| if blank(&point.ip) { text(&point.hostname) } else { text(&point.ip) });
    names.filter(|name| !name.is_empty()).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(",")
}

fn host(errors: &mut ErrorList, path: &Path, name: &str) {
    if name.contains('*') {
        errors.messages(path, name, validate::wildcard_dns_subdomain(name));
    } else {
        errors.messages(path, name, validate::dns_subdomain(name));
    }
}

fn rule(errors: &mut ErrorList, path: &Path, rule: &IngressRule) {
    let name = text(&rule.host);
    if name.parse::<IpAddr>().is_ok() {
        errors.invalid(&path.child("host"), name, "must be a DNS name, not an IP address");
    } else if !name.is_empty() {
        host(errors, &path.child("host"), name);
    }
    let Some(http) = &rule.http else { return };
    let path = path.child("http").child("paths");
    if http.paths.is_empty() {
        errors.required(&path, "");
    }
    for (index, item) in http.paths.iter().enumerate() {
        http_path(errors, &path.index(index), item);
    }
}

fn http_path(errors: &mut ErrorList, path: &Path, item: &HTTPIngressPath) {
    let (field, value) = (path.child("path"), text(&item.path));
    match item.path_type.as_str() {
        "" => errors.required(&path.child("pathType"), "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !value.starts_with('/') {
                errors.invalid(&field, value, "must be an absolute path");
            }
            if !value.is_empty() {
                for bad in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|bad| value.contains(bad)) {
                    errors.invalid(&field, value, format!("must not contain '{bad}'"));
                }
                for bad in ["/..", "/."].into_iter().filter(|bad| value.ends_with(bad)) {
                    errors.invalid(&field, value, format!("cannot end with '{bad}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !value.is_empty() && !value.starts_with('/') {
                errors.invalid(&field, value, "must be an absolute path");
            }
        }
        other => {
            errors.not_supported(&path.child("pathType"), other, &["Exact", "ImplementationSpecific", "Prefix"]);
        }
    }
    backend(errors, &path.child("backend"), &item.backend);
}

fn backend(errors: &mut ErrorList, path: &Path, backend: &IngressBackend) {
    match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (None, None) => errors.invalid(path, "", "resource or service backend is required"),
        (Some(resource), None) => {
            referenced(errors, &path.child("resource"), &resource.api_group, &resource.kind, &resource.name);
        }
        (None, Some(service)) => {
            let field = path.child("service");
            if service.name.is_empty() {
                errors.required(&field.child("name"), "");
            } else {
                errors.messages(&field.child("name"), &service.name, validate::dns_label(&service.name));
            }
            let number = service.port.as_ref().and_then(|port| port.number).unwrap_or_default();
            let name = service.port.as_ref().map_or("", |port| text(&port.name));
            match (name.is_empty(), number) {
                (true, 0) => errors.required(path, "port name or number is required"),
                (true, number) => port(errors, &field.child("port").child("number"), number),
                (false, 0) => {
                    errors.messages(&field.child("port").child("name"), name, validate::port_name(name));
                }
                (false, _) => errors.invalid(path, "", "cannot set both port name & port number"),
            }
        }
    }
}
