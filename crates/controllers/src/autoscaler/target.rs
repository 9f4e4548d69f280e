//! What an autoscaler scales: its resource by discovery, and its `scale` subresource. Custom resources too.

use std::collections::HashMap;
use std::fmt;

use informer::{ObjectKey, ObjectVersion, Write, record_write};
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use kube::Client;
use machinery::gvk::GroupVersion;
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;

use crate::client;

/// The number of replicas of a target.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scale {
    /// Replicas that are asked for.
    pub(super) desired: i32,
    /// Replicas that there are.
    pub(super) current: i32,
    /// Selector of its pods in string form.
    pub(super) selector: String,
    /// Where it is.
    path: String,
    /// As it was read.
    object: Value,
}

#[cfg(test)]
impl Scale {
    pub(super) fn new(desired: i32, current: i32, selector: &str) -> Self {
        let (path, object) = (String::new(), Value::Null);
        Self { desired, current, selector: selector.to_owned(), path, object }
    }
}

/// A kind's place in paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) plural: String,
    pub(super) namespaced: bool,
}

impl Mapping {
    fn path(&self, namespace: &str, name: &str) -> String {
        let root = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        let place = if self.namespaced { format!("namespaces/{namespace}/") } else { String::new() };
        format!("{root}/{place}{}/{name}", self.plural)
    }
}

impl fmt::Display for Mapping {
    /// `deployments.apps`, `services`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group.as_str() {
            "" => f.write_str(&self.plural),
            group => write!(f, "{}.{group}", self.plural),
        }
    }
}

/// Finds targets.
pub(super) struct Targets {
    client: Client,
    /// By apiVersion and kind. A wrong one is forgotten when it is used in vain.
    known: Mutex<HashMap<(String, String), Mapping>>,
}

impl Targets {
    pub(super) fn new(client: Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    /// The scale of a target, or why there is none in upstream's words.
    pub(super) async fn scale(&self, namespace: &str, target: &CrossVersionObjectReference) -> Result<Scale, String> {
        let mapping = self.mapping(target).await?;
        let path = format!("{}/scale", mapping.path(namespace, &target.name));
        match get(&self.client, &path).await {
            Ok(object) => Ok(read(path, object)),
            Err(error) => {
                self.known().remove(&key(target));
                Err(error)
            }
        }
    }

    /// Sets the number of replicas, unless somebody else changed the target since its scale was read.
    pub(super) async fn set(
        &self,
        (namespace, target): (&str, &CrossVersionObjectReference),
        scale: &Scale,
        replicas: i32,
    ) -> Result<(), String> {
        let mut object = scale.object.clone();
        object["spec"]["replicas"] = replicas.into();
        let request = http(&scale.path, "PUT", serde_json::to_vec(&object).unwrap_or_default())?;
        let answer = self.client.request::<Value>(request).await;
        record_write(|| {
            let key = ObjectKey::new(namespace, target.name.as_str());
            let object = ObjectVersion { kind: target.kind.as_str().into(), key, revision: None };
            Write { verb: "update", object, subresource: "scale", refused: answer.as_ref().err().map(client::code) }
        });
        answer.map(drop).map_err(|error| words(&error))
    }

    /// The resource of a kind: in the version that is named, else in any that its group has.
    pub(super) async fn mapping(&self, target: &CrossVersionObjectReference) -> Result<Mapping, String> {
        if let Some(known) = self.known().get(&key(target)) {
            return Ok(known.clone());
        }
        let api_version = target.api_version.as_deref().unwrap_or_default();
        let GroupVersion { group, version } = GroupVersion::parse(api_version).map_err(|error| error.to_string())?;
        let (group, version) = (group.as_ref(), version.as_ref());
        let mut versions = vec![if version.is_empty() { "v1".to_owned() } else { version.to_owned() }];
        if !group.is_empty()
            && let Ok(found) = get(&self.client, &format!("/apis/{group}")).await
        {
            let found = found["versions"].as_array().into_iter().flatten();
            let found = found.filter_map(|version| version["version"].as_str().map(str::to_owned));
            versions.extend(found.filter(|found| found != version).collect::<Vec<_>>());
        }
        for version in versions {
            let path = match group {
                "" => format!("/api/{version}"),
                group => format!("/apis/{group}/{version}"),
            };
            let Ok(listed) = get(&self.client, &path).await else { continue };
            if let Some(mapping) = find(&listed, group, &version, &target.kind) {
                self.known().insert(key(target), mapping.clone());
                return Ok(mapping);
            }
        }
        Err(format!("no matches for kind {:?} in group {group:?}", target.kind))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<(String, String), Mapping>> {
        self.known.lock()
    }
}

fn key(target: &CrossVersionObjectReference) -> (String, String) {
    (target.api_version.clone().unwrap_or_default(), target.kind.clone())
}

/// The resource of a kind in the list of a version's resources; not one of its subresources.
fn find(listed: &Value, group: &str, version: &str, kind: &str) -> Option<Mapping> {
    let resources = listed["resources"].as_array()?;
    let is_it = |resource: &&Value| {
        resource["kind"] == kind && resource["name"].as_str().is_some_and(|name| !name.contains('/'))
    };
    let resource = resources.iter().find(is_it)?;
    Some(Mapping {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: resource["name"].as_str()?.to_owned(),
        namespaced: resource["namespaced"].as_bool().unwrap_or_default(),
    })
}

fn read(path: String, object: Value) -> Scale {
    let number = |part: &str| object[part]["replicas"].as_i64().and_then(|count| i32::try_from(count).ok());
    Scale {
        desired: number("spec").unwrap_or_default(),
        current: number("status").unwrap_or_default(),
        selector: object["status"]["selector"].as_str().unwrap_or_default().to_owned(),
        path,
        object,
    }
}

/// Reads JSON from the API; the error is what the API said.
pub(super) async fn get(client: &Client, path: &str) -> Result<Value, String> {
    client.request::<Value>(http(path, "GET", Vec::new())?).await.map_err(|error| words(&error))
}

fn http(path: &str, method: &str, body: Vec<u8>) -> Result<http::Request<Vec<u8>>, String> {
    let request = http::Request::builder().method(method).uri(path).header("content-type", "application/json");
    request.body(body).map_err(|error| error.to_string())
}

fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}
