//! The addon `rbg`: RoleBasedGroups, applications of several roles that start in the order of their dependencies.
//!
//! | part | file |
//! |---|---|
//! | RoleBasedGroup, RoleBasedGroupSet and RoleBasedGroupScalingAdapter of workloads.x-k8s.io | [`api`] |
//! | the controller `rolebasedgroup`: RoleBasedGroups, what it makes of them, and Pods → workloads, Services, ConfigMaps, PodGroups, scaling adapters | [`controller`] |
//! | the controller `rolebasedgroupset`: RoleBasedGroupSets → RoleBasedGroups | [`set`] |
//! | what the controllers may do | `addon.policy` |
//!
//! All of it acts only while the definitions are there that the addon installed.

pub mod api;
mod conditions;
pub mod controller;
pub mod set;
#[cfg(test)]
mod tests;

use addons::{Addon, definition_of_versions};
use api::{v1alpha1, v1alpha2};
use controllers::controller::Row;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The addon's name.
pub const NAME: &str = "rbg";

/// The addon.
pub static ADDON: Addon = Addon {
    name: NAME,
    about: "RoleBasedGroup: an application of several roles, each a workload of its own",
    definitions: || {
        vec![
            both::<v1alpha2::RoleBasedGroup, v1alpha1::RoleBasedGroup>(),
            both::<v1alpha2::RoleBasedGroupSet, v1alpha1::RoleBasedGroupSet>(),
            both::<v1alpha2::RoleBasedGroupScalingAdapter, v1alpha1::RoleBasedGroupScalingAdapter>(),
        ]
    },
    policy: include_str!("addon.policy"),
    makes: &[],
};

/// Its controllers.
pub static CONTROLLERS: &[Row] =
    &[Row::of_custom::<controller::RoleBasedGroups>(), Row::of_custom::<set::RoleBasedGroupSets>()];

/// The definition of a kind of both versions.
fn both<Stored: CustomResourceExt, Earlier: CustomResourceExt>() -> CustomResourceDefinition {
    definition_of_versions(vec![Stored::crd(), Earlier::crd()], "v1alpha2")
}
