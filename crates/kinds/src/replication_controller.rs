//! core/v1 ReplicationController, the ReplicaSet's forerunner.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController as Object, ReplicationControllerSpec, ReplicationControllerStatus,
};
use machinery::field::{ErrorList, Path};
use registry::kind::{Column, Descriptor, Kind, ScaleView, Subresource, spec_and_status};
use serde_json::Value;

use super::check::{Report, non_negative};
use super::common::{count, entries, format_labels, template_labels};
use super::pod::{default_template, template_warnings, validate_template};
use super::workload::{mismatch, replica_columns, replica_row, validate_counts, validate_restart};

/// ReplicationControllers.
pub(crate) struct ReplicationController;

impl Kind for ReplicationController {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["rc"],
        categories: &["all"],
        subresources: &[Subresource::Scale, Subresource::Status],
        selectable: &["status.replicas"],
        orphan_by_default: true,
        ..Descriptor::namespaced("", "v1", "ReplicationController", "replicationcontrollers")
    };

    fn default(object: &mut Object) {
        let spec = object.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        let Some(template) = &mut spec.template else { return };
        default_template(template);
        // This old kind takes what it is not told from its template.
        let labels = template_labels(template);
        if !labels.is_empty() {
            if count(&spec.selector) == 0 {
                spec.selector = Some(labels.clone());
            }
            if count(&object.metadata.labels) == 0 {
                object.metadata.labels = Some(labels);
            }
        }
    }

    spec_and_status!();

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let empty = ReplicationControllerSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&empty);
        let path = Path::new("spec");
        non_negative(&mut errors, &path.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or_default());
        if count(&spec.selector) == 0 {
            errors.required(&path.child("selector"), "");
        }
        non_negative(&mut errors, &path.child("replicas"), spec.replicas.unwrap_or_default());
        let path = path.child("template");
        match &spec.template {
            None => errors.required(&path, ""),
            Some(template) => validate_selected(&mut errors, &path, spec, template),
        }
        errors
    }

    fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
        let template = new.spec.as_ref().and_then(|spec| spec.template.as_ref());
        template_warnings(new, old, true, &["spec", "template"], template)
    }

    fn validate_status(new: &Object, _old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(status) = &new.status else { return errors };
        validate_counts(
            &mut errors,
            status.replicas,
            &[
                ("fullyLabeledReplicas", status.fully_labeled_replicas),
                ("readyReplicas", status.ready_replicas),
                ("availableReplicas", status.available_replicas),
            ],
        );
        errors
    }

    fn fields(object: &Object) -> Vec<(&'static str, String)> {
        let replicas = object.status.as_ref().map_or(0, |status| status.replicas);
        vec![("status.replicas", replicas.to_string())]
    }

    fn columns() -> Vec<Column> {
        replica_columns("Labels of the pods.")
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let (no_spec, no_status) = (ReplicationControllerSpec::default(), ReplicationControllerStatus::default());
        let spec = object.spec.as_ref().unwrap_or(&no_spec);
        let status = object.status.as_ref().unwrap_or(&no_status);
        let counts = [spec.replicas.unwrap_or_default(), status.replicas, status.ready_replicas.unwrap_or_default()];
        replica_row(&object.metadata, now, counts, spec.template.as_ref(), format_labels(&spec.selector).into())
    }

    fn scale(object: &Object) -> Option<ScaleView> {
        let spec = object.spec.as_ref()?;
        let terms: Vec<String> = entries(&spec.selector).map(|(key, value)| format!("{key}={value}")).collect();
        Some(ScaleView {
            replicas: spec.replicas.unwrap_or_default(),
            current: object.status.as_ref().map_or(0, |status| status.replicas),
            selector: terms.join(","),
        })
    }

    fn set_scale(object: &mut Object, replicas: i32) {
        object.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

fn validate_selected(
    errors: &mut ErrorList,
    path: &Path,
    spec: &ReplicationControllerSpec,
    template: &PodTemplateSpec,
) {
    let labels = template_labels(template);
    if entries(&spec.selector).any(|(key, value)| labels.get(key) != Some(value)) {
        mismatch(errors, path, &labels);
    }
    validate_template(errors, path, template);
    validate_restart(errors, path, template, "ReplicationController");
}
