//! The built-in kinds, one file each, the table that lists them, and the chain of admission.
//!
//! Defaults, validation, messages and columns are upstream's (1.36). Adding a kind is adding a file and a row to
//! [`all`]. What several kinds need is in `check` (validation), `common` (reading optional fields, cells),
//! `workload` (selector and template) and `pod` (the specification of a pod).

mod admission;
mod admission_policy;
pub mod api_service;
mod binding;
mod bootstrap;
mod certificates;
mod check;
mod common;
mod component_status;
mod config_map;
mod controller_revision;
mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod disruption_budget;
mod endpoint_slice;
mod endpoints;
mod event;
pub mod flowcontrol;
mod horizontal_pod_autoscaler;
mod job;
mod lease;
mod limit_range;
mod namespace;
mod networking;
mod node;
mod pod;
mod pod_template;
mod priority_class;
mod rbac;
mod replica_set;
mod replication_controller;
mod resource_quota;
mod runtime_class;
mod secret;
mod service;
mod service_account;
mod stateful_set;
mod storage;
mod webhooks;
mod workload;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use registry::ops::{Alternate, Typed};
use registry::table::Resource;

pub use admission::{AdmissionConfig, PLUGINS, PodSecurityConfiguration, plugins};
pub use bootstrap::bootstrap;

/// Every built-in kind, in the order in which discovery lists them.
#[must_use]
pub fn all() -> Vec<Resource> {
    let mut kinds = vec![
        Typed::<binding::Binding>::shared(),
        Typed::<component_status::ComponentStatus>::shared(),
        Typed::<config_map::ConfigMap>::shared(),
        Typed::<endpoints::Endpoints>::shared(),
        Typed::<event::Event>::shared(),
        Typed::<limit_range::LimitRange>::shared(),
        Typed::<namespace::Namespace>::shared(),
        Typed::<node::Node>::shared(),
        Typed::<pod::Pod>::shared(),
        Typed::<pod_template::PodTemplate>::shared(),
        Typed::<replication_controller::ReplicationController>::shared(),
        Typed::<resource_quota::ResourceQuota>::shared(),
        Typed::<secret::Secret>::shared(),
        Typed::<service_account::ServiceAccount>::shared(),
        Typed::<service::Service>::shared(),
        Typed::<controller_revision::ControllerRevision>::shared(),
        Typed::<daemon_set::DaemonSet>::shared(),
        Typed::<deployment::Deployment>::shared(),
        Typed::<replica_set::ReplicaSet>::shared(),
        Typed::<stateful_set::StatefulSet>::shared(),
        Typed::<horizontal_pod_autoscaler::HorizontalPodAutoscaler>::shared(),
        Alternate::<horizontal_pod_autoscaler::HorizontalPodAutoscalerV1>::shared(),
        Typed::<job::CronJob>::shared(),
        Typed::<job::Job>::shared(),
        Typed::<lease::Lease>::shared(),
        Typed::<endpoint_slice::EndpointSlice>::shared(),
        Alternate::<event::EventView>::shared(),
        Typed::<disruption_budget::PodDisruptionBudget>::shared(),
        Typed::<priority_class::PriorityClass>::shared(),
        Typed::<custom_resource_definition::CustomResourceDefinition>::shared(),
        Typed::<webhooks::Mutating>::shared(),
        Typed::<webhooks::Validating>::shared(),
    ];
    kinds.push(Typed::<api_service::APIService>::shared());
    kinds.extend(certificates::all());
    kinds.extend(admission_policy::all());
    kinds.extend(storage::core());
    kinds.extend(flowcontrol::all());
    kinds.extend(networking::all());
    kinds.push(Typed::<runtime_class::RuntimeClass>::shared());
    kinds.extend(storage::storage());
    kinds.extend(rbac::all());
    kinds
}
