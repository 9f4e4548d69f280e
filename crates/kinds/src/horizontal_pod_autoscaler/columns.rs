//! The cell that shows each metric as it is and as it should be.

use k8s_openapi::api::autoscaling::v2::{MetricSpec, MetricStatus, MetricTarget, MetricValueStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// So many metrics are shown; the others are counted.
const SHOWN: usize = 2;
const UNKNOWN: &str = "<unknown>";

/// `cpu: 12%/50%, 5/10 + 1 more...`
pub(super) fn targets(specs: &[MetricSpec], statuses: &[MetricStatus]) -> String {
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let shown: Vec<String> =
        specs.iter().take(SHOWN).enumerate().map(|(at, spec)| cell(spec, statuses.get(at))).collect();
    let shown = shown.join(", ");
    match specs.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

fn cell(spec: &MetricSpec, status: Option<&MetricStatus>) -> String {
    let current = |of: fn(&MetricStatus) -> Option<&MetricValueStatus>| status.and_then(of);
    match &*spec.type_ {
        "Resource" => {
            let Some(source) = &spec.resource else { return UNKNOWN.to_owned() };
            resource(&source.name, &source.target, current(|status| status.resource.as_ref().map(|one| &one.current)))
        }
        "ContainerResource" => {
            let Some(source) = &spec.container_resource else { return UNKNOWN.to_owned() };
            let current = current(|status| status.container_resource.as_ref().map(|one| &one.current));
            resource(&source.name, &source.target, current)
        }
        "Pods" => {
            let Some(source) = &spec.pods else { return UNKNOWN.to_owned() };
            let current = current(|status| status.pods.as_ref().map(|one| &one.current));
            format!("{}/{}", average(current), quantity(source.target.average_value.as_ref()))
        }
        "Object" => {
            let Some(source) = &spec.object else { return UNKNOWN.to_owned() };
            value(&source.target, current(|status| status.object.as_ref().map(|one| &one.current)))
        }
        "External" => {
            let Some(source) = &spec.external else { return UNKNOWN.to_owned() };
            value(&source.target, current(|status| status.external.as_ref().map(|one| &one.current)))
        }
        _ => "<unknown type>".to_owned(),
    }
}

fn resource(name: &str, target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    if let Some(wanted) = &target.average_value {
        return format!("{name}: {}/{}", average(current), wanted.0);
    }
    let percent = |percent: i32| format!("{percent}%");
    let is = current.and_then(|current| current.average_utilization).map_or_else(|| UNKNOWN.to_owned(), percent);
    let wanted = target.average_utilization.map_or_else(|| "<auto>".to_owned(), percent);
    format!("{name}: {is}/{wanted}")
}

fn value(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    match &target.average_value {
        Some(wanted) => format!("{}/{} (avg)", average(current), wanted.0),
        None => {
            let is = quantity(current.and_then(|current| current.value.as_ref()));
            format!("{is}/{}", quantity(target.value.as_ref()))
        }
    }
}

fn average(current: Option<&MetricValueStatus>) -> &str {
    quantity(current.and_then(|current| current.average_value.as_ref()))
}

fn quantity(quantity: Option<&Quantity>) -> &str {
    quantity.map_or(UNKNOWN, |quantity| quantity.0.as_str())
}
