//! apps/v1 StatefulSet.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    StatefulSet as Object, StatefulSetSpec, StatefulSetStatus, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use machinery::field::{ErrorList, Path};
use registry::kind::{
    Column, Descriptor, Kind, NameRule, ScaleView, Subresource, cell_age, cell_name, spec_and_status,
};
use serde_json::Value;

use super::check::{Report, labels, non_negative, one_of};
use super::common::{container_cells, container_columns, default_text, format_selector, template_containers, text};
use super::pod::{default_template, template_warnings};
use super::storage::default_claim_spec;
use super::workload::{
    at_most_all, is_nothing, positive_count_or_percent, validate_counts, validate_restart, validate_selector,
};

const RETENTION: [&str; 2] = ["Delete", "Retain"];

/// StatefulSets.
pub(crate) struct StatefulSet;

impl Kind for StatefulSet {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["sts"],
        categories: &["all"],
        subresources: &[Subresource::Scale, Subresource::Status],
        names: NameRule::Label,
        ..Descriptor::namespaced("apps", "v1", "StatefulSet", "statefulsets")
    };

    fn default(object: &mut Object) {
        let spec = object.spec.get_or_insert_default();
        default_text(&mut spec.pod_management_policy, "OrderedReady");
        let strategy = spec.update_strategy.get_or_insert_default();
        default_text(&mut strategy.type_, "RollingUpdate");
        if text(&strategy.type_) == "RollingUpdate" {
            strategy.rolling_update.get_or_insert_default().partition.get_or_insert(0);
        }
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        default_text(&mut retention.when_deleted, "Retain");
        default_text(&mut retention.when_scaled, "Retain");
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        default_template(&mut spec.template);
        spec.volume_claim_templates.iter_mut().flatten().for_each(default_claim);
    }

    spec_and_status!();

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let empty = StatefulSetSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&empty);
        let path = Path::new("spec");
        one_of(
            &mut errors,
            &path.child("podManagementPolicy"),
            text(&spec.pod_management_policy),
            &["OrderedReady", "Parallel"],
        );
        if let Some(strategy) = &spec.update_strategy {
            validate_strategy(&mut errors, &path.child("updateStrategy"), strategy);
        }
        if let Some(retention) = &spec.persistent_volume_claim_retention_policy {
            let path = path.child("persistentVolumeClaimRetentionPolicy");
            one_of(&mut errors, &path.child("whenDeleted"), text(&retention.when_deleted), &RETENTION);
            one_of(&mut errors, &path.child("whenScaled"), text(&retention.when_scaled), &RETENTION);
        }
        non_negative(&mut errors, &path.child("replicas"), spec.replicas.unwrap_or_default());
        non_negative(&mut errors, &path.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or_default());
        non_negative(&mut errors, &path.child("revisionHistoryLimit"), spec.revision_history_limit.unwrap_or_default());
        let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or_default();
        non_negative(&mut errors, &path.child("ordinals").child("start"), start);
        validate_selector(&mut errors, &path, &spec.selector, &spec.template);
        // Mounts of claims from the claim templates refer to no volume of the template, so the pod specification is
        // left, as upstream does, to the Pods that are made of it.
        let path = path.child("template");
        if let Some(meta) = &spec.template.metadata {
            labels(&mut errors, &path.child("labels"), &meta.labels);
        }
        validate_restart(&mut errors, &path, &spec.template, "StatefulSet");
        errors
    }

    fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
        let template = new.spec.as_ref().map(|spec| &spec.template);
        template_warnings(new, old, false, &["spec", "template"], template)
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return errors };
        let masked = StatefulSetSpec {
            replicas: old.replicas,
            ordinals: old.ordinals.clone(),
            template: old.template.clone(),
            update_strategy: old.update_strategy.clone(),
            revision_history_limit: old.revision_history_limit,
            persistent_volume_claim_retention_policy: old.persistent_volume_claim_retention_policy.clone(),
            min_ready_seconds: old.min_ready_seconds,
            ..new.clone()
        };
        if masked != *old {
            errors.forbidden(
                &Path::new("spec"),
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                 'minReadySeconds' are forbidden",
            );
        }
        errors
    }

    fn validate_status(new: &Object, _old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(status) = &new.status else { return errors };
        validate_counts(
            &mut errors,
            status.replicas,
            &[
                ("readyReplicas", status.ready_replicas),
                ("currentReplicas", status.current_replicas),
                ("updatedReplicas", status.updated_replicas),
                ("availableReplicas", status.available_replicas),
            ],
        );
        errors
    }

    fn columns() -> Vec<Column> {
        let [containers, images] = container_columns();
        vec![
            Column::name(),
            Column::string("Ready", "How many of the desired pods are ready."),
            Column::age(),
            containers,
            images,
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let (no_spec, no_status) = (StatefulSetSpec::default(), StatefulSetStatus::default());
        let spec = object.spec.as_ref().unwrap_or(&no_spec);
        let status = object.status.as_ref().unwrap_or(&no_status);
        let [names, images] = container_cells(template_containers(&spec.template));
        vec![
            cell_name(&object.metadata),
            format!("{}/{}", status.ready_replicas.unwrap_or_default(), spec.replicas.unwrap_or_default()).into(),
            cell_age(&object.metadata, now),
            names,
            images,
        ]
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

fn default_claim(claim: &mut PersistentVolumeClaim) {
    default_claim_spec(claim.spec.get_or_insert_default());
    default_text(&mut claim.status.get_or_insert_default().phase, "Pending");
}

fn validate_strategy(errors: &mut ErrorList, path: &Path, strategy: &StatefulSetUpdateStrategy) {
    let field = path.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("OnDelete", Some(update)) => {
            errors.invalid(&field, update, "only allowed for updateStrategy 'RollingUpdate'");
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        ("RollingUpdate", Some(update)) => {
            non_negative(errors, &field.child("partition"), update.partition.unwrap_or_default());
            if let Some(unavailable) = &update.max_unavailable {
                let field = field.child("maxUnavailable");
                positive_count_or_percent(errors, &field, unavailable);
                if is_nothing(unavailable) {
                    errors.invalid(&field, unavailable, "cannot be 0");
                }
                at_most_all(errors, &field, unavailable);
            }
        }
        (_, _) => errors.invalid(path, strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
}
