//! apps/v1 Deployment.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment as Object, DeploymentSpec, DeploymentStatus, DeploymentStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::field::{ErrorList, Path};
use registry::kind::{
    Column, Context, Descriptor, Kind, MetadataReset, ScaleView, Subresource, bump_generation, cell_age, cell_name,
};
use serde_json::Value;

use super::check::{Report, immutable, non_negative};
use super::common::{container_cells, container_columns, default_text, format_selector, template_containers, text};
use super::pod::{default_template, template_warnings};
use super::workload::{
    at_most_all, is_nothing, positive_count_or_percent, validate_counts, validate_selected_template,
};

/// Deployments.
pub(crate) struct Deployment;

impl Kind for Deployment {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["deploy"],
        categories: &["all"],
        subresources: &[Subresource::Scale, Subresource::Status],
        status_reset: MetadataReset::Labels,
        ..Descriptor::namespaced("apps", "v1", "Deployment", "deployments")
    };

    fn default(object: &mut Object) {
        let spec = object.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
        let strategy = spec.strategy.get_or_insert_default();
        default_text(&mut strategy.type_, "RollingUpdate");
        if text(&strategy.type_) == "RollingUpdate" {
            let update = strategy.rolling_update.get_or_insert_default();
            let quarter = || IntOrString::String("25%".to_owned());
            update.max_unavailable.get_or_insert_with(quarter);
            update.max_surge.get_or_insert_with(quarter);
        }
        default_template(&mut spec.template);
    }

    fn prepare_create(object: &mut Object, _context: &Context<'_>) {
        object.status = Some(DeploymentStatus::default());
        object.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut Object, old: &Object) {
        new.status.clone_from(&old.status);
        // Annotations are copied to the ReplicaSets, so a change of theirs is work for the controller.
        let changed = new.spec != old.spec || new.metadata.annotations != old.metadata.annotations;
        bump_generation(&mut new.metadata, changed);
    }

    fn prepare_status(new: &mut Object, old: &Object) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let empty = DeploymentSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&empty);
        let path = Path::new("spec");
        non_negative(&mut errors, &path.child("replicas"), spec.replicas.unwrap_or_default());
        validate_selected_template(&mut errors, &path, &spec.selector, &spec.template, "ReplicaSet");
        if let Some(strategy) = &spec.strategy {
            validate_strategy(&mut errors, &path.child("strategy"), strategy);
        }
        let min_ready = spec.min_ready_seconds.unwrap_or_default();
        non_negative(&mut errors, &path.child("minReadySeconds"), min_ready);
        if let Some(limit) = spec.revision_history_limit {
            non_negative(&mut errors, &path.child("revisionHistoryLimit"), limit);
        }
        if let Some(deadline) = spec.progress_deadline_seconds {
            let path = path.child("progressDeadlineSeconds");
            non_negative(&mut errors, &path, deadline);
            if deadline <= min_ready {
                errors.invalid(&path, deadline, "must be greater than minReadySeconds");
            }
        }
        errors
    }

    fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
        let template = new.spec.as_ref().map(|spec| &spec.template);
        template_warnings(new, old, true, &["spec", "template"], template)
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            immutable(&mut errors, &Path::new("spec").child("selector"), &new.selector, &old.selector);
        }
        errors
    }

    fn validate_status(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(status) = &new.status else { return errors };
        let path = Path::new("status");
        non_negative(&mut errors, &path.child("observedGeneration"), status.observed_generation.unwrap_or_default());
        non_negative(&mut errors, &path.child("unavailableReplicas"), status.unavailable_replicas.unwrap_or_default());
        validate_counts(
            &mut errors,
            status.replicas.unwrap_or_default(),
            &[
                ("updatedReplicas", status.updated_replicas),
                ("readyReplicas", status.ready_replicas),
                ("availableReplicas", status.available_replicas),
            ],
        );
        let collisions = |object: &Object| object.status.as_ref().and_then(|status| status.collision_count);
        let (now, before) = (collisions(new), collisions(old));
        non_negative(&mut errors, &path.child("collisionCount"), now.unwrap_or_default());
        if now < before {
            errors.invalid(&path.child("collisionCount"), now.unwrap_or_default(), "cannot be decremented");
        }
        errors
    }

    fn columns() -> Vec<Column> {
        let [containers, images] = container_columns();
        vec![
            Column::name(),
            Column::string("Ready", "How many of the desired pods are ready."),
            Column::integer("Up-to-date", "Pods made of the current template."),
            Column::integer("Available", "Pods that have been ready for long enough."),
            Column::age(),
            containers,
            images,
            Column::wide("Selector", "Selector of the pods."),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let (no_spec, no_status) = (DeploymentSpec::default(), DeploymentStatus::default());
        let spec = object.spec.as_ref().unwrap_or(&no_spec);
        let status = object.status.as_ref().unwrap_or(&no_status);
        let [names, images] = container_cells(template_containers(&spec.template));
        vec![
            cell_name(&object.metadata),
            format!("{}/{}", status.ready_replicas.unwrap_or_default(), spec.replicas.unwrap_or_default()).into(),
            status.updated_replicas.unwrap_or_default().into(),
            status.available_replicas.unwrap_or_default().into(),
            cell_age(&object.metadata, now),
            names,
            images,
            format_selector(&spec.selector).into(),
        ]
    }

    fn scale(object: &Object) -> Option<ScaleView> {
        let spec = object.spec.as_ref()?;
        Some(ScaleView {
            replicas: spec.replicas.unwrap_or_default(),
            current: object.status.as_ref().and_then(|status| status.replicas).unwrap_or_default(),
            selector: format_selector(&spec.selector),
        })
    }

    fn set_scale(object: &mut Object, replicas: i32) {
        object.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

fn validate_strategy(errors: &mut ErrorList, path: &Path, strategy: &DeploymentStrategy) {
    let field = path.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("Recreate", Some(_)) => {
            errors.forbidden(&field, "may not be specified when strategy `type` is 'Recreate'");
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => errors.required(&field, "this should be defaulted and never be nil"),
        ("RollingUpdate", Some(update)) => {
            let zero = IntOrString::Int(0);
            let unavailable = update.max_unavailable.as_ref().unwrap_or(&zero);
            let surge = update.max_surge.as_ref().unwrap_or(&zero);
            positive_count_or_percent(errors, &field.child("maxUnavailable"), unavailable);
            positive_count_or_percent(errors, &field.child("maxSurge"), surge);
            if is_nothing(unavailable) && is_nothing(surge) {
                errors.invalid(&field.child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0");
            }
            at_most_all(errors, &field.child("maxUnavailable"), unavailable);
        }
        (other, _) => errors.not_supported(&path.child("type"), other, &["Recreate", "RollingUpdate"]),
    }
}

#[cfg(test)]
#[path = "deployment_tests.rs"]
mod tests;
