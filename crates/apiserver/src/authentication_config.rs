//! What aggregated API servers have to know in order to believe who asks: the ConfigMap
//! `kube-system/extension-apiserver-authentication`, which they read by the Role `extension-apiserver-authentication-reader`.
//!
//! Upstream: `pkg/controlplane/controller/clusterauthenticationtrust/cluster_authentication_trust_controller.go`.

use machinery::status::ApiError;
use registry::Target;
use serde_json::{Value, json};

use crate::authn::request_header;
use crate::pki::{FRONT_PROXY_CLIENT, Pki};
use crate::server::ApiServer;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

impl ApiServer {
    /// Says in the API whose client certificates this server believes, and how a front proxy says whom it asks for.
    ///
    /// # Errors
    /// When the object cannot be written.
    pub async fn publish_authentication(&self, pki: &Pki) -> Result<(), ApiError> {
        let registry = &self.0.registry;
        let resources = registry.resources();
        let resource = resources.get("", "v1", "configmaps").ok_or_else(ApiError::no_such_resource)?;
        let target = Target::object(resource, NAMESPACE, NAME);
        let data = data(pki);
        let stored = registry.get(&target, "").await.ok();
        let stored: Value = stored.and_then(|entry| serde_json::from_slice(&entry.value).ok()).unwrap_or_default();
        if stored["data"] == data {
            return Ok(());
        }
        registry.upsert(&target, json!({ "data": data })).await.map(drop)
    }
}

fn data(pki: &Pki) -> Value {
    // Lists are JSON within the text.
    let list = |name: &str| json!([name]).to_string();
    json!({
        "client-ca-file": pki.authority_pem(),
        "requestheader-allowed-names": list(FRONT_PROXY_CLIENT),
        "requestheader-client-ca-file": pki.front_proxy_authority_pem(),
        "requestheader-extra-headers-prefix": list(request_header::EXTRA_PREFIX),
        "requestheader-group-headers": list(request_header::GROUP),
        "requestheader-uid-headers": list(request_header::UID),
        "requestheader-username-headers": list(request_header::USERNAME),
    })
}
