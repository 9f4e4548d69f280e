//! apps/v1 StatefulSet.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    StatefulSet as Object, StatefulSetSpec, StatefulSetStatus, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource, Volume,
};
use machinery::field::{ErrorList, Path};
use registry::kind::{
    Column, Descriptor, Kind, NameRule, ScaleView, Subresource, cell_age, cell_name, spec_and_status,
};
use serde_json::Value;

use super::check::{Report, dns_label, non_negative, one_of};
use super::common::{
    container_cells, container_columns, default_text, format_selector, list, template_containers, text,
};
use super::pod::{default_template, template_warnings, validate_template};
use super::storage::{default_claim_spec, validate_claim_spec};
use super::workload::{
    at_most_all, is_nothing, positive_count_or_percent, validate_counts, validate_restart, validate_selector,
};

const RETENTION: [&str; 2] = ["Retain", "Delete"];

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
        // In Go, these two have no way to be missing.
        spec.service_name.get_or_insert_default();
        if let Some(ordinals) = &mut spec.ordinals {
            ordinals.start.get_or_insert(0);
        }
        let strategy = spec.update_strategy.get_or_insert_default();
        if text(&strategy.type_).is_empty() {
            strategy.type_ = Some("RollingUpdate".to_owned());
            strategy.rolling_update.get_or_insert_default();
        }
        if let ("RollingUpdate", Some(update)) = (text(&strategy.type_), &mut strategy.rolling_update) {
            update.partition.get_or_insert(0);
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
        validate_spec(object, true)
    }

    fn validate_create(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(spec) = &object.spec else { return errors };
        let path = Path::new("spec");
        for (index, claim) in list(&spec.volume_claim_templates).iter().enumerate() {
            let empty = PersistentVolumeClaimSpec::default();
            let path = path.child("volumeClaimTemplates").index(index).child("spec");
            validate_claim_spec(&mut errors, &path, claim.spec.as_ref().unwrap_or(&empty));
        }
        let service = text(&spec.service_name);
        if !service.is_empty() {
            dns_label(&mut errors, &path.child("serviceName"), service);
        }
        errors
    }

    /// A template that was stored before it was validated may stay as it is.
    fn validate_kept(new: &Object, old: &Object) -> ErrorList {
        let was_valid = old.spec.as_ref().is_none_or(|spec| template_errors(spec).0.is_empty());
        validate_spec(new, was_valid)
    }

    fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
        let template = new.spec.as_ref().map(|spec| &spec.template);
        template_warnings(new, old, false, &["spec", "template"], template)
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return errors };
        let mut masked = StatefulSetSpec {
            replicas: old.replicas,
            ordinals: old.ordinals.clone(),
            template: old.template.clone(),
            update_strategy: old.update_strategy.clone(),
            revision_history_limit: old.revision_history_limit,
            persistent_volume_claim_retention_policy: old.persistent_volume_claim_retention_policy.clone(),
            min_ready_seconds: old.min_ready_seconds,
            ..new.clone()
        };
        // What was stored before it was a default is no other name.
        if text(&old.service_name).is_empty() && text(&new.service_name).is_empty() {
            masked.service_name.clone_from(&old.service_name);
        }
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

fn validate_spec(object: &Object, validates_template: bool) -> ErrorList {
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
    if validates_template {
        errors.0.extend(template_errors(spec).0);
    }
    validate_restart(&mut errors, &path.child("template"), &spec.template, "StatefulSet");
    errors
}

/// What is wrong with the template of the pods, with the volumes that the controller will give them and without the names
/// that it will set.
fn template_errors(spec: &StatefulSetSpec) -> ErrorList {
    let mut template = spec.template.clone();
    let pod = template.spec.get_or_insert_default();
    (pod.hostname, pod.subdomain) = (None, None);
    let claims: Vec<&str> = list(&spec.volume_claim_templates).iter().map(|claim| text(&claim.metadata.name)).collect();
    let of_claims = claims.iter().map(|name| Volume {
        name: (*name).to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: (*name).to_owned(),
            read_only: None,
        }),
        ..Volume::default()
    });
    let others = pod.volumes.take().unwrap_or_default().into_iter();
    let others = others.filter(|volume| !claims.contains(&volume.name.as_str()));
    pod.volumes = Some(of_claims.chain(others).collect());
    let mut errors = ErrorList::new();
    validate_template(&mut errors, &Path::new("spec").child("template"), &template);
    errors
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
