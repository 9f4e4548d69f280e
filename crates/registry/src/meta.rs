//! The metadata all kinds have in common: what the server sets, what clients may not, and what must hold.
//!
//! Upstream: `rest.BeforeCreate`, `rest.BeforeUpdate` and the validation of `ObjectMeta`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use machinery::field::{ErrorList, FieldError, Path};
use machinery::gvk::GroupVersion;
use machinery::{names, validate};
use serde_json::json;

use crate::kind::{MetadataReset, NameRule};
use crate::table::ResourceInfo;

/// Finalizer by which a deletion waits until the dependents have lost their owner reference.
pub const FINALIZER_ORPHAN: &str = "orphan";

/// Finalizer by which a deletion waits until the dependents are gone.
pub const FINALIZER_FOREGROUND: &str = "foregroundDeletion";

/// The most bytes all annotations of an object may have, keys included.
pub const ANNOTATIONS_MAX: usize = 256 * 1024;

/// A time as objects hold it: whole seconds.
#[must_use]
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// Fills in the metadata of an object about to be created.
pub fn prepare_create(meta: &mut ObjectMeta, namespace: &str, now: Timestamp) {
    meta.uid = Some(uuid::Uuid::new_v4().to_string());
    meta.creation_timestamp = Some(time(now));
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.generation = None;
    meta.self_link = None;
    meta.managed_fields = None;
    meta.namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
    drop_empty(meta);
    if wants_generated_name(meta) {
        generate_name(meta);
    }
}

/// Whether the server is to make up the name.
#[must_use]
pub fn wants_generated_name(meta: &ObjectMeta) -> bool {
    is_empty(meta.name.as_deref()) && !is_empty(meta.generate_name.as_deref())
}

/// Makes up a name (another one, when called again).
pub fn generate_name(meta: &mut ObjectMeta) {
    let base = meta.generate_name.as_deref().unwrap_or_default();
    meta.name = Some(names::generate_name(base));
}

/// Takes over from the stored object what an update cannot change; what the client sent and differs is left in place
/// for [`validate_update`] to find.
pub fn prepare_update(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.generation = old.generation;
    new.self_link = None;
    new.managed_fields.clone_from(&old.managed_fields);
    if is_empty(new.uid.as_deref()) {
        new.uid.clone_from(&old.uid);
    }
    if is_empty(new.namespace.as_deref()) {
        new.namespace.clone_from(&old.namespace);
    }
    // Upstream (`rest.BeforeUpdate`): what differs in these is ignored, and only a deletion that never was is refused.
    new.creation_timestamp = old.creation_timestamp.clone().or_else(|| new.creation_timestamp.take());
    new.deletion_timestamp = old.deletion_timestamp.clone().or_else(|| new.deletion_timestamp.take());
    new.deletion_grace_period_seconds = new.deletion_grace_period_seconds.or(old.deletion_grace_period_seconds);
    drop_empty(new);
}

/// As [`prepare_update`], for a write to a subresource which leaves some of the metadata as it is.
pub fn prepare_subresource(new: &mut ObjectMeta, old: &ObjectMeta, reset: MetadataReset) {
    match reset {
        MetadataReset::Nothing => {}
        MetadataReset::Labels => new.labels.clone_from(&old.labels),
        MetadataReset::OwnerReferences => {
            new.owner_references.clone_from(&old.owner_references);
            new.deletion_timestamp = None;
        }
        MetadataReset::Everything => {
            new.clone_from(old);
            return;
        }
    }
    prepare_update(new, old);
}

/// Go writes no empty maps and lists here, so an update that sends them changes nothing.
fn drop_empty(meta: &mut ObjectMeta) {
    meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
    meta.annotations = meta.annotations.take().filter(|annotations| !annotations.is_empty());
    meta.finalizers = meta.finalizers.take().filter(|finalizers| !finalizers.is_empty());
    meta.owner_references = meta.owner_references.take().filter(|owners| !owners.is_empty());
    meta.generate_name = meta.generate_name.take().filter(|base| !base.is_empty());
}

/// What is wrong with the metadata of an object.
#[must_use]
pub fn validate(meta: &ObjectMeta, info: &ResourceInfo) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = ErrorList::new();
    if let Some(base) = meta.generate_name.as_deref().filter(|base| !base.is_empty()) {
        let messages = check_name(info.names, &mask_trailing_dash(base));
        errors.push_messages(&path.child("generateName"), base, messages);
    }
    match meta.name.as_deref().unwrap_or_default() {
        "" => errors.push(FieldError::required(&path.child("name"), "name or generateName is required")),
        name => errors.push_messages(&path.child("name"), name, check_name(info.names, name)),
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let namespace_path = path.child("namespace");
    match (info.namespaced(), namespace.is_empty()) {
        (true, true) => errors.push(FieldError::required(&namespace_path, "")),
        (true, false) => errors.push_messages(&namespace_path, namespace, validate::dns_label(namespace)),
        (false, false) => errors.push(FieldError::forbidden(&namespace_path, "not allowed on this type")),
        (false, true) => {}
    }
    if let Some(labels) = &meta.labels {
        errors.extend(validate_labels(labels, &path.child("labels")));
    }
    if let Some(annotations) = &meta.annotations {
        errors.extend(validate_annotations(annotations, &path.child("annotations")));
    }
    if let Some(owners) = &meta.owner_references {
        errors.extend(validate_owners(owners, &path.child("ownerReferences")));
    }
    if let Some(finalizers) = &meta.finalizers {
        let path = path.child("finalizers");
        errors.extend(validate_finalizers(finalizers, &path));
        if !info.custom && !MACHINERY_GROUPS.contains(&&*info.group) {
            let finalizers = finalizers.iter().enumerate();
            errors.0.extend(finalizers.filter_map(|(index, finalizer)| validate_domain(finalizer, &path.index(index))));
        }
    }
    errors
}

/// What is wrong with the step from one state of the metadata to the next.
#[must_use]
pub fn validate_update(new: &ObjectMeta, old: &ObjectMeta) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = ErrorList::new();
    if old.deletion_timestamp.is_some() {
        let known = old.finalizers.as_deref().unwrap_or_default();
        let added: Vec<&String> = new.finalizers.iter().flatten().filter(|name| !known.contains(name)).collect();
        if !added.is_empty() {
            errors.push(FieldError::forbidden(
                &path.child("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
                ),
            ));
        }
    }
    let mut immutable = |field: &'static str, same: bool, value: serde_json::Value| {
        if !same {
            errors.push(FieldError::invalid(&path.child(field), value, "field is immutable"));
        }
    };
    immutable("name", new.name == old.name, json!(new.name));
    immutable("namespace", new.namespace == old.namespace, json!(new.namespace));
    immutable("uid", new.uid == old.uid, json!(new.uid));
    immutable("creationTimestamp", new.creation_timestamp == old.creation_timestamp, json!(new.creation_timestamp));
    immutable("deletionTimestamp", new.deletion_timestamp == old.deletion_timestamp, json!(new.deletion_timestamp));
    immutable(
        "deletionGracePeriodSeconds",
        new.deletion_grace_period_seconds == old.deletion_grace_period_seconds,
        json!(new.deletion_grace_period_seconds),
    );
    errors
}

/// What is wrong with labels, wherever they are in an object.
#[must_use]
pub fn validate_labels(labels: &BTreeMap<String, String>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (key, value) in labels {
        errors.push_messages(path, key, validate::qualified_name(key));
        errors.push_messages(path, value, validate::label_value(value));
    }
    errors
}

/// What is wrong with annotations, wherever they are in an object.
#[must_use]
pub fn validate_annotations(annotations: &BTreeMap<String, String>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut size = 0;
    for (key, value) in annotations {
        // Upstream: the rule is that of a qualified name, except that case does not matter.
        errors.push_messages(path, key, validate::qualified_name(&key.to_lowercase()));
        size += key.len() + value.len();
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(path, "", ANNOTATIONS_MAX));
    }
    errors
}

fn validate_owners(owners: &[OwnerReference], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut controller: Option<&OwnerReference> = None;
    for owner in owners {
        let version = GroupVersion::parse(&owner.api_version).ok().filter(|version| !version.version.is_empty());
        if version.is_none() {
            errors.push(FieldError::invalid(
                &path.child("apiVersion"),
                &owner.api_version,
                "version must not be empty",
            ));
        }
        for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                errors.push(FieldError::invalid(&path.child(field), value, "must not be empty"));
            }
        }
        if let Some(version) = version.filter(|version| version.group.is_empty() && owner.kind == "Event") {
            let kind = version.kind("Event");
            errors.push(FieldError::invalid(path, owner, format!("{kind} is disallowed from being an owner")));
        }
        if owner.controller == Some(true) {
            if let Some(first) = controller {
                errors.push(FieldError::invalid(
                    path,
                    owners,
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                        first.name, owner.name
                    ),
                ));
            }
            controller = controller.or(Some(owner));
        }
    }
    errors
}

/// Groups whose kinds have no rules for metadata beyond those of apimachinery, as custom resources.
const MACHINERY_GROUPS: [&str; 4] =
    ["admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "coordination.k8s.io"];

/// Finalizers that need no domain (`pkg/apis/core/helper/helpers.go`, `standardFinalizers`).
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", FINALIZER_ORPHAN, FINALIZER_FOREGROUND];

/// A finalizer says whose it is (`pkg/apis/core/validation/validation.go`, `validateKubeFinalizerName`).
#[must_use]
pub fn validate_domain(finalizer: &str, path: &Path) -> Option<FieldError> {
    let why = "name is neither a standard finalizer name nor is it fully qualified";
    let says = finalizer.contains('/') || STANDARD_FINALIZERS.contains(&finalizer);
    (!says).then(|| FieldError::invalid(path, finalizer, why))
}

fn validate_finalizers(finalizers: &[String], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for finalizer in finalizers {
        errors.push_messages(path, finalizer, validate::qualified_name(finalizer));
    }
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    if has(FINALIZER_ORPHAN) && has(FINALIZER_FOREGROUND) {
        errors.push(FieldError::invalid(
            path,
            finalizers,
            format!("finalizer {FINALIZER_ORPHAN} and {FINALIZER_FOREGROUND} cannot be both set"),
        ));
    }
    errors
}

fn check_name(rule: NameRule, name: &str) -> Vec<String> {
    match rule {
        NameRule::Subdomain => validate::dns_subdomain(name),
        NameRule::Label => validate::dns_label(name),
        NameRule::PathSegment => validate::path_segment(name),
    }
}

/// A prefix may end in a dash, since something follows.
fn mask_trailing_dash(base: &str) -> String {
    match base.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => base.to_owned(),
    }
}

fn is_empty(text: Option<&str>) -> bool {
    text.is_none_or(str::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Descriptor;

    fn check(meta: serde_json::Value, expect: &[&str]) {
        let info = ResourceInfo::from_descriptor(&Descriptor::namespaced("", "v1", "ConfigMap", "configmaps"), "");
        let meta: ObjectMeta = serde_json::from_value(meta).unwrap();
        let errors: Vec<String> = validate(&meta, &info).iter().map(ToString::to_string).collect();
        assert_eq!(errors, expect);
    }

    #[test]
    fn what_is_wrong_with_metadata() {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u", "controller": true});
        check(json!({"name": "a", "namespace": "b"}), &[]);
        check(json!({"name": "web-1", "generateName": "web-", "namespace": "b", "ownerReferences": [owner]}), &[]);
        check(json!({"namespace": "b"}), &["metadata.name: Required value: name or generateName is required"]);
        check(json!({"name": "a"}), &["metadata.namespace: Required value"]);
        check(
            json!({"name": "a", "namespace": "b", "labels": {"a b": "c"}}),
            &[
                "metadata.labels: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ],
        );
        check(
            json!({"name": "a", "namespace": "b", "annotations": {"a": "x".repeat(ANNOTATIONS_MAX)}}),
            &["metadata.annotations: Too long: may not be more than 262144 bytes"],
        );
        check(
            json!({"name": "a", "namespace": "b", "finalizers": ["orphan", "foregroundDeletion"]}),
            &[
                r#"metadata.finalizers: Invalid value: ["orphan","foregroundDeletion"]: finalizer orphan and foregroundDeletion cannot be both set"#,
            ],
        );
        check(
            json!({"name": "a", "namespace": "b", "ownerReferences": [{"apiVersion": "", "kind": "", "name": "n", "uid": "u"}]}),
            &[
                "metadata.ownerReferences.apiVersion: Invalid value: \"\": version must not be empty",
                "metadata.ownerReferences.kind: Invalid value: \"\": must not be empty",
            ],
        );
        for (api_version, accepted) in [("/v1", true), ("apps/", false), ("a/b/c", false)] {
            let refused = format!(
                "metadata.ownerReferences.apiVersion: Invalid value: \"{api_version}\": version must not be empty"
            );
            let owner = json!({"apiVersion": api_version, "kind": "Pod", "name": "n", "uid": "u"});
            let expect = if accepted { Vec::new() } else { vec![refused.as_str()] };
            check(json!({"name": "a", "namespace": "b", "ownerReferences": [owner]}), &expect);
        }
    }

    #[test]
    fn what_an_update_cannot_change() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let mut old = ObjectMeta { name: Some("a".into()), ..Default::default() };
        prepare_create(&mut old, "b", now);
        let mut new = ObjectMeta { name: Some("a".into()), labels: Some(BTreeMap::new()), ..Default::default() };
        prepare_update(&mut new, &old);
        assert_eq!(new, old);
        assert!(validate_update(&new, &old).is_empty());

        new.creation_timestamp = Some(time(now + jiff::SignedDuration::from_secs(1)));
        old.deletion_timestamp = Some(time(now));
        new.finalizers = Some(vec!["a/b".into()]);
        let errors: Vec<String> = validate_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"a/b\"}",
                "metadata.creationTimestamp: Invalid value: \"2026-01-02T03:04:06Z\": field is immutable",
                "metadata.deletionTimestamp: Invalid value: null: field is immutable",
            ]
        );
    }
}
