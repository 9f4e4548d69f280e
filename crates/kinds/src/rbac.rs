//! rbac.authorization.k8s.io/v1: roles, and who has them. What is common to those of a namespace and of the cluster.

mod binding;
mod role;

use binding::{ClusterRoleBinding, RoleBinding};
use role::{ClusterRole, Role};

use registry::ops::Typed;
use registry::table::Resource;

/// The API group.
const GROUP: &str = "rbac.authorization.k8s.io";

/// The rows of the resource table.
pub(super) fn all() -> Vec<Resource> {
    vec![
        Typed::<ClusterRole>::shared(),
        Typed::<ClusterRoleBinding>::shared(),
        Typed::<Role>::shared(),
        Typed::<RoleBinding>::shared(),
    ]
}

#[cfg(test)]
mod tests;
