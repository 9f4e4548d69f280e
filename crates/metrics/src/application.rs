//! `custom.metrics.k8s.io` and `external.metrics.k8s.io`: what pods say of themselves, for autoscalers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::Response;
use informer::{EventType, Informer, Recorder};
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference, Pod};
use kube::runtime::watcher;
use kube::{Api, Client};
use machinery::Verb;
use machinery::selector::LabelSelector;
use machinery::status::{ApiError, Reason};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::place::{Place, Query};
use crate::query::Aggregate;
use crate::rules::{KEY, Rule, Rules, singular};
use crate::scrape::{Scraper, Series};
use crate::{Resource, answer};

/// The group of metrics of objects.
pub(crate) const CUSTOM: &str = "custom.metrics.k8s.io";
/// The group of metrics of nothing in particular.
pub(crate) const EXTERNAL: &str = "external.metrics.k8s.io";

const NAMESPACE: &str = "kube-system";
const RULES: &str = "coracle-metrics-rules";
/// Name of the index of pods by namespace.
const BY_NAMESPACE: &str = "namespace";
/// Discovery lists no more metrics than this.
const MOST_LISTED: usize = 5_000;

/// Answers for metrics of applications.
pub(crate) struct ApplicationMetrics {
    scraper: Scraper,
    pods: Informer<Pod>,
    rules: Arc<ArcSwap<Rules>>,
    listed: Mutex<Listed>,
    /// Ends the watch of the rules.
    cancel: CancellationToken,
}

/// What discovery lists, as of the last scrape.
#[derive(Default)]
struct Listed {
    custom: Vec<Resource>,
    external: Vec<Resource>,
}

/// A value with when and over how many seconds it was measured.
#[derive(Debug, Clone, PartialEq)]
struct Measured {
    value: f64,
    time: i64,
    window: Option<f64>,
}

impl ApplicationMetrics {
    /// Begins to watch the rules.
    pub(crate) fn new(client: &Client, pods: Informer<Pod>) -> Self {
        let cancel = CancellationToken::new();
        let rules = Arc::new(ArcSwap::from_pointee(Rules::built_in()));
        watch_rules(client, &rules, &cancel);
        let scraper = Scraper::new(client.clone(), pods.clone());
        Self { scraper, pods, rules, listed: Mutex::default(), cancel }
    }

    /// What is served of a group, as far as is known from the last scrape.
    pub(crate) fn resources(&self, group: &str) -> Vec<Resource> {
        let listed = self.listed.lock();
        if group == CUSTOM { listed.custom.clone() } else { listed.external.clone() }
    }

    /// Finds out what there is now.
    pub(crate) async fn refresh(&self) -> (Arc<Vec<Series>>, Arc<Rules>) {
        let series = self.scraper.series().await;
        let rules = self.rules.load_full();
        let listed = list(&rules, &series);
        *self.listed.lock() = listed;
        (series, rules)
    }

    /// `.../[namespaces/N/]RESOURCE/NAME/METRIC`, where `*` is every object that the query selects.
    pub(crate) async fn custom(&self, place: &Place, query: &Query) -> Result<Response<Bytes>, ApiError> {
        // The metrics of a namespace itself are asked for in a way of their own.
        let (resource, name, metric, namespace) = match (&*place.resource, &*place.subresource) {
            ("metrics", "") if !place.namespace.is_empty() => ("namespaces", &*place.namespace, &*place.name, ""),
            ("namespaces", metric) if !metric.is_empty() => ("namespaces", &*place.name, metric, ""),
            (resource, metric) if !metric.is_empty() => (resource, &*place.name, metric, &*place.namespace),
            _ => return Err(ApiError::no_such_resource()),
        };
        let (labels, metric_labels) = (query.labels("labelSelector")?, query.labels("metricLabelSelector")?);
        let (series, rules) = self.refresh().await;
        let kind = singular(resource);
        let values = by_object(&rules.custom, &series, &kind, namespace, metric, &metric_labels);
        let wanted: BTreeMap<String, Measured> = match name {
            "*" if resource == "pods" => {
                let selected = self.selected(namespace, &labels);
                values.into_iter().filter(|(name, _)| selected.contains(name)).collect()
            }
            "*" => values,
            name => values.into_iter().filter(|(found, _)| found == name).collect(),
        };
        if wanted.is_empty() {
            let object = if name == "*" { String::new() } else { format!(" {name}") };
            return Err(missing(format!("the server could not find the metric {metric} for {resource}{object}")));
        }
        let selector = (!metric_labels.is_everything()).then(|| metric_labels.to_string());
        let items = wanted.iter().map(|(name, measured)| {
            custom_value(&place.version, (&kind, namespace, name), metric, selector.as_deref(), measured)
        });
        Ok(answer::json(&answer::list(&place.api_version(), "MetricValueList", items.collect())))
    }

    /// `.../namespaces/N/METRIC`.
    pub(crate) async fn external(&self, place: &Place, query: &Query) -> Result<Response<Bytes>, ApiError> {
        if place.namespace.is_empty() || !place.name.is_empty() {
            return Err(ApiError::no_such_resource());
        }
        let selector = query.labels("labelSelector")?;
        let (series, rules) = self.refresh().await;
        let values = external_values(&rules.external, &series, &place.namespace, &place.resource, &selector);
        let Some(values) = values else {
            return Err(missing(format!("the server could not find the metric {} for ", place.resource)));
        };
        let items = values.into_iter().map(|(labels, measured)| {
            let mut item = json!({
                "metricName": place.resource,
                "metricLabels": labels,
                "timestamp": answer::time(measured.time),
                "value": answer::quantity(measured.value),
            });
            if let Some(window) = measured.window {
                item["window"] = whole(window).into();
            }
            item
        });
        Ok(answer::json(&answer::list(&place.api_version(), "ExternalMetricValueList", items.collect())))
    }

    /// Names of the pods that are selected.
    fn selected(&self, namespace: &str, labels: &LabelSelector) -> BTreeSet<String> {
        let pods = self.pods.by_index(BY_NAMESPACE, namespace);
        let selected = pods.iter().filter(|pod| labels.matches_option(pod.metadata.labels.as_ref()));
        selected.filter_map(|pod| pod.metadata.name.clone()).collect()
    }
}

impl Drop for ApplicationMetrics {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Keeps `rules` what the ConfigMap says, and tells there what is wrong with it.
fn watch_rules(client: &Client, rules: &Arc<ArcSwap<Rules>>, cancel: &CancellationToken) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let config = watcher::Config::default().fields(&format!("metadata.name={RULES}"));
    let maps = Informer::start(api, config, cancel.clone());
    let recorder = Recorder::new(client.clone(), "coracle-metrics", None);
    let rules = Arc::clone(rules);
    maps.on_change(move |change| {
        let text = change.new.as_ref().and_then(|map| map.data.as_ref()?.get(KEY));
        let (new, errors) = match text {
            Some(text) => Rules::parse(text),
            None => (Rules::built_in(), Vec::new()),
        };
        rules.store(Arc::new(new));
        for error in errors {
            let about = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("ConfigMap".to_owned()),
                namespace: Some(NAMESPACE.to_owned()),
                name: Some(RULES.to_owned()),
                uid: change.new.as_ref().and_then(|map| map.metadata.uid.clone()),
                ..ObjectReference::default()
            };
            recorder.event(&about, EventType::Warning, "InvalidMetricsRule", error);
        }
    });
}

/// The metric of each object of a kind, by name: the first rule that knows the metric counts.
fn by_object(
    rules: &[Rule],
    series: &[Series],
    kind: &str,
    namespace: &str,
    metric: &str,
    selector: &LabelSelector,
) -> BTreeMap<String, Measured> {
    for rule in rules {
        let Some(label) = rule.label(kind) else { continue };
        let place = rule.label("namespace");
        let here = |series: &Series| {
            namespace.is_empty()
                || place.as_ref().is_some_and(|place| series.labels.get(place).is_some_and(|found| found == namespace))
        };
        let mut groups: BTreeMap<String, Vec<(f64, Option<f64>, i64)>> = BTreeMap::new();
        let mut known = false;
        for series in series.iter().filter(|series| here(series)) {
            let Some(name) = series.labels.get(&label) else { continue };
            if rule.metric(series).as_deref() != Some(metric) {
                continue;
            }
            known = true;
            let selected = selector.matches(&series.labels);
            if let Some((value, window)) = rule.query.value(series).filter(|_| selected) {
                groups.entry(name.clone()).or_default().push((value, window, series.time));
            }
        }
        if known {
            let aggregate = rule.query.aggregate.unwrap_or(Aggregate::Sum);
            let measured = groups.into_iter().filter_map(|(name, values)| Some((name, together(aggregate, &values)?)));
            return measured.collect();
        }
    }
    BTreeMap::new()
}

/// The series of an external metric, or their aggregate under no label; `None` when nobody knows the metric.
fn external_values(
    rules: &[Rule],
    series: &[Series],
    namespace: &str,
    metric: &str,
    selector: &LabelSelector,
) -> Option<Vec<(BTreeMap<String, String>, Measured)>> {
    for rule in rules {
        let place = rule.label("namespace");
        let here = |series: &&Series| match &place {
            Some(place) => series.labels.get(place).is_some_and(|found| found == namespace),
            None => true,
        };
        let known: Vec<&Series> =
            series.iter().filter(here).filter(|series| rule.metric(series).as_deref() == Some(metric)).collect();
        if known.is_empty() {
            continue;
        }
        let selected = known.into_iter().filter(|series| selector.matches(&series.labels));
        let values = selected.filter_map(|series| {
            let (value, window) = rule.query.value(series)?;
            Some((series, (value, window, series.time)))
        });
        return Some(match rule.query.aggregate {
            None => values
                .map(|(series, (value, window, time))| (series.labels.clone(), Measured { value, time, window }))
                .collect(),
            Some(aggregate) => {
                let values: Vec<_> = values.map(|(_, value)| value).collect();
                together(aggregate, &values).map(|measured| (BTreeMap::new(), measured)).into_iter().collect()
            }
        });
    }
    None
}

/// One value of many: as old as the oldest, over the longest window.
fn together(aggregate: Aggregate, values: &[(f64, Option<f64>, i64)]) -> Option<Measured> {
    let numbers: Vec<f64> = values.iter().map(|(value, ..)| *value).collect();
    Some(Measured {
        value: aggregate.of(&numbers)?,
        time: values.iter().map(|(.., time)| *time).min()?,
        window: values.iter().filter_map(|(_, window, _)| *window).reduce(f64::max),
    })
}

fn custom_value(
    version: &str,
    (kind, namespace, name): (&str, &str, &str),
    metric: &str,
    selector: Option<&str>,
    measured: &Measured,
) -> Value {
    let mut object = json!({ "kind": kind_of(kind), "name": name, "apiVersion": api_version_of(kind) });
    if !namespace.is_empty() {
        object["namespace"] = namespace.into();
    }
    let mut item = json!({
        "describedObject": object,
        "timestamp": answer::time(measured.time),
        "value": answer::quantity(measured.value),
    });
    if let Some(window) = measured.window {
        item["windowSeconds"] = whole(window).into();
    }
    // In the first version the name stood alone.
    if version == "v1beta1" {
        item["metricName"] = metric.into();
    } else {
        item["metric"] = json!({ "name": metric });
    }
    let labels = selector.map(|selector| selector.split(',').filter_map(|one| one.split_once('=')));
    if let Some(labels) = labels {
        let labels: BTreeMap<&str, &str> = labels.collect();
        let selector = json!({ "matchLabels": labels });
        match version {
            "v1beta1" => item["selector"] = selector,
            _ => item["metric"]["selector"] = selector,
        }
    }
    item
}

/// What discovery lists of these series.
fn list(rules: &Rules, series: &[Series]) -> Listed {
    let mut custom: BTreeMap<(String, String), bool> = BTreeMap::new();
    let mut external = BTreeSet::new();
    for series in series {
        for rule in &rules.custom {
            if let Some(metric) = rule.metric(series) {
                for resource in rule.resources(series) {
                    let namespaced = !matches!(&*resource, "namespace" | "node");
                    custom.entry((plural(&resource), metric.clone())).or_insert(namespaced);
                }
            }
        }
        external.extend(rules.external.iter().filter_map(|rule| rule.metric(series)));
    }
    let custom = custom.into_iter().take(MOST_LISTED).map(|((resource, metric), namespaced)| Resource {
        name: format!("{resource}/{metric}"),
        kind: "MetricValueList",
        namespaced,
        verbs: &[Verb::Get],
    });
    let external = external.into_iter().take(MOST_LISTED).map(|name| Resource {
        name,
        kind: "ExternalMetricValueList",
        namespaced: true,
        verbs: &[Verb::Get],
    });
    Listed { custom: custom.collect(), external: external.collect() }
}

/// `pod` → `pods`, `deployment.apps` → `deployments.apps`.
fn plural(resource: &str) -> String {
    let (name, group) = resource.split_once('.').map_or((resource, String::new()), |(a, b)| (a, format!(".{b}")));
    let name = match name {
        name if name.ends_with('y') => format!("{}ies", &name[..name.len() - 1]),
        name if name.ends_with('s') => format!("{name}es"),
        name => format!("{name}s"),
    };
    format!("{name}{group}")
}

/// The kind of a resource by its singular.
fn kind_of(resource: &str) -> String {
    let name = resource.split('.').next().unwrap_or_default();
    match name {
        "replicaset" => "ReplicaSet".to_owned(),
        "statefulset" => "StatefulSet".to_owned(),
        "daemonset" => "DaemonSet".to_owned(),
        name => {
            let first = name.chars().next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
            format!("{first}{}", name.get(1..).unwrap_or_default())
        }
    }
}

fn api_version_of(resource: &str) -> String {
    resource.split_once('.').map_or_else(|| "/v1".to_owned(), |(_, group)| format!("{group}/v1"))
}

fn missing(message: String) -> ApiError {
    ApiError::new(404, Reason::NotFound, message)
}

#[expect(clippy::cast_possible_truncation, reason = "a cast from float to integer saturates")]
fn whole(value: f64) -> i64 {
    value.round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus::{Kind, Labels};

    fn series(name: &str, pod: &str, labels: &[(&str, &str)], value: f64, rate: Option<f64>) -> Series {
        let own = [("namespace", "n"), ("pod", pod)];
        let labels: Labels =
            own.iter().chain(labels).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let kind = if rate.is_some() { Kind::Counter } else { Kind::Gauge };
        Series { name: name.to_owned(), labels, kind, value, time: 1_000, rate: rate.map(|rate| (rate, 15.0)) }
    }

    fn all() -> Vec<Series> {
        vec![
            series("queue", "a", &[("kind", "x")], 1.0, None),
            series("queue", "a", &[("kind", "y")], 2.0, None),
            series("queue", "b", &[("kind", "x")], 4.0, None),
            series("served_total", "a", &[], 100.0, Some(5.0)),
        ]
    }

    #[test]
    fn of_objects() {
        let rules = Rules::built_in();
        let check = |kind: &str, namespace: &str, metric: &str, selector: &str, expected: &[(&str, f64)]| {
            let selector = LabelSelector::parse(selector).unwrap();
            let found = by_object(&rules.custom, &all(), kind, namespace, metric, &selector);
            let found: Vec<(&str, f64)> =
                found.iter().map(|(name, measured)| (name.as_str(), measured.value)).collect();
            assert_eq!(found, expected, "{kind} {namespace} {metric} {selector}");
        };
        check("pod", "n", "queue", "", &[("a", 3.0), ("b", 4.0)]);
        check("pod", "n", "queue", "kind=x", &[("a", 1.0), ("b", 4.0)]);
        check("pod", "other", "queue", "", &[]);
        check("pod", "n", "served", "", &[("a", 5.0)]);
        check("namespace", "", "queue", "", &[("n", 7.0)]);
        check("service", "n", "queue", "", &[]);
    }

    #[test]
    fn of_nothing_in_particular() {
        let rules = Rules::built_in();
        let values = |metric: &str, selector: &str| {
            let selector = LabelSelector::parse(selector).unwrap();
            let found = external_values(&rules.external, &all(), "n", metric, &selector)?;
            Some(found.into_iter().map(|(_, measured)| measured.value).collect::<Vec<_>>())
        };
        assert_eq!(values("queue", ""), Some(vec![1.0, 2.0, 4.0]));
        assert_eq!(values("queue", "kind=y"), Some(vec![2.0]));
        assert_eq!(values("served", ""), Some(vec![5.0]));
        assert_eq!(values("unknown", ""), None);
    }

    #[test]
    fn discovery() {
        let listed = list(&Rules::built_in(), &all());
        let names = |resources: &[Resource]| -> Vec<String> {
            resources.iter().map(|resource| resource.name.clone()).collect()
        };
        let expected = ["namespaces/queue", "namespaces/served", "pods/queue", "pods/served"];
        assert_eq!(names(&listed.custom), expected);
        assert_eq!(names(&listed.external), ["queue", "served"]);
    }

    #[test]
    fn both_versions() {
        let measured = Measured { value: 7.5, time: 1_000, window: Some(15.0) };
        let place = ("pod", "n", "a");
        let new = custom_value("v1beta2", place, "queue", Some("kind=x"), &measured);
        assert_eq!(new["metric"], json!({ "name": "queue", "selector": { "matchLabels": { "kind": "x" } } }));
        assert_eq!((&new["value"], &new["windowSeconds"]), (&json!("7500m"), &json!(15)));
        let old = custom_value("v1beta1", place, "queue", None, &measured);
        assert_eq!((&old["metricName"], &old["describedObject"]["kind"]), (&json!("queue"), &json!("Pod")));
    }
}
