//! Defaults of a pod specification, wherever it stands: in a Pod or in a workload's template.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, EmptyDirVolumeSource, EnvVar, EphemeralContainer, HTTPGetAction,
    LifecycleHandler, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceFieldSelector, ResourceRequirements,
    Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::resources::default_pod_level;
use crate::common::{canonical_quantities, canonical_quantity, default_text};
use crate::storage::default_claim_spec;

/// Mode 0644, of the files in projected volumes.
const FILE_MODE: i32 = 0o644;

/// Fills in a workload's template.
pub(crate) fn template(template: &mut PodTemplateSpec) {
    template.metadata.get_or_insert_default();
    spec(template.spec.get_or_insert_default());
}

/// Fills in what a Pod gets beyond a template: requests from limits, host ports, service links.
pub(crate) fn pod(pod: &mut PodSpec) {
    spec(pod);
    for container in pod.containers.iter_mut().chain(pod.init_containers.iter_mut().flatten()) {
        requests_from_limits(container);
    }
    default_pod_level(pod);
    pod.enable_service_links.get_or_insert(true);
    if pod.host_network == Some(true) {
        for container in pod.containers.iter_mut().chain(pod.init_containers.iter_mut().flatten()) {
            for port in container.ports.iter_mut().flatten() {
                if port.host_port.unwrap_or_default() == 0 {
                    port.host_port = Some(port.container_port);
                }
            }
        }
    }
}

/// Fills in the fields that Pods and templates share.
pub(crate) fn spec(spec: &mut PodSpec) {
    default_text(&mut spec.dns_policy, "ClusterFirst");
    default_text(&mut spec.restart_policy, "Always");
    default_text(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_with(PodSecurityContext::default);
    spec.termination_grace_period_seconds.get_or_insert(30);
    mirror_service_account(spec);
    canonical_quantities(&mut spec.overhead);
    if let Some(resources) = &mut spec.resources {
        canonical(resources);
    }
    for item in spec.volumes.iter_mut().flatten() {
        volume(item);
    }
    for item in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        container(item);
    }
    for item in spec.ephemeral_containers.iter_mut().flatten() {
        ephemeral_container(item);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`: either sets both, and the new name wins.
fn mirror_service_account(spec: &mut PodSpec) {
    if let Some(old) = spec.service_account.take() {
        default_text(&mut spec.service_account_name, &old);
    }
    spec.service_account_name.take_if(|name| name.is_empty());
    spec.service_account.clone_from(&spec.service_account_name);
}

fn container(container: &mut Container) {
    default_text(&mut container.image_pull_policy, pull_policy(container.image.as_deref().unwrap_or_default()));
    default_text(&mut container.termination_message_path, "/dev/termination-log");
    default_text(&mut container.termination_message_policy, "File");
    canonical(container.resources.get_or_insert_default());
    for port in container.ports.iter_mut().flatten() {
        default_text(&mut port.protocol, "TCP");
    }
    for item in container.env.iter_mut().flatten() {
        variable(item);
    }
    for item in [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe] {
        item.as_mut().map(probe);
    }
    if let Some(lifecycle) = &mut container.lifecycle {
        lifecycle.post_start.as_mut().map(handler);
        lifecycle.pre_stop.as_mut().map(handler);
    }
}

fn ephemeral_container(container: &mut EphemeralContainer) {
    default_text(&mut container.image_pull_policy, pull_policy(container.image.as_deref().unwrap_or_default()));
    default_text(&mut container.termination_message_path, "/dev/termination-log");
    default_text(&mut container.termination_message_policy, "File");
    canonical(container.resources.get_or_insert_default());
    for item in container.env.iter_mut().flatten() {
        variable(item);
    }
}

fn variable(variable: &mut EnvVar) {
    let Some(source) = &mut variable.value_from else { return };
    if let Some(field) = &mut source.field_ref {
        default_text(&mut field.api_version, "v1");
    }
    source.resource_field_ref.as_mut().map(resource_field);
    if let Some(file) = &mut source.file_key_ref {
        file.optional.get_or_insert(false);
    }
}

/// Upstream writes the unset divisor, a zero quantity, out as `0`.
fn resource_field(selector: &mut ResourceFieldSelector) {
    canonical_quantity(selector.divisor.get_or_insert_with(|| Quantity("0".to_owned())));
}

fn probe(probe: &mut Probe) {
    for (field, value) in [
        (&mut probe.timeout_seconds, 1),
        (&mut probe.period_seconds, 10),
        (&mut probe.success_threshold, 1),
        (&mut probe.failure_threshold, 3),
    ] {
        if field.unwrap_or_default() == 0 {
            *field = Some(value);
        }
    }
    probe.http_get.as_mut().map(http_get);
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn handler(handler: &mut LifecycleHandler) {
    handler.http_get.as_mut().map(http_get);
}

fn http_get(action: &mut HTTPGetAction) {
    default_text(&mut action.path, "/");
    default_text(&mut action.scheme, "HTTP");
}

fn volume(volume: &mut Volume) {
    let sourceless = Volume { name: volume.name.clone(), ..Volume::default() };
    if *volume == sourceless {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    if let Some(limit) = volume.empty_dir.as_mut().and_then(|source| source.size_limit.as_mut()) {
        canonical_quantity(limit);
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(FILE_MODE);
        source.items.iter_mut().flatten().for_each(downward_file);
    }
    if let Some(source) = &mut volume.projected {
        source.default_mode.get_or_insert(FILE_MODE);
        source.sources.iter_mut().flatten().for_each(projection);
    }
    if let Some(source) = &mut volume.image {
        let policy = pull_policy(source.reference.as_deref().unwrap_or_default());
        default_text(&mut source.pull_policy, policy);
    }
    if let Some(claim) = volume.ephemeral.as_mut().and_then(|source| source.volume_claim_template.as_mut()) {
        default_claim_spec(&mut claim.spec);
    }
    network_volume(volume);
}

/// Sources of storage systems that coracle does not mount, but keeps as upstream would.
fn network_volume(volume: &mut Volume) {
    if let Some(source) = &mut volume.iscsi {
        default_text(&mut source.iscsi_interface, "default");
    }
    if let Some(source) = &mut volume.rbd {
        default_text(&mut source.pool, "rbd");
        default_text(&mut source.user, "admin");
        default_text(&mut source.keyring, "/etc/ceph/keyring");
    }
    if let Some(source) = &mut volume.azure_disk {
        default_text(&mut source.caching_mode, "ReadWrite");
        default_text(&mut source.kind, "Shared");
        default_text(&mut source.fs_type, "ext4");
        source.read_only.get_or_insert(false);
    }
    if let Some(source) = &mut volume.scale_io {
        default_text(&mut source.storage_mode, "ThinProvisioned");
        default_text(&mut source.fs_type, "xfs");
    }
}

fn projection(projection: &mut VolumeProjection) {
    if let Some(token) = &mut projection.service_account_token {
        token.expiration_seconds.get_or_insert(3600);
    }
    if let Some(source) = &mut projection.downward_api {
        source.items.iter_mut().flatten().for_each(downward_file);
    }
    if let Some(source) = &mut projection.pod_certificate {
        source.max_expiration_seconds.get_or_insert(86_400);
    }
}

fn downward_file(file: &mut DownwardAPIVolumeFile) {
    if let Some(field) = &mut file.field_ref {
        default_text(&mut field.api_version, "v1");
    }
    file.resource_field_ref.as_mut().map(resource_field);
}

fn canonical(resources: &mut ResourceRequirements) {
    canonical_quantities(&mut resources.limits);
    canonical_quantities(&mut resources.requests);
}

/// A limit without a request is also the request. Only in Pods: a template keeps what its author wrote.
fn requests_from_limits(container: &mut Container) {
    let Some(resources) = &mut container.resources else { return };
    let Some(limits) = &resources.limits else { return };
    let requests = resources.requests.get_or_insert_with(BTreeMap::new);
    for (resource, limit) in limits {
        requests.entry(resource.clone()).or_insert_with(|| limit.clone());
    }
}

/// `Always` for the tag `latest`, written or meant; `IfNotPresent` for anything else, also for a malformed reference.
fn pull_policy(image: &str) -> &'static str {
    if image_tag(image) == Some("latest") { "Always" } else { "IfNotPresent" }
}

/// The tag of an image reference: `latest` where neither tag nor digest is given, `None` where only a digest is,
/// and for what is no reference at all.
fn image_tag(image: &str) -> Option<&str> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let path_start = name.rfind('/').map_or(0, |slash| slash + 1);
    let (repository, tag) = match name.get(path_start..)?.find(':') {
        Some(colon) => (&name[..path_start + colon], Some(&name[path_start + colon + 1..])),
        None => (name, None),
    };
    if !repository_is_valid(repository) {
        return None;
    }
    match (tag, digest) {
        (Some(tag), _) => Some(tag),
        (None, Some(_)) => None,
        (None, None) => Some("latest"),
    }
}

/// Repository paths are lower case; a registry host before them may be anything.
fn repository_is_valid(repository: &str) -> bool {
    let path = match repository.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" || host.to_lowercase() != host => path,
        _ => repository,
    };
    !path.is_empty()
        && path.split('/').all(|part| {
            !part.is_empty() && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.21.0", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/team/nginx:v1", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("nginx:latest@sha256:abc", "Always"),
            ("Registry.example/nginx", "Always"),
            ("Nginx", "IfNotPresent"),
            ("", "IfNotPresent"),
            (" ", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image:?}");
        }
    }
}
