//! What a definition must fulfil. Rules about schemas are in [`machinery::schema::rules`].

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceConversion, CustomResourceDefinition as Object,
    CustomResourceDefinitionNames, CustomResourceDefinitionVersion, CustomResourceSubresourceScale, JSONSchemaProps,
    JSONSchemaPropsOrBool, WebhookConversion,
};
use machinery::field::{ErrorList, Path};
use machinery::schema::rules;
use machinery::validate;
use registry::custom::{ESTABLISHED, is_true};

use super::super::check::{Report, immutable};
use super::super::common::{blank, entry, list, text};

/// The most selectable fields of a version.
const SELECTABLE_MAX: usize = 8;

/// The most printer columns of a version. Upstream has no limit; each is a cell in each row of each table.
const COLUMNS_MAX: usize = 100;

/// What is wrong with a definition. A schema that it has in `old` as well may cost what it likes: it was accepted before
/// (upstream: `versionsWithUnchangedSchemas` in apiextensions-apiserver `pkg/apis/apiextensions/validation/validation.go`).
pub(super) fn validate(object: &Object, old: Option<&Object>) -> ErrorList {
    let mut errors = ErrorList::new();
    let name = text(&object.metadata.name);
    let spec = &object.spec;
    if name != format!("{}.{}", spec.names.plural, spec.group) {
        errors.invalid(&Path::new("metadata").child("name"), name, "must be spec.names.plural+\".\"+spec.group");
    }
    let path = Path::new("spec");
    let group = path.child("group");
    let group_messages = validate::dns_subdomain(&spec.group);
    if spec.group.is_empty() {
        errors.required(&group, "");
    } else if !group_messages.is_empty() {
        errors.invalid(&group, &spec.group, group_messages.join(","));
    } else if !spec.group.contains('.') {
        errors.invalid(&group, &spec.group, "should be a domain with at least one dot");
    }
    choice(&mut errors, &path.child("scope"), &spec.scope, &["Cluster", "Namespaced"]);
    versions(&mut errors, &path, &spec.versions, old.map_or(&[], |old| &old.spec.versions));
    let names_path = path.child("names");
    for (field, value) in [
        ("plural", spec.names.plural.as_str()),
        ("singular", text(&spec.names.singular)),
        ("kind", spec.names.kind.as_str()),
        ("listKind", text(&spec.names.list_kind)),
    ] {
        if value.is_empty() {
            errors.required(&names_path.child(field), "");
        }
    }
    names(&mut errors, &names_path, &spec.names);
    if let Some(conversion) = &spec.conversion {
        validate_conversion(&mut errors, &path.child("conversion"), conversion);
    }
    if spec.preserve_unknown_fields == Some(true) {
        let detail =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&path.child("preserveUnknownFields"), true, detail);
    }
    approval(object).refuse(object, &mut errors);
    errors
}

pub(super) fn validate_update(new: &Object, old: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let (now, before) = (&new.spec, &old.spec);
    if is_true(old, ESTABLISHED) {
        // These decide how objects are stored.
        immutable(&mut errors, &path.child("scope"), &now.scope, &before.scope);
        immutable(&mut errors, &path.child("names").child("kind"), &now.names.kind, &before.names.kind);
    }
    immutable(&mut errors, &path.child("group"), &now.group, &before.group);
    immutable(&mut errors, &path.child("names").child("plural"), &now.names.plural, &before.names.plural);
    errors.extend(stored_versions(new));
    errors
}

pub(super) fn validate_status(new: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(accepted) = new.status.as_ref().and_then(|status| status.accepted_names.as_ref()) {
        names(&mut errors, &Path::new("status").child("acceptedNames"), accepted);
    }
    errors.extend(stored_versions(new));
    errors
}

/// Versions that objects may still be stored in must stay readable.
fn stored_versions(object: &Object) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("status").child("storedVersions");
    let stored = object.status.as_ref().map_or(&[][..], |status| list(&status.stored_versions));
    if stored.is_empty() {
        errors.invalid(&path, stored, "must have at least one stored version");
        return errors;
    }
    for version in object.spec.versions.iter().filter(|version| version.storage && !stored.contains(&version.name)) {
        errors.invalid(&path, stored, format!("must have the storage version {}", version.name));
    }
    for (index, name) in stored.iter().enumerate() {
        if !object.spec.versions.iter().any(|version| version.name == *name) {
            errors.invalid(&path.index(index), name, format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            ));
        }
    }
    errors
}

/// A value from a closed set; an empty one is missing.
fn choice(errors: &mut ErrorList, path: &Path, value: &str, valid: &[&str]) {
    if value.is_empty() {
        errors.required(path, "");
    } else if !valid.contains(&value) {
        errors.not_supported(path, value, valid);
    }
}

fn versions(
    errors: &mut ErrorList,
    spec: &Path,
    versions: &[CustomResourceDefinitionVersion],
    before: &[CustomResourceDefinitionVersion],
) {
    let path = spec.child("versions");
    for (index, version) in versions.iter().enumerate() {
        let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        if schema.is_none() {
            errors.required(&path.index(index).child("schema").child("openAPIV3Schema"), "schemas are required");
        }
    }
    let mut work = rules::Work::default();
    for (index, version) in versions.iter().enumerate() {
        let path = path.index(index);
        let messages = validate::dns1035_label(&version.name);
        if !messages.is_empty() {
            errors.invalid(&path.child("name"), &version.name, messages.join(","));
        }
        let is_kept = before.iter().any(|before| before.name == version.name && before.schema == version.schema);
        let costs = if is_kept { rules::Costs::Accepted } else { rules::Costs::Limited(&mut work) };
        validate_version(errors, &path, version, costs);
    }
    let mut seen = BTreeSet::new();
    let unique = versions.iter().all(|version| seen.insert(&version.name));
    // Upstream shows all of the versions; their schemas would bury the message.
    let shown: Vec<&str> = versions.iter().map(|version| version.name.as_str()).collect();
    if !unique {
        errors.invalid(&path, &shown, "must contain unique version names");
    }
    if versions.iter().filter(|version| version.storage).count() != 1 {
        errors.invalid(&path, &shown, "must have exactly one version marked as storage version");
    }
}

fn validate_version(
    errors: &mut ErrorList,
    path: &Path,
    version: &CustomResourceDefinitionVersion,
    costs: rules::Costs<'_>,
) {
    deprecation(errors, &path.child("deprecationWarning"), version);
    let status = version.subresources.as_ref().is_some_and(|subresources| subresources.status.is_some());
    if let Some(schema) = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref()) {
        let schema_path = path.child("schema").child("openAPIV3Schema");
        if status {
            root_with_status(errors, &schema_path, schema);
        }
        if schema.nullable == Some(true) {
            errors.forbidden(&schema_path.child("nullable"), "nullable cannot be true at the root");
        }
        errors.extend(rules::check(schema, &schema_path, costs));
        for (index, field) in list(&version.selectable_fields).iter().enumerate() {
            let path = path.child("selectableFields").index(index).child("jsonPath");
            selectable(errors, &path, &field.json_path, schema);
        }
    }
    let count = list(&version.selectable_fields).len();
    if count > SELECTABLE_MAX {
        errors.push(machinery::FieldError::too_many(&path.child("selectableFields"), count, SELECTABLE_MAX));
    }
    if let Some(scale) = version.subresources.as_ref().and_then(|subresources| subresources.scale.as_ref()) {
        validate_scale(errors, &path.child("subresources"), scale);
    }
    let count = list(&version.additional_printer_columns).len();
    if count > COLUMNS_MAX {
        errors.push(machinery::FieldError::too_many(&path.child("additionalPrinterColumns"), count, COLUMNS_MAX));
    }
    for (index, column) in list(&version.additional_printer_columns).iter().enumerate() {
        validate_column(errors, &path.child("additionalPrinterColumns").index(index), column);
    }
}

fn selectable(errors: &mut ErrorList, path: &Path, json_path: &str, schema: &JSONSchemaProps) {
    let Some(steps) = json_path.strip_prefix('.').filter(|steps| !steps.is_empty()) else {
        if json_path.is_empty() {
            errors.required(path, "");
        } else {
            errors.invalid(path, json_path, "is an invalid path: must start with a dot");
        }
        return;
    };
    if steps == "metadata" || steps.starts_with("metadata.") {
        errors.invalid(path, json_path, "must not point to fields in metadata");
        return;
    }
    let mut found = Some(schema);
    for step in steps.split('.') {
        found = found.and_then(|schema| match schema.properties.as_ref().and_then(|all| all.get(step)) {
            Some(property) => Some(property),
            None => match &schema.additional_properties {
                Some(JSONSchemaPropsOrBool::Schema(values)) => Some(values),
                _ => None,
            },
        });
    }
    match found.map(|schema| text(&schema.type_)) {
        None => errors.invalid(path, json_path, "is an invalid path: does not refer to a valid field"),
        Some("string" | "boolean" | "integer") => {}
        Some(_) => errors.invalid(
            path,
            json_path,
            "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
        ),
    }
}

/// With a status subresource the schema of the status is taken out of the whole, so that little may stand at the root.
fn root_with_status(errors: &mut ErrorList, path: &Path, schema: &JSONSchemaProps) {
    if let Some(kind) = schema.type_.as_deref().filter(|kind| *kind != "object") {
        let detail =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        errors.invalid(&path.child("type"), kind, detail);
    }
    let more = schema.additional_properties.is_some()
        || !list(&schema.all_of).is_empty()
        || !list(&schema.any_of).is_empty()
        || !list(&schema.one_of).is_empty()
        || !list(&schema.enum_).is_empty()
        || schema.not.is_some()
        || schema.max_properties.is_some()
        || schema.min_properties.is_some()
        || schema.default.is_some();
    if more {
        errors.invalid(path, "", "only [Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields XValidations] fields are allowed at the root of the schema if the status subresource is enabled");
    }
}

fn deprecation(errors: &mut ErrorList, path: &Path, version: &CustomResourceDefinitionVersion) {
    let Some(warning) = &version.deprecation_warning else { return };
    if version.deprecated != Some(true) {
        errors.invalid(path, warning, "can only be set for deprecated versions");
        return;
    }
    if warning.len() > 256 {
        errors.invalid(path, warning, "must be <= 256 characters long");
    }
    if warning.is_empty() {
        errors.invalid(path, warning, "must not be an empty string");
    }
    if let Some((index, _)) = warning.char_indices().find(|(_, character)| character.is_control()) {
        errors.invalid(
            path,
            warning,
            format!("must only contain printable UTF-8 characters; non-printable character found at index {index}"),
        );
    }
}

fn names(errors: &mut ErrorList, path: &Path, names: &CustomResourceDefinitionNames) {
    let mut label = |path: Path, value: &str, mixed: bool| {
        let messages = validate::dns1035_label(&if mixed { value.to_lowercase() } else { value.to_owned() });
        if !value.is_empty() && !messages.is_empty() {
            let prefix = if mixed { "may have mixed case, but should otherwise match: " } else { "" };
            errors.invalid(&path, value, format!("{prefix}{}", messages.join(",")));
        }
    };
    label(path.child("plural"), &names.plural, false);
    label(path.child("singular"), text(&names.singular), false);
    label(path.child("kind"), &names.kind, true);
    label(path.child("listKind"), text(&names.list_kind), true);
    for (field, values) in [("shortNames", &names.short_names), ("categories", &names.categories)] {
        for (index, value) in list(values).iter().enumerate() {
            label(path.child(field).index(index), value, false);
        }
    }
    if !names.kind.is_empty() && text(&names.list_kind) == names.kind {
        errors.invalid(&path.child("listKind"), &names.kind, "kind and listKind may not be the same");
    }
}

fn simple_path(errors: &mut ErrorList, path: &Path, value: &str, below: &[&str], places: &str) {
    if value.is_empty() {
        errors.required(path, "");
    } else if !value.starts_with('.') {
        errors.invalid(path, value, "must be a simple json path starting with .");
    } else if !below.is_empty() && !below.iter().any(|prefix| value.starts_with(prefix)) {
        errors.invalid(path, value, format!("should be a json path under {places}"));
    }
}

fn validate_scale(errors: &mut ErrorList, path: &Path, scale: &CustomResourceSubresourceScale) {
    simple_path(errors, &path.child("scale.specReplicasPath"), &scale.spec_replicas_path, &[".spec."], ".spec");
    simple_path(errors, &path.child("scale.statusReplicasPath"), &scale.status_replicas_path, &[".status."], ".status");
    if !blank(&scale.label_selector_path) {
        let value = text(&scale.label_selector_path);
        let path = path.child("scale.labelSelectorPath");
        simple_path(errors, &path, value, &[".spec.", ".status."], "either .spec or .status");
    }
}

fn validate_column(errors: &mut ErrorList, path: &Path, column: &CustomResourceColumnDefinition) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 9] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "name", "password"];
    if column.name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    let one_of = |names: &[&str]| format!("must be one of {}", names.join(","));
    if column.type_.is_empty() {
        errors.required(&path.child("type"), &one_of(&TYPES));
    } else if !TYPES.contains(&column.type_.as_str()) {
        errors.invalid(&path.child("type"), &column.type_, one_of(&TYPES));
    }
    if let Some(format) = column.format.as_deref().filter(|format| !format.is_empty() && !FORMATS.contains(format)) {
        errors.invalid(&path.child("format"), format, one_of(&FORMATS));
    }
    simple_path(errors, &path.child("JSONPath"), &column.json_path, &[], "");
}

fn validate_conversion(errors: &mut ErrorList, path: &Path, conversion: &CustomResourceConversion) {
    choice(errors, &path.child("strategy"), &conversion.strategy, &["None", "Webhook"]);
    let client = path.child("webhookClientConfig");
    match (conversion.strategy.as_str(), &conversion.webhook) {
        ("Webhook", Some(webhook)) => validate_webhook(errors, path, webhook),
        ("Webhook", None) => {
            errors.required(&client, "required when strategy is set to Webhook");
            errors.required(&path.child("conversionReviewVersions"), "");
        }
        (_, Some(_)) => errors.forbidden(&client, "should not be set when strategy is not set to Webhook"),
        (_, None) => {}
    }
}

fn validate_webhook(errors: &mut ErrorList, path: &Path, webhook: &WebhookConversion) {
    let client = path.child("webhookClientConfig");
    match &webhook.client_config {
        None => errors.required(&client, "required when strategy is set to Webhook"),
        Some(config) => match (&config.url, &config.service) {
            (Some(url), None) if !url.starts_with("https://") => {
                let detail =
                    format!("{:?} is the only allowed URL scheme; desired format: https://host[/path]", "https");
                errors.invalid(&client.child("url"), url, detail);
            }
            (Some(_), None) => {}
            (None, Some(service)) => {
                for (field, value) in [("name", &service.name), ("namespace", &service.namespace)] {
                    if value.is_empty() {
                        errors.required(&client.child("service").child(field), &format!("service {field} is required"));
                    }
                }
            }
            _ => errors.required(&client, "exactly one of url or service is required"),
        },
    }
    let path = path.child("conversionReviewVersions");
    if webhook.conversion_review_versions.is_empty() {
        errors.required(&path, "");
    } else if !webhook.conversion_review_versions.iter().any(|version| matches!(version.as_str(), "v1" | "v1beta1")) {
        errors.invalid(&path, &webhook.conversion_review_versions, "must include at least one of v1, v1beta1");
    }
}

/// The annotation that a definition in one of upstream's own groups must carry.
const APPROVED: &str = "api-approved.kubernetes.io";

/// What is known of the right to define something in a group of upstream's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Approval {
    /// The group is not protected.
    NotNeeded,
    Missing,
    Invalid,
    Bypassed(String),
    Approved(String),
}

/// Groups below `k8s.io` and `kubernetes.io` are protected, `sigs.k8s.io` too.
pub(super) fn approval(object: &Object) -> Approval {
    let group = format!(".{}", object.spec.group);
    if !group.ends_with(".k8s.io") && !group.ends_with(".kubernetes.io") {
        return Approval::NotNeeded;
    }
    match entry(&object.metadata.annotations, APPROVED).map(String::as_str).unwrap_or_default() {
        "" => Approval::Missing,
        reason if reason.starts_with("unapproved") => Approval::Bypassed(reason.to_owned()),
        url if is_url(url) => Approval::Approved(url.to_owned()),
        _ => Approval::Invalid,
    }
}

fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, rest)| {
        let host = rest.split('/').next().unwrap_or_default();
        !scheme.is_empty() && !host.is_empty() && !text.contains(char::is_whitespace)
    })
}

impl Approval {
    fn message(&self) -> String {
        let must = format!("protected groups must have approval annotation {APPROVED:?}");
        let see = "see https://github.com/kubernetes/enhancements/pull/1111";
        match self {
            Self::NotNeeded => String::new(),
            Self::Missing => format!("{must}, {see}"),
            Self::Invalid => format!("{must} with either a URL or a reason starting with \"unapproved\", {see}"),
            Self::Bypassed(reason) => format!("not approved: {reason:?}"),
            Self::Approved(url) => format!("approved in {url}"),
        }
    }

    fn refuse(&self, object: &Object, errors: &mut ErrorList) {
        let path = Path::new("metadata").child("annotations").key(APPROVED);
        match self {
            Self::Missing => errors.required(&path, &self.message()),
            Self::Invalid => {
                let value = entry(&object.metadata.annotations, APPROVED);
                errors.invalid(&path, value, self.message());
            }
            _ => {}
        }
    }

    /// Status, reason and message of the condition about it.
    pub(super) fn condition(&self) -> Option<(bool, &'static str, String)> {
        let (conformant, reason) = match self {
            Self::NotNeeded => return None,
            Self::Missing => (false, "MissingAnnotation"),
            Self::Invalid => (false, "InvalidAnnotation"),
            Self::Bypassed(_) => (false, "UnapprovedAnnotation"),
            Self::Approved(_) => (true, "ApprovedAnnotation"),
        };
        Some((conformant, reason, self.message()))
    }
}
