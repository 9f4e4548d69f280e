//! Role and ClusterRole: lists of rules.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole as ClusterObject, PolicyRule, Role as Object};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::field::{ErrorList, Path};
use registry::kind::{Column, Descriptor, Kind, NameRule, cell_name};
use serde_json::Value;

use super::GROUP;
use crate::check::{Report, label_selector};
use crate::common::list;

/// Roles.
pub(crate) struct Role;

impl Kind for Role {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        names: NameRule::PathSegment,
        create_on_update: true,
        ..Descriptor::namespaced(GROUP, "v1", "Role", "roles")
    };

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        rules(&mut errors, list(&object.rules), true);
        errors
    }

    fn columns() -> Vec<Column> {
        columns()
    }

    fn row(object: &Object, _now: Timestamp) -> Vec<Value> {
        row(&object.metadata)
    }
}

/// ClusterRoles.
pub(crate) struct ClusterRole;

impl Kind for ClusterRole {
    type Object = ClusterObject;

    const DESCRIPTOR: Descriptor = Descriptor {
        names: NameRule::PathSegment,
        create_on_update: true,
        ..Descriptor::cluster(GROUP, "v1", "ClusterRole", "clusterroles")
    };

    fn validate(object: &ClusterObject) -> ErrorList {
        let mut errors = ErrorList::new();
        rules(&mut errors, list(&object.rules), false);
        if let Some(aggregation) = &object.aggregation_rule {
            let path = Path::new("aggregationRule").child("clusterRoleSelectors");
            let selectors = list(&aggregation.cluster_role_selectors);
            if selectors.is_empty() {
                errors.required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil");
            }
            for (index, selector) in selectors.iter().enumerate() {
                label_selector(&mut errors, &path.index(index), Some(selector));
            }
        }
        errors
    }

    fn columns() -> Vec<Column> {
        columns()
    }

    fn row(object: &ClusterObject, _now: Timestamp) -> Vec<Value> {
        row(&object.metadata)
    }
}

fn rules(errors: &mut ErrorList, rules: &[PolicyRule], namespaced: bool) {
    let path = Path::new("rules");
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        if rule.verbs.is_empty() {
            errors.required(&path.child("verbs"), "verbs must contain at least one value");
        }
        let urls = list(&rule.non_resource_urls);
        if urls.is_empty() {
            if list(&rule.api_groups).is_empty() {
                errors.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
            }
            if list(&rule.resources).is_empty() {
                errors.required(&path.child("resources"), "resource rules must supply at least one resource");
            }
            continue;
        }
        let path = path.child("nonResourceURLs");
        if namespaced {
            errors.invalid(&path, urls, "namespaced rules cannot apply to non-resource URLs");
        }
        let resources = [&rule.api_groups, &rule.resources, &rule.resource_names];
        if resources.iter().any(|part| !list(part).is_empty()) {
            errors.invalid(&path, urls, "rules cannot apply to both regular resources and non-resource URLs");
        }
    }
}

/// Upstream shows roles by its default table: the time of creation instead of the age.
fn columns() -> Vec<Column> {
    let created = Column::string("Created At", "When the server created the object.");
    vec![Column::name(), Column { kind: "date".to_owned(), ..created }]
}

fn row(meta: &ObjectMeta) -> Vec<Value> {
    let created = meta.creation_timestamp.as_ref().map(|time| time.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    vec![cell_name(meta), created.unwrap_or_default().into()]
}
