//! All roles and bindings in the form in which they are asked: by who and what.
//!
//! A [`Scope`] is what bindings of one namespace, or of the whole cluster, give. It is built anew when one of its
//! bindings or roles changes; an authorization looks up a user and a few groups, and of their rules only those about
//! the resource.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use machinery::rbac::{Named, account_namespace, list, named};
use registry::User;

use super::rules;
use super::{Attributes, Target};

/// The rules of a role.
pub(crate) type Rules = Arc<[PolicyRule]>;

/// A binding as stored.
pub(crate) struct Binding {
    pub(crate) role: RoleRef,
    pub(crate) subjects: Vec<Subject>,
}

/// Roles and bindings, by namespace (empty for those of the cluster) and name.
#[derive(Default)]
pub(crate) struct Policy {
    roles: HashMap<String, HashMap<String, Rules>>,
    bindings: HashMap<String, BTreeMap<String, Binding>>,
    scopes: HashMap<String, Scope>,
    /// Namespaces whose scope must be built anew.
    stale: HashSet<String>,
}

impl Policy {
    /// A role is there, or has changed, or is gone.
    pub(crate) fn set_role(&mut self, namespace: &str, name: &str, rules: Option<Rules>) {
        let roles = self.roles.entry(namespace.to_owned()).or_default();
        match rules {
            Some(rules) => roles.insert(name.to_owned(), rules),
            None => roles.remove(name),
        };
        // A binding of any namespace may refer to a role of the cluster.
        let uses = |bindings: &BTreeMap<String, Binding>| bindings.values().any(|binding| binding.role.name == name);
        let users =
            self.bindings.iter().filter(|(at, bindings)| (namespace.is_empty() || *at == namespace) && uses(bindings));
        self.stale.extend(users.map(|(at, _)| at.clone()));
    }

    /// A binding is there, or has changed, or is gone.
    pub(crate) fn set_binding(&mut self, namespace: &str, name: &str, binding: Option<Binding>) {
        let bindings = self.bindings.entry(namespace.to_owned()).or_default();
        match binding {
            Some(binding) => bindings.insert(name.to_owned(), binding),
            None => bindings.remove(name),
        };
        self.stale.insert(namespace.to_owned());
    }

    /// Builds what has become stale.
    pub(crate) fn rebuild(&mut self) {
        for namespace in std::mem::take(&mut self.stale) {
            let bindings = self.bindings.get(&namespace);
            let mut scope = Scope::default();
            for (name, binding) in bindings.into_iter().flatten() {
                let rules = self.role(&namespace, &binding.role);
                scope.bind(&namespace, name, binding, rules);
            }
            match scope.is_empty() {
                true => self.scopes.remove(&namespace),
                false => self.scopes.insert(namespace, scope),
            };
        }
    }

    /// The rules of the role that a binding in `namespace` refers to.
    pub(crate) fn role(&self, namespace: &str, role: &RoleRef) -> Option<&Rules> {
        let at = if role.kind == "ClusterRole" { "" } else { namespace };
        self.roles.get(at)?.get(&role.name)
    }

    /// Who allows it, in upstream's words; else what could not be found out.
    pub(crate) fn allows(&self, attributes: &Attributes<'_>) -> Result<Arc<str>, Vec<Arc<str>>> {
        let mut missing = Vec::new();
        for grants in self.grants(attributes.user, namespace_of(&attributes.target)) {
            if let Some(rule) = grants.find(attributes) {
                return Ok(Arc::clone(&rule.why));
            }
            missing.extend(grants.missing.iter().map(Arc::clone));
        }
        Err(missing)
    }

    /// All rules that are about a user in a namespace, and what could not be found out.
    pub(crate) fn rules(&self, user: &User, namespace: &str) -> (Vec<&PolicyRule>, Vec<Arc<str>>) {
        let (mut rules, mut missing) = (Vec::new(), Vec::new());
        for grants in self.grants(user, namespace) {
            rules.extend(grants.rules.iter().map(Granted::rule));
            missing.extend(grants.missing.iter().map(Arc::clone));
        }
        (rules, missing)
    }

    /// What is given to the user or one of the groups, by the cluster or the namespace.
    fn grants<'a, 'b>(&'a self, user: &'b User, namespace: &'b str) -> impl Iterator<Item = &'a Grants> {
        let scopes = [self.scopes.get(""), self.scopes.get(namespace).filter(|_| !namespace.is_empty())];
        scopes.into_iter().flatten().flat_map(move |scope| {
            let groups = user.groups.iter().filter_map(|group| scope.groups.get(group.as_str()));
            scope.users.get(user.name.as_str()).into_iter().chain(groups)
        })
    }
}

fn namespace_of<'a>(target: &Target<'a>) -> &'a str {
    match target {
        Target::Resource { namespace, .. } => namespace,
        Target::Path(_) => "",
    }
}

/// What the bindings of one namespace, or of the cluster, give to whom.
#[derive(Default)]
struct Scope {
    users: HashMap<String, Grants>,
    groups: HashMap<String, Grants>,
}

impl Scope {
    fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    fn bind(&mut self, namespace: &str, name: &str, binding: &Binding, rules: Option<&Rules>) {
        let role = &binding.role;
        for subject in &binding.subjects {
            let grants = match named(subject, namespace) {
                Some(Named::User(user)) => self.users.entry(user),
                Some(Named::Group(group)) => self.groups.entry(group),
                None => continue,
            };
            let who = match subject.kind.as_str() {
                "ServiceAccount" => format!("{}/{}", subject.name, account_namespace(subject, namespace)),
                _ => subject.name.clone(),
            };
            let grants = grants.or_default();
            let (kind, of) = (&role.kind, &role.name);
            let Some(rules) = rules else {
                let kind = kind.to_lowercase();
                grants.missing.push(format!("{kind}.rbac.authorization.k8s.io {of:?} not found").into());
                continue;
            };
            let binding = match namespace.is_empty() {
                true => format!("ClusterRoleBinding {name:?}"),
                false => format!("RoleBinding {:?}", format!("{name}/{namespace}")),
            };
            let to = &subject.kind;
            grants.add(rules, &format!("RBAC: allowed by {binding} of {kind} {of:?} to {to} {who:?}").into());
        }
    }
}

/// What one user or group may do.
#[derive(Default)]
struct Grants {
    rules: Vec<Granted>,
    /// Positions of the rules about a resource, by its name; subresources are with their resource.
    by_resource: HashMap<String, Vec<usize>>,
    /// Of the rules about any resource, or a subresource of any.
    any_resource: Vec<usize>,
    /// Of the rules about paths.
    paths: Vec<usize>,
    /// Roles that are not there.
    missing: Vec<Arc<str>>,
}

/// A rule of a role that somebody has.
struct Granted {
    rules: Rules,
    at: usize,
    why: Arc<str>,
}

impl Granted {
    fn rule(&self) -> &PolicyRule {
        &self.rules[self.at]
    }
}

impl Grants {
    fn add(&mut self, rules: &Rules, why: &Arc<str>) {
        for (at, rule) in rules.iter().enumerate() {
            let position = self.rules.len();
            self.rules.push(Granted { rules: Arc::clone(rules), at, why: Arc::clone(why) });
            if rule.non_resource_urls.is_some() {
                self.paths.push(position);
            }
            for resource in list(&rule.resources) {
                let resource = resource.split('/').next().unwrap_or_default();
                let positions = match resource {
                    "*" => &mut self.any_resource,
                    _ => self.by_resource.entry(resource.to_owned()).or_default(),
                };
                if positions.last() != Some(&position) {
                    positions.push(position);
                }
            }
        }
    }

    fn find(&self, attributes: &Attributes<'_>) -> Option<&Granted> {
        let allows = |position: &&usize| rules::allows(self.rules[**position].rule(), attributes);
        let position = match attributes.target {
            Target::Path(_) => self.paths.iter().find(allows),
            Target::Resource { resource, .. } => {
                let about = self.by_resource.get(resource).into_iter().flatten();
                about.chain(&self.any_resource).find(allows)
            }
        };
        position.map(|position| &self.rules[*position])
    }
}
