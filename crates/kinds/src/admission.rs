//! The chain of admission, and its plugins that know a kind; those that know none are in [`registry::admission`].
//!
//! [`PLUGINS`] is in upstream's order (`pkg/kubeapiserver/options/plugins.go`); a further one is a file and a row.

mod default_ingress_class;
pub(crate) mod default_storage_class;
mod default_toleration_seconds;
mod leader_worker_set;
mod limit_ranger;
mod node_restriction;
mod persistent_volume_claim_resize;
mod priority;
mod runtime_class;
mod service_account;
mod storage_object_in_use_protection;

use registry::admission::{
    AdmissionPlugin, MutatingAdmissionWebhook, NamespaceLifecycle, ResourceQuota, ValidatingAdmissionWebhook,
};

/// The plugins, in upstream's order. LeaderWorkerSet stands where its project's webhook would be called.
pub static PLUGINS: [&dyn AdmissionPlugin; 15] = [
    &NamespaceLifecycle,
    &limit_ranger::LimitRanger,
    &service_account::ServiceAccount,
    &node_restriction::NodeRestriction,
    &priority::Priority,
    &default_toleration_seconds::DefaultTolerationSeconds,
    &default_storage_class::DefaultStorageClass,
    &storage_object_in_use_protection::StorageObjectInUseProtection,
    &persistent_volume_claim_resize::PersistentVolumeClaimResize,
    &runtime_class::RuntimeClass,
    &default_ingress_class::DefaultIngressClass,
    &leader_worker_set::LeaderWorkerSet,
    &MutatingAdmissionWebhook,
    &ValidatingAdmissionWebhook,
    &ResourceQuota,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// `AllOrderedPlugins` in `pkg/kubeapiserver/options/plugins.go`, as far as they are here.
    const UPSTREAM: [&str; 14] = [
        "NamespaceLifecycle",
        "LimitRanger",
        "ServiceAccount",
        "NodeRestriction",
        "Priority",
        "DefaultTolerationSeconds",
        "DefaultStorageClass",
        "StorageObjectInUseProtection",
        "PersistentVolumeClaimResize",
        "RuntimeClass",
        "DefaultIngressClass",
        "MutatingAdmissionWebhook",
        "ValidatingAdmissionWebhook",
        "ResourceQuota",
    ];

    #[test]
    fn plugins_are_in_upstreams_order() {
        let names = PLUGINS.iter().map(|plugin| plugin.name()).filter(|name| *name != "LeaderWorkerSet");
        assert_eq!(names.collect::<Vec<_>>(), UPSTREAM);
    }
}
