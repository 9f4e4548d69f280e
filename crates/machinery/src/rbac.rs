//! What the rules of roles allow, and whom bindings name (upstream: `pkg/apis/rbac/v1/evaluation_helpers.go` and
//! `pkg/registry/rbac/validation/rule.go`). The authorizer and whoever explains its answers ask the same functions.

use k8s_openapi::api::rbac::v1::{PolicyRule, Subject};

/// Every verb, group, resource or path.
const ALL: &str = "*";

/// Everyone who is authenticated belongs to this group.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Everyone who is not belongs to this one.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of the kubelets.
pub const NODES: &str = "system:nodes";
/// What the names of kubelets begin with.
pub const NODE_PREFIX: &str = "system:node:";
/// What the names of service accounts begin with: `system:serviceaccount:NAMESPACE:NAME`.
pub const ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// The group of all service accounts; `system:serviceaccounts:NAMESPACE` is that of a namespace.
pub const ACCOUNTS: &str = "system:serviceaccounts";

/// What somebody wants to do something to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requested<'a> {
    /// Objects of the API.
    Resource {
        /// API group, empty for the core group.
        group: &'a str,
        /// Plural name.
        resource: &'a str,
        /// Subresource, or empty.
        subresource: &'a str,
        /// Name; empty for all.
        name: &'a str,
    },
    /// Any other path.
    Path(&'a str),
}

/// Whether the rule allows `verb` on what is requested.
pub fn allows(rule: &PolicyRule, verb: &str, requested: Requested<'_>) -> bool {
    if !has(&rule.verbs, verb) {
        return false;
    }
    match requested {
        Requested::Path(path) => list(&rule.non_resource_urls).iter().any(|pattern| path_matches(pattern, path)),
        Requested::Resource { group, resource, subresource, name } => {
            has(list(&rule.api_groups), group)
                && list(&rule.resources).iter().any(|entry| resource_matches(entry, resource, subresource))
                && name_matches(list(&rule.resource_names), name)
        }
    }
}

/// An optional list as a slice.
pub fn list(field: &Option<Vec<String>>) -> &[String] {
    field.as_deref().unwrap_or_default()
}

/// Whether a list names an item, or all.
pub fn has(items: &[String], item: &str) -> bool {
    items.iter().any(|have| have == item || have == ALL)
}

/// Whether a pattern such as `/api/*` matches a path, as it matches all that begin with `/api/`.
pub fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix(ALL) {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

/// Upstream: a rule for names never allows what has none (a create, a list of all).
fn name_matches(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|have| have == name)
}

/// `pods`, `pods/log`, `*/scale` or `*`.
fn resource_matches(entry: &str, resource: &str, subresource: &str) -> bool {
    match entry.split_once('/') {
        None => entry == ALL || (subresource.is_empty() && entry == resource),
        Some((of, sub)) => !subresource.is_empty() && sub == subresource && (of == ALL || of == resource),
    }
}

/// Whom a subject of a binding names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A user, service accounts among them.
    User(String),
    /// A group.
    Group(String),
}

/// Whom a subject names in a binding of `namespace`, which is empty for a binding of the cluster. Upstream: a service account
/// without a namespace in a binding of the cluster is nobody.
pub fn named(subject: &Subject, namespace: &str) -> Option<Named> {
    match subject.kind.as_str() {
        "User" => Some(Named::User(subject.name.clone())),
        "Group" => Some(Named::Group(subject.name.clone())),
        "ServiceAccount" => {
            let at = account_namespace(subject, namespace);
            (!at.is_empty()).then(|| Named::User(format!("{ACCOUNT_PREFIX}{at}:{}", subject.name)))
        }
        _ => None,
    }
}

/// The namespace of the service account that a subject names; empty where it names none.
pub fn account_namespace<'a>(subject: &'a Subject, namespace: &'a str) -> &'a str {
    subject.namespace.as_deref().filter(|at| !at.is_empty()).unwrap_or(namespace)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rule(value: Value) -> PolicyRule {
        serde_json::from_value(value).expect("a rule")
    }

    #[test]
    fn what_a_rule_allows() {
        let check = |what: Value, verb: &str, resource: &str, name: &str, expect: bool| {
            let (group, resource) = resource.split_once('|').unwrap_or(("", resource));
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let requested = Requested::Resource { group, resource, subresource, name };
            assert_eq!(
                allows(&rule(what.clone()), verb, requested),
                expect,
                "{what} {verb} {resource} {subresource} {name}"
            );
        };
        let pods = json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log"] });
        check(pods.clone(), "get", "pods", "a", true);
        check(pods.clone(), "get", "pods/log", "a", true);
        check(pods.clone(), "get", "pods/exec", "a", false);
        check(pods.clone(), "list", "pods", "", false);
        check(pods, "get", "apps|pods", "a", false);
        let scale = json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale"] });
        check(scale.clone(), "update", "apps|deployments/scale", "a", true);
        check(scale, "update", "apps|deployments", "a", false);
        let all = json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] });
        check(all, "delete", "apps|deployments/scale", "a", true);
        let one = json!({ "verbs": ["*"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"] });
        check(one.clone(), "get", "secrets", "a", true);
        check(one.clone(), "get", "secrets", "b", false);
        check(one, "create", "secrets", "", false);
    }

    #[test]
    fn what_a_rule_allows_of_paths() {
        for (pattern, path, expect) in [
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/ping", false),
            ("/healthz/*", "/healthz/ping", true),
            ("/healthz/*", "/healthz", false),
            ("*", "/metrics", true),
        ] {
            let rule = rule(json!({ "verbs": ["get"], "nonResourceURLs": [pattern] }));
            assert_eq!(allows(&rule, "get", Requested::Path(path)), expect, "{pattern} {path}");
        }
    }

    #[test]
    fn whom_a_subject_names() {
        let user = |name: &str| Some(Named::User(name.to_owned()));
        for (kind, namespace, at, expect) in [
            ("User", None, "", user("x")),
            ("Group", None, "a", Some(Named::Group("x".to_owned()))),
            ("ServiceAccount", Some("b"), "a", user("system:serviceaccount:b:x")),
            ("ServiceAccount", Some(""), "a", user("system:serviceaccount:a:x")),
            ("ServiceAccount", None, "", None),
            ("Robot", None, "a", None),
        ] {
            let subject = Subject {
                kind: kind.to_owned(),
                name: "x".to_owned(),
                namespace: namespace.map(str::to_owned),
                ..Subject::default()
            };
            assert_eq!(named(&subject, at), expect, "{kind} {namespace:?} {at}");
        }
    }
}
