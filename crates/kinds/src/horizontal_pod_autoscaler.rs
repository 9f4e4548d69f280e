//! HorizontalPodAutoscalers: stored as autoscaling/v2, served as v2 and, through [`legacy`], as v1.

mod columns;
mod legacy;
#[cfg(test)]
mod tests;
mod validation;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler as Object, HorizontalPodAutoscalerStatus, MetricSpec,
    MetricTarget, ResourceMetricSource,
};
use machinery::field::{ErrorList, Path};
use registry::kind::{Column, Context, Descriptor, Kind, Subresource, cell_age, cell_name, status_apart};
use serde_json::Value;

pub(crate) use self::legacy::HorizontalPodAutoscalerV1;
use super::check::non_negative;
use super::common::canonical_quantity;

/// What an autoscaler without metrics keeps processors at, in percent of what is requested.
const DEFAULT_UTILIZATION: i32 = 80;

/// HorizontalPodAutoscalers.
pub(crate) struct HorizontalPodAutoscaler;

impl Kind for HorizontalPodAutoscaler {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["hpa"],
        categories: &["all"],
        subresources: &[Subresource::Status],
        ..Descriptor::namespaced("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
    };

    fn default(object: &mut Object) {
        let spec = &mut object.spec;
        spec.min_replicas.get_or_insert(1);
        let metrics = spec.metrics.get_or_insert_default();
        if metrics.is_empty() {
            metrics.push(utilization(DEFAULT_UTILIZATION));
        }
        metrics.iter_mut().filter_map(target_mut).for_each(canonical_target);
        if let Some(behavior) = &mut spec.behavior {
            let policy = |kind: &str, value| HPAScalingPolicy { type_: kind.to_owned(), value, period_seconds: 15 };
            let up = behavior.scale_up.get_or_insert_default();
            up.stabilization_window_seconds.get_or_insert(0);
            complete(up, || vec![policy("Pods", 4), policy("Percent", 100)]);
            // How long it waits before it goes down is the controller's to say.
            complete(behavior.scale_down.get_or_insert_default(), || vec![policy("Percent", 100)]);
        }
    }

    fn prepare_create(object: &mut Object, _context: &Context<'_>) {
        object.status = Some(HorizontalPodAutoscalerStatus::default());
    }

    status_apart!();

    fn validate(object: &Object) -> ErrorList {
        validation::validate(object)
    }

    fn validate_create(object: &Object) -> ErrorList {
        validation::validate_target_group(object, None)
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        validation::validate_target_group(new, Some(old))
    }

    fn validate_status(new: &Object, _old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(status) = &new.status else { return errors };
        let path = Path::new("status");
        non_negative(&mut errors, &path.child("currentReplicas"), status.current_replicas.unwrap_or_default());
        non_negative(&mut errors, &path.child("desiredReplicas"), status.desired_replicas);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("Reference", "What is scaled."),
            Column::string("Targets", "Each metric as it is and as it should be."),
            Column::string("MinPods", "The fewest replicas."),
            Column::string("MaxPods", "The most replicas."),
            Column::string("Replicas", "The replicas there are."),
            Column::age(),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = &object.spec;
        let status = object.status.as_ref();
        let statuses = status.and_then(|status| status.current_metrics.as_deref()).unwrap_or_default();
        vec![
            cell_name(&object.metadata),
            format!("{}/{}", spec.scale_target_ref.kind, spec.scale_target_ref.name).into(),
            columns::targets(spec.metrics.as_deref().unwrap_or_default(), statuses).into(),
            spec.min_replicas.map_or_else(|| "<unset>".to_owned(), |least| least.to_string()).into(),
            spec.max_replicas.into(),
            status.and_then(|status| status.current_replicas).unwrap_or_default().into(),
            cell_age(&object.metadata, now),
        ]
    }
}

/// Processors at so many percent of what is requested.
fn utilization(percent: i32) -> MetricSpec {
    MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource {
            name: "cpu".to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(percent),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

fn target_mut(metric: &mut MetricSpec) -> Option<&mut MetricTarget> {
    let MetricSpec { resource, container_resource, pods, object, external, .. } = metric;
    resource
        .as_mut()
        .map(|source| &mut source.target)
        .or(container_resource.as_mut().map(|source| &mut source.target))
        .or(pods.as_mut().map(|source| &mut source.target))
        .or(object.as_mut().map(|source| &mut source.target))
        .or(external.as_mut().map(|source| &mut source.target))
}

fn canonical_target(target: &mut MetricTarget) {
    [&mut target.value, &mut target.average_value].into_iter().flatten().for_each(canonical_quantity);
}

fn complete(rules: &mut HPAScalingRules, policies: impl FnOnce() -> Vec<HPAScalingPolicy>) {
    rules.select_policy.get_or_insert_with(|| "Max".to_owned());
    rules.policies.get_or_insert_with(policies);
    rules.tolerance.iter_mut().for_each(canonical_quantity);
}
