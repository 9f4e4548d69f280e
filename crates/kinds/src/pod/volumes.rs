//! Volumes of a pod, and where containers mount them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, Container, DownwardAPIVolumeFile, KeyToPath, PersistentVolumeClaimTemplate,
    ProjectedVolumeSource, Volume, VolumeDevice, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::field::{ErrorList, Path};
use machinery::quantity::Quantity;
use machinery::validate;

use super::env;
use super::network_volumes;
use crate::check::{
    Report, descending_path, dns_label, file_mode, has_backsteps, label_selector, labels, no_backsteps, one_of,
    optional_one_of, unreserved_path,
};
use crate::common::{blank, list, quantity, text};
use crate::storage::validate_claim_spec;

const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// The valid volumes of a pod by name, for whoever refers to them.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Volume>;

/// Validates the volumes; those without fault are returned. `pod_name` is empty in templates.
pub(super) fn validate<'a>(
    errors: &mut ErrorList,
    path: &Path,
    volumes: &'a [Volume],
    pod_name: &str,
    in_pod: bool,
) -> Volumes<'a> {
    let mut valid = Volumes::new();
    let created: BTreeSet<String> = volumes
        .iter()
        .filter(|volume| volume.ephemeral.is_some() && !pod_name.is_empty())
        .map(|volume| format!("{pod_name}-{}", volume.name))
        .collect();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        let before = errors.len();
        validate_source(errors, &path, volume, pod_name, in_pod);
        if volume.name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            dns_label(errors, &path.child("name"), &volume.name);
        }
        if valid.contains_key(volume.name.as_str()) {
            errors.duplicate(&path.child("name"), &volume.name);
        }
        if errors.len() == before {
            valid.insert(&volume.name, volume);
        }
        if let Some(claim) = &volume.persistent_volume_claim
            && created.contains(&claim.claim_name)
        {
            errors.invalid(
                &path.child("persistentVolumeClaim").child("claimName"),
                &claim.claim_name,
                "must not reference a PVC that gets created for an ephemeral volume",
            );
        }
    }
    valid
}

fn validate_source(errors: &mut ErrorList, path: &Path, volume: &Volume, pod_name: &str, in_pod: bool) {
    let mut sources = network_volumes::Sources::new(path);
    if let Some(source) = &volume.empty_dir {
        sources.count();
        if source.size_limit.as_ref().and_then(quantity).is_some_and(|limit| limit < Quantity::default()) {
            errors.forbidden(
                &path.child("emptyDir").child("sizeLimit"),
                "SizeLimit field must be a valid resource quantity",
            );
        }
    }
    if let Some(source) = &volume.host_path
        && let Some(path) = sources.next(errors, "hostPath")
    {
        if source.path.is_empty() {
            errors.required(&path.child("path"), "");
        } else {
            no_backsteps(errors, &path.child("path"), &source.path);
            optional_one_of(errors, &path.child("type"), &source.type_, &HOST_PATH_TYPES);
        }
    }
    if let Some(source) = &volume.secret
        && let Some(path) = sources.next(errors, "secret")
    {
        if blank(&source.secret_name) {
            errors.required(&path.child("secretName"), "");
        }
        file_mode(errors, &path.child("defaultMode"), source.default_mode);
        keys(errors, &path.child("items"), list(&source.items));
    }
    if let Some(source) = &volume.persistent_volume_claim
        && let Some(path) = sources.next(errors, "persistentVolumeClaim")
        && source.claim_name.is_empty()
    {
        errors.required(&path.child("claimName"), "");
    }
    if let Some(source) = &volume.downward_api
        && let Some(path) = sources.next(errors, "downwardAPI")
    {
        file_mode(errors, &path.child("defaultMode"), source.default_mode);
        for file in list(&source.items) {
            downward_file(errors, &path, file);
        }
    }
    if let Some(source) = &volume.config_map
        && let Some(path) = sources.next(errors, "configMap")
    {
        if source.name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        file_mode(errors, &path.child("defaultMode"), source.default_mode);
        keys(errors, &path.child("items"), list(&source.items));
    }
    if let Some(source) = &volume.projected
        && let Some(path) = sources.next(errors, "projected")
    {
        file_mode(errors, &path.child("defaultMode"), source.default_mode);
        projected(errors, &path, source);
    }
    if let Some(source) = &volume.ephemeral
        && let Some(path) = sources.next(errors, "ephemeral")
    {
        let template = path.child("volumeClaimTemplate");
        match &source.volume_claim_template {
            Some(claim) => claim_template(errors, &template, claim),
            None => errors.required(&template, ""),
        }
        let claim = format!("{pod_name}-{}", volume.name);
        if !pod_name.is_empty() && !volume.name.is_empty() {
            for message in validate::dns_subdomain(&claim) {
                errors.invalid(&path.child("name"), &volume.name, format!("PVC name \"{claim}\": {message}"));
            }
        }
    }
    if let Some(source) = &volume.image
        && let Some(path) = sources.next(errors, "image")
    {
        if in_pod && blank(&source.reference) {
            errors.required(&path.child("reference"), "");
        }
        one_of(errors, &path.child("pullPolicy"), text(&source.pull_policy), &["Always", "IfNotPresent", "Never"]);
    }
    network_volumes::validate(errors, &mut sources, volume);
    if sources.is_empty() {
        errors.required(path, "must specify a volume type");
    }
}

/// The template of an ephemeral volume's claim: a claim without a name of its own.
fn claim_template(errors: &mut ErrorList, path: &Path, claim: &PersistentVolumeClaimTemplate) {
    if let Some(meta) = &claim.metadata {
        let path = path.child("metadata");
        labels(errors, &path.child("labels"), &meta.labels);
        let allowed =
            ObjectMeta { labels: meta.labels.clone(), annotations: meta.annotations.clone(), ..ObjectMeta::default() };
        let others = [("name", &meta.name), ("generateName", &meta.generate_name), ("namespace", &meta.namespace)];
        let set: Vec<&str> = others.into_iter().filter(|(_, value)| !blank(value)).map(|(field, _)| field).collect();
        for field in &set {
            errors.forbidden(&path.child((*field).to_owned()), "cannot be set");
        }
        if set.is_empty() && *meta != allowed {
            errors.forbidden(&path, "only labels and annotations can be set");
        }
    }
    validate_claim_spec(errors, &path.child("spec"), &claim.spec);
}

fn keys(errors: &mut ErrorList, path: &Path, items: &[KeyToPath]) {
    for (index, item) in items.iter().enumerate() {
        key(errors, &path.index(index), item);
    }
}

fn key(errors: &mut ErrorList, path: &Path, item: &KeyToPath) {
    if item.key.is_empty() {
        errors.required(&path.child("key"), "");
    }
    if item.path.is_empty() {
        errors.required(&path.child("path"), "");
    }
    unreserved_path(errors, &path.child("path"), &item.path);
    file_mode(errors, &path.child("mode"), item.mode);
}

fn downward_file(errors: &mut ErrorList, path: &Path, file: &DownwardAPIVolumeFile) {
    if file.path.is_empty() {
        errors.required(&path.child("path"), "");
    }
    unreserved_path(errors, &path.child("path"), &file.path);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), other) => {
            env::validate_volume_field(errors, &path.child("fieldRef"), field);
            if other.is_some() {
                errors.invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
        }
        (None, Some(resource)) => {
            env::validate_resource(errors, &path.child("resourceFieldRef"), resource, true);
        }
        (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    file_mode(errors, &path.child("mode"), file.mode);
}

fn projected(errors: &mut ErrorList, path: &Path, projection: &ProjectedVolumeSource) {
    let mut paths = BTreeSet::new();
    for (index, source) in list(&projection.sources).iter().enumerate() {
        let item = path.child("sources").index(index);
        let mut seen = 0;
        let named = [
            ("secret", source.secret.as_ref().map(|source| (&source.name, list(&source.items)))),
            ("configMap", source.config_map.as_ref().map(|source| (&source.name, list(&source.items)))),
        ];
        for (field, reference) in named {
            let Some((name, items)) = reference else { continue };
            seen += 1;
            if name.is_empty() {
                errors.required(&item.child(field).child("name"), "");
            }
            keys(errors, &item.child(field).child("items"), items);
            for key in items {
                if !key.path.is_empty() && !paths.insert(key.path.as_str()) {
                    errors.invalid(path, name, "conflicting duplicate paths");
                }
            }
        }
        if let Some(source) = &source.downward_api {
            seen += 1;
            for file in list(&source.items) {
                downward_file(errors, &item.child("downwardAPI"), file);
                if !file.path.is_empty() && !paths.insert(&file.path) {
                    errors.invalid(path, &file.path, "conflicting duplicate paths");
                }
            }
        }
        if let Some(token) = &source.service_account_token {
            seen += 1;
            let seconds = token.expiration_seconds.unwrap_or_default();
            let field = item.child("serviceAccountToken").child("expirationSeconds");
            if seconds < 600 {
                errors.invalid(&field, seconds, "may not specify a duration less than 10 minutes");
            }
            if seconds > 1 << 32 {
                errors.invalid(&field, seconds, "may not specify a duration larger than 2^32 seconds");
            }
            if token.path.is_empty() {
                errors.required(&path.child("path"), "");
            } else {
                unreserved_path(errors, &path.child("path"), &token.path);
            }
        }
        if let Some(bundle) = &source.cluster_trust_bundle {
            seen += 1;
            trust_bundle(errors, &item.child("clusterTrustBundle"), bundle);
            if !paths.insert(&bundle.path) {
                errors.invalid(path, &bundle.path, "conflicting duplicate paths");
            }
        }
        seen += usize::from(source.pod_certificate.is_some());
        if seen > 1 {
            errors.forbidden(&item, "may not specify more than 1 volume type per source");
        }
    }
}

fn trust_bundle(errors: &mut ErrorList, path: &Path, bundle: &ClusterTrustBundleProjection) {
    match (&bundle.name, &bundle.signer_name) {
        (Some(_), Some(_)) => errors.invalid(path, bundle, "only one of name and signerName may be used"),
        (Some(name), None) => {
            if name.is_empty() {
                errors.required(&path.child("name"), "must be a valid object name");
            }
            if bundle.label_selector.is_some() {
                errors.invalid(
                    &path.child("labelSelector"),
                    &bundle.label_selector,
                    "labelSelector must be unset if name is specified",
                );
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.required(&path.child("signerName"), "must be a valid signer name");
            }
            label_selector(errors, &path.child("labelSelector"), bundle.label_selector.as_ref());
        }
        (None, None) => errors.required(path, "either name or signerName must be specified"),
    }
    if bundle.path.is_empty() {
        errors.required(&path.child("path"), "");
    }
    unreserved_path(errors, &path.child("path"), &bundle.path);
}

/// Validates the volume mounts of a container.
pub(super) fn validate_mounts(errors: &mut ErrorList, path: &Path, container: &Container, volumes: &Volumes<'_>) {
    let devices = || list(&container.volume_devices).iter();
    let names: BTreeSet<&String> = devices().map(|device| &device.name).collect();
    let paths: BTreeSet<&String> = devices().map(|device| &device.device_path).collect();
    let mut mounted = BTreeSet::new();
    for (index, mount) in list(&container.volume_mounts).iter().enumerate() {
        let item = path.index(index);
        if mount.name.is_empty() {
            errors.required(&item.child("name"), "");
        }
        if !volumes.contains_key(mount.name.as_str()) {
            errors.not_found(&item.child("name"), &mount.name);
        }
        if mount.mount_path.is_empty() {
            errors.required(&item.child("mountPath"), "");
        }
        if !mounted.insert(&mount.mount_path) {
            errors.invalid(&item.child("mountPath"), &mount.mount_path, "must be unique");
        }
        if names.contains(&mount.name) {
            errors.invalid(&item.child("name"), &mount.name, "must not already exist in volumeDevices");
        }
        if paths.contains(&mount.mount_path) {
            errors.invalid(
                &item.child("mountPath"),
                &mount.mount_path,
                "must not already exist as a path in volumeDevices",
            );
        }
        sub_path(errors, path, &item, mount, volumes);
        propagation(errors, path, mount, container);
    }
}

fn sub_path(errors: &mut ErrorList, path: &Path, item: &Path, mount: &VolumeMount, volumes: &Volumes<'_>) {
    let (sub_path, expression) = (text(&mount.sub_path), text(&mount.sub_path_expr));
    if volumes.get(mount.name.as_str()).is_some_and(|volume| volume.image.is_some()) {
        for (field, value) in [("subPath", sub_path), ("subPathExpr", expression)] {
            if !value.is_empty() {
                errors.invalid(&item.child(field), value, "not allowed in image volume sources");
            }
        }
    }
    if !sub_path.is_empty() {
        descending_path(errors, &path.child("subPath"), sub_path);
    }
    if !expression.is_empty() {
        if !sub_path.is_empty() {
            errors.invalid(&item.child("subPathExpr"), expression, "subPathExpr and subPath are mutually exclusive");
        }
        descending_path(errors, &path.child("subPathExpr"), expression);
    }
}

fn propagation(errors: &mut ErrorList, path: &Path, mount: &VolumeMount, container: &Container) {
    let mode = text(&mount.mount_propagation);
    if mount.mount_propagation.is_some() {
        let path = path.child("mountPropagation");
        let privileged = container.security_context.as_ref().is_some_and(|context| context.privileged == Some(true));
        if !["Bidirectional", "HostToContainer", "None"].contains(&mode) {
            errors.not_supported(&path, mode, &["Bidirectional", "HostToContainer", "None"]);
        } else if mode == "Bidirectional" && !privileged {
            errors.forbidden(&path, "Bidirectional mount propagation is available only to privileged containers");
        }
    }
    let path = path.child("recursiveReadOnly");
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errors.forbidden(&path, "may only be specified when readOnly is true");
            }
            if mount.mount_propagation.is_some() && mode != "None" {
                errors.forbidden(&path, "may only be specified when mountPropagation is None or not specified");
            }
        }
        Some(other) => errors.not_supported(&path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

/// Validates the block devices of a container.
pub(super) fn validate_devices(errors: &mut ErrorList, path: &Path, container: &Container, volumes: &Volumes<'_>) {
    let mounts = || list(&container.volume_mounts).iter();
    let mounted: BTreeSet<&String> = mounts().map(|mount| &mount.name).collect();
    let mount_paths: BTreeSet<&String> = mounts().map(|mount| &mount.mount_path).collect();
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (index, device) in list(&container.volume_devices).iter().enumerate() {
        let item = path.index(index);
        let VolumeDevice { name, device_path } = device;
        if name.is_empty() {
            errors.required(&item.child("name"), "");
        } else if !names.insert(name) {
            errors.invalid(&item.child("name"), name, "must be unique");
        }
        match volumes.get(name.as_str()) {
            None => errors.not_found(&item.child("name"), name),
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => errors.invalid(
                &item.child("name"),
                name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            ),
            Some(_) => {}
        }
        let field = item.child("devicePath");
        if device_path.is_empty() {
            errors.required(&field, "");
        }
        if !paths.insert(device_path) {
            errors.invalid(&field, device_path, "must be unique");
        }
        if has_backsteps(device_path) {
            errors.invalid(&field, device_path, "can not contain backsteps ('..')");
        }
        if mounted.contains(name) {
            errors.invalid(&item.child("name"), name, "must not already exist in volumeMounts");
        }
        if mount_paths.contains(device_path) {
            errors.invalid(&field, device_path, "must not already exist as a path in volumeMounts");
        }
    }
}
