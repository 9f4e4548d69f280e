//! policy/v1 PodDisruptionBudget.

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget as Object, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::field::{ErrorList, Path};
use registry::kind::{Column, Descriptor, Kind, Subresource, cell_age, cell_name, spec_and_status};
use serde_json::Value;

use super::check::{Report, label_selector, non_negative, one_of};
use super::workload::{at_most_all, positive_count_or_percent};

/// PodDisruptionBudgets.
pub(crate) struct PodDisruptionBudget;

impl Kind for PodDisruptionBudget {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["pdb"],
        subresources: &[Subresource::Status],
        unconditional_update: false,
        ..Descriptor::namespaced("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
    };

    spec_and_status!();

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let empty = PodDisruptionBudgetSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&empty);
        let path = Path::new("spec");
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            errors.invalid(&path, spec, "minAvailable and maxUnavailable cannot be both set");
        }
        for (name, value) in [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)] {
            if let Some(value) = value {
                positive_count_or_percent(&mut errors, &path.child(name), value);
                at_most_all(&mut errors, &path.child(name), value);
            }
        }
        label_selector(&mut errors, &path.child("selector"), spec.selector.as_ref());
        if let Some(policy) = &spec.unhealthy_pod_eviction_policy {
            let path = path.child("unhealthyPodEvictionPolicy");
            one_of(&mut errors, &path, policy, &["AlwaysAllow", "IfHealthyBudget"]);
        }
        errors
    }

    fn validate_status(new: &Object, _old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(status) = &new.status else { return errors };
        for (name, value) in [
            ("disruptionsAllowed", status.disruptions_allowed),
            ("currentHealthy", status.current_healthy),
            ("desiredHealthy", status.desired_healthy),
            ("expectedPods", status.expected_pods),
        ] {
            non_negative(&mut errors, &Path::new("status").child(name), value.unwrap_or_default());
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("Min Available", "How many of the selected pods must stay available."),
            Column::string("Max Unavailable", "How many of the selected pods may be unavailable."),
            Column::integer("Allowed Disruptions", "How many pods may be evicted now."),
            Column::age(),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let text = |value: Option<&IntOrString>| match value {
            Some(IntOrString::Int(number)) => number.to_string(),
            Some(IntOrString::String(percent)) => percent.clone(),
            None => "N/A".to_owned(),
        };
        let spec = object.spec.as_ref();
        let allowed = object.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or_default();
        vec![
            cell_name(&object.metadata),
            text(spec.and_then(|spec| spec.min_available.as_ref())).into(),
            text(spec.and_then(|spec| spec.max_unavailable.as_ref())).into(),
            allowed.into(),
            cell_age(&object.metadata, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{CREATED, errors, row};

    fn budget(spec: &Value) -> Value {
        json!({ "metadata": { "name": "x", "namespace": "default", "creationTimestamp": CREATED }, "spec": spec })
    }

    #[test]
    fn rules() {
        for (spec, expect) in [
            (json!({ "minAvailable": 1, "selector": { "matchLabels": { "a": "b" } } }), vec![]),
            (json!({ "maxUnavailable": "50%" }), vec![]),
            (
                json!({ "maxUnavailable": -1 }),
                vec!["spec.maxUnavailable: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                json!({ "minAvailable": "101%" }),
                vec!["spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%"],
            ),
            (
                json!({ "unhealthyPodEvictionPolicy": "Never" }),
                vec![
                    "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
                ],
            ),
        ] {
            assert_eq!(errors::<PodDisruptionBudget>(budget(&spec)), expect, "{spec}");
        }
        let both = errors::<PodDisruptionBudget>(budget(&json!({ "minAvailable": 1, "maxUnavailable": 1 })));
        assert!(both[0].ends_with("minAvailable and maxUnavailable cannot be both set"), "{both:?}");
    }

    #[test]
    fn cells() {
        let cells = row::<PodDisruptionBudget>(budget(&json!({ "minAvailable": "50%" })));
        assert_eq!(cells[..4], [json!("x"), json!("50%"), json!("N/A"), json!(0)]);
    }
}
