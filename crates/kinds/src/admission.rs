//! The chain of admission, and its plugins that know a kind; those that know none are in [`registry::admission`].
//!
//! [`PLUGINS`] is in upstream's order (`pkg/kubeapiserver/options/plugins.go`); a further one is a file and a row. Those of
//! addons are put among them by [`plugins`].

mod certificate_approval;
mod certificate_signing;
mod certificate_subject_restriction;
mod default_ingress_class;
pub(crate) mod default_storage_class;
mod default_toleration_seconds;
mod deny_service_external_ips;
mod limit_ranger;
mod node_restriction;
mod owner_references_permission_enforcement;
mod persistent_volume_claim_resize;
mod pod_security;
mod priority;
mod runtime_class;
mod service_account;
mod storage_object_in_use_protection;

use pod_security::PodSecurity;
use registry::admission::{
    AdmissionPlugin, MutatingAdmissionPolicy, MutatingAdmissionWebhook, NamespaceLifecycle, ResourceQuota,
    ValidatingAdmissionPolicy, ValidatingAdmissionWebhook,
};

pub use pod_security::PodSecurityConfiguration;

/// The plugins, in upstream's order.
pub static PLUGINS: [&dyn AdmissionPlugin; 22] = [
    &NamespaceLifecycle,
    &limit_ranger::LimitRanger,
    &service_account::ServiceAccount,
    &node_restriction::NodeRestriction,
    &pod_security::DEFAULT,
    &priority::Priority,
    &default_toleration_seconds::DefaultTolerationSeconds,
    &default_storage_class::DefaultStorageClass,
    &storage_object_in_use_protection::StorageObjectInUseProtection,
    &owner_references_permission_enforcement::OwnerReferencesPermissionEnforcement,
    &persistent_volume_claim_resize::PersistentVolumeClaimResize,
    &runtime_class::RuntimeClass,
    &certificate_approval::CertificateApproval,
    &certificate_signing::CertificateSigning,
    &certificate_subject_restriction::CertificateSubjectRestriction,
    &default_ingress_class::DefaultIngressClass,
    &deny_service_external_ips::DenyServiceExternalIPs,
    &MutatingAdmissionPolicy,
    &MutatingAdmissionWebhook,
    &ValidatingAdmissionPolicy,
    &ValidatingAdmissionWebhook,
    &ResourceQuota,
];

/// What can be chosen about the plugins.
#[derive(Debug, Default)]
pub struct AdmissionConfig {
    /// The names of those that are turned off, as upstream's `--disable-admission-plugins` has them.
    pub disabled: Vec<String>,
    /// The configuration of PodSecurity, where there is one.
    pub pod_security: Option<PodSecurityConfiguration>,
}

/// The chain as a configuration leaves it: the plugins in upstream's order, and those of `addons` where the webhooks of their
/// projects would be called.
#[must_use]
pub fn plugins(addons: &[&'static dyn AdmissionPlugin], config: AdmissionConfig) -> Vec<&'static dyn AdmissionPlugin> {
    let AdmissionConfig { disabled, pod_security } = config;
    let webhooks = PLUGINS.iter().position(|plugin| plugin.name() == MutatingAdmissionWebhook.name());
    let (before, after) = PLUGINS.split_at(webhooks.unwrap_or(PLUGINS.len()));
    let mut plugins = [before, addons, after].concat();
    plugins.retain(|plugin| !disabled.iter().any(|name| name == plugin.name()));
    // A plugin lives as long as the program, a configured one as well.
    let configured = pod_security.map(|configuration| &*Box::leak(Box::new(PodSecurity::new(configuration))));
    if let Some(configured) = configured {
        let places = plugins.iter_mut().filter(|plugin| plugin.name() == configured.name());
        places.for_each(|place| *place = configured);
    }
    plugins
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `AllOrderedPlugins` in `pkg/kubeapiserver/options/plugins.go`, as far as they are here.
    const UPSTREAM: [&str; 22] = [
        "NamespaceLifecycle",
        "LimitRanger",
        "ServiceAccount",
        "NodeRestriction",
        "PodSecurity",
        "Priority",
        "DefaultTolerationSeconds",
        "DefaultStorageClass",
        "StorageObjectInUseProtection",
        "OwnerReferencesPermissionEnforcement",
        "PersistentVolumeClaimResize",
        "RuntimeClass",
        "CertificateApproval",
        "CertificateSigning",
        "CertificateSubjectRestriction",
        "DefaultIngressClass",
        "DenyServiceExternalIPs",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionWebhook",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionWebhook",
        "ResourceQuota",
    ];

    #[test]
    fn plugins_are_in_upstreams_order() {
        let names =
            |addons| plugins(addons, AdmissionConfig::default()).iter().map(|plugin| plugin.name()).collect::<Vec<_>>();
        assert_eq!(names(&[]), UPSTREAM);
        let webhooks = names(&[]).iter().position(|name| *name == "MutatingAdmissionWebhook").expect("webhooks");
        let with_one = names(&[&NamespaceLifecycle]);
        assert_eq!(with_one[webhooks..=webhooks + 1], ["NamespaceLifecycle", "MutatingAdmissionWebhook"]);
    }

    #[test]
    fn plugins_can_be_turned_off_by_name() {
        let names = |disabled: &[&str]| {
            let disabled: Vec<String> = disabled.iter().map(|name| (*name).to_owned()).collect();
            let config = AdmissionConfig { disabled, ..AdmissionConfig::default() };
            plugins(&[], config).iter().map(|plugin| plugin.name()).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]).len(), PLUGINS.len());
        let left = names(&["DenyServiceExternalIPs", "PodSecurity"]);
        assert_eq!(left.len(), PLUGINS.len() - 2);
        assert!(!left.contains(&"DenyServiceExternalIPs") && !left.contains(&"PodSecurity"), "{left:?}");
    }
}
