//! The roles and bindings that every cluster has, and how they are kept.
//!
//! They are facts in text files: `cluster.policy` and `controllers.policy` are upstream's of 1.36, of the latter those
//! whose controllers there are here; `coracle.policy` is what coracle's own components need beyond that. **A component
//! that is refused something gets its right there.** An addon has its roles beside its controllers, in a file of the same form.
//!
//! ```text
//! ClusterRole view                                  a role; `Role NAMESPACE/NAME` for one of a namespace
//!   label KEY=VALUE
//!   aggregate KEY=VALUE                             it gathers the rules of roles with this label
//!   bound to Group developers, User x               a binding of the same name; `bound as NAME to ...` for another
//!   get,list apps,core deployments deployments/scale named a b
//!   get url /healthz /version                       lines that are indented deeper go on with the line before
//! ```
//!
//! The controllers of upstream have a service account each. Here all have one identity, `system:kube-controller-manager`,
//! which is bound to the roles of all of them; only those of addons write as a service account of the addon's own.

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use machinery::status::ApiError;
use registry::{Registry, Target};
use serde_json::{Map, Value, json};

use super::rules::uncovered;

const FILES: [&str; 3] = [
    include_str!("bootstrap/cluster.policy"),
    include_str!("bootstrap/controllers.policy"),
    include_str!("bootstrap/coracle.policy"),
];
/// ClusterRoles of before, which gave components what now is the addons' own. They go, with their bindings.
const RETIRED: [&str; 2] = ["coracle:addons", "coracle:scheduler"];
const GROUP: &str = "rbac.authorization.k8s.io";
/// With any other value than `true` an administrator keeps a role or binding as it is.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
/// How many are written at once; the store syncs once for all that wait.
const CONCURRENT: usize = 32;

/// A role with its bindings, as a file has it.
#[derive(Debug, Default)]
struct Role {
    namespace: String,
    name: String,
    labels: Map<String, Value>,
    aggregate: Vec<Value>,
    bindings: Vec<(String, Vec<Subject>)>,
    rules: Vec<PolicyRule>,
}

/// Creates what is missing of the roles and bindings every cluster has, and adds what is missing in them. What an
/// administrator has added stays. `addons` are texts like the files here: the roles of what can be switched on.
///
/// # Errors
/// When the store takes no writes.
pub async fn bootstrap(registry: &Registry, addons: &[&str]) -> Result<(), ApiError> {
    let roles: Vec<Role> = FILES.iter().chain(addons).flat_map(|file| read(file)).collect();
    let each = |writes: Vec<(Target, Value)>| {
        stream::iter(writes)
            .map(|(target, desired)| async move { keep(registry, &target, desired).await })
            .buffer_unordered(CONCURRENT)
            .try_collect::<()>()
    };
    each(roles.iter().filter_map(|role| role.object(registry)).collect()).await?;
    each(roles.iter().flat_map(|role| role.binding_objects(registry)).collect()).await?;
    for name in RETIRED {
        let role = Role { name: name.to_owned(), ..Role::default() };
        for target in ["Binding", ""].iter().filter_map(|suffix| role.target(registry, suffix, name)) {
            retire(registry, &target).await?;
        }
    }
    Ok(())
}

/// Deletes what is no longer part of every cluster, unless an administrator keeps it.
async fn retire(registry: &Registry, target: &Target) -> Result<(), ApiError> {
    let Ok(entry) = registry.get(target, "").await else { return Ok(()) };
    let stored: Value = serde_json::from_slice(&entry.value).map_err(ApiError::internal)?;
    if is_kept(&stored) {
        return Ok(());
    }
    registry.delete(target, &registry::DeleteRequest::default()).await.map(drop)
}

/// Whether an administrator keeps an object as it is.
fn is_kept(stored: &Value) -> bool {
    stored["metadata"]["annotations"][AUTOUPDATE].as_str().is_some_and(|value| value != "true")
}

/// The rules of one of the roles.
pub(super) fn rules_of(name: &str) -> Vec<PolicyRule> {
    let mut roles = FILES.iter().flat_map(|file| read(file));
    roles.find(|role| role.name == name).map(|role| role.rules).unwrap_or_default()
}

/// Makes an object what is desired at least.
async fn keep(registry: &Registry, target: &Target, desired: Value) -> Result<(), ApiError> {
    let Ok(entry) = registry.get(target, "").await else {
        return registry.ensure(target, desired).await;
    };
    let stored: Value = serde_json::from_slice(&entry.value).map_err(ApiError::internal)?;
    if is_kept(&stored) {
        return Ok(());
    }
    if stored["roleRef"] != desired["roleRef"] {
        // What a binding refers to cannot be changed; upstream, too, replaces it.
        registry.delete(target, &registry::DeleteRequest::default()).await?;
        return registry.ensure(target, desired).await;
    }
    let merged = merged(&stored, &desired);
    if merged == stored { Ok(()) } else { registry.upsert(target, merged).await.map(drop) }
}

/// What is stored, with what is desired and not there.
fn merged(stored: &Value, desired: &Value) -> Value {
    let mut merged = stored.clone();
    for field in ["labels", "annotations"] {
        for (key, value) in desired["metadata"][field].as_object().into_iter().flatten() {
            if merged["metadata"][field][key].is_null() {
                merged["metadata"][field][key] = value.clone();
            }
        }
    }
    let rules = |object: &Value| serde_json::from_value::<Vec<PolicyRule>>(object["rules"].clone()).unwrap_or_default();
    let held = rules(stored);
    let missing = uncovered(&held.iter().collect::<Vec<_>>(), &rules(desired));
    // The rules of one that gathers come from others.
    let has_own_rules = desired["aggregationRule"].is_null();
    let lists = [
        ("rules", if has_own_rules { json!(missing) } else { Value::Null }),
        ("subjects", desired["subjects"].clone()),
    ];
    for (field, items) in lists {
        for item in items.as_array().into_iter().flatten() {
            let present = stored[field].as_array().is_some_and(|have| have.contains(item));
            if !present {
                match &mut merged[field] {
                    Value::Array(have) => have.push(item.clone()),
                    empty => *empty = json!([item]),
                }
            }
        }
    }
    let gathers = &desired["aggregationRule"]["clusterRoleSelectors"];
    for selector in gathers.as_array().into_iter().flatten() {
        let selectors = &mut merged["aggregationRule"]["clusterRoleSelectors"];
        match selectors {
            Value::Array(have) if have.contains(selector) => {}
            Value::Array(have) => have.push(selector.clone()),
            empty => *empty = json!([selector]),
        }
    }
    merged
}

impl Role {
    fn kind(&self) -> &'static str {
        if self.namespace.is_empty() { "ClusterRole" } else { "Role" }
    }

    fn target(&self, registry: &Registry, suffix: &str, name: &str) -> Option<Target> {
        let resources = registry.resources();
        let resource = resources.by_kind(GROUP, "v1", &format!("{}{suffix}", self.kind()))?;
        Some(Target::object(resource, self.namespace.as_str(), name))
    }

    fn metadata() -> Value {
        json!({
            "annotations": { AUTOUPDATE: "true" },
            "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" },
        })
    }

    fn object(&self, registry: &Registry) -> Option<(Target, Value)> {
        let mut object = json!({ "metadata": Self::metadata() });
        for (key, value) in &self.labels {
            object["metadata"]["labels"][key] = value.clone();
        }
        if self.aggregate.is_empty() {
            object["rules"] = json!(self.rules);
        } else {
            object["aggregationRule"] = json!({ "clusterRoleSelectors": self.aggregate });
        }
        Some((self.target(registry, "", &self.name)?, object))
    }

    fn binding_objects(&self, registry: &Registry) -> Vec<(Target, Value)> {
        let role = RoleRef { api_group: Some(GROUP.to_owned()), kind: self.kind().to_owned(), name: self.name.clone() };
        let object = |(name, subjects): &(String, Vec<Subject>)| {
            let mut object = json!({ "metadata": Self::metadata(), "roleRef": role });
            if !subjects.is_empty() {
                object["subjects"] = json!(subjects);
            }
            Some((self.target(registry, "Binding", name)?, object))
        };
        self.bindings.iter().filter_map(object).collect()
    }
}

/// Reads a file. A line that makes no sense is left out; a test sees to it that there is none.
fn read(file: &str) -> Vec<Role> {
    let mut roles: Vec<Role> = Vec::new();
    let mut lines: Vec<String> = Vec::new();
    for line in file.lines().filter(|line| !line.starts_with('#')) {
        match (line.starts_with("      "), lines.last_mut()) {
            (true, Some(last)) => {
                last.push(' ');
                last.push_str(line.trim());
            }
            _ => lines.push(line.to_owned()),
        }
    }
    for line in &lines {
        if line.starts_with(' ') {
            if let Some(role) = roles.last_mut() {
                read_line(role, line.trim());
            }
        } else if let Some((_, name)) = line.split_once(' ') {
            let (namespace, name) = name.split_once('/').unwrap_or(("", name));
            roles.push(Role { namespace: namespace.to_owned(), name: name.to_owned(), ..Role::default() });
        }
    }
    roles
}

fn read_line(role: &mut Role, line: &str) {
    let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
    match first {
        "label" => role.labels.extend(rest.split_once('=').map(|(key, value)| (key.to_owned(), value.into()))),
        "aggregate" => {
            let selector = rest.split_once('=').map(|(key, value)| json!({ "matchLabels": { key: value } }));
            role.aggregate.extend(selector);
        }
        "bound" => {
            let (name, subjects) = rest.split_once("to ").unwrap_or((rest, ""));
            let name = name.trim().strip_prefix("as ").unwrap_or(&role.name).to_owned();
            role.bindings.push((name, subjects.split(", ").filter_map(read_subject).collect()));
        }
        verbs => role.rules.extend(read_rule(verbs, rest)),
    }
}

fn read_subject(text: &str) -> Option<Subject> {
    let (kind, name) = text.split_once(' ')?;
    let (namespace, name) = match kind {
        "ServiceAccount" => name.split_once('/').map(|(namespace, name)| (Some(namespace.to_owned()), name))?,
        _ => (None, name),
    };
    let api_group = (kind != "ServiceAccount").then(|| GROUP.to_owned());
    Some(Subject { api_group, kind: kind.to_owned(), name: name.to_owned(), namespace })
}

fn read_rule(verbs: &str, rest: &str) -> Option<PolicyRule> {
    let split = |text: &str, by: char| text.split(by).map(str::to_owned).collect::<Vec<_>>();
    let (groups, things) = rest.split_once(' ')?;
    let mut rule = PolicyRule { verbs: split(verbs, ','), ..PolicyRule::default() };
    if groups == "url" {
        rule.non_resource_urls = Some(split(things, ' '));
        return Some(rule);
    }
    let (resources, names) = things.split_once(" named ").map_or((things, None), |(all, names)| (all, Some(names)));
    let group = |group: &str| if group == "core" { String::new() } else { group.to_owned() };
    rule.api_groups = Some(groups.split(',').map(group).collect());
    rule.resources = Some(split(resources, ' '));
    rule.resource_names = names.map(|names| split(names, ' '));
    Some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_make_sense() {
        let addons = [&addon_gang::ADDON, &addon_lws::ADDON, &addon_rbg::ADDON].map(|addon| addon.policy);
        let roles: Vec<Role> = FILES.iter().chain(&addons).flat_map(|file| read(file)).collect();
        let of_addons = roles.iter().filter(|role| role.name.starts_with("coracle:addon:"));
        assert_eq!(of_addons.map(|role| role.bindings[0].1.len()).collect::<Vec<_>>(), [1, 1, 1]);
        assert!(roles.len() > 60, "{}", roles.len());
        for role in &roles {
            let empty = role.rules.is_empty() && role.aggregate.is_empty();
            assert!(!empty, "{} gives nothing", role.name);
            for rule in &role.rules {
                let verb = |verb: &String| verb == "*" || verb.bytes().all(|byte| byte.is_ascii_lowercase());
                assert!(rule.verbs.iter().all(verb), "{}: {rule:?}", role.name);
            }
        }
        let admin = rules_of("cluster-admin");
        assert_eq!(admin.len(), 2);
        assert_eq!(admin[1].non_resource_urls, Some(vec!["*".to_owned()]));
        let leases = rules_of("system:kube-scheduler");
        let named = leases.iter().find(|rule| rule.resource_names.is_some()).unwrap();
        assert_eq!(named.resource_names, Some(vec!["kube-scheduler".to_owned()]));
        let reader = roles.iter().find(|role| role.name == "extension-apiserver-authentication-reader").unwrap();
        assert_eq!(reader.bindings[0].0, "system::extension-apiserver-authentication-reader");
        assert_eq!(reader.bindings[0].1.len(), 2);
        let edit = roles.iter().find(|role| role.name == "edit").unwrap();
        assert_eq!(edit.kind(), "ClusterRole");
        assert_eq!(edit.aggregate.len(), 1);
    }

    #[test]
    fn what_is_there_stays_and_what_is_missing_comes() {
        let role = |verbs: Value, labels: Value| {
            json!({ "metadata": { "labels": labels },
                "rules": [{ "verbs": verbs, "apiGroups": [""], "resources": ["pods"] }] })
        };
        let stored = role(json!(["get", "delete"]), json!({ "mine": "x" }));
        let merged = merged(&stored, &role(json!(["get", "list"]), json!({ "ours": "y" })));
        assert_eq!(merged["metadata"]["labels"], json!({ "mine": "x", "ours": "y" }));
        let rules: Vec<&Value> = merged["rules"].as_array().unwrap().iter().map(|rule| &rule["verbs"]).collect();
        assert_eq!(rules, [&json!(["get", "delete"]), &json!(["list"])]);
        assert_eq!(super::merged(&merged, &role(json!(["list"]), json!({}))), merged);
    }
}
