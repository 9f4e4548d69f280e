//! apps/v1 DaemonSet.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet as Object, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::field::{ErrorList, Path};
use registry::kind::{Column, Context, Descriptor, Kind, Subresource, bump_generation, cell_age, cell_name};
use serde_json::Value;

use super::check::{Report, immutable, non_negative};
use super::common::{
    container_cells, container_columns, default_text, entry, format_labels, format_selector, template_containers, text,
};
use super::pod::{default_template, template_warnings};
use super::workload::{at_most_all, is_nothing, positive_count_or_percent, validate_selected_template};

/// Counts the changes of the template; what is left of a field that v1 no longer has.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// DaemonSets.
pub(crate) struct DaemonSet;

impl Kind for DaemonSet {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["ds"],
        categories: &["all"],
        subresources: &[Subresource::Status],
        ..Descriptor::namespaced("apps", "v1", "DaemonSet", "daemonsets")
    };

    fn default(object: &mut Object) {
        let spec = object.spec.get_or_insert_default();
        let strategy = spec.update_strategy.get_or_insert_default();
        default_text(&mut strategy.type_, "RollingUpdate");
        if text(&strategy.type_) == "RollingUpdate" {
            let update = strategy.rolling_update.get_or_insert_default();
            update.max_unavailable.get_or_insert(IntOrString::Int(1));
            update.max_surge.get_or_insert(IntOrString::Int(0));
        }
        spec.revision_history_limit.get_or_insert(10);
        default_template(&mut spec.template);
    }

    fn prepare_create(object: &mut Object, _context: &Context<'_>) {
        object.status = Some(DaemonSetStatus::default());
        object.metadata.generation = Some(1);
        set_template_generation(object, 1);
    }

    fn prepare_update(new: &mut Object, old: &Object) {
        new.status.clone_from(&old.status);
        let template = |object: &Object| object.spec.as_ref().map(|spec| spec.template.clone());
        let before = entry(&old.metadata.annotations, TEMPLATE_GENERATION).and_then(|text| text.parse().ok());
        let generation: i64 = before.unwrap_or(1);
        set_template_generation(new, if template(new) == template(old) { generation } else { generation + 1 });
        let changed = new.spec != old.spec;
        bump_generation(&mut new.metadata, changed);
    }

    fn prepare_status(new: &mut Object, old: &Object) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let empty = DaemonSetSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&empty);
        let path = Path::new("spec");
        validate_selected_template(&mut errors, &path, &spec.selector, &spec.template, "DaemonSet");
        non_negative(&mut errors, &path.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or_default());
        if let Some(strategy) = &spec.update_strategy {
            validate_strategy(&mut errors, &path.child("updateStrategy"), strategy);
        }
        if let Some(limit) = spec.revision_history_limit {
            non_negative(&mut errors, &path.child("revisionHistoryLimit"), limit);
        }
        errors
    }

    fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
        let template = new.spec.as_ref().map(|spec| &spec.template);
        template_warnings(new, old, false, &["spec", "template"], template)
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            immutable(&mut errors, &Path::new("spec").child("selector"), &new.selector, &old.selector);
        }
        errors
    }

    fn validate_status(new: &Object, _old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(status) = &new.status else { return errors };
        for (name, value) in [
            ("currentNumberScheduled", status.current_number_scheduled),
            ("numberMisscheduled", status.number_misscheduled),
            ("desiredNumberScheduled", status.desired_number_scheduled),
            ("numberReady", status.number_ready),
            ("updatedNumberScheduled", status.updated_number_scheduled.unwrap_or_default()),
            ("numberAvailable", status.number_available.unwrap_or_default()),
            ("numberUnavailable", status.number_unavailable.unwrap_or_default()),
        ] {
            non_negative(&mut errors, &Path::new("status").child(name), value);
        }
        errors
    }

    fn columns() -> Vec<Column> {
        let [containers, images] = container_columns();
        vec![
            Column::name(),
            Column::integer("Desired", "Nodes that should run a pod."),
            Column::integer("Current", "Nodes that run a pod and should."),
            Column::integer("Ready", "Nodes whose pod is ready."),
            Column::integer("Up-to-date", "Nodes whose pod is made of the current template."),
            Column::integer("Available", "Nodes whose pod has been ready for long enough."),
            Column::string("Node Selector", "Labels of the nodes that should run a pod."),
            Column::age(),
            containers,
            images,
            Column::wide("Selector", "Selector of the pods."),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let (no_spec, no_status) = (DaemonSetSpec::default(), DaemonSetStatus::default());
        let spec = object.spec.as_ref().unwrap_or(&no_spec);
        let status = object.status.as_ref().unwrap_or(&no_status);
        let [names, images] = container_cells(template_containers(&spec.template));
        let node_selector = spec.template.spec.as_ref().and_then(|spec| spec.node_selector.clone());
        vec![
            cell_name(&object.metadata),
            status.desired_number_scheduled.into(),
            status.current_number_scheduled.into(),
            status.number_ready.into(),
            status.updated_number_scheduled.unwrap_or_default().into(),
            status.number_available.unwrap_or_default().into(),
            format_labels(&node_selector).into(),
            cell_age(&object.metadata, now),
            names,
            images,
            format_selector(&spec.selector).into(),
        ]
    }
}

fn set_template_generation(object: &mut Object, generation: i64) {
    let annotations = object.metadata.annotations.get_or_insert_with(BTreeMap::new);
    annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string());
}

fn validate_strategy(errors: &mut ErrorList, path: &Path, strategy: &DaemonSetUpdateStrategy) {
    let field = path.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.required(&field, ""),
        ("RollingUpdate", Some(update)) => {
            let zero = IntOrString::Int(0);
            let unavailable = update.max_unavailable.as_ref().unwrap_or(&zero);
            let surge = update.max_surge.as_ref().unwrap_or(&zero);
            for (name, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
                positive_count_or_percent(errors, &field.child(name), value);
                at_most_all(errors, &field.child(name), value);
            }
            match (is_nothing(unavailable), is_nothing(surge)) {
                (false, false) => {
                    errors.invalid(&field.child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero");
                }
                (true, true) => {
                    errors.required(&field.child("maxUnavailable"), "cannot be 0 when maxSurge is 0");
                }
                _ => {}
            }
        }
        (other, _) => errors.not_supported(&path.child("type"), other, &["RollingUpdate", "OnDelete"]),
    }
}
