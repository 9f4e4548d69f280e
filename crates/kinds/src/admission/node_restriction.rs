//! NodeRestriction: what a kubelet may write, beyond what its rules say: its own Node and Lease, and the pods bound to it
//! (`plugin/pkg/admission/noderestriction/admission.go`).
//!
//! One deviation: a kubelet here may label its Node with the role `node-role.kubernetes.io/control-plane`, which upstream
//! leaves to kubeadm; only `node-restriction.kubernetes.io/` is closed to it.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Node, Pod};
use machinery::certificates::{CertificateRequest, KUBELET_CLIENT, KUBELET_SERVING};
use machinery::gvk::GroupResource;
use machinery::status::ApiError;
use machinery::well_known::NODE_LEASES;
use registry::admission::{AdmissionPlugin, Attributes, Operation, PODS, object_of};
use registry::kind::Subresource;
use registry::object::{Object, cast};
use registry::user::MASTERS;

use crate::common::text;

/// What begins with this was said of the node by an administrator, who relies on it.
const CLOSED: &str = "node-restriction.kubernetes.io/";
/// The signers of certificates of kubelets.
const KUBELET_SIGNERS: [&str; 2] = [KUBELET_SERVING, KUBELET_CLIENT];
/// Marks a pod that mirrors a file on the node.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The plugin.
pub(super) struct NodeRestriction;

#[async_trait]
impl AdmissionPlugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let restricted = attributes.user.as_node().is_some() && !attributes.user.is_in(MASTERS);
        restricted && attributes.operation != Operation::Connect
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        new: Option<&dyn Object>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let Some(node) = attributes.user.as_node() else { return Ok(()) };
        let (info, old) = (attributes.info, attributes.old);
        let name = new.or(old).and_then(|object| object.meta().name.as_deref()).unwrap_or_default();
        let refusal = match (info.group.as_str(), info.plural.as_str()) {
            ("", "pods") => pod(node, attributes, new)?,
            ("", "nodes") if name != node => Some(format!("node {node:?} is not allowed to modify node {name:?}")),
            ("", "nodes") => match new {
                Some(new) => labels_and_taints(node, object_of(Some(new))?, old.map(cast).transpose()?),
                None => None,
            },
            ("coordination.k8s.io", "leases") if attributes.namespace != NODE_LEASES => {
                Some(format!("can only access leases in the {NODE_LEASES:?} system namespace"))
            }
            ("coordination.k8s.io", "leases") if name != node => {
                Some("can only access node lease with the same name as the requesting node".to_owned())
            }
            ("storage.k8s.io", "csinodes") if name != node => {
                Some("can only access CSINode with the same name as the requesting node".to_owned())
            }
            ("certificates.k8s.io", "certificatesigningrequests") if attributes.operation == Operation::Create => {
                certificate_request(node, object_of(new)?)
            }
            _ => None,
        };
        refusal.map_or(Ok(()), |why| Err(ApiError::forbidden(&info.group_resource, name, why)))
    }
}

/// Why the kubelet may not write to the pod, if it may not.
fn pod(node: &str, attributes: &Attributes<'_>, new: Option<&dyn Object>) -> Result<Option<String>, ApiError> {
    let is_own = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| text(&spec.node_name) == node);
    let only = |what: &str| Some(format!("node {node:?} can only {what} pods with spec.nodeName set to itself"));
    let stored = |old: Option<&dyn Object>| object_of::<Pod>(old).map(is_own);
    Ok(match (attributes.operation, attributes.subresource) {
        (Operation::Create, Some(Subresource::Eviction)) => {
            let name = attributes.name;
            let pod = attributes.stored::<Pod>(PODS, attributes.namespace, name)?;
            let pod = pod.ok_or_else(|| ApiError::not_found(&GroupResource::from_static("", "pods"), name))?;
            if is_own(&pod) { None } else { only("evict") }
        }
        (Operation::Update, None | Some(Subresource::Status)) => {
            if stored(attributes.old)? {
                None
            } else {
                Some(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"))
            }
        }
        (_, Some(other)) => {
            let other = other.name();
            Some(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
        }
        (Operation::Create, None) => {
            let pod: &Pod = object_of(new)?;
            let mirrors = pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR));
            if !mirrors {
                Some(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"))
            } else if is_own(pod) {
                None
            } else {
                only("create")
            }
        }
        (Operation::Delete, None) => {
            if stored(attributes.old)? {
                None
            } else {
                only("delete")
            }
        }
        (Operation::Connect, None) => None,
    })
}

/// Why the kubelet may not ask for that certificate, if it may not: one of a node is its own.
fn certificate_request(node: &str, request: &CertificateSigningRequest) -> Option<String> {
    if !KUBELET_SIGNERS.contains(&request.spec.signer_name.as_str()) {
        return None;
    }
    let own = format!("system:node:{node}");
    match CertificateRequest::from_pem(&request.spec.request.0) {
        Err(fault) => Some(format!("unable to parse csr: {fault}")),
        Ok(asked) => (asked.common_name != own).then(|| format!("can only create a node CSR with CN={own}")),
    }
}

/// Why the kubelet may not write these labels and taints to its Node, if it may not.
fn labels_and_taints(node: &str, new: &Node, old: Option<&Node>) -> Option<String> {
    let empty = BTreeMap::new();
    let (before, after) = (
        old.and_then(|old| old.metadata.labels.as_ref()).unwrap_or(&empty),
        new.metadata.labels.as_ref().unwrap_or(&empty),
    );
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = keys.into_iter().filter(|key| key.starts_with(CLOSED) && before.get(*key) != after.get(*key));
    let changed: Vec<&str> = changed.map(String::as_str).collect();
    if !changed.is_empty() {
        let verb = if old.is_some() { "modify labels" } else { "set the following labels" };
        return Some(format!("is not allowed to {verb}: {}", changed.join(", ")));
    }
    let taints = |object: &Node| object.spec.as_ref().and_then(|spec| spec.taints.clone());
    let modifies = old.is_some_and(|old| taints(old) != taints(new));
    modifies.then(|| format!("node {node:?} is not allowed to modify taints"))
}
