//! Policy of audit.k8s.io/v1: which requests are noted, and how much of each.
//!
//! Upstream: `staging/src/k8s.io/apiserver/pkg/audit/policy/checker.go`; what may stand in it `pkg/apis/audit/validation`.
//! The first rule that matches decides; a request that none matches is not noted.

use machinery::field::{ErrorList, FieldError, Path};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::authn::User;
use crate::authz::Target;

const API_VERSION: &str = "audit.k8s.io/v1";
const KIND: &str = "Policy";
const LEVELS: [&str; 4] = ["None", "Metadata", "Request", "RequestResponse"];
const STAGES: [&str; 4] = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];

/// How much of a request is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum Level {
    /// Nothing.
    None,
    /// Who, what, when; no objects.
    Metadata,
    /// Also the object of the request.
    Request,
    /// Also the object of the answer.
    RequestResponse,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        [Self::None, Self::Metadata, Self::Request, Self::RequestResponse]
            .into_iter()
            .zip(LEVELS)
            .find_map(|(level, name)| (name == text).then_some(level))
    }

    pub(super) fn as_str(self) -> &'static str {
        LEVELS[self as usize]
    }
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Stage {
    /// It has come, and nothing was done yet.
    RequestReceived,
    /// The head of the answer has been sent, its body goes on: only of what may last.
    ResponseStarted,
    /// The answer has been sent.
    ResponseComplete,
    /// The handler panicked.
    Panic,
}

/// Stages that are left out: a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Stages(u8);

impl Stages {
    fn has(self, stage: Stage) -> bool {
        self.0 & 1 << stage as u8 != 0
    }

    fn read(names: &[String], path: &Path, errors: &mut ErrorList) -> Self {
        let mut stages = Self::default();
        for (at, name) in names.iter().enumerate() {
            match STAGES.iter().position(|stage| stage == name) {
                Some(bit) => stages.0 |= 1 << bit,
                None => errors.push(FieldError::not_supported(&path.index(at), name, &STAGES)),
            }
        }
        stages
    }
}

/// What a policy says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) level: Level,
    omit_stages: Stages,
    pub(super) omit_managed_fields: bool,
}

impl Decision {
    /// Whether a stage is left out.
    pub(super) fn omits(self, stage: Stage) -> bool {
        self.omit_stages.has(stage)
    }
}

/// A Policy.
#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    level: Level,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    non_resource_urls: Vec<String>,
    omit_stages: Stages,
    omit_managed_fields: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    api_version: String,
    kind: String,
    /// A policy is an object, of which nothing but this is of interest.
    #[serde(default, rename = "metadata")]
    _metadata: Option<Value>,
    #[serde(default)]
    rules: Vec<WrittenRule>,
    #[serde(default)]
    omit_stages: Vec<String>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct WrittenRule {
    level: String,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(value: &Value) -> Result<Self, String> {
        let written = Written::deserialize(value).map_err(|error| error.to_string())?;
        if (written.api_version.as_str(), written.kind.as_str()) != (API_VERSION, KIND) {
            let Written { api_version, kind, .. } = written;
            return Err(format!("it is a {kind} of {api_version}, not a {KIND} of {API_VERSION}"));
        }
        let mut errors = ErrorList::new();
        let path = Path::new("rules");
        if written.rules.is_empty() {
            errors.push(FieldError::required(&path, "without a rule nothing would be noted"));
        }
        let omit_stages = Stages::read(&written.omit_stages, &Path::new("omitStages"), &mut errors);
        let rules = written.rules.into_iter().enumerate().map(|(at, rule)| {
            let mut rule = Rule::read(rule, written.omit_managed_fields, &path.index(at), &mut errors);
            rule.omit_stages.0 |= omit_stages.0;
            rule
        });
        let rules = rules.collect();
        if errors.is_empty() { Ok(Self { rules }) } else { Err(errors.to_string()) }
    }

    /// What is noted of a request; nothing of one whose user is not known, where a rule is about users.
    pub(super) fn decide(&self, user: Option<&User>, verb: &str, target: Target<'_>) -> Option<Decision> {
        let rule = self.rules.iter().find(|rule| rule.matches(user, verb, target))?;
        let Rule { level, omit_stages, omit_managed_fields, .. } = *rule;
        (level > Level::None).then_some(Decision { level, omit_stages, omit_managed_fields })
    }
}

impl Rule {
    fn read(written: WrittenRule, omit_managed_fields: bool, path: &Path, errors: &mut ErrorList) -> Self {
        let level = Level::parse(&written.level).unwrap_or_else(|| {
            errors.push(match written.level.as_str() {
                "" => FieldError::required(&path.child("level"), "says how much is noted"),
                other => FieldError::not_supported(&path.child("level"), other, &LEVELS),
            });
            Level::None
        });
        let is_about_resources = !written.resources.is_empty() || !written.namespaces.is_empty();
        if is_about_resources && !written.non_resource_urls.is_empty() {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(&path.child("nonResourceURLs"), &written.non_resource_urls, detail));
        }
        for (at, url) in written.non_resource_urls.iter().enumerate() {
            let path = path.child("nonResourceURLs").index(at);
            if url != "*" && !url.starts_with('/') {
                errors.push(FieldError::invalid(&path, url, "non-resource URL rules must begin with a '/' character"));
            } else if url.strip_suffix('*').unwrap_or(url).contains('*') {
                errors.push(FieldError::invalid(
                    &path,
                    url,
                    "non-resource URL wildcards '*' must be the final character",
                ));
            }
        }
        for (at, group) in written.resources.iter().enumerate() {
            let path = path.child("resources").index(at);
            if group.group.contains('/') || group.group.bytes().any(|byte| byte.is_ascii_uppercase()) {
                errors.push(FieldError::invalid(
                    &path.child("group"),
                    &group.group,
                    "must be a group without a version",
                ));
            }
            if group.resources.is_empty() && !group.resource_names.is_empty() {
                let detail = "using resourceNames requires at least one resource";
                errors.push(FieldError::invalid(&path.child("resourceNames"), &group.resource_names, detail));
            }
        }
        Self {
            level,
            omit_stages: Stages::read(&written.omit_stages, &path.child("omitStages"), errors),
            omit_managed_fields: written.omit_managed_fields.unwrap_or(omit_managed_fields),
            users: written.users,
            user_groups: written.user_groups,
            verbs: written.verbs,
            resources: written.resources,
            namespaces: written.namespaces,
            non_resource_urls: written.non_resource_urls,
        }
    }

    fn matches(&self, user: Option<&User>, verb: &str, target: Target<'_>) -> bool {
        let has = |names: &[String], name: &str| names.iter().any(|known| known == name);
        if !self.users.is_empty() && !user.is_some_and(|user| has(&self.users, &user.name)) {
            return false;
        }
        let is_member = |user: &User| user.groups.iter().any(|group| has(&self.user_groups, group));
        if !self.user_groups.is_empty() && !user.is_some_and(is_member) {
            return false;
        }
        // Other than in a role, `*` is no verb here (upstream: `ruleMatches` in apiserver `pkg/audit/policy/checker.go`).
        if !self.verbs.is_empty() && !has(&self.verbs, verb) {
            return false;
        }
        match target {
            Target::Path(path) => {
                let is_about_resources = !self.namespaces.is_empty() || !self.resources.is_empty();
                let urls = &self.non_resource_urls;
                !is_about_resources && (urls.is_empty() || urls.iter().any(|url| url_matches(url, path)))
            }
            Target::Resource { group, resource, subresource, namespace, name, .. } => {
                self.non_resource_urls.is_empty()
                    && (self.namespaces.is_empty() || has(&self.namespaces, namespace))
                    && (self.resources.is_empty()
                        || self.resources.iter().any(|rule| rule.matches(group, resource, subresource, name)))
            }
        }
    }
}

impl GroupResources {
    fn matches(&self, group: &str, resource: &str, subresource: &str, name: &str) -> bool {
        if self.group != group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.iter().any(|known| known == name) {
            return false;
        }
        self.resources.iter().any(|rule| match rule.split_once('/') {
            None => rule == "*" || (subresource.is_empty() && rule == resource),
            Some(("*", of)) => !subresource.is_empty() && of == subresource,
            Some((of, "*")) => of == resource,
            Some((of, sub)) => of == resource && sub == subresource,
        })
    }
}

fn url_matches(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => rule == path,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(content: Value) -> Result<Policy, String> {
        let mut value = json!({ "apiVersion": API_VERSION, "kind": KIND });
        value.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
        Policy::read(&value)
    }

    fn at(path: &'static str) -> Target<'static> {
        let parts: Vec<&str> = path.split(' ').collect();
        let [group, resource, subresource, namespace, name] = parts[..] else { return Target::Path(path) };
        Target::Resource { group, version: "v1", resource, subresource, namespace, name }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = read(json!({
            "omitStages": ["RequestReceived"],
            "rules": [
                { "level": "None", "users": ["system:kube-proxy"], "verbs": ["watch"] },
                { "level": "None", "userGroups": ["system:authenticated"], "nonResourceURLs": ["/api*", "/version"] },
                { "level": "Request", "resources": [{ "group": "", "resources": ["configmaps"] }], "namespaces": ["kube-system"] },
                { "level": "Metadata", "resources": [{ "group": "", "resources": ["secrets", "pods/log", "pods/status"] }] },
                { "level": "RequestResponse", "omitStages": ["Panic"], "omitManagedFields": true,
                  "resources": [{ "group": "apps" }, { "group": "", "resources": ["*/scale", "nodes/*"] }] },
                { "level": "Request", "resources": [{ "group": "batch", "resources": ["*"], "resourceNames": ["a"] }] },
                { "level": "None", "resources": [{ "group": "batch" }] },
                { "level": "Request", "verbs": ["*"] },
                { "level": "Metadata" },
            ],
        }))
        .unwrap();
        let check = |user: &str, verb: &str, target: &'static str, expect: Option<Level>| {
            let user = User::new(user, &[]);
            let decision = policy.decide(Some(&user), verb, at(target));
            assert_eq!(decision.map(|decision| decision.level), expect, "{user:?} {verb} {target}");
            if let Some(decision) = decision {
                assert!(decision.omits(Stage::RequestReceived) && !decision.omits(Stage::ResponseComplete));
                assert_eq!(decision.omits(Stage::Panic), expect == Some(Level::RequestResponse));
            }
        };
        check("system:kube-proxy", "watch", " endpoints   ", None);
        check("system:kube-proxy", "list", " endpoints   ", Some(Level::Metadata));
        check("ann", "get", "/api", None);
        check("ann", "get", "/apis/apps", None);
        check("ann", "get", "/version", None);
        check("ann", "get", "/version/x", Some(Level::Metadata));
        check("ann", "update", " configmaps  kube-system x", Some(Level::Request));
        check("ann", "update", " configmaps  default x", Some(Level::Metadata));
        check("ann", "get", " secrets  default x", Some(Level::Metadata));
        check("ann", "get", " pods log default x", Some(Level::Metadata));
        check("ann", "get", "apps deployments scale default x", Some(Level::RequestResponse));
        check("ann", "get", " replicationcontrollers scale default x", Some(Level::RequestResponse));
        check("ann", "get", " nodes status  x", Some(Level::RequestResponse));
        check("ann", "get", "batch jobs  default a", Some(Level::Request));
        check("ann", "get", "batch jobs  default b", None);
        // Nobody is in no group and has no name.
        let unknown = policy.decide(None, "get", at("/api")).map(|decision| decision.level);
        assert_eq!(unknown, Some(Level::Metadata));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        for (content, expect) in [
            (json!({}), "rules: Required value"),
            (json!({ "rules": [{}] }), "rules[0].level: Required value"),
            (json!({ "rules": [{ "level": "All" }] }), "rules[0].level: Unsupported value: \"All\""),
            (
                json!({ "rules": [{ "level": "None", "omitStages": ["Begun"] }] }),
                "rules[0].omitStages[0]: Unsupported value",
            ),
            (json!({ "omitStages": ["Begun"], "rules": [{ "level": "None" }] }), "omitStages[0]: Unsupported value"),
            (
                json!({ "rules": [{ "level": "None", "nonResourceURLs": ["/a"], "namespaces": ["b"] }] }),
                "rules[0].nonResourceURLs: Invalid value",
            ),
            (
                json!({ "rules": [{ "level": "None", "nonResourceURLs": ["a"] }] }),
                "rules[0].nonResourceURLs[0]: Invalid value: \"a\": non-resource URL rules must begin",
            ),
            (
                json!({ "rules": [{ "level": "None", "nonResourceURLs": ["/a*b"] }] }),
                "rules[0].nonResourceURLs[0]: Invalid value: \"/a*b\": non-resource URL wildcards",
            ),
            (
                json!({ "rules": [{ "level": "None", "resources": [{ "group": "apps/v1" }] }] }),
                "rules[0].resources[0].group: Invalid value",
            ),
            (
                json!({ "rules": [{ "level": "None", "resources": [{ "group": "", "resourceNames": ["a"] }] }] }),
                "rules[0].resources[0].resourceNames: Invalid value",
            ),
            (json!({ "rules": [{ "level": "None", "user": ["a"] }] }), "unknown field `user`"),
            (json!({ "kind": "Event" }), "it is a Event of audit.k8s.io/v1"),
        ] {
            let error = read(content.clone()).unwrap_err();
            assert!(error.starts_with(expect), "{content}: {error}");
        }
    }
}
