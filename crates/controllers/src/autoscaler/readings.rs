//! What the metrics APIs say, for each metric of an autoscaler. No choices are made here: an error is a reading too.

use std::collections::HashMap;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, MetricIdentifier, MetricSpec};
use kube::Client;
use machinery::quantity::Quantity;
use machinery::selector::LabelSelector;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::target::{Targets, get};

/// What an API without windows is taken to have.
const DEFAULT_WINDOW: f64 = 60.0;

/// One metric, in thousandths.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reading {
    /// By name of the pod.
    Pods(HashMap<String, PodReading>),
    /// Of one object.
    Object(i64),
    /// Of any number of series.
    External(Vec<i64>),
}

/// The metric of one pod.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PodReading {
    /// Thousandths.
    pub(super) value: i64,
    /// When it was measured.
    pub(super) time: Timestamp,
    /// Over how many seconds.
    pub(super) window: f64,
}

/// Reads all metrics of an autoscaler.
pub(super) async fn read(
    client: &Client,
    targets: &Targets,
    namespace: &str,
    autoscaler: &HorizontalPodAutoscaler,
    selector: &str,
) -> Vec<Result<Reading, String>> {
    let metrics = autoscaler.spec.metrics.iter().flatten();
    join_all(metrics.map(|metric| one(client, targets, namespace, metric, selector))).await
}

async fn one(
    client: &Client,
    targets: &Targets,
    namespace: &str,
    metric: &MetricSpec,
    selector: &str,
) -> Result<Reading, String> {
    let resource = |name: String, container: Option<String>| async move {
        let path =
            format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={}", encode(selector));
        let listed = get(client, &path).await;
        let listed = listed.map_err(|error| format!("unable to fetch metrics from resource metrics API: {error}"))?;
        pods_of_resource(&listed, &name, container.as_deref())
    };
    if let Some(source) = &metric.resource {
        return resource(source.name.clone(), None).await;
    }
    if let Some(source) = &metric.container_resource {
        return resource(source.name.clone(), Some(source.container.clone())).await;
    }
    let custom = |place: String, identifier: &MetricIdentifier, selector: &str| {
        let name = encode(&identifier.name);
        let mut path = format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/{namespace}/{place}/{name}");
        let query = [("labelSelector", selector.to_owned()), ("metricLabelSelector", of_metric(identifier))];
        let query: Vec<String> = query
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        async move {
            let listed = get(client, &path).await;
            listed.map_err(|error| format!("unable to fetch metrics from custom metrics API: {error}"))
        }
    };
    if let Some(source) = &metric.pods {
        return pods_of_custom(&custom("pods/*".to_owned(), &source.metric, selector).await?);
    }
    if let Some(source) = &metric.object {
        let object = &source.described_object;
        let place = if object.kind == "Namespace" {
            "metrics".to_owned()
        } else {
            let mapping = targets.mapping(object).await?;
            format!("{mapping}/{}", encode(&object.name))
        };
        let listed = custom(place, &source.metric, "").await?;
        let value = listed["items"].as_array().and_then(|items| items.first()).and_then(|item| milli(&item["value"]));
        return value.map(Reading::Object).ok_or_else(|| "no metrics returned from custom metrics API".to_owned());
    }
    if let Some(source) = &metric.external {
        let mut path =
            format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{}", encode(&source.metric.name));
        let selector = of_metric(&source.metric);
        if !selector.is_empty() {
            path = format!("{path}?labelSelector={}", encode(&selector));
        }
        let listed = get(client, &path).await;
        let listed = listed.map_err(|error| format!("unable to fetch metrics from external metrics API: {error}"))?;
        let values: Vec<i64> =
            listed["items"].as_array().into_iter().flatten().filter_map(|item| milli(&item["value"])).collect();
        if values.is_empty() {
            return Err("no metrics returned from external metrics API".to_owned());
        }
        return Ok(Reading::External(values));
    }
    Err(format!("unknown metric source type {:?}", metric.type_))
}

/// The use of each pod: the sum over its containers, or of the one that is meant.
fn pods_of_resource(listed: &Value, resource: &str, container: Option<&str>) -> Result<Reading, String> {
    let mut pods = HashMap::new();
    let items = listed["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        return Err("no metrics returned from resource metrics API".to_owned());
    }
    for item in items {
        let name = item["metadata"]["name"].as_str().unwrap_or_default();
        let containers = item["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let meant = containers.iter().filter(|one| container.is_none_or(|wanted| one["name"] == wanted));
        let values: Vec<Option<i64>> = meant.map(|container| milli(&container["usage"][resource])).collect();
        if let Some(container) = container
            && values.is_empty()
        {
            let namespace = item["metadata"]["namespace"].as_str().unwrap_or_default();
            return Err(format!("container {container} not present in metrics for pod {namespace}/{name}"));
        }
        // Half a pod would mislead.
        let Some(value) = values.into_iter().sum::<Option<i64>>() else { continue };
        let window = item["window"].as_str().and_then(seconds).unwrap_or(DEFAULT_WINDOW);
        pods.insert(name.to_owned(), PodReading { value, time: time(item), window });
    }
    Ok(Reading::Pods(pods))
}

fn pods_of_custom(listed: &Value) -> Result<Reading, String> {
    let items = listed["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        return Err("no metrics returned from custom metrics API".to_owned());
    }
    let reading = |item: &Value| {
        let name = item["describedObject"]["name"].as_str()?.to_owned();
        let window = item["windowSeconds"].as_f64().unwrap_or(DEFAULT_WINDOW);
        Some((name, PodReading { value: milli(&item["value"])?, time: time(item), window }))
    };
    Ok(Reading::Pods(items.iter().filter_map(reading).collect()))
}

/// The selector of a metric's series in string form.
fn of_metric(metric: &MetricIdentifier) -> String {
    let selector = metric.selector.as_ref().and_then(|selector| LabelSelector::from_object(Some(selector)).ok());
    selector.map(|selector| selector.to_string()).unwrap_or_default()
}

fn milli(value: &Value) -> Option<i64> {
    let quantity: Quantity = value.as_str()?.parse().ok()?;
    Some(quantity.milli_value())
}

fn time(item: &Value) -> Timestamp {
    item["timestamp"].as_str().and_then(|time| time.parse().ok()).unwrap_or_default()
}

/// A length of time as Go writes it, in seconds: `1m15.5s`, `500ms`.
fn seconds(text: &str) -> Option<f64> {
    let (mut sum, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let factor = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    Some(sum)
}

/// What must not stand in a segment of a path or in a query as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in
            [("15s", Some(15.0)), ("1m0.5s", Some(60.5)), ("500ms", Some(0.5)), ("1h", Some(3600.0)), ("x", None)]
        {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn containers_add_up() {
        let container = |name: &str, cpu: &str| json!({ "name": name, "usage": { "cpu": cpu } });
        let listed = json!({ "items": [
            {
                "metadata": { "name": "a", "namespace": "n" },
                "timestamp": "2026-01-01T00:00:00Z",
                "window": "15s",
                "containers": [container("x", "100m"), container("y", "2")],
            },
        ]});
        let check = |resource: &str, container: Option<&str>, expected: Result<&[i64], &str>| {
            let found = pods_of_resource(&listed, resource, container);
            let found = found.map(|reading| match reading {
                Reading::Pods(pods) => pods.values().map(|pod| pod.value).collect(),
                _ => Vec::new(),
            });
            assert_eq!(found, expected.map(<[i64]>::to_vec).map_err(str::to_owned), "{resource} {container:?}");
        };
        check("cpu", None, Ok(&[2100]));
        check("cpu", Some("x"), Ok(&[100]));
        check("memory", None, Ok(&[]));
        check("cpu", Some("z"), Err("container z not present in metrics for pod n/a"));
        let none = pods_of_resource(&json!({ "items": [] }), "cpu", None);
        assert_eq!(none, Err("no metrics returned from resource metrics API".to_owned()));
    }
}
