//! The addon `lws`: LeaderWorkerSets, groups of one leader and its workers that start, fail and are updated as one.
//!
//! | part | file |
//! |---|---|
//! | the kind, leaderworkerset.x-k8s.io/v1 | [`api`] |
//! | the controller `leaderworkerset`: LeaderWorkerSets, StatefulSets, Pods, Services → StatefulSets, Services | [`controller`] |
//! | the admission plugin `LeaderWorkerSet`: what a Pod is told of its group | [`admission`] |
//! | what the controller may do | `addon.policy` |
//!
//! All of it acts only while the definition is there that the addon installed.

pub mod admission;
pub mod api;
pub mod controller;
#[cfg(test)]
mod tests;

use addons::{Addon, definition};
use controllers::controller::Row;
use registry::admission::AdmissionPlugin;

/// The addon's name.
pub const NAME: &str = "lws";

/// The addon.
pub static ADDON: Addon = Addon {
    name: NAME,
    about: "LeaderWorkerSet: groups of a leader and its workers, replicated as one",
    definitions: || vec![definition::<api::LeaderWorkerSet>()],
    policy: include_str!("addon.policy"),
    makes: &[],
};

/// Its controllers.
pub static CONTROLLERS: &[Row] = &[Row::of_custom::<controller::LeaderWorkerSets>()];

/// Its admission plugin. It stands where the webhook of its project would be called.
pub static ADMISSION: &dyn AdmissionPlugin = &admission::LeaderWorkerSetPlugin;

/// The annotations and labels of `leaderworkerset.sigs.k8s.io`, as published.
pub(crate) mod labels {
    /// The label with the name of the LeaderWorkerSet.
    pub(crate) const NAME: &str = "leaderworkerset.sigs.k8s.io/name";
    /// The label with the index of a Pod's group.
    pub(crate) const GROUP_INDEX: &str = "leaderworkerset.sigs.k8s.io/group-index";
    /// The label that all Pods of a group share with nobody else.
    pub(crate) const GROUP_KEY: &str = "leaderworkerset.sigs.k8s.io/group-key";
    /// The label with the index of a Pod in its group; the leader's is 0.
    pub(crate) const WORKER_INDEX: &str = "leaderworkerset.sigs.k8s.io/worker-index";
    /// The label with the revision that an object was made of.
    pub(crate) const REVISION: &str = "leaderworkerset.sigs.k8s.io/template-revision-hash";
    /// The annotation of the leaders' StatefulSet with the number of groups that is asked for.
    pub(crate) const REPLICAS: &str = "leaderworkerset.sigs.k8s.io/replicas";
    /// The annotation of a Pod with the size of its group.
    pub(crate) const SIZE: &str = "leaderworkerset.sigs.k8s.io/size";
    /// The annotation of a worker with the name of its leader.
    pub(crate) const LEADER_NAME: &str = "leaderworkerset.sigs.k8s.io/leader-name";
    /// The annotation of a leader that has a subdomain of its own.
    pub(crate) const SUBDOMAIN_POLICY: &str = "leaderworkerset.sigs.k8s.io/subdomainPolicy";
    /// The annotation of a Pod with the size of its subgroup.
    pub(crate) const SUBGROUP_SIZE: &str = "leaderworkerset.sigs.k8s.io/subgroup-size";
    /// The annotation of a Pod with the type of the policy for subgroups.
    pub(crate) const SUBGROUP_TYPE: &str = "leaderworkerset.sigs.k8s.io/subgroup-policy-type";
    /// The label with the index of a Pod's subgroup.
    pub(crate) const SUBGROUP_INDEX: &str = "leaderworkerset.sigs.k8s.io/subgroup-index";
    /// The label that all Pods of a subgroup share with nobody else.
    pub(crate) const SUBGROUP_KEY: &str = "leaderworkerset.sigs.k8s.io/subgroup-key";
    /// The annotation that asks for a topology domain for each group alone.
    pub(crate) const EXCLUSIVE: &str = "leaderworkerset.sigs.k8s.io/exclusive-topology";
    /// The same for subgroups.
    pub(crate) const SUBGROUP_EXCLUSIVE: &str = "leaderworkerset.sigs.k8s.io/subgroup-exclusive-topology";
}
