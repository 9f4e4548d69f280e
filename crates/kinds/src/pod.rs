//! core/v1 Pod, and what it shares with the workloads that carry a template of it.
//!
//! | module | subject |
//! |---|---|
//! | [`defaults`] | what upstream fills in |
//! | [`strategy`] | what is taken from the stored pod, and how long its end may take |
//! | [`spec`] | validation of a specification; the other modules validate its parts |
//! | [`update`], [`resize`] | what may change later |
//! | [`warnings`] | what is told and not refused |
//! | [`unenforced`] | of that, what no node here does |
//! | [`resources`] | requests, limits, quality-of-service class |
//! | [`columns`] | the table |

mod columns;
mod containers;
mod defaults;
mod env;
mod network_volumes;
mod probes;
mod resize;
pub(crate) mod resources;
pub(crate) mod scheduling;
mod security;
mod spec;
mod strategy;
mod unenforced;
mod update;
mod volumes;
mod warnings;
mod windows;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod unenforced_tests;
#[cfg(test)]
mod warnings_tests;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod as Object, PodSpec, PodStatus};
use machinery::field::{ErrorList, Path};
use registry::kind::{Column, Context, Descriptor, Kind, MetadataReset, Subresource, bump_generation};
use serde_json::Value;

pub(crate) use defaults::template as default_template;
pub(crate) use spec::validate_template;
pub(crate) use warnings::of_template as template_warnings;

use super::common::{blank, list, text};

/// Pods.
pub(crate) struct Pod;

impl Kind for Pod {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        short_names: &["po"],
        categories: &["all"],
        subresources: &[
            Subresource::Attach,
            Subresource::Binding,
            Subresource::EphemeralContainers,
            Subresource::Eviction,
            Subresource::Exec,
            Subresource::Log,
            Subresource::PortForward,
            Subresource::Proxy,
            Subresource::Resize,
            Subresource::Status,
        ],
        selectable: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        returns_deleted_object: true,
        status_reset: MetadataReset::OwnerReferences,
        ..Descriptor::namespaced("", "v1", "Pod", "pods")
    };

    fn default(object: &mut Object) {
        defaults::pod(object.spec.get_or_insert_default());
    }

    fn prepare_create(object: &mut Object, context: &Context<'_>) {
        strategy::merge_affinity_label_keys(object);
        let spec = object.spec.get_or_insert_default();
        let conditions = strategy::gated_condition(spec, context.now).map(|condition| vec![condition]);
        object.status = Some(PodStatus {
            phase: Some("Pending".to_owned()),
            qos_class: Some(resources::qos_class(spec).to_owned()),
            conditions,
            ..PodStatus::default()
        });
        object.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut Object, old: &Object) {
        new.status.clone_from(&old.status);
        strategy::keep_account(new, old);
        let changed = new.spec != old.spec;
        bump_generation(&mut new.metadata, changed);
    }

    fn prepare_status(new: &mut Object, old: &Object) {
        new.spec.clone_from(&old.spec);
        let status = new.status.get_or_insert_default();
        // Old clients send a status without what they do not know; the class of service never changes anyway.
        if blank(&status.qos_class) {
            status.qos_class = old.status.as_ref().and_then(|status| status.qos_class.clone());
        }
    }

    fn prepare_subresource(subresource: Subresource, new: &mut Object, old: &Object) {
        let desired = new.spec.take().unwrap_or_default();
        let mut spec = old.spec.clone().unwrap_or_default();
        match subresource {
            Subresource::EphemeralContainers => spec.ephemeral_containers = desired.ephemeral_containers,
            Subresource::Resize => strategy::take_resources(&mut spec, desired),
            _ => {}
        }
        new.spec = Some(spec);
        new.status.clone_from(&old.status);
        let changed = new.spec != old.spec;
        bump_generation(&mut new.metadata, changed);
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec");
        spec::pod_annotations(&mut errors, &Path::new("metadata").child("annotations"), &object.metadata);
        let empty = PodSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&empty);
        spec::validate(&mut errors, &path, spec, Some(&object.metadata));
        let all = [("containers", spec.containers.as_slice()), ("initContainers", list(&spec.init_containers))];
        for (name, items) in all {
            for (index, container) in items.iter().enumerate() {
                containers::trimmed_image(&mut errors, &path.child(name).index(index), container);
            }
        }
        errors
    }

    fn validate_create(object: &Object) -> ErrorList {
        strategy::validate_create(object)
    }

    fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
        if old.is_some() { Vec::new() } else { warnings::of_pod(new) }
    }

    fn validate_update(new: &Object, old: &Object) -> ErrorList {
        update::validate(new, old)
    }

    fn validate_subresource(subresource: Subresource, new: &Object, old: &Object) -> ErrorList {
        match subresource {
            Subresource::EphemeralContainers => {
                let mut errors = Self::validate(new);
                errors.extend(update::validate_ephemeral(new, old));
                errors
            }
            Subresource::Resize => {
                let mut errors = Self::validate(new);
                errors.extend(resize::validate(new, old));
                errors
            }
            _ => update::validate(new, old),
        }
    }

    fn validate_status(new: &Object, old: &Object) -> ErrorList {
        update::validate_status(new, old)
    }

    fn fields(object: &Object) -> Vec<(&'static str, String)> {
        let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
        let spec = object.spec.as_ref().unwrap_or(&no_spec);
        let status = object.status.as_ref().unwrap_or(&no_status);
        let addresses: Vec<&str> = list(&status.pod_ips).iter().map(|address| address.ip.as_str()).collect();
        vec![
            ("spec.nodeName", text(&spec.node_name).to_owned()),
            ("spec.restartPolicy", text(&spec.restart_policy).to_owned()),
            ("spec.schedulerName", text(&spec.scheduler_name).to_owned()),
            ("spec.serviceAccountName", text(&spec.service_account_name).to_owned()),
            ("spec.hostNetwork", spec.host_network.unwrap_or_default().to_string()),
            ("status.phase", text(&status.phase).to_owned()),
            ("status.podIP", addresses.first().copied().unwrap_or_default().to_owned()),
            ("status.podIPs", addresses.join(",")),
            ("status.nominatedNodeName", text(&status.nominated_node_name).to_owned()),
        ]
    }

    fn columns() -> Vec<Column> {
        columns::columns()
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        columns::row(object, now)
    }

    fn grace_period(object: &Object, requested: Option<i64>) -> Option<i64> {
        Some(strategy::grace_period(object, requested))
    }
}
