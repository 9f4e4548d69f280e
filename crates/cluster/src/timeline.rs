//! What happened to an object and why, as an API: `timeline.coracle.dev/v1`, resource `timelinereviews`, which are created like
//! the reviews of Kubernetes and never kept.
//!
//! The store's log says who wrote what and when; the journal of the components ([`informer::Reconciles::journal`]) says what woke
//! each of them, what it wrote then, and what it did outside of the API; the scheduler knows what became of its latest attempts.
//! [`story`] puts them together. Nothing is noted for a
//! timeline while nobody asks for one.
//!
//! It shows objects of all kinds, so no role but those that may do everything allows it.

mod entry;
mod related;
mod story;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{AggregatedApi, AggregatedResource, AggregatedService};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response};
use informer::Reconciles;
use k8s_openapi::jiff::Timestamp;
use machinery::Verb;
use machinery::gvk::GroupResource;
use machinery::status::{ApiError, Reason};
use registry::Registry;
use scheduler::record::Records;
use serde::Deserialize;
use serde_json::{Value, json};
use store::{HistoryError, Key};

use crate::own_api;
use story::{Kinds, Wanted};

pub use entry::{Because, Entry, ObjectName, Timeline, What, Writer};

const GROUP: &str = "timeline.coracle.dev";
const VERSION: &str = "v1";
const RESOURCE: &str = "timelinereviews";

/// The API over what `registry` has stored, `reconciles` has noted, and the scheduler has in `records`.
pub(crate) fn extension(registry: Registry, reconciles: Reconciles, records: Records) -> AggregatedApi {
    let resource = AggregatedResource {
        name: RESOURCE.to_owned(),
        singular: "timelinereview".to_owned(),
        kind: "TimelineReview".to_owned(),
        verbs: vec![Verb::Create],
        ..AggregatedResource::default()
    };
    let service = Arc::new(Timelines { registry, reconciles, records, resources: [resource].into() });
    AggregatedApi { group: GROUP, version: VERSION, service }
}

struct Timelines {
    registry: Registry,
    reconciles: Reconciles,
    records: Records,
    resources: Arc<[AggregatedResource]>,
}

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    /// Whose timeline; everything's if it is left out.
    object: Option<Object>,
    /// Leave out what belongs to the object, and tell all of each change.
    #[serde(default)]
    itself_only: bool,
    /// How many seconds it reaches back; as far as anything is remembered if it is left out.
    since_seconds: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    #[serde(default)]
    group: String,
    version: String,
    resource: String,
    #[serde(default)]
    namespace: String,
    name: String,
}

impl Timelines {
    async fn review(&self, body: &[u8]) -> Result<Value, ApiError> {
        let mut review: Value =
            serde_json::from_slice(body).map_err(|error| ApiError::bad_request(error.to_string()))?;
        let spec = review.get_mut("spec").map(Value::take).unwrap_or_else(|| json!({}));
        let spec: Spec =
            serde_json::from_value(spec).map_err(|error| ApiError::bad_request(format!("spec: {error}")))?;
        let store = self.registry.store().clone();
        let since = spec.since_seconds.map(Duration::from_secs).unwrap_or(Duration::MAX);
        let now = Duration::from_millis(u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default());
        let millis = u64::try_from(now.saturating_sub(since).as_millis()).unwrap_or_default();
        let past = store.past(millis).await.map_err(ApiError::internal)?;
        let root = spec.object.as_ref().map(|object| self.key(object)).transpose()?;
        let wanted = Wanted { root, itself_only: spec.itself_only, after: past.at.0 };
        let kinds = self.kinds();
        let (reconciles, records) = (self.reconciles.clone(), self.records.clone());
        // It reads the disk, and all of what is remembered.
        let told =
            tokio::task::spawn_blocking(move || story::tell(&store, &kinds, &reconciles, &records, &wanted)).await;
        let told = told.map_err(ApiError::internal)?.map_err(refused)?;
        if let (true, Some(object)) = (told.entries.is_empty() && !told.is_there, &spec.object) {
            let Object { namespace, name, resource, .. } = object;
            let place = if namespace.is_empty() { String::new() } else { format!(" in namespace {namespace}") };
            let why = format!("there is no {resource}/{name}{place}, and none is remembered");
            return Err(ApiError::new(404, Reason::NotFound, why));
        }
        // Whoever said since when wants no more; of what began within memory, everything is told.
        let is_forgotten = spec.since_seconds.is_none() && past.horizon > 0 && !told.has_beginning;
        let is_cut = told.is_cut || is_forgotten;
        Ok(json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "TimelineReview", "metadata": {},
            "status": Timeline { entries: told.entries, is_cut, revision: told.revision.to_string() },
        }))
    }

    /// Where an object is stored.
    fn key(&self, object: &Object) -> Result<Key, ApiError> {
        let Object { group, version, resource, namespace, name } = object;
        let resources = self.registry.resources();
        let found = resources.get(group, version, resource).ok_or_else(ApiError::no_such_resource)?;
        Ok(Key::new(Arc::clone(&found.info().storage), namespace.as_str(), name.as_str()))
    }

    /// The kinds of what is stored.
    fn kinds(&self) -> Kinds {
        let resources = self.registry.resources();
        let mut kinds = HashMap::new();
        for resource in resources.iter() {
            let info = resource.info();
            kinds.entry(Arc::clone(&info.storage)).or_insert_with(|| info.kind.clone());
        }
        kinds
    }
}

fn refused(error: HistoryError) -> ApiError {
    match error {
        // What was there when it began has been forgotten since.
        HistoryError::Compacted(compacted) => ApiError::expired(compacted.to_string()),
        HistoryError::Closed => ApiError::service_unavailable("the server is shutting down"),
        other => ApiError::internal(other),
    }
}

#[async_trait]
impl AggregatedService for Timelines {
    fn resources(&self, _group: &str, _version: &str) -> Arc<[AggregatedResource]> {
        Arc::clone(&self.resources)
    }

    async fn call(&self, request: Request<Bytes>) -> Response<Bytes> {
        let answer = match own_api::path(&request, GROUP, VERSION)[..] {
            [RESOURCE] if request.method() == Method::POST => self.review(request.body()).await,
            [RESOURCE] => {
                let resource = GroupResource::from_static(GROUP, RESOURCE);
                Err(ApiError::method_not_supported(&resource, &request.method().as_str().to_lowercase()))
            }
            _ => Err(ApiError::no_such_resource()),
        };
        own_api::response(request.method(), answer)
    }
}

#[cfg(test)]
mod tests;
