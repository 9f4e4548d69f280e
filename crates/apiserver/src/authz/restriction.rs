//! What a kubelet may write, beyond what its rules say: its own Node and Lease, and the pods bound to it.
//!
//! upstream: the admission plugin NodeRestriction. One deviation: a kubelet here may label its Node with the role
//! `node-role.kubernetes.io/control-plane`, which upstream leaves to kubeadm; only `node-restriction.kubernetes.io/` is
//! closed to it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Node;
use machinery::status::ApiError;
use registry::{Object, Subresource, WriteAttributes, cast};

use super::node::{LEASES, is_on};

/// What begins with this was said of the node by an administrator, who relies on it.
const CLOSED: &str = "node-restriction.kubernetes.io/";
/// Marks a pod that mirrors a file on the node.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Refuses a write of the kubelet of `node` that is not about itself.
pub(super) fn check(node: &str, write: &WriteAttributes<'_>) -> Result<(), ApiError> {
    let info = write.target.resource.info();
    let object = write.new.or(write.old);
    let name = object.and_then(|object| object.meta().name.as_deref()).unwrap_or_default();
    let result = match (info.group.as_str(), info.plural.as_str()) {
        ("", "pods") => pod(node, write),
        ("", "nodes") if name != node => Err(format!("node {node:?} is not allowed to modify node {name:?}")),
        ("", "nodes") => labels(node, write.new, write.old),
        ("coordination.k8s.io", "leases") if write.target.namespace != LEASES => {
            Err(format!("can only access leases in the {LEASES:?} system namespace"))
        }
        ("coordination.k8s.io", "leases") if name != node => {
            Err("can only access node lease with the same name as the requesting node".to_owned())
        }
        ("storage.k8s.io", "csinodes") if name != node => {
            Err("can only access CSINode with the same name as the requesting node".to_owned())
        }
        _ => Ok(()),
    };
    result.map_err(|why| ApiError::forbidden(&info.group_resource, name, why))
}

fn pod(node: &str, write: &WriteAttributes<'_>) -> Result<(), String> {
    if let Some(other) = write.subresource.filter(|one| !matches!(one, Subresource::Status | Subresource::Eviction)) {
        let other = other.name();
        return Err(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"));
    }
    match (write.new, write.old, write.subresource) {
        (Some(new), None, _) => {
            let annotations = new.meta().annotations.as_ref();
            if !annotations.is_some_and(|annotations| annotations.contains_key(MIRROR)) {
                return Err(format!(
                    "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
                ));
            }
            match is_on(new, node) {
                true => Ok(()),
                false => Err(format!("node {node:?} can only create pods with spec.nodeName set to itself")),
            }
        }
        (_, Some(old), _) if is_on(old, node) => Ok(()),
        (None, _, _) => Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself")),
        (Some(_), _, Some(Subresource::Eviction)) => {
            Err(format!("node {node:?} can only evict pods with spec.nodeName set to itself"))
        }
        (Some(_), _, _) => {
            Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"))
        }
    }
}

fn labels(node: &str, new: Option<&dyn Object>, old: Option<&dyn Object>) -> Result<(), String> {
    let Some(new) = new else { return Ok(()) };
    let empty = BTreeMap::new();
    let (before, after) = (
        old.and_then(|old| old.meta().labels.as_ref()).unwrap_or(&empty),
        new.meta().labels.as_ref().unwrap_or(&empty),
    );
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = keys.into_iter().filter(|key| key.starts_with(CLOSED) && before.get(*key) != after.get(*key));
    let changed: Vec<&str> = changed.map(String::as_str).collect();
    if !changed.is_empty() {
        let verb = if old.is_some() { "modify labels" } else { "set the following labels" };
        return Err(format!("is not allowed to {verb}: {}", changed.join(", ")));
    }
    let taints = |object: &dyn Object| match cast::<Node>(object) {
        Ok(object) => Ok(object.spec.as_ref().and_then(|spec| spec.taints.clone())),
        Err(error) => Err(error.message),
    };
    match old {
        Some(old) if taints(new)? != taints(old)? => Err(format!("node {node:?} is not allowed to modify taints")),
        _ => Ok(()),
    }
}
