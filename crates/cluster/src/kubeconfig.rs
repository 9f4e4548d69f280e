//! The administrator's kubeconfig.

use apiserver::pki::{Pki, PkiError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::Profile;

/// Name of the extension by which the entries of a kubeconfig tell the cluster that they are of: `{folder: PATH}`, the
/// folder of its state. Programs that do not know an extension keep it (client-go: `tools/clientcmd/api/v1/types.go`).
pub const EXTENSION: &str = "coracle.dev";

/// A kubeconfig whose cluster, user and context are all called as the profile, for the server on loopback at `port`.
pub(crate) fn administrator(pki: &Pki, profile: &Profile, port: u16) -> Result<String, PkiError> {
    let name = profile.name();
    let extensions =
        json!([{ "name": EXTENSION, "extension": { "folder": profile.canonical_folder().to_string_lossy() } }]);
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
            "extensions": extensions,
        } }],
        "users": [{ "name": name, "user": {
            "client-certificate-data": encode(&admin.certificate_pem),
            "client-key-data": encode(&admin.key_pem),
            "extensions": extensions,
        } }],
        "contexts": [{ "name": name, "context": {
            "cluster": name, "user": name, "namespace": "default", "extensions": extensions,
        } }],
    });
    // A tree of strings always has a YAML form.
    Ok(serde_saphyr::to_string(&config).unwrap_or_default())
}
