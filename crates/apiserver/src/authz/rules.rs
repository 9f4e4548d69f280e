//! One rule of a role: what it allows, and what it covers.

use k8s_openapi::api::rbac::v1::PolicyRule;
use machinery::rbac::{Requested, has, list, path_matches};

use super::{Attributes, Target};

/// Whether the rule allows what is asked for.
pub(crate) fn allows(rule: &PolicyRule, attributes: &Attributes<'_>) -> bool {
    let requested = match attributes.target {
        Target::Path(path) => Requested::Path(path),
        Target::Resource { group, resource, subresource, name, .. } => {
            Requested::Resource { group, resource, subresource, name }
        }
    };
    machinery::rbac::allows(rule, attributes.verb.as_str(), requested)
}

/// The parts of `wanted` that no rule of `held` covers, each about one verb of one thing.
pub(crate) fn uncovered(held: &[&PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let parts = wanted.iter().flat_map(parts);
    parts.filter(|part| !held.iter().any(|rule| covers(rule, part))).collect()
}

/// A rule as rules about one verb of one thing.
fn parts(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut parts = Vec::new();
    let one = |item: &String| Some(vec![item.clone()]);
    for group in list(&rule.api_groups) {
        for resource in list(&rule.resources) {
            for verb in &rule.verbs {
                let part = PolicyRule {
                    api_groups: one(group),
                    resources: one(resource),
                    verbs: vec![verb.clone()],
                    ..PolicyRule::default()
                };
                match list(&rule.resource_names) {
                    [] => parts.push(part),
                    names => {
                        parts.extend(names.iter().map(|name| PolicyRule { resource_names: one(name), ..part.clone() }));
                    }
                }
            }
        }
    }
    for path in list(&rule.non_resource_urls) {
        for verb in &rule.verbs {
            parts.push(PolicyRule { non_resource_urls: one(path), verbs: vec![verb.clone()], ..PolicyRule::default() });
        }
    }
    parts
}

fn covers(held: &PolicyRule, part: &PolicyRule) -> bool {
    let all = |have: &[String], wanted: &[String]| wanted.iter().all(|item| has(have, item));
    let resource = |wanted: &String| {
        let have = list(&held.resources);
        has(have, wanted) || wanted.split_once('/').is_some_and(|(_, sub)| have.contains(&format!("*/{sub}")))
    };
    let path = |wanted: &String| list(&held.non_resource_urls).iter().any(|have| path_matches(have, wanted));
    let (names, wanted) = (list(&held.resource_names), list(&part.resource_names));
    all(&held.verbs, &part.verbs)
        && all(list(&held.api_groups), list(&part.api_groups))
        && list(&part.resources).iter().all(resource)
        && list(&part.non_resource_urls).iter().all(path)
        && (names.is_empty() || (!wanted.is_empty() && wanted.iter().all(|name| names.contains(name))))
}

/// Rules in upstream's short form, those that differ in their verbs alone as one, sorted.
pub(crate) fn describe(rules: Vec<PolicyRule>) -> Vec<String> {
    let mut merged: Vec<PolicyRule> = Vec::new();
    for rule in rules {
        let same = |other: &&mut PolicyRule| {
            (&other.api_groups, &other.resources, &other.resource_names, &other.non_resource_urls)
                == (&rule.api_groups, &rule.resources, &rule.resource_names, &rule.non_resource_urls)
        };
        // Upstream merges rules about resources, not those about paths.
        match merged.iter_mut().find(same).filter(|other| other.resources.is_some()) {
            Some(other) => other.verbs.extend(rule.verbs),
            None => merged.push(rule),
        }
    }
    let mut lines: Vec<String> = merged.iter().map(short).collect();
    lines.sort();
    lines.dedup();
    lines
}

fn short(rule: &PolicyRule) -> String {
    let parts = [
        ("APIGroups", list(&rule.api_groups)),
        ("Resources", list(&rule.resources)),
        ("NonResourceURLs", list(&rule.non_resource_urls)),
        ("ResourceNames", list(&rule.resource_names)),
        ("Verbs", &rule.verbs),
    ];
    let parts = parts.iter().filter(|(_, items)| !items.is_empty());
    let parts: Vec<String> = parts.map(|(name, items)| format!("{name}:{}", quoted(items))).collect();
    format!("{{{}}}", parts.join(", "))
}

/// A list as Go prints it with `%q`.
pub(crate) fn quoted(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", items.join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rule(value: Value) -> PolicyRule {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_missing_to_grant_a_rule() {
        let check = |held: Value, wanted: Value, expect: &[&str]| {
            let (held, wanted) = (rule(held), rule(wanted));
            assert_eq!(describe(uncovered(&[&held], &[wanted])), expect);
        };
        let read = json!({ "verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"] });
        check(read.clone(), json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }), &[]);
        check(
            read.clone(),
            json!({ "verbs": ["get", "delete", "watch"], "apiGroups": [""], "resources": ["pods", "secrets"] }),
            &[
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete" "watch"]}"#,
                r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get" "delete" "watch"]}"#,
            ],
        );
        check(
            read,
            json!({ "verbs": ["get"], "nonResourceURLs": ["/metrics"] }),
            &[r#"{NonResourceURLs:["/metrics"], Verbs:["get"]}"#],
        );
        let named = json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"] });
        check(
            named.clone(),
            json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }),
            &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#],
        );
        check(named.clone(), named, &[]);
        let all = json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale"] });
        check(all, json!({ "verbs": ["get"], "apiGroups": ["apps"], "resources": ["deployments/scale"] }), &[]);
    }
}
