//! core/v1 LimitRange. Enforced by `admission::limit_ranger`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LimitRange as Object, LimitRangeItem};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use machinery::field::{ErrorList, Path};
use machinery::quantity::Quantity;
use machinery::validate;
use registry::kind::{Column, Descriptor, Kind, cell_name};
use serde_json::Value;

use super::check::Report;
use super::common::{canonical_quantities, entries, entry, quantity};
use super::pod::resources::resource_name;

/// Limit ranges.
pub(crate) struct LimitRange;

type Amounts = Option<BTreeMap<String, WireQuantity>>;

impl Kind for LimitRange {
    type Object = Object;

    const DESCRIPTOR: Descriptor =
        Descriptor { short_names: &["limits"], ..Descriptor::namespaced("", "v1", "LimitRange", "limitranges") };

    fn default(object: &mut Object) {
        for item in &mut object.spec.get_or_insert_default().limits {
            for amounts in [
                &mut item.default,
                &mut item.default_request,
                &mut item.max,
                &mut item.max_limit_request_ratio,
                &mut item.min,
            ] {
                canonical_quantities(amounts);
            }
            if item.type_ == "Container" {
                fill(&mut item.default, &item.max);
                fill(&mut item.default_request, &item.default);
                fill(&mut item.default_request, &item.min);
            }
        }
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec").child("limits");
        let mut seen = BTreeSet::new();
        for (index, item) in object.spec.iter().flat_map(|spec| &spec.limits).enumerate() {
            let path = path.index(index);
            if !["Container", "Pod", "PersistentVolumeClaim"].contains(&item.type_.as_str()) {
                let messages = validate::qualified_name(&item.type_);
                if messages.is_empty() && !item.type_.contains('/') {
                    errors.invalid(
                        &path.child("type"),
                        &item.type_,
                        "must be a standard limit type or fully qualified",
                    );
                } else {
                    errors.messages(&path.child("type"), &item.type_, messages);
                }
            }
            if !seen.insert(&item.type_) {
                errors.duplicate(&path.child("type"), &item.type_);
            }
            validate_item(&mut errors, &path, item);
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![Column::name(), Column::string("Created At", "When it was made.")]
    }

    fn row(object: &Object, _now: Timestamp) -> Vec<Value> {
        let created = object.metadata.creation_timestamp.as_ref();
        vec![cell_name(&object.metadata), created.map_or_else(String::new, |created| created.0.to_string()).into()]
    }
}

/// Takes over what is not there yet.
fn fill(amounts: &mut Amounts, from: &Amounts) {
    for (name, amount) in entries(from) {
        amounts.get_or_insert_default().entry(name.clone()).or_insert_with(|| amount.clone());
    }
}

fn validate_item(errors: &mut ErrorList, path: &Path, item: &LimitRangeItem) {
    let of = |amounts: &Amounts, name: &str| entry(amounts, name).and_then(quantity);
    for (field, amounts) in [("default", &item.default), ("defaultRequest", &item.default_request)] {
        if item.type_ == "Pod" && amounts.as_ref().is_some_and(|amounts| !amounts.is_empty()) {
            errors.forbidden(&path.child(field), "may not be specified when `type` is 'Pod'");
        }
    }
    if item.type_ == "PersistentVolumeClaim" && of(&item.min, "storage").or(of(&item.max, "storage")).is_none() {
        errors.required(
            &path.child("limits"),
            "either minimum or maximum storage value is required, but neither was provided",
        );
    }
    let fields = [
        ("max", &item.max),
        ("min", &item.min),
        ("default", &item.default),
        ("defaultRequest", &item.default_request),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ];
    let names: BTreeSet<&String> =
        fields.iter().flat_map(|(_, amounts)| entries(amounts)).map(|(name, _)| name).collect();
    for (field, amounts) in fields {
        for (name, _) in entries(amounts) {
            resource_name(errors, &path.child(field).key(name), name);
        }
    }
    for name in names {
        // Each may not be more than the next of those that are given.
        let rising = [
            ("min", "min", of(&item.min, name)),
            ("defaultRequest", "default request", of(&item.default_request, name)),
            ("default", "default", of(&item.default, name)),
            ("max", "max", of(&item.max, name)),
        ];
        for (index, (field, word, low)) in rising.iter().enumerate() {
            for (_, other, high) in &rising[index + 1..] {
                if let (Some(low), Some(high)) = (low, high)
                    && low > high
                {
                    // Upstream names the minimum in one case and the default in the others.
                    let field = if *field == "min" && *other != "max" { "min" } else { field };
                    let why = format!("{word} value {low} is greater than {other} value {high}");
                    errors.invalid(&path.child(field).key(name), low.to_string(), why);
                }
            }
        }
        if let Some(ratio) = of(&item.max_limit_request_ratio, name) {
            let path = path.child("maxLimitRequestRatio").key(name);
            if ratio < Quantity::from_milli(1_000) {
                errors.invalid(&path, ratio.to_string(), format!("ratio {ratio} is less than 1"));
            }
            if let (Some(min), Some(max)) = (of(&item.min, name), of(&item.max, name))
                && min > Quantity::ZERO
                && ratio.as_f64() > max.as_f64() / min.as_f64()
            {
                let most = max.as_f64() / min.as_f64();
                errors.invalid(&path, ratio.to_string(), format!("ratio {ratio} is greater than max/min = {most:.6}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{CREATED, check_defaults, errors, row};

    fn range(limits: Value) -> Value {
        json!({ "metadata": { "name": "l", "namespace": "n", "creationTimestamp": CREATED }, "spec": { "limits": limits } })
    }

    #[test]
    fn defaults_come_from_the_bounds() {
        check_defaults::<LimitRange>(
            range(json!([{ "type": "Container", "max": { "cpu": "1" }, "min": { "memory": "1Mi", "cpu": "10m" } }])),
            &range(json!([{
                "type": "Container", "max": { "cpu": "1" }, "min": { "memory": "1Mi", "cpu": "10m" },
                "default": { "cpu": "1" }, "defaultRequest": { "cpu": "1", "memory": "1Mi" },
            }])),
        );
        let pod = range(json!([{ "type": "Pod", "max": { "cpu": "1" } }]));
        check_defaults::<LimitRange>(pod.clone(), &pod);
    }

    #[test]
    fn what_is_refused() {
        for (limits, expect) in [
            (json!([{ "type": "Container", "min": { "cpu": "1" }, "max": { "cpu": "2" } }]), vec![]),
            (
                json!([{ "type": "Pod", "min": { "cpu": "2" }, "max": { "cpu": "1" } }]),
                vec!["spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"],
            ),
            (
                json!([{ "type": "Pod", "default": { "cpu": "1" } }]),
                vec!["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
            ),
            (
                json!([{ "type": "PersistentVolumeClaim" }]),
                vec![
                    "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
                ],
            ),
            (json!([{ "type": "Pod" }, { "type": "Pod" }]), vec!["spec.limits[1].type: Duplicate value: \"Pod\""]),
            (
                json!([{ "type": "Pods" }]),
                vec!["spec.limits[0].type: Invalid value: \"Pods\": must be a standard limit type or fully qualified"],
            ),
            (
                json!([{ "type": "Pod", "maxLimitRequestRatio": { "cpu": "500m" } }]),
                vec!["spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1"],
            ),
        ] {
            assert_eq!(errors::<LimitRange>(range(limits)), expect);
        }
        assert_eq!(row::<LimitRange>(range(json!([]))), ["l", CREATED].map(Value::from));
    }
}
