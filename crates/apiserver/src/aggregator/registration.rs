//! The APIServices of this server: one for each version of a built-in group, and of a group that CustomResourceDefinitions
//! define. They are there for those who read them, and for who wants a version to stand elsewhere in discovery.
//!
//! Upstream: kube-aggregator `pkg/controllers/autoregister/autoregister_controller.go`, and
//! `pkg/controlplane/controller/crdregistration`. A label says who makes them: with `onstart` the server at its start and
//! never again, so that a user can change them while it runs; with `true` at any time, as definitions come and go.

use std::collections::{BTreeMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use kinds::api_service::{API_SERVICES, CUSTOM, GROUP, Priority, built_in};
use machinery::status::ApiError;
use registry::{DeleteRequest, Registry, Target};
use serde_json::{Value, json};

use crate::reviews;

/// The label that says who makes an APIService.
pub(crate) const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const ON_START: &str = "onstart";
const ALWAYS: &str = "true";
/// How many are written at once; the store syncs once for all that wait.
const CONCURRENT: usize = 32;

/// An APIService that there should be.
struct Desired {
    group: String,
    version: String,
    priority: Priority,
    label: &'static str,
}

/// Makes, mends and removes the APIServices of this server; those for built-in groups only at the start.
pub(super) async fn keep(registry: &Registry, is_start: bool) -> Result<(), ApiError> {
    let desired = desired(registry);
    let resources = registry.resources();
    let Some(resource) = resources.get(GROUP, "v1", "apiservices") else { return Ok(()) };
    let stored = registry.store().snapshot(API_SERVICES);
    let mut writes = Vec::new();
    for (name, desired) in &desired {
        let object = || desired.object();
        match stored.get("", name) {
            _ if desired.label == ON_START && !is_start => {}
            None => writes.push((Target::object(resource, "", name.as_str()), object())),
            Some(entry) => {
                let mut found: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
                let spec = object()["spec"].take();
                // Without the label it is somebody else's.
                if is_ours(entry.attributes.label(AUTOMANAGED)) && found["spec"] != spec {
                    found["spec"] = spec;
                    // Whatever its version is by then.
                    found["metadata"]["resourceVersion"].take();
                    writes.push((Target::object(resource, "", name.as_str()), found));
                }
            }
        }
    }
    let kept =
        stream::iter(writes).map(|(target, object)| async move { registry.upsert(&target, object).await.map(drop) });
    kept.buffer_unordered(CONCURRENT).try_collect::<()>().await?;
    let names: HashSet<&str> = desired.keys().map(String::as_str).collect();
    for entry in stored.iter().filter(|entry| !names.contains(&*entry.key.name)) {
        let label = entry.attributes.label(AUTOMANAGED);
        if is_ours(label) && (is_start || label == Some(ALWAYS)) {
            match registry.delete(&Target::object(resource, "", &*entry.key.name), &DeleteRequest::default()).await {
                Err(error) if error.code != 404 => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

fn is_ours(label: Option<&str>) -> bool {
    label.is_some_and(|label| label == ON_START || label == ALWAYS)
}

/// What there should be, by name.
fn desired(registry: &Registry) -> BTreeMap<String, Desired> {
    let resources = registry.resources();
    let stored = resources.iter().map(|resource| resource.info());
    let stored = stored.map(|info| (info.group.as_str(), info.version.as_str(), info.custom));
    let mut all = BTreeMap::new();
    for (group, version, is_custom) in stored.chain(reviews::ALL.iter().map(|review| (review.group, "v1", false))) {
        let place = match built_in(group, version) {
            Some(priority) => Some((priority, ON_START)),
            None => is_custom.then_some((CUSTOM, ALWAYS)),
        };
        // The group of APIServices has none, as upstream's.
        let Some((priority, label)) = place else { continue };
        all.entry(format!("{version}.{group}")).or_insert_with(|| Desired {
            group: group.to_owned(),
            version: version.to_owned(),
            priority,
            label,
        });
    }
    all
}

impl Desired {
    fn object(&self) -> Value {
        let mut spec = json!({
            "version": self.version,
            "groupPriorityMinimum": self.priority.group,
            "versionPriority": self.priority.version,
        });
        if !self.group.is_empty() {
            spec["group"] = self.group.as_str().into();
        }
        json!({ "metadata": { "labels": { AUTOMANAGED: self.label } }, "spec": spec })
    }
}
