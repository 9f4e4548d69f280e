//! Who asks: a name, a uid, groups, and what else is known. How that is found out is the API server's affair.

use std::collections::BTreeMap;

pub use machinery::rbac::{ACCOUNT_PREFIX, ACCOUNTS, AUTHENTICATED, MASTERS, NODE_PREFIX, NODES, UNAUTHENTICATED};

/// Somebody who asks for something.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// The name, `kubernetes-admin` or `system:node:laptop`.
    pub name: String,
    /// A unique id, where the way of authentication has one.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
    /// What else is known, by key.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user of these groups, and of `system:authenticated`.
    #[must_use]
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// Somebody who has not said who they are.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..Self::default() }
    }

    /// The identity of a component: `system:kube-scheduler`, `system:kube-controller-manager`, `system:kube-proxy`.
    #[must_use]
    pub fn component(name: &str) -> Self {
        Self::new(name, &[])
    }

    /// The identity of the kubelet of a node.
    #[must_use]
    pub fn node(name: &str) -> Self {
        Self::new(format!("{NODE_PREFIX}{name}"), &[NODES])
    }

    /// A service account.
    #[must_use]
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let groups = [ACCOUNTS, &format!("{ACCOUNTS}:{namespace}")];
        Self::new(format!("{ACCOUNT_PREFIX}{namespace}:{name}"), &groups)
    }

    /// One who may do everything.
    #[must_use]
    pub fn master(name: &str) -> Self {
        Self::new(name, &[MASTERS])
    }

    /// Whether the user belongs to a group.
    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|have| have == group)
    }

    /// The node whose kubelet this is.
    #[must_use]
    pub fn as_node(&self) -> Option<&str> {
        self.name.strip_prefix(NODE_PREFIX).filter(|name| !name.is_empty() && self.is_in(NODES))
    }
}
