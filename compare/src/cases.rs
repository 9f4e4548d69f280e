//! What is sent, in order: the namespace, the documents, then for each kind its objects' lives, and what is only answered.

mod bodies;
mod collections;
mod documents;
mod lives;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Comparison;
use crate::cluster::{Cluster, Request};
use crate::mutations;
use crate::objects::{self, NAMESPACE};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_MERGE_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// A definition takes that long until its objects are served, at most.
const ESTABLISHED_TIMEOUT: Duration = Duration::from_secs(10);

/// A resource, as discovery describes it.
#[derive(Debug, Clone)]
struct Resource {
    name: String,
    /// The path of all of its objects in the namespace.
    collection: String,
    namespaced: bool,
    subresources: Vec<String>,
}

impl Resource {
    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.collection)
    }
}

/// An object to send, and where it belongs.
struct Subject {
    resource: Resource,
    object: Value,
}

impl Subject {
    fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    fn path(&self) -> String {
        self.resource.path(self.name())
    }
}

/// All that is sent.
pub(crate) struct Cases {
    only: Option<String>,
    /// Those of one kind follow each other.
    subjects: Vec<Vec<Subject>>,
    reviews: Vec<Subject>,
}

impl Cases {
    /// The cases for what `cluster` serves.
    pub(crate) async fn new(cluster: &Cluster, only: Option<String>) -> Result<Self> {
        let mut catalog = Catalog { cluster, known: BTreeMap::new() };
        let mut subjects: Vec<Vec<Subject>> = Vec::new();
        for object in objects::all()? {
            let resource = catalog.find(&object).await?;
            match subjects.last_mut() {
                Some(last) if last[0].resource.collection == resource.collection => {
                    last.push(Subject { resource, object });
                }
                _ => subjects.push(vec![Subject { resource, object }]),
            }
        }
        let mut reviews = Vec::new();
        for object in objects::reviews()? {
            reviews.push(Subject { resource: catalog.find(&object).await?, object });
        }
        Ok(Self { only, subjects, reviews })
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| name.contains(only))
    }

    /// Sends them.
    pub(crate) async fn run(&mut self, comparison: &mut Comparison) -> Result<()> {
        self.clean_up(comparison).await?;
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
        comparison.prepare(&Request::post("/api/v1/namespaces", namespace)).await?;
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
        comparison.prepare(&Request::post(format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"), account)).await?;
        if self.wants("documents") {
            documents::send(comparison).await?;
        }
        for subjects in &self.subjects {
            let resource = &subjects[0].resource;
            if !self.wants(&resource.name) {
                continue;
            }
            if resource.collection.contains("compare.example.com") {
                define(comparison, &self.subjects).await?;
            }
            compare(comparison, subjects).await?;
        }
        for review in self.reviews.iter().filter(|_| self.wants("reviews")) {
            let path = &review.resource.collection;
            comparison.send(&Request::post(path, review.object.clone())).await?;
            for (note, object) in mutations::all(&review.object) {
                comparison.send(&Request::post(path, object).note(note)).await?;
            }
        }
        Ok(())
    }

    /// Removes what may be there of the objects, and the namespace.
    pub(crate) async fn clean_up(&self, comparison: &Comparison) -> Result<()> {
        for subject in self.subjects.iter().flatten().rev() {
            let none = json!({ "metadata": { "finalizers": null } });
            comparison.prepare(&Request::delete(subject.path(), json!({ "gracePeriodSeconds": 0 }))).await?;
            comparison.prepare(&Request::patch(subject.path(), MERGE_PATCH, none)).await?;
            if subject.object["kind"] == "Namespace" {
                finalize(comparison, subject.name()).await?;
            }
        }
        comparison.prepare(&Request::delete(format!("/api/v1/namespaces/{NAMESPACE}"), json!({}))).await?;
        finalize(comparison, NAMESPACE).await
    }
}

/// Lets go of a namespace that is being deleted, where no controller does.
async fn finalize(comparison: &Comparison, name: &str) -> Result<()> {
    let namespace =
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name }, "spec": { "finalizers": [] } });
    let mut request = Request::replace(format!("/api/v1/namespaces/{name}"), namespace);
    request.path.push_str("/finalize");
    comparison.prepare(&request).await
}

/// Everything about one kind.
async fn compare(comparison: &mut Comparison, subjects: &[Subject]) -> Result<()> {
    let resource = &subjects[0].resource;
    for request in bodies::requests(&subjects[0]) {
        comparison.send(&request).await?;
    }
    for subject in subjects {
        for request in lives::begin(subject) {
            comparison.send(&request).await?;
        }
    }
    for request in collections::requests(resource) {
        comparison.send(&request).await?;
    }
    for subject in subjects {
        let mut another = subject.object.clone();
        let fresh = format!("{}-x", subject.name());
        let may_rename = resource.name != "customresourcedefinitions" && resource.name != "apiservices";
        if may_rename {
            another["metadata"]["name"] = fresh.into();
        }
        for (note, object) in mutations::all(&another) {
            let create = Request::post(format!("{}?dryRun=All", resource.collection), object);
            comparison.send(&create.note(format!("{}: {note}", subject.name()))).await?;
        }
        for (note, object) in mutations::all(&subject.object) {
            let update = Request::replace(format!("{}?dryRun=All", subject.path()), object);
            comparison.send(&update.note(note)).await?;
        }
    }
    for subject in subjects {
        for request in lives::end(subject) {
            comparison.send(&request).await?;
        }
    }
    for request in collections::after_deletion(resource) {
        comparison.send(&request).await?;
    }
    Ok(())
}

/// Makes the definitions of custom resources, and waits until their objects are served.
async fn define(comparison: &Comparison, subjects: &[Vec<Subject>]) -> Result<()> {
    for subject in subjects.iter().flatten().filter(|one| one.resource.name == "customresourcedefinitions") {
        comparison.prepare(&Request::post(&subject.resource.collection, subject.object.clone())).await?;
    }
    let deadline = tokio::time::Instant::now() + ESTABLISHED_TIMEOUT;
    let path = "/apis/compare.example.com/v1/namespaces/default/fulls";
    loop {
        let request = Request::get(path);
        let (ours, theirs) = tokio::try_join!(comparison.ours.send(&request), comparison.theirs.send(&request))?;
        if ours.status.is_success() && theirs.status.is_success() {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            anyhow::bail!("custom resources are not served: {} | {}", ours.status, theirs.status);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What a cluster serves, read as it is needed.
struct Catalog<'a> {
    cluster: &'a Cluster,
    known: BTreeMap<String, Value>,
}

impl Catalog<'_> {
    /// The resource of an object, which the custom ones among them have before they are defined.
    async fn find(&mut self, object: &Value) -> Result<Resource> {
        let version = object["apiVersion"].as_str().context("an object without apiVersion")?;
        let kind = object["kind"].as_str().context("an object without kind")?;
        let root = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
        if version.starts_with("compare.example.com/") {
            let collection = format!("{root}/namespaces/{NAMESPACE}/fulls");
            let subresources = ["status", "scale"].map(str::to_owned).to_vec();
            return Ok(Resource { name: "fulls".to_owned(), collection, namespaced: true, subresources });
        }
        if !self.known.contains_key(&root) {
            let list = self.cluster.json(&root).await?;
            self.known.insert(root.clone(), list);
        }
        let resources = self.known[&root]["resources"].as_array().cloned().unwrap_or_default();
        let name_of = |one: &Value| one["name"].as_str().unwrap_or_default().to_owned();
        let found = resources.iter().find(|one| one["kind"] == kind && !name_of(one).contains('/'));
        let found = found.with_context(|| format!("{version} {kind} is not served by the other side"))?;
        let name = name_of(found);
        let namespaced = found["namespaced"] == true;
        let collection =
            if namespaced { format!("{root}/namespaces/{NAMESPACE}/{name}") } else { format!("{root}/{name}") };
        let below = format!("{name}/");
        let subresources =
            resources.iter().filter_map(|one| Some(name_of(one).strip_prefix(&below)?.to_owned())).collect();
        Ok(Resource { name, collection, namespaced, subresources })
    }
}
