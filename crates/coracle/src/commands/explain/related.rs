//! Reads what an explanation is made from, with the rights of whoever asks.

use anyhow::Result;
use explain::{Need, Owner, Related, Scope};
use futures::stream::{self, StreamExt};
use http::Request;
use kube::Client;
use serde_json::Value;

use crate::commands::resources::{self, Resource};

/// So many lists are asked for at the same time.
const AT_ONCE: usize = 8;
/// So far a chain of owners is followed.
const OWNERS: usize = 8;

/// The object of this name below a path; nothing if it is not there.
pub(super) async fn get(client: &Client, path: &str, name: &str) -> Result<Option<Value>> {
    // A name that is no name must not reach another path.
    if name.contains(['/', '?', '#', '%', ' ']) {
        return Ok(None);
    }
    let request = Request::get(format!("{path}/{name}")).body(Vec::new())?;
    match client.request::<Value>(request).await {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// All objects below a path.
pub(super) async fn list(client: &Client, path: &str) -> kube::Result<Vec<Value>> {
    let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
    let mut list: Value = client.request(request).await?;
    match list["items"].take() {
        Value::Array(items) => Ok(items),
        _ => Ok(Vec::new()),
    }
}

/// Why something could not be read, in the words of the API server.
pub(super) fn told(what: &str, error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{what}: {}", status.message),
        other => format!("{what}: {other}"),
    }
}

/// What is related to an object.
pub(super) async fn of(client: &Client, all: &[Resource], resource: &Resource, object: &Value) -> Result<Related> {
    let full_name = resource.full_name();
    let (name, namespace) = (text(object, "name"), text(object, "namespace"));
    // Events about what has no namespace are in the namespace `default`.
    let home = if namespace.is_empty() { "default" } else { namespace };
    let mut needs: Vec<(&str, String)> = Vec::new();
    let events = [Need { resource: "events", scope: Scope::Namespace }];
    for need in events.iter().chain(explain::needs(&full_name)) {
        let Ok(needed) = resources::of_kind(all, need.resource) else { continue };
        let path = match need.scope {
            Scope::Namespace => needed.path(Some(home)),
            Scope::Cluster => needed.path(None),
            Scope::Field(field) => format!("{}?fieldSelector={field}%3D{name}", needed.path(None)),
            Scope::Named => needed.path(Some(name)),
        };
        needs.push((need.resource, path));
    }
    let mut related = Related::default();
    let mut lists =
        stream::iter(needs).map(async |(resource, path)| (resource, list(client, &path).await)).buffered(AT_ONCE);
    while let Some((resource, listed)) = lists.next().await {
        match listed {
            Ok(objects) => related.add(resource, objects),
            Err(error) => related.unknown.push(told(resource, &error)),
        }
    }
    drop(lists);
    owners(client, all, object, &mut related).await;
    let is_deleting = object["metadata"]["deletionTimestamp"].is_string();
    if full_name == "namespaces" && is_deleting {
        content(client, all, name, &mut related).await;
    }
    Ok(related)
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// Follows the owner that manages an object, or else the first.
async fn owners(client: &Client, all: &[Resource], object: &Value, related: &mut Related) {
    let mut current = object.clone();
    for _ in 0..OWNERS {
        let references = current["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        let manager = references.iter().find(|reference| reference["controller"] == true);
        let Some(reference) = manager.or(references.first()) else { return };
        let word = |field: &str| reference[field].as_str().unwrap_or_default();
        let known = all.iter().find(|resource| resource.is_of(word("apiVersion"), word("kind")));
        let Some(resource) = known else {
            related.owners.push(Owner {
                called: format!("{} {}", word("kind"), word("name")),
                controller: reference["controller"] == true,
                exists: None,
            });
            return;
        };
        let namespace = text(&current, "namespace");
        let owner = get(client, &resource.path(Some(namespace)), word("name")).await;
        let found = owner.as_ref().ok().and_then(Option::as_ref);
        let same = found.filter(|owner| owner["metadata"]["uid"] == reference["uid"]).cloned();
        related.owners.push(Owner {
            called: resource.name_of(&serde_json::json!({ "metadata": { "name": word("name") } })),
            controller: reference["controller"] == true,
            exists: owner.is_ok().then_some(same.is_some()),
        });
        match same {
            Some(owner) => current = owner,
            None => return,
        }
    }
}

/// What is left in a namespace that is being deleted.
async fn content(client: &Client, all: &[Resource], namespace: &str, related: &mut Related) {
    // Metrics and decisions are no objects; events go with the namespace and keep nothing.
    let counts = |resource: &&Resource| {
        let group = resource.group.as_str();
        resource.is_namespaced
            && !group.ends_with("metrics.k8s.io")
            && group != "explain.coracle.dev"
            && resource.plural != "events"
    };
    let mut lists = stream::iter(all.iter().filter(counts))
        .map(async |resource| (resource, list(client, &resource.path(Some(namespace))).await))
        .buffered(AT_ONCE);
    while let Some((resource, listed)) = lists.next().await {
        match listed {
            Ok(objects) => {
                related.content.extend(objects.into_iter().map(|object| (resource.name_of(&object), object)));
            }
            Err(error) => related.unknown.push(told(&resource.full_name(), &error)),
        }
    }
}
