//! Environment variables, and the references to fields that they share with downward API volumes.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector};
use machinery::field::{ErrorList, Path};
use machinery::quantity::Quantity;
use machinery::validate;

use super::volumes::Volumes;
use crate::check::{Report, qualified_name, unreserved_path};
use crate::common::{blank, quantity, text};

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Fields the downward API knows at all.
const KNOWN_FIELDS: [&str; 12] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
];

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const BYTE_DIVISORS: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// Validates `env`.
pub(super) fn validate(errors: &mut ErrorList, path: &Path, variables: &[EnvVar], volumes: &Volumes<'_>) {
    for (index, variable) in variables.iter().enumerate() {
        let path = path.index(index);
        if variable.name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.messages(&path.child("name"), &variable.name, validate::env_var_name(&variable.name));
        }
        if let Some(source) = &variable.value_from {
            validate_source(errors, &path.child("valueFrom"), source, !blank(&variable.value), volumes);
        }
    }
}

/// Validates `envFrom`.
pub(super) fn validate_from(errors: &mut ErrorList, path: &Path, sources: &[EnvFromSource]) {
    for (index, source) in sources.iter().enumerate() {
        let item = path.index(index);
        let prefix = text(&source.prefix);
        if !prefix.is_empty() {
            errors.messages(&item.child("prefix"), prefix, validate::env_var_name(prefix));
        }
        let references = [
            ("configMapRef", source.config_map_ref.as_ref().map(|reference| &reference.name)),
            ("secretRef", source.secret_ref.as_ref().map(|reference| &reference.name)),
        ];
        let mut seen = 0;
        for (field, name) in references {
            let Some(name) = name else { continue };
            seen += 1;
            let path = item.child(field).child("name");
            if name.is_empty() {
                errors.required(&path, "");
            } else {
                // A generated name ends in what is added later: a trailing dash is as good as what follows it.
                errors.messages(&path, name, validate::dns_subdomain(&mask_trailing_dash(name)));
            }
        }
        match seen {
            0 => errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
        }
    }
}

fn mask_trailing_dash(name: &str) -> String {
    name.strip_suffix('-').map_or_else(|| name.to_owned(), |stem| format!("{stem}a"))
}

fn validate_source(errors: &mut ErrorList, path: &Path, source: &EnvVarSource, has_value: bool, volumes: &Volumes<'_>) {
    let mut seen = 0;
    if let Some(field) = &source.field_ref {
        seen += 1;
        validate_field_of(errors, &path.child("fieldRef"), field, &ENV_FIELDS);
    }
    if let Some(resource) = &source.resource_field_ref {
        seen += 1;
        validate_resource(errors, &path.child("resourceFieldRef"), resource, false);
    }
    let keys = [
        ("configMapKeyRef", source.config_map_key_ref.as_ref().map(|reference| (&reference.name, &reference.key))),
        ("secretKeyRef", source.secret_key_ref.as_ref().map(|reference| (&reference.name, &reference.key))),
    ];
    for (field, reference) in keys {
        let Some((name, key)) = reference else { continue };
        seen += 1;
        let path = path.child(field);
        errors.messages(&path.child("name"), name, validate::dns_subdomain(name));
        if key.is_empty() {
            errors.required(&path.child("key"), "");
        } else {
            errors.messages(&path.child("key"), key, validate::config_map_key(key));
        }
    }
    if let Some(file) = &source.file_key_ref {
        seen += 1;
        let path = path.child("fileKeyRef");
        if file.key.is_empty() {
            errors.required(&path.child("key"), "");
        } else {
            errors.messages(&path.child("key"), &file.key, validate::env_var_name(&file.key));
        }
        if file.volume_name.is_empty() {
            errors.required(&path.child("volumeName"), "");
        } else if !volumes.contains_key(file.volume_name.as_str()) {
            errors.not_found(&path.child("volumeName"), &file.volume_name);
        }
        if file.path.is_empty() {
            errors.required(&path.child("path"), "");
        } else {
            unreserved_path(errors, &path.child("path"), &file.path);
        }
    }
    match seen {
        0 => errors.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        _ if has_value => errors.invalid(path, "", "may not be specified when `value` is not empty"),
        1 => {}
        _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
    }
}

/// Validates a reference to a field in a downward API volume.
pub(super) fn validate_volume_field(errors: &mut ErrorList, path: &Path, field: &ObjectFieldSelector) {
    validate_field_of(errors, path, field, &VOLUME_FIELDS);
}

fn validate_field_of(errors: &mut ErrorList, path: &Path, field: &ObjectFieldSelector, legal: &[&str]) {
    if blank(&field.api_version) {
        errors.required(&path.child("apiVersion"), "");
        return;
    }
    if field.field_path.is_empty() {
        errors.required(&path.child("fieldPath"), "");
        return;
    }
    let field_path = path.child("fieldPath");
    if text(&field.api_version) != "v1" {
        let version = text(&field.api_version);
        errors.invalid(
            &field_path,
            &field.field_path,
            format!("error converting fieldPath: unsupported pod version: {version}"),
        );
        return;
    }
    if let Some((name, subscript)) = split_subscript(&field.field_path) {
        match name {
            "metadata.annotations" => qualified_name(errors, path, &subscript.to_lowercase()),
            "metadata.labels" => qualified_name(errors, path, subscript),
            _ => errors.invalid(
                &field_path,
                &field.field_path,
                format!("error converting fieldPath: field label does not support subscript: {}", field.field_path),
            ),
        }
        return;
    }
    // `spec.host` is what `spec.nodeName` was called before v1.
    let name = if field.field_path == "spec.host" { "spec.nodeName" } else { field.field_path.as_str() };
    if !KNOWN_FIELDS.contains(&name) && !ENV_FIELDS.contains(&name) {
        errors.invalid(
            &field_path,
            &field.field_path,
            format!("error converting fieldPath: field label not supported: {}", field.field_path),
        );
    } else if !legal.contains(&name) {
        errors.not_supported(&field_path, name, legal);
    }
}

/// `metadata.labels['app']` as (`metadata.labels`, `app`).
fn split_subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['").filter(|(name, _)| !name.is_empty())
}

/// Validates a reference to a resource of a container.
pub(super) fn validate_resource(errors: &mut ErrorList, path: &Path, selector: &ResourceFieldSelector, volume: bool) {
    let name = selector.resource.as_str();
    let huge = name.starts_with("requests.hugepages-") || name.starts_with("limits.hugepages-");
    if volume && blank(&selector.container_name) {
        errors.required(&path.child("containerName"), "");
    } else if name.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !RESOURCES.contains(&name) && !huge {
        errors.not_supported(&path.child("resource"), name, &RESOURCES);
    }
    let Some(divisor) = selector.divisor.as_ref().and_then(quantity).filter(|divisor| *divisor != Quantity::default())
    else {
        return;
    };
    let divisor = divisor.to_string();
    let (legal, kind): (&[&str], &str) = match name {
        "limits.cpu" | "requests.cpu" => (&["1m", "1"], "cpu"),
        "limits.memory" | "requests.memory" => (&BYTE_DIVISORS, "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => (&BYTE_DIVISORS, "local ephemeral storage"),
        _ if huge => (&BYTE_DIVISORS, "hugepages"),
        _ => return,
    };
    if !legal.contains(&divisor.as_str()) {
        let values = if kind == "cpu" { "1m and 1".to_owned() } else { legal.join(", ") };
        errors.invalid(
            &path.child("divisor"),
            name,
            format!("only divisor's values {values} are supported with the {kind} resource"),
        );
    }
}
