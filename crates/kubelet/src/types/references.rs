//! What a pod refers to, as it was read from the API.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, Secret};

/// The ConfigMaps and Secrets a pod refers to, as far as they exist, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct References {
    /// ConfigMaps.
    pub(crate) config_maps: HashMap<String, Arc<ConfigMap>>,
    /// Secrets.
    pub(crate) secrets: HashMap<String, Arc<Secret>>,
    /// Service account tokens by audience, or why there is none.
    pub(crate) tokens: HashMap<String, Result<String, String>>,
    /// The volumes behind claims, or why there is none, by the claim.
    pub(crate) claims: HashMap<String, Result<Arc<PersistentVolume>, String>>,
}
