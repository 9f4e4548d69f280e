//! Namespaces.

use k8s_openapi::api::core::v1::Namespace;

use crate::meta;

/// Whether things may be created in `namespace`.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    !meta::is_deleting(namespace) && phase != Some("Terminating")
}
