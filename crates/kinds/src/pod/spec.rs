//! Validation of a whole pod specification, in a Pod or in a workload's template.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PodDNSConfig, PodResourceClaim, PodSpec, PodTemplateSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::field::{ErrorList, Path};
use machinery::validate;

use super::containers::{self, Surroundings};
use super::{resources, scheduling, security, volumes, windows};
use crate::check::{Report, dns_label, dns_subdomain, ip, labels, one_of, qualified_name};
use crate::common::{blank, entry, list, text};

const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
/// Limits of the resolver in libc.
const MOST_NAMESERVERS: usize = 3;
const MOST_SEARCH_PATHS: usize = 32;
const LONGEST_SEARCH_LIST: usize = 2048;

/// Validates a workload's template.
pub(crate) fn validate_template(errors: &mut ErrorList, path: &Path, template: &PodTemplateSpec) {
    let none = ObjectMeta::default();
    let meta = template.metadata.as_ref().unwrap_or(&none);
    labels(errors, &path.child("labels"), &meta.labels);
    validate_annotations(errors, &path.child("annotations"), meta);
    let empty = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&empty);
    validate(errors, &path.child("spec"), spec, None);
    if !list(&spec.ephemeral_containers).is_empty() {
        errors.forbidden(
            &path.child("spec").child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

fn validate_annotations(errors: &mut ErrorList, path: &Path, meta: &ObjectMeta) {
    for key in meta.annotations.iter().flat_map(|annotations| annotations.keys()) {
        errors.messages(path, key, validate::qualified_name(&key.to_lowercase()));
    }
    pod_annotations(errors, path, meta);
}

/// Validates the annotations that mean something on a pod.
pub(super) fn pod_annotations(errors: &mut ErrorList, path: &Path, meta: &ObjectMeta) {
    const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    if let Some(cost) = entry(&meta.annotations, DELETION_COST) {
        // Upstream reads it with strconv, but refuses a leading plus and leading zeros.
        let plain = cost == "0" || cost.trim_start_matches('-').starts_with(|first: char| ('1'..='9').contains(&first));
        if !plain || cost.parse::<i32>().is_err() {
            errors.invalid(&path.key(DELETION_COST), cost, "must be a 32bit integer");
        }
    }
}

/// Validates a specification; `pod` is the metadata of the Pod it stands in, `None` in a template.
pub(crate) fn validate(errors: &mut ErrorList, path: &Path, spec: &PodSpec, pod: Option<&ObjectMeta>) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let pod_name = pod.map_or("", |meta| text(&meta.name));
    let volumes = volumes::validate(errors, &path.child("volumes"), list(&spec.volumes), pod_name, pod.is_some());
    let claims = resource_claims(errors, &path.child("resourceClaims"), list(&spec.resource_claims));
    let around = Surroundings { spec, volumes: &volumes, claims };
    containers::validate_regular(errors, &path.child("containers"), &around);
    containers::validate_init(errors, &path.child("initContainers"), &around);
    containers::validate_ephemeral(errors, &path.child("ephemeralContainers"), &around);
    resources::validate_pod(errors, &path.child("resources"), spec);
    host_network_ports(errors, path, spec, pod.is_some());
    windows::validate(errors, path, spec);
    one_of(errors, &path.child("restartPolicy"), text(&spec.restart_policy), &["Always", "OnFailure", "Never"]);
    one_of(errors, &path.child("dnsPolicy"), text(&spec.dns_policy), &DNS_POLICIES);
    labels(errors, &path.child("nodeSelector"), &spec.node_selector);
    if let Some(context) = &spec.security_context {
        security::validate_pod(errors, &path.child("securityContext"), context, spec);
    }
    if let Some(affinity) = &spec.affinity {
        scheduling::validate_affinity(errors, &path.child("affinity"), affinity);
    }
    dns_config(errors, &path.child("dnsConfig"), spec);
    for (index, gate) in list(&spec.readiness_gates).iter().enumerate() {
        qualified_name(errors, &path.child("readinessGates").index(index).child("conditionType"), &gate.condition_type);
    }
    scheduling::validate_gates(errors, &path.child("schedulingGates"), list(&spec.scheduling_gates));
    scheduling::validate_spread(
        errors,
        &path.child("topologySpreadConstraints"),
        list(&spec.topology_spread_constraints),
    );
    security::validate_host_users(errors, path, spec);
    names(errors, path, spec);
    scheduling::validate_tolerations(errors, &path.child("tolerations"), list(&spec.tolerations));
    for (index, alias) in list(&spec.host_aliases).iter().enumerate() {
        let path = path.child("hostAliases").index(index);
        ip(errors, &path.child("ip"), &alias.ip);
        for (index, name) in list(&alias.hostnames).iter().enumerate() {
            dns_subdomain(errors, &path.child("hostnames").index(index), name);
        }
    }
    if let Some(policy) = &spec.preemption_policy {
        one_of(errors, &path.child("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
    }
    if spec.overhead.is_some() {
        let overhead = ResourceRequirements { limits: spec.overhead.clone(), ..ResourceRequirements::default() };
        resources::validate_container(errors, &path.child("overhead"), &overhead, &BTreeSet::new());
    }
    if let Some(os) = &spec.os {
        let path = path.child("os");
        match os.name.as_str() {
            "" => errors.required(&path.child("name"), "cannot be empty"),
            "linux" | "windows" => {}
            other => errors.not_supported(&path, other, &["linux", "windows"]),
        }
    }
}

fn names(errors: &mut ErrorList, path: &Path, spec: &PodSpec) {
    for (field, name) in [
        ("serviceAccountName", &spec.service_account_name),
        ("nodeName", &spec.node_name),
        ("priorityClassName", &spec.priority_class_name),
        ("runtimeClassName", &spec.runtime_class_name),
    ] {
        if !blank(name) || (field == "runtimeClassName" && name.is_some()) {
            dns_subdomain(errors, &path.child(field), text(name));
        }
    }
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        errors.invalid(&path.child("activeDeadlineSeconds"), seconds, validate::between(1, i64::from(i32::MAX)));
    }
    for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if !blank(name) {
            dns_label(errors, &path.child(field), text(name));
        }
    }
    if let Some(name) = &spec.hostname_override {
        let path = path.child("hostnameOverride");
        // The kernel's limit on host names.
        if name.len() > 64 {
            errors.invalid(&path, name, validate::max_length(64));
        }
        dns_subdomain(errors, &path, name);
        if spec.host_network == Some(true) {
            errors.forbidden(&path, "may not be specified when hostNetwork is true");
        }
        if spec.set_hostname_as_fqdn == Some(true) {
            errors.forbidden(&path, "may not be specified when setHostnameAsFQDN is true");
        }
    }
}

fn resource_claims<'a>(errors: &mut ErrorList, path: &Path, claims: &'a [PodResourceClaim]) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (index, claim) in claims.iter().enumerate() {
        let path = path.index(index);
        if claim.name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if names.insert(claim.name.as_str()) {
            dns_label(errors, &path.child("name"), &claim.name);
        } else {
            errors.duplicate(&path.child("name"), &claim.name);
        }
        match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(_), Some(_)) => errors.invalid(
                &path,
                claim,
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
            (None, None) => {
                errors.invalid(&path, claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`");
            }
            (Some(name), None) => dns_subdomain(errors, &path.child("resourceClaimName"), name),
            (None, Some(name)) => dns_subdomain(errors, &path.child("resourceClaimTemplateName"), name),
        }
    }
    names
}

/// In the host's network a container port is a host port: in a Pod it must say so, in a template it may be left out.
fn host_network_ports(errors: &mut ErrorList, path: &Path, spec: &PodSpec, in_pod: bool) {
    if spec.host_network != Some(true) {
        return;
    }
    for (index, container) in spec.containers.iter().enumerate() {
        for (position, port) in list(&container.ports).iter().enumerate() {
            let host_port = port.host_port.unwrap_or_default();
            if (in_pod || host_port != 0) && host_port != port.container_port {
                errors.invalid(
                    &path.child("containers").index(index).child("ports").index(position).child("hostPort"),
                    host_port,
                    "must match `containerPort` when `hostNetwork` is true",
                );
            }
        }
    }
}

fn dns_config(errors: &mut ErrorList, path: &Path, spec: &PodSpec) {
    let absent = PodDNSConfig::default();
    let config = spec.dns_config.as_ref();
    if text(&spec.dns_policy) == "None" {
        if config.is_none() {
            errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if list(&config.unwrap_or(&absent).nameservers).is_empty() {
            errors.required(
                &path.child("nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            );
            return;
        }
    }
    let Some(config) = config else { return };
    let (servers, searches) = (list(&config.nameservers), list(&config.searches));
    if servers.len() > MOST_NAMESERVERS {
        errors.invalid(
            &path.child("nameservers"),
            servers,
            format!("must not have more than {MOST_NAMESERVERS} nameservers"),
        );
    }
    for (index, server) in servers.iter().enumerate() {
        ip(errors, &path.child("nameservers").index(index), server);
    }
    let field = path.child("searches");
    if searches.len() > MOST_SEARCH_PATHS {
        errors.invalid(&field, searches, format!("must not have more than {MOST_SEARCH_PATHS} search paths"));
    }
    if searches.join(" ").len() > LONGEST_SEARCH_LIST {
        errors.invalid(
            &field,
            searches,
            format!("must not have more than {LONGEST_SEARCH_LIST} characters (including spaces) in the search list"),
        );
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        // Resolvers look names with underscores up, so a search path may have them too.
        let plain = search.strip_suffix('.').unwrap_or(search);
        errors.messages(&field.index(index), plain, validate::dns_subdomain(&plain.replace('_', "a")));
    }
    for (index, option) in list(&config.options).iter().enumerate() {
        if blank(&option.name) {
            errors.required(&path.child("options").index(index), "must not be empty");
        }
    }
}
