//! Who may do what.
//!
//! An [`Authorizer`] is asked once for each request, with [`Attributes`] as upstream's authorizers get them, and answers
//! at once: rules are kept in memory by whoever implements it. [`Bootstrap`] is the one every cluster starts
//! with: `system:masters` and coracle's own components may do everything.

use std::sync::Arc;

use machinery::GroupResource;
use machinery::status::ApiError;

use registry::user::{MASTERS, User};

/// What somebody wants to do.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Who.
    pub user: &'a User,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for paths the method in lower case.
    pub verb: &'a str,
    /// On what.
    pub target: Target<'a>,
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
    /// Yes.
    Allow,
    /// Not as far as this authorizer is concerned; the reason, which may be empty, is told to the client.
    Deny(String),
}

/// Decides what a user may do. Must answer from memory.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether `attributes.user` may do this.
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision;
}

/// The first authorizer of a chain: those without whom nothing runs.
#[derive(Debug, Default)]
pub struct Bootstrap {
    _private: (),
}

impl Bootstrap {
    /// As a trait object, which is how it is passed on.
    #[must_use]
    pub fn shared() -> Arc<dyn Authorizer> {
        Arc::new(Self::default())
    }
}

/// The users as whom coracle's own components call.
const COMPONENTS: [&str; 4] =
    ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy"];

impl Authorizer for Bootstrap {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let user = attributes.user;
        let node = || user.name.starts_with("system:node:") && user.is_in("system:nodes");
        if user.is_in(MASTERS) || COMPONENTS.contains(&user.name.as_str()) || node() {
            return Decision::Allow;
        }
        // What everyone who is authenticated may do: ask about themselves, and find out what there is.
        let harmless = match attributes.target {
            Target::Resource { group: "authentication.k8s.io", resource: "selfsubjectreviews", .. }
            | Target::Resource {
                group: "authorization.k8s.io",
                resource: "selfsubjectaccessreviews" | "selfsubjectrulesreviews",
                ..
            } => attributes.verb == "create",
            Target::Resource { .. } => false,
            Target::Path(path) => attributes.verb == "get" && is_discovery(path),
        };
        if harmless { Decision::Allow } else { Decision::Deny(String::new()) }
    }
}

/// The paths of upstream's role `system:discovery`.
fn is_discovery(path: &str) -> bool {
    let under = |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    under("/api") || under("/apis") || under("/openapi") || is_public(path)
}

/// The paths of upstream's role `system:public-info-viewer`, which need no authentication.
pub(crate) fn is_public(path: &str) -> bool {
    ["/healthz", "/livez", "/readyz", "/version"]
        .iter()
        .any(|root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// The refusal, in upstream's words.
pub(crate) fn forbidden(attributes: &Attributes<'_>, reason: &str) -> ApiError {
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
        Attributes {
            user,
            verb: "list",
            target: Target::Resource { group: "", version: "v1", resource: "pods", subresource, namespace, name },
        }
    }

    #[test]
    fn refusals_read_as_upstream_writes_them() {
        let user = User::new("x", &[]);
        let path = Attributes { user: &user, verb: "get", target: Target::Path("/metrics") };
        let deployments = Attributes {
            user: &user,
            verb: "delete",
            target: Target::Resource {
                group: "apps",
                version: "v1",
                resource: "deployments",
                subresource: "",
                namespace: "shop",
                name: "web",
            },
        };
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

    #[test]
    fn those_without_whom_nothing_runs_may_do_everything() {
        for (user, allowed) in [
            (User::master("kubernetes-admin"), true),
            (User::component("system:kube-scheduler"), true),
            (User::component("system:kube-controller-manager"), true),
            (User::node("laptop"), true),
            (User::new("system:node:laptop", &[]), false),
            (User::new("x", &["system:nodes"]), false),
            (User::new("x", &["developers"]), false),
        ] {
            let decision = Bootstrap::default().authorize(&pods(&user, "", "", "default"));
            assert_eq!(decision == Decision::Allow, allowed, "{user:?}");
        }
    }

    #[test]
    fn everyone_authenticated_may_look_around() {
        let user = User::new("x", &[]);
        for (path, allowed) in [
            ("/api", true),
            ("/apis/apps/v1", true),
            ("/openapi/v3/api/v1", true),
            ("/version", true),
            ("/metrics", false),
            ("/apisomething", false),
            ("/debug/pprof", false),
        ] {
            let attributes = Attributes { user: &user, verb: "get", target: Target::Path(path) };
            assert_eq!(Bootstrap::default().authorize(&attributes) == Decision::Allow, allowed, "{path}");
        }
    }
}
