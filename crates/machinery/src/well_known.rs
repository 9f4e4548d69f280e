//! Labels, annotations and names that several crates must spell alike (upstream:
//! `staging/src/k8s.io/api/core/v1/well_known_labels.go`, and where said). Each stands here once.

use std::collections::BTreeMap;

/// On a node: its hostname, which need not be its name.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// On a node: its operating system.
pub const OS: &str = "kubernetes.io/os";
/// On a node: its architecture.
pub const ARCH: &str = "kubernetes.io/arch";
/// On a node: its zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// On a node that runs the control plane (upstream: `cmd/kubeadm/app/constants/constants.go`).
pub const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// The taint of a node that is cordoned.
pub const TAINT_UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The taint of a node that is not Ready.
pub const TAINT_NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The taint of a node that nothing is heard of.
pub const TAINT_UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// On an EndpointSlice: the name of its Service (upstream: `staging/src/k8s.io/api/discovery/v1/well_known_labels.go`).
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The namespace of the nodes' leases.
pub const NODE_LEASES: &str = "kube-node-lease";
/// The most pods of a node for which nobody has said another number (upstream:
/// `pkg/kubelet/apis/config/v1beta1/defaults.go`).
pub const MAX_PODS: u32 = 110;

/// The type of Secrets with a token of a service account (upstream: `staging/src/k8s.io/api/core/v1/types.go`).
pub const SERVICE_ACCOUNT_TOKEN: &str = "kubernetes.io/service-account-token";

/// The annotation of a node that is an object without a machine, with its value: that of kwok.
pub const FAKE_NODE: (&str, &str) = ("kwok.x-k8s.io/node", "fake");
/// Whether a node with these annotations is an object without a machine.
pub fn is_fake_node(annotations: Option<&BTreeMap<String, String>>) -> bool {
    annotations.and_then(|all| all.get(FAKE_NODE.0)).is_some_and(|value| value == FAKE_NODE.1)
}

/// The annotation of a further node on this machine, with its value.
pub const EXTRA_NODE: (&str, &str) = ("coracle.dev/node", "extra");
/// The annotation of a further node that says what it offers, as a JSON object of quantities.
pub const NODE_CAPACITY: &str = "coracle.dev/capacity";

/// The cluster's own provisioner of volumes.
pub const PROVISIONER: &str = "coracle.dev/local-path";
/// On a volume: its provisioner (upstream: `component-helpers/storage/volume/helpers.go`, as the next three).
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: its binding is complete.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a volume or claim: who bound it was the controller, not a person.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim: the node for which its volume is to be made.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// The domain of a cluster for which nobody has chosen another.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// The machine's configuration of its resolvers.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
