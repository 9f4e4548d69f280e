//! What a pod refers to by name: the objects its node must be able to read.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Pod};

/// The names of what a pod refers to, all in its own namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodReferences {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
    /// Secrets with credentials for registries; among `secrets`, too.
    pub pull_secrets: BTreeSet<String>,
    /// PersistentVolumeClaims, those of ephemeral volumes included.
    pub claims: BTreeSet<String>,
    /// Audiences of tokens (empty for the API server's own), with their life in seconds.
    pub tokens: Vec<(String, i64)>,
}

impl PodReferences {
    /// What `pod` refers to.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let mut names = Self::default();
        let Some(spec) = &pod.spec else { return names };
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            names.environment(container.env_from.as_deref(), container.env.as_deref());
        }
        for container in spec.ephemeral_containers.iter().flatten() {
            names.environment(container.env_from.as_deref(), container.env.as_deref());
        }
        for volume in spec.volumes.iter().flatten() {
            names.config_maps.extend(volume.config_map.as_ref().map(|source| source.name.clone()));
            names.secrets.extend(volume.secret.as_ref().and_then(|source| source.secret_name.clone()));
            names.claims.extend(volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone()));
            if volume.ephemeral.is_some() {
                let pod = pod.metadata.name.as_deref().unwrap_or_default();
                names.claims.insert(format!("{pod}-{}", volume.name));
            }
            for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
                names.config_maps.extend(source.config_map.as_ref().map(|source| source.name.clone()));
                names.secrets.extend(source.secret.as_ref().map(|source| source.name.clone()));
                names.tokens.extend(source.service_account_token.as_ref().map(|source| {
                    (source.audience.clone().unwrap_or_default(), source.expiration_seconds.unwrap_or(3600))
                }));
            }
        }
        names.pull_secrets.extend(spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()));
        names.secrets.extend(names.pull_secrets.iter().cloned());
        names
    }

    fn environment(&mut self, from: Option<&[EnvFromSource]>, variables: Option<&[EnvVar]>) {
        for source in from.into_iter().flatten() {
            self.config_maps.extend(source.config_map_ref.as_ref().map(|source| source.name.clone()));
            self.secrets.extend(source.secret_ref.as_ref().map(|source| source.name.clone()));
        }
        for source in variables.into_iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
            self.config_maps.extend(source.config_map_key_ref.as_ref().map(|source| source.name.clone()));
            self.secrets.extend(source.secret_key_ref.as_ref().map(|source| source.name.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn everything_that_is_named() {
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": {
            "imagePullSecrets": [{ "name": "pull" }],
            "containers": [{ "name": "c",
                "envFrom": [{ "configMapRef": { "name": "c1" } }, { "secretRef": { "name": "s1" } }],
                "env": [{ "name": "a", "valueFrom": { "configMapKeyRef": { "name": "c2", "key": "k" } } },
                    { "name": "b", "valueFrom": { "secretKeyRef": { "name": "s2", "key": "k" } } }] }],
            "volumes": [
                { "name": "v1", "configMap": { "name": "c3" } },
                { "name": "v2", "secret": { "secretName": "s3" } },
                { "name": "v3", "persistentVolumeClaim": { "claimName": "data" } },
                { "name": "v4", "ephemeral": {} },
                { "name": "v5", "projected": { "sources": [
                    { "configMap": { "name": "c4" } }, { "secret": { "name": "s4" } },
                    { "serviceAccountToken": { "path": "token", "expirationSeconds": 3607 } },
                    { "serviceAccountToken": { "path": "vault", "audience": "vault" } }] } }] } }))
        .unwrap();
        let names = PodReferences::of(&pod);
        let sorted = |set: &BTreeSet<String>| set.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        assert_eq!(sorted(&names.config_maps), "c1 c2 c3 c4");
        assert_eq!(sorted(&names.secrets), "pull s1 s2 s3 s4");
        assert_eq!(sorted(&names.pull_secrets), "pull");
        assert_eq!(sorted(&names.claims), "data p-v4");
        assert_eq!(names.tokens, [(String::new(), 3607), ("vault".to_owned(), 3600)]);
    }
}
