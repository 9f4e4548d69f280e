//! The status of an autoscaler: conditions in upstream's words, and the metrics as they are.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, HorizontalPodAutoscalerCondition,
    HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus, MetricValueStatus, ObjectMetricStatus, PodsMetricStatus,
    ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use machinery::quantity::Quantity;

use crate::meta::ConditionStatus;

/// The types of conditions.
pub(super) const ABLE_TO_SCALE: &str = "AbleToScale";
pub(super) const SCALING_ACTIVE: &str = "ScalingActive";
pub(super) const SCALING_LIMITED: &str = "ScalingLimited";

/// Sets a condition; its time moves only with its status.
pub(super) fn set(
    status: &mut HorizontalPodAutoscalerStatus,
    type_: &str,
    is: bool,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let at = conditions.iter().position(|condition| condition.type_ == type_).unwrap_or_else(|| {
        conditions.push(HorizontalPodAutoscalerCondition { type_: type_.to_owned(), ..Default::default() });
        conditions.len() - 1
    });
    let condition = &mut conditions[at];
    let is = ConditionStatus::from(is).as_str();
    if condition.status != is {
        // The API keeps whole seconds.
        condition.last_transition_time = Some(Time(whole_seconds(now)));
    }
    is.clone_into(&mut condition.status);
    condition.reason = Some(reason.to_owned());
    condition.message = Some(message.into());
}

/// A time as the API keeps it.
pub(super) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// What a metric is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Current {
    /// Percent of what is requested.
    pub(super) utilization: Option<i32>,
    /// On average over the pods, in thousandths.
    pub(super) average: Option<i64>,
    /// As a whole, in thousandths.
    pub(super) value: Option<i64>,
}

/// The status of one metric.
pub(super) fn metric(spec: &MetricSpec, current: Current) -> MetricStatus {
    let milli = |value: i64| WireQuantity::from(Quantity::from_milli(value));
    let current = MetricValueStatus {
        average_utilization: current.utilization,
        average_value: current.average.map(milli),
        value: current.value.map(milli),
    };
    let mut status = MetricStatus { type_: spec.type_.clone(), ..MetricStatus::default() };
    if let Some(source) = &spec.resource {
        status.resource = Some(ResourceMetricStatus { name: source.name.clone(), current });
    } else if let Some(source) = &spec.container_resource {
        let (container, name) = (source.container.clone(), source.name.clone());
        status.container_resource = Some(ContainerResourceMetricStatus { container, current, name });
    } else if let Some(source) = &spec.pods {
        status.pods = Some(PodsMetricStatus { current, metric: source.metric.clone() });
    } else if let Some(source) = &spec.object {
        let described_object = source.described_object.clone();
        status.object = Some(ObjectMetricStatus { current, described_object, metric: source.metric.clone() });
    } else if let Some(source) = &spec.external {
        status.external = Some(ExternalMetricStatus { current, metric: source.metric.clone() });
    }
    status
}
