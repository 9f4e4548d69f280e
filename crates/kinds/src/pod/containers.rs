//! Containers of every sort: what they have in common, and what each sort may have.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, ContainerPort, ContainerRestartRule, PodSpec};
use machinery::field::{ErrorList, FieldError, Path};
use machinery::validate;

use super::probes::{self, Scope};
use super::volumes::{self, Volumes};
use super::{env, resources, security};
use crate::check::{Report, dns_label, one_of, port, protocol};
use crate::common::{blank, list, text};

const RESTART_POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];

/// What the containers of a pod refer to.
pub(super) struct Surroundings<'a> {
    /// The specification around them.
    pub(super) spec: &'a PodSpec,
    /// Its valid volumes.
    pub(super) volumes: &'a Volumes<'a>,
    /// The names of its resource claims.
    pub(super) claims: BTreeSet<&'a str>,
}

impl Surroundings<'_> {
    fn scope(&self) -> Scope<'_> {
        Scope {
            grace_period: self.spec.termination_grace_period_seconds,
            os: self.spec.os.as_ref().map_or("", |os| os.name.as_str()),
        }
    }
}

/// Validates the regular containers.
pub(super) fn validate_regular(errors: &mut ErrorList, path: &Path, around: &Surroundings<'_>) {
    if around.spec.containers.is_empty() {
        errors.required(path, "");
        return;
    }
    let mut names = BTreeSet::new();
    for (index, container) in around.spec.containers.iter().enumerate() {
        let path = path.index(index);
        common(errors, &path, container, around);
        if !names.insert(&container.name) {
            errors.duplicate(&path.child("name"), &container.name);
        }
        probes::validate_running(errors, &path, container, &around.scope());
        restart_policy(errors, &path, container);
    }
    host_port_conflicts(errors, path, &around.spec.containers);
}

/// Validates the init containers.
pub(super) fn validate_init(errors: &mut ErrorList, path: &Path, around: &Surroundings<'_>) {
    let mut names: BTreeSet<&str> = around.spec.containers.iter().map(|container| container.name.as_str()).collect();
    for (index, container) in list(&around.spec.init_containers).iter().enumerate() {
        let item = path.index(index);
        common(errors, &item, container, around);
        restart_policy(errors, &item, container);
        if !container.name.is_empty() && !names.insert(&container.name) {
            errors.duplicate(&item.child("name"), &container.name);
        }
        // They run one after the other, so only ports of the same one can clash.
        host_port_conflicts(errors, path, std::slice::from_ref(container));
        if text(&container.restart_policy) == "Always" {
            probes::validate_running(errors, &item, container, &around.scope());
        } else {
            probes::refuse(errors, &item, container);
        }
    }
}

/// Validates the ephemeral containers.
pub(super) fn validate_ephemeral(errors: &mut ErrorList, path: &Path, around: &Surroundings<'_>) {
    let others: BTreeSet<&str> = around
        .spec
        .containers
        .iter()
        .chain(list(&around.spec.init_containers))
        .map(|container| container.name.as_str())
        .collect();
    let mut names = others.clone();
    for (index, ephemeral) in list(&around.spec.ephemeral_containers).iter().enumerate() {
        let path = path.index(index);
        let container = machinery::ephemeral::as_container(ephemeral);
        common(errors, &path, &container, around);
        trimmed_image(errors, &path, &container);
        if !names.insert(&ephemeral.name) {
            errors.duplicate(&path.child("name"), &ephemeral.name);
        }
        let target = text(&ephemeral.target_container_name);
        if !target.is_empty() && !others.contains(target) {
            errors.not_found(&path.child("targetContainerName"), target);
        }
        refuse_service_fields(errors, &path, &container);
    }
}

/// An ephemeral container is a debugging aid: what makes a container part of the pod's service is refused.
fn refuse_service_fields(errors: &mut ErrorList, path: &Path, container: &Container) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    let resources = container.resources.as_ref();
    for (set, name) in [
        (!list(&container.ports).is_empty(), "ports"),
        (resources.is_some_and(|resources| *resources != Default::default()), "resources"),
        (!list(&container.resize_policy).is_empty(), "resizePolicy"),
        (container.restart_policy.is_some(), "restartPolicy"),
        (!list(&container.restart_policy_rules).is_empty(), "restartPolicyRules"),
        (container.liveness_probe.is_some(), "livenessProbe"),
        (container.readiness_probe.is_some(), "readinessProbe"),
        (container.startup_probe.is_some(), "startupProbe"),
        (container.lifecycle.is_some(), "lifecycle"),
    ] {
        if set {
            errors.forbidden(&path.child(name), WHY);
        }
    }
    for (index, mount) in list(&container.volume_mounts).iter().enumerate() {
        let path = path.child("volumeMounts").index(index);
        if !blank(&mount.sub_path) {
            errors.forbidden(&path.child("subPath"), WHY);
        }
        if !blank(&mount.sub_path_expr) {
            errors.forbidden(&path.child("subPathExpr"), WHY);
        }
    }
}

fn common(errors: &mut ErrorList, path: &Path, container: &Container, around: &Surroundings<'_>) {
    if container.name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        dns_label(errors, &path.child("name"), &container.name);
    }
    if blank(&container.image) {
        errors.required(&path.child("image"), "");
    }
    one_of(
        errors,
        &path.child("terminationMessagePolicy"),
        text(&container.termination_message_policy),
        &["File", "FallbackToLogsOnError"],
    );
    validate_ports(errors, &path.child("ports"), list(&container.ports));
    env::validate(errors, &path.child("env"), list(&container.env), around.volumes);
    env::validate_from(errors, &path.child("envFrom"), list(&container.env_from));
    volumes::validate_mounts(errors, &path.child("volumeMounts"), container, around.volumes);
    volumes::validate_devices(errors, &path.child("volumeDevices"), container, around.volumes);
    one_of(
        errors,
        &path.child("imagePullPolicy"),
        text(&container.image_pull_policy),
        &["Always", "IfNotPresent", "Never"],
    );
    if let Some(requirements) = &container.resources {
        resources::validate_container(errors, &path.child("resources"), requirements, &around.claims);
    }
    resize_policy(errors, &path.child("resizePolicy"), container, around.spec);
    if let Some(context) = &container.security_context {
        let host_users = around.spec.host_users.unwrap_or(true);
        security::validate_container(errors, &path.child("securityContext"), context, host_users);
    }
}

/// Refuses white space around an image reference; only in Pods, as templates always allowed it.
pub(super) fn trimmed_image(errors: &mut ErrorList, path: &Path, container: &Container) {
    let image = text(&container.image);
    if image.trim() != image {
        errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
}

fn validate_ports(errors: &mut ErrorList, path: &Path, ports: &[ContainerPort]) {
    let mut names = BTreeSet::new();
    for (index, item) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(&item.name);
        if !name.is_empty() {
            let messages = validate::port_name(name);
            if !messages.is_empty() {
                errors.messages(&path.child("name"), name, messages);
            } else if !names.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
        if item.container_port == 0 {
            errors.required(&path.child("containerPort"), "");
        } else {
            port(errors, &path.child("containerPort"), item.container_port);
        }
        let host_port = item.host_port.unwrap_or_default();
        if host_port != 0 {
            port(errors, &path.child("hostPort"), host_port);
        }
        protocol(errors, &path.child("protocol"), text(&item.protocol));
    }
}

fn host_port_conflicts(errors: &mut ErrorList, path: &Path, containers: &[Container]) {
    let mut taken = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        for (position, item) in list(&container.ports).iter().enumerate() {
            let host_port = item.host_port.unwrap_or_default();
            if host_port == 0 {
                continue;
            }
            let claim = format!("{}/{}/{host_port}", text(&item.protocol), text(&item.host_ip));
            if taken.contains(&claim) {
                errors.duplicate(&path.index(index).child("ports").index(position).child("hostPort"), &claim);
            }
            taken.insert(claim);
        }
    }
}

fn resize_policy(errors: &mut ErrorList, path: &Path, container: &Container, spec: &PodSpec) {
    let mut seen = BTreeSet::new();
    for (index, policy) in list(&container.resize_policy).iter().enumerate() {
        if !seen.insert(&policy.resource_name) {
            errors.duplicate(&path.index(index), &policy.resource_name);
        }
        one_of(errors, path, &policy.resource_name, &["cpu", "memory"]);
        one_of(errors, path, &policy.restart_policy, &["NotRequired", "RestartContainer"]);
        if text(&spec.restart_policy) == "Never" && policy.restart_policy != "NotRequired" {
            errors.invalid(path, &policy.restart_policy, "must be 'NotRequired' when `restartPolicy` is 'Never'");
        }
    }
}

fn restart_policy(errors: &mut ErrorList, path: &Path, container: &Container) {
    const MOST_RULES: usize = 20;
    if let Some(policy) = &container.restart_policy
        && !RESTART_POLICIES.contains(&policy.as_str())
    {
        errors.not_supported(&path.child("restartPolicy"), policy, &RESTART_POLICIES);
    }
    let rules = list(&container.restart_policy_rules);
    if rules.is_empty() {
        return;
    }
    if container.restart_policy.is_none() {
        errors.required(&path.child("restartPolicy"), "must specify restartPolicy when restart rules are used");
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > MOST_RULES {
        errors.push(FieldError::too_many(&path, rules.len(), MOST_RULES));
    }
    for (index, rule) in rules.iter().enumerate() {
        restart_rule(errors, &path.index(index), rule);
    }
}

fn restart_rule(errors: &mut ErrorList, path: &Path, rule: &ContainerRestartRule) {
    const MOST_CODES: usize = 255;
    one_of(errors, &path.child("action"), &rule.action, &["Restart", "RestartAllContainers"]);
    let path = path.child("exitCodes");
    let Some(codes) = &rule.exit_codes else {
        errors.required(&path, "must be specified");
        return;
    };
    one_of(errors, &path.child("operator"), &codes.operator, &["In", "NotIn"]);
    let values = list(&codes.values);
    if values.is_empty() {
        errors.required(&path.child("values"), "must specify at least one exit code");
    } else if values.len() > MOST_CODES {
        errors.push(FieldError::too_many(&path.child("values"), values.len(), MOST_CODES));
    }
}
