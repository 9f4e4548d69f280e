//! `metrics.k8s.io/v1beta1`: what `kubectl top` shows and autoscalers look at.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response};
use informer::{Informer, ObjectKey};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::GroupResource;
use machinery::status::ApiError;
use serde_json::{Value, json};

use crate::answer;
use crate::collector::{Collector, Pair};
use crate::place::{Place, Query};
use crate::usage::{Reading, Usage, between};

/// The group.
pub(crate) const GROUP: &str = "metrics.k8s.io";
/// Its version.
pub(crate) const VERSION: &str = "v1beta1";
const API_VERSION: &str = "metrics.k8s.io/v1beta1";

/// Name of the index of pods by namespace.
const BY_NAMESPACE: &str = "namespace";

/// Answers for nodes and pods.
pub(crate) struct ResourceMetrics {
    collector: Collector,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
}

impl ResourceMetrics {
    pub(crate) fn new(collector: Collector, nodes: Informer<Node>, pods: Informer<Pod>) -> Self {
        pods.index(BY_NAMESPACE, |pod| pod.metadata.namespace.clone().into_iter().collect());
        Self { collector, nodes, pods }
    }

    pub(crate) async fn answer(
        &self,
        place: &Place,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<Response<Bytes>, ApiError> {
        let (kind, items) = match (&*place.resource, &*place.namespace) {
            _ if !place.subresource.is_empty() => return Err(ApiError::no_such_resource()),
            ("nodes", "") => ("NodeMetrics", self.nodes(place, query).await?),
            ("pods", namespace) if place.name.is_empty() || !namespace.is_empty() => {
                ("PodMetrics", self.pods(place, query).await?)
            }
            _ => return Err(ApiError::no_such_resource()),
        };
        if answer::wants_table(headers) {
            let columns = [("Name", "name"), ("cpu", ""), ("memory", ""), ("Window", "duration")];
            let rows = items.iter().map(|item| (cells(item), item)).collect();
            return Ok(answer::json(&answer::table(&columns, rows)));
        }
        let mut items = items;
        let value = match place.name.is_empty() {
            true => answer::list(API_VERSION, &format!("{kind}List"), items),
            false => items.pop().unwrap_or_default(),
        };
        Ok(answer::json(&value))
    }

    async fn nodes(&self, place: &Place, query: &Query) -> Result<Vec<Value>, ApiError> {
        self.nodes.synced().await;
        let mut nodes = match place.name.as_str() {
            "" => self.nodes.list(),
            name => self.nodes.get(&ObjectKey::new("", name)).into_iter().collect(),
        };
        select(&mut nodes, place, query, |node| &node.metadata)?;
        let pair = self.collector.pair().await;
        let items: Vec<Value> = nodes.iter().filter_map(|node| node_metrics(&node.metadata, &pair)).collect();
        let resource = GroupResource::new(GROUP, "nodemetrics");
        found(items, place, || ApiError::not_found(&resource, &place.name))
    }

    async fn pods(&self, place: &Place, query: &Query) -> Result<Vec<Value>, ApiError> {
        self.pods.synced().await;
        let mut pods = match (place.namespace.as_str(), place.name.as_str()) {
            ("", _) => self.pods.list(),
            (namespace, "") => self.pods.by_index(BY_NAMESPACE, namespace),
            (namespace, name) => self.pods.get(&ObjectKey::new(namespace, name)).into_iter().collect(),
        };
        select(&mut pods, place, query, |pod| &pod.metadata)?;
        let pair = self.collector.pair().await;
        let items: Vec<Value> = pods.iter().filter_map(|pod| pod_metrics(pod, &pair)).collect();
        let resource = GroupResource::new(GROUP, "podmetrics");
        let name = format!("{}/{}", place.namespace, place.name);
        found(items, place, || ApiError::not_found(&resource, &name))
    }
}

/// One object must be there; of a list any number.
fn found(items: Vec<Value>, place: &Place, missing: impl Fn() -> ApiError) -> Result<Vec<Value>, ApiError> {
    if items.is_empty() && !place.name.is_empty() { Err(missing()) } else { Ok(items) }
}

/// Keeps what the query selects, ordered as lists are. A single object is not selected from.
fn select<T>(
    objects: &mut Vec<Arc<T>>,
    place: &Place,
    query: &Query,
    meta: impl Fn(&T) -> &ObjectMeta,
) -> Result<(), ApiError> {
    if !place.name.is_empty() {
        return Ok(());
    }
    let (labels, fields) = (query.labels("labelSelector")?, query.fields()?);
    objects.retain(|object| {
        let meta = meta(object);
        labels.matches_option(meta.labels.as_ref())
            && fields.matches(|field| match field {
                "metadata.name" => meta.name.as_deref(),
                "metadata.namespace" => Some(meta.namespace.as_deref().unwrap_or_default()),
                _ => None,
            })
    });
    objects.sort_by(|a, b| {
        let key = |object: &T| (meta(object).namespace.clone(), meta(object).name.clone());
        key(a).cmp(&key(b))
    });
    Ok(())
}

fn node_metrics(meta: &ObjectMeta, pair: &Pair) -> Option<Value> {
    let name = meta.name.as_ref()?;
    let usage = between(pair.before.nodes.get(name), pair.after.nodes.get(name)?)?;
    Some(json!({
        "kind": "NodeMetrics",
        "apiVersion": API_VERSION,
        "metadata": metadata(meta, usage.time),
        "timestamp": answer::time(usage.time),
        "window": answer::duration(usage.window),
        "usage": amounts(&usage),
    }))
}

fn pod_metrics(pod: &Pod, pair: &Pair) -> Option<Value> {
    let key = ObjectKey::of(pod);
    let none = HashMap::new();
    let before = pair.before.pods.get(&key).unwrap_or(&none);
    let after = pair.after.pods.get(&key)?;
    let usages = usages(before, after)?;
    // Upstream: a pod is as old as its oldest container.
    let oldest = usages.values().min_by_key(|usage| usage.time)?;
    let containers = usages.iter().map(|(name, usage)| json!({ "name": name, "usage": amounts(usage) }));
    Some(json!({
        "kind": "PodMetrics",
        "apiVersion": API_VERSION,
        "metadata": metadata(&pod.metadata, oldest.time),
        "timestamp": answer::time(oldest.time),
        "window": answer::duration(oldest.window),
        "containers": containers.collect::<Vec<_>>(),
    }))
}

/// The use of all containers; nothing if there is one of which nothing is known yet. Upstream: half a pod would mislead an
/// autoscaler.
fn usages<'a>(
    before: &HashMap<String, Reading>,
    after: &'a HashMap<String, Reading>,
) -> Option<BTreeMap<&'a str, Usage>> {
    let usage = |(name, reading): (&'a String, &Reading)| Some((name.as_str(), between(before.get(name), reading)?));
    after.iter().map(usage).collect()
}

fn metadata(meta: &ObjectMeta, time: i64) -> Value {
    let mut out = json!({ "name": meta.name, "creationTimestamp": answer::time(time) });
    if let Some(namespace) = &meta.namespace {
        out["namespace"] = namespace.as_str().into();
    }
    if let Some(labels) = meta.labels.as_ref().filter(|labels| !labels.is_empty()) {
        out["labels"] = json!(labels);
    }
    out
}

fn amounts(usage: &Usage) -> Value {
    json!({ "cpu": answer::cores(usage.cores), "memory": answer::bytes(usage.bytes) })
}

/// Name, processors, memory, window: of a pod the sums over its containers.
fn cells(item: &Value) -> Vec<Value> {
    let sum = |name: &str| -> String {
        let own = item["usage"][name].as_str();
        let containers = item["containers"].as_array().into_iter().flatten();
        let containers = containers.filter_map(|container| container["usage"][name].as_str());
        let amounts = own.into_iter().chain(containers).filter_map(|text| text.parse().ok());
        let sum: Option<machinery::quantity::Quantity> = amounts.reduce(|a, b| a + b);
        sum.map_or_else(|| "0".to_owned(), |sum| sum.to_string())
    };
    vec![item["metadata"]["name"].clone(), sum("cpu").into(), sum("memory").into(), item["window"].clone()]
}
