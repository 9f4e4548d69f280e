//! Who may do what.
//!
//! An [`Authorizer`] is asked once for each request, with [`Attributes`] as upstream's authorizers get them, and answers
//! at once: rules are kept in memory by whoever implements it. [`Rbac`] is the one a cluster runs with:
//!
//! | who | module |
//! |---|---|
//! | `system:masters` | may do everything |
//! | kubelets | [`node`]: fixed rules, and what the pods of the node refer to |
//! | everybody | [`rbac`]: roles and bindings, of which [`policy`] is the index and [`rules`] the meaning |
//!
//! [`mod@bootstrap`] writes the roles every cluster has; [`escalation`] keeps rights from growing by being written down.

mod bootstrap;
mod escalation;
mod node;
mod policy;
mod rbac;
mod rules;

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::PolicyRule;
use machinery::GroupResource;
use machinery::Verb;
use machinery::selector::FieldSelector;
use machinery::status::ApiError;
use registry::User;
use registry::audit::annotate;

pub use bootstrap::bootstrap;
pub use rbac::Rbac;

/// What somebody wants to do.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Who.
    pub user: &'a User,
    /// What it is; for paths the method in lower case.
    pub verb: Verb<'a>,
    /// On what.
    pub target: Target<'a>,
    /// What a list, a watch or the deletion of a collection is restricted to.
    pub field_selector: Option<&'a FieldSelector>,
}

impl<'a> Attributes<'a> {
    /// Of what is restricted by no selector.
    #[must_use]
    pub fn new(user: &'a User, verb: Verb<'a>, target: Target<'a>) -> Self {
        Self { user, verb, target, field_selector: None }
    }

    /// Whether only objects are asked for whose field has this value.
    #[must_use]
    pub fn selects(&self, field: &str, value: &str) -> bool {
        let requirements = self.field_selector.iter().flat_map(|selector| &selector.requirements);
        requirements.into_iter().any(|term| term.equal && term.field == field && term.value == value)
    }
}

/// What a request is about.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// Objects of the API.
    Resource {
        /// API group, empty for the core group.
        group: &'a str,
        /// API version.
        version: &'a str,
        /// Plural name.
        resource: &'a str,
        /// Subresource, or empty.
        subresource: &'a str,
        /// Namespace; empty for cluster scope and for all namespaces.
        namespace: &'a str,
        /// Name; empty for all.
        name: &'a str,
    },
    /// Any other path.
    Path(&'a str),
}

/// An authorizer's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Yes; why, where that can be said.
    Allow(Option<Arc<str>>),
    /// Not as far as this authorizer is concerned; the reason, which may be empty, is told to the client.
    Deny(String),
}

/// Decides what a user may do. Must answer from memory.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether `attributes.user` may do this.
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision;

    /// What the user may do in a namespace, as far as it can be listed.
    fn rules(&self, user: &User, namespace: &str) -> Known;
}

/// What is known of what a user may do.
#[derive(Debug, Default)]
pub struct Known {
    /// The rules that are about the user.
    pub rules: Vec<PolicyRule>,
    /// Why there may be more; empty when there are not.
    pub error: String,
}

/// Refuses what the authorizer does not allow.
///
/// # Errors
/// 403.
pub(crate) fn authorize(authorizer: &dyn Authorizer, attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let decision = authorizer.authorize(attributes);
    // `staging/src/k8s.io/apiserver/pkg/endpoints/filters/authorization.go`
    annotate("authorization.k8s.io/decision", || match &decision {
        Decision::Allow(_) => "allow".to_owned(),
        Decision::Deny(_) => "forbid".to_owned(),
    });
    annotate("authorization.k8s.io/reason", || match &decision {
        Decision::Allow(reason) => reason.as_deref().unwrap_or_default().to_owned(),
        Decision::Deny(reason) => reason.clone(),
    });
    match decision {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) => {
            let error = forbidden(attributes, &reason);
            if is_component(attributes.user) {
                // One of our own: its right is missing in the policy, and it may not be able to say so itself.
                tracing::warn!(%error, "a component was refused");
            }
            Err(error)
        }
    }
}

/// Whether a user is a component of the cluster, or a controller of an addon.
fn is_component(user: &User) -> bool {
    let prefixes = ["system:kube-", "system:serviceaccount:kube-system:"];
    prefixes.iter().any(|prefix| user.name.starts_with(prefix)) || user.as_node().is_some()
}

/// The refusal, in upstream's words.
fn forbidden(attributes: &Attributes<'_>, reason: &str) -> ApiError {
    let (user, verb) = (&attributes.user.name, attributes.verb);
    let (group_resource, name, mut message) = match attributes.target {
        Target::Path(path) => (GroupResource::new("", ""), "", format!("User {user:?} cannot {verb} path {path:?}")),
        Target::Resource { group, resource, subresource, namespace, name, .. } => {
            let separator = if subresource.is_empty() { "" } else { "/" };
            let scope = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {namespace:?}")
            };
            let message = format!(
                "User {user:?} cannot {verb} resource \"{resource}{separator}{subresource}\" in API group {group:?} {scope}"
            );
            (GroupResource::new(group.to_owned(), resource.to_owned()), name, message)
        }
    };
    if !reason.is_empty() {
        message.push_str(": ");
        message.push_str(reason);
    }
    ApiError::forbidden(&group_resource, name, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods<'a>(user: &'a User, name: &'a str, subresource: &'a str, namespace: &'a str) -> Attributes<'a> {
        let target = Target::Resource { group: "", version: "v1", resource: "pods", subresource, namespace, name };
        Attributes::new(user, Verb::List, target)
    }

    #[test]
    fn refusals_read_as_upstream_writes_them() {
        let user = User::new("x", &[]);
        let path = Attributes::new(&user, Verb::Get, Target::Path("/metrics"));
        let deployments = Target::Resource {
            group: "apps",
            version: "v1",
            resource: "deployments",
            subresource: "",
            namespace: "shop",
            name: "web",
        };
        let deployments = Attributes::new(&user, Verb::Delete, deployments);
        for (attributes, expect) in [
            (
                pods(&user, "", "", "default"),
                r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#,
            ),
            (
                pods(&user, "", "", ""),
                r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" at the cluster scope"#,
            ),
            (
                pods(&user, "web", "log", "default"),
                r#"pods "web" is forbidden: User "x" cannot list resource "pods/log" in API group "" in the namespace "default""#,
            ),
            (
                deployments,
                r#"deployments.apps "web" is forbidden: User "x" cannot delete resource "deployments" in API group "apps" in the namespace "shop""#,
            ),
            (path, r#"forbidden: User "x" cannot get path "/metrics""#),
        ] {
            assert_eq!(forbidden(&attributes, "").to_string(), expect);
        }
    }
}
