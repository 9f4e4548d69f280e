//! RoleBinding and ClusterRoleBinding: who has a role.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding as ClusterObject, RoleBinding as Object, RoleRef, Subject};
use machinery::field::{ErrorList, Path};
use machinery::validate;
use registry::kind::{Column, Descriptor, Kind, NameRule, cell_age, cell_name};
use serde_json::{Value, json};

use super::GROUP;
use crate::check::Report;
use crate::common::{blank, default_text, list, text};

/// RoleBindings.
pub(crate) struct RoleBinding;

impl Kind for RoleBinding {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        names: NameRule::PathSegment,
        create_on_update: true,
        ..Descriptor::namespaced(GROUP, "v1", "RoleBinding", "rolebindings")
    };

    fn default(object: &mut Object) {
        default(&mut object.role_ref, &mut object.subjects);
    }

    fn validate(object: &Object) -> ErrorList {
        validate(&object.role_ref, list(&object.subjects), &["Role", "ClusterRole"], true)
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        unchanged(&new.role_ref, &old.role_ref)
    }

    fn columns() -> Vec<Column> {
        columns()
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let [role, users, groups, accounts] = cells(&object.role_ref, list(&object.subjects));
        vec![cell_name(&object.metadata), role, cell_age(&object.metadata, now), users, groups, accounts]
    }
}

/// ClusterRoleBindings.
pub(crate) struct ClusterRoleBinding;

impl Kind for ClusterRoleBinding {
    type Object = ClusterObject;

    const DESCRIPTOR: Descriptor = Descriptor {
        names: NameRule::PathSegment,
        create_on_update: true,
        ..Descriptor::cluster(GROUP, "v1", "ClusterRoleBinding", "clusterrolebindings")
    };

    fn default(object: &mut ClusterObject) {
        default(&mut object.role_ref, &mut object.subjects);
    }

    fn validate(object: &ClusterObject) -> ErrorList {
        validate(&object.role_ref, list(&object.subjects), &["ClusterRole"], false)
    }

    fn validate_update(new: &ClusterObject, old: &ClusterObject) -> ErrorList {
        unchanged(&new.role_ref, &old.role_ref)
    }

    fn columns() -> Vec<Column> {
        columns()
    }

    fn row(object: &ClusterObject, now: Timestamp) -> Vec<Value> {
        let [role, users, groups, accounts] = cells(&object.role_ref, list(&object.subjects));
        vec![cell_name(&object.metadata), role, cell_age(&object.metadata, now), users, groups, accounts]
    }
}

fn default(role: &mut RoleRef, subjects: &mut Option<Vec<Subject>>) {
    default_text(&mut role.api_group, GROUP);
    for subject in subjects.iter_mut().flatten() {
        if ["User", "Group"].contains(&subject.kind.as_str()) {
            default_text(&mut subject.api_group, GROUP);
        }
    }
}

fn validate(role: &RoleRef, subjects: &[Subject], kinds: &[&str], namespaced: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("roleRef");
    if text(&role.api_group) != GROUP {
        errors.not_supported(&path.child("apiGroup"), text(&role.api_group), &[GROUP]);
    }
    if !kinds.contains(&role.kind.as_str()) {
        errors.not_supported(&path.child("kind"), &role.kind, kinds);
    }
    if role.name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.messages(&path.child("name"), &role.name, validate::path_segment(&role.name));
    }
    let path = Path::new("subjects");
    for (index, one) in subjects.iter().enumerate() {
        subject(&mut errors, &path.index(index), one, namespaced);
    }
    errors
}

fn subject(errors: &mut ErrorList, path: &Path, subject: &Subject, namespaced: bool) {
    if subject.name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    let group = text(&subject.api_group);
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                errors.messages(&path.child("name"), &subject.name, validate::dns_subdomain(&subject.name));
            }
            if !group.is_empty() {
                errors.not_supported(&path.child("apiGroup"), group, &[""]);
            }
            if !namespaced && blank(&subject.namespace) {
                errors.required(&path.child("namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.not_supported(&path.child("apiGroup"), group, &[GROUP]);
            }
        }
        kind => errors.not_supported(&path.child("kind"), kind, &["ServiceAccount", "User", "Group"]),
    }
}

/// What a binding gives is settled: another role is another binding.
fn unchanged(new: &RoleRef, old: &RoleRef) -> ErrorList {
    let mut errors = ErrorList::new();
    if new != old {
        // Upstream prints its internal type, whose fields are spelled so.
        let value = json!({ "APIGroup": new.api_group, "Kind": new.kind, "Name": new.name });
        errors.invalid(&Path::new("roleRef"), value, "cannot change roleRef");
    }
    errors
}

fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::string("Role", "The role that is given."),
        Column::age(),
        Column::wide("Users", "Users who have it."),
        Column::wide("Groups", "Groups that have it."),
        Column::wide("ServiceAccounts", "Service accounts that have it."),
    ]
}

fn cells(role: &RoleRef, subjects: &[Subject]) -> [Value; 4] {
    let of = |kind: &str| {
        let subjects = subjects.iter().filter(|subject| subject.kind == kind);
        let names = subjects.map(|subject| match kind {
            "ServiceAccount" => format!("{}/{}", text(&subject.namespace), subject.name),
            _ => subject.name.clone(),
        });
        Value::String(names.collect::<Vec<_>>().join(", "))
    };
    [format!("{}/{}", role.kind, role.name).into(), of("User"), of("Group"), of("ServiceAccount")]
}
