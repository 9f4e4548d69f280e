//! apps/v1 ReplicaSet.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet as Object, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use machinery::field::{ErrorList, Path};
use registry::kind::{Column, Descriptor, Kind, ScaleView, Subresource, spec_and_status};
use serde_json::Value;

use super::check::{immutable, non_negative};
use super::common::{format_selector, or_none};
use super::pod::{default_template, template_warnings};
use super::workload::{replica_columns, replica_row, validate_counts, validate_selected_template};

/// ReplicaSets.
pub(crate) struct ReplicaSet;

impl Kind for ReplicaSet {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["rs"],
        categories: &["all"],
        subresources: &[Subresource::Scale, Subresource::Status],
        selectable: &["status.replicas"],
        ..Descriptor::namespaced("apps", "v1", "ReplicaSet", "replicasets")
    };

    fn default(object: &mut Object) {
        let spec = object.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        default_template(spec.template.get_or_insert_default());
    }

    spec_and_status!();

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let (no_spec, no_template) = (ReplicaSetSpec::default(), PodTemplateSpec::default());
        let spec = object.spec.as_ref().unwrap_or(&no_spec);
        let template = spec.template.as_ref().unwrap_or(&no_template);
        let path = Path::new("spec");
        non_negative(&mut errors, &path.child("replicas"), spec.replicas.unwrap_or_default());
        non_negative(&mut errors, &path.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or_default());
        validate_selected_template(&mut errors, &path, &spec.selector, template, "ReplicaSet");
        errors
    }

    fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
        let template = new.spec.as_ref().and_then(|spec| spec.template.as_ref());
        template_warnings(new, old, true, &["spec", "template"], template)
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
        let generation = status.observed_generation.unwrap_or_default();
        non_negative(&mut errors, &Path::new("status").child("observedGeneration"), generation);
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
        replica_columns("Selector of the pods.")
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let (no_spec, no_status) = (ReplicaSetSpec::default(), ReplicaSetStatus::default());
        let spec = object.spec.as_ref().unwrap_or(&no_spec);
        let status = object.status.as_ref().unwrap_or(&no_status);
        let counts = [spec.replicas.unwrap_or_default(), status.replicas, status.ready_replicas.unwrap_or_default()];
        replica_row(&object.metadata, now, counts, spec.template.as_ref(), or_none(&format_selector(&spec.selector)))
    }

    fn scale(object: &Object) -> Option<ScaleView> {
        let spec = object.spec.as_ref()?;
        Some(ScaleView {
            replicas: spec.replicas.unwrap_or_default(),
            current: object.status.as_ref().map_or(0, |status| status.replicas),
            selector: format_selector(&spec.selector),
        })
    }

    fn set_scale(object: &mut Object, replicas: i32) {
        object.spec.get_or_insert_default().replicas = Some(replicas);
    }
}
