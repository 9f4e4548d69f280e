//! The scheduler's decisions as an API: `explain.coracle.dev/v1`, resource `decisions`, named like the pods they are about; and
//! those it would make, as `schedulingreviews`, which are created like the reviews of Kubernetes and never kept.
//!
//! They are no objects of the store: thousands a second may be made, each is of interest for minutes, and none has to
//! survive a restart. But they are asked for like objects, so that the same authentication and authorisation stand before
//! them and `kubectl get decisions` works.

use std::sync::Arc;

use apiserver::{AggregatedApi, AggregatedResource, AggregatedService};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response};
use k8s_openapi::api::core::v1::Pod;
use machinery::Verb;
use machinery::gvk::GroupResource;
use machinery::status::ApiError;
use scheduler::record::{Record, Records};
use scheduler::{PreviewError, Previews};
use serde_json::{Value, json};

use crate::own_api;

const GROUP: &str = "explain.coracle.dev";
const VERSION: &str = "v1";
const RESOURCE: &str = "decisions";
const REVIEWS: &str = "schedulingreviews";

/// The API over `records`, and over what `previews` answers.
pub(crate) fn extension(records: Records, previews: Previews) -> AggregatedApi {
    let resource = AggregatedResource {
        name: RESOURCE.to_owned(),
        singular: "decision".to_owned(),
        kind: "Decision".to_owned(),
        namespaced: true,
        verbs: vec![Verb::Get, Verb::List],
        ..AggregatedResource::default()
    };
    let review = AggregatedResource {
        name: REVIEWS.to_owned(),
        singular: "schedulingreview".to_owned(),
        kind: "SchedulingReview".to_owned(),
        namespaced: true,
        verbs: vec![Verb::Create],
        ..AggregatedResource::default()
    };
    AggregatedApi {
        group: GROUP,
        version: VERSION,
        service: Arc::new(Decisions { records, previews, resources: [resource, review].into() }),
    }
}

struct Decisions {
    records: Records,
    previews: Previews,
    resources: Arc<[AggregatedResource]>,
}

#[async_trait]
impl AggregatedService for Decisions {
    fn resources(&self, _group: &str, _version: &str) -> Arc<[AggregatedResource]> {
        Arc::clone(&self.resources)
    }

    async fn call(&self, request: Request<Bytes>) -> Response<Bytes> {
        let parts = own_api::path(&request, GROUP, VERSION);
        let table = own_api::wants_table(&request);
        let answer = match parts.as_slice() {
            ["namespaces", namespace, REVIEWS] if request.method() == Method::POST => {
                self.review(namespace, request.body()).await
            }
            _ if !matches!(*request.method(), Method::GET | Method::HEAD) => Err(ApiError::method_not_supported(
                &GroupResource::from_static(GROUP, RESOURCE),
                request.method().as_str(),
            )),
            [RESOURCE] => Ok(list(&self.records.list(None), table)),
            ["namespaces", namespace, RESOURCE] => Ok(list(&self.records.list(Some(namespace)), table)),
            ["namespaces", namespace, RESOURCE, name] => match self.records.get(namespace, name) {
                Some(record) if table => Ok(self::table(&[record])),
                Some(record) => Ok(object(&record)),
                None => Err(ApiError::not_found(&GroupResource::from_static(GROUP, RESOURCE), name)),
            },
            _ => Err(ApiError::no_such_resource()),
        };
        own_api::response(request.method(), answer)
    }
}

impl Decisions {
    /// What the scheduler would decide about `spec.pod`, which is taken as it is: who asks has had it admitted by a create with
    /// `dryRun=All`.
    async fn review(&self, namespace: &str, body: &[u8]) -> Result<Value, ApiError> {
        let mut review: Value =
            serde_json::from_slice(body).map_err(|error| ApiError::bad_request(error.to_string()))?;
        let pod = review.pointer_mut("/spec/pod").map(Value::take).unwrap_or_default();
        let mut pod: Pod = serde_json::from_value(pod)
            .map_err(|error| ApiError::bad_request(format!("spec.pod is no pod: {error}")))?;
        let own = pod.metadata.namespace.get_or_insert_with(|| namespace.to_owned());
        if own != namespace {
            return Err(ApiError::bad_request(format!("spec.pod is in the namespace {own}, and not in {namespace}")));
        }
        let name = pod.metadata.name.clone();
        let record = self.previews.ask(pod).await.map_err(|error| match error {
            PreviewError::NotRunning => ApiError::service_unavailable(error.to_string()),
            PreviewError::Failed => ApiError::internal(error),
            PreviewError::UnknownScheduler(_) | PreviewError::HasNode(_) => ApiError::bad_request(error.to_string()),
        })?;
        Ok(json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "SchedulingReview",
            "metadata": { "name": name, "namespace": namespace, "creationTimestamp": record.at }, "status": record,
        }))
    }
}

fn metadata(record: &Record) -> Value {
    json!({
        "name": record.name, "namespace": record.namespace, "uid": record.uid, "creationTimestamp": record.at,
    })
}

fn object(record: &Record) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Decision",
        "metadata": metadata(record), "decision": record,
    })
}

fn list(records: &[Record], as_table: bool) -> Value {
    if as_table {
        return table(records);
    }
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "DecisionList", "metadata": {},
        "items": records.iter().map(object).collect::<Vec<_>>(),
    })
}

fn table(records: &[Record]) -> Value {
    let columns = [
        ("Name", "string"),
        ("Node", "string"),
        ("Feasible", "integer"),
        ("Nodes", "integer"),
        ("Micros", "integer"),
        ("Message", "string"),
    ];
    let row = |record: &Record| {
        let cells =
            json!([record.name, record.node, record.feasible, record.nodes, record.took_micros, record.message]);
        (cells, metadata(record))
    };
    own_api::table(&columns, records.iter().map(row))
}
