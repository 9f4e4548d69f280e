//! The configuration of the plugin: what is asked of namespaces without labels, and who is exempt
//! (`staging/src/k8s.io/pod-security-admission/admission/api/v1/types.go`).

use std::collections::BTreeMap;

use machinery::field::Path;
use serde::Deserialize;
use serde_json::Value;

use super::policy::Policy;

const API_VERSION: &str = "pod-security.admission.config.k8s.io/v1";
const KIND: &str = "PodSecurityConfiguration";

/// A PodSecurityConfiguration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSecurityConfiguration {
    /// The policy of a namespace, as far as its labels say nothing.
    pub(super) defaults: Policy,
    pub(super) exemptions: Exemptions,
}

/// Whom and what the standards do not apply to. Upstream exempts classes of runtimes too, whose pods are confined otherwise;
/// here all pods run in the same one (`docs/pods.md`), so that such an exemption is refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Exemptions {
    /// Users who may write any pod.
    pub(super) usernames: Vec<String>,
    runtime_classes: Vec<String>,
    pub(super) namespaces: Vec<String>,
}

impl Exemptions {
    const NONE: Self = Self { usernames: Vec::new(), runtime_classes: Vec::new(), namespaces: Vec::new() };

    /// What exempts whatever a user does in a namespace, if anything does.
    pub(super) fn covering(&self, user: &str, namespace: &str) -> Option<&'static str> {
        let has = |names: &[String], name: &str| names.iter().any(|exempt| exempt == name);
        if has(&self.usernames, user) {
            Some("user")
        } else if has(&self.namespaces, namespace) {
            Some("namespace")
        } else {
            None
        }
    }
}

impl Default for Exemptions {
    fn default() -> Self {
        Self::NONE
    }
}

/// A configuration as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    api_version: String,
    kind: String,
    #[serde(default)]
    defaults: BTreeMap<String, String>,
    #[serde(default)]
    exemptions: Exemptions,
}

impl PodSecurityConfiguration {
    /// Everything is allowed that no label forbids, and nobody is exempt.
    pub(super) const DEFAULT: Self = Self { defaults: Policy::PRIVILEGED, exemptions: Exemptions::NONE };

    /// Reads a configuration.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(value: &Value) -> Result<Self, String> {
        let Written { api_version, kind, defaults, exemptions } =
            Written::deserialize(value).map_err(|error| error.to_string())?;
        if (api_version.as_str(), kind.as_str()) != (API_VERSION, KIND) {
            return Err(format!("it is a {kind} of {api_version}, not a {KIND} of {API_VERSION}"));
        }
        if !exemptions.runtime_classes.is_empty() {
            let why = "all pods run in the same runtime here, which confines none of them further";
            return Err(format!("`exemptions.runtimeClasses` has to be empty: {why}"));
        }
        if let Some(unknown) = defaults.keys().find(|key| !Policy::KEYS.contains(&key.as_str())) {
            return Err(format!("unknown field `defaults.{unknown}`"));
        }
        let path = Path::new("defaults");
        let value = |key: &str| defaults.get(key).map(String::as_str);
        let (defaults, errors) =
            Policy::read(Policy::PRIVILEGED, |key| value(Policy::KEYS[key]), |key| path.child(Policy::KEYS[key]));
        if errors.is_empty() { Ok(Self { defaults, exemptions }) } else { Err(errors.to_string()) }
    }
}

impl Default for PodSecurityConfiguration {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::pod_security::policy::{Level, LevelVersion, Version};

    #[test]
    fn upstreams_configuration_can_be_read() {
        let read = |content: Value| {
            let mut value = json!({ "apiVersion": API_VERSION, "kind": KIND });
            value.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
            PodSecurityConfiguration::read(&value)
        };
        assert_eq!(read(json!({})), Ok(PodSecurityConfiguration::DEFAULT));
        let configuration = read(json!({
            "defaults": { "enforce": "baseline", "enforce-version": "v1.36", "audit": "restricted", "warn": "restricted" },
            "exemptions": { "usernames": ["ann"], "runtimeClasses": [], "namespaces": ["kube-system"] },
        }));
        let enforce = LevelVersion { level: Level::Baseline, version: Version::Minor(36) };
        let warn = LevelVersion { level: Level::Restricted, version: Version::Latest };
        let audit = warn;
        let exemptions = Exemptions {
            usernames: vec!["ann".to_owned()],
            runtime_classes: Vec::new(),
            namespaces: vec!["kube-system".to_owned()],
        };
        assert_eq!(
            configuration,
            Ok(PodSecurityConfiguration { defaults: Policy { enforce, audit, warn }, exemptions })
        );
        for (content, expect) in [
            (
                json!({ "defaults": { "enforce": "strict" } }),
                "defaults.enforce: Invalid value: \"strict\": must be one of privileged, baseline, restricted",
            ),
            (
                json!({ "exemptions": { "runtimeClasses": ["kata"] } }),
                "`exemptions.runtimeClasses` has to be empty: all pods run in the same runtime here, which confines none of them further",
            ),
            (json!({ "defaults": { "enforced": "baseline" } }), "unknown field `defaults.enforced`"),
            (
                json!({ "kind": "Other" }),
                "it is a Other of pod-security.admission.config.k8s.io/v1, not a PodSecurityConfiguration of \
                 pod-security.admission.config.k8s.io/v1",
            ),
        ] {
            assert_eq!(read(content), Err(expect.to_owned()));
        }
        assert!(read(json!({ "exemptions": { "users": [] } })).unwrap_err().contains("unknown field `users`"));
    }
}
