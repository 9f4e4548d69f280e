//! autoscaling/v1: an autoscaler of one metric. What it has no fields for travels in annotations, as upstream converts it,
//! so that nothing is lost on the way through an old client.

use k8s_openapi::api::autoscaling::v1::{
    CrossVersionObjectReference as OldReference, HorizontalPodAutoscaler as Old,
    HorizontalPodAutoscalerSpec as OldSpec, HorizontalPodAutoscalerStatus as OldStatus,
};
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler as Object, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus, MetricValueStatus, ResourceMetricStatus,
};
use registry::kind::{AlternateVersion, Descriptor, Subresource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::super::common::list;
use super::{HorizontalPodAutoscaler, utilization};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// HorizontalPodAutoscalers of autoscaling/v1.
pub(crate) struct HorizontalPodAutoscalerV1;

impl AlternateVersion for HorizontalPodAutoscalerV1 {
    type Stored = HorizontalPodAutoscaler;
    type Object = Old;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["hpa"],
        categories: &["all"],
        subresources: &[Subresource::Status],
        storage: "autoscaling/horizontalpodautoscalers",
        ..Descriptor::namespaced("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
    };

    fn to_stored(mut old: Old) -> Object {
        let mut take = |name: &str| {
            let annotations = old.metadata.annotations.as_mut()?;
            annotations.remove(name).and_then(|text| serde_json::from_str::<Value>(&text).ok())
        };
        let (metrics, behavior) = (take(METRICS), take(BEHAVIOR));
        let (current, conditions) = (take(CURRENT_METRICS), take(CONDITIONS));
        if old.metadata.annotations.as_ref().is_some_and(std::collections::BTreeMap::is_empty) {
            old.metadata.annotations = None;
        }
        let processors = old.spec.target_cpu_utilization_percentage.map(utilization);
        let others = metrics.map(|metrics| renewed_all::<MetricSpec>(metrics, Part::Spec));
        let metrics: Vec<MetricSpec> = others.into_iter().flatten().chain(processors).collect();
        let target = old.spec.scale_target_ref;
        Object {
            spec: HorizontalPodAutoscalerSpec {
                behavior: behavior.and_then(|behavior| decoded(recased(behavior, str::to_ascii_lowercase))),
                max_replicas: old.spec.max_replicas,
                metrics: (!metrics.is_empty()).then_some(metrics),
                min_replicas: old.spec.min_replicas,
                scale_target_ref: CrossVersionObjectReference {
                    api_version: target.api_version,
                    kind: target.kind,
                    name: target.name,
                },
            },
            status: old.status.map(|status| HorizontalPodAutoscalerStatus {
                conditions: conditions.and_then(decoded),
                current_metrics: match current {
                    Some(current) => Some(renewed_all(current, Part::Status)),
                    None => status.current_cpu_utilization_percentage.map(|percent| vec![current_utilization(percent)]),
                },
                current_replicas: Some(status.current_replicas),
                desired_replicas: status.desired_replicas,
                last_scale_time: status.last_scale_time,
                observed_generation: status.observed_generation,
            }),
            metadata: old.metadata,
        }
    }

    fn from_stored(mut object: Object) -> Old {
        let spec = object.spec;
        let status = object.status.unwrap_or_default();
        let mut annotations = object.metadata.annotations.take().unwrap_or_default();
        let mut put = |name: &str, value: Option<Value>| {
            // What somebody else left there would be taken for ours on the way back.
            annotations.remove(name);
            if let Some(value) = value {
                annotations.insert(name.to_owned(), value.to_string());
            }
        };
        let others: Vec<&MetricSpec> =
            list(&spec.metrics).iter().filter(|metric| processors(metric).is_none()).collect();
        put(METRICS, aged_all(&others, Part::Spec));
        let current: Vec<&MetricStatus> = list(&status.current_metrics).iter().collect();
        put(CURRENT_METRICS, aged_all(&current, Part::Status));
        let behavior = spec.behavior.as_ref().and_then(|behavior| serde_json::to_value(behavior).ok());
        put(BEHAVIOR, behavior.map(|behavior| recased(behavior, str::to_ascii_uppercase)));
        let conditions = status.conditions.as_ref().filter(|conditions| !conditions.is_empty());
        put(CONDITIONS, conditions.and_then(|conditions| serde_json::to_value(conditions).ok()));
        if !annotations.is_empty() {
            object.metadata.annotations = Some(annotations);
        }
        let target = spec.scale_target_ref;
        Old {
            spec: OldSpec {
                max_replicas: spec.max_replicas,
                min_replicas: spec.min_replicas,
                scale_target_ref: OldReference {
                    api_version: target.api_version,
                    kind: target.kind,
                    name: target.name,
                },
                target_cpu_utilization_percentage: list(&spec.metrics).iter().find_map(processors),
            },
            status: Some(OldStatus {
                current_cpu_utilization_percentage: list(&status.current_metrics).iter().find_map(|metric| {
                    let resource = metric.resource.as_ref().filter(|resource| resource.name == "cpu")?;
                    resource.current.average_utilization
                }),
                current_replicas: status.current_replicas.unwrap_or_default(),
                desired_replicas: status.desired_replicas,
                last_scale_time: status.last_scale_time,
                observed_generation: status.observed_generation,
            }),
            metadata: object.metadata,
        }
    }
}

/// The percentage of a metric that v1 has a field for.
fn processors(metric: &MetricSpec) -> Option<i32> {
    let resource = metric.resource.as_ref().filter(|resource| metric.type_ == "Resource" && resource.name == "cpu")?;
    resource.target.average_utilization
}

fn current_utilization(percent: i32) -> MetricStatus {
    MetricStatus {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricStatus {
            name: "cpu".to_owned(),
            current: MetricValueStatus { average_utilization: Some(percent), ..MetricValueStatus::default() },
        }),
        ..MetricStatus::default()
    }
}

/// Which of the two a metric is: what is desired, or what is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Spec,
    Status,
}

/// How a source of metrics is written in v1: flat.
struct Source {
    /// Its field in a metric.
    name: &'static str,
    /// What v1 calls the selector of a named metric.
    selector: Option<&'static str>,
    /// Fields of the same meaning: new and old.
    renamed: &'static [(&'static str, &'static str)],
    /// Numbers: field of `target` or `current`, its name in a spec, its name in a status.
    values: &'static [(&'static str, &'static str, &'static str)],
    /// The numbers that v1 always writes, in a spec and in a status.
    always: [Option<&'static str>; 2],
}

const RESOURCE_VALUES: &[(&str, &str, &str)] = &[
    ("averageUtilization", "targetAverageUtilization", "currentAverageUtilization"),
    ("averageValue", "targetAverageValue", "currentAverageValue"),
];

const SOURCES: [Source; 5] = [
    Source {
        name: "resource",
        selector: None,
        renamed: &[("name", "name")],
        values: RESOURCE_VALUES,
        always: [None, Some("currentAverageValue")],
    },
    Source {
        name: "containerResource",
        selector: None,
        renamed: &[("name", "name"), ("container", "container")],
        values: RESOURCE_VALUES,
        always: [None, Some("currentAverageValue")],
    },
    Source {
        name: "pods",
        selector: Some("selector"),
        renamed: &[],
        values: &[("averageValue", "targetAverageValue", "currentAverageValue")],
        always: [Some("targetAverageValue"), Some("currentAverageValue")],
    },
    Source {
        name: "object",
        selector: Some("selector"),
        renamed: &[("describedObject", "target")],
        values: &[("averageValue", "averageValue", "averageValue"), ("value", "targetValue", "currentValue")],
        always: [Some("targetValue"), Some("currentValue")],
    },
    Source {
        name: "external",
        selector: Some("metricSelector"),
        renamed: &[],
        values: &[
            ("averageValue", "targetAverageValue", "currentAverageValue"),
            ("value", "targetValue", "currentValue"),
        ],
        always: [None, Some("currentValue")],
    },
];

impl Part {
    /// The field of a source that holds the numbers.
    fn field(self) -> &'static str {
        match self {
            Self::Spec => "target",
            Self::Status => "current",
        }
    }

    fn old_name(self, value: &(&'static str, &'static str, &'static str)) -> &'static str {
        match self {
            Self::Spec => value.1,
            Self::Status => value.2,
        }
    }
}

/// Metrics as v1 writes them; nothing when there are none.
fn aged_all(metrics: &[impl Serialize], part: Part) -> Option<Value> {
    let aged = metrics.iter().filter_map(|metric| Some(aged(&serde_json::to_value(metric).ok()?, part)));
    Some(Value::Array(aged.collect())).filter(|_| !metrics.is_empty())
}

fn aged(metric: &Value, part: Part) -> Value {
    let mut out = Map::from_iter([("type".to_owned(), metric["type"].clone())]);
    for source in SOURCES.iter().filter(|source| metric[source.name].is_object()) {
        let new = &metric[source.name];
        let mut old = Map::new();
        let mut put = |name: &str, value: &Value| {
            if !value.is_null() {
                old.insert(name.to_owned(), value.clone());
            }
        };
        for (from, to) in source.renamed {
            put(to, &new[*from]);
        }
        if let Some(selector) = source.selector {
            put("metricName", &new["metric"]["name"]);
            put(selector, &new["metric"]["selector"]);
        }
        for value in source.values {
            put(part.old_name(value), &new[part.field()][value.0]);
        }
        if let Some(name) = source.always[usize::from(part == Part::Status)] {
            old.entry(name).or_insert_with(|| "0".into());
        }
        out.insert(source.name.to_owned(), Value::Object(old));
    }
    Value::Object(out)
}

/// Metrics as v2 has them; what makes no sense is left out, as nothing can be reported from here.
fn renewed_all<T: DeserializeOwned>(metrics: Value, part: Part) -> Vec<T> {
    let Value::Array(metrics) = metrics else { return Vec::new() };
    metrics.into_iter().filter_map(|metric| decoded(renewed(&metric, part))).collect()
}

fn renewed(metric: &Value, part: Part) -> Value {
    let mut out = Map::from_iter([("type".to_owned(), metric["type"].clone())]);
    for source in SOURCES.iter().filter(|source| metric[source.name].is_object()) {
        let old = &metric[source.name];
        let mut new = Map::new();
        for (to, from) in source.renamed {
            new.insert((*to).to_owned(), old[*from].clone());
        }
        if let Some(selector) = source.selector {
            let mut identifier = Map::from_iter([("name".to_owned(), old["metricName"].clone())]);
            if !old[selector].is_null() {
                identifier.insert("selector".to_owned(), old[selector].clone());
            }
            new.insert("metric".to_owned(), Value::Object(identifier));
        }
        let always = source.always[usize::from(part == Part::Status)];
        let mut values = Map::new();
        for value in source.values {
            let (name, number) = (part.old_name(value), &old[part.old_name(value)]);
            // A zero beside another number is one that could not be left out.
            let padding = Some(name) == always && number == &json!("0") && !values.is_empty();
            if !number.is_null() && !padding {
                values.insert(value.0.to_owned(), number.clone());
            }
        }
        if part == Part::Spec {
            let kinds = [("averageUtilization", "Utilization"), ("averageValue", "AverageValue"), ("value", "Value")];
            if let Some((_, kind)) = kinds.iter().find(|(name, _)| values.contains_key(*name)) {
                values.insert("type".to_owned(), (*kind).into());
            }
        }
        new.insert(part.field().to_owned(), Value::Object(values));
        out.insert(source.name.to_owned(), Value::Object(new));
    }
    Value::Object(out)
}

/// JSON with the first letter of every name in another case: upstream writes behaviours under the names of Go's fields.
fn recased(value: Value, case: fn(&str) -> String) -> Value {
    match value {
        Value::Object(map) => {
            let entries = map.into_iter().map(|(name, value)| {
                let first = name.chars().next().map_or(0, char::len_utf8);
                let (first, rest) = name.split_at(first);
                (format!("{}{rest}", case(first)), recased(value, case))
            });
            Value::Object(entries.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(|item| recased(item, case)).collect()),
        other => other,
    }
}

fn decoded<T: DeserializeOwned>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}
