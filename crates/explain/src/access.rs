//! Who may do something: the bindings and roles that allow it, by the rules that the authorizer goes by.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use machinery::rbac::{
    ACCOUNT_PREFIX, ACCOUNTS, AUTHENTICATED, MASTERS, NODE_PREFIX, NODES, Named, Requested, allows, list as items,
    named,
};

use crate::explanation::{Explanation, Step};
use crate::meta::name;
use crate::words::{count, list, number};

/// So many bindings and roles are named.
const SHOWN: usize = 8;

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// The name of the user.
    pub user: String,
    /// The groups that the user is known to be in.
    pub groups: Vec<String>,
    /// What the user wants to do: `get`, `create`.
    pub verb: String,
    /// The API group, empty for the core group.
    pub group: String,
    /// The plural name of the resource.
    pub resource: String,
    /// The subresource, or empty.
    pub subresource: String,
    /// The name, or empty.
    pub name: String,
    /// The namespace; empty for what has none.
    pub namespace: String,
    /// A path beside the resources, such as `/metrics`; then there is no resource.
    pub path: Option<String>,
}

/// What the API server's authorizer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it allows it.
    pub allowed: bool,
    /// Its reason, if it gives one.
    pub reason: String,
}

/// Roles and bindings, as far as they could be read.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The roles of the cluster.
    pub cluster_roles: Vec<ClusterRole>,
    /// The roles of the namespace.
    pub roles: Vec<Role>,
    /// The bindings of the cluster.
    pub cluster_role_bindings: Vec<ClusterRoleBinding>,
    /// The bindings of the namespace.
    pub role_bindings: Vec<RoleBinding>,
    /// What could not be read, in words.
    pub unknown: Vec<String>,
}

/// The groups that the name of a user implies.
pub fn groups_of(user: &str) -> Vec<String> {
    let mut groups = Vec::new();
    if let Some((namespace, _)) = user.strip_prefix(ACCOUNT_PREFIX).and_then(|account| account.split_once(':')) {
        groups.extend([ACCOUNTS.to_owned(), format!("{ACCOUNTS}:{namespace}")]);
    } else if user.starts_with(NODE_PREFIX) {
        groups.push(NODES.to_owned());
    }
    groups.push(AUTHENTICATED.to_owned());
    groups
}

/// A binding with the role that it gives to somebody.
struct Grant<'a> {
    /// `ClusterRoleBinding admins`.
    binding: String,
    role: &'a RoleRef,
    /// `Group system:masters`.
    to: String,
    rules: Option<&'a [PolicyRule]>,
}

/// Answers, and says by which bindings and roles, or what there would have to be.
pub fn explain(question: &Question, policy: &Policy, verdict: Option<&Verdict>) -> Explanation {
    let mut out = Explanation::new(&format!("{} {}", question.user, question.asked()));
    out.wants(question.asked());
    out.wants(format!("as the user {}, in the groups {}", question.user, list(&question.groups)));
    let is_master = question.groups.iter().any(|group| group == MASTERS);
    let grants = question.grants(policy);
    let allowing: Vec<(&Grant<'_>, &PolicyRule)> = grants
        .iter()
        .filter_map(|grant| Some((grant, grant.rules?.iter().find(|rule| question.is_allowed_by(rule))?)))
        .collect();
    let allowed = verdict.map_or(is_master || !allowing.is_empty(), |verdict| verdict.allowed);
    out.allowed = Some(allowed);
    out.has(if allowed { "the right to do that" } else { "no right to do that: nothing allows it" });
    if is_master && allowed {
        out.why(format!("the group {MASTERS} may do everything, whatever roles say"));
    }
    for (grant, rule) in allowing.iter().take(SHOWN) {
        let Grant { binding, role, to, .. } = grant;
        out.why(format!(
            "the {binding} gives the {} {} to the {to}; its rule: {}",
            role.kind,
            role.name,
            rule_text(rule)
        ));
    }
    let reason = verdict.map(|verdict| verdict.reason.as_str()).unwrap_or_default();
    if allowing.is_empty() && !reason.is_empty() {
        out.why(format!("the API server says: {reason}"));
    }
    if !allowed {
        refused(&mut out, question, policy, &grants);
    }
    // A role that could not be read may be there.
    let dangling = grants.iter().filter(|grant| grant.rules.is_none() && policy.unknown.is_empty());
    for grant in dangling.take(SHOWN) {
        let Grant { binding, role, .. } = grant;
        out.why(format!("the {binding} gives nothing: there is no {} {}", role.kind, role.name));
    }
    out.unknown.extend(policy.unknown.iter().cloned());
    out
}

/// What the user has instead, and what would be enough.
fn refused(out: &mut Explanation, question: &Question, policy: &Policy, grants: &[Grant<'_>]) {
    let has: Vec<String> = grants
        .iter()
        .filter(|grant| grant.rules.is_some())
        .map(|grant| format!("{} {} by the {} to the {}", grant.role.kind, grant.role.name, grant.binding, grant.to))
        .collect();
    match has.as_slice() {
        [] if policy.unknown.is_empty() => out.why("no binding names the user or one of the groups"),
        [] => out.why("of what could be read, no binding names the user or one of the groups"),
        has => out.why(format!("{} do not allow it: {}", count(number(has.len()), "binding"), list(has))),
    }
    let allows = |rules: Option<&Vec<PolicyRule>>| rules.into_iter().flatten().any(|rule| question.is_allowed_by(rule));
    // What the components have is given to nobody else, and `cluster-admin` is the last resort.
    let mut enough: Vec<(&str, &str)> = policy
        .roles
        .iter()
        .filter(|role| allows(role.rules.as_ref()))
        .map(|role| ("Role", name(&role.metadata)))
        .collect();
    let cluster = policy.cluster_roles.iter().filter(|role| allows(role.rules.as_ref()));
    let mut cluster: Vec<&str> =
        cluster.map(|role| name(&role.metadata)).filter(|name| !name.starts_with("system:")).collect();
    cluster.sort_by_key(|name| {
        ["view", "edit", "admin"]
            .iter()
            .position(|known| known == name)
            .map_or_else(|| (usize::from(*name == "cluster-admin") * 2 + 1, 0), |place| (0, place))
    });
    enough.extend(cluster.into_iter().map(|name| ("ClusterRole", name)));
    let Some((kind, role)) = enough.first() else {
        out.next(Step::new("You", "write a role that allows it, and bind it (kubectl create role --help)"));
        return;
    };
    let names: Vec<String> = enough.iter().map(|(kind, name)| format!("{kind} {name}")).collect();
    out.why(format!("roles that would allow it: {}", list(&names)));
    let subject = match question.user.strip_prefix(ACCOUNT_PREFIX) {
        Some(account) => format!("--serviceaccount={account}"),
        None => format!("--user={}", question.user),
    };
    let which = if *kind == "Role" { "--role" } else { "--clusterrole" };
    out.next(Step::new(
        "You",
        match question.namespace.as_str() {
            "" => format!("give it, if that is meant: kubectl create clusterrolebinding NAME {which}={role} {subject}"),
            namespace => {
                format!(
                    "give it, if that is meant: kubectl create rolebinding NAME -n {namespace} {which}={role} {subject}"
                )
            }
        },
    ));
}

impl Question {
    /// `get pods/web -n default`.
    fn asked(&self) -> String {
        if let Some(path) = &self.path {
            return format!("{} {path}", self.verb);
        }
        let mut text = format!("{} {}", self.verb, self.resource);
        if !self.group.is_empty() {
            text.push_str(&format!(".{}", self.group));
        }
        if !self.name.is_empty() {
            text.push_str(&format!("/{}", self.name));
        }
        if !self.subresource.is_empty() {
            text.push_str(&format!(", its subresource {}", self.subresource));
        }
        if !self.namespace.is_empty() {
            text.push_str(&format!(" -n {}", self.namespace));
        }
        text
    }

    fn is_allowed_by(&self, rule: &PolicyRule) -> bool {
        let requested = match &self.path {
            Some(path) => Requested::Path(path),
            None => Requested::Resource {
                group: &self.group,
                resource: &self.resource,
                subresource: &self.subresource,
                name: &self.name,
            },
        };
        allows(rule, &self.verb, requested)
    }

    /// The subject that is the user, or a group of the user.
    fn subject<'a>(&self, subjects: Option<&'a Vec<Subject>>, namespace: &str) -> Option<&'a Subject> {
        subjects.into_iter().flatten().find(|subject| match named(subject, namespace) {
            Some(Named::User(user)) => user == self.user,
            Some(Named::Group(group)) => self.groups.contains(&group),
            None => false,
        })
    }

    /// What bindings give to the user: those of the cluster, and those of the namespace.
    fn grants<'a>(&self, policy: &'a Policy) -> Vec<Grant<'a>> {
        let of_cluster = |role: &RoleRef| {
            let found = policy.cluster_roles.iter().find(|it| it.metadata.name.as_ref() == Some(&role.name));
            found.map(|it| it.rules.as_deref().unwrap_or_default())
        };
        let of_namespace = |role: &RoleRef| {
            let found = policy.roles.iter().find(|it| it.metadata.name.as_ref() == Some(&role.name));
            found.map(|it| it.rules.as_deref().unwrap_or_default())
        };
        let grant = |binding: String, role: &'a RoleRef, subject: &Subject, rules| Grant {
            binding,
            role,
            to: format!("{} {}", subject.kind, subject.name),
            rules,
        };
        let mut grants = Vec::new();
        for binding in &policy.cluster_role_bindings {
            if let Some(subject) = self.subject(binding.subjects.as_ref(), "") {
                let called = format!("ClusterRoleBinding {}", name(&binding.metadata));
                grants.push(grant(called, &binding.role_ref, subject, of_cluster(&binding.role_ref)));
            }
        }
        // What has no namespace is given by bindings of the cluster only.
        let bindings = policy.role_bindings.iter().filter(|_| !self.namespace.is_empty());
        for binding in bindings {
            if let Some(subject) = self.subject(binding.subjects.as_ref(), &self.namespace) {
                let called = format!("RoleBinding {}", name(&binding.metadata));
                let role = &binding.role_ref;
                let rules = if role.kind == "ClusterRole" { of_cluster(role) } else { of_namespace(role) };
                grants.push(grant(called, role, subject, rules));
            }
        }
        grants
    }
}

/// `get, list of pods in the group apps`.
fn rule_text(rule: &PolicyRule) -> String {
    let verbs = list(&rule.verbs);
    let paths = items(&rule.non_resource_urls);
    if !paths.is_empty() {
        return format!("{verbs} of {}", list(paths));
    }
    let groups: Vec<&str> =
        items(&rule.api_groups).iter().map(|group| if group.is_empty() { "core" } else { group }).collect();
    let names = match items(&rule.resource_names) {
        [] => String::new(),
        names => format!(", only {}", list(names)),
    };
    format!("{verbs} of {} (API group {}){names}", list(items(&rule.resources)), list(&groups))
}
