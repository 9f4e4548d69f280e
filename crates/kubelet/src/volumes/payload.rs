//! The files of ConfigMap, Secret, downward API and projected volumes. Pure.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret, Volume, VolumeProjection,
};

use crate::types::References;
use crate::values::fields;
use crate::values::resources::{self, Allocatable};

/// Permissions of files unless the volume says otherwise.
const DEFAULT_MODE: u32 = 0o644;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// What is in it.
    pub(crate) content: Vec<u8>,
    /// Its permissions.
    pub(crate) mode: u32,
    /// Whose it is, if not the kubelet's.
    pub(crate) owner: Option<u32>,
}

/// Files by their relative path.
pub(crate) type Payload = BTreeMap<String, File>;

/// What the files are made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'a> {
    /// The pod.
    pub(crate) pod: &'a Pod,
    /// What it refers to.
    pub(crate) references: &'a References,
    /// What the node can give.
    pub(crate) allocatable: Allocatable,
    /// Whether files can be given to others.
    pub(crate) privileged: bool,
}

/// The files of `volume`; `None` if it is not a volume of files.
pub(crate) fn payload(sources: Sources<'_>, volume: &Volume) -> Option<Result<Payload, String>> {
    if let Some(source) = &volume.config_map {
        let mode = mode(source.default_mode);
        let optional = source.optional == Some(true);
        return Some(config_map(sources, &source.name, source.items.as_deref(), mode, optional));
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let mode = mode(source.default_mode);
        let optional = source.optional == Some(true);
        return Some(secret(sources, name, source.items.as_deref(), mode, optional));
    }
    if let Some(source) = &volume.downward_api {
        let mode = mode(source.default_mode);
        return Some(downward(sources, source.items.as_deref().unwrap_or_default(), mode));
    }
    volume.projected.as_ref().map(|source| projected(sources, source))
}

fn projected(sources: Sources<'_>, source: &ProjectedVolumeSource) -> Result<Payload, String> {
    let default = mode(source.default_mode);
    let mut all = Payload::new();
    for projection in source.sources.iter().flatten() {
        unknown(projection)?;
        if let Some(source) = &projection.config_map {
            let optional = source.optional == Some(true);
            let items = source.items.as_deref();
            all.extend(config_map(sources, &source.name, items, default, optional)?);
        }
        if let Some(source) = &projection.secret {
            let optional = source.optional == Some(true);
            let items = source.items.as_deref();
            all.extend(secret(sources, &source.name, items, default, optional)?);
        }
        if let Some(source) = &projection.downward_api {
            let items = source.items.as_deref().unwrap_or_default();
            all.extend(downward(sources, items, default)?);
        }
        if let Some(source) = &projection.service_account_token {
            let audience = source.audience.clone().unwrap_or_default();
            let token = sources.references.tokens.get(&audience);
            let token = token.ok_or("failed to fetch token")?.as_ref();
            let token = token.map_err(|error| format!("failed to fetch token: {error}"))?;
            let file = File { content: token.clone().into_bytes(), ..token_file(sources, default) };
            all.insert(checked(&source.path)?, file);
        }
    }
    Ok(all)
}

/// Sources of which there are none here: a volume without its certificates is none.
fn unknown(projection: &VolumeProjection) -> Result<(), String> {
    if let Some(bundle) = &projection.cluster_trust_bundle
        && bundle.optional != Some(true)
    {
        let name = bundle.name.as_deref().or(bundle.signer_name.as_deref()).unwrap_or_default();
        return Err(format!("clustertrustbundle \"{name}\" not found: this cluster has no ClusterTrustBundles"));
    }
    if projection.pod_certificate.is_some() {
        return Err("podCertificate: this cluster has no PodCertificateRequests".to_owned());
    }
    Ok(())
}

/// Whom a token is for: the one user of all containers, where there is one, and the pod's group (upstream: `collectData` in
/// `pkg/volume/projected/projected.go`, `FsUserFrom` in `pkg/volume/util/util.go`). Nobody else may read it then.
fn token_file(sources: Sources<'_>, default: u32) -> File {
    let owner = file_user(sources.pod);
    let context = sources.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let has_group = context.is_some_and(|context| context.fs_group.is_some());
    match sources.privileged && (owner.is_some() || has_group) {
        true => File { content: Vec::new(), mode: 0o600, owner },
        false => File { content: Vec::new(), mode: default, owner: None },
    }
}

fn file_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut users =
        containers.map(|own| own.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}

fn config_map(
    sources: Sources<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: u32,
    optional: bool,
) -> Result<Payload, String> {
    let Some(object) = sources.references.config_maps.get(name) else {
        return match optional {
            true => Ok(Payload::new()),
            false => Err(format!("configmap \"{name}\" not found")),
        };
    };
    let ConfigMap { data, binary_data, .. } = object.as_ref();
    let text = data.iter().flatten();
    let text = text.map(|(key, value)| (key.as_str(), value.as_bytes()));
    let binary = binary_data.iter().flatten();
    let binary = binary.map(|(key, value)| (key.as_str(), value.0.as_slice()));
    select(text.chain(binary).collect(), items, mode, optional, |key| {
        format!("configmap references non-existent config key: {key}")
    })
}

fn secret(
    sources: Sources<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: u32,
    optional: bool,
) -> Result<Payload, String> {
    let Some(object) = sources.references.secrets.get(name) else {
        return match optional {
            true => Ok(Payload::new()),
            false => Err(format!("secret \"{name}\" not found")),
        };
    };
    let Secret { data, .. } = object.as_ref();
    let data = data.iter().flatten();
    let data = data.map(|(key, value)| (key.as_str(), value.0.as_slice()));
    select(data.collect(), items, mode, optional, |key| format!("references non-existent secret key: {key}"))
}

/// All keys, or those that `items` names.
fn select(
    data: BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    mode: u32,
    optional: bool,
    missing: impl Fn(&str) -> String,
) -> Result<Payload, String> {
    let file = |content: &[u8], mode| File { content: content.to_vec(), mode, owner: None };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.into_iter().map(|(key, content)| (key.to_owned(), file(content, mode))).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(content) => {
                let mode = item.mode.map_or(mode, permissions);
                payload.insert(checked(&item.path)?, file(content, mode));
            }
            None if optional => {}
            None => return Err(missing(&item.key)),
        }
    }
    Ok(payload)
}

fn downward(sources: Sources<'_>, items: &[DownwardAPIVolumeFile], mode: u32) -> Result<Payload, String> {
    let mut payload = Payload::new();
    for item in items {
        let content = if let Some(field) = &item.field_ref {
            fields::metadata(sources.pod, &field.field_path)?
        } else if let (Some(field), Some(spec)) = (&item.resource_field_ref, &sources.pod.spec) {
            resources::field(spec, None, field, sources.allocatable)?
        } else {
            continue;
        };
        let mode = item.mode.map_or(mode, permissions);
        let file = File { content: content.into_bytes(), mode, owner: None };
        payload.insert(checked(&item.path)?, file);
    }
    Ok(payload)
}

/// A path that stays within its volume. The API refuses others; this is the second lock.
fn checked(path: &str) -> Result<String, String> {
    let normal = |component: Component<'_>| match component {
        Component::Normal(name) => !name.as_encoded_bytes().starts_with(b".."),
        _ => false,
    };
    match !path.is_empty() && Path::new(path).components().all(normal) {
        true => Ok(path.to_owned()),
        false => Err(format!("invalid path, must stay within the volume: {path}")),
    }
}

fn mode(mode: Option<i32>) -> u32 {
    mode.map_or(DEFAULT_MODE, permissions)
}

fn permissions(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(DEFAULT_MODE) & 0o777
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn check(volume: Value, expect: Result<&[(&str, &str, u32)], &str>) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "labels": {"app": "a"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"memory": "64Mi"}}}]}}))
        .unwrap();
        let config_map = json!({"data": {"a": "1", "b": "2"}, "binaryData": {"bin": "AAE="}});
        let secret = json!({"data": {"key": "aHVzaA=="}});
        let references = References {
            config_maps: [("cm".to_owned(), Arc::new(serde_json::from_value(config_map).unwrap()))].into(),
            secrets: [("s".to_owned(), Arc::new(serde_json::from_value(secret).unwrap()))].into(),
            tokens: [("vault".to_owned(), Ok("jwt".to_owned()))].into(),
            ..References::default()
        };
        let sources = Sources {
            pod: &pod,
            references: &references,
            allocatable: Allocatable { milli_cpu: 1000, memory: 1 << 30, storage: 0 },
            privileged: true,
        };
        let mut volume = volume;
        volume["name"] = json!("v");
        let volume: Volume = serde_json::from_value(volume).unwrap();
        let expect = expect
            .map(|files| {
                let file = |(path, content, mode): &(&str, &str, u32)| {
                    let content = content.as_bytes().to_vec();
                    ((*path).to_owned(), File { content, mode: *mode, owner: None })
                };
                files.iter().map(file).collect::<Payload>()
            })
            .map_err(str::to_owned);
        assert_eq!(payload(sources, &volume), Some(expect));
    }

    #[test]
    fn config_maps() {
        check(
            json!({"configMap": {"name": "cm", "defaultMode": 0o400}}),
            Ok(&[("a", "1", 0o400), ("b", "2", 0o400), ("bin", "\0\u{1}", 0o400)]),
        );
        check(
            json!({"configMap": {"name": "cm", "items": [{"key": "a", "path": "x/y", "mode": 0o600}]}}),
            Ok(&[("x/y", "1", 0o600)]),
        );
        check(json!({"configMap": {"name": "no"}}), Err("configmap \"no\" not found"));
        check(json!({"configMap": {"name": "no", "optional": true}}), Ok(&[]));
        check(
            json!({"configMap": {"name": "cm", "items": [{"key": "no", "path": "x"}]}}),
            Err("configmap references non-existent config key: no"),
        );
        check(
            json!({"configMap": {"name": "cm", "items": [{"key": "a", "path": "../x"}]}}),
            Err("invalid path, must stay within the volume: ../x"),
        );
    }

    #[test]
    fn secrets() {
        check(json!({"secret": {"secretName": "s"}}), Ok(&[("key", "hush", 0o644)]));
        check(json!({"secret": {"secretName": "no"}}), Err("secret \"no\" not found"));
        check(
            json!({"secret": {"secretName": "s", "items": [{"key": "no", "path": "x"}]}}),
            Err("references non-existent secret key: no"),
        );
    }

    #[test]
    fn downward_api_and_projections() {
        check(
            json!({"downwardAPI": {"items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "memory", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}}]}}),
            Ok(&[("labels", "app=\"a\"", 0o644), ("memory", "64", 0o644)]),
        );
        check(
            json!({"projected": {"defaultMode": 0o440, "sources": [
                {"configMap": {"name": "cm", "items": [{"key": "a", "path": "a"}]}},
                {"secret": {"name": "s"}},
                {"serviceAccountToken": {"audience": "vault", "path": "token"}},
                {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}),
            Ok(&[("a", "1", 0o440), ("key", "hush", 0o440), ("name", "web", 0o440), ("token", "jwt", 0o440)]),
        );
    }

    #[test]
    fn certificates_that_nobody_makes_are_not_left_out_in_silence() {
        let bundle = |optional: bool| json!({"clusterTrustBundle": {"name": "b", "path": "p", "optional": optional}});
        let volume = |source: Value| json!({"projected": {"sources": [source]}});
        check(volume(bundle(true)), Ok(&[]));
        check(
            volume(bundle(false)),
            Err("clustertrustbundle \"b\" not found: this cluster has no ClusterTrustBundles"),
        );
        check(
            volume(json!({"podCertificate": {"keyType": "ED25519", "signerName": "s"}})),
            Err("podCertificate: this cluster has no PodCertificateRequests"),
        );
    }

    #[test]
    fn tokens_are_for_the_user_and_the_group_of_the_pod() {
        let references = References { tokens: [(String::new(), Ok("jwt".to_owned()))].into(), ..References::default() };
        let volume = json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}});
        let volume: Volume = serde_json::from_value(volume).unwrap();
        let check = |spec: Value, privileged, expect: (u32, Option<u32>)| {
            let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
            let allocatable = Allocatable { milli_cpu: 1000, memory: 1 << 30, storage: 0 };
            let sources = Sources { pod: &pod, references: &references, allocatable, privileged };
            let payload = payload(sources, &volume).unwrap().unwrap();
            assert_eq!((payload["token"].mode, payload["token"].owner), expect, "{pod:?}");
        };
        let container = |user: Value| json!({"name": "c", "securityContext": {"runAsUser": user}});
        let none = || container(Value::Null);
        check(json!({"containers": [none()]}), true, (0o644, None));
        let pod = json!({"runAsUser": 1000});
        check(json!({"containers": [none()], "securityContext": pod}), true, (0o600, Some(1000)));
        check(json!({"containers": [none(), container(json!(7))], "securityContext": pod}), true, (0o644, None));
        check(json!({"containers": [container(json!(7))], "initContainers": [none()]}), true, (0o644, None));
        check(json!({"containers": [none()], "securityContext": {"fsGroup": 2000}}), true, (0o600, None));
        // The container could not read it.
        check(json!({"containers": [none()], "securityContext": pod}), false, (0o644, None));
    }
}
