//! ServiceAccount: a pod's account exists, and gives it pull secrets and a token where containers look for it
//! (`plugin/pkg/admission/serviceaccount/admission.go`).

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector, Pod, PodSpec,
    ProjectedVolumeSource, ServiceAccount as Account, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};
use machinery::names;
use machinery::status::ApiError;
use registry::admission::{AdmissionPlugin, Attributes, PODS, object_of, object_of_mut};
use registry::object::Object;
use store::Key;

use crate::common::{default_text, entry, list, text};

/// The account of a pod that names none.
const DEFAULT: &str = "default";
/// The resource part of keys.
const ACCOUNTS: &str = "core/serviceaccounts";
/// What the name of a volume with a token begins with.
const VOLUME: &str = "kube-api-access-";
/// Where client libraries look for token, certificate and namespace.
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour, and seven seconds by which upstream recognises the tokens that nobody asked for.
const SECONDS: i64 = 3607;

/// Marks a pod that mirrors a file on the node: it is nobody's business but the kubelet's.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// How long a pod waits for the account `default`, which a controller makes a moment after the namespace. Upstream looks ten
/// times, for a second or two, before it refuses.
const ACCOUNT_TIMEOUT: Duration = Duration::from_secs(2);

/// The plugin.
pub(super) struct ServiceAccount;

#[async_trait]
impl AdmissionPlugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.creates(PODS)
    }

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut Box<dyn Object>>,
        _warnings: &mut Vec<String>,
    ) -> Result<bool, ApiError> {
        let pod: &mut Pod = object_of_mut(object)?;
        if entry(&pod.metadata.annotations, MIRROR).is_some() {
            return Ok(false);
        }
        let spec = pod.spec.get_or_insert_default();
        default_text(&mut spec.service_account_name, DEFAULT);
        spec.service_account.clone_from(&spec.service_account_name);
        if text(&spec.service_account_name) == DEFAULT {
            await_default(attributes).await;
        }
        // One that is not there is refused later, with all else that is wrong.
        let name = text(&spec.service_account_name);
        if let Some(account) = attributes.stored::<Account>(ACCOUNTS, attributes.namespace, name)? {
            take(spec, account);
        }
        Ok(true)
    }

    /// Refuses a pod whose account does not exist.
    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let pod: &Pod = object_of(object)?;
        let account = pod.spec.as_ref().map_or("", |spec| text(&spec.service_account_name));
        let namespace = attributes.namespace;
        let key = Key::new(ACCOUNTS, namespace, account);
        if account.is_empty() || attributes.registry.store().get(&key).is_some() {
            return Ok(());
        }
        let why =
            format!("error looking up service account {namespace}/{account}: serviceaccount \"{account}\" not found");
        Err(attributes.forbidden(pod, why))
    }
}

/// Waits until the account `default` is there; not for ever.
async fn await_default(attributes: &Attributes<'_>) {
    let store = attributes.registry.store();
    let key = Key::new(ACCOUNTS, attributes.namespace, DEFAULT);
    if store.get(&key).is_some() {
        return;
    }
    let Ok(mut watcher) = store.watch(ACCOUNTS, store.revision()) else { return };
    let comes = async { while store.get(&key).is_none() && watcher.next().await.is_ok() {} };
    // Without it, the second half says what is missing.
    let _ = tokio::time::timeout(ACCOUNT_TIMEOUT, comes).await;
}

/// Gives a new pod what comes from its account.
fn take(spec: &mut PodSpec, account: Account) {
    // What the pod says goes before what its account says.
    let automount = spec.automount_service_account_token.or(account.automount_service_account_token);
    if automount != Some(false) {
        mount_token(spec);
    }
    if list(&spec.image_pull_secrets).is_empty() && !list(&account.image_pull_secrets).is_empty() {
        spec.image_pull_secrets = account.image_pull_secrets;
    }
}

/// Mounts a token in every container that has nothing else at its place.
fn mount_token(spec: &mut PodSpec) {
    let volumes = list(&spec.volumes);
    let present = volumes.iter().find(|volume| volume.name.starts_with(VOLUME)).map(|volume| volume.name.clone());
    let name = present.clone().unwrap_or_else(|| names::generate_name(VOLUME));
    let mut mounted = false;
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        if list(&container.volume_mounts).iter().any(|mount| mount.mount_path == MOUNT) {
            continue;
        }
        container.volume_mounts.get_or_insert_default().push(VolumeMount {
            name: name.clone(),
            mount_path: MOUNT.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
        mounted = true;
    }
    if mounted && present.is_none() {
        spec.volumes.get_or_insert_default().push(volume(name));
    }
}

/// The volume with token, certificate and namespace.
fn volume(name: String) -> Volume {
    let item = |name: &str| KeyToPath { key: name.to_owned(), path: name.to_owned(), mode: None };
    let token = ServiceAccountTokenProjection {
        path: "token".to_owned(),
        expiration_seconds: Some(SECONDS),
        ..ServiceAccountTokenProjection::default()
    };
    let certificate = ConfigMapProjection {
        name: "kube-root-ca.crt".to_owned(),
        items: Some(vec![item("ca.crt")]),
        ..ConfigMapProjection::default()
    };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".to_owned(),
        field_ref: Some(ObjectFieldSelector {
            api_version: Some("v1".to_owned()),
            field_path: "metadata.namespace".to_owned(),
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(certificate), ..VolumeProjection::default() },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
            ..VolumeProjection::default()
        },
    ];
    Volume {
        name,
        projected: Some(ProjectedVolumeSource { default_mode: Some(0o644), sources: Some(sources) }),
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn every_container_gets_the_token_once() {
        let check = |spec: Value, mounts: &[(&str, &str)], volumes: usize| {
            let mut spec: PodSpec = serde_json::from_value(spec).unwrap();
            mount_token(&mut spec);
            let name =
                spec.volumes.iter().flatten().map(|volume| volume.name.clone()).find(|name| name.starts_with(VOLUME));
            let all = spec.init_containers.iter().flatten().chain(&spec.containers);
            let found: Vec<(String, String)> = all
                .flat_map(|container| {
                    let mounts = list(&container.volume_mounts).iter();
                    let mounts = mounts.filter(|mount| Some(&mount.name) == name.as_ref());
                    mounts.map(|mount| (container.name.clone(), mount.mount_path.clone()))
                })
                .collect();
            let expect: Vec<(String, String)> =
                mounts.iter().map(|(name, path)| ((*name).to_owned(), (*path).to_owned())).collect();
            assert_eq!(found, expect);
            assert_eq!(list(&spec.volumes).len(), volumes);
        };
        check(
            json!({ "initContainers": [{ "name": "i" }], "containers": [{ "name": "c" }] }),
            &[("i", MOUNT), ("c", MOUNT)],
            1,
        );
        let own = json!([{ "name": "own", "mountPath": MOUNT }]);
        check(json!({ "containers": [{ "name": "c", "volumeMounts": own }] }), &[], 0);
        let present = json!([{ "name": "kube-api-access-x2x4z", "emptyDir": {} }]);
        check(json!({ "volumes": present, "containers": [{ "name": "c" }] }), &[("c", MOUNT)], 1);
    }
}
