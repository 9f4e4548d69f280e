//! The administrator's kubeconfig.

use apiserver::pki::{Pki, PkiError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// A kubeconfig whose cluster, user and context are all called `name`, for the server on loopback at `port`.
pub(crate) fn administrator(pki: &Pki, name: &str, port: u16) -> Result<String, PkiError> {
    let admin = pki.admin()?;
    let encode = |pem: &str| STANDARD.encode(pem);
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "preferences": {},
        "clusters": [{ "name": name, "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority-data": encode(pki.authority_pem()),
        } }],
        "users": [{ "name": name, "user": {
            "client-certificate-data": encode(&admin.certificate_pem),
            "client-key-data": encode(&admin.key_pem),
        } }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name, "namespace": "default" } }],
    });
    // A tree of strings always has a YAML form.
    Ok(serde_saphyr::to_string(&config).unwrap_or_default())
}
